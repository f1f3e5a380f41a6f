"""The way down for devices that fetch their audio: frames leave when the device has asked for them, not by the clock.

The counterpart of pushing (`mynah.audio.pacer`), with the same face: whoever makes the audio does not know which of the
two it goes to. While the outlet is open, what there is leaves at once, and what comes meanwhile leaves as it comes, up
to a lead in front of what the device has played. That lead is large: it must bridge the time until the device asks
again, and a link that stands still for a moment.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from mynah.audio.pacer import Pacer, Playback, PlaybackSink

LEAD_MS: Final = 4000
"""How far ahead of the device's speaker audio is handed out: polls come every 0.5 s, and a mobile link stalls for 2 or
3 s now and then. As PCM of 16 kHz that is 128 KB in the device."""


class Outlet:
    """What one device fetches from. Takes the place of a `Pacer` for the replies to it; made and used on one loop."""

    __slots__ = ("_on_rest", "_pacer", "_playback", "is_open", "lead_ms")

    def __init__(self, pacer: Pacer, on_rest: Callable[[], None], lead_ms: int = LEAD_MS) -> None:
        """``on_rest`` is called when nothing more leaves for the time being: all was handed out, or the lead
        is reached. It must not raise."""
        self._pacer = pacer
        self._on_rest = on_rest
        self._playback: FetchedPlayback | None = None
        self.lead_ms = lead_ms
        self.is_open = False
        """Whether the device has asked for audio and its request is still being answered."""

    def play(self, sink: PlaybackSink) -> Playback:
        """Begin a playback, as `Pacer.play` does."""
        return FetchedPlayback(self._pacer, sink, self._pacer.frame_ms, self)

    def open(self) -> None:
        """The device asks: from now on audio leaves."""
        self.is_open = True
        if self._playback is not None:
            self._playback._fetch()

    def shut(self) -> None:
        """The request has been answered: what comes now waits for the next one."""
        self.is_open = False
        if self._playback is not None:
            self._playback._plan()

    @property
    def playing(self) -> bool:
        """Whether a reply is being let out."""
        return self._playback is not None

    @property
    def waiting(self) -> bool:
        """Whether more of it may leave: not all was handed out, and the lead is not reached."""
        return self._playback is not None and not self._playback._resting

    @property
    def drained(self) -> bool:
        """Whether a reply was handed out to its last frame."""
        return self._playback is not None and self._playback._drained

    def _settle(self) -> None:
        """Tell that nothing more leaves, if that is so although no frame has just left."""
        if self.is_open and self.playing and not self.waiting:
            self._on_rest()

    def miss(self, ms: int) -> None:
        """So much of what was handed out has not arrived (yet): it was not heard, and the reply is not over."""
        if self._playback is not None:
            self._playback._miss(ms)


class _Nobody:
    """Whom a playback tells that is over: nobody. Implements `PlaybackSink`."""

    def on_frame(self, packet: bytes, timestamp_ms: int) -> None:
        """Nothing leaves any more."""

    def on_marker(self, value: Any) -> None:
        """Nothing leaves any more."""

    def on_played(self) -> None:
        """It was told."""


_NOBODY: Final = _Nobody()


class FetchedPlayback(Playback):
    """One answer on its way to a device that fetches it. Made by `Outlet.play`."""

    __slots__ = ("_missing_s", "_outlet")

    def __init__(self, pacer: Pacer, sink: PlaybackSink, frame_ms: int, outlet: Outlet) -> None:
        super().__init__(pacer, sink, frame_ms, None)
        self._outlet = outlet
        self._missing_s = 0.0

    def resume(self, not_before: float | None = None) -> None:
        """Let it out; from now on it is what the device fetches."""
        if not self._over:
            self._outlet._playback = self
        super().resume(not_before)

    def finish(self) -> None:
        """There is no more input. Who waits for more than was handed out already waits in vain."""
        super().finish()
        if self._drained:
            self._pacer.loop.call_soon(self._outlet._settle)  # not within a call of the producer's

    def cancel(self) -> None:
        """Drop everything that was not handed out."""
        super().cancel()
        self._leave()

    @property
    def played_ms(self) -> float:
        """Audio that the device has received and played by now, going by the clock, in ms."""
        return min(super().played_ms, self.sent_ms - self._missing_s * 1000)

    @property
    def heard_ms(self) -> float:
        """Audio that will have been heard if the reply ends now: such a device drops what it has in store."""
        return self.played_ms

    @property
    def dry_at(self) -> float:
        """When the frame behind those queued is needed, in ``loop.time()`` seconds: as soon as the device asks."""
        now = self._pacer.loop.time()
        if self._base is None or self._outlet.is_open:
            return now
        return max(
            now, self._base + (self._sent + self._queued) * self._frame_s - self._outlet.lead_ms / 1000
        )

    # ------------------------------------------------------------ for the outlet

    @property
    def _drained(self) -> bool:
        return self._finished and not self._queued

    @property
    def _ahead_s(self) -> float:
        """How far the device is ahead of its speaker."""
        if self._base is None:
            return 0.0
        return self._base + self._sent * self._frame_s - self._pacer.loop.time()

    @property
    def _resting(self) -> bool:
        return self._drained or self._paused or self._ahead_s >= self._outlet.lead_ms / 1000

    def _fetch(self) -> None:
        self._note_input()  # late is what leaves later than it was asked for
        self._plan()

    def _miss(self, ms: int) -> None:
        before, self._missing_s = self._missing_s, ms / 1000
        now = self._pacer.loop.time()
        if before and self._base is not None:
            # What was missing arrives now: the device plays on from there.
            self._base = max(self._base, now - (self._sent * self._frame_s - before))
        self._plan()

    def _leave(self) -> None:
        # They know us: together they would wait for the garbage collector, and the device with them.
        self._sink, self._on_low = _NOBODY, None
        if self._outlet._playback is self:
            self._outlet._playback = None

    # ------------------------------------------------------------ the clock

    def _due(self) -> float | None:
        if self._over or self._paused:
            return None
        if not self._queue:
            over = self._finished and not self._missing_s  # not before it has arrived
            return super()._due() if over else None
        if not self._queued:  # markers alone wait for the frame they belong to
            return self._input_at if self._finished else None
        if not self._outlet.is_open or self._resting:
            return None
        return max(self._input_at, self._not_before or 0.0) if self._base is None else self._input_at

    def _step(self, now: float, due: float) -> None:
        super()._step(now, due)
        if self._over:
            self._leave()
        if self._outlet.is_open and (self._over or self._resting):
            self._outlet._on_rest()
