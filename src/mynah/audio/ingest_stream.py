"""One device's audio on its way to the ingest worker: what may wait, and for how long a stream may go on like that.

Nobody can hurt the others by sending much: a stream may not bring more audio than its credit allows
(`mynah.audio.credit`), and the memory of what waits is bounded, per stream and in all.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final, NamedTuple, Protocol

import msgspec

from mynah.audio.credit import MAX_DEBT_S, opus_cost_s, pcm_cost_s
from mynah.audio.echo import EchoControl
from mynah.audio.opus import OpusDecoder
from mynah.audio.pcm import StreamResampler
from mynah.errors import AudioError

PCM_RATES: Final = (8000, 48000)
"""Lowest and highest rate in Hz of PCM that is taken: telephones and browsers."""

MAX_PENDING_PER_STREAM: Final = 300
"""Packets of one stream that may wait for the worker: the 6 s of a full credit in packets of 20 ms.

Policy: the newest packet is dropped and counted. What is queued stays in one piece for the decoder and the
recogniser, the hole is at one place, and nothing has to be searched for in a queue."""

MAX_PENDING_BYTES_PER_STREAM: Final = 1_200_000
"""Memory of one stream's packets that wait: the 12 s of a full credit as 48 kHz PCM. Opus needs a tenth of it; only
packets stuffed with something else meet this bound. Policy: as above."""

MAX_PENDING_BYTES: Final = 64_000_000
"""Memory of all streams' packets that wait. It has room for some 300 000 packets of speech, which keep the worker busy
for 20 s: whatever comes on top of that would be too late for a conversation. Policy: as above."""

ITEM_BYTES: Final = 64
"""What a packet takes besides its content: the object's head and its place in the queue."""

_PCM_PIECE_MS: Final = 100
"""Longest piece in which PCM is queued, so that shares are kept."""


class Decision(NamedTuple):
    """What is known of one chunk of audio."""

    probability: float
    """That it is speech, 0…1, as the voice detector says."""
    level_db: float
    """RMS level in dB of full scale; -120 for digital silence."""


class IngestSink(Protocol):
    """Who receives decoded audio; called on the event loop."""

    def on_pcm(self, pcm: bytes, decisions: tuple[Decision, ...]) -> None:
        """Next stretch of 16 kHz s16le PCM and the decisions about the chunks that completed in it, in order."""

    def on_flushed(self, token: Any) -> None:
        """All audio pushed before `IngestStream.flush(token)` has been delivered."""


class Pcm:
    """A piece of PCM in a queue."""

    __slots__ = ("data", "rate")

    def __init__(self, data: bytes, rate: int) -> None:
        self.data, self.rate = data, rate


class Stamped:
    """A packet in a queue whose echo is to be cancelled."""

    __slots__ = ("packet", "stamp")

    def __init__(self, packet: bytes, stamp: int) -> None:
        self.packet, self.stamp = packet, stamp


class Flush:
    """A flush in a queue."""

    __slots__ = ("token",)

    def __init__(self, token: Any) -> None:
        self.token = token


class IngestStats(msgspec.Struct):
    """Counters since the start. Each has one writing thread; readers may be a batch behind."""

    packets: int = 0
    """Taken by the worker, pieces of PCM among them."""
    bad_packets: int = 0
    """Not Opus: replaced by nothing, the stream went on."""
    dropped_packets: int = 0
    """Refused, for one of the three reasons below. PCM counts in pieces of 100 ms or less."""
    dropped_credit: int = 0
    """Of these: beyond the stream's credit; the sender brings more than it can speak."""
    dropped_stream: int = 0
    """Of these: too much of the stream was pending."""
    dropped_overload: int = 0
    """Of these: too much of all streams was pending; the server is overloaded."""
    batches: int = 0
    vad_errors: int = 0
    """Calls in which the engine raised a MynahError. Audio without decisions is delivered all the same."""
    process_s: float = 0.0
    """Processor time in s of the process beside the worker thread, if there is one."""


def size_of(item: bytes | Stamped | Pcm) -> int:
    """Return what a packet counts in memory, in bytes."""
    if isinstance(item, bytes):
        return len(item) + ITEM_BYTES
    return len(item.data if isinstance(item, Pcm) else item.packet) + ITEM_BYTES


class StreamWorker(Protocol):
    """Who works for streams: the thread of `mynah.audio.ingest`, or the process of `mynah.audio.ingest_remote`."""

    stats: IngestStats
    open_streams: int
    """Streams that are not closed yet."""
    _now: Callable[[], float]
    _bytes_in: int
    """Of what was queued, in all; written by the loop."""
    _bytes_out: int
    """Of what was taken, in all; written by the worker."""

    def _list(self, stream: IngestStream, now: float) -> None:
        """Have the worker look at the stream."""

    def _hurry(self) -> None:
        """Have it begin at once with what is listed next."""


