"""Guards bound every wait, retry what can help, and let nothing foreign through. On virtual time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest

from mynah.errors import (
    ProviderError,
    ProviderRateLimitedError,
    ProviderRejectedError,
    ProviderTimeoutError,
    ProviderUnavailableError,
)
from mynah.providers.base import (
    AsrCapabilities,
    AsrProvider,
    AsrRequest,
    Finish,
    LlmCapabilities,
    LlmChunk,
    LlmProvider,
    LlmRequest,
    ProviderOptions,
    TextDelta,
    Transcript,
    TtsCapabilities,
    TtsProvider,
    TtsRequest,
)
from mynah.providers.wrap import (
    MAX_UTTERANCE_S,
    BatchAsr,
    GuardedAsr,
    GuardedLlm,
    GuardedTts,
    OverflowPolicy,
    UtteranceBuffer,
    provider_errors,
)
from tests.virtual_time import virtual

OPTIONS = ProviderOptions(type="scripted")
ASK = LlmRequest(messages=())
Script = list[Any]
"""What a provider does in one try: floats sleep, exceptions are raised, anything else is a result."""


class Scripted:
    """Plays one script per try and counts."""

    def __init__(self, *tries: Script) -> None:
        self.tries = list(tries)
        self.started = 0
        self.closed = 0

    async def play(self) -> AsyncGenerator[Any, None]:
        script = self.tries[self.started]
        self.started += 1
        try:
            for step in script:
                if isinstance(step, float):
                    await asyncio.sleep(step)
                elif isinstance(step, BaseException):
                    raise step
                else:
                    yield step
        finally:
            self.closed += 1


class ScriptedLlm(LlmProvider[ProviderOptions]):
    def __init__(self, *tries: Script) -> None:
        super().__init__("Scripted", OPTIONS)
        self.scripted = Scripted(*tries)

    @property
    def capabilities(self) -> LlmCapabilities:
        return LlmCapabilities(tools=False)

    def generate(self, request: LlmRequest) -> AsyncGenerator[LlmChunk, None]:
        return self.scripted.play()


class ScriptedTts(TtsProvider[ProviderOptions]):
    def __init__(self, *tries: Script) -> None:
        super().__init__("Scripted", OPTIONS)
        self.scripted = Scripted(*tries)

    @property
    def capabilities(self) -> TtsCapabilities:
        return TtsCapabilities(sample_rate=8000)

    def synthesize(self, request: TtsRequest) -> AsyncGenerator[bytes, None]:
        return self.scripted.play()


class ScriptedAsr(AsrProvider[ProviderOptions]):
    """Its result is ``<text>:<bytes heard>``."""

    def __init__(self, *tries: Script, feed_error: Exception | None = None) -> None:
        super().__init__("Scripted", OPTIONS)
        self.scripted = Scripted(*tries)
        self.feed_error = feed_error
        self.opened: list[ScriptedStream] = []

    @property
    def capabilities(self) -> AsrCapabilities:
        return AsrCapabilities()

    def open_stream(self, request: AsrRequest) -> ScriptedStream:
        self.opened.append(ScriptedStream(self, first=not self.opened))
        return self.opened[-1]


class ScriptedStream:
    def __init__(self, provider: ScriptedAsr, first: bool) -> None:
        self.provider = provider
        self.first = first
        self.heard = b""
        self.cancelled = False

    def feed(self, pcm: bytes) -> None:
        if self.first and self.provider.feed_error is not None:
            raise self.provider.feed_error
        self.heard += pcm

    async def finish(self) -> Transcript:
        async for text in self.provider.scripted.play():
            return Transcript(text=f"{text}:{len(self.heard)}")
        raise AssertionError("the script has no result")

    def cancel(self) -> None:
        self.cancelled = True


def now() -> float:
    return asyncio.get_running_loop().time()


async def collect(stream: AsyncGenerator[Any, None]) -> list[Any]:
    return [item async for item in stream]


def streams(
    *tries: Script, **limits: float
) -> list[tuple[Scripted, Callable[[], AsyncGenerator[Any, None]]]]:
    """The same scripts as a language model and as a voice: both follow the same rules."""
    llm, tts = ScriptedLlm(*tries), ScriptedTts(*tries)
    guarded_llm, guarded_tts = GuardedLlm(llm, **limits), GuardedTts(tts, **limits)
    return [
        (llm.scripted, lambda: guarded_llm.generate(ASK)),
        (tts.scripted, lambda: guarded_tts.synthesize(TtsRequest(text="x"))),
    ]


# ---------------------------------------------------------------- models and voices


@virtual
async def test_what_comes_is_passed_on() -> None:
    for scripted, stream in streams([1.0, b"one", 1.0, b"two"]):
        assert await collect(stream()) == [b"one", b"two"]
        assert (scripted.started, scripted.closed) == (1, 1)


@virtual
async def test_first_result_has_a_time_limit_that_retries_share() -> None:
    for scripted, stream in streams([60.0, b"late"], first_timeout_s=4.0):
        started = now()
        with pytest.raises(ProviderTimeoutError) as caught:
            await collect(stream())
        assert now() - started == pytest.approx(4.0)
        assert caught.value.provider == "Scripted"
        assert (scripted.started, scripted.closed) == (1, 1)
    for scripted, stream in streams(
        [3.0, ProviderUnavailableError("x")], [60.0, b"late"], first_timeout_s=4.0
    ):
        started = now()
        with pytest.raises(ProviderTimeoutError):
            await collect(stream())
        assert now() - started == pytest.approx(4.0)
        assert scripted.closed == 2


@virtual
async def test_stall_between_results_has_a_limit_of_its_own() -> None:
    for scripted, stream in streams(
        [3.0, b"one", 3.0, b"two", 9.0, b"never"], first_timeout_s=4.0, stall_timeout_s=4.0
    ):
        got = []
        started = now()
        with pytest.raises(ProviderTimeoutError):
            async for item in stream():
                got.append(item)  # noqa: PERF401 - what came before the error counts
        assert got == [b"one", b"two"]
        assert now() - started == pytest.approx(10.0)
        assert scripted.started == 1


@virtual
async def test_a_slow_consumer_is_not_a_stall() -> None:
    for _, stream in streams([b"one", b"two"], first_timeout_s=1.0, stall_timeout_s=1.0):
        got = []
        async for item in stream():
            got.append(item)
            await asyncio.sleep(100)
        assert got == [b"one", b"two"]


@virtual
async def test_one_retry_while_nothing_was_delivered() -> None:
    for scripted, stream in streams([ProviderUnavailableError("x")], [b"ok"]):
        started = now()
        assert await collect(stream()) == [b"ok"]
        assert 0.1 <= now() - started <= 0.3
        assert scripted.closed == 2
    for scripted, stream in streams(
        [ProviderUnavailableError("1")], [ProviderUnavailableError("2")], [b"ok"]
    ):
        with pytest.raises(ProviderUnavailableError, match="2"):
            await collect(stream())
        assert scripted.started == 2


@virtual
async def test_no_retry_when_it_cannot_help_or_would_repeat() -> None:
    cases: list[tuple[Script, type[ProviderError]]] = [
        ([ProviderRejectedError("bad key")], ProviderRejectedError),
        ([b"one", ProviderUnavailableError("cut")], ProviderUnavailableError),
        ([ValueError("bug")], ProviderError),
    ]
    for script, kind in cases:
        for scripted, stream in streams(script, [b"ok"]):
            with pytest.raises(kind):
                await collect(stream())
            assert (scripted.started, scripted.closed) == (1, 1)


@virtual
async def test_retry_after_is_honoured_within_the_budget() -> None:
    limited = ProviderRateLimitedError("429", retry_after_s=2.5)
    for _, stream in streams([limited], [b"ok"], first_timeout_s=4.0):
        started = now()
        assert await collect(stream()) == [b"ok"]
        assert now() - started == pytest.approx(2.5)
    for scripted, stream in streams([2.0, limited], [b"ok"], first_timeout_s=4.0):
        with pytest.raises(ProviderRateLimitedError):
            await collect(stream())
        assert scripted.started == 1


@pytest.mark.parametrize(
    ("foreign", "kind"),
    [
        (ValueError("x"), ProviderError),
        (KeyError("x"), ProviderError),
        (ConnectionResetError("x"), ProviderUnavailableError),
        (OSError(113, "no route"), ProviderUnavailableError),
        (TimeoutError(), ProviderTimeoutError),
        (AssertionError("x"), ProviderError),
    ],
)
@virtual
async def test_foreign_errors_become_provider_errors(foreign: Exception, kind: type[ProviderError]) -> None:
    for _, stream in streams([b"one", foreign]):
        with pytest.raises(ProviderError) as caught:
            await collect(stream())
        assert type(caught.value) is kind
        assert caught.value.provider == "Scripted"
        assert caught.value.__cause__ is not None


@virtual
async def test_cancellation_passes_and_closes_the_stream_inside() -> None:
    for scripted, stream in streams([b"one", 100.0, b"two"], stall_timeout_s=1000.0):
        task = asyncio.create_task(collect(stream()))
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (scripted.started, scripted.closed) == (1, 1)


@virtual
async def test_closing_early_closes_the_stream_inside() -> None:
    for scripted, stream in streams([b"one", 100.0, b"two"]):
        async with contextlib.aclosing(stream()) as items:
            assert await anext(items) == b"one"
            assert scripted.closed == 0
        assert scripted.closed == 1


@virtual
async def test_guards_look_like_what_they_guard() -> None:
    llm = GuardedLlm(ScriptedLlm([TextDelta("hi"), Finish()]))
    assert (llm.name, llm.options, llm.capabilities.tools) == ("Scripted", OPTIONS, False)
    assert await collect(llm.generate(ASK)) == [TextDelta("hi"), Finish()]
    assert GuardedTts(ScriptedTts()).capabilities.sample_rate == 8000
    assert GuardedAsr(ScriptedAsr()).capabilities == AsrCapabilities()


@virtual
async def test_start_and_stop_raise_provider_errors_only() -> None:
    class Broken(ScriptedLlm):
        async def start(self) -> None:
            raise RuntimeError("no model file")

        async def stop(self) -> None:
            raise OSError("gone")

    guard = GuardedLlm(Broken())
    with pytest.raises(ProviderError, match="no model file"):
        await guard.start()
    with pytest.raises(ProviderUnavailableError, match="gone"):
        await guard.stop()


# ---------------------------------------------------------------- recognisers


async def recognise(guard: GuardedAsr, pieces: int = 3) -> str:
    stream = guard.open_stream(AsrRequest())
    for _ in range(pieces):
        stream.feed(b"\1\0" * 10)
    return (await stream.finish()).text


@virtual
async def test_asr_is_fed_live_and_answers() -> None:
    asr = ScriptedAsr(["hi"])
    guard = GuardedAsr(asr)
    stream = guard.open_stream(AsrRequest())
    stream.feed(b"\1\0")
    assert asr.opened[0].heard == b"\1\0"
    assert (await stream.finish()).text == "hi:2"


@virtual
async def test_asr_is_tried_three_times_with_the_whole_audio() -> None:
    asr = ScriptedAsr([9.0, "late"], [ProviderUnavailableError("x")], [1.0, "hi"])
    started = now()
    assert await recognise(GuardedAsr(asr)) == "hi:60"
    assert 4.2 <= now() - started <= 4.6  # 3 s time-out, two short pauses, 1 s of work
    assert all(stream.cancelled for stream in asr.opened)
    with pytest.raises(ProviderTimeoutError, match=r"3\.0 s"):
        await recognise(GuardedAsr(ScriptedAsr(*[[9.0, "late"]] * 4)))


@virtual
async def test_asr_gives_up_after_three_tries_or_at_once() -> None:
    asr = ScriptedAsr(*[[ProviderUnavailableError("x")]] * 4)
    with pytest.raises(ProviderUnavailableError):
        await recognise(GuardedAsr(asr))
    assert len(asr.opened) == 3
    for hopeless in (
        ProviderRejectedError("key"),
        ValueError("bug"),
        ProviderRateLimitedError("x", retry_after_s=30),
    ):
        asr = ScriptedAsr([hopeless], ["hi"])
        with pytest.raises(ProviderError):
            await recognise(GuardedAsr(asr))
        assert len(asr.opened) == 1


@virtual
async def test_asr_survives_an_error_while_it_is_fed() -> None:
    asr = ScriptedAsr(["hi"], feed_error=ConnectionResetError("gone"))
    assert await recognise(GuardedAsr(asr)) == "hi:60"
    assert len(asr.opened) == 2
    asr = ScriptedAsr(["hi"], feed_error=ValueError("bug"))
    with pytest.raises(ProviderError, match="bug"):
        await recognise(GuardedAsr(asr))


@virtual
async def test_asr_cancelled_before_and_while_finishing() -> None:
    asr = ScriptedAsr(["hi"])
    stream = GuardedAsr(asr).open_stream(AsrRequest())
    stream.cancel()
    stream.cancel()
    stream.feed(b"\0\0")
    assert asr.opened[0].cancelled
    with pytest.raises(ProviderError):
        await stream.finish()

    asr = ScriptedAsr([9.0, "hi"])
    task = asyncio.create_task(recognise(GuardedAsr(asr)))
    await asyncio.sleep(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(asr.opened) == 1
    assert asr.opened[0].cancelled


@virtual
async def test_asr_without_the_whole_audio_is_not_retried() -> None:
    asr = ScriptedAsr([ProviderUnavailableError("x")], ["half"])
    stream = GuardedAsr(asr).open_stream(AsrRequest())
    stream.feed(bytes(round(MAX_UTTERANCE_S * 16000) * 2 + 2))
    with pytest.raises(ProviderUnavailableError):
        await stream.finish()
    assert len(asr.opened) == 1


# ---------------------------------------------------------------- batch


class Batch(BatchAsr[ProviderOptions]):
    def __init__(self) -> None:
        super().__init__("Batch", OPTIONS)
        self.calls: list[int] = []

    @property
    def capabilities(self) -> AsrCapabilities:
        return AsrCapabilities(sample_rate=8000)

    async def transcribe(self, pcm: bytes, request: AsrRequest) -> Transcript:
        self.calls.append(len(pcm))
        return Transcript(text="batch", language=request.language)


@virtual
async def test_batch_recogniser_gets_the_whole_utterance() -> None:
    batch = Batch()
    stream = batch.open_stream(AsrRequest(language="zh"))
    stream.feed(b"\0\0" * 100)
    stream.feed(b"\0\0" * 50)
    assert await stream.finish() == Transcript(text="batch", language="zh")
    assert batch.calls == [300]


@virtual
async def test_batch_recogniser_is_not_asked_about_nothing() -> None:
    batch = Batch()
    assert (await batch.open_stream(AsrRequest()).finish()).text == ""
    cancelled = batch.open_stream(AsrRequest())
    cancelled.feed(b"\0\0")
    cancelled.cancel()
    with pytest.raises(ProviderError, match="cancelled"):
        await cancelled.finish()
    assert batch.calls == []


@virtual
async def test_batch_recogniser_keeps_the_first_minute() -> None:
    batch = Batch()
    stream = batch.open_stream(AsrRequest())
    for _ in range(70):
        stream.feed(bytes(16000))
    await stream.finish()
    assert batch.calls == [round(MAX_UTTERANCE_S * 8000) * 2]


def test_buffer_keeps_the_oldest() -> None:
    buffer = UtteranceBuffer(sample_rate=4, limit_s=1.0)
    buffer.append(b"abcdef")
    assert not buffer.overflowed
    buffer.append(b"ghij")
    assert (bytes(buffer), buffer.overflowed, len(buffer)) == (b"abcdefgh", True, 8)
    assert buffer.policy is OverflowPolicy.KEEP_OLDEST
    buffer.clear()
    assert not buffer


def test_known_errors_keep_their_provider() -> None:
    with pytest.raises(ProviderRejectedError) as caught, provider_errors("outer"):
        raise ProviderRejectedError("x", provider="inner")
    assert caught.value.provider == "inner"


class Clumsy(AsrProvider[ProviderOptions]):
    """A recogniser that fails wherever it can without being asked for a result."""

    def __init__(self, *, opens: bool) -> None:
        super().__init__("clumsy", OPTIONS)
        self.opens = opens
        self.tries = 0

    @property
    def capabilities(self) -> AsrCapabilities:
        return AsrCapabilities()

    def open_stream(self, request: AsrRequest) -> Any:
        self.tries += 1
        if not self.opens and self.tries == 1:
            raise ConnectionError("not yet")
        return self

    def feed(self, pcm: bytes) -> None:
        pass

    async def finish(self) -> Transcript:
        return Transcript("hello")

    def cancel(self) -> None:
        raise ValueError("cannot even stop")


@virtual
async def test_a_recogniser_that_fails_to_open_or_to_stop_harms_nobody() -> None:
    stream = GuardedAsr(Clumsy(opens=True)).open_stream(AsrRequest())
    stream.feed(bytes(100))
    assert (await stream.finish()).text == "hello"
    stream.cancel()
    stream = GuardedAsr(Clumsy(opens=False)).open_stream(AsrRequest())
    stream.feed(bytes(100))
    assert (await stream.finish()).text == "hello"  # the second try opens


@virtual
async def test_a_failing_clean_up_does_not_bring_a_cancelled_stream_back() -> None:
    opened = 0

    async def stubborn() -> AsyncGenerator[LlmChunk, None]:
        nonlocal opened
        opened += 1
        try:
            await asyncio.sleep(100)
            yield Finish()
        finally:
            raise ConnectionError("while closing")

    class Stubborn(LlmProvider[ProviderOptions]):
        @property
        def capabilities(self) -> LlmCapabilities:
            return LlmCapabilities()

        def generate(self, request: LlmRequest) -> AsyncGenerator[LlmChunk, None]:
            return stubborn()

    async def read() -> None:
        async for _ in GuardedLlm(Stubborn("stubborn", OPTIONS)).generate(ASK):
            pass

    task = asyncio.ensure_future(read())
    await asyncio.sleep(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert opened == 1
