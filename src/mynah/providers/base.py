"""What each kind of provider is, and the plain data that passes between a session and a provider.

A provider is shared by all sessions and outlives them. It never sees a session or a link: audio or text goes in,
results come out. Audio is always PCM signed 16-bit little-endian mono; the rate is named where it matters.
Anything slow or native runs on the provider's own threads or processes, never on the event loop.
"""

from __future__ import annotations

import enum
from collections.abc import AsyncGenerator, Mapping
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

import msgspec
from pydantic import BaseModel, ConfigDict, Field, model_validator

from mynah.audio.ingest import VadEngine
from mynah.audio.ingest_wire import EngineSource


class Kind(enum.StrEnum):
    """The kinds of provider; the values are the section names of the configuration file."""

    VAD = "VAD"
    ASR = "ASR"
    LLM = "LLM"
    VLLM = "VLLM"
    TTS = "TTS"
    MEMORY = "Memory"
    INTENT = "Intent"
    TURN_DETECTOR = "TurnDetector"


class ProviderOptions(BaseModel):
    """Base of every provider's options: validation, documentation and console forms come from the same schema.

    Secrets are ``pydantic.SecretStr`` fields.
    """

    # A model named 4711 is written without quotes by whoever writes it.
    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)

    type: str = Field(description="which implementation this entry uses")


OptionsT = TypeVar("OptionsT", bound=ProviderOptions)


class Provider(Generic[OptionsT]):
    """Base of all providers. ``name`` is the entry's name in the configuration (``ChatGLMLLM``)."""

    Options: ClassVar[type[ProviderOptions]] = ProviderOptions
    summary: ClassVar[str] = ""
    """One line for `mynah providers`."""

    def __init__(self, name: str, options: OptionsT) -> None:
        self.name = name
        self.options = options

    async def start(self) -> None:
        """Load models, start workers. Raises ProviderError when the provider cannot work."""

    async def stop(self) -> None:
        """Release everything `start` took. Must be safe to call twice."""


# ---------------------------------------------------------------- VAD


class VadCapabilities(msgspec.Struct, frozen=True):
    """How the segmenter should read this detector's probabilities."""

    threshold: float = 0.5
    """A chunk at or above this is speech."""
    threshold_low: float = 0.35
    """Below this a chunk is silence; between the two the previous decision stands."""
    min_silence_ms: int = 500
    """Silence that ends an utterance in auto and realtime mode."""
    min_speech_ms: int = 96
    """Speech shorter than this is taken for a click."""


