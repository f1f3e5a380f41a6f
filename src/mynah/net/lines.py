"""Lines of the log about strangers, who may come by the thousand: one each while they are few, then one for all."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from loguru import Logger

LINES_AT_ONCE: Final = 20
LINES_PER_S: Final = 1.0
"""So many are logged one by one, and so many more every second: a line costs 45 µs of the event loop and 100 bytes of
the log file. Overflow policy: the rest is counted, and logged one by one at DEBUG only."""
SUMMARY_S: Final = 5.0
"""How long they are counted before a line tells how many they were."""


class Lines:
    """Writes lines to one log as long as they are few. Used on the event loop only."""

    def __init__(self, log: Logger) -> None:
        self._log = log.opt(depth=2)  # so that the line is that of who tells it
        self._summary = log
        self._left = float(LINES_AT_ONCE)
        self._left_at = 0.0
        self._untold: dict[str, int] = {}  # as many as there are kinds

    def refused(self, cause: str, device_id: str, ip: str, why: str) -> None:
        """A device is not let in. ``cause``: one of few and fixed words, by which they are counted."""
        who = device_id or "a device without id"
        self._tell(f"refused ({cause})", "refused {} ({}): {}", who, ip, why)

    def replaced(self, device_id: str) -> None:
        """A device has connected while it was connected."""
        self._tell("connected again", "{} connected again, the older connection is closed", device_id)

    def _tell(self, kind: str, line: str, *details: str) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        self._left = min(LINES_AT_ONCE, self._left + (now - self._left_at) * LINES_PER_S)
        self._left_at = now
        if self._left >= 1:
            self._left -= 1
            self._log.info(line, *details)
            return
        self._log.debug(line, *details)
        if not self._untold:
            loop.call_later(SUMMARY_S, self._sum_up)
        self._untold[kind] = self._untold.get(kind, 0) + 1

    def _sum_up(self) -> None:
        told = ", ".join(f"{count} more {kind}" for kind, count in sorted(self._untold.items()))
        self._untold = {}
        self._summary.info("{}; each one is logged at DEBUG", told)
