"""The outside of a conversation, simulated: ingest, recogniser, language model, voice and encoder.

Audio is symbolic. A packet names the word it belongs to, so a transcript is exactly what was heard; a frame names the
request to the voice and its place in it, so every frame on the wire can be traced to the answer it belongs to.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import struct
from collections import Counter, deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextvars import ContextVar
from typing import Any, Generic, TypeVar

import msgspec

from mynah.audio.encode import OnFrames
from mynah.audio.ingest import Decision
from mynah.errors import ProviderError, ProviderUnavailableError
from mynah.providers.base import (
    AsrCapabilities,
    AsrProvider,
    AsrRequest,
    AsrStream,
    Finish,
    LlmCapabilities,
    LlmChunk,
    LlmProvider,
    LlmRequest,
    ProviderOptions,
    Role,
    TextDelta,
    ToolCall,
    Transcript,
    TtsCapabilities,
    TtsProvider,
    TtsRequest,
    TurnDetectorOptions,
    TurnDetectorProvider,
)
from mynah.providers.wrap import BatchAsr
from tests.simulation.scenario import Asr, Llm, Tts

PACKET_BYTES = 1920
"""60 ms of PCM at 16 kHz."""
CHUNK_SAMPLES = 512
MARKS = 30
"""How often a packet's content stands in its PCM, so that it is found however the audio is cut."""
MARK = re.compile(rb"w(\d{7})")
HUSH, NOISE = b"hush....", b"noise..."
VOICED = Decision(0.9, -20.0)
SILENT = Decision(0.03, -70.0)
FOREVER_S = 10_000.0
SENTENCE = re.compile(r"R(\d+)S(\d+) ")
"""How every sentence of the language model begins: number of the request, number of the sentence."""
FILLING = "and some more words of the answer that go on for as long as anybody wants to listen to them"

ActT = TypeVar("ActT")


class Acts(Generic[ActT]):
    """What the next requests do; after the last one all goes well."""

    def __init__(self, acts: Sequence[ActT], default: ActT) -> None:
        self._acts = deque(acts)
        self._default = default

    def next(self) -> ActT:
        return self._acts.popleft() if self._acts else self._default

    def heal(self) -> None:
        self._acts.clear()


def word_packet(number: int) -> bytes:
    return b"w%07d" % number


# ---------------------------------------------------------------- ingest


class SimIngest:
    """Gives packets back as PCM with decisions, a little later and several at once, as the worker thread does."""

    def __init__(
        self, lag_s: float, chance: random.Random, delivered: Callable[[bytes, object], None]
    ) -> None:
        self.lag_s, self.chance, self.delivered = lag_s, chance, delivered
        self.open_streams = 0

    def open(self, sink: Any, *_: Any) -> SimStream:
        self.open_streams += 1
        return SimStream(self, sink)


