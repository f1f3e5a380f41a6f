"""`mynah demo`: the main job in one go. Starts a server on free ports and talks to it as a device would."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from mynah.errors import MynahError
from mynah.sim.talk import TalkOptions
from mynah.sim.talk import run as talk

QUESTIONS = ("what time is it", "what is twelve times seven", "tell me a joke")
REPLY_FILE = Path("reply.wav")
START_LIMIT_S = 30.0
"""A server that is not ready by then never will be."""


class DemoError(MynahError):
    """The demo's server did not start."""

    code = "demo"


def run() -> int:
    """Return 0 when every question was answered."""
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory(prefix="mynah-demo-") as folder:
        console.print(
            "[bold]1.[/] starting a server on free ports: mynah serve -s server.port=0 -s server.http_port=0 …"
        )
        try:
            with _server(Path(folder)) as (ota, started_s):
                console.print(f"   ready after {started_s:.1f} s, devices ask {ota}")
                console.print("[bold]2.[/] a simulated device asks where to connect, then speaks")
                code = talk(TalkOptions(ota=ota, text=QUESTIONS, save=REPLY_FILE))
        except DemoError as error:
            console.print(f"[red]{error}[/]")
            return 1
    console.print(
        f"[bold]3.[/] what the device played is in {REPLY_FILE}" if code == 0 else "[red]no answer[/]"
    )
    return code


@contextlib.contextmanager
def _server(folder: Path) -> Iterator[tuple[str, float]]:
    """Run `mynah serve` with its defaults; give its OTA address and how long it took to start."""
    settings = {
        "server.ip": "127.0.0.1",
        "server.port": "0",
        "server.http_port": "0",
        "server.pull4g_port": "0",
        "log.data_dir": str(folder),
        "log.log_dir": str(folder),
        "log.log_level": "WARNING",
    }
    command = [sys.executable, "-m", "mynah.cli", "serve"]
    for key, value in settings.items():
        command += ["-s", f"{key}={value}"]
    began = time.perf_counter()
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as server:  # noqa: S603
        try:
            yield _ota_address(server, began), time.perf_counter() - began
        finally:
            server.terminate()
            try:
                server.wait(15)
            except subprocess.TimeoutExpired:
                server.kill()


def _ota_address(server: subprocess.Popen[str], began: float) -> str:
    assert server.stdout is not None
    while time.perf_counter() - began < START_LIMIT_S:
        line = server.stdout.readline()
        if line.startswith("READY "):
            return dict(part.split("=", 1) for part in line.split()[1:])["ota"]
        if not line:
            break
    raise DemoError("the server did not start; `mynah serve` says why")
