"""Where the server's processor time goes while many people talk: ``python scripts/profile_server.py --output FILE``.

A server is started in this process, `mynah loadtest` in another. First the CPU time of the server's threads and of its
audio process is read for some seconds, undisturbed; then the event loop is profiled, which makes it a third slower, so
of that only the shares mean something.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import os
import pstats
import sys
import tempfile
import threading
from itertools import chain
from pathlib import Path

import msgspec
import uvloop
from loguru import logger

from mynah.app import App
from mynah.config import load

ROOT = Path(__file__).parents[1]
TICKS = os.sysconf("SC_CLK_TCK")
TOP = 40


def cpu_of(stat: Path) -> float:
    """Return user and system time in s of a process or thread, from its file in ``/proc``."""
    fields = stat.read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def clocks() -> dict[str, float]:
    """Return the CPU time of each kind of thread of this process, and of its child processes, in s."""
    found: dict[str, float] = {}
    names = {thread.native_id: thread.name for thread in threading.enumerate()}
    names[os.getpid()] = "event loop"
    for task in Path("/proc/self/task").iterdir():
        name = names.get(int(task.name), "others")
        found[name] = found.get(name, 0.0) + cpu_of(task / "stat")
    children = [path.read_text().split() for path in Path("/proc/self/task").glob("*/children")]
    for child in chain.from_iterable(children):
        command = Path(f"/proc/{child}/cmdline").read_bytes()
        if b"ingest_process" in command:
            found["audio process"] = cpu_of(Path(f"/proc/{child}/stat"))
    return found


async def measure(talkers: int, seconds: float, folder: str) -> dict[str, object]:
    """Run it; return what is written into the file."""
    overrides = ["server.ip=127.0.0.1", "server.port=0", "server.http_port=0", "server.pull4g_port=0"]
    overrides += ["log.log_file=", f"log.data_dir={folder}", "log.log_level=ERROR"]
    app = App(load(ROOT / "benchmarks/fakes.yaml", overrides, environ={}))
    addresses = await app.start()
    app.settle()
    command = [sys.executable, "-m", "mynah.cli", "loadtest", addresses.ota, "--behaviour", "talk"]
    command += ["--steps", str(talkers), "--duration", str(2 * seconds + 10), "--report", f"{folder}/report"]
    test = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.DEVNULL)
    while len(app.devices or ()) < talkers:  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0.2)
    await asyncio.sleep(8.0)
    before = clocks()
    await asyncio.sleep(seconds)
    shares = {name: (spent - before.get(name, 0.0)) / seconds for name, spent in clocks().items()}
    profile = cProfile.Profile()
    profile.enable()
    await asyncio.sleep(seconds)
    profile.disable()
    await test.wait()
    await app.stop(drain_s=0.0)
    stats = pstats.Stats(profile).stats  # type: ignore[attr-defined] # not in its stub
    whole = sum(entry[2] for entry in stats.values())
    top = sorted(stats.items(), key=lambda item: -item[1][2])[:TOP]
    return {
        "command": f"python scripts/profile_server.py --talkers {talkers} --seconds {seconds:g}",
        "talkers": talkers,
        "cores_by_thread": {
            name: round(share, 3) for name, share in sorted(shares.items()) if share >= 0.001
        },
        "event_loop": [
            {
                "function": f"{Path(file).name}:{line} {name}" if line else name,
                "share": round(entry[2] / whole, 4),
                "calls_per_s": round(entry[0] / seconds, 1),
            }
            for (file, line, name), entry in top
        ],
    }


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--talkers", type=int, default=300)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--output", type=Path)
    chosen = parser.parse_args()
    logger.remove()
    with tempfile.TemporaryDirectory() as folder:
        told = uvloop.run(measure(chosen.talkers, chosen.seconds, folder))
    text = msgspec.json.format(msgspec.json.encode(told), indent=1).decode() + "\n"
    if chosen.output:
        chosen.output.write_text(text)
    else:
        print(text)


if __name__ == "__main__":
    main()
