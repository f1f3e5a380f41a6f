"""A whole turn through the real server over real sockets, with test doubles whose delays are known.

What is left after their delays is the server's own share. The server is a process of its own; the device is
the simulated one, speaking in real time.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import msgspec
import uvloop

from mynah.bench.report import Result, distribution
from mynah.config import Settings, load
from mynah.dialogue.text import SentenceSplitter
from mynah.errors import ConfigError, MynahError
from mynah.providers import registry
from mynah.providers.asr.fake import FakeAsr
from mynah.providers.base import Kind, LlmRequest, TextDelta, VadProvider
from mynah.providers.llm.fake import FakeLlm
from mynah.providers.tts.fake import FakeTts
from mynah.sim.device import Direction, Observer, SimulatedDevice
from mynah.sim.microphone import Microphone
from mynah.sim.voice import speak
from mynah.wire.messages import DeviceMessage, ListenMode, ReceivedMessage, Tts

TURNS = 30
"""Turns per mode: enough for a p95 that means something within a minute and a half."""
_QUESTION = "What time is it?"
_ANSWER_TIMEOUT_S = 10.0
_START_TIMEOUT_S = 30.0
_HEARD_S = 0.2
"""What is heard of an answer before it is cut off: by then its frames leave one by one."""
_PAUSE_S = 0.3
"""Between two turns, so that what one leaves behind does not count for the next."""


class _Times(msgspec.Struct, frozen=True):
    """One turn, in ms."""

    first_audio: float
    """From the end of the user's speech."""
    last_frame: float
    """From the interruption to the last frame that came after it; 0 when none did."""
    stop: float
    """From the interruption to ``tts stop``."""


class _Watch(Observer):
    """Notes the first and the last audio and the end of each reply."""

    def __init__(self) -> None:
        self.first_audio: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self.stopped: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self.last_audio_at = 0.0

    def renew(self) -> None:
        """Get ready for the next turn."""
        self.first_audio = asyncio.get_running_loop().create_future()
        self.stopped = asyncio.get_running_loop().create_future()

    def on_audio(self, direction: Direction, packet: bytes, at_s: float) -> None:  # noqa: ARG002
        """Note a packet of the reply."""
        if direction is Direction.DOWN:
            self.last_audio_at = at_s
            if not self.first_audio.done():
                self.first_audio.set_result(at_s)

    def on_message(self, direction: Direction, message: DeviceMessage | ReceivedMessage, at_s: float) -> None:
        """Note the end of the reply."""
        ended = direction is Direction.DOWN and isinstance(message, Tts) and message.state == "stop"
        if ended and not self.stopped.done():
            self.stopped.set_result(at_s)


