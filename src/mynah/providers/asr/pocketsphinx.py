"""Embedded English recognition: PocketSphinx in worker processes, no download and no key.

Every utterance is searched for the commands of `mynah.providers.commands` first and with the open English language
model when that result is not trustworthy; `docs/embedded-speech.md` describes how well this works.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import sys
from asyncio.subprocess import PIPE, Process

import msgspec
from pydantic import Field

from mynah.errors import ProviderError, ProviderTimeoutError, ProviderUnavailableError
from mynah.providers.asr.pocketsphinx_worker import (
    FAILURE,
    GRAMMAR,
    HEADER,
    MAX_BODY_BYTES,
    READY,
    RESULT,
    UTTERANCE,
)
from mynah.providers.base import (
    AsrCapabilities,
    AsrProvider,
    AsrRequest,
    AsrStream,
    ProviderOptions,
    Transcript,
)
from mynah.providers.commands import load_commands

BYTES_PER_SECOND = 16_000 * 2
RESTART_PAUSE_S = 1.0
"""Between two attempts to start a worker that fails to start: a broken installation must not spin."""


class PocketSphinxOptions(ProviderOptions):
    """Options of the embedded recogniser."""

    workers: int = Field(
        default=1,
        ge=1,
        le=32,
        description="processes, each 150 MB and good for one core; one recognises one utterance",
    )
    max_waiting: int = Field(
        default=32,
        ge=1,
        le=10_000,
        description="utterances that may wait for a worker; further ones are refused",
    )
    max_utterance_s: float = Field(
        default=30.0, gt=0, le=100, description="seconds of an utterance that are kept; the rest is ignored"
    )
    timeout_s: float = Field(
        default=20.0,
        gt=0,
        description="seconds from the end of speech to the text, waiting for a worker included",
    )
    start_timeout_s: float = Field(
        default=30.0, gt=0, description="seconds a worker may take to load its models"
    )


class _Result(msgspec.Struct, frozen=True):
    """Body of a result frame."""

    text: str
    confidence: float
    search: str


class _Job(msgspec.Struct, frozen=True):
    """An utterance and where its transcript goes."""

    pcm: bytes
    transcript: asyncio.Future[Transcript]


class _Worker:
    """One worker process and the pipe to it. Used by one task at a time."""

    def __init__(self, provider: str, options: PocketSphinxOptions, grammar: bytes) -> None:
        self._provider = provider
        self._options = options
        self._grammar = grammar
        self._process: Process | None = None

    @property
    def pid(self) -> int | None:
        """Process id while the process runs."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    async def ensure_ready(self) -> None:
        """Start the process unless it runs, and wait for its models. Raises ProviderUnavailableError."""
        if self.pid is not None:
            return
        try:
            await self._spawn()
            kind, body = await self._exchange(GRAMMAR, self._grammar, self._options.start_timeout_s)
        except OSError as error:
            await self.kill()
            raise self._unavailable(f"cannot start the recogniser: {error}") from error
        except ProviderError:
            await self.kill()
            raise
        if kind != READY:
            await self.kill()
            reason = body.decode(errors="replace") if kind == FAILURE else f"frame {kind}"
            raise self._unavailable(f"the recogniser refused to start: {reason}")

    async def _spawn(self) -> None:
        spawning = asyncio.ensure_future(
            asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "mynah.providers.asr.pocketsphinx_worker",
                stdin=PIPE,
                stdout=PIPE,
                # numpy only scales samples here: a pool of algebra threads would cost memory for nothing
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
            )
        )
        try:
            self._process = await asyncio.shield(spawning)
        except asyncio.CancelledError:
            # A process that is half started would be nobody's; wait the few milliseconds, `kill` then finds it.
            self._process = await spawning
            raise

    async def recognise(self, pcm: bytes) -> Transcript:
        """Recognise one utterance. After an error the process is gone. Raises ProviderError."""
        try:
            kind, body = await self._exchange(UTTERANCE, pcm, self._options.timeout_s)
            if kind != RESULT:
                raise self._unavailable(f"the recogniser answered with frame {kind}")
            result = msgspec.json.decode(body, type=_Result)
        except msgspec.DecodeError as error:
            await self.kill()
            raise self._unavailable(f"the recogniser answered nonsense: {error}") from error
        except BaseException:
            # Also when cancelled: a late answer must not be taken for the next utterance's.
            await self.kill()
            raise
        return Transcript(result.text, language="en", confidence=result.confidence)

    async def _exchange(self, kind: int, body: bytes, timeout_s: float) -> tuple[int, bytes]:
        process = self._process
        assert process is not None and process.stdin is not None and process.stdout is not None
        try:
            async with asyncio.timeout(timeout_s):
                process.stdin.write(HEADER.pack(len(body), kind) + body)
                await process.stdin.drain()
                length, answer = HEADER.unpack(await process.stdout.readexactly(HEADER.size))
                if length > MAX_BODY_BYTES:
                    raise self._unavailable(f"the recogniser announced {length} bytes")
                return answer, await process.stdout.readexactly(length)
        except TimeoutError as error:
            raise ProviderTimeoutError(f"no text within {timeout_s:g} s", provider=self._provider) from error
        except (OSError, asyncio.IncompleteReadError) as error:
            raise self._unavailable("the recogniser process ended unexpectedly") from error

    async def kill(self) -> None:
        """End the process; safe when there is none."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        await process.wait()
        if process.stdin is not None:
            process.stdin.close()

    def _unavailable(self, message: str) -> ProviderUnavailableError:
        return ProviderUnavailableError(message, provider=self._provider)


class PocketSphinxAsr(AsrProvider[PocketSphinxOptions]):
    """Speech recognition in English from the packages that are installed anyway."""

    Options = PocketSphinxOptions
    summary = "embedded English recognition: commands first, then open speech; no download"

    def __init__(self, name: str, options: PocketSphinxOptions) -> None:
        super().__init__(name, options)
        # Bound: options.max_waiting. Overflow: the new utterance is refused, those that wait keep their turn.
        self._jobs: asyncio.Queue[_Job] = asyncio.Queue(options.max_waiting)
        self._workers: list[_Worker] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._busy = 0  # workers that search

    @property
    def capabilities(self) -> AsrCapabilities:
        """English, whole utterances (the search normalises over all of it), 16 kHz."""
        return AsrCapabilities(languages=("en",), streaming=False, sample_rate=16_000, local=True)

    @property
    def worker_pids(self) -> tuple[int, ...]:
        """Process ids of the workers that run, for measurements and diagnosis."""
        return tuple(worker.pid for worker in self._workers if worker.pid is not None)

    @property
    def idle(self) -> bool:
        """Whether a worker has nothing to do, and nothing waits."""
        return self._jobs.empty() and self._busy < len(self._workers)

    async def start(self) -> None:
        """Start the workers without waiting for their models: the first utterance waits instead, a second.

        Raises ProviderUnavailableError when PocketSphinx is not installed.
        """
        if self._tasks:
            return
        if importlib.util.find_spec("pocketsphinx") is None:
            raise ProviderUnavailableError("the package pocketsphinx is not installed", provider=self.name)
        grammar = load_commands("en").jsgf().encode()
        self._workers = [_Worker(self.name, self.options, grammar) for _ in range(self.options.workers)]
        self._tasks = [asyncio.create_task(self._serve(worker)) for worker in self._workers]

    async def stop(self) -> None:
        """End the workers; utterances that wait fail with ProviderUnavailableError."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        workers, self._workers = self._workers, []
        for worker in workers:
            await worker.kill()
        while not self._jobs.empty():
            self._fail(
                self._jobs.get_nowait(), ProviderUnavailableError("recogniser stopped", provider=self.name)
            )

    def open_stream(self, request: AsrRequest) -> AsrStream:
        """Begin an utterance. Whatever language is asked for, this model hears English."""
        del request
        return _Utterance(self)

    async def recognise(self, pcm: bytes) -> Transcript:
        """Recognise a whole utterance, PCM s16le mono 16 kHz. Raises ProviderError."""
        if not self._tasks:
            raise ProviderUnavailableError("the recogniser is not running", provider=self.name)
        job = _Job(pcm, asyncio.get_running_loop().create_future())
        try:
            self._jobs.put_nowait(job)
        except asyncio.QueueFull:
            raise ProviderUnavailableError(
                f"{self.options.max_waiting} utterances already wait for the recogniser", provider=self.name
            ) from None
        try:
            async with asyncio.timeout(self.options.timeout_s):
                return await job.transcript
        except TimeoutError:
            raise ProviderTimeoutError(
                f"no text within {self.options.timeout_s:g} s", provider=self.name
            ) from None

    async def _serve(self, worker: _Worker) -> None:
        """Keep one worker running and hand it one utterance after the other."""
        while True:
            broken = await self._prepare(worker)
            job = await self._jobs.get()
            if job.transcript.done():  # cancelled or timed out while it waited
                continue
            if broken is not None:
                self._fail(job, broken)
                continue
            self._busy += 1
            try:
                await worker.ensure_ready()  # it may have died while idle
                transcript = await worker.recognise(job.pcm)
            except ProviderError as error:
                self._fail(job, error)
            except asyncio.CancelledError:
                self._fail(job, ProviderUnavailableError("recogniser stopped", provider=self.name))
                raise
            else:
                if not job.transcript.done():
                    job.transcript.set_result(transcript)
            finally:
                self._busy -= 1

    async def _prepare(self, worker: _Worker) -> ProviderError | None:
        """Start the worker ahead of the next utterance. Returns why it cannot run."""
        try:
            await worker.ensure_ready()
        except ProviderError as error:
            await asyncio.sleep(RESTART_PAUSE_S)
            return error
        return None

    @staticmethod
    def _fail(job: _Job, error: ProviderError) -> None:
        if not job.transcript.done():
            job.transcript.set_exception(error)


