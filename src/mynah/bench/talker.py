"""People who talk to a server, many in one process: real Opus in real time, and what they have to wait for.

What a device sends was encoded before it begins, so that fifty of them cost the machine little; it leaves on the clock
of the microphone, 60 ms a packet. Times are taken where the device's socket is read. How late the process's own event
loop was is measured too: what is above it is the server's.
"""

from __future__ import annotations

import asyncio
import gc
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final, Self

import msgspec
import uvloop

from mynah.errors import MynahError
from mynah.sim.device import Direction, Observer, SimulatedDevice
from mynah.sim.discovery import DeviceIdentity
from mynah.sim.load.stock import Recording, recordings
from mynah.sim.microphone import FRAME_MS
from mynah.wire.messages import DeviceMessage, ListenMode, ReceivedMessage, Stt, Tts

SPREAD_S: Final = 2.0
"""The talkers begin one after another within so long, about one turn."""
_RELEASED = 3
"""Packets after the one with the last sound before the button is released: people take about 200 ms."""
_HEARD_S = 0.15
"""What is heard of an answer before it is cut off: by then its frames leave one by one."""
_PAUSES_S = (0.05, 0.15)
"""Between two turns in manual mode. In auto mode the device listens again when its buffer has played out."""
_ANSWER_TIMEOUT_S = 10.0
_START_TIMEOUT_S = 30.0
_TICK_S = 0.01
_PROGRAM = "import sys; from mynah.bench import talker; talker.main(*sys.argv[1:])"


class TurnTimes(msgspec.Struct, frozen=True):
    """One turn, in ms. It begins with the last sound of the speech (auto) or ``listen stop`` (manual)."""

    stt: float
    """From the beginning to the ``stt`` message."""
    first_audio: float
    """From the beginning to the first packet of the answer."""
    last_frame: float
    """From the interruption to the last frame that came after it; 0 when none did."""
    stop: float
    """From the interruption to ``tts stop``."""


class Talk(msgspec.Struct, frozen=True):
    """What the talkers of one process saw."""

    turns: list[TurnTimes]
    lag_ms: list[float]
    """How late the process's event loop was, looked at every 10 ms; its timers alone are up to 1 ms late."""
    seconds: float
    """From the first connection to the end of the last conversation."""
    faults: dict[str, int]
    """What the devices suffered, by the names of `mynah.sim.counters.Counters`; empty with a sound server."""


