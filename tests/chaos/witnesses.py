"""Well-behaved devices that hold conversations in a loop, in a process of their own, and what they notice.

``python -m tests.chaos.witnesses URL N`` is that process: each turn becomes one line of JSON on standard output.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import Callable

import msgspec
import uvloop

from mynah.sim.conversation import Said, Target, converse
from mynah.sim.discovery import DeviceIdentity
from mynah.sim.link import ConnectError
from mynah.sim.voice import speak
from mynah.wire.messages import ListenMode
from tests.servers import ROOT

DEVICES = 3
TURN_TIMEOUT_S = 20.0
BEAT_S = 0.01


class Seen(msgspec.Struct, frozen=True):
    """One turn, as its device saw it. ``began_s`` and ``ended_s`` are on the machine's monotonic clock."""

    device: int
    began_s: float
    ended_s: float
    ok: bool
    error: str = ""
    setup_ms: float = 0.0
    """TCP connection, handshake and hello."""
    first_audio_ms: float = 0.0
    """From the end of speech; the fakes' own delays are 220 ms of it."""
    frames: int = 0
    late_frames: int = 0
    faults: dict[str, int] = {}
    """What a real device would have suffered (`mynah.sim.device.Counters`)."""
    own_lag_ms: float = 0.0
    """By how much this process itself was held up at worst: later frames than that are not the server's."""


class Lag:
    """Measures how late this loop is."""

    def __init__(self) -> None:
        self.worst_ms = 0.0
        self._due = 0.0
        self._arm()

    def take(self) -> float:
        """Return the worst since the last call."""
        worst, self.worst_ms = self.worst_ms, 0.0
        return worst

    def _arm(self) -> None:
        self._due = time.monotonic() + BEAT_S
        asyncio.get_running_loop().call_later(BEAT_S, self._beat)

    def _beat(self) -> None:
        self.worst_ms = max(self.worst_ms, (time.monotonic() - self._due) * 1000)
        self._arm()


async def _talk(url: str, device: int, tell: Callable[[Seen], None]) -> None:
    speech = [Said("hello", speak("hello"))]
    lag = Lag()
    identity = DeviceIdentity(device_id=f"0a:00:00:00:00:{device:02x}")
    target = Target(ws_url=url, mode=ListenMode.MANUAL, identity=identity, timeout_s=TURN_TIMEOUT_S)
    while True:
        lag.take()
        began = time.monotonic()
        try:
            told = await converse(target, speech)
        except ConnectError as error:
            tell(Seen(device, began, time.monotonic(), False, str(error), own_lag_ms=lag.take()))
            await asyncio.sleep(0.2)
            continue
        turn = told.turns[0]
        faults = {name: count for name, count in msgspec.structs.asdict(told.counters).items() if count}
        tell(
            Seen(
                device, began, time.monotonic(), turn.ok and not faults, turn.error, sum(told.stages.values()),
                turn.first_audio_ms or 0.0, round(turn.audio_seconds / 0.06), turn.late_frames, faults, lag.take(),
            )
        )  # fmt: skip


async def _main(url: str, devices: int) -> None:
    def tell(seen: Seen) -> None:
        sys.stdout.write(msgspec.json.encode(seen).decode() + "\n")
        sys.stdout.flush()

    await asyncio.gather(*(_talk(url, device, tell) for device in range(1, devices + 1)))


class Witnesses:
    """The process, seen from a test."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.seen: list[Seen] = []
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def start(cls, url: str, devices: int = DEVICES) -> Witnesses:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.chaos.witnesses",
            url,
            str(devices),
            cwd=ROOT,
            stdout=asyncio.subprocess.PIPE,
        )
        return cls(process)

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            self.seen.append(msgspec.json.decode(line, type=Seen))

    async def turns(self, since_s: float, until_s: float = float("inf"), each: int = 1) -> list[Seen]:
        """Wait until every device has taken ``each`` turns from ``since_s`` on; return those begun by ``until_s``."""
        while True:
            found = [seen for seen in self.seen if seen.began_s >= since_s]
            if all(sum(seen.device == device for seen in found) >= each for device in range(1, DEVICES + 1)):
                return [seen for seen in found if seen.began_s <= until_s]
            assert self._process.returncode is None, "the witnesses' process has ended"
            await asyncio.sleep(0.05)

    async def stop(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
        await self._reading


if __name__ == "__main__":
    uvloop.run(_main(sys.argv[1], int(sys.argv[2])))