class _Utterance:
    """Collects the audio of one utterance."""

    def __init__(self, provider: PocketSphinxAsr) -> None:
        self._provider = provider
        # Bound: max_utterance_s, the longest that is worth a search. Overflow: the end is dropped.
        self._limit = int(provider.options.max_utterance_s * BYTES_PER_SECOND)
        self._pcm = bytearray()
        self._cancelled = False

    def feed(self, pcm: bytes) -> None:
        """Keep the next stretch of audio, up to the limit."""
        if not self._cancelled:
            self._pcm += pcm[: max(0, self._limit - len(self._pcm))]

    async def interim(self) -> Transcript:
        """Recognise what was fed so far. Raises ProviderError."""
        if self._cancelled or not self._pcm:
            return Transcript("", language="en")
        if not self._provider.idle:
            # A guess must not keep somebody waiting who has finished.
            raise ProviderUnavailableError("the recogniser is busy", provider=self._provider.name)
        return await self._provider.recognise(bytes(self._pcm))

    async def finish(self) -> Transcript:
        """Recognise what was fed. Raises ProviderError."""
        if self._cancelled:
            return Transcript("")
        pcm, self._pcm = bytes(self._pcm), bytearray()
        if not pcm:
            return Transcript("", language="en")
        return await self._provider.recognise(pcm)

    def cancel(self) -> None:
        """Drop the audio. A search that already runs ends by itself; `finish` is cancelled with its own task."""
        self._cancelled = True
        self._pcm.clear()
