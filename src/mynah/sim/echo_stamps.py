"""Time stamps for echo cancelling at the server: which packet had just been played when a frame was recorded."""

from __future__ import annotations

from collections import deque

MAX_PENDING = 3
"""With more stamps than this waiting, firmware no longer trusts them: the frame goes out without one."""

MAX_KEPT = 64
"""Stamps kept while nothing is recorded, 4 s of audio; the oldest are dropped."""


class EchoStamps:
    """Stamps of packets that have been played, on their way into the frames of the microphone."""

    def __init__(self) -> None:
        self._pending: deque[int] = deque(maxlen=MAX_KEPT)

    def played(self, stamp: int) -> None:
        """A packet has been played out. Sounds of the device itself have stamp 0 and leave no trace."""
        if stamp:
            self._pending.append(stamp)

    def take(self) -> int:
        """Return the stamp of the next frame, 0 for none. One pending stamp is used up in any case."""
        trusted = len(self._pending) <= MAX_PENDING
        stamp = self._pending.popleft() if self._pending else 0
        return stamp if trusted else 0

    def clear(self) -> None:
        """The decoder was reset: what was played before no longer counts."""
        self._pending.clear()