class _Watch(Observer):
    """Notes what comes in answer, by `time.monotonic`."""

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Get ready for the next turn."""
        loop = asyncio.get_running_loop()
        self.stt_at = self.last_audio_at = 0.0
        self.first_audio: asyncio.Future[float] = loop.create_future()
        self.stopped: asyncio.Future[float] = loop.create_future()

    def on_audio(self, direction: Direction, packet: bytes, at_s: float) -> None:  # noqa: ARG002
        """Note a packet of the reply."""
        if direction is Direction.DOWN:
            self.last_audio_at = at_s
            if not self.first_audio.done():
                self.first_audio.set_result(at_s)

    def on_message(self, direction: Direction, message: DeviceMessage | ReceivedMessage, at_s: float) -> None:
        """Note the text that was understood and the end of the reply."""
        if direction is Direction.UP:
            return
        if isinstance(message, Stt):
            self.stt_at = at_s
        elif isinstance(message, Tts) and message.state == "stop" and not self.stopped.done():
            self.stopped.set_result(at_s)


class _Talker:
    """One person with a device."""

    def __init__(self, number: int, mode: ListenMode, stock: list[Recording]) -> None:
        self._mode = mode
        self._stock = stock
        self._number = number
        self._dice = random.Random(number)
        self._watch = _Watch()
        self.device = SimulatedDevice(
            DeviceIdentity(device_id=f"02:00:00:00:{number >> 8:02x}:{number & 255:02x}"),
            observer=self._watch,
            record=False,
            switch_delay_s=0.0,
        )

    async def converse(self, url: str, turns: int) -> list[TurnTimes]:
        """Take so many turns. Raises MynahError when an answer does not come."""
        async with asyncio.timeout(_START_TIMEOUT_S):
            await self.device.open(url)
        try:
            return [await self._turn(self._stock[self._choice(turn)]) for turn in range(turns)]
        except TimeoutError as error:
            raise MynahError(f"no answer within {_ANSWER_TIMEOUT_S:g} s in {self._mode} mode") from error
        finally:
            await self.device.close()

    def _choice(self, turn: int) -> int:
        return (7 * self._number + turn) % len(self._stock)

    async def _turn(self, recording: Recording) -> TurnTimes:
        """Ask, wait for the first sound of the answer, let some of it be heard, cut it off."""
        device, watch = self.device, self._watch
        watch.renew()
        if not device.mic_open:
            device.listen(self._mode)
        async with asyncio.timeout(len(recording.packets) * FRAME_MS / 1000 + _ANSWER_TIMEOUT_S):
            asked = await self._speak(recording)
            heard = await watch.first_audio
            await asyncio.sleep(_HEARD_S)
            aborted = time.monotonic()
            device.abort()
            stopped = await watch.stopped
            # In auto mode it listens again when its buffer has played out.
            while self._mode is ListenMode.AUTO and not device.mic_open:
                await device.changed()
        if self._mode is ListenMode.MANUAL:
            await asyncio.sleep(self._dice.uniform(*_PAUSES_S))
        return TurnTimes(
            stt=(watch.stt_at - asked) * 1000,
            first_audio=(heard - asked) * 1000,
            last_frame=max(0.0, watch.last_audio_at - aborted) * 1000,
            stop=(stopped - aborted) * 1000,
        )

    async def _speak(self, recording: Recording) -> float:
        """Send packets until the microphone closes; return when the turn began."""
        device, begin = self.device, time.monotonic()
        asked = 0.0
        for number, packet in enumerate(recording.packets):
            await asyncio.sleep(begin + (number + 1) * FRAME_MS / 1000 - time.monotonic())
            if not device.send_audio(packet):
                break
            if number == recording.last:
                asked = time.monotonic() - recording.after_ms / 1000
            if self._mode is ListenMode.MANUAL and number == recording.last + _RELEASED:
                device.stop_listening()
                return time.monotonic()
        if not asked:
            raise MynahError("the server answered before the end of the question")
        return asked


async def _converse(url: str, mode: ListenMode, talkers: int, turns: int, warm_up: int) -> Talk:
    """Let everybody talk; the first turns of each are not counted."""
    stock = recordings()
    gc.collect()
    gc.freeze()  # what exists stays: a collection in the midst of it would look like a late answer
    people = [_Talker(number, mode, stock) for number in range(talkers)]
    lags: list[float] = []
    ticking = asyncio.create_task(_watch_the_clock(lags))
    begin = time.monotonic()

    async def one(person: _Talker, number: int) -> list[TurnTimes]:
        await asyncio.sleep(number * SPREAD_S / talkers)
        return (await person.converse(url, warm_up + turns))[warm_up:]

    try:
        async with asyncio.TaskGroup() as group:
            talking = [group.create_task(one(person, number)) for number, person in enumerate(people)]
    finally:
        ticking.cancel()
    faults: dict[str, int] = {}
    for person in people:
        for name, count in msgspec.structs.asdict(person.device.counters).items():
            if count:
                faults[name] = faults.get(name, 0) + count
    took = time.monotonic() - begin
    return Talk([times for task in talking for times in task.result()], lags, took, faults)


async def _watch_the_clock(lags: list[float]) -> None:
    """Note how late the event loop is. One sample per 10 ms: a minute has 6000."""
    while True:
        due = time.monotonic() + _TICK_S
        await asyncio.sleep(_TICK_S)
        lags.append(max(0.0, time.monotonic() - due) * 1000)


def main(path: str, url: str, mode: str, talkers: str, turns: str, warm_up: str) -> None:
    """Be the process with the talkers: what they saw goes to the file ``path``, or the reason why not to stderr."""
    failed: MynahError | None = None
    try:
        talk = uvloop.run(_converse(url, ListenMode(mode), int(talkers), int(turns), int(warm_up)))
        # Not to standard output: when a pipe is full, what is written to it after uvloop has run is lost.
        Path(path).write_bytes(msgspec.json.encode(talk))
    except* MynahError as errors:
        failed = _first(errors)
    if failed is not None:
        sys.exit(str(failed))


def _first(errors: BaseExceptionGroup[MynahError]) -> MynahError:
    error = errors.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


class Talkers:
    """A process with talkers in it, which begin at once."""

    def __init__(self, url: str, mode: ListenMode, talkers: int, turns: int, warm_up: int = 1) -> None:
        """``turns`` of each are counted, after ``warm_up`` that are not."""
        numbers = [str(number) for number in (talkers, turns, warm_up)]
        self._folder = tempfile.TemporaryDirectory()
        self._seen = Path(self._folder.name) / "seen.json"
        command = [sys.executable, "-c", _PROGRAM, str(self._seen), url, mode.value, *numbers]
        self._process = subprocess.Popen(  # noqa: S603 - ourselves
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._process:
            self._process.kill()
        self._folder.cleanup()

    def wait(self) -> Talk:
        """Return what they saw when they have all finished. Raises MynahError."""
        _, complaint = self._process.communicate()
        if self._process.returncode != 0:
            lines = complaint.strip().splitlines() or ["the talkers failed"]
            raise MynahError(lines[-1])
        return msgspec.json.decode(self._seen.read_bytes(), type=Talk)
