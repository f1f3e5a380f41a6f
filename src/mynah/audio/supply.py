"""What a reply has still to say: the voice's audio waits here un-encoded until shortly before it plays.

A voice is usually much faster than speech, and many a reply is interrupted. What was encoded by then would be wasted,
so little more than a second is encoded ahead (`AHEAD`). PCM may wait much longer (`MAX_WAITING_S`): a service
whose connection stands still for long hangs up, and a slow voice has to begin with the next sentence early.

Everything is in one order: the beginnings of passages, PCM, frames that were made before, ends. `Supply` moves it into
the `mynah.audio.pacer.Playback` as that empties. It runs on the event loop only.
"""

from __future__ import annotations

import asyncio
import enum
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from mynah.audio.encode import FrameEncoder
from mynah.audio.pacer import Playback
from mynah.errors import AudioError

LOW: Final = 10
"""Frames (0.6 s) that are left when more are encoded: the time that the codec pool has for everybody who is speaking.
With 400 it usually takes a tenth of that."""
SLICE: Final = 12
"""Frames of one job of the codec: 0.7 to 2 ms of work, which is how long a more urgent one waits. To hand a job to a
thread and to take back its result costs as much as a frame."""
AHEAD: Final = LOW + SLICE
"""Frames that are encoded ahead of the device's clock at most (1.32 s): what an interruption wastes."""
PREPARED: Final = 8
"""Frames that are encoded while it is open whether the reply will be spoken at all: many a guess is not."""
FIRST_SLICE: Final = 4
"""Frames of the first job: what the device is sent at once, and one more. The rest waits for other devices' first."""
_KEPT_DUE_S: Final = 0.05
"""A passage that is kept is wanted soon: somebody waits for the whole of it."""

MAX_WAITING_S: Final = 30.0
"""PCM in seconds that a reply may have waiting: two or three long sentences, so that nobody waits for a slow voice.
That is 1 to 1.4 MB; few replies are so long. Overflow policy: the voice waits, which slows down what it reads from."""
LEAST_WAITING_S: Final = 4.0
"""What a reply may have waiting in any case."""
STORE_BYTES: Final = 64 * 1024 * 1024
"""PCM waiting in the whole process. Above it a reply gets `LEAST_WAITING_S` only; that is 51 MB for 400 replies at
16 kHz. Overflow policy: the voice waits."""


class Store:
    """How much PCM is waiting, of all replies together. One per process."""

    __slots__ = ("limit", "used")

    def __init__(self, limit: int = STORE_BYTES) -> None:
        """``limit`` in bytes."""
        self.limit = limit
        self.used = 0