class IngestStream:
    """One device's audio while it listens. Made by `Ingest.open`; all calls from the event loop, none blocks.

    Opus and PCM may follow each other, the later kind goes on where the other ended. Echo is cancelled in Opus only:
    PCM comes from people's programs, which have no use for it.
    """

    def __init__(self, ingest: StreamWorker, sink: IngestSink, echo: EchoControl | None = None) -> None:
        self._ingest, self._sink, self._echo = ingest, sink, echo
        self._queue: deque[bytes | Stamped | Pcm | Flush] = deque()  # append and popleft are atomic
        self._listed = False  # in the ring; set by the loop, cleared by the worker
        self._listed_at = 0.0  # on the loop's clock
        # Written by the loop only.
        self._closed = False
        self._settled_at = 0.0  # when the credit will be whole again, on the loop's clock
        self._bytes_in = 0
        self._pcm_rate = 0  # of the piece before; 0 after Opus
        self._half = b""  # of a sample whose second byte is still to come
        # From here on the worker's own.
        self._bytes_out = 0
        self._slot = -1
        self._decoder: OpusDecoder | None = None
        self._resampler: StreamResampler | None = None  # while the stream brings PCM
        self._rest = b""  # less than a chunk, waiting for the next packet

    @property
    def pending(self) -> int:
        """Packets, pieces of PCM and flushes that the worker has not taken yet."""
        return len(self._queue)

    def push(self, packet: bytes, stamp: int = 0) -> None:
        """Queue one Opus packet. Dropped when there is no credit or too much is pending, ignored when closed.

        ``stamp`` is that of the packet the device had just played when it recorded this one, 0 for none.
        """
        if self._closed:
            return
        self._pcm_rate = 0
        item = packet if self._echo is None else Stamped(packet, stamp)
        self._put(item, len(packet), opus_cost_s(packet))

    def push_pcm(self, pcm: bytes, sample_rate: int) -> None:
        """Queue s16le mono PCM of ``sample_rate`` Hz; the worker resamples it. Bounds as for `push`.

        Calls may cut the audio anywhere, even within a sample. One call cannot bring more than a full credit: once a
        piece is dropped, so is the rest of the call. Raises AudioError for a rate outside `PCM_RATES`.
        """
        if not PCM_RATES[0] <= sample_rate <= PCM_RATES[1]:
            raise AudioError(f"PCM may have {PCM_RATES[0]} to {PCM_RATES[1]} Hz, not {sample_rate}")
        if self._closed:
            return
        if sample_rate != self._pcm_rate:
            self._pcm_rate, self._half = sample_rate, b""
        data = self._half + pcm if self._half else pcm
        end = len(data) & ~1
        self._half = data[end:]
        step = sample_rate * _PCM_PIECE_MS // 1000 * 2
        for at in range(0, end, step):
            piece = data[at : min(at + step, end)]
            cost_s = pcm_cost_s(len(piece), sample_rate)
            if not self._put(Pcm(piece, sample_rate), len(piece), cost_s, 1 + (end - at - 1) // step):
                return

    def flush(self, token: Any) -> None:
        """Ask for `IngestSink.on_flushed` after all audio pushed so far; the worker starts at once.

        There is no bound: a recording is flushed once, when it ends.
        """
        if not self._closed:
            self._queue.append(Flush(token))
            self._ingest._hurry()  # first: when the worker sees the work, it sees that it is urgent
            self._ingest._list(self, self._ingest._now())

    def close(self) -> None:
        """No more audio; the sink gets nothing any more. Safe more than once."""
        if not self._closed:
            self._closed = True
            self._ingest.open_streams -= 1
            self._ingest._list(self, self._ingest._now())

    def accept(self, item: bytes | Pcm) -> None:
        """Queue a packet whose sender has passed all bounds elsewhere."""
        self._bytes_in += size_of(item)
        self._ingest._bytes_in += size_of(item)
        self._queue.append(item)
        self._ingest._list(self, self._ingest._now())

    def _put(self, item: bytes | Stamped | Pcm, size: int, cost_s: float, lost: int = 1) -> bool:
        """Queue the item and pay for it, if the bounds allow. Else ``lost`` packets are counted as dropped."""
        ingest = self._ingest
        now = ingest._now()
        settled_at = max(self._settled_at, now) + cost_s
        size += ITEM_BYTES
        stats = ingest.stats
        if settled_at - now > MAX_DEBT_S:
            stats.dropped_credit += lost
        elif (
            len(self._queue) >= MAX_PENDING_PER_STREAM
            or self._bytes_in - self._bytes_out + size > MAX_PENDING_BYTES_PER_STREAM
        ):
            stats.dropped_stream += lost
        elif ingest._bytes_in - ingest._bytes_out + size > MAX_PENDING_BYTES:
            stats.dropped_overload += lost
        else:
            self._settled_at = settled_at
            self._bytes_in += size
            ingest._bytes_in += size
            self._queue.append(item)
            if not self._listed:
                ingest._list(self, now)
            return True
        stats.dropped_packets += lost
        return False
