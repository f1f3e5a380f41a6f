"""A whole conversation from outside: discover, connect, ask, hear the answer out, and say how long each stage took."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import functools
import re
import time
from collections.abc import AsyncIterator, Callable, Sequence

import msgspec

from mynah.audio.opus import OpusDecoder
from mynah.errors import AudioError
from mynah.sim.boot import ONE_TRY, Boot, BootPolicy, BootResult
from mynah.sim.device import AudioFormat, Counters, DeviceState, Observer, SimulatedDevice
from mynah.sim.discovery import DeviceIdentity
from mynah.sim.json_device import JsonDevice
from mynah.sim.link import ConnectError
from mynah.sim.microphone import Microphone, PcmSource, Speech, burst
from mynah.sim.recorder import Marks, MessageSeen, Recorder
from mynah.sim.timeline import Origin, Span, Tracer, TurnTimeline
from mynah.wire.messages import ListenMode

BARGE_IN_S = 2.0
"""Who interrupts a reply has begun to speak before it stopped: so much sound belongs to the next turn as well."""

_CJK = re.compile(r"[\u3000-\u9fff\uff00-\uffef]")


class Dialect(enum.StrEnum):
    """What a device speaks: the xiaozhi protocol, or the one with everything as JSON."""

    XIAOZHI = "xiaozhi"
    JSON = "json"


class Target(msgspec.Struct, frozen=True):
    """Which server to talk to, and as which device. Give ``ota_url`` or ``ws_url``; the latter skips the boot."""

    ota_url: str = ""
    ws_url: str = ""
    token: str = ""
    """Bearer token; empty: the one that discovery hands out."""
    identity: DeviceIdentity = DeviceIdentity()
    mode: ListenMode = ListenMode.AUTO
    protocol: int | None = None
    """Framing version; None: the one that the OTA address asks for, or 1."""
    timeout_s: float = 30.0
    """How long to wait for an owner, for an answer after the user has spoken, and for its end after its last sign of
    life."""
    verify_tls: bool = True
    dialect: Dialect = Dialect.XIAOZHI
    audio_format: AudioFormat = "opus"
    """Of the JSON dialect's up-link."""
    aec: bool = False
    """The server cancels the echo (framing version 2)."""
    iot: bool = False
    """Firmware from before MCP."""
    full_tools: bool = False
    """The tools of a board with everything."""
    photo: bytes = b""
    """What the camera sees (JPEG); empty: the board has none, unless it has everything."""
    boot: BootPolicy = ONE_TRY


class Said(msgspec.Struct, frozen=True):
    """What the user says in one turn: ``pcm`` (16 kHz s16le mono) is spoken; without it ``text`` is typed."""

    text: str
    pcm: bytes | None = None


class Turn(msgspec.Struct):
    """One question and its answer. Times are ms after the end of the user's speech; None: it did not happen."""

    said: str
    stt: str = ""
    answer: str = ""
    emotion: str = ""
    ok: bool = False
    error: str = ""
    first_audio_ms: float | None = None
    audio_seconds: float = 0.0
    """Length of the audio that the device took."""
    late_frames: int = 0
    """Packets that came more than 5 ms after the one before had ended."""
    stages: dict[str, float] = {}
    """``stt``, ``tts_start``, ``first_audio``, ``complete``."""
    timeline: list[Span] = []
    """What took how long; filled in at the end of the conversation, for its last `MAX_TRACES` turns."""


class Conversation(msgspec.Struct):
    """All that was seen and heard."""

    turns: list[Turn] = []
    messages: list[MessageSeen] = []
    stages: dict[str, float] = {}
    """Set-up in ms: ``discover``, ``connect``, ``hello``."""
    counters: Counters = msgspec.field(default_factory=Counters)
    played: list[bytes] = []
    """Opus packets that the loudspeaker played."""
    pcm: bytes = b""
    """The same where it did not come as Opus: s16le mono."""
    sample_rate: int = 24000
    timelines: list[TurnTimeline] = []
    """Of the last `MAX_TRACES` turns, once the conversation is over."""

    @property
    def ok(self) -> bool:
        """Whether there was a turn, and every turn was answered."""
        return bool(self.turns) and all(turn.ok for turn in self.turns)

    def audio(self) -> bytes:
        """Return what was played as s16le mono at ``sample_rate``. Takes some 30 µs per packet."""
        if self.pcm:
            return self.pcm
        decoder = OpusDecoder(self.sample_rate)
        pieces: list[bytes] = []
        for packet in self.played:
            with contextlib.suppress(AudioError):  # a device would have stayed silent for that moment
                pieces.append(decoder.decode(packet))
        return b"".join(pieces)


