"""Stand-ins for the session's neighbours, as data: what happens is written in the test, time is virtual.

Audio is symbolic: a packet ``VOICE`` is 60 ms of speech, ``HUSH`` 60 ms of silence. `FakeIngest` turns them into PCM
and VAD decisions at once, where the real one uses a thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any, Literal

from mynah.audio.encode import Form, PcmCoders, SpeechEncoder
from mynah.audio.ingest import Decision
from mynah.audio.pacer import Pacer
from mynah.dialogue.allowance import DailyAllowance
from mynah.dialogue.continuity import Conversations
from mynah.dialogue.delays import Delays
from mynah.dialogue.outbox import Outbox
from mynah.dialogue.patience import Profiles
from mynah.dialogue.prompt import Prompt
from mynah.dialogue.record import TurnRecord
from mynah.dialogue.reminders import Agenda, DeviceReminders
from mynah.dialogue.services import DialogueSettings, Services
from mynah.dialogue.session import Session
from mynah.dialogue.speak import Voice
from mynah.dialogue.speculation import Speculation
from mynah.dialogue.turn import TurnPolicy
from mynah.errors import ProviderError
from mynah.providers.base import (
    AsrCapabilities,
    AsrProvider,
    AsrRequest,
    Finish,
    IntentProvider,
    LlmCapabilities,
    LlmChunk,
    LlmProvider,
    LlmRequest,
    ProviderOptions,
    TextDelta,
    ToolCall,
    Transcript,
    TtsCapabilities,
    TtsProvider,
    TtsRequest,
    VadCapabilities,
)
from mynah.providers.memory.nomem import NoMemory
from mynah.providers.turn.guard import GuardedTurnDetector
from mynah.tools.base import Tool
from mynah.tools.toolbox import Toolbox
from mynah.wire.messages import Llm, Mcp, ServerMessage, Stt, TtsSentence, TtsStart, TtsStop
from tests.audio.inline_codec import InlineCodec

VOICE = b"voice"
HUSH = b"hush"
FRAME_S = 0.06
DEVICE_ID = "aa:bb:cc:dd:ee:ff"


class FakeIngest:
    """Delivers each packet's PCM and two VAD decisions at once."""

    def __init__(self) -> None:
        self.open_streams = 0

    def open(self, sink: Any, echo: Any = None) -> FakeIngestStream:
        self.open_streams += 1
        return FakeIngestStream(self, sink)


class FakeIngestStream:
    def __init__(self, ingest: FakeIngest, sink: Any) -> None:
        self._ingest, self._sink, self._closed = ingest, sink, False

    def push(self, packet: bytes, stamp: int = 0) -> None:
        assert not self._closed
        level = 0.9 if packet == VOICE else 0.02
        self._sink.on_pcm(packet.ljust(1920, b"\0"), (Decision(level, -20.0 if level > 0.5 else -70.0),) * 2)

    def push_pcm(self, pcm: bytes, sample_rate: int) -> None:
        assert not self._closed
        assert sample_rate == 16000
        level = 0.9 if pcm.startswith(VOICE) else 0.02
        self._sink.on_pcm(pcm, (Decision(level, -20.0 if level > 0.5 else -70.0),) * 2)

    def flush(self, token: Any) -> None:
        asyncio.get_running_loop().call_soon(self._sink.on_flushed, token)

    def close(self) -> None:
        assert not self._closed
        self._closed = True
        self._ingest.open_streams -= 1


@dataclass
class Script:
    """What the AI services do. Each list is used from the front, its last item again and again."""

    heard: list[str | Exception] = field(default_factory=lambda: ["hello there"])
    replies: list[list[str | ToolCall | Exception | float]] = field(
        default_factory=lambda: [["Hi! ", "I am fine."]]
    )
    """Pieces of text, tool calls, errors, and pauses in seconds."""
    speech_s: float = 0.6
    """Audio per sentence."""
    asr_s: float = 0.05
    tts_s: float = 0.05
    tts_error: Exception | None = None

    @staticmethod
    def next(items: list[Any]) -> Any:
        return items.pop(0) if len(items) > 1 else items[0]


class ScriptedAsr(AsrProvider[ProviderOptions]):
    def __init__(self, script: Script) -> None:
        super().__init__("asr", ProviderOptions(type="scripted"))
        self.script = script
        self.audio: list[bytes] = []
        self.cancelled = 0

    @property
    def capabilities(self) -> AsrCapabilities:
        return AsrCapabilities()

    def open_stream(self, request: AsrRequest) -> ScriptedAsrStream:
        return ScriptedAsrStream(self)