class Passage:
    """A stretch of a reply that belongs together, such as a sentence. Made by `Supply.begin`."""

    __slots__ = ("_bytes", "_ended", "_frame_in", "_frame_ms", "_frames", "_waiter", "error", "keep", "value")

    def __init__(self, value: Any, frame_ms: int) -> None:
        self.value = value
        self.keep: list[bytes] | None = None
        """Set to a list to have all its frames collected here. Then they are encoded at once and as well as can be."""
        self.error: AudioError | None = None
        """Why the rest of it could not be encoded."""
        self._frame_ms = frame_ms
        self._frame_in = 1
        self._bytes = 0  # of PCM so far
        self._frames = 0  # made of it so far
        self._ended = False
        self._waiter: asyncio.Future[None] | None = None

    @property
    def ms(self) -> int:
        """How long it is in ms, as far as is known: what waits is counted, half a frame at its end not."""
        return max(self._frames, self._bytes // self._frame_in) * self._frame_ms

    def _end(self) -> None:
        """No frame will be made of it any more."""
        self._ended = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class _Mark(enum.Enum):
    """Items that carry nothing."""

    PAD = enum.auto()
    """The passage ends: fill the last frame up with silence."""
    CUT = enum.auto()
    """The passage broke off: what is less than a frame is dropped."""
    FINISH = enum.auto()
    """There is no more."""


_Item = Passage | bytes | tuple[bytes, ...] | _Mark


class Supply:
    """The audio of one reply on its way into its playback."""

    __slots__ = (
        "_advancing", "_encoder", "_finished", "_full", "_items", "_last", "_loose", "_make", "_offset", "_open",
        "_passage", "_playback", "_prepared", "_room", "_store", "_waiting", "_working",
    )  # fmt: skip

    def __init__(self, playback: Playback, encoder: Callable[[], FrameEncoder], store: Store) -> None:
        """``encoder`` makes one when it is needed."""
        self._playback = playback
        playback.on_low(LOW, self._refill)
        self._make = encoder
        self._store = store
        self._items: deque[_Item] = deque()  # bounded by `wait_room`
        self._offset = 0  # into the first item, when that is PCM
        self._waiting = 0  # bytes of PCM in the items
        self._loose = 0  # bytes that the encoder has and that make no frame yet
        self._encoder: FrameEncoder | None = None
        self._open: Passage | None = None  # the one that is being added to
        self._passage: Passage | None = None  # the one that is being encoded
        self._prepared = True  # not known yet whether it will be played
        self._full = self._working = self._last = self._advancing = self._finished = False
        self._room: asyncio.Future[None] | None = None

    # ------------------------------------------------------------ what goes in

    def begin(self, value: Any) -> Passage:
        """Begin a passage: ``value`` is the playback's marker. One that was not ended broke off.

        Raises RuntimeError after `finish`.
        """
        if self._finished:
            raise RuntimeError("a passage after the end")
        self.end(pad=False)
        passage = self._open = Passage(value, self._playback.frame_ms)
        self._put(passage)
        return passage

    def add_frames(self, frames: tuple[bytes, ...]) -> None:
        """Add frames that were made before to the open passage."""
        if self._open is not None:
            self._open._frames += len(frames)
            self._put(frames)

    def add_pcm(self, pcm: bytes) -> None:
        """Add PCM to the open passage. Never refused: ask for room with `wait_room` first. Raises AudioError."""
        passage = self._open
        if passage is None or not pcm or self._playback.over:
            return
        if passage.error is not None:
            raise passage.error
        if self._encoder is None:
            self._encoder = self._make()
        passage._frame_in = self._encoder.frame_in
        passage._bytes += len(pcm)
        self._waiting += len(pcm)
        self._store.used += len(pcm)
        self._put(pcm)

    def end(self, *, pad: bool = True) -> None:
        """End the open passage, if there is one. ``pad``: fill its last frame up with silence, or else drop it."""
        passage, self._open = self._open, None
        if passage is not None:
            if pad:
                passage._bytes += -passage._bytes % passage._frame_in
            self._put(_Mark.PAD if pad else _Mark.CUT)

    def finish(self) -> None:
        """There is no more: the playback ends when all of it was played."""
        if not self._finished:
            self.end(pad=False)
            self._finished = True
            self._put(_Mark.FINISH)

    def cancel(self) -> None:
        """Drop everything that was not sent. Safe at any moment and more than once."""
        for passage in (self._passage, *self._items):
            if isinstance(passage, Passage):
                passage._end()
        self._passage = self._open = None
        self._items.clear()
        self._store.used -= self._waiting
        self._offset = self._waiting = 0
        self._close_encoder()
        self._playback.cancel()
        self._make_room()

    def release(self) -> None:
        """It is to be played: from now on it is encoded as far ahead as needed."""
        self._prepared = False
        self._advance()

    # ------------------------------------------------------------ how it stands

    @property
    def over(self) -> bool:
        """Whether the playback is over: nothing that is added is played any more."""
        return self._playback.over

    async def wait_room(self) -> None:
        """Return when more may be added, or the playback is over."""
        while self._crowded:
            if self._room is None:
                self._room = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._room)

    async def encoded(self, passage: Passage) -> list[bytes] | None:
        """Wait until all of an ended passage is encoded; return its frames if it keeps them, None if it was cancelled.

        Raises AudioError when it could not be encoded.
        """
        if not passage._ended and not self._playback.over:
            passage._waiter = asyncio.get_running_loop().create_future()
            await passage._waiter
        if passage.error is not None:
            raise passage.error
        return None if self._playback.over else passage.keep

    @property
    def _crowded(self) -> bool:
        if self._encoder is None or self._playback.over:
            return False
        seconds = self._waiting / self._encoder.frame_in * self._playback.frame_ms / 1000
        return seconds >= (MAX_WAITING_S if self._store.used < self._store.limit else LEAST_WAITING_S)

    # ------------------------------------------------------------ what comes out

    def _put(self, item: _Item) -> None:
        if not self._playback.over:
            self._items.append(item)
            if not self._working:
                self._advance()

    def _refill(self) -> None:
        self._full = False
        if self._items and not self._working:
            self._advance()

    def _advance(self) -> None:
        """Move on what may be moved on. Called whenever something was added, encoded or played."""
        if self._advancing:
            return
        self._advancing = True  # what is put into the playback may call back
        try:
            while self._items and not self._working and not self._playback.over:
                if not isinstance(self._items[0], bytes):
                    self._move(self._items.popleft())
                elif not self._encode():
                    break
        finally:
            self._advancing = False

    def _move(self, item: _Item) -> None:
        match item:
            case Passage():
                self._passage = item
                self._playback.mark(item.value)
            case tuple():
                self._playback.push(item)
            case _Mark.PAD if self._loose:
                self._submit(b"", last=True)
            case _Mark.PAD:
                # Nothing is left to fill up. The next passage begins anew all the same, as it does behind one that was.
                self._close_encoder()
                self._end_passage()
            case _Mark.CUT:
                self._close_encoder()
                self._end_passage()
            case _Mark.FINISH:
                self._close_encoder()
                self._playback.finish()

    def _encode(self) -> bool:
        """Have a slice encoded, if it is time and there is enough for one; return whether that was so."""
        passage, queued = self._passage, self._playback.queued
        assert passage is not None
        if self._encoder is None:
            self._encoder = self._make()
        if passage.keep is None:
            if queued >= (PREPARED if self._prepared else AHEAD):
                self._full = not self._prepared
                return False
            if self._full:
                return False
        most = (
            SLICE
            if passage.keep is not None
            else min(SLICE, (PREPARED if self._prepared else AHEAD) - queued)
        )
        # A device that has little left takes what there is, the others wait for a slice that is worth its way.
        least = 1 if queued < LOW else most
        if queued < FIRST_SLICE and not self._playback.sent_ms:
            most = FIRST_SLICE
        size = self._encoder.frame_in
        if passage is self._open and self._waiting + self._loose < least * size:
            return False
        pcm = self._take(most * size - self._loose)
        last = bool(self._items) and self._items[0] is _Mark.PAD
        if last:
            self._items.popleft()
        self._submit(pcm, last=last)
        return True

    def _take(self, size: int) -> bytes:
        """Take up to ``size`` bytes of PCM off the front."""
        items, parts, left = self._items, [], size
        while left > 0 and items and isinstance(head := items[0], bytes):
            part = head[self._offset : self._offset + left]
            parts.append(part)
            left -= len(part)
            self._offset += len(part)
            if self._offset == len(head):
                items.popleft()
                self._offset = 0
        pcm = b"".join(parts)
        self._waiting -= len(pcm)
        self._store.used -= len(pcm)
        self._make_room()
        return pcm

    def _submit(self, pcm: bytes, *, last: bool) -> None:
        assert self._encoder is not None
        assert self._passage is not None
        self._working, self._last = True, last
        self._loose += len(pcm)
        best = self._passage.keep is not None
        self._encoder.encode(pcm, self._encoded, last=last, due=self._due(), best=best)

    def _due(self) -> float:
        """Return when the next slice is needed.

        That of the first audio, and of a device that ran dry, is now: everything else has its time still to come.
        """
        now = asyncio.get_running_loop().time()
        due = max(self._playback.dry_at, now)
        if self._passage is not None and self._passage.keep is not None:
            return min(due, now + _KEPT_DUE_S)
        return due

    def _encoded(self, frames: list[bytes], error: AudioError | None) -> None:
        """Take the frames of a slice."""
        self._working = False
        passage, encoder = self._passage, self._encoder
        assert passage is not None
        assert encoder is not None
        if error is not None:
            self._fail(passage, error)
        else:
            self._loose = 0 if self._last else max(self._loose - len(frames) * encoder.frame_in, 0)
            passage._frames += len(frames)
            if passage.keep is not None:
                passage.keep += frames
            self._playback.push(frames)
            if self._last:
                self._end_passage()
        self._advance()

    def _fail(self, passage: Passage, error: AudioError) -> None:
        """Drop the rest of a passage that cannot be encoded. Who adds to it is told; the others are not affected."""
        passage.error = error
        while self._items and isinstance(self._items[0], bytes):
            self._take(len(self._items[0]))
        self._close_encoder()
        self._end_passage()

    def _end_passage(self) -> None:
        passage, self._passage = self._passage, None
        if passage is not None:
            passage._bytes = (
                0  # its length is that of its frames now; of one that is cancelled it stays what it was
            )
            passage._end()

    def _close_encoder(self) -> None:
        self._loose = 0
        if self._encoder is not None:
            self._encoder.close()
            self._encoder = None

    def _make_room(self) -> None:
        if self._room is not None and not self._crowded:
            if not self._room.done():
                self._room.set_result(None)
            self._room = None
