"""Up-link audio of all sessions: one ring, one worker thread, one batched VAD call.

The event loop appends a packet to its stream's queue, lists the stream in the ring, and does nothing else. The
worker takes from all listed streams, decodes, runs the voice detector over all of them at once and posts the
results back in one call. A hop between threads and a small batch cost as much as decoding some packets, so the worker
rests after each batch for a multiple of what it cost (`REST_FACTOR`): a lone session gets its packets at once, and the
more sessions there are, the larger the batches that they share.

Nobody can hurt the others by sending much: what may wait is bounded (`mynah.audio.ingest_stream`), and a stream takes
no more of a batch than its share (`SHARE_MS`).
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from mynah.audio.echo import EchoControl
from mynah.audio.ingest_stream import (
    MAX_PENDING_PER_STREAM,
    PCM_RATES,
    Decision,
    Flush,
    IngestSink,
    IngestStats,
    IngestStream,
    Pcm,
    Stamped,
    size_of,
)
from mynah.audio.opus import OpusDecoder
from mynah.audio.pcm import StreamResampler
from mynah.errors import AudioError, MynahError

__all__ = [
    "MAX_PENDING_PER_STREAM",
    "PCM_RATES",
    "SAMPLE_RATE",
    "SHARE_MS",
    "Decision",
    "Ingest",
    "IngestSink",
    "IngestStats",
    "IngestStream",
    "VadEngine",
]

SAMPLE_RATE: Final = 16000
"""Rate in Hz of everything that leaves this module; packets of any Opus rate are decoded to it."""

SHARE_MS: Final = 240
"""Audio in ms that one stream may put into a batch; the rest goes to the next one, which then follows at once. Somebody
who speaks brings 60 ms at a time."""

REST_FACTOR: Final = 6.0
"""How many times as long as a batch took of the processor the worker rests after it. So what small batches cost too
much stays below a seventh of a core, whatever the machine."""

MAX_REST_S: Final = 0.01
"""The longest rest: 5 ms on average for who has just finished speaking. From some 150 streams on, the batches that it
brings are large enough to cost no more per stream than larger ones."""

_SILENT_POWER: Final = 1e-12
"""Added before a logarithm is taken: -120 dB, far below one step of 16 bits."""

_IDLE_DECODERS: Final = 64
"""Decoders kept for the next stream, 18 KB each; a surplus one is dropped."""


_NEVER: Final = float("inf")


class VadEngine(Protocol):
    """Voice probabilities for many streams at once. All calls come from the ingest worker thread.

    A stream is a slot: a row in the engine's state arrays, taken while a device listens and returned
    afterwards.
    """

    chunk_samples: int
    """Samples per decision at 16 kHz (512 = 32 ms)."""

    def open(self) -> int:
        """Take a slot with a fresh state."""

    def close(self, slot: int) -> None:
        """Return a slot."""

    def process(self, slots: NDArray[np.intp], chunks: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the speech probability of each row of ``chunks`` (n × chunk_samples, −1…1).

        No slot occurs twice in a call, unless the engine has an attribute ``sequences`` that is true: then a stream's
        chunks that follow each other come in one call, in order.
        """


Segment = tuple["IngestStream", bytes, Flush | None]
"""A stretch of a stream's audio, then perhaps a flush."""
Delivery = tuple["IngestStream", bytes, tuple[Decision, ...], Flush | None]
"""A segment with its decisions."""
Rows = tuple["IngestStream", int, int]
"""A stream's chunks in a batch: the first one's row, and how many follow it in order, itself included."""