class VadOptions(ProviderOptions):
    """Options that every detector has: how its probabilities become the edges of speech."""

    threshold: float = Field(0.5, ge=0, le=1, description="a chunk of 32 ms at or above this is speech")
    threshold_low: float = Field(
        0.35, ge=0, le=1, description="below this it is silence; in between, the decision before it stands"
    )
    min_silence_duration_ms: int = Field(
        500, ge=32, le=10000, description="silence in ms that ends an utterance in auto and realtime mode"
    )
    min_speech_duration_ms: int = Field(
        96, ge=0, le=5000, description="speech shorter than this, in ms, is taken for a click"
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.threshold_low > self.threshold:
            raise ValueError("threshold_low must not be above threshold")
        return self


VadOptionsT = TypeVar("VadOptionsT", bound=VadOptions)


class VadProvider(Provider[VadOptionsT]):
    """Voice-activity detection, batched over all sessions."""

    @property
    def capabilities(self) -> VadCapabilities:
        """Thresholds and times for endpointing."""
        options = self.options
        return VadCapabilities(
            threshold=options.threshold,
            threshold_low=options.threshold_low,
            min_silence_ms=options.min_silence_duration_ms,
            min_speech_ms=options.min_speech_duration_ms,
        )

    def engine(self) -> VadEngine:
        """Return the shared engine; valid after `start`."""
        raise NotImplementedError

    def source(self) -> EngineSource | None:
        """Return how another process makes an engine that decides alike; None: it cannot, all streams are heard here.

        The process is started when many people speak. What it raises ends it, and this one's engine goes on.
        """
        return None


# ---------------------------------------------------------------- ASR


class AsrCapabilities(msgspec.Struct, frozen=True):
    """What a recogniser can do."""

    languages: tuple[str, ...] = ("en",)
    streaming: bool = False
    sample_rate: int = 16000
    local: bool = False
    """Works on this machine: slow means busy, and asking again would only make it busier."""


class AsrRequest(msgspec.Struct, frozen=True):
    """What a recogniser is told about an utterance before it hears it."""

    language: str = "en"


class Transcript(msgspec.Struct, frozen=True):
    """What was said. An empty ``text`` means that nothing intelligible was heard."""

    text: str
    language: str = ""
    confidence: float | None = None
    """0…1 where the recogniser gives one."""


class AsrStream(Protocol):
    """One utterance on its way through a recogniser. Used from the event loop only; `feed` never blocks."""

    def feed(self, pcm: bytes) -> None:
        """Take the next stretch of audio, at the provider's rate."""

    async def interim(self) -> Transcript:
        """Return the text so far, without ending the utterance. Raises ProviderError.

        Asked for at a pause. A streaming recogniser answers with what it has; one that wants the whole utterance
        recognises a copy of it, and when nothing but silence follows, that text is taken for the final one.
        Cancelling it leaves the utterance as it was.
        """

    async def finish(self) -> Transcript:
        """No more audio: return the final text. Raises ProviderError."""

    def cancel(self) -> None:
        """Drop the utterance; safe at any moment and more than once."""


class AsrProvider(Provider[OptionsT]):
    """Speech recognition."""

    @property
    def capabilities(self) -> AsrCapabilities:
        """What this recogniser can do."""
        raise NotImplementedError

    def open_stream(self, request: AsrRequest) -> AsrStream:
        """Begin an utterance. Cheap: a stream that is never fed costs nothing."""
        raise NotImplementedError


# ---------------------------------------------------------------- LLM


class Role(enum.StrEnum):
    """Who speaks in a chat."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


class ToolCall(msgspec.Struct, frozen=True):
    """A model asks for a tool. ``arguments`` is the JSON text exactly as the model wrote it."""

    id: str
    name: str
    arguments: str


TOOL_FAILED = "Error: "
"""How the content of a tool message begins when the tool could not do what was asked."""


class ChatMessage(msgspec.Struct, frozen=True):
    """One message of a chat. ``tool_call_id`` and ``name`` are set on tool results only."""

    role: Role
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""
    name: str = ""


class ToolSpec(msgspec.Struct, frozen=True):
    """A tool as a model sees it. ``parameters`` is a JSON schema of type object."""

    name: str
    description: str
    parameters: Mapping[str, Any]


class LlmRequest(msgspec.Struct, frozen=True):
    """All that a model is given for one reply."""

    messages: tuple[ChatMessage, ...]
    tools: tuple[ToolSpec, ...] = ()
    language: str = "en"
    """Language of the latest user message: ``en`` or ``zh``."""


class TextDelta(msgspec.Struct, frozen=True):
    """The next piece of the reply's text."""

    text: str


class Finish(msgspec.Struct, frozen=True):
    """The last item of every successful reply."""

    reason: str = "stop"
    prompt_tokens: int = 0
    completion_tokens: int = 0


LlmChunk = TextDelta | ToolCall | Finish


class LlmCapabilities(msgspec.Struct, frozen=True):
    """What a language model can do."""

    tools: bool = True
    streaming: bool = True


class LlmProvider(Provider[OptionsT]):
    """A language model."""

    @property
    def capabilities(self) -> LlmCapabilities:
        """What this model can do."""
        raise NotImplementedError

    def generate(self, request: LlmRequest) -> AsyncGenerator[LlmChunk, None]:
        """Stream one reply; ends with `Finish`. Closing the iterator cancels the request. Raises ProviderError."""
        raise NotImplementedError


# ---------------------------------------------------------------- VLLM


class VllmCapabilities(msgspec.Struct, frozen=True):
    """What a vision model can do."""

    media_types: tuple[str, ...] = ("image/jpeg", "image/png", "image/webp", "image/gif", "image/bmp")
    """Formats it can read."""


class VisionRequest(msgspec.Struct, frozen=True):
    """One picture and what is asked about it."""

    image: bytes
    """The file as it is, in the format ``media_type`` says."""
    media_type: str
    question: str
    language: str = "en"
    """Language of the answer: ``en`` or ``zh``."""


class VllmProvider(Provider[OptionsT]):
    """A vision model: it answers questions about pictures."""

    @property
    def capabilities(self) -> VllmCapabilities:
        """What this model can do."""
        raise NotImplementedError

    async def describe(self, request: VisionRequest) -> str:
        """Return the answer, never empty. Cancelling ends the request. Raises ProviderError."""
        raise NotImplementedError


# ---------------------------------------------------------------- TTS


class TtsCapabilities(msgspec.Struct, frozen=True):
    """What a voice can do."""

    sample_rate: int = 16000
    """Rate of the PCM that `synthesize` yields, in Hz."""
    languages: tuple[str, ...] = ("en",)


class TtsRequest(msgspec.Struct, frozen=True):
    """One sentence to speak."""

    text: str
    language: str = "en"
    voice: str = ""
    """Empty: the provider's configured voice for the language."""


class TtsProvider(Provider[OptionsT]):
    """Speech synthesis."""

    @property
    def capabilities(self) -> TtsCapabilities:
        """What this voice can do."""
        raise NotImplementedError

    def synthesize(self, request: TtsRequest) -> AsyncGenerator[bytes, None]:
        """Stream PCM s16le mono at ``capabilities.sample_rate``, in pieces of any even length. Raises ProviderError."""
        raise NotImplementedError


# ---------------------------------------------------------------- Memory, Intent


class MemoryProvider(Provider[OptionsT]):
    """What is remembered about a device between conversations."""

    async def recall(self, device_id: str, query: str) -> str:
        """Return what is known and fits, as text for the prompt; empty when nothing is."""
        raise NotImplementedError

    async def remember(self, device_id: str, messages: tuple[ChatMessage, ...]) -> None:
        """Take in a finished conversation."""
        raise NotImplementedError


class IntentProvider(Provider[OptionsT]):
    """How requests for tools are found."""

    @property
    def offers_tools(self) -> bool:
        """Whether the language model is shown the tools."""
        raise NotImplementedError

    @property
    def chooses(self) -> bool:
        """Whether `choose` is to be asked before the language model answers."""
        return False

    async def choose(self, request: LlmRequest) -> tuple[ToolCall, ...]:  # noqa: ARG002 - the interface's argument
        """Return the tools that the user's words ask for; none: the language model answers by itself.

        ``request`` is what the model would be asked. The tools run once the words are final. Raises ProviderError.
        """
        return ()

    @property
    def functions(self) -> frozenset[str] | None:
        """Names of the plugin tools that may be used; None: all of them. A device's own tools always may."""
        return None


# ---------------------------------------------------------------- end of turn


class TurnDetectorOptions(ProviderOptions):
    """Options that every turn detector has."""

    threshold: float = Field(
        0.5, ge=0, le=1, description="at or above this probability the speaker is taken to have finished"
    )


TurnDetectorOptionsT = TypeVar("TurnDetectorOptionsT", bound=TurnDetectorOptions)


class TurnDetectorProvider(Provider[TurnDetectorOptionsT]):
    """Tells from the sound whether somebody who has just paused has finished."""

    @property
    def threshold(self) -> float:
        """Probability at or above which the speaker has finished."""
        return self.options.threshold

    async def probability(self, pcm: bytes) -> float:
        """Return how likely (0…1) it is that somebody who has just paused has finished.

        ``pcm`` is the utterance so far, s16le mono at 16 kHz; its last 8 s are enough. Raises ProviderError.
        """
        raise NotImplementedError