async def converse(
    target: Target,
    said: Sequence[Said],
    *,
    wake: Said | None = None,
    watcher: Observer | None = None,
    record: Conversation | None = None,
) -> Conversation:
    """Say everything in ``said``, one after the other, each after the answer to the one before has been played.

    With ``wake`` that comes first, as a wake word, and the greeting is the answer to it. Raises ConnectError when no
    conversation comes about; what was seen until then is in ``record``, which otherwise is what is returned. A turn
    without an answer ends the conversation; its ``error`` says why.
    """
    conversation = record if record is not None else Conversation()
    async with (
        _connected(target, watcher or Observer(), conversation) as (device, recorder, tracer),
        _running(Microphone(device)) as microphone,
    ):
        for words in (*((wake,) if wake is not None else ()), *said):
            turn = await _take_turn(target, device, microphone, recorder, tracer, words, woken=words is wake)
            conversation.turns.append(turn)
            if not turn.ok:
                break
    return conversation


async def converse_live(
    target: Target,
    source: PcmSource,
    *,
    watcher: Observer | None = None,
    on_turn: Callable[[Turn], None],
    record: Conversation | None = None,
) -> Conversation:
    """Talk with a real microphone until the server hangs up; every finished turn is reported.

    The end of the user's speech is not known here, so the times of a turn count from its ``stt`` message. ``record``
    as in `converse`. Raises ConnectError.
    """
    conversation = record if record is not None else Conversation()
    async with (
        _connected(target, watcher or Observer(), conversation) as (device, recorder, tracer),
        _running(Microphone(device, source=source)),
    ):
        device.listen(target.mode)
        while device.connected:
            recorder.marks = marks = Marks()
            tracer.begin(BARGE_IN_S)
            while marks.stop_at is None and device.connected:
                await device.changed()
            if marks.stop_at is not None:
                turn = turn_of(Said(" ".join(marks.stt)), marks, marks.stt_at or marks.stop_at)
                conversation.turns.append(turn)
                origin, asked_at = (
                    (Origin.STT, marks.stt_at) if marks.stt_at else (Origin.START, marks.start_at)
                )
                tracer.end(turn.said, origin, asked_at or marks.stop_at)
                on_turn(turn)
    return conversation


@contextlib.asynccontextmanager
async def _connected(
    target: Target, watcher: Observer, conversation: Conversation
) -> AsyncIterator[tuple[SimulatedDevice, Recorder, Tracer]]:
    """Boot, connect and say hello; afterwards put everything into the conversation's record."""
    started_at = time.monotonic()
    url, token, protocol = target.ws_url, target.token, target.protocol
    tracer = Tracer(watcher, pcm=target.dialect is Dialect.JSON and target.audio_format == "pcm")
    recorder = Recorder(tracer, started_at)
    if not url:
        boot = Boot(
            target.identity,
            policy=target.boot,
            counters=conversation.counters,
            observer=recorder,
            verify_tls=target.verify_tls,
        )
        found = await booted(boot, target.ota_url, target.timeout_s, recorder)
        url, token, protocol = found.url, token or found.token, protocol or found.protocol
        conversation.stages["discover"] = _ms(started_at, time.monotonic())
    device = _device(target, protocol or 1, recorder, conversation.counters)
    opening_at = connected_at = time.monotonic()

    def connected() -> None:
        nonlocal connected_at
        connected_at = time.monotonic()

    try:
        await device.open(url, token, verify_tls=target.verify_tls, on_connected=connected)
        conversation.stages["connect"] = _ms(opening_at, connected_at)
        conversation.stages["hello"] = _ms(connected_at, time.monotonic())
        yield device, recorder, tracer
    finally:
        await device.close()
        conversation.messages = recorder.messages
        conversation.played = device.speaker.played
        conversation.sample_rate = device.sample_rate
        conversation.timelines = tracer.timelines()
        for turn, seen in zip(reversed(conversation.turns), reversed(conversation.timelines), strict=False):
            turn.timeline = seen.spans()


async def booted(boot: Boot, url: str, timeout_s: float, recorder: Recorder) -> BootResult:
    """Boot within a time that people are ready to wait. Raises ConnectError that says what it waited for."""
    try:
        async with asyncio.timeout(timeout_s):
            return await boot.run(url)
    except TimeoutError:
        if not recorder.code:
            raise ConnectError(f"{url} was not done within {timeout_s:g} s") from None
        raise ConnectError(
            f"{url} wants this device to be bound first: enter the code {recorder.code} there; "
            f"nobody did within {timeout_s:g} s"
        ) from None


def _device(target: Target, protocol: int, recorder: Recorder, counters: Counters) -> SimulatedDevice:
    make: Callable[..., SimulatedDevice] = SimulatedDevice
    if target.dialect is Dialect.JSON:
        make = functools.partial(JsonDevice, audio_format=target.audio_format)
    device = make(
        target.identity,
        protocol=protocol,
        observer=recorder,
        counters=counters,
        aec=target.aec,
        iot=target.iot,
        full_tools=target.full_tools,
        photo=target.photo,
    )
    device.mcp.board.camera.verify_tls = target.verify_tls
    return device


