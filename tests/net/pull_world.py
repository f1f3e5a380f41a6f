"""A whole server for devices that fetch their answers, on virtual time: everything is real but the sockets and the AI.

`World` is the server, `Modem` a device's modem: each `Socket` of it is one connection, whose way down can be stopped,
measured and cut. What the voice says is never the same twice, so that audio can be compared byte by byte.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import struct
from collections.abc import AsyncGenerator
from typing import Any

import msgspec

from mynah.audio.encode import Form, PcmCoders, SpeechEncoder
from mynah.audio.ingest import Decision
from mynah.dialogue.admission import Admission
from mynah.dialogue.outbox import Outbox
from mynah.dialogue.reminders import Agenda
from mynah.dialogue.services import VisionAccess
from mynah.dialogue.session import Session
from mynah.dialogue.speak import Voice
from mynah.net.devices import Devices
from mynah.net.peer import Peer
from mynah.net.tcp_pull4g import Pull4gServer, PullConnection
from mynah.providers.base import TtsRequest
from mynah.security.tokens import AuthReason, AuthResult
from mynah.wire import pull4g
from mynah.wire.pull4g import Audio, AudioEnd, AudioStart, Codec, Failed, Options
from tests.audio.inline_codec import InlineCodec
from tests.fakes import FakeIngest, FakeIngestStream, Script, ScriptedTts, Stage
from tests.virtual_time import settle

ID = "aabbccddeeff"
DEVICE = "aa:bb:cc:dd:ee:ff"
SECOND = b"".join(struct.pack("<H", number + 1) for number in range(16000))
"""One second of what the scripted services take for a voice, no sample like another: 32 000 bytes."""
FRAME = 1920
"""Bytes of a frame of 60 ms of PCM."""


class CountingTts(ScriptedTts):
    """Says numbers: no sample of 60 ms is like another."""

    def __init__(self, script: Script) -> None:
        super().__init__(script)
        self.made = b""
        """All it said, as PCM of 16 kHz in whole frames."""
        self._numbers = itertools.count(1)

    async def synthesize(self, request: TtsRequest) -> AsyncGenerator[bytes, None]:
        self.said.append(request)
        await asyncio.sleep(self.script.tts_s)
        if self.script.tts_error is not None:
            raise self.script.tts_error
        for _ in range(round(self.script.speech_s * 10)):
            piece = b"".join(struct.pack("<H", next(self._numbers) & 0x7FFF) for _ in range(1600))
            self.made += piece
            yield piece
        self.made += bytes(-len(self.made) % FRAME)  # a sentence ends with a frame


class Listening(FakeIngest):
    """Takes all that is not silent for a voice, whatever its rate and codec."""

    def open(self, sink: Any, echo: Any = None) -> Hearing:
        self.open_streams += 1
        return Hearing(self, sink)


class Hearing(FakeIngestStream):
    def push(self, packet: bytes, stamp: int = 0) -> None:
        self.push_pcm(packet.ljust(1920, b"\1"), 16000)

    def push_pcm(self, pcm: bytes, sample_rate: int) -> None:
        assert not self._closed
        level = 0.9 if any(pcm) else 0.02
        self._sink.on_pcm(pcm, (Decision(level, -20.0 if level > 0.5 else -70.0),) * 2)


class Doorman:
    """Lets in whoever has one of the tokens; everybody while there are none."""

    def __init__(self) -> None:
        self.tokens: dict[str, str] = {}
        """Token → the Client-Id it is made out for; empty: any."""
        self.bound = True

    def check(self, token: str | None, device_id: str, client_id: str, *_: Any, **__: Any) -> AuthResult:
        if not self.bound:
            return AuthResult(False, AuthReason.NOT_BOUND)
        if not self.tokens:
            return AuthResult(True, AuthReason.AUTH_OFF)
        if not token:
            return AuthResult(False, AuthReason.NO_TOKEN)
        known = token in self.tokens and self.tokens[token] in ("", client_id)
        return AuthResult(known, AuthReason.ISSUED_TOKEN if known else AuthReason.WRONG_TOKEN)


class World:
    """A server with scripted AI services. Made inside a running loop; ask `end` when it should be empty."""

    def __init__(
        self,
        script: Script | None = None,
        *,
        lead_ms: int = 4000,
        room: int = 100,
        reserve: int = 0,
        connections: int = 50,
    ) -> None:
        stage = self.stage = Stage(script)
        stage.link.closed = True
        stage.session.on_closed()
        self.script, self.recorder = stage.script, stage.recorder
        self.tts = CountingTts(self.script)
        codec = InlineCodec()

        def encoder(form: Form) -> SpeechEncoder:
            return SpeechEncoder(codec, 16000, form.rate, encoders=None if form.opus else PcmCoders())

        self.outbox = Outbox(self._find)
        self.agenda = Agenda(self.outbox.announce)
        self.doorman = Doorman()
        self.services = msgspec.structs.replace(
            stage.services,
            ingest=Listening(),
            voice=Voice(self.tts, stage.pacer, encoder, form=Form(16000)),
            reminders=self.agenda.of,
            admission=Admission(),
        )
        self.devices = Devices(
            self.services, self.doorman, room, lambda _: VisionAccess("", ""), self.agenda, self.outbox, reserve,  # type: ignore[arg-type]
        )  # fmt: skip
        self.devices.start()
        self.refused: list[str] = []
        self.server = Pull4gServer(
            self.devices, max_connections=connections, lead_ms=lead_ms, on_refused=self.refused.append
        )
        self.server._sweep()

    def _find(self, device_id: str) -> Session | None:
        return self.devices.find(device_id)

    @property
    def session(self) -> Session:
        """The conversation of the device."""
        found = self.devices.find(DEVICE)
        assert found is not None
        return found

    @property
    def history(self) -> list[str]:
        kept = self.services.conversations.join(DEVICE)
        try:
            return [message.content for message in kept.history]
        finally:
            self.services.conversations.leave(DEVICE)

    @property
    def open_ears(self) -> int:
        ingest: Any = self.services.ingest
        return int(ingest.open_streams)

    def kept(self) -> int:
        """Bytes of replies that are kept."""
        return self.server._replies.used + self.server._uploads.used

    async def end(self) -> None:
        """Close it, and look whether anything is left."""
        await self.server.stop()
        self.server.close()
        self.devices.stop()
        await asyncio.sleep(1)
        assert len(self.server) == 0
        assert not self.server._devices
        assert len(self.devices) == 0
        assert self.kept() == 0
        assert self.open_ears == 0
        assert self.recorder.opened == self.recorder.closed
        assert self.services.admission.talking == self.services.admission.telling == 0
        others = asyncio.all_tasks() - {asyncio.current_task()}
        assert not others, f"tasks left: {others}"
        self.stage.pacer.close()
        self.services.conversations.expire()


class Socket(asyncio.Transport):
    """One connection as its server sees it. What arrives at the device is read by ``reader``."""

    def __init__(self, world: World, ip: str = "192.0.2.7") -> None:
        super().__init__()
        self.ip = ip
        self.reader = pull4g.DeviceStream()
        self.events: list[tuple[float, pull4g.ServerEvent]] = []
        self.raw = b""
        self.stalled = False
        """What is written waits, and is lost if the connection is."""
        self.lost = False
        self.closed_by_us = False
        self._waiting = b""
        self._high = 65536
        self._paused = False
        self.connection = PullConnection(world.server)
        self.connection.connection_made(self)

    # -- the server's side

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        assert high is not None
        self._high = high

    def get_write_buffer_size(self) -> int:
        return len(self._waiting)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        match name:
            case "peername" | "sockname":
                return (self.ip, 1)
            case "socket":
                return self
        return default

    def getsockopt(self, level: int, option: int, size: int) -> bytes:
        """TCP_INFO."""
        return struct.pack("120xQ", len(self.raw))[:size]

    def is_closing(self) -> bool:
        return self.lost or self.closed_by_us

    def write(self, data: Any) -> None:
        assert not self.is_closing(), "written to a connection that is closing"
        self._waiting += bytes(data)
        if not self.stalled:
            self.flow()
        if len(self._waiting) > self._high and not self._paused:
            self._paused = True
            self.connection.pause_writing()

    def close(self) -> None:
        if not self.is_closing():
            self.closed_by_us = True
            if not self._waiting:
                self._lose()

    def abort(self) -> None:
        self._waiting = b""
        self._lose()

    def _lose(self, error: Exception | None = None) -> None:
        if not self.lost:
            self.lost = True
            asyncio.get_running_loop().call_soon(self.connection.connection_lost, error)

    # -- the link

    def flow(self, count: int | None = None) -> None:
        """Let so many of the bytes that wait arrive; all if not said."""
        came = self._waiting[:count]
        self._waiting = self._waiting[len(came) :]
        self.raw += came
        now = asyncio.get_running_loop().time()
        self.events += [(now, event) for event in self.reader.feed(came)]
        if self._paused and len(self._waiting) <= self._high // 4 and not self.lost:
            self._paused = False
            self.connection.resume_writing()
        if self.closed_by_us and not self._waiting:
            self._lose()

    def go(self) -> None:
        """The link is there again."""
        self.stalled = False
        self.flow()

    def cut(self) -> None:
        """The link is lost, with all that waits: what a transport says about that is nothing."""
        self._waiting = b""
        self._lose(ConnectionResetError())

    # -- the device's side

    def send(self, data: bytes) -> None:
        if not self.is_closing():
            self.connection.data_received(data)

    def of(self, kind: type[Any]) -> list[Any]:
        return [event for _, event in self.events if isinstance(event, kind)]

    @property
    def audio(self) -> bytes:
        return b"".join(event.data for event in self.of(Audio))

    @property
    def errors(self) -> list[str]:
        return [event.code.value for event in self.of(Failed)]

    @property
    def answers(self) -> list[int]:
        """Bytes of audio in each answer to a poll. Brackets must be closed, and hold nothing else."""
        found: list[int] = []
        inside: int | None = None
        for _, event in self.events:
            match event:
                case AudioStart():
                    assert inside is None, "an answer inside an answer"
                    inside = 0
                case AudioEnd():
                    assert inside is not None, "an end without a beginning"
                    found.append(inside)
                    inside = None
                case Audio(data):
                    assert inside is not None, "audio that nobody asked for"
                    inside += len(data)
        return found


class Modem:
    """A device: what a test has it say goes over its newest connection."""

    def __init__(self, world: World, options: Options | None = None, device_id: str = ID) -> None:
        self.world, self.device_id = world, device_id
        self.options = options or Options()
        self.socket = Socket(world)
        self.sockets = [self.socket]

    @property
    def framed(self) -> bool:
        return self.socket.reader.framed

    def connect(self) -> Socket:
        """Open another connection."""
        self.socket = Socket(self.world)
        self.sockets.append(self.socket)
        return self.socket

    def _with(self, offset: int | None) -> Options:
        return msgspec.structs.replace(self.options, offset=offset)

    def start(self, offset: int | None = None) -> None:
        self.socket.send(pull4g.device_start(self.device_id, self._with(offset), self.framed))

    def talk(self, pcm: bytes = SECOND) -> None:
        self.socket.send(pull4g.device_audio(pcm, self.framed))

    def complete(self) -> None:
        self.socket.send(pull4g.device_complete(self.framed))

    def poll(self, offset: int | None = None) -> None:
        self.socket.send(pull4g.device_request(self.device_id, self._with(offset), self.framed))

    def interrupt(self) -> None:
        token, client_id = self.options.token, self.options.client_id
        self.socket.send(pull4g.device_interrupt(self.device_id, self.framed, token, client_id))

    def acknowledge(self, count: int) -> None:
        self.socket.send(pull4g.device_acknowledge(count))

    def ask(self, pcm: bytes = SECOND) -> None:
        """A whole recording."""
        self.start()
        self.talk(pcm)
        self.complete()

    async def fetch(self, seconds: float = 20.0, every: float = 0.5) -> bytes:
        """Poll for so long; return what has come meanwhile over this connection."""
        before = len(self.socket.audio)
        for _ in range(round(seconds / every)):
            if not self.socket.is_closing():
                self.poll()
            await asyncio.sleep(every)
        return self.socket.audio[before:]


def framed(codec: Codec = Codec.PCM, **more: Any) -> Options:
    return Options(codec=codec, framed=True, **more)


def peer(device_id: str = DEVICE, client_id: str = "") -> Peer:
    return Peer("192.0.2.7", "/", {}, device_id, client_id, None)


async def soon(seconds: float = 0.0) -> None:
    """Let time pass, and everything that is ready happen."""
    await asyncio.sleep(seconds)
    await settle()


def left(*kinds: type[Any]) -> list[Any]:
    """Return what still exists of these kinds, without the help of the garbage collector."""
    return [thing for thing in gc.get_objects() if isinstance(thing, kinds)]
