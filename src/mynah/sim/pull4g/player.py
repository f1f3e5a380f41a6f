"""The jitter buffer of such a device, as a calculation: when what arrives is heard, and when there is nothing."""

from __future__ import annotations

from typing import Final

from mynah.sim.speaker import LATE_S

PREBUFFER_S: Final = 0.2
"""What a device gathers before it begins to play, and again when it ran dry: a mobile link delivers in bursts."""


class Player:
    """Plays one reply after the other. All times are s on one clock that never goes back."""

    __slots__ = ("_fresh", "_prebuffer_s", "ends_at", "gap_s", "underruns", "worst_gap_s")

    def __init__(self, prebuffer_s: float = PREBUFFER_S) -> None:
        self._prebuffer_s = prebuffer_s
        self._fresh = True
        self.ends_at = 0.0
        """When all that has arrived will have been played, or was."""
        self.underruns = 0
        """How often there was nothing to play in the middle of a reply."""
        self.gap_s = 0.0
        """How long that was, all together."""
        self.worst_gap_s = 0.0

    def begin(self) -> None:
        """A reply begins: silence in front of it is no gap."""
        self._fresh = True

    def stop(self, now: float) -> None:
        """The user does not want to hear the rest: forget what is buffered."""
        self.ends_at = min(self.ends_at, now)
        self._fresh = True

    def push(self, seconds: float, now: float) -> float:
        """Take audio; return how long nothing was played before it, in the middle of a reply: 0 for no gap."""
        gap_s = 0.0
        if now - self.ends_at > (0.0 if self._fresh else LATE_S):
            starts_at = now + self._prebuffer_s
            if not self._fresh:
                gap_s = starts_at - self.ends_at
                self.underruns += 1
                self.gap_s += gap_s
                self.worst_gap_s = max(self.worst_gap_s, gap_s)
            self.ends_at = starts_at
        self._fresh = False
        self.ends_at += seconds
        return gap_s
