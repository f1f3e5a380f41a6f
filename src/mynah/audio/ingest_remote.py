"""Up-link audio with a process beside the thread, for when many speak at once.

The thread of `mynah.audio.ingest` gives the interpreter up for each packet and has to get it back from the event loop
and the encoders. With 90 people who speak at the same moment it mostly waits for that, and says a second late that
somebody has finished. A process has an interpreter of its own. It costs 55 MB, so it is started when many speak, and
only where there is a second core for it to run on.

A stream belongs to one of the two from its beginning, and is the same object with the same bounds for both. When the
process is lost, its streams go on in the thread: what was on its way is missing, some 20 ms, and the decoder and the
voice detector begin anew.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import msgspec
from loguru import logger

from mynah.audio.echo import EchoControl
from mynah.audio.ingest import Delivery, Ingest, VadEngine
from mynah.audio.ingest_channel import Channel
from mynah.audio.ingest_stream import Flush, IngestSink, IngestStats, IngestStream, Pcm, Stamped, size_of
from mynah.audio.ingest_wire import CLOSE, FLUSH, OPUS, Answer, Batch, EngineSource, Piece, frame

START_AT: Final = 64
"""Streams open at once from which on a process is wanted: those of some 270 people in conversation, who speak a fifth
of the time. With few more the thread begins to be late."""

BEAT_S: Final = 0.01
"""Between two batches, unless somebody flushes; as the thread rests (`mynah.audio.ingest.MAX_REST_S`)."""

WINDOW: Final = 2
"""Batches without an answer: one that is worked on, and the next. Policy: what comes meanwhile waits in its stream,
under the bounds of `mynah.audio.ingest_stream`, and is dropped and counted as there."""

BATCH_BYTES: Final = 262_144
"""In a batch at most, about: 240 ms of speech of 250 streams, which take some 100 ms to hear. Policy: the rest waits in
its stream."""

SHARE_ITEMS: Final = 12
"""Packets that one stream may put into a batch: 240 ms in the shortest packets in use. Policy: as above."""

SLOW_S: Final = 1.0
"""A process that has not answered for so long gets no new streams."""

STALLED_S: Final = 5.0
"""A process that has not answered for so long is ended. The longest batch takes a tenth of that."""

START_TIMEOUT_S: Final = 30.0
"""The same while it starts, which takes 0.4 s of a free core."""

RETRY_S: Final = (1.0, 300.0)
"""Shortest and longest pause before a process that was lost is replaced. It doubles each time, until one has lasted for
longer than the longest."""

_NEVER: Final = float("inf")
log = logger.bind(tag="audio")


class _Far:
    """A stream that the process knows of."""

    __slots__ = ("number", "stream", "tokens")

    def __init__(self, stream: IngestStream, number: int) -> None:
        self.stream, self.number = stream, number
        self.tokens: deque[Any] = deque()  # of the flushes that were sent; bounded as they are


class RemoteIngest:
    """The streams of one process. For them it is what `Ingest` is for its own; see there for what the parts do."""

    def __init__(self, thread: Ingest, source: EngineSource, on_lost: Callable[[str], None]) -> None:
        """On the loop. ``thread`` takes the streams over when the process is lost; then ``on_lost`` learns why."""
        self._thread, self._source, self._on_lost = thread, source, on_lost
        self._loop = asyncio.get_running_loop()
        self._now = self._loop.time
        self.stats = IngestStats()
        self.open_streams = 0
        self.ready = False
        """The process has its voice detector."""
        self._bytes_in, self._bytes_out = 0, 0
        self._ring: deque[IngestStream] = deque()  # those with something new
        self._far: dict[IngestStream, _Far] = {}
        self._by_number: dict[int, _Far] = {}
        self._opened = 0
        self._hurried = self._dead = False
        self._timer: asyncio.Handle | None = None
        self._next_at = 0.0
        self._flights: deque[tuple[float, float]] = (
            deque()
        )  # sent when, and since when its oldest audio waits
        self._watchdog: asyncio.TimerHandle | None = None
        self._answers = msgspec.msgpack.Decoder(Answer)
        self._channel = Channel(self._loop, self._on_frame, self._lost)

    async def start(self) -> None:
        """Start the process; it is `ready` later. Raises OSError; call `stop` also then."""
        self._launch(frame(self._source), _NEVER)
        await self._channel.start()

    def stop(self) -> None:
        """End the process; what is pending is dropped. Safe more than once."""
        self._halt()
        self._channel.close(wait=True)
        for stream in (*self._far, *self._ring):
            self._empty(stream)

    def open(self, sink: IngestSink) -> IngestStream:
        """Begin a stream."""
        self.open_streams += 1
        return IngestStream(self, sink)

    @property
    def pid(self) -> int | None:
        """Process id while there is one."""
        return self._channel.pid

    @property
    def usable(self) -> bool:
        """Whether it should get new streams."""
        return self.ready and (not self._flights or self._now() - self._flights[0][0] < SLOW_S)

    @property
    def queue_age_s(self) -> float:
        """Return for how long the oldest audio without an answer has been waiting, in s."""
        since = self._flights[0][1] if self._flights else _NEVER
        if self._ring:
            since = min(since, self._ring[0]._listed_at)
        return max(0.0, self._now() - since) if since < _NEVER else 0.0

    # ------------------------------------------------------------ to the process

    def _hurry(self) -> None:
        if not self._hurried:
            self._hurried = True
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    def _list(self, stream: IngestStream, now: float) -> None:
        if self._dead:  # it had brought nothing when the process was lost
            self._hand_over(stream)
            return
        if not stream._listed:
            stream._listed_at = now
            stream._listed = True
            self._ring.append(stream)
        if self._timer is None:
            self._plan(now)

    def _plan(self, now: float) -> None:
        """Send what is listed, when it is time: never before the loop has read all sockets that have something."""
        if not self._ring or len(self._flights) >= WINDOW or self._channel.blocked or not self.ready:
            return  # an answer makes the next plan
        wait_s = 0.0 if self._hurried else self._next_at - now
        self._timer = (
            self._loop.call_later(wait_s, self._send) if wait_s > 0 else self._loop.call_soon(self._send)
        )

    def _send(self) -> None:
        now = self._now()
        self._timer, self._hurried, self._next_at = None, False, now + BEAT_S
        pieces: list[Piece] = []
        since, room = _NEVER, BATCH_BYTES
        for _ in range(len(self._ring)):
            stream = self._ring.popleft()
            stream._listed = False
            since = min(since, stream._listed_at)
            room -= self._take(stream, pieces)
            if stream._queue:
                stream._listed = True  # since the same moment
                self._ring.append(stream)
            if room <= 0:
                break
        if pieces:
            self._launch(frame(Batch(pieces)), since)
        self._plan(now)

    def _take(self, stream: IngestStream, pieces: list[Piece]) -> int:
        """Put the stream's share into the batch; return its size."""
        far = self._far.get(stream)
        if stream._closed:
            self._empty(stream)
            if far is not None:
                pieces.append(Piece(far.number, CLOSE))
                del self._far[stream], self._by_number[far.number]
            return 0
        if far is None:
            self._opened += 1
            far = self._far[stream] = self._by_number[self._opened] = _Far(stream, self._opened)
        taken = 0
        queue = stream._queue
        for _ in range(min(len(queue), SHARE_ITEMS)):
            item = queue.popleft()
            if isinstance(item, Flush):
                far.tokens.append(item.token)
                pieces.append(Piece(far.number, FLUSH))
                continue
            assert not isinstance(item, Stamped)  # echo is for the thread
            taken += size_of(item)
            kind, data = (item.rate, item.data) if isinstance(item, Pcm) else (OPUS, item)
            pieces.append(Piece(far.number, kind, data))
        stream._bytes_out += taken
        self._bytes_out += taken
        return taken

    def _empty(self, stream: IngestStream) -> None:
        taken = sum(size_of(item) for item in stream._queue if not isinstance(item, Flush))
        stream._queue.clear()
        stream._bytes_out += taken
        self._bytes_out += taken

    def _launch(self, data: bytes, since: float) -> None:
        now = self._now()
        self._flights.append((now, since))
        if self._watchdog is None:
            self._watchdog = self._loop.call_later(
                START_TIMEOUT_S if not self.ready else STALLED_S, self._watch
            )
        self._channel.send(data)

    def _watch(self) -> None:
        self._watchdog = None
        self._channel.read()  # perhaps it is the server that stood still
        if not self._flights:
            return
        left_s = self._flights[0][0] + (STALLED_S if self.ready else START_TIMEOUT_S) - self._now()
        if left_s > 0:
            self._watchdog = self._loop.call_later(left_s, self._watch)
        else:
            self._channel.close()
            self._lost("it does not answer")

    # ------------------------------------------------------------ from the process

    def _on_frame(self, body: bytes) -> None:
        try:
            answer = self._answers.decode(body)
        except msgspec.DecodeError as error:
            self._channel.close()
            self._lost(f"it answers nonsense: {error}")
            return
        self._flights.popleft()
        if not self.ready:
            self.ready = True
            if self._watchdog is not None:
                self._watchdog.cancel()  # it has more patience than the next one
                self._watchdog = None
            return
        stats = self.stats
        stats.packets += answer.packets
        stats.bad_packets += answer.bad_packets
        stats.vad_errors += answer.vad_errors
        stats.process_s += answer.process_s
        stats.batches += 1
        batch: deque[Delivery] = deque()
        for heard in answer.heard:
            far = self._by_number.get(heard.stream)
            if far is not None:
                flush = Flush(far.tokens.popleft()) if heard.flushed else None
                batch.append((far.stream, heard.pcm, heard.decisions, flush))
        if self._timer is None:
            self._plan(self._now())
        # Not here: a sink that raises must not keep the next answer back.
        self._loop.call_soon(self._thread._deliver, batch)

    def _halt(self) -> None:
        self.ready = False
        for timer in (self._timer, self._watchdog):
            if timer is not None:
                timer.cancel()
        self._timer = self._watchdog = None
        self._flights.clear()

    def _lost(self, reason: str) -> None:
        """Have the thread go on with the streams."""
        self._dead = True
        self._halt()
        fars, ring = self._far, self._ring
        self._far, self._by_number, self._ring = {}, {}, deque()
        for far in fars.values():
            # Who waits for a flush must not wait for ever.
            far.stream._queue.extendleft(Flush(token) for token in reversed(far.tokens))
        for stream in dict.fromkeys((*fars, *ring)):
            self._hand_over(stream)
        self._on_lost(reason)

    def _hand_over(self, stream: IngestStream) -> None:
        if stream._closed:
            self._empty(stream)
            return
        pending = stream._bytes_in - stream._bytes_out
        self._bytes_out += pending
        self._thread._bytes_in += pending
        self.open_streams -= 1
        self._thread.open_streams += 1
        stream._ingest = self._thread
        stream._listed = False
        self._thread._list(stream, self._now())


