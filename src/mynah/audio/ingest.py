"""Up-link audio of all sessions: one ring, one worker thread, one batched VAD call.

The event loop appends packets to the ring and does nothing else with them. The worker takes everything that
is pending, decodes it, runs the voice detector over all streams at once and posts the results back in one
call. A hop between threads costs as much as decoding a packet, so it is paid per batch, not per packet: a
lone session gets its packets at once, many sessions share a batch every `interval_s`.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections import deque
from typing import Any, Final, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from mynah.audio.opus import OpusDecoder
from mynah.errors import AudioError, MynahError

SAMPLE_RATE: Final = 16000
"""Rate in Hz of everything that leaves this module; packets of any Opus rate are decoded to it."""

MAX_PENDING_PER_STREAM: Final = 64
"""Packets of one stream that may wait for the worker: 3.8 s of 60 ms packets, 1.3 s of 20 ms ones.

Whoever is that far behind is on an overloaded server or floods us. Policy: the newest packet is dropped and
counted. What is queued stays in one piece for the decoder and the recogniser, the hole is at one place, and
nothing has to be searched for in a ring that all sessions share."""

MAX_PENDING_TOTAL: Final = 65536
"""Packets of all streams together, some 15 MB: a thousand streams at their own bound. Policy: as above."""

_IDLE_DECODERS: Final = 64
"""Decoders kept for the next stream, 18 KB each; a surplus one is dropped."""


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

        No slot occurs twice in a call.
        """


class IngestSink(Protocol):
    """Who receives decoded audio; called on the event loop."""

    def on_pcm(self, pcm: bytes, probabilities: tuple[float, ...]) -> None:
        """Next stretch of 16 kHz s16le PCM and the VAD decisions that completed in it, in order."""

    def on_flushed(self, token: Any) -> None:
        """All audio pushed before `IngestStream.flush(token)` has been delivered."""


class IngestStats(msgspec.Struct):
    """Counters since the start. Each has one writing thread; readers may be a batch behind."""

    packets: int = 0
    bad_packets: int = 0
    """Not Opus: replaced by nothing, the stream went on."""
    dropped_packets: int = 0
    """Refused because too many were pending."""
    batches: int = 0
    vad_errors: int = 0
    """Batches whose audio was delivered without decisions because the engine raised a MynahError."""


class _Flush:
    """A flush among the packets of the ring."""

    __slots__ = ("token",)

    def __init__(self, token: Any) -> None:
        self.token = token


class _Close:
    """The end of a stream, in the ring."""


_CLOSE: Final = _Close()

Item = tuple["IngestStream", bytes | _Flush | _Close]
Delivery = tuple["IngestStream", bytes, tuple[float, ...], _Flush | None]
"""A stretch of audio with its decisions, then perhaps a flush."""


class IngestStream:
    """One device's audio while it listens. Made by `Ingest.open`; all calls from the event loop, none blocks."""

    def __init__(self, ingest: Ingest, sink: IngestSink) -> None:
        self._ingest, self._sink = ingest, sink
        self._closed = False
        self._pushed = 0  # written by the loop only
        # From here on the worker's own.
        self._taken = 0
        self._slot = -1
        self._decoder: OpusDecoder | None = None
        self._rest = b""  # less than a chunk, waiting for the next packet

    @property
    def pending(self) -> int:
        """Packets pushed and not yet taken by the worker."""
        return self._pushed - self._taken

    def push(self, packet: bytes) -> None:
        """Queue one Opus packet. Dropped when too many are pending, ignored when closed."""
        if not self._closed:
            self._ingest._push(self, packet)

    def flush(self, token: Any) -> None:
        """Ask for `IngestSink.on_flushed` after all audio pushed so far; the worker starts at once."""
        if not self._closed:
            self._ingest._urge((self, _Flush(token)))

    def close(self) -> None:
        """No more audio; the sink gets nothing any more. Safe more than once."""
        if not self._closed:
            self._closed = True
            self._ingest._put((self, _CLOSE))