class SimStream:
    def __init__(self, ingest: SimIngest, sink: Any) -> None:
        self._ingest, self._sink = ingest, sink
        self._queue: list[Any] = []
        self._timer: asyncio.TimerHandle | asyncio.Handle | None = None
        self._voiced: list[bool] = []
        self._chunks = 0
        self._closed = False

    def push(self, packet: bytes, stamp: int = 0) -> None:
        assert not self._closed, "audio into a closed stream"
        self._queue.append(packet)
        if self._timer is None:
            lag = self._ingest.lag_s * (20 if self._ingest.chance.random() < 0.03 else 1)
            self._timer = asyncio.get_running_loop().call_later(lag, self._deliver)

    def push_pcm(self, pcm: bytes, sample_rate: int) -> None:
        raise AssertionError("no PCM is simulated")

    def flush(self, token: Any) -> None:
        self._queue.append((token,))
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_soon(self._deliver)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._ingest.open_streams -= 1
            if self._timer is not None:
                self._timer.cancel()

    def _deliver(self) -> None:
        self._timer = None
        queue, self._queue = self._queue, []
        while queue and not self._closed:
            if not isinstance(queue[0], bytes):
                self._sink.on_flushed(queue.pop(0)[0])
                continue
            count = next((i for i, item in enumerate(queue[:4]) if not isinstance(item, bytes)), 4)
            packets, queue = queue[:count], queue[count:]
            decisions = []
            for packet in packets:
                self._voiced.append(packet != HUSH)
                while CHUNK_SAMPLES * (self._chunks + 1) <= 960 * len(self._voiced):
                    middle = CHUNK_SAMPLES * self._chunks + CHUNK_SAMPLES // 2
                    decisions.append(VOICED if self._voiced[middle // 960] else SILENT)
                    self._chunks += 1
            for packet in packets:
                self._ingest.delivered(packet, self)
            self._sink.on_pcm(
                b"".join([packet.ljust(PACKET_BYTES // MARKS, b".") * MARKS for packet in packets]),
                tuple(decisions),
            )


# ---------------------------------------------------------------- recogniser


class Words:
    """Which word each number in a packet stands for."""

    def __init__(self) -> None:
        self.words: list[str] = [""]

    def add(self, word: str) -> int:
        self.words.append(word)
        return len(self.words) - 1

    def heard(self, pcm: bytes) -> str:
        """Return the words of which at least 60 ms are in the audio."""
        marks = Counter(MARK.findall(pcm))
        numbers = sorted(int(mark) for mark, count in marks.items() if count >= MARKS)
        return " ".join(self.words[number] for number in numbers)


async def _act(act: Asr, name: str) -> None:
    await asyncio.sleep(FOREVER_S if act.fault == "hang" else act.s)
    if act.fault == "fail":
        raise ProviderError("the recogniser failed", provider=name)
    if act.fault == "down":
        raise ProviderUnavailableError("the recogniser is down", provider=name)


class SimBatchAsr(BatchAsr[ProviderOptions]):
    """Recognises at the end."""

    def __init__(self, acts: Acts[Asr], words: Words) -> None:
        super().__init__("asr", ProviderOptions(type="simulated"))
        self._acts, self._words = acts, words

    @property
    def capabilities(self) -> AsrCapabilities:
        return AsrCapabilities()

    async def transcribe(self, pcm: bytes, request: AsrRequest) -> Transcript:
        act = self._acts.next()
        await _act(act, self.name)
        return Transcript("" if act.fault == "empty" else self._words.heard(pcm))


class SimStreamingAsr(AsrProvider[ProviderOptions]):
    """Recognises while it listens."""

    def __init__(self, acts: Acts[Asr], words: Words) -> None:
        super().__init__("asr", ProviderOptions(type="simulated"))
        self.acts, self.words = acts, words
        self.open_streams = 0

    @property
    def capabilities(self) -> AsrCapabilities:
        return AsrCapabilities(streaming=True)

    def open_stream(self, request: AsrRequest) -> AsrStream:
        self.open_streams += 1
        return SimAsrStream(self)


class SimAsrStream:
    def __init__(self, asr: SimStreamingAsr) -> None:
        self._asr = asr
        self._pcm = bytearray()
        self._over = False

    def feed(self, pcm: bytes) -> None:
        assert not self._over
        self._pcm += pcm

    async def interim(self) -> Transcript:
        text = self._asr.words.heard(self._pcm)
        await asyncio.sleep(0.02)
        return Transcript(text)

    async def finish(self) -> Transcript:
        act = self._asr.acts.next()
        await _act(act, self._asr.name)
        return Transcript("" if act.fault == "empty" else self._asr.words.heard(self._pcm))

    def cancel(self) -> None:
        if not self._over:
            self._over = True
            self._asr.open_streams -= 1


class SimDetector(TurnDetectorProvider[TurnDetectorOptions]):
    """Judges whether a speaker has finished, well or badly."""

    def __init__(self, kind: str) -> None:
        super().__init__("detector", TurnDetectorOptions(type="simulated"))
        self._kind = kind

    async def probability(self, pcm: bytes) -> float:
        await asyncio.sleep(FOREVER_S if self._kind == "late" else 0.03)
        if self._kind == "broken":
            raise ProviderError("no model", provider=self.name)
        return 0.95 if self._kind == "sure" else 0.1


# ---------------------------------------------------------------- language model


class Request(msgspec.Struct):
    """One request to the language model."""

    number: int
    user: str
    request: LlmRequest
    open: bool = True


class SimLlm(LlmProvider[ProviderOptions]):
    """Answers with sentences that tell which request they belong to."""

    def __init__(self, acts: Acts[Llm], note: Callable[[Request], None]) -> None:
        super().__init__("llm", ProviderOptions(type="simulated"))
        self._acts, self._note = acts, note
        self.requests: list[Request] = []
        self._with_tools: dict[str, Llm] = {}

    @property
    def capabilities(self) -> LlmCapabilities:
        return LlmCapabilities()

    async def generate(self, request: LlmRequest) -> AsyncGenerator[LlmChunk, None]:
        last = request.messages[-1]
        user = next(m.content for m in reversed(request.messages) if m.role is Role.USER)
        made = Request(len(self.requests) + 1, user, request)
        self.requests.append(made)
        self._note(made)
        act = self._with_tools.pop(last.tool_call_id, None) if last.role is Role.TOOL else self._acts.next()
        try:
            async for chunk in self._answer(made, act or Llm(), calls=last.role is not Role.TOOL):
                yield chunk
        finally:
            made.open = False

    async def _answer(self, made: Request, act: Llm, calls: bool) -> AsyncGenerator[LlmChunk, None]:
        await asyncio.sleep(FOREVER_S if act.fault == "hang" else act.s)
        if act.fault == "fail":
            raise ProviderError("the model failed", provider=self.name)
        if act.fault == "down":
            raise ProviderUnavailableError("the model is down", provider=self.name)
        if act.tool and calls:
            number = f"call{made.number}"
            self._with_tools[number] = act
            arguments = json.dumps({"asked": made.user})
            yield ToolCall(number, "nothing_like_it" if act.tool == "missing" else act.tool, arguments)
            yield Finish("tool_calls")
            return
        if act.fault != "empty":
            lengths = act.words if act.fault != "endless" else (8,) * 400
            for index, length in enumerate(lengths):
                words = [
                    f"R{made.number}S{index + 1} ",
                    *(f"{w} " for w in FILLING.split()[: length - 2]),
                    "end. ",
                ]
                for word in words if act.pace_s else ["".join(words)]:
                    yield TextDelta(word)
                    if act.pace_s:
                        await asyncio.sleep(act.pace_s)
                if act.fault == "broken":
                    raise ProviderError("the model broke off", provider=self.name)
                if act.fault == "stall":
                    await asyncio.sleep(FOREVER_S)
        yield Finish()


# ---------------------------------------------------------------- voice

SAYING: ContextVar[list[int] | None] = ContextVar("SAYING", default=None)
"""The requests to the voice that the sentence being prepared is made of. Two sentences may have the same words."""


class Call(msgspec.Struct):
    """One request to the voice."""

    number: int
    text: str
    frames: int
    """In all, when nothing goes wrong."""
    encoded: int = 0
    """That the voice has given so far: they will be encoded, unless the reply is interrupted."""
    open: bool = True


class SimTts(TtsProvider[ProviderOptions]):
    """Two frames a word. PCM is symbolic: 16 bytes that name the request and the frame's place in it."""

    def __init__(self, acts: Acts[Tts]) -> None:
        super().__init__("tts", ProviderOptions(type="simulated"))
        self._acts = acts
        self.calls: list[Call] = []

    @property
    def capabilities(self) -> TtsCapabilities:
        return TtsCapabilities(sample_rate=16000)

    def new_call(self, text: str) -> Call:
        call = Call(len(self.calls), text, 2 * len(text.split()))
        self.calls.append(call)
        return call

    async def synthesize(self, request: TtsRequest) -> AsyncGenerator[bytes, None]:
        act = self._acts.next()
        call = self.new_call(request.text)
        if (saying := SAYING.get()) is not None:
            saying.append(call.number)
        try:
            await asyncio.sleep(FOREVER_S if act.fault == "hang" else act.s)
            if act.fault == "fail":
                raise ProviderError("the voice failed", provider=self.name)
            if act.fault == "down":
                raise ProviderUnavailableError("the voice is down", provider=self.name)
            audio = b"".join([FRAME.pack(call.number, index) for index in range(call.frames)])
            for at in range(0, len(audio), act.chunk):
                call.encoded = min(at + act.chunk, len(audio)) // FRAME.size
                yield audio[at : at + act.chunk]
                if act.pace_s:
                    await asyncio.sleep(act.pace_s)
                if act.fault == "broken":
                    raise ProviderError("the voice broke off", provider=self.name)
                if act.fault == "stall":
                    await asyncio.sleep(FOREVER_S)
        finally:
            call.open = False


FRAME = struct.Struct(">II8x")


class SimEncoder:
    """Cuts symbolic PCM into symbolic frames. Each slice takes a turn of the loop, as one in a thread does."""

    frame_in = FRAME.size

    def __init__(self) -> None:
        self._rest = b""
        self._working = self.closed = False

    def encode(self, pcm: bytes, done: OnFrames, *, last: bool, due: float, best: bool = False) -> None:
        assert not self.closed, "an encoder that is closed"
        assert not self._working, "two slices at the same time"
        self._working = True
        rest = bytes(-len(self._rest + pcm) % FRAME.size * last)
        asyncio.get_running_loop().call_soon(self._encode, pcm + rest, done)

    def close(self) -> None:
        self.closed = True

    def _encode(self, pcm: bytes, done: OnFrames) -> None:
        self._working = False
        if self.closed:
            return
        data = self._rest + pcm
        end = len(data) - len(data) % FRAME.size
        self._rest = data[end:]
        frames = [data[at : at + FRAME.size] for at in range(0, end, FRAME.size)]
        done(frames, None)