class ScalingIngest(Ingest):
    """`Ingest` that starts a process when many streams are open, and gives it the new ones.

    The process is kept until the end: a server that had so many streams once has them every evening, and a start takes
    half a second of a core, in the moment when it is needed for something else.
    """

    def __init__(
        self,
        engine: VadEngine,
        source: EngineSource | None = None,
        *,
        start_at: int = START_AT,
        loop: asyncio.AbstractEventLoop | None = None,
        interval_s: float | None = None,
    ) -> None:
        """``source``: of such an engine in another process; None: there is never one.

        ``start_at``: streams open at once from which on there is one.
        """
        super().__init__(engine, loop, interval_s)
        self._source, self._start_at = source, start_at
        self.remote: RemoteIngest | None = None
        """The process, perhaps on its way."""
        self._starting: asyncio.Task[None] | None = None
        self._gone = IngestStats()  # of processes that are no more
        self._started_at = 0.0
        self._pause_s = RETRY_S[0]
        self._retry_at = float("-inf")

    def open(self, sink: IngestSink, echo: EchoControl | None = None) -> IngestStream:
        """Begin a stream where there is more room; see `Ingest.open`. Echo is cancelled in the thread."""
        remote = self.remote
        if echo is None and self._source is not None:
            if remote is not None and remote.usable:
                return remote.open(sink)
            if remote is None and self.open_streams + 1 >= self._start_at and self._now() >= self._retry_at:
                self._begin(self._source)
        return super().open(sink, echo)

    @property
    def queue_age_s(self) -> float:
        """Return for how long the oldest audio has been waiting, in s: for the thread, or without an answer."""
        age_s = super().queue_age_s
        return max(age_s, self.remote.queue_age_s) if self.remote is not None else age_s

    def totals(self) -> IngestStats:
        """Return the counters of all streams, those of the process included."""
        total = IngestStats()
        for stats in (self.stats, self._gone, *((self.remote.stats,) if self.remote is not None else ())):
            _add(total, stats)
        return total

    def stop(self) -> None:
        """Stop the thread and end the process; see `Ingest.stop`."""
        self._source = None
        if self._starting is not None:
            self._starting.cancel()
        if self.remote is not None:
            self.remote.stop()
        super().stop()

    def _begin(self, source: EngineSource) -> None:
        try:
            self.remote = RemoteIngest(self, source, self._on_lost)
        except OSError as error:  # no more open files
            self._on_lost(f"it cannot be started: {error}")
            return
        self._started_at = self._now()
        self._starting = asyncio.get_running_loop().create_task(self._start_process(self.remote))

    async def _start_process(self, remote: RemoteIngest) -> None:
        try:
            await remote.start()
        except OSError as error:
            remote.stop()
            if self.remote is remote:  # it was not told yet
                self._on_lost(f"it cannot be started: {error}")

    def _on_lost(self, reason: str) -> None:
        now = self._now()
        if self.remote is not None:
            _add(self._gone, self.remote.stats)
            self.remote = None
            if now - self._started_at > RETRY_S[1]:
                self._pause_s = RETRY_S[0]
        self._retry_at = now + self._pause_s
        log.warning(
            "the process that hears is lost, {}: a thread goes on with its streams, next attempt in {:.0f} s or later",
            reason,
            self._pause_s,
        )
        self._pause_s = min(self._pause_s * 2, RETRY_S[1])


def _add(total: IngestStats, stats: IngestStats) -> None:
    for name in IngestStats.__struct_fields__:
        setattr(total, name, getattr(total, name) + getattr(stats, name))