class ScriptedAsrStream:
    def __init__(self, asr: ScriptedAsr) -> None:
        self._asr, self._pcm = asr, b""

    def feed(self, pcm: bytes) -> None:
        self._pcm += pcm

    async def interim(self) -> Transcript:
        return await self.finish()

    async def finish(self) -> Transcript:
        self._asr.audio.append(self._pcm)
        await asyncio.sleep(self._asr.script.asr_s)
        text = Script.next(self._asr.script.heard)
        if isinstance(text, Exception):
            raise text
        return Transcript(text)

    def cancel(self) -> None:
        self._asr.cancelled += 1


class ScriptedLlm(LlmProvider[ProviderOptions]):
    def __init__(self, script: Script) -> None:
        super().__init__("llm", ProviderOptions(type="scripted"))
        self.script = script
        self.requests: list[LlmRequest] = []
        self.closed_early = 0

    @property
    def capabilities(self) -> LlmCapabilities:
        return LlmCapabilities()

    async def generate(self, request: LlmRequest) -> AsyncGenerator[LlmChunk, None]:
        self.requests.append(request)
        try:
            for piece in Script.next(self.script.replies):
                if isinstance(piece, Exception):
                    raise piece
                if isinstance(piece, float):
                    await asyncio.sleep(piece)
                elif isinstance(piece, str):
                    yield TextDelta(piece)
                else:
                    yield piece
        except GeneratorExit:
            self.closed_early += 1
            raise
        yield Finish()


class ScriptedTts(TtsProvider[ProviderOptions]):
    def __init__(self, script: Script) -> None:
        super().__init__("tts", ProviderOptions(type="scripted"))
        self.script = script
        self.said: list[TtsRequest] = []

    @property
    def capabilities(self) -> TtsCapabilities:
        return TtsCapabilities(sample_rate=16000)

    async def synthesize(self, request: TtsRequest) -> AsyncGenerator[bytes, None]:
        self.said.append(request)
        await asyncio.sleep(self.script.tts_s)
        if self.script.tts_error is not None:
            raise self.script.tts_error
        for _ in range(round(self.script.speech_s * 10)):
            yield bytes(3200)


class ScriptedIntent(IntentProvider[ProviderOptions]):
    """Shows the model the tools, or chooses ``chosen`` by itself."""

    def __init__(self, offers: bool, chosen: tuple[ToolCall, ...] | None = None) -> None:
        super().__init__("intent", ProviderOptions(type="scripted"))
        self._offers = offers
        self.chosen = chosen
        self.requests: list[LlmRequest] = []

    @property
    def offers_tools(self) -> bool:
        return self._offers

    @property
    def chooses(self) -> bool:
        return self.chosen is not None

    async def choose(self, request: LlmRequest) -> tuple[ToolCall, ...]:
        self.requests.append(request)
        return self.chosen or ()


class Recorder:
    """A `SessionObserver` that keeps everything."""

    def __init__(self) -> None:
        self.turns: list[TurnRecord] = []
        self.opened = self.closed = 0

    def on_session_opened(self, device_id: str, session_id: str) -> None:
        self.opened += 1

    def on_turn(self, record: TurnRecord) -> None:
        self.turns.append(record)

    def on_session_closed(self, device_id: str, session_id: str) -> None:
        self.closed += 1


class FakeLink:
    """A `Link` that writes down what it was told, with the time."""

    def __init__(self) -> None:
        self.log: list[tuple[float, ServerMessage | bytes]] = []
        self.stamps: list[int] = []
        self.closed = False
        self.session: Session | None = None

    def send(self, message: ServerMessage) -> None:
        assert not self.closed
        self.log.append((asyncio.get_running_loop().time(), message))

    def send_audio(self, packet: bytes, timestamp_ms: int) -> None:
        assert not self.closed
        self.stamps.append(timestamp_ms)
        self.log.append((asyncio.get_running_loop().time(), packet))

    def close(self, code: int = 1000, reason: str = "") -> None:
        if not self.closed:
            self.closed = True
            assert self.session is not None
            asyncio.get_running_loop().call_soon(self.session.on_closed)

    # -- reading it

    def of(self, kind: type[Any]) -> list[Any]:
        return [message for _, message in self.log if isinstance(message, kind)]

    def when(self, kind: type[Any]) -> list[float]:
        return [at for at, message in self.log if isinstance(message, kind)]

    @property
    def story(self) -> list[str]:
        """The conversation in short words; runs of audio frames are one ``audio``, ends of sentences are left out."""
        words: list[str] = []
        for _, message in self.log:
            if isinstance(message, TtsSentence) and message.state == "sentence_end":
                continue
            match message:
                case bytes():
                    word = "audio"
                case Stt():
                    word = f"stt:{message.text}"
                case TtsSentence():
                    word = f"say:{message.text}"
                case TtsStart():
                    word = "start"
                case TtsStop():
                    word = "stop"
                case Llm():
                    word = f"face:{message.emotion}"
                case Mcp():
                    word = f"mcp:{message.payload.get('method')}"
                case _:
                    word = type(message).__name__
            if word != "audio" or not words or words[-1] != "audio":
                words.append(word)
        return words


