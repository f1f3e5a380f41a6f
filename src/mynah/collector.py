"""Keeps Python's garbage collector from stopping conversations.

A full collection looks at every object that could be part of a cycle, half a microsecond each; the modules have 85 000
of them, and a device that only waits has 26. With 20 000 devices all would fall silent for a quarter of a second,
again and again. But modules never become garbage, and a connection is freed without the collector. So what has settled
is put aside (frozen), where no collection looks at it, and is looked at only now and then, if possible when nobody
talks.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable
from typing import Final

from loguru import logger

ROUND_S: Final = 10.0
THRESHOLDS: Final = (1_000, 5, 50)
"""Objects made more than freed between two looks at the youngest; of those looks between two at the next older ones;
and of these between full ones. The first two kinds of look take 0.5 and 2.5 ms, also while a thousand devices a second
connect: nobody's next packet waits for more."""
FREEZE_AFTER: Final = 1000
"""Connections made since the last time: 26 000 objects, which would make a full collection 12 ms longer."""
CALM_AFTER: Final = 5
"""How often is frozen before what is frozen is looked through, when nobody talks and nobody connects."""
THAW_AFTER: Final = 25
"""The same even while people talk. Garbage that was frozen waits for that: of each reply that was under way then there
may be 15 KB."""

log = logger.bind(tag="memory")


class Collector:
    """Decides when is collected. Owns a timer."""

    def __init__(self, made: Callable[[], int], talking: Callable[[], int]) -> None:
        """``made`` returns how many connections there have been; ``talking`` how many conversations go on."""
        self._made = made
        self._talking = talking
        self._before = THRESHOLDS
        self._seen = self._frozen_at = 0
        self._freezes = 0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Put aside all that was made for the start, and go on from there."""
        self._before = gc.get_threshold()
        gc.set_threshold(*THRESHOLDS)
        self._thaw()
        self._timer = asyncio.get_running_loop().call_later(ROUND_S, self.look)

    def look(self) -> None:
        """Freeze or thaw if it is time to."""
        self._timer = asyncio.get_running_loop().call_later(ROUND_S, self.look)
        made = self._made()
        calm = made == self._seen and not self._talking()
        self._seen = made
        if made - self._frozen_at >= FREEZE_AFTER:
            self._frozen_at = made
            self._freezes += 1
            gc.collect(1)
            gc.freeze()
        if self._freezes >= (CALM_AFTER if calm else THAW_AFTER):
            self._thaw()

    def stop(self) -> None:
        """Leave everything to Python again. Safe to call twice."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            gc.unfreeze()
            gc.set_threshold(*self._before)

    def _thaw(self) -> None:
        begin = time.perf_counter()
        gc.unfreeze()
        found = gc.collect()
        gc.freeze()
        self._freezes = 0
        took_ms = (time.perf_counter() - begin) * 1000
        log.debug("looked through the memory: {} objects were garbage, {:.0f} ms", found, took_ms)
