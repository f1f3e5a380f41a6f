"""Wrappers that give every provider the same manners: a bounded wait, a few retries, one family of errors.

`GuardedAsr`, `GuardedLlm`, `GuardedVllm` and `GuardedTts` have the interface of what they wrap. `BatchAsr` makes
a recogniser that wants the whole utterance at once into one that is fed a stream.

Retries share the budget of the first result: however often a model or voice is tried, nobody waits longer
than ``first_timeout_s`` for it. A recogniser gets that long per try, because its audio is kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import random
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from typing import Any, ClassVar, TypeVar

from mynah.errors import MynahError, ProviderError, ProviderTimeoutError, ProviderUnavailableError
from mynah.providers.base import (
    AsrCapabilities,
    AsrProvider,
    AsrRequest,
    AsrStream,
    Kind,
    LlmCapabilities,
    LlmChunk,
    LlmProvider,
    LlmRequest,
    OptionsT,
    Provider,
    ProviderOptions,
    Transcript,
    TtsCapabilities,
    TtsProvider,
    TtsRequest,
    VisionRequest,
    VllmCapabilities,
    VllmProvider,
)
from mynah.providers.calls import CallWatch, StreamTiming, timed

T = TypeVar("T")

ASR_FIRST_TIMEOUT_S = 3.0
"""From the end of the utterance to its text."""
ASR_TRIES = 3
LLM_FIRST_TIMEOUT_S = 10.0
"""From the request to the first piece of text or tool call."""
LLM_STALL_TIMEOUT_S = 10.0
"""Between two pieces."""
VLLM_TIMEOUT_S = 25.0
"""From the picture to the whole answer: a device does nothing else while it waits, and gives up after 30 s."""
TTS_FIRST_TIMEOUT_S = 5.0
"""From the sentence to its first audio."""
TTS_STALL_TIMEOUT_S = 5.0
"""Between two pieces of audio."""
STREAM_TRIES = 2
"""One retry for a model or voice that has not delivered anything yet."""

MAX_UTTERANCE_S = 60.0
"""Longest utterance that is kept: nobody talks longer in one breath, and it is 1.9 MB at 16 kHz."""

_PAUSE_S = (
    0.1,
    0.3,
)  # random pause before a retry, so that sessions that failed together do not return together


class OverflowPolicy(enum.StrEnum):
    """What a full buffer does with more."""

    KEEP_OLDEST = "keep_oldest"
    """Drop what comes: the beginning of an utterance says more than its end."""


class UtteranceBuffer:
    """The audio of one utterance, at most ``limit_s`` seconds of it; `OverflowPolicy.KEEP_OLDEST`."""

    policy: ClassVar[OverflowPolicy] = OverflowPolicy.KEEP_OLDEST

    def __init__(self, sample_rate: int, limit_s: float = MAX_UTTERANCE_S) -> None:
        self._limit = round(sample_rate * limit_s) * 2
        self._pcm = bytearray()
        self.overflowed = False

    def append(self, pcm: bytes) -> None:
        """Keep as much of ``pcm`` (s16le) as there is room for."""
        room = self._limit - len(self._pcm)
        self.overflowed = self.overflowed or len(pcm) > room
        self._pcm += pcm[:room]

    def clear(self) -> None:
        """Give the memory back."""
        self._pcm = bytearray()

    def __bytes__(self) -> bytes:
        return bytes(self._pcm)

    def __len__(self) -> int:
        return len(self._pcm)


# ---------------------------------------------------------------- batch → stream


class BatchAsr(AsrProvider[OptionsT]):
    """Base of recognisers that take a whole utterance at once: implement `transcribe` and `capabilities`."""

    async def transcribe(self, pcm: bytes, request: AsrRequest) -> Transcript:
        """Recognise PCM s16le at ``capabilities.sample_rate``, never empty. Raises ProviderError."""
        raise NotImplementedError

    def open_stream(self, request: AsrRequest) -> AsrStream:
        """Begin an utterance; its audio is kept until it is finished or cancelled."""
        return _BatchStream(self, request)


class _BatchStream:
    def __init__(self, provider: BatchAsr[Any], request: AsrRequest) -> None:
        self._provider = provider
        self._request = request
        self._audio = UtteranceBuffer(provider.capabilities.sample_rate)
        self._cancelled = False

    def feed(self, pcm: bytes) -> None:
        if not self._cancelled:
            self._audio.append(pcm)

    async def interim(self) -> Transcript:
        if self._cancelled or not self._audio:
            return Transcript(text="", language=self._request.language)
        return await self._provider.transcribe(bytes(self._audio), self._request)

    async def finish(self) -> Transcript:
        if self._cancelled:
            raise ProviderError("this utterance was cancelled", provider=self._provider.name)
        if not self._audio:
            return Transcript(text="", language=self._request.language)
        pcm = bytes(self._audio)
        self._audio.clear()
        return await self._provider.transcribe(pcm, self._request)

    def cancel(self) -> None:
        self._cancelled = True
        self._audio.clear()


# ---------------------------------------------------------------- guards


@contextlib.contextmanager
def provider_errors(name: str) -> Iterator[None]:
    """Turn whatever is raised inside into a ProviderError of provider ``name``; cancellation passes."""
    try:
        yield
    except StopAsyncIteration:
        raise
    except Exception as error:  # the wall between vendors' code and ours: nothing foreign gets past
        task = _running_task()
        if task is not None and task.cancelling():
            # A clean-up that failed must not turn a cancelled turn into one that tries again.
            raise asyncio.CancelledError from error
        if isinstance(error, ProviderError):
            error.provider = error.provider or name
        if isinstance(error, MynahError):
            raise
        raise _translated(error, name) from error


def _translated(error: Exception, name: str) -> ProviderError:
    """Return the error of ours that says what a foreign one means."""
    if isinstance(error, TimeoutError):
        return ProviderTimeoutError(str(error) or "no answer in time", provider=name)
    if isinstance(error, OSError):
        return ProviderUnavailableError(f"{type(error).__name__}: {error}", provider=name)
    return ProviderError(f"{type(error).__name__}: {error}", provider=name)


def _running_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:  # called outside the loop
        return None


def _pause_before_retry(error: ProviderError, left_s: float) -> float | None:
    """Seconds to wait before the next try, or None when ``left_s`` leaves no room for one."""
    if not error.retryable:
        return None
    pause = random.uniform(*_PAUSE_S) if error.retry_after_s is None else max(error.retry_after_s, 0.0)
    return pause if pause < left_s else None


class _Guard(Provider[ProviderOptions]):
    """What the guards share: starting and stopping the provider inside, and who is told of its requests."""

    kind: ClassVar[Kind]

    def __init__(self, inner: Provider[Any]) -> None:
        super().__init__(inner.name, inner.options)
        self.inner: Provider[Any] = inner
        self.watch: CallWatch | None = None

    async def start(self) -> None:
        """Start the provider inside. Raises ProviderError only."""
        with provider_errors(self.name):
            await self.inner.start()

    async def stop(self) -> None:
        """Stop the provider inside. Raises ProviderError only."""
        with provider_errors(self.name):
            await self.inner.stop()

    def request(self) -> contextlib.AbstractContextManager[None]:
        """Return what is put around a request to the provider inside."""
        return timed(self.watch, self.kind, self.name)


def watch_calls(providers: Iterable[Provider[Any] | None], watch: CallWatch) -> None:
    """Have ``watch`` told of every request to those of the providers that are guarded, from now on."""
    for provider in providers:
        if isinstance(provider, _Guard):
            provider.watch = watch


class GuardedAsr(_Guard, AsrProvider[ProviderOptions]):
    """A recogniser that answers within ``first_timeout_s`` per try and is tried up to ``tries`` times."""

    kind = Kind.ASR

    def __init__(
        self,
        inner: AsrProvider[Any],
        *,
        first_timeout_s: float = ASR_FIRST_TIMEOUT_S,
        tries: int = ASR_TRIES,
    ) -> None:
        super().__init__(inner)
        self._asr = inner
        self.first_timeout_s = first_timeout_s
        self.tries = tries

    @property
    def capabilities(self) -> AsrCapabilities:
        """Those of the recogniser inside."""
        return self._asr.capabilities

    def open_stream(self, request: AsrRequest) -> AsrStream:
        """Begin an utterance; a copy of its audio is kept for retries, at most `MAX_UTTERANCE_S`."""
        return _GuardedStream(self, request)

    def open_inner(self, request: AsrRequest) -> AsrStream:
        """Begin an utterance of the recogniser inside."""
        with provider_errors(self.name):
            return self._asr.open_stream(request)


class _GuardedStream:
    def __init__(self, guard: GuardedAsr, request: AsrRequest) -> None:
        self._guard = guard
        self._request = request
        self._kept = UtteranceBuffer(guard.capabilities.sample_rate)
        self._stream: AsrStream | None = None
        self._failure: ProviderError | None = None
        self._cancelled = False
        try:
            self._stream = guard.open_inner(request)
        except ProviderError as error:  # told to `finish`, as below
            self._failure = error

    def feed(self, pcm: bytes) -> None:
        if self._cancelled:
            return
        self._kept.append(pcm)
        if self._stream is None:
            return
        try:
            with provider_errors(self._guard.name):
                self._stream.feed(pcm)
        except (
            ProviderError
        ) as error:  # told to `finish`, where there is somebody to hear it and a retry is possible
            self._failure = error
            self._drop()

    async def interim(self) -> Transcript:
        # Tried once: it is a guess, and `finish` will try again.
        if self._stream is None:
            raise self._failure or ProviderError("this utterance was cancelled", provider=self._guard.name)
        with self._guard.request(), provider_errors(self._guard.name):
            async with asyncio.timeout(self._guard.first_timeout_s):
                return await self._stream.interim()

    async def finish(self) -> Transcript:
        for left in reversed(range(self._guard.tries)):
            if self._cancelled:
                raise ProviderError("this utterance was cancelled", provider=self._guard.name)
            try:
                return await self._try()
            except ProviderError as error:
                pause = _pause_before_retry(error, self._guard.first_timeout_s)
                if left == 0 or pause is None or self._kept.overflowed:
                    raise
            finally:
                self._drop()
            await asyncio.sleep(pause)
        raise AssertionError("unreachable: the last try returns or raises")

    async def _try(self) -> Transcript:
        failure, self._failure = self._failure, None
        with self._guard.request(), provider_errors(self._guard.name):
            if failure is not None:
                raise failure
            if self._stream is None:
                self._stream = self._guard.open_inner(self._request)
                self._stream.feed(bytes(self._kept))
            try:
                async with asyncio.timeout(self._guard.first_timeout_s):
                    return await self._stream.finish()
            except TimeoutError as error:
                message = f"no text within {self._guard.first_timeout_s:.1f} s of the end of the utterance"
                raise ProviderTimeoutError(message, provider=self._guard.name) from error

    def cancel(self) -> None:
        self._cancelled = True
        self._kept.clear()
        self._drop()

    def _drop(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            # What a vendor says to being told to stop changes nothing any more.
            with contextlib.suppress(ProviderError), provider_errors(self._guard.name):
                stream.cancel()


async def _guarded(
    guard: _Guard,
    open_stream: Callable[[], AsyncGenerator[T, None]],
    first_timeout_s: float,
    stall_timeout_s: float,
) -> AsyncGenerator[T, None]:
    """Pass a stream on, with its waits bounded; try `STREAM_TRIES` times while nothing has been passed on."""
    name, loop = guard.name, asyncio.get_running_loop()
    deadline = loop.time() + first_timeout_s
    for left in reversed(range(STREAM_TRIES)):
        delivered = False
        with provider_errors(name):
            stream = open_stream()
        timing = StreamTiming(guard.watch, guard.kind, name)
        try:
            while True:
                limit = stall_timeout_s if delivered else max(deadline - loop.time(), 0.0)
                try:
                    item = await _next(name, stream, limit)
                except StopAsyncIteration:
                    timing.error = ""
                    return
                if not delivered:
                    timing.first()
                delivered = True
                yield item
        except ProviderError as error:
            timing.error = error.code
            pause = _pause_before_retry(error, deadline - loop.time())
            if delivered or left == 0 or pause is None:
                raise
        finally:
            timing.over()
            await _close(name, stream)
        await asyncio.sleep(pause)


async def _next(name: str, stream: AsyncGenerator[T, None], limit_s: float) -> T:
    with provider_errors(name):
        try:
            async with asyncio.timeout(limit_s):
                return await anext(stream)
        except TimeoutError as error:
            raise ProviderTimeoutError(f"nothing came for {limit_s:.1f} s", provider=name) from error


async def _close(name: str, stream: AsyncGenerator[Any, None]) -> None:
    """Close a generator; a plain iterator has nothing to close."""
    close = getattr(stream, "aclose", None)
    if close is not None:
        # The result is in or given up; an error while cleaning up must not replace it.
        with contextlib.suppress(ProviderError), provider_errors(name):
            await close()


class GuardedLlm(_Guard, LlmProvider[ProviderOptions]):
    """A language model whose first chunk comes within ``first_timeout_s``, the others without stalls."""

    kind = Kind.LLM

    def __init__(
        self,
        inner: LlmProvider[Any],
        *,
        first_timeout_s: float = LLM_FIRST_TIMEOUT_S,
        stall_timeout_s: float = LLM_STALL_TIMEOUT_S,
    ) -> None:
        super().__init__(inner)
        self._llm = inner
        self.first_timeout_s = first_timeout_s
        self.stall_timeout_s = stall_timeout_s

    @property
    def capabilities(self) -> LlmCapabilities:
        """Those of the model inside."""
        return self._llm.capabilities

    def generate(self, request: LlmRequest) -> AsyncGenerator[LlmChunk, None]:
        """Stream one reply. Close the iterator (`contextlib.aclosing`) when you stop early."""
        return _guarded(self, lambda: self._llm.generate(request), self.first_timeout_s, self.stall_timeout_s)


class GuardedVllm(_Guard, VllmProvider[ProviderOptions]):
    """A vision model that answers within ``timeout_s``, a retry included."""

    kind = Kind.VLLM

    def __init__(self, inner: VllmProvider[Any], *, timeout_s: float = VLLM_TIMEOUT_S) -> None:
        super().__init__(inner)
        self._vllm = inner
        self.timeout_s = timeout_s

    @property
    def capabilities(self) -> VllmCapabilities:
        """Those of the model inside."""
        return self._vllm.capabilities

    async def describe(self, request: VisionRequest) -> str:
        """Return the answer of the model inside. Raises ProviderError only."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.timeout_s
        for left in reversed(range(STREAM_TRIES)):
            try:
                return await self._try(request, deadline)
            except ProviderError as error:
                pause = _pause_before_retry(error, deadline - loop.time())
                if left == 0 or pause is None:
                    raise
            await asyncio.sleep(pause)
        raise AssertionError("unreachable: the last try returns or raises")

    async def _try(self, request: VisionRequest, deadline: float) -> str:
        with self.request(), provider_errors(self.name):
            try:
                async with asyncio.timeout_at(deadline):
                    return await self._vllm.describe(request)
            except TimeoutError as error:
                message = f"no answer within {self.timeout_s:.1f} s"
                raise ProviderTimeoutError(message, provider=self.name) from error


class GuardedTts(_Guard, TtsProvider[ProviderOptions]):
    """A voice whose first audio comes within ``first_timeout_s`` and the rest without a long stall."""

    kind = Kind.TTS

    def __init__(
        self,
        inner: TtsProvider[Any],
        *,
        first_timeout_s: float = TTS_FIRST_TIMEOUT_S,
        stall_timeout_s: float = TTS_STALL_TIMEOUT_S,
    ) -> None:
        super().__init__(inner)
        self._tts = inner
        self.first_timeout_s = first_timeout_s
        self.stall_timeout_s = stall_timeout_s

    @property
    def capabilities(self) -> TtsCapabilities:
        """Those of the voice inside."""
        return self._tts.capabilities

    def synthesize(self, request: TtsRequest) -> AsyncGenerator[bytes, None]:
        """Stream one sentence. Close the iterator (`contextlib.aclosing`) when you stop early."""
        return _guarded(
            self, lambda: self._tts.synthesize(request), self.first_timeout_s, self.stall_timeout_s
        )