class Stage:
    """A session with scripted neighbours, on virtual time. Made inside a running loop."""

    def __init__(
        self,
        script: Script | None = None,
        *,
        greeting: bool = True,
        no_voice_s: float = 105.0,
        tools: tuple[Tool, ...] = (),
        offers_tools: bool = True,
        intent: IntentProvider[ProviderOptions] | None = None,
        settings: DialogueSettings | None = None,
        daily_chars: int = 0,
        speculation: Literal["auto", True, False] = "auto",
        min_silence_ms: int = 200,
        turn_detector: GuardedTurnDetector | None = None,
    ) -> None:
        time = asyncio.get_running_loop().time
        self.script = script or Script()
        self.asr, self.llm, self.tts = (kind(self.script) for kind in (ScriptedAsr, ScriptedLlm, ScriptedTts))
        self.ingest = FakeIngest()
        self.recorder = Recorder()
        self.link = FakeLink()
        self.pacer = Pacer()
        codec = InlineCodec()

        def encoder(form: Form) -> SpeechEncoder:
            return SpeechEncoder(codec, 16000, form.rate, encoders=None if form.opus else PcmCoders())

        policy = TurnPolicy.from_phrases(["hey mynah"], ["goodbye"], greeting)
        self.services = Services(
            settings=settings or DialogueSettings("en", policy, 16000, no_voice_s=no_voice_s),
            ingest=self.ingest,  # type: ignore[arg-type]
            asr=self.asr,
            vad=VadCapabilities(min_silence_ms=min_silence_ms),
            llm=self.llm,
            voice=Voice(self.tts, self.pacer, encoder, form=Form(16000)),
            toolbox=Toolbox(tools),
            intent=intent or ScriptedIntent(offers_tools),
            observer=self.recorder,
            now=lambda: datetime(2026, 1, 2, 15, 4, tzinfo=UTC),
            prompt=Prompt("en", "You are Mynah."),
            memory=NoMemory("nomem", ProviderOptions(type="nomem")),
            conversations=Conversations(4000, "en", 1800.0, time),
            allowance=DailyAllowance(daily_chars, lambda: date(2026, 1, 2)),
            profiles=Profiles(),
            speculation=Speculation(speculation),
            delays=Delays(),
            reminders=self._reminders,
            turn_detector=turn_detector,
        )
        self.session = Session(self.link, self.services, DEVICE_ID)
        self.link.session = self.session

    def _reminders(self, device_id: str) -> DeviceReminders:
        # Reminders of devices that are away are tested where they are made.
        self.agenda = Agenda(Outbox(lambda _: self.session).announce)
        self.reminders = self.agenda.of(device_id)
        return self.reminders

    async def stream(self, *stretches: tuple[bytes, int]) -> None:
        """Send audio in real time: ``(VOICE, 10), (HUSH, 20)`` is 0.6 s of speech and 1.2 s of silence."""
        for packet, count in stretches:
            for _ in range(count):
                self.session.on_audio(packet)
                await asyncio.sleep(FRAME_S)

    async def settle(self, seconds: float = 30.0) -> None:
        """Let time pass."""
        await asyncio.sleep(seconds)

    async def end(self) -> None:
        """Close the connection and check that nothing is left."""
        if not self.link.closed:
            self.link.closed = True
            self.session.on_closed()
        self.agenda.close()
        await asyncio.sleep(1)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        assert not others, f"tasks left: {others}"
        assert self.ingest.open_streams == 0
        assert self.recorder.opened == self.recorder.closed == 1


PROVIDER_DOWN = ProviderError("down", provider="scripted")
