"""Threads that encode for all conversations, the most urgent audio first.

Every reply has at most one `CodecJob` here at a time, a slice of some frames, so a long sentence never keeps the
others waiting. Jobs are taken in the order of their deadlines. Of the first audio of a reply that is the moment in
which it comes, so it goes before all that is encoded ahead; only what is late already goes before it.

Waking a thread or the event loop costs as much as encoding a frame. An urgent job pays for it; those that have time
are handed to the threads together at the next beat, and their results taken back at the one after.

The pool also says how hard the codec should try (`Effort`). Where there is much to do, a third of the work per frame
is worth more than the last decibel; `benchmarks/opus.json` has the figures. The change is made between two frames and
cannot be heard (`mynah.audio.opus.OpusEncoder.tune`).
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import queue
import threading
import time
from typing import Final, Protocol

import msgspec

from mynah.audio.opus import Effort
from mynah.resources import whole_cores

LIGHT_ABOVE: Final = 0.04
"""Share of the machine's processor time spent on encoding above which the effort becomes light: on two cores about 40
devices that speak at the same moment."""
FULL_BELOW: Final = 0.01
"""Share below which it becomes full again. Light costs 0.4 of full: 0.04 becomes 0.016, and nothing swings."""
LIGHT_WAIT_S: Final = 0.05
"""Or when a job had to wait for so long: whatever takes the processor away, it is needed elsewhere."""
BACKLOG: Final = 32
"""Jobs that wait, from which on the threads are in a hurry. A beat with 400 replies brings a dozen. When the event loop
is busy, it takes a thread up to 5 ms to get the GIL back after each frame, and much less than a core is encoded."""
URGENT_S: Final = 0.1
"""A job that is due within this time does not wait for the beat."""
BEAT_S: Final = 0.02
"""Between two beats: 50 wake-ups a second at most, and 40 ms that a job takes longer."""
_LATE_S: Final = 0.005
WINDOW_S: Final = 1.0
"""Over which the share is measured."""
CALM_WINDOWS: Final = 5
"""So many windows in a row must be calm before the effort becomes full again."""


class CodecJob(Protocol):
    """A slice of work. Submitted again for the next slice, by its own `done`, if need be."""

    def work(self) -> None:
        """Do it, in a worker thread. Returns at once when nobody wants it any more."""

    def done(self) -> None:
        """Take the result, on the event loop. Must not raise."""


class CodecPool(Protocol):
    """What encoders need of a pool."""

    effort: Effort
    """How hard to try at the moment."""

    @property
    def hurried(self) -> bool:
        """Whether so much is waiting that it is worth holding up other threads."""

    def submit(self, job: CodecJob, due: float) -> None:
        """Have ``job`` done, before those whose ``due`` (``loop.time()`` seconds) is later. Event loop only."""


class CodecStats(msgspec.Struct):
    """Counters since the start."""

    jobs: int = 0
    late_jobs: int = 0
    """Jobs that were taken up more than 5 ms after they were due or, if they were so already, submitted."""
    batches: int = 0
    """Wake-ups of the event loop that brought results."""
    busy_s: float = 0.0
    """Processor time of the threads at work."""
    worst_wait_s: float = 0.0


_Entry = tuple[float, int, float, CodecJob]
"""When due, number (so that jobs are never compared), when submitted, the job."""


class CodecThreads:
    """The pool. One per process; `start` and `stop` on the event loop that gets the results."""

    def __init__(self, threads: int, on_cores: int | None = None) -> None:
        """``on_cores``: how many the machine has for this process; None: `mynah.resources.whole_cores`."""
        if threads < 1:
            raise ValueError("a codec pool needs a thread")
        self._threads = threads
        self.effort = Effort.FULL
        self.stats = CodecStats()
        self._load = _Load(on_cores or whole_cores())
        # Bound: one entry for each reply that is being spoken, because a reply submits its next slice when it has the
        # result of the one before. Overflow policy: the producer waits (`Supply.wait_room`), and `queue_age_s` tells
        # admission control to let nobody else in.
        self._heap: list[_Entry] = []
        self._numbers = itertools.count()
        self._lock = threading.Lock()  # of the heap and the results
        self._tokens: queue.SimpleQueue[None] = (
            queue.SimpleQueue()
        )  # one per entry: what the threads wait for
        self._held = 0  # entries whose token waits for the beat
        self._beat: asyncio.TimerHandle | None = None
        self._pending = 0  # jobs whose result was not taken back
        self._results: list[CodecJob] = []  # as bounded as the heap
        self._posted = False  # the loop was told of them
        self._stopping = False
        self._workers: list[threading.Thread] = []
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        """Start the threads."""
        self._loop = asyncio.get_running_loop()
        for _ in range(self._threads):
            self._hire()

    def stop(self) -> None:
        """End the threads after the slice in progress and drop what waits. Safe more than once, and before `start`."""
        self._stopping = True
        if self._beat is not None:
            self._beat.cancel()
        with self._lock:
            self._heap.clear()
            self._results.clear()
            workers, self._workers = self._workers, []
        for _ in workers:
            self._tokens.put(None)
        for worker in workers:
            worker.join()

    def submit(self, job: CodecJob, due: float) -> None:
        """Have ``job`` done; see `CodecPool`. Dropped once the pool is stopped."""
        if self._stopping:
            return
        assert self._loop is not None, "not started"
        now = self._loop.time()
        with self._lock:
            heapq.heappush(self._heap, (due, next(self._numbers), now, job))
        self._pending += 1
        if due - now < URGENT_S:
            self._tokens.put(None)
            return
        self._held += 1
        if self._beat is None:
            self._beat = self._loop.call_later(BEAT_S, self._on_beat)

    @property
    def queue_age_s(self) -> float:
        """For how long the most urgent job has been due and not taken up, in s; 0 when nothing is late.

        For admission control: audio that is encoded ahead of its time may wait, and does not count.
        """
        with self._lock:
            head = self._heap[0] if self._heap else None
        if head is None or self._loop is None:
            return 0.0
        # What was overdue when it came is late since then.
        return max(0.0, self._loop.time() - max(head[0], head[2]))

    @property
    def waiting(self) -> int:
        """Jobs that wait."""
        return len(self._heap)

    @property
    def hurried(self) -> bool:
        """Whether so much is waiting that it is worth holding up other threads."""
        return len(self._heap) > BACKLOG

    # ------------------------------------------------------------ in the worker threads

    def _hire(self) -> None:
        worker = threading.Thread(target=self._run, name="mynah-codec", daemon=True)
        self._workers.append(worker)
        worker.start()

    def _run(self) -> None:
        try:
            while True:
                self._tokens.get()
                if self._stopping:
                    return
                self._next()
        finally:
            with self._lock:
                if (
                    not self._stopping
                ):  # a bug, on its way to threading.excepthook: nobody else must suffer from it
                    self._workers.remove(threading.current_thread())
                    self._hire()

    def _next(self) -> None:
        with self._lock:
            if not self._heap:  # stopped, or about to be
                return
            due, _, since, job = heapq.heappop(self._heap)
        begin = time.thread_time()
        wait = time.monotonic() - max(due, since)
        try:
            job.work()
        finally:
            took = time.thread_time() - begin
            with self._lock:
                stats = self.stats
                stats.jobs += 1
                stats.busy_s += took
                if wait > _LATE_S:
                    stats.late_jobs += 1
                    stats.worst_wait_s = max(stats.worst_wait_s, wait)
                    self._load.waited(wait)
                self._results.append(job)
                post = due - since < URGENT_S and not self._posted
                self._posted |= post
            if post:
                self._post()

    def _post(self) -> None:
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(self._deliver)
        except RuntimeError:  # the loop was closed under us; there is nobody left to tell
            self._stopping = True

    # ------------------------------------------------------------ on the event loop

    def _deliver(self) -> None:
        assert self._loop is not None
        with self._lock:
            results, self._results = self._results, []
            self._posted = False
            if not results:
                return
            self.stats.batches += 1
            self.effort = self._load.effort(self._loop.time(), self.stats.busy_s)
        self._pending -= len(results)
        for job in results:
            job.done()

    def _on_beat(self) -> None:
        """Take back what is done, and hand out what was submitted since the last beat."""
        assert self._loop is not None
        self._beat = None
        self._deliver()
        for _ in range(self._held):
            self._tokens.put(None)
        self._held = 0
        if self._pending and self._beat is None and not self._stopping:
            self._beat = self._loop.call_later(BEAT_S, self._on_beat)


class _Load:
    """Decides on the effort. Time and processor time come from outside."""

    def __init__(self, cores: int) -> None:
        self._cores = cores
        self._since: float | None = None
        self._busy = 0.0
        self._wait = 0.0
        self._calm = 0
        self._effort = Effort.FULL

    def waited(self, seconds: float) -> None:
        """A job was late by so much."""
        self._wait = max(self._wait, seconds)

    def effort(self, now: float, busy_s: float) -> Effort:
        """``busy_s``: processor time of all jobs so far."""
        if self._since is None:
            self._since, self._busy = now, busy_s
        elapsed = now - self._since
        if self._wait > LIGHT_WAIT_S:
            self._effort, self._calm = Effort.LIGHT, 0
        if elapsed < WINDOW_S:
            return self._effort
        share = (busy_s - self._busy) / (elapsed * self._cores)
        if share > LIGHT_ABOVE:
            self._effort, self._calm = Effort.LIGHT, 0
        elif share >= FULL_BELOW or self._wait > LIGHT_WAIT_S:
            self._calm = 0
        else:
            self._calm += round(elapsed / WINDOW_S)  # nothing was encoded for a while: that was calm, too
            if self._calm >= CALM_WINDOWS:
                self._effort = Effort.FULL
        self._since, self._busy, self._wait = now, busy_s, 0.0
        return self._effort