class Ingest:
    """The ring and its worker. One per process, shared by all sessions."""

    def __init__(
        self,
        engine: VadEngine,
        loop: asyncio.AbstractEventLoop | None = None,
        interval_s: float = 0.02,
    ) -> None:
        """``interval_s`` is the shortest time between two batches, unless someone flushes."""
        self._engine, self._loop, self._interval = engine, loop, interval_s
        self.stats = IngestStats()
        self.failed: asyncio.Future[None] | None = None
        """Made by `start`. Gets an exception if the worker dies: then no session hears anything any more and
        the process should end. Cancelled by `stop`."""
        self._ring: deque[Item] = deque()  # append and popleft are atomic
        self._work, self._urgent = threading.Event(), threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._idle_decoders: list[OpusDecoder] = []
        self._chunk_bytes = engine.chunk_samples * 2

    def start(self) -> None:
        """Start the worker; on the loop that will get the results."""
        self._loop = self._loop or asyncio.get_running_loop()
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
        self._ring.clear()
        if self.failed is not None and not self.failed.done():
            self.failed.cancel()

    def open(self, sink: IngestSink) -> IngestStream:
        """Begin a stream. It owns a decoder and a VAD slot from its first packet until it is closed."""
        return IngestStream(self, sink)

    # ------------------------------------------------------------ on the event loop

    def _push(self, stream: IngestStream, packet: bytes) -> None:
        if stream.pending >= MAX_PENDING_PER_STREAM or len(self._ring) >= MAX_PENDING_TOTAL:
            self.stats.dropped_packets += 1
            return
        stream._pushed += 1
        self._put((stream, packet))

    def _put(self, item: Item) -> None:
        self._ring.append(item)
        if not self._work.is_set():
            self._work.set()

    def _urge(self, item: Item) -> None:
        self._ring.append(item)
        self._urgent.set()  # before _work: when the worker sees the work, it sees that it is urgent
        self._work.set()

    def _deliver(self, batch: deque[Delivery]) -> None:
        try:
            while batch:
                stream, pcm, probabilities, flush = batch.popleft()
                if stream._closed:
                    continue
                if pcm:
                    stream._sink.on_pcm(pcm, probabilities)
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
        last = float("-inf")
        while True:
            self._work.wait()
            delay = last + self._interval - time.monotonic()
            if delay > 0:
                self._urgent.wait(delay)
            self._work.clear()  # before the ring is emptied: what comes from here on sets it again
            self._urgent.clear()
            if self._stopping:
                return
            batch = self._process([self._ring.popleft() for _ in range(len(self._ring))])
            if batch:
                self._post(self._deliver, batch)
                self.stats.batches += 1
                last = time.monotonic()

    def _post(self, callback: Any, argument: Any) -> None:
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(callback, argument)
        except RuntimeError:  # the loop was closed under us; there is nobody left to tell
            self._stopping = True

    def _process(self, items: list[Item]) -> deque[Delivery]:
        """Decode, detect, and return what is to be delivered, in order per stream."""
        audio: dict[IngestStream, list[bytes]] = {}  # since the stream's last segment
        segments: list[tuple[IngestStream, bytes, _Flush | None]] = []
        closing: list[IngestStream] = []
        for stream, item in items:
            if isinstance(item, bytes):
                stream._taken += 1
                if not stream._closed and (pcm := self._decode(stream, item)):
                    audio.setdefault(stream, []).append(pcm)
            elif isinstance(item, _Flush):
                segments.append((stream, b"".join(audio.pop(stream, ())), item))
            else:
                closing.append(stream)
        segments += ((stream, b"".join(parts), None) for stream, parts in audio.items())
        decisions = self._detect(segments)
        for stream in closing:
            self._retire(stream)
        return deque(
            (stream, pcm, probabilities, flush)
            for (stream, pcm, flush), probabilities in zip(segments, decisions, strict=True)
        )

    def _decode(self, stream: IngestStream, packet: bytes) -> bytes:
        if stream._decoder is None:
            stream._decoder = self._idle_decoders.pop() if self._idle_decoders else OpusDecoder(SAMPLE_RATE)
        self.stats.packets += 1
        try:
            return stream._decoder.decode(packet)
        except AudioError:
            self.stats.bad_packets += 1
            return b""

    def _detect(self, segments: list[tuple[IngestStream, bytes, _Flush | None]]) -> list[tuple[float, ...]]:
        """Return each segment's decisions. Round by round: in each, every stream has its next chunk."""
        size = self._chunk_bytes
        rounds: list[list[tuple[int, IngestStream, bytes]]] = []  # (segment, stream, chunk)
        used: dict[IngestStream, int] = {}  # rounds a stream already takes part in
        for index, (stream, pcm, _) in enumerate(segments):
            data = stream._rest + pcm
            end = len(data) - len(data) % size
            stream._rest = data[end:]
            number = used.get(stream, 0)
            for at in range(0, end, size):
                if number == len(rounds):
                    rounds.append([])
                rounds[number].append((index, stream, data[at : at + size]))
                number += 1
            used[stream] = number
        found: list[list[float]] = [[] for _ in segments]
        try:
            for entries in rounds:
                probabilities = self._probabilities(entries)
                for (index, _, _), probability in zip(entries, probabilities, strict=True):
                    found[index].append(probability)
        except MynahError:
            self.stats.vad_errors += 1
        return [tuple(values) for values in found]

    def _probabilities(self, entries: list[tuple[int, IngestStream, bytes]]) -> list[float]:
        for _, stream, _ in entries:
            if stream._slot < 0:
                stream._slot = self._engine.open()
        slots = np.fromiter((stream._slot for _, stream, _ in entries), np.intp, len(entries))
        samples = np.frombuffer(b"".join(chunk for _, _, chunk in entries), "<i2")
        chunks = samples.reshape(len(entries), -1).astype(np.float32)
        chunks *= np.float32(1 / 32768)
        result: list[float] = self._engine.process(slots, chunks).tolist()
        return result

    def _retire(self, stream: IngestStream) -> None:
        if stream._slot >= 0:
            self._engine.close(stream._slot)
            stream._slot = -1
        decoder, stream._decoder = stream._decoder, None
        if decoder is not None and len(self._idle_decoders) < _IDLE_DECODERS:
            decoder.reset()
            self._idle_decoders.append(decoder)
