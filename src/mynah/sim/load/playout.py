"""What a device hears of a reply, reckoned from when its packets arrive: gaps, packets without room, and rhythm.

The rules of the buffer are those of `mynah.sim.speaker.Speaker`, but nothing is kept of a packet: a few sums instead of
a queue, since thousands of devices play at once.
"""

from __future__ import annotations

from typing import Final

from mynah.sim.speaker import DECODED_FRAMES, LATE_S, UNDECODED_PACKETS

MAX_SEGMENT: Final = 2000
"""Packets whose rhythm is compared with each other: two minutes of 60 ms. A longer stretch is taken for several."""

_ROOM: Final = UNDECODED_PACKETS + DECODED_FRAMES
_ROUNDING_S: Final = 1e-6


class Playout:
    """The loudspeaker of one device. All times are s on one clock that never goes back."""

    __slots__ = ("_burst", "_fresh", "_last_at", "_media_s", "_offsets", "_settled", "ends_at")

    def __init__(self) -> None:
        self.ends_at = 0.0
        """When everything buffered will have been played, or was."""
        self._fresh = True
        self._offsets: list[float] = []
        self._settled: list[float] = []
        self._media_s = self._last_at = 0.0
        self._burst = True
        self._open_segment()

    def begin(self, now: float) -> None:
        """A reply begins: what is buffered is forgotten."""
        self.ends_at = min(self.ends_at, now)
        self._fresh = True
        self._close_segment()

    def push(self, duration_s: float, now: float) -> float | None:
        """Take a packet; return how long nothing was played before it (0 for no gap), None when there was no room.

        Pauses up to `LATE_S`, and the one before the first packet of a reply, are no gaps.
        """
        ahead_s = self.ends_at - now
        gap_s = 0.0
        if ahead_s <= 0:
            if not self._fresh and -ahead_s > LATE_S:
                gap_s = -ahead_s
                self._close_segment()
            self.ends_at = now
            ahead_s = 0.0
        self._fresh = False
        self._note(duration_s, now)
        if ahead_s > _ROOM * duration_s + _ROUNDING_S:
            return None
        self.ends_at += duration_s
        return gap_s

    def rhythm(self) -> list[float]:
        """Return by how many s each packet missed its place, negative when too early; those after the last call.

        Its place is where it would have come had the packets of its segment been spaced like what they hold; which
        moments those are is told by the median. A segment is what was played without a gap. The burst it begins with
        fills the buffer and has no rhythm, so it is left out.
        """
        self._close_segment()
        settled, self._settled = self._settled, []
        return settled

    def _note(self, duration_s: float, now: float) -> None:
        if self._burst:
            # While the server is still getting ahead, packets come faster than they play.
            self._burst = now - self._last_at < max(duration_s - LATE_S, duration_s / 2)
        if not self._burst:
            self._offsets.append(now - self._media_s)
            if len(self._offsets) >= MAX_SEGMENT:
                self._close_segment()
                self._burst = False
        self._media_s += duration_s
        self._last_at = now

    def _open_segment(self) -> None:
        self._burst = True
        self._media_s = 0.0
        self._last_at = float("inf")  # the first packet always belongs to the burst

    def _close_segment(self) -> None:
        offsets = self._offsets
        # Bounded by MAX_SEGMENT; what a reply of hours adds is bounded too, and the rest of it is not judged.
        if len(offsets) > 1 and len(self._settled) < 10 * MAX_SEGMENT:
            median = sorted(offsets)[len(offsets) // 2]
            self._settled += [offset - median for offset in offsets]
        offsets.clear()
        self._open_segment()