class Ingest:
    """The ring and its worker. One per process, shared by all sessions."""

    def __init__(
        self,
        engine: VadEngine,
        loop: asyncio.AbstractEventLoop | None = None,
        interval_s: float | None = None,
    ) -> None:
        """``interval_s`` is the shortest time from the end of a batch to the next one, unless someone flushes.

        None: as long as fits what the batch cost, see `REST_FACTOR`.
        """
        self._engine, self._loop, self._interval = engine, loop, interval_s
        self.stats = IngestStats()
        self.open_streams = 0
        self.failed: asyncio.Future[None] | None = None
        """Made by `start`. Gets an exception if the worker dies: then no session hears anything any more and
        the process should end. Cancelled by `stop`."""
        self._now: Callable[[], float] = time.monotonic if loop is None else loop.time
        self._ring: deque[IngestStream] = deque()  # those with something new; append and popleft are atomic
        # Those that had more than their share in the last batch, and since when they have been waiting.
        self._behind: dict[IngestStream, float] = {}
        self._since = _NEVER  # when the longest waiting of the streams in the worker's hands was listed
        self._bytes_in, self._bytes_out = 0, 0  # written by the loop, by the worker
        self._work, self._urgent = threading.Event(), threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._idle_decoders: list[OpusDecoder] = []
        self._chunk_bytes = engine.chunk_samples * 2
        self._sequences: bool = getattr(engine, "sequences", False)

    def start(self) -> None:
        """Start the worker; on the loop that will get the results."""
        self._loop = self._loop or asyncio.get_running_loop()
        self._now = self._loop.time
        self.failed = self._loop.create_future()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="mynah-ingest", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop the worker; what is pending is dropped. Waits for the batch in progress. Safe more than once."""
        self._stopping = True
        self._urgent.set()
        self._work.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        for stream in self._take_streams():
            self._empty(stream)
        self._since = _NEVER
        if self.failed is not None and not self.failed.done():
            self.failed.cancel()

    def open(self, sink: IngestSink, echo: EchoControl | None = None) -> IngestStream:
        """Begin a stream. It owns a codec and a VAD slot from its first packet until it is closed.

        ``echo`` takes the device's own voice out of its Opus packets; it outlives the stream.
        """
        self.open_streams += 1
        return IngestStream(self, sink, echo)

    def totals(self) -> IngestStats:
        """Return the counters of all streams; those of the worker may be a batch behind."""
        return self.stats

    def work(self) -> list[Delivery]:
        """Do all that is listed, on the caller's thread: for a process that has nothing else to do and never starts
        a worker. In order per stream.
        """
        done: list[Delivery] = []
        while self._ring or self._behind:
            done += self._process(self._take_streams())
        return done

    @property
    def queue_age_s(self) -> float:
        """Return for how long the oldest audio that is not processed yet has been waiting, in s; 0 when none is.

        The rest between batches counts. Of a stream that brought more than its share it is an upper bound. For the
        event loop only.
        """
        since = self._since  # first: what leaves the ring meanwhile is older
        try:
            since = min(since, self._ring[0]._listed_at)
        except IndexError:
            since = min(since, self._since)
        return max(0.0, self._now() - since) if since < _NEVER else 0.0

    # ------------------------------------------------------------ on the event loop

    def _list(self, stream: IngestStream, now: float) -> None:
        """Have the worker look at the stream. One that is listed still will be looked at anyway."""
        if not stream._listed:
            stream._listed_at = now
            stream._listed = True
            self._ring.append(stream)
            if not self._work.is_set():
                self._work.set()

    def _hurry(self) -> None:
        self._urgent.set()

    def _deliver(self, batch: deque[Delivery]) -> None:
        try:
            while batch:
                stream, pcm, decisions, flush = batch.popleft()
                if stream._closed:
                    continue
                if pcm:
                    stream._sink.on_pcm(pcm, decisions)
                if flush is not None and not stream._closed:
                    stream._sink.on_flushed(flush.token)
        finally:
            if batch and self._loop is not None:  # a sink raised: that is its own affair, the others go on
                self._loop.call_soon(self._deliver, batch)

    def _died(self, error: BaseException | None) -> None:
        if self.failed is not None and not self.failed.done():
            self.failed.set_exception(error or RuntimeError("the ingest worker ended"))

    # ------------------------------------------------------------ in the worker thread

    def _run(self) -> None:
        try:
            self._loop_forever()
        finally:
            if (
                not self._stopping
            ):  # an error is on its way up: threading.excepthook reports it, we tell the app
                self._post(self._died, sys.exc_info()[1])

    def _loop_forever(self) -> None:
        next_at = float("-inf")
        while True:
            if not self._behind:
                self._work.wait()
                rest = next_at - time.monotonic()
                if rest > 0:
                    self._urgent.wait(rest)
            self._work.clear()  # before the ring is emptied: what comes from here on sets it again
            self._urgent.clear()
            if self._stopping:
                return
            begin = time.thread_time()
            batch = self._process(self._take_streams())
            if batch:
                self._post(self._deliver, batch)
                self.stats.batches += 1
                next_at = time.monotonic() + self._rest(time.thread_time() - begin)

    def _rest(self, took_s: float) -> float:
        """Return how long to wait after a batch that took so much of the processor: others' work does not count."""
        return self._interval if self._interval is not None else min(REST_FACTOR * took_s, MAX_REST_S)

    def _post(self, callback: Any, argument: Any) -> None:
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(callback, argument)
        except RuntimeError:  # the loop was closed under us; there is nobody left to tell
            self._stopping = True

    def _take_streams(self) -> dict[IngestStream, float]:
        """Return the streams that may have something, those that waited longest first, and since when they did."""
        if self._ring:
            self._since = min(self._since, self._ring[0]._listed_at)  # before it leaves: see `queue_age_s`
        streams = self._behind
        for _ in range(len(self._ring)):
            stream = self._ring.popleft()
            stream._listed = False  # before its queue is looked at: what comes from here on lists it again
            streams.setdefault(stream, stream._listed_at)
        self._behind = {}
        return streams

    def _process(self, streams: dict[IngestStream, float]) -> deque[Delivery]:
        """Decode, detect, and return what is to be delivered, in order per stream."""
        segments: list[Segment] = []
        for stream, since in streams.items():
            if stream._closed:
                self._retire(stream)
                continue
            segments += self._take(stream)
            if stream._queue:
                self._behind[stream] = since
        deliveries = self._detect(segments)
        self._since = min(self._behind.values(), default=_NEVER)
        return deliveries

    def _take(self, stream: IngestStream) -> list[Segment]:
        """Decode the stream's share of a batch."""
        segments: list[Segment] = []
        parts: list[bytes] = []
        room = SHARE_MS * SAMPLE_RATE // 1000 * 2
        taken = 0
        queue = stream._queue
        for _ in range(len(queue)):
            item = queue.popleft()
            if isinstance(item, Flush):
                parts.append(self._end_pcm(stream))
                segments.append((stream, b"".join(parts), item))
                parts = []
                continue
            taken += size_of(item)
            pcm = self._audio(stream, item)
            parts.append(pcm)
            room -= len(pcm)
            if room <= 0:
                break
        stream._bytes_out += taken
        self._bytes_out += taken
        if pcm := b"".join(parts):
            segments.append((stream, pcm, None))
        return segments

    def _audio(self, stream: IngestStream, item: bytes | Stamped | Pcm) -> bytes:
        if isinstance(item, bytes):
            return self._decode(stream, item)
        if isinstance(item, Pcm):
            return self._resample(stream, item)
        pcm = self._decode(stream, item.packet)
        return stream._echo.process(stream, pcm, item.stamp) if stream._echo is not None else pcm

    def _resample(self, stream: IngestStream, piece: Pcm) -> bytes:
        tail = b""
        if stream._resampler is None or stream._resampler.rate_in != piece.rate:
            tail = self._end_pcm(stream)
            stream._resampler = StreamResampler(piece.rate, SAMPLE_RATE)
        self.stats.packets += 1
        return tail + stream._resampler.process(piece.data)

    def _end_pcm(self, stream: IngestStream) -> bytes:
        """Return what the resampler holds back, up to 13 ms, and give the resampler up."""
        resampler, stream._resampler = stream._resampler, None
        return resampler.process(b"", last=True) if resampler is not None else b""

    def _decode(self, stream: IngestStream, packet: bytes) -> bytes:
        if stream._decoder is None:
            stream._decoder = self._idle_decoders.pop() if self._idle_decoders else OpusDecoder(SAMPLE_RATE)
        tail = self._end_pcm(stream) if stream._resampler is not None else b""
        self.stats.packets += 1
        try:
            return tail + stream._decoder.decode(packet)
        except AudioError:
            self.stats.bad_packets += 1
            return tail

    def _detect(self, segments: list[Segment]) -> deque[Delivery]:
        """Return the segments with their decisions. A stream's segments must follow each other."""
        size = self._chunk_bytes
        pieces: list[bytes] = []
        streams: list[Rows] = []
        ends: list[int] = []  # behind each segment's last row
        rows = 0
        for stream, pcm, _ in segments:
            data = stream._rest + pcm
            count = len(data) // size
            end = count * size
            stream._rest = data[end:]
            if count:
                pieces.append(data[:end])
                if streams and streams[-1][0] is stream:
                    _, first, before = streams.pop()
                    streams.append((stream, first, before + count))
                else:
                    streams.append((stream, rows, count))
                rows += count
            ends.append(rows)
        decisions = self._decisions(b"".join(pieces), streams, rows) if rows else []
        batch: deque[Delivery] = deque()
        begin = 0
        for (stream, pcm, flush), end in zip(segments, ends, strict=True):
            batch.append((stream, pcm, tuple(filter(None, decisions[begin:end])), flush))
            begin = end
        return batch

    def _decisions(self, pcm: bytes, streams: list[Rows], rows: int) -> list[Decision | None]:
        """Return a decision per chunk, None where the engine fails even for that chunk alone."""
        chunks = np.frombuffer(pcm, "<i2").reshape(rows, -1).astype(np.float32)
        chunks *= np.float32(1 / 32768)
        power = np.einsum("ij,ij->i", chunks, chunks)
        levels = (10 * np.log10(power / chunks.shape[1] + _SILENT_POWER)).tolist()
        if self._sequences:
            owners = [stream for stream, _, count in streams for _ in range(count)]
            probabilities = self._probabilities(owners, chunks)
        else:
            probabilities = self._by_rounds(streams, chunks)
        return [
            None if probability is None else Decision(probability, level)
            for probability, level in zip(probabilities, levels, strict=True)
        ]

    def _by_rounds(self, streams: list[Rows], chunks: NDArray[np.float32]) -> list[float | None]:
        """Ask the engine several times: in each round, every stream has its next chunk."""
        probabilities: list[float | None] = [None] * len(chunks)
        number = 0
        while streams:
            picked = [first + number for _, first, _ in streams]
            found = self._probabilities([stream for stream, _, _ in streams], chunks[picked])
            for row, probability in zip(picked, found, strict=True):
                probabilities[row] = probability
            number += 1
            streams = [entry for entry in streams if entry[2] > number]
        return probabilities

    def _probabilities(self, streams: list[IngestStream], chunks: NDArray[np.float32]) -> list[float | None]:
        """Ask the engine about a chunk of each of the streams, or about several of one in order."""
        try:
            for stream in streams:
                if stream._slot < 0:
                    stream._slot = self._engine.open()
            slots = np.array([stream._slot for stream in streams], np.intp)
            result: list[float | None] = self._engine.process(slots, chunks).tolist()
        except MynahError:
            self.stats.vad_errors += 1
        else:
            return result
        if len(streams) == 1:
            return [None]
        # Perhaps it is one stream's audio that the engine cannot stand: the others must not pay for it.
        return [self._probabilities([one], chunks[at : at + 1])[0] for at, one in enumerate(streams)]

    def _empty(self, stream: IngestStream) -> None:
        taken = 0
        while stream._queue:
            if not isinstance(item := stream._queue.popleft(), Flush):
                taken += size_of(item)
        stream._bytes_out += taken
        self._bytes_out += taken

    def _retire(self, stream: IngestStream) -> None:
        self._empty(stream)
        stream._resampler = None
        if stream._echo is not None:
            stream._echo.leave(stream)
        if stream._slot >= 0:
            self._engine.close(stream._slot)
            stream._slot = -1
        decoder, stream._decoder = stream._decoder, None
        if decoder is not None and len(self._idle_decoders) < _IDLE_DECODERS:
            decoder.reset()
            self._idle_decoders.append(decoder)
