"""Down-link pacing: the frames of all sessions leave on time, with one timer for the whole process.

A device buffers 40 packets and silently drops what does not fit, so audio may not run far ahead of real
time; and it stutters when a packet comes late, so a few frames go ahead at once (the *lead*). Each
`Playback` has an absolute clock: frame *i* starts to play at ``base + i·T`` and is handed out ``lead − 1``
frames before that, no matter how late the frame before it went. When the source starves until the device
has run dry, the base moves to the present: the device is again given a lead, never a burst.

Everything here runs on the event loop; nothing blocks, and no callback is made inside a caller's own call.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec

_GRID_S = 0.005
"""Frames are handed out at multiples of this: at most 200 wake-ups a second however many devices there are. All common
frame lengths are multiples of it, so each playback is early by the same few ms all the time and its rhythm is even; a
device cannot notice 5 ms of earliness behind its lead of 180 ms."""

_SLACK_S = 0.001
"""Frames due within this time go in the same wake-up: clocks and timers of event loops count in ms."""

_LATE_S = 0.005
"""A frame handed out later than this after its time is counted as late."""

_GRAIN_S = 1e-6
"""Two clock readings closer than this are the same moment: sums of frame lengths are not exact in binary."""


class PlaybackSink(Protocol):
    """Who gets one playback's frames. Called on the event loop; must not raise or block."""

    def on_frame(self, packet: bytes, timestamp_ms: int) -> None:
        """Send this packet now.

        ``timestamp_ms`` is the media time of its end since the playback's start: it grows and is never 0.
        """

    def on_marker(self, value: Any) -> None:
        """The audio queued before this marker has been handed out and the next frame goes now."""

    def on_played(self) -> None:
        """All input was played out by the device's clock. The last callback; does not come after `cancel`."""


class Player(Protocol):
    """Makes playbacks: a `Pacer`, or what stands in its place for devices that are not pushed to."""

    def play(self, sink: PlaybackSink) -> Playback:
        """Begin a playback. Costs nothing until something is pushed."""


class PacerStats(msgspec.Struct):
    """Counters since the pacer was made."""

    frames: int = 0
    late_frames: int = 0
    """Frames handed out more than 5 ms after their time, because the loop was busy."""
    worst_late_ms: float = 0.0
    restarts: int = 0
    """How often a device ran dry in mid-answer: audio did not arrive in time, or was paused."""


