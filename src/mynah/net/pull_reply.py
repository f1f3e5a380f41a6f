"""One reply to a device that fetches it: what was sent, how much has arrived, and where to go on after a lost link."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Final

from mynah.audio.adpcm import AdpcmEncoder
from mynah.wire.pull4g import Codec

MAX_REPLY_BYTES: Final = 10_000_000
"""Kept of a reply, five minutes of PCM. Overflow policy: the oldest is dropped; it arrived long ago."""
STORE_BYTES: Final = 256 * 1024 * 1024
"""Kept of all replies of the process, 400 of 20 s as PCM. Overflow policy: what has arrived is dropped, the oldest
reply's first; where that is not enough, devices get no more audio until others have fetched theirs."""
KEPT_S: Final = 60.0
"""How long a reply is kept after its end, or without being asked for."""


class ReplyStore:
    """How much is kept, of all replies together. One per process."""

    __slots__ = ("limit", "replies", "used")

    def __init__(self, limit: int = STORE_BYTES) -> None:
        """``limit`` in bytes."""
        self.limit = limit
        self.used = 0
        self.replies: dict[PullReply, None] = {}
        """Those that have something, oldest first."""

    @property
    def full(self) -> bool:
        """Whether nothing more may be kept."""
        return self.used > self.limit

    def make_room(self) -> None:
        """Drop what has arrived until there is room again."""
        for reply in tuple(self.replies):
            if not self.full:
                return
            reply.acknowledge(reply.arrived)


class PullReply:
    """The audio of one reply as it goes over the line. Offsets count its bytes from 0."""

    __slots__ = ("_adpcm", "_chunks", "_store", "arrived", "begun_at", "end", "first", "whole_packets")

    def __init__(self, codec: Codec, store: ReplyStore, now: float) -> None:
        self._adpcm = AdpcmEncoder() if codec is Codec.ADPCM else None
        # One per frame of the playback. Bounds: `MAX_REPLY_BYTES`, `STORE_BYTES`.
        self._chunks: deque[bytes] = deque()
        self._store = store
        self.whole_packets = codec is Codec.OPUS
        """Whether a chunk makes sense as a whole only."""
        self.begun_at = now
        self.first = 0
        """Offset of the oldest byte that is kept."""
        self.end = 0
        """Offset behind the newest."""
        self.arrived = 0
        """Up to here the device has it, as far as is known."""

    def add(self, frame: bytes) -> bytes:
        """Take the next frame; return it as it goes over the line."""
        chunk = frame if self._adpcm is None else self._adpcm.encode(frame)
        self._chunks.append(chunk)
        self.end += len(chunk)
        self._store.used += len(chunk)
        self._store.replies[self] = None
        while self.end - self.first > MAX_REPLY_BYTES:
            self._drop()
        if self._store.full:
            self._store.make_room()
        return chunk

    def acknowledge(self, offset: int) -> None:
        """The device has everything in front of ``offset`` and will not ask for it again."""
        self.note_arrived(offset)
        while self._chunks and self.first + len(self._chunks[0]) <= offset <= self.end:
            self._drop()

    def go_on(self, offset: int) -> None:
        """The device has everything in front of ``offset`` and nothing behind, whatever was known here. Nonsense is
        ignored."""
        if offset <= self.end:
            self.arrived = max(offset, self.first)

    def note_arrived(self, offset: int) -> None:
        """Everything in front of ``offset`` has arrived, as far as is known here. Nonsense is ignored."""
        if self.arrived < offset <= self.end:
            self.arrived = offset

    def since(self, offset: int) -> Iterator[tuple[int, bytes]]:
        """Yield what follows ``offset``: where each piece ends, and the piece. What is not kept any more is left out.

        Where chunks make sense as a whole only, the one that ``offset`` lies in comes whole.
        """
        at = self.first
        for chunk in self._chunks:
            end = at + len(chunk)
            if end > offset:
                inside = 0 if self.whole_packets else max(offset - at, 0)
                yield end, chunk[inside:]
            at = end

    def chunks_since(self, offset: int) -> int:
        """Return how many frames of the playback have not arrived whole, if ``offset`` is where it ends."""
        at, count = self.end, 0
        for chunk in reversed(self._chunks):
            if at <= offset:
                break
            at -= len(chunk)
            count += 1
        return count

    def close(self) -> None:
        """Nobody will ask for it any more."""
        while self._chunks:
            self._drop()
        self._store.replies.pop(self, None)

    def _drop(self) -> None:
        size = len(self._chunks.popleft())
        self.first += size
        self._store.used -= size