def turns() -> Iterator[Result]:
    """Manual mode: button released → first audio. Auto mode: end of speech → first audio."""
    settings = load(fakes_file(), environ={})
    delays = asyncio.run(known_delays_ms(settings))
    speech = speak(_QUESTION)
    with tempfile.TemporaryDirectory() as folder:
        program = "import sys; from mynah.bench import turn; sys.exit(turn.serve(*sys.argv[1:]))"
        command = [sys.executable, "-c", program, str(fakes_file()), folder]
        with subprocess.Popen(  # noqa: S603 - ourselves
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as server:
            try:
                url = _ready_url(server)
                manual = uvloop.run(_converse(url, ListenMode.MANUAL, speech))
                auto = uvloop.run(_converse(url, ListenMode.AUTO, speech))
            finally:
                server.terminate()
    note = f"turn: the fakes' delays up to the first audio are {delays:g} ms"
    first = [times.first_audio for times in manual]
    yield distribution("turn, manual", "listen stop → first audio", "ms", first, note)
    yield distribution("turn, manual", "above the fakes' delays", "ms", [value - delays for value in first])
    vad = cast(VadProvider[Any], registry.create(Kind.VAD, *settings.entry(Kind.VAD)))
    silence = vad.capabilities.min_silence_ms
    note = (
        f"turn, auto: the delays are the fakes' {delays:g} ms and {silence} ms of silence; "
        "waiting for whole packets (60 ms) and decisions (32 ms) and Silero's own reluctance come on top"
    )
    first = [times.first_audio for times in auto]
    yield distribution("turn, auto", "end of speech → first audio", "ms", first, note)
    yield distribution("turn, auto", "above the delays", "ms", [value - delays - silence for value in first])
    note = "interrupt: sent in the middle of a reply; a last frame of 0 ms means that none came any more"
    last = [times.last_frame for times in manual + auto]
    yield distribution("interrupt", "abort → last frame of the old reply", "ms", last, note)
    yield distribution("interrupt", "abort → tts stop", "ms", [times.stop for times in manual + auto])


def fakes_file() -> Path:
    """Return ``benchmarks/fakes.yaml``: below the current folder, or of the source tree. Raises ConfigError."""
    places = [Path.cwd(), Path(__file__).resolve().parents[3]]
    for place in places:
        path = place / "benchmarks" / "fakes.yaml"
        if path.is_file():
            return path
    raise ConfigError("benchmarks/fakes.yaml is not here: run `mynah bench` in a source tree, or use --only")


async def known_delays_ms(settings: Settings) -> float:
    """Return what the configured fakes' delays up to the first audio add up to, in ms."""
    asr, llm, tts = (registry.create(kind, *settings.entry(kind)) for kind in (Kind.ASR, Kind.LLM, Kind.TTS))
    if not (isinstance(asr, FakeAsr) and isinstance(llm, FakeLlm) and isinstance(tts, FakeTts)):
        raise ConfigError("the turn is measured with providers of type fake only: their delays are known")
    splitter = SentenceSplitter()
    tokens = 0
    async for chunk in llm.generate(LlmRequest(messages=())):
        if isinstance(chunk, TextDelta):
            tokens += 1
            if splitter.feed(chunk.text):
                break
    waits = llm.options.delay_ms + (tokens - 1) * llm.options.token_ms
    return asr.options.delay_ms + waits + tts.options.delay_ms


def _ready_url(server: subprocess.Popen[str]) -> str:
    assert server.stdout is not None
    line = server.stdout.readline()
    if not line.startswith("READY ws="):
        raise MynahError("the server did not start: try `mynah serve -c benchmarks/fakes.yaml`")
    return line.split()[1].removeprefix("ws=")


async def _converse(url: str, mode: ListenMode, speech: bytes) -> list[_Times]:
    """Hold a conversation and return the times of each turn."""
    watch = _Watch()
    device = SimulatedDevice(observer=watch, record=False)
    async with asyncio.timeout(_START_TIMEOUT_S):
        await device.open(url)
    microphone = Microphone(device)
    streaming = asyncio.create_task(microphone.run())
    try:
        return [await _turn(device, microphone, watch, mode, speech) for _ in range(TURNS)]
    except TimeoutError as error:
        raise MynahError(f"no answer within {_ANSWER_TIMEOUT_S:g} s in {mode} mode") from error
    finally:
        streaming.cancel()
        await asyncio.gather(streaming, return_exceptions=True)
        await device.close()


async def _turn(
    device: SimulatedDevice, microphone: Microphone, watch: _Watch, mode: ListenMode, speech: bytes
) -> _Times:
    """Ask, wait for the first sound of the answer, let some of it be heard, cut it off."""
    watch.renew()
    utterance = microphone.say(speech)
    if not device.mic_open:
        device.listen(mode)
    async with asyncio.timeout(len(speech) / 32000 + _ANSWER_TIMEOUT_S):
        await utterance.finished.wait()
        if mode is ListenMode.MANUAL:
            asked = time.monotonic()
            device.stop_listening()
        else:
            asked = utterance.ended_at or time.monotonic()
        heard = await watch.first_audio
        await asyncio.sleep(_HEARD_S)
        aborted = time.monotonic()
        device.abort()
        stopped = await watch.stopped
        while (
            mode is ListenMode.AUTO and not device.mic_open
        ):  # it listens again when its buffer has played out
            await device.changed()
    await asyncio.sleep(_PAUSE_S)
    return _Times(
        (heard - asked) * 1000, max(0.0, watch.last_audio_at - aborted) * 1000, (stopped - aborted) * 1000
    )


def serve(config: str, folder: str) -> int:
    """Be the server under test, with ``config``; everything it writes goes to ``folder``. Returns the exit code."""
    from mynah import app

    overrides = [
        "server.ip=127.0.0.1",
        "server.port=0",
        "server.http_port=0",
        "log.log_level=WARNING",
        f"log.log_dir={folder}",
        f"log.data_dir={folder}",
    ]
    return app.run(load(Path(config), overrides, environ={}))
