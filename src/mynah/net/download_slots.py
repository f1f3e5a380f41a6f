"""Slots for downloads: who may download when more want to than can.

A slot is free for the asking as long as there are any. When there are none, a download makes room that is too slow
to come to an end, or one of a sender that has more than its share: nobody can keep the others out by sitting on all
slots, however many connections he opens. A fixed number per address would do that too, but would slow down every
site whose devices share one address.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

import msgspec
from loguru import logger

MAX_WAITING: Final = 256
"""Downloads that wait for their slot, a quarter of the connections of the port. Overflow policy: the newest of the
sender that has most makes room, or else the one that has just come does."""
MIN_BYTES_S: Final = 4096
"""Who takes fewer is too slow: 4 MB would take him longer than the 15 minutes he has. Weak 4G is twice as fast."""
WINDOW_S: Final = 10.0
"""Slowness is judged over this time: mobile links pause for seconds."""
REVIEW_S: Final = 1.0
"""As long as somebody waits, slow downloads are looked for this often."""

_log = logger.bind(tag="firmware")


class Slot(msgspec.Struct, eq=False):
    """One download, waiting or under way."""

    source: str
    """Whom it is counted for."""
    cut: Callable[[], Any]
    """Ends it at once."""
    slow_at: float = 0.0
    """From then on it counts as slow, unless its client takes more: seconds of the event loop's clock."""


class DownloadSlots:
    """Hands out so many slots at once. Use from one event loop."""

    def __init__(self, slots: int, wait_s: float) -> None:
        """``slots`` slots at once, at least one; nobody waits longer than ``wait_s``."""
        self._slots = slots
        self._wait_s = wait_s
        self._running: dict[Slot, None] = {}
        self._waiting: dict[Slot, asyncio.Future[bool]] = {}
        self._next_review: asyncio.TimerHandle | None = None

    async def take(self, source: str, cut: Callable[[], Any]) -> Slot | None:
        """Return a slot, to be given back with `end`; None when there is none in time.

        ``cut`` is called when the slot is taken away again: it must end the download at once.
        """
        slot = Slot(source, cut)
        if len(self._waiting) >= MAX_WAITING and not self._shorten(source):
            return None
        granted: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting[slot] = granted
        self._review()
        kept = False
        try:
            async with asyncio.timeout(self._wait_s):
                kept = await granted
        except TimeoutError:
            pass
        finally:
            self._waiting.pop(slot, None)
            if not kept:
                self.end(slot)  # it may have been granted in the very moment
        return slot if kept else None

    def took(self, slot: Slot, size: int) -> None:
        """Note that the client has taken ``size`` bytes more."""
        at_most = asyncio.get_running_loop().time() + WINDOW_S
        slot.slow_at = min(slot.slow_at + size / MIN_BYTES_S, at_most)

    def end(self, slot: Slot) -> None:
        """Give a slot back. Safe for one that was taken away."""
        if slot in self._running:
            del self._running[slot]
            self._review()

    def _review(self) -> None:
        """Give every slot that is free, or can be made free, to the waiting sender who has fewest."""
        loop = asyncio.get_running_loop()
        while self._waiting:
            counts = Counter(slot.source for slot in self._running)
            slot = min(self._waiting, key=lambda waiting: counts[waiting.source])
            if len(self._running) >= self._slots and not self._make_room(slot.source):
                break
            granted = self._waiting.pop(slot)
            if not granted.done():
                slot.slow_at = loop.time() + WINDOW_S
                self._running[slot] = None
                granted.set_result(True)
        if self._waiting and self._next_review is None:
            self._next_review = loop.call_later(REVIEW_S, self._review_again)

    def _review_again(self) -> None:
        self._next_review = None
        self._review()

    def _make_room(self, source: str) -> bool:
        slowest = min(self._running, key=lambda slot: slot.slow_at)
        is_slow = slowest.slow_at < asyncio.get_running_loop().time()
        victim = slowest if is_slow else _crowding(self._running, source)
        if victim is None:
            return False
        _log.info("a download by {} is cut off to make room for {}", victim.source, source)
        del self._running[victim]
        victim.cut()
        return True

    def _shorten(self, source: str) -> bool:
        victim = _crowding(self._waiting, source)
        if victim is None:
            return False
        granted = self._waiting.pop(victim)
        if not granted.done():
            granted.set_result(False)
        return True


def _crowding(slots: dict[Slot, Any], source: str) -> Slot | None:
    """Return the newest slot of the sender that has most; None unless ``source`` has fewer even afterwards or as many.

    The newest, because it has got least so far.
    """
    counts = Counter(slot.source for slot in slots)
    busiest, most = counts.most_common(1)[0]
    if most < counts[source] + 2:
        return None
    return next(slot for slot in reversed(slots) if slot.source == busiest)
