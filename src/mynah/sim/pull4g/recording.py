"""A recording on its way up: what was captured, how much of it was sent, and where to go on after a lost link. Pure."""

from __future__ import annotations

import bisect


class Recording:
    """One utterance. Offsets count its bytes as they go over the line.

    Kept whole until the server has it: a minute of PCM, the longest that servers take, is 2 MB.
    """

    __slots__ = ("_ends", "_pieces", "_whole_packets", "at", "begun", "complete", "confirmed", "told")

    def __init__(self, *, whole_packets: bool) -> None:
        """``whole_packets``: a piece makes sense as a whole only."""
        self._pieces: list[bytes] = []
        self._ends: list[int] = []
        self._whole_packets = whole_packets
        self.at = 0
        """Up to here it was sent over the current connection, or need not be."""
        self.begun = False
        """The server was told of it, over this connection or an earlier one."""
        self.complete = False
        """The button was released."""
        self.told = False
        """The server was told so over this connection."""
        self.confirmed = False
        """The server has all of it, for certain."""

    @property
    def size(self) -> int:
        """Bytes captured."""
        return self._ends[-1] if self._ends else 0

    def add(self, piece: bytes) -> None:
        """Capture the next piece."""
        self._pieces.append(piece)
        self._ends.append(self.size + len(piece))

    def take(self) -> list[bytes]:
        """Return what was not sent; from now on it was."""
        first = bisect.bisect_right(self._ends, self.at)
        pieces = self._pieces[first:]
        if pieces and not self._whole_packets:
            inside = self.at - (self._ends[first - 1] if first else 0)
            pieces[0] = pieces[0][inside:]
        self.at = self.size
        return pieces

    def rewind(self, offset: int) -> None:
        """Go on at ``offset``: the server has what is in front of it."""
        self.at = min(offset, self.size)