class _Marker:
    """Tells a marker's value apart from a packet in the queue."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


class Pacer:
    """The clock of all playbacks of a process. Made and used on one event loop."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop | None = None, frame_ms: int = 60, lead_frames: int = 3
    ) -> None:
        """``lead_frames`` ≥ 1 frames are handed out at once when a playback starts (3–8 suit the devices)."""
        if frame_ms <= 0 or lead_frames < 1:
            raise ValueError(f"frames of {frame_ms} ms with a lead of {lead_frames} cannot be paced")
        self._loop = loop
        self.frame_ms, self.lead_frames = frame_ms, lead_frames
        self.stats = PacerStats()
        self._heap: list[tuple[float, int, Playback]] = []
        self._order = itertools.count()  # breaks ties, so that playbacks are never compared
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._ticking = False

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop it lives on; the running one when none was given."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        return self._loop

    def play(self, sink: PlaybackSink, *, not_before: float | None = None, frame_ms: int = 0) -> Playback:
        """Begin a playback. Costs nothing until something is pushed.

        ``not_before`` (``loop.time()`` seconds) is the earliest moment for the first frame or marker;
        ``frame_ms`` overrides the pacer's frame length.
        """
        return Playback(self, sink, frame_ms or self.frame_ms, not_before)

    def close(self) -> None:
        """Stop the timer and forget all playbacks; none gets another callback."""
        for _, _, playback in self._heap:
            playback.cancel()
        self._heap.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _schedule(self, playback: Playback, when: float) -> None:
        """Wake the playback at ``when``. Its older entry goes stale and is skipped when it comes up."""
        playback._wake_at = when
        heapq.heappush(self._heap, (when, next(self._order), playback))
        if not self._ticking:
            self._arm()

    def _arm(self) -> None:
        if not self._heap:
            return
        when = self._heap[0][0]
        if self._timer is not None:
            if self._timer_at <= when:
                return
            self._timer.cancel()
        self._timer_at = when
        self._timer = self.loop.call_at(when, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._ticking = True  # arm once at the end, not once per playback
        now, heap = self.loop.time(), self._heap
        horizon = now + _SLACK_S
        try:
            while heap and heap[0][0] <= horizon:
                when, _, playback = heapq.heappop(heap)
                if playback._wake_at != when:
                    continue
                playback._wake_at = None
                if when > now + _GRAIN_S and playback._strict:
                    self._schedule(playback, when)
                    break
                playback._serve(now)
        finally:  # a sink that raises must not stop the others' clocks
            self._ticking = False
            self._arm()


class Playback:
    """One answer on its way to one device. Made by `Pacer.play`."""

    __slots__ = (
        "_base",
        "_early",
        "_finished",
        "_frame_s",
        "_input_at",
        "_low",
        "_not_before",
        "_on_low",
        "_over",
        "_pacer",
        "_paused",
        "_queue",
        "_queued",
        "_sent",
        "_sink",
        "_wake_at",
        "frame_ms",
    )  # fmt: skip

    def __init__(self, pacer: Pacer, sink: PlaybackSink, frame_ms: int, not_before: float | None) -> None:
        self._pacer, self._sink = pacer, sink
        self._frame_s = frame_ms / 1000
        self.frame_ms = frame_ms
        self._not_before = not_before
        # Packets and markers; who pushes bounds it by `queued`, see `mynah.audio.supply.AHEAD`.
        self._queue: deque[bytes | _Marker] = deque()
        self._queued = 0
        self._sent = 0
        self._base: float | None = None  # when frame 0 plays, moved by starvation; None before it
        self._early = 0.0  # by how much its frames go before their time, to go together with others'
        self._input_at = 0.0  # since when there is something to hand out: lateness counts from there
        self._wake_at: float | None = None
        self._finished = self._over = self._paused = False
        self._low = -1
        self._on_low: Callable[[], None] | None = None

    # ------------------------------------------------------------ what the producer calls

    def on_low(self, frames: int, callback: Callable[[], None]) -> None:
        """Have ``callback`` called for each frame that leaves when no more than ``frames`` are queued behind it.

        It may push and mark, and must not raise.
        """
        self._low, self._on_low = frames, callback

    def push(self, frames: Sequence[bytes]) -> None:
        """Queue packets of one frame each. Ignored once cancelled. Raises RuntimeError after `finish`."""
        if self._over or not frames:
            return
        if self._finished:
            raise RuntimeError("push after finish")
        waiting = (
            self._queued > 0
        )  # then it is planned already, for a frame or a marker that is in front of these
        self._queue.extend(frames)
        self._queued += len(frames)
        if not waiting:
            self._note_input()
            self._plan()

    def mark(self, value: Any) -> None:
        """Queue a marker: delivered between the audio queued before it and the frame that follows."""
        if self._over:
            return
        if self._finished:
            raise RuntimeError("mark after finish")
        self._queue.append(_Marker(value))

    def finish(self) -> None:
        """There is no more input; `on_played` comes when the last frame has had time to play."""
        if not self._over and not self._finished:
            if not self._queued:
                self._note_input()
            self._finished = True
            self._plan()

    def cancel(self) -> None:
        """Drop everything unsent. No callback follows. Safe at any moment and more than once."""
        self._over = True
        self._wake_at = None
        self._queue.clear()
        self._queued = 0

    def pause(self) -> None:
        """Hold back from the next frame on. What the device already has keeps playing."""
        self._paused = True
        self._wake_at = None

    def resume(self, not_before: float | None = None) -> None:
        """Go on with exactly the frame that `pause` held back.

        ``not_before`` is the earliest moment for the first frame of a playback that was paused before it began.
        """
        if self._paused:
            self._paused = False
            if self._base is None and not_before is not None:
                self._not_before = not_before
            self._note_input()
            self._plan()

    # ------------------------------------------------------------ how it stands

    @property
    def queued(self) -> int:
        """Frames queued and not yet handed out."""
        return self._queued

    @property
    def queued_ms(self) -> int:
        """Audio queued and not yet handed out, in ms."""
        return self._queued * self.frame_ms

    @property
    def sent_ms(self) -> int:
        """Audio handed out to the sink, in ms."""
        return self._sent * self.frame_ms

    @property
    def played_ms(self) -> float:
        """Audio handed out that the device has played by now, going by the clock, in ms."""
        if self._base is None:
            return 0.0
        elapsed = max(0.0, self._pacer.loop.time() - self._base)
        return min(float(self.sent_ms), elapsed * 1000)

    @property
    def heard_ms(self) -> float:
        """Audio that will have been heard if the reply ends now, in ms: a device plays out what it was sent."""
        return self.sent_ms

    @property
    def dry_at(self) -> float:
        """When the frame behind those queued has to be handed out, in ``loop.time()`` seconds.

        While the clock stands still, before the first frame and paused: if it went on now.
        """
        ahead = self._queued - self._pacer.lead_frames + 1
        if self._base is None:
            return max(self._pacer.loop.time(), self._not_before or 0.0) + ahead * self._frame_s
        if self._paused:
            return self._pacer.loop.time() + self._queued * self._frame_s
        return self._base + (self._sent + ahead) * self._frame_s

    @property
    def over(self) -> bool:
        """Whether no callback will come any more: played out or cancelled."""
        return self._over

    # ------------------------------------------------------------ the clock

    @property
    def _strict(self) -> bool:
        """Before the first frame and at the very end, too early would be wrong; in between it is not."""
        return self._base is None or not self._queue

    def _note_input(self) -> None:
        self._input_at = self._pacer.loop.time()

    def _due(self) -> float | None:
        """When the head of the queue goes, or the end is reported; None while there is nothing to do."""
        if self._over or self._paused:
            return None
        if not self._queued and not self._finished:  # markers alone wait for the frame they belong to
            return None
        if self._base is None:
            return max(self._input_at, self._not_before or 0.0)
        if not self._queue:  # one frame of guard: the device's own decoding and output buffer
            return self._base + (self._sent + 1) * self._frame_s if self._sent else self._input_at
        return self._base - self._early + (self._sent - self._pacer.lead_frames + 1) * self._frame_s

    def _plan(self) -> None:
        self._wake(self._due(), self._pacer.loop.time())

    def _wake(self, due: float | None, now: float) -> None:
        """Be served at ``due``, or when something changes."""
        if due is None:
            self._wake_at = None
            return
        due = max(due, now)
        wake_at = self._wake_at
        if wake_at is None or abs(wake_at - due) > _GRAIN_S:
            self._pacer._schedule(self, due)

    def _serve(self, now: float) -> None:
        """Hand out what is due, then plan the next wake-up."""
        soft, hard = now + _SLACK_S, now + _GRAIN_S
        due = None  # should a sink raise in between, the next wake-up finds out
        try:
            while (due := self._due()) is not None and due <= (
                soft if self._queue and self._base is not None else hard
            ):
                self._step(now, due)
        finally:
            self._wake(due, now)

    def _begin(self, base: float) -> None:
        """Start the clock: frame 0 plays at ``base``."""
        self._base = base
        self._early = max((base + _GRAIN_S) % _GRID_S - _GRAIN_S, 0.0)

    def _step(self, now: float, due: float) -> None:
        if not self._queue:
            self._over = True
            self._sink.on_played()
            return
        head = self._queue.popleft()
        if isinstance(head, _Marker):
            self._sink.on_marker(head.value)
            return
        stats = self._pacer.stats
        late = now - max(due, self._input_at)
        if late > _LATE_S:
            stats.late_frames += 1
            stats.worst_late_ms = max(stats.worst_late_ms, late * 1000)
        stats.frames += 1
        if self._base is None:
            self._begin(now)
            self._input_at = now  # what goes with it could not have gone earlier
        elif self._base + self._sent * self._frame_s < now - _GRAIN_S:
            self._begin(now - self._sent * self._frame_s)  # the device ran dry: its clock starts anew here
            stats.restarts += 1
        self._sent += 1
        self._queued -= 1
        self._sink.on_frame(head, self._sent * self.frame_ms)
        if self._queued <= self._low and self._on_low is not None:
            self._on_low()
