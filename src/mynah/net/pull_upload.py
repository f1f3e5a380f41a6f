"""One recording of a device that uploads it: from bytes in whatever pieces to the session, not faster than allowed.

A mobile link that stood still delivers all it has at once. What the session may be given at the moment is what the
credit of its stream allows (`mynah.audio.credit`); the rest waits here and nothing is lost.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from mynah.audio.adpcm import AdpcmDecoder
from mynah.audio.credit import FILL_RATE, MAX_DEBT_S, opus_cost_s, pcm_cost_s
from mynah.audio.ingest_stream import ITEM_BYTES, MAX_PENDING_PER_STREAM
from mynah.dialogue.session import Session
from mynah.wire.pull4g import Codec

MAX_BYTES: Final = 10_000_000
MAX_S: Final = 60.0
"""Longest recording. Overflow policy: what follows is dropped, the device is told, and it is processed up to there."""
STORE_BYTES: Final = 64 * 1024 * 1024
"""What may wait of all recordings of the process, over half an hour of PCM; most hand over at once what they bring.
Overflow policy: a recording that brings more is taken for too long."""
MARGIN_S: Final = 0.05
"""Kept of the credit: the stream's own account began a moment later."""
PIECE_S: Final = 0.1
"""Pieces in which PCM is handed over: short, so that little waits for the credit of a whole second, and not as short
as the network may cut it, for each piece takes a place in the stream's queue."""
LEAST_COST_S: Final = MAX_DEBT_S / (MAX_PENDING_PER_STREAM - 10)
"""What each piece is taken to cost at least: with short packets it is the stream's queue that would be full first."""


class UploadStore:
    """How much waits, of all recordings together. One per process."""

    __slots__ = ("limit", "used")

    def __init__(self, limit: int = STORE_BYTES) -> None:
        """``limit`` in bytes."""
        self.limit = limit
        self.used = 0


class Upload:
    """A recording in progress. Made when it begins; `close` when it is over or not wanted any more."""

    __slots__ = ("_account", "_adpcm", "_codec", "_done", "_loop", "_rate", "_rest", "_session", "_skip", "_store",
                 "_timer", "_waiting", "complete", "heard_s", "last_at", "overlong", "received")  # fmt: skip

    def __init__(
        self,
        session: Session,
        codec: Codec,
        rate: int,
        done: Callable[[], None],
        store: UploadStore | None = None,
    ) -> None:
        """``rate`` in Hz. ``done`` is called when a complete recording has been handed over to its last byte."""
        self._session, self._codec, self._rate, self._done = session, codec, rate, done
        self._adpcm = AdpcmDecoder() if codec is Codec.ADPCM else None
        self._store = store or UploadStore()
        self._loop = asyncio.get_running_loop()
        # Pieces of PCM, or packets. Bounded by `MAX_S` and `MAX_BYTES`: nothing is lost, the whole recording may wait.
        self._waiting: deque[bytes] = deque()
        self._account = 0.0  # when the credit is whole again, on the loop's clock
        self._timer: asyncio.TimerHandle | None = None
        self._rest = b""  # PCM, less than a piece
        self._skip = 0  # bytes to come that were received before the link was lost
        self.received = 0
        """Bytes, as they came over the line."""
        self.heard_s = 0.0
        """How long it is."""
        self.last_at = self._loop.time()
        """When something came last."""
        self.complete = False
        """The device has said that this was all."""
        self.overlong = False
        """It is too long: the rest is dropped."""

    def resume(self, offset: int) -> None:
        """What comes next begins at byte ``offset`` of the recording; what is known already is skipped."""
        self._skip = max(self.received - offset, 0)
        self.last_at = self._loop.time()

    def feed(self, data: bytes) -> bool:
        """Take the next bytes (of Opus: one packet); return False when this makes it too long."""
        self.last_at = self._loop.time()
        if self._skip:
            skipped = min(self._skip, len(data))
            self._skip -= skipped
            data = data[skipped:]
        if not data or self.complete or self.overlong:
            return True
        self.received += len(data)
        full = self._store.used > self._store.limit
        self.overlong = self.received > MAX_BYTES or full or not self._take(data)
        if self._timer is None:
            self._hand_over()
        return not self.overlong

    def finish(self) -> None:
        """There is no more."""
        if not self.complete:
            self.complete = True
            if self._rest:
                self._put(self._rest)
                self._rest = b""
            if self._timer is None:
                self._hand_over()

    def ignore(self) -> None:
        """Drop what waits, and what comes; it is over when the device says so."""
        self.overlong = True
        while self._waiting:
            self._pop()
        self._rest = b""

    def close(self) -> None:
        """Drop what waits; ``done`` is not called any more."""
        self.complete = True
        self.ignore()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._done = _nobody

    def _take(self, data: bytes) -> bool:
        """Have the pieces that these bytes complete wait; return False when the recording gets too long."""
        if self._codec is Codec.OPUS:
            self.heard_s += opus_cost_s(data) * FILL_RATE
            fits = self.heard_s < MAX_S + 0.001  # a sum of packets is not exact
            if fits:
                self._put(data)
            return fits
        pcm = data if self._adpcm is None else self._adpcm.decode(data)
        room = int(MAX_S * self._rate) * 2 - round(self.heard_s * self._rate * 2)
        self.heard_s += min(len(pcm), room) / (2 * self._rate)
        pending = self._rest + pcm[:room]
        size = int(self._rate * PIECE_S) * 2
        end = len(pending) - len(pending) % size
        for at in range(0, end, size):
            self._put(pending[at : at + size])
        self._rest = pending[end:]
        return len(pcm) <= room

    def _put(self, piece: bytes) -> None:
        self._waiting.append(piece)
        self._store.used += len(piece) + ITEM_BYTES

    def _pop(self) -> bytes:
        piece = self._waiting.popleft()
        self._store.used -= len(piece) + ITEM_BYTES
        return piece

    def _cost_s(self, piece: bytes) -> float:
        opus = self._codec is Codec.OPUS
        return max(opus_cost_s(piece) if opus else pcm_cost_s(len(piece), self._rate), LEAST_COST_S)

    def _hand_over(self) -> None:
        self._timer = None
        now = self._loop.time()
        while self._waiting:
            account = max(self._account, now) + self._cost_s(self._waiting[0])
            if account - now > MAX_DEBT_S - MARGIN_S:
                self._timer = self._loop.call_later(
                    account - now - MAX_DEBT_S + 2 * MARGIN_S, self._hand_over
                )
                return
            self._account = account
            piece = self._pop()
            if self._codec is Codec.OPUS:
                self._session.on_audio(piece)
            else:
                self._session.on_pcm(piece, self._rate)
        if self.complete:
            done, self._done = self._done, _nobody
            done()


def _nobody() -> None:
    """It was told already, or nobody wants to know."""