@contextlib.asynccontextmanager
async def _running(microphone: Microphone) -> AsyncIterator[Microphone]:
    task = asyncio.create_task(microphone.run())
    try:
        yield microphone
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _take_turn(
    target: Target,
    device: SimulatedDevice,
    microphone: Microphone,
    recorder: Recorder,
    tracer: Tracer,
    said: Said,
    *,
    woken: bool = False,
) -> Turn:
    """Say one thing and hear the answer out."""
    recorder.marks = marks = Marks()
    tracer.begin()
    late_before = device.speaker.late_frames
    origin = Origin.BUTTON if target.mode is ListenMode.MANUAL else Origin.SPEECH
    if woken:
        origin = Origin.WAKE
        device.wake(said.text, burst(said.pcm or b"", device.audio_format), target.mode)
        asked_at = time.monotonic()
    elif said.pcm is None:
        origin = Origin.TEXT
        device.mode = target.mode
        device.detect(said.text)
        asked_at = time.monotonic()
    else:
        asked_at = await _speak(target, device, microphone, said.pcm)
    marks.last_at = max(marks.last_at, asked_at)
    error = await _hear_out(target, device, marks)
    turn = turn_of(said, marks, asked_at)
    turn.late_frames = device.speaker.late_frames - late_before
    if error or not turn.ok:
        turn.ok = False
        turn.error = error or "the answer was empty"
    tracer.end(said.text, origin, asked_at, turn.error)
    return turn


async def _speak(target: Target, device: SimulatedDevice, microphone: Microphone, pcm: bytes) -> float:
    """Speak into the microphone; return when the user's speech ended, by `time.monotonic`."""
    speech = microphone.say(pcm)
    if not device.mic_open and device.state is not DeviceState.SPEAKING:
        device.listen(target.mode)
    await _finished(speech, device)
    if target.mode is ListenMode.MANUAL:
        device.stop_listening()
        return time.monotonic()
    return speech.ended_at or time.monotonic()


async def _finished(speech: Speech, device: SimulatedDevice) -> None:
    """Wait until everything was said, or the connection is lost: then nobody may have begun to say it."""
    finished = asyncio.ensure_future(speech.finished.wait())
    try:
        while not finished.done() and device.connected:
            changed = asyncio.ensure_future(device.changed())
            await asyncio.wait({finished, changed}, return_when=asyncio.FIRST_COMPLETED)
            changed.cancel()
    finally:
        finished.cancel()


async def _hear_out(target: Target, device: SimulatedDevice, marks: Marks) -> str:
    """Wait for the end of the answer and until it has been played; return what went wrong, or nothing."""
    while marks.stop_at is None:
        if not device.connected:
            return "the server closed the connection before its answer was complete"
        try:
            async with asyncio.timeout(marks.last_at + target.timeout_s - time.monotonic()):
                await device.changed()
        except TimeoutError:
            missing = (
                "no answer came" if marks.start_at is None else "the answer did not end (no tts stop came)"
            )
            return f"{missing} within {target.timeout_s:g} s"
    await asyncio.sleep(device.speaker.silent_at(time.monotonic()) - time.monotonic())
    if target.mode is ListenMode.AUTO and device.connected:
        # The device listens again once it has played everything; only then may the user go on.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                while device.connected and not device.mic_open and device.state is DeviceState.LISTENING:
                    await device.changed()
    return ""


def turn_of(said: Said, marks: Marks, asked_at: float) -> Turn:
    """Sum a turn up; its times count from ``asked_at``, by `time.monotonic`."""
    stages = {
        name: _ms(asked_at, at)
        for name, at in (
            ("stt", marks.stt_at),
            ("tts_start", marks.start_at),
            ("first_audio", marks.audio_at),
            ("complete", marks.stop_at),
        )
        if at is not None
    }
    return Turn(
        said=said.text,
        stt=" ".join(marks.stt),
        answer=_join(marks.sentences),
        emotion=marks.emotion,
        ok=marks.stop_at is not None and bool(marks.sentences or marks.audio_s),
        first_audio_ms=stages.get("first_audio"),
        audio_seconds=round(marks.audio_s, 3),
        stages=stages,
    )


def _join(sentences: Sequence[str]) -> str:
    """Put sentences together: with a space, but not between Chinese ones."""
    text = ""
    for sentence in sentences:
        tight = not text or _CJK.match(text[-1]) or _CJK.match(sentence)
        text += sentence if tight else f" {sentence}"
    return text


def _ms(start: float, end: float) -> float:
    return round((end - start) * 1000, 1)
