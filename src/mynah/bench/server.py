"""The server under test: a process of its own, with fakes whose delays are known."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Self, cast

import msgspec
import uvloop
from loguru import logger

from mynah.config import Settings, load
from mynah.dialogue.text import SentenceSplitter
from mynah.errors import ConfigError, MynahError
from mynah.providers import registry
from mynah.providers.asr.fake import FakeAsr
from mynah.providers.base import Kind, LlmRequest, TextDelta, VadProvider
from mynah.providers.llm.fake import FakeLlm
from mynah.providers.tts.fake import FakeTts
from mynah.resources import raise_descriptor_limit

_PROGRAM = "import sys; from mynah.bench import server; sys.exit(server.serve(*sys.argv[1:]))"
_STOP_TIMEOUT_S = 10.0
_QUIET_SHARE = 0.02
"""Of a core: a server that uses less has finished what it prepares after its start, such as its phrases."""
_LOOK_S = 0.3


class ServerReport(msgspec.Struct, frozen=True):
    """What a server says when it stops."""

    cpu_s: float
    """CPU time of all its threads since it was ready, in s."""
    summary: str
    """How its conversations went, in a line."""
    frames: int = 0
    """Of audio that it has sent,"""
    late_frames: int = 0
    """and of these more than 5 ms after their time."""
    worst_late_ms: float = 0.0


class FakeDelays(msgspec.Struct, frozen=True):
    """What the configuration alone costs, in ms."""

    asr: float
    """From the end of the recording to its text."""
    first_audio: float
    """From the end of the recording to the first sound: recogniser, model up to the first clause, voice."""
    silence: float
    """Configured silence that ends an utterance."""


class ServerUnderTest:
    """`benchmarks/fakes.yaml` and some settings, on free ports. Use as a context, or `stop` it."""

    def __init__(self, *overrides: str) -> None:
        """Start it. ``overrides`` are settings such as ``conversation.speculation=false``."""
        self._folder = tempfile.TemporaryDirectory()
        command = [sys.executable, "-c", _PROGRAM, str(fakes_file()), self._folder.name, *overrides]
        self._process = subprocess.Popen(  # noqa: S603 - ourselves
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self._url = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def url(self) -> str:
        """Wait until it takes devices; return its address. Raises MynahError."""
        if not self._url:
            assert self._process.stdout is not None
            line = self._process.stdout.readline()
            if not line.startswith("READY ws="):
                raise MynahError("the server did not start: try `mynah serve -c benchmarks/fakes.yaml`")
            self._url = line.split()[1].removeprefix("ws=")
        return self._url

    @property
    def pid(self) -> int:
        """Number of its process."""
        return self._process.pid

    def stop(self) -> ServerReport:
        """End it and return what it says. Raises MynahError."""
        self._process.terminate()
        try:
            text, _ = self._process.communicate(timeout=_STOP_TIMEOUT_S)
            return msgspec.json.decode(text, type=ServerReport)
        except (subprocess.TimeoutExpired, msgspec.DecodeError) as error:
            raise MynahError("the server under test did not stop cleanly") from error
        finally:
            self._end()

    def _end(self) -> None:
        with self._process:
            self._process.kill()
        self._folder.cleanup()


def fakes_file() -> Path:
    """Return ``benchmarks/fakes.yaml``: below the current folder, or of the source tree. Raises ConfigError."""
    places = [Path.cwd(), Path(__file__).resolve().parents[3]]
    for place in places:
        path = place / "benchmarks" / "fakes.yaml"
        if path.is_file():
            return path
    raise ConfigError("benchmarks/fakes.yaml is not here: run `mynah bench` in a source tree, or use --only")


async def known_delays(settings: Settings) -> FakeDelays:
    """Return what the configured fakes and the voice detector's silence add up to. Raises ConfigError."""
    asr, llm, tts = (registry.create(kind, *settings.entry(kind)) for kind in (Kind.ASR, Kind.LLM, Kind.TTS))
    if not (isinstance(asr, FakeAsr) and isinstance(llm, FakeLlm) and isinstance(tts, FakeTts)):
        raise ConfigError("turns are measured with providers of type fake only: their delays are known")
    splitter = SentenceSplitter()
    tokens = 0
    async for chunk in llm.generate(LlmRequest(messages=())):
        if isinstance(chunk, TextDelta):
            tokens += 1
            if splitter.feed(chunk.text):
                break
    thinking = llm.options.delay_ms + (tokens - 1) * llm.options.token_ms
    vad = cast(VadProvider[Any], registry.create(Kind.VAD, *settings.entry(Kind.VAD)))
    return FakeDelays(
        asr.options.delay_ms,
        asr.options.delay_ms + thinking + tts.options.delay_ms,
        vad.capabilities.min_silence_ms,
    )


def serve(config: str, folder: str, *overrides: str) -> int:
    """Be the server under test, with ``config``; everything it writes goes to ``folder``. Returns the exit code."""
    own = [
        "server.ip=127.0.0.1",
        "server.port=0",
        "server.http_port=0",
        "server.pull4g_port=0",
        f"log.log_dir={folder}",
        f"log.data_dir={folder}",
    ]
    uvloop.run(_serve(load(Path(config), [*own, *overrides], environ={})))
    return 0


async def _serve(settings: Settings) -> None:
    from mynah.app import App

    raise_descriptor_limit()
    logger.remove()  # nobody reads what it would write
    app = App(settings)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    try:
        addresses = await app.start()
        await _settle()
        app.settle()
        begin = time.process_time()
        _write(addresses.ready_line())
        await stop.wait()
        used, sent = time.process_time() - begin, app.pacing
        report = ServerReport(used, app.summary(), sent.frames, sent.late_frames, sent.worst_late_ms)
    finally:
        await app.stop(drain_s=0.0)
    _write(msgspec.json.encode(report).decode())


async def _settle() -> None:
    """Wait until there is nothing left to prepare."""
    used = 0.0
    while (now := time.process_time()) - used > _QUIET_SHARE * _LOOK_S:
        used = now
        await asyncio.sleep(_LOOK_S)


def _write(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
