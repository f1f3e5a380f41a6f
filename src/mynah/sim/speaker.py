"""A device's loudspeaker as a calculation: which packets play when, and which are lost.

Firmware holds 40 undecoded packets and 2 decoded frames besides the one that plays, and throws the *newest* packet
away when they are full. Nothing runs here: each call says what time it is, and the speaker catches up.
"""

from __future__ import annotations

from collections import deque

from mynah.sim.echo_stamps import EchoStamps

UNDECODED_PACKETS = 40
DECODED_FRAMES = 2
LATE_S = 0.005
"""A pause between two frames that a listener starts to notice as roughness."""


class Speaker:
    """Plays packets in real time. All times are seconds on one clock that never goes back."""

    def __init__(self, *, record: bool = True, stamps: EchoStamps | None = None) -> None:
        """With ``record`` the packets that were played are kept in `played`; ``stamps`` is told of each one's end."""
        self.overflow = 0
        """Packets thrown away because the buffer was full."""
        self.late_frames = 0
        """Packets, except the first of a reply, that came after the one before had ended more than `LATE_S` ago."""
        self.worst_gap_s = 0.0
        """Longest such pause."""
        self.played: list[bytes] = []
        self._record = record
        self._stamps = stamps
        self._playing_stamp = 0
        self._waiting: deque[tuple[bytes, float, int]] = deque()
        self._busy_until = 0.0
        self._first = True

    def begin(self, now: float) -> int:
        """A reply begins: forget what is buffered, and return how many packets that were."""
        self.advance(now)
        lost = len(self._waiting)
        self._waiting.clear()
        if self._stamps is not None:
            self._stamps.clear()
        self._first = True
        return lost

    def push(self, packet: bytes, duration_s: float, now: float, stamp: int = 0) -> bool:
        """Take a packet that has just arrived; False when there was no room."""
        self.advance(now)
        if len(self._waiting) >= UNDECODED_PACKETS + DECODED_FRAMES:
            self.overflow += 1
            return False
        idle = not self._waiting and now >= self._busy_until
        if idle:
            gap = now - self._busy_until
            if not self._first and gap > LATE_S:
                self.late_frames += 1
                self.worst_gap_s = max(self.worst_gap_s, gap)
            self._busy_until = now
        self._first = False
        self._waiting.append((packet, duration_s, stamp))
        self.advance(now)
        return True

    def advance(self, now: float) -> None:
        """Start every packet whose time has come."""
        while self._busy_until <= now:
            self._finish()
            if not self._waiting:
                return
            packet, duration_s, self._playing_stamp = self._waiting.popleft()
            self._busy_until += duration_s
            if self._record:
                self.played.append(packet)

    def silent_at(self, now: float) -> float:
        """Return when everything buffered will have been played, or was; long ago for a speaker never used."""
        self.advance(now)
        return self._busy_until + sum(duration_s for _, duration_s, _ in self._waiting)

    def _finish(self) -> None:
        """The packet that played is over."""
        if self._stamps is not None and self._playing_stamp:
            self._stamps.played(self._playing_stamp)
        self._playing_stamp = 0
