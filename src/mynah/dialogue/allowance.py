"""How much a device may be told per day."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from datetime import date
from typing import Final

import msgspec

MAX_DEVICES: Final = 10_000
"""Devices counted in one day, about 150 bytes each. Overflow policy: the one that has not been told anything for
longest is forgotten, and would begin its day anew."""


class Spent(msgspec.Struct, frozen=True):
    """What was counted on one day: plain data, for a file."""

    day: date
    chars: Mapping[str, int]
    """Device id → characters, who was told something last at the end."""


class DailyAllowance:
    """Counts the characters that each device is told, and begins again at midnight. Use from the event loop.

    A limit of 0 means none: then nothing is counted.
    """

    __slots__ = ("_chars", "_day", "_limit", "_max_devices", "_today")

    def __init__(self, limit_chars: int, today: Callable[[], date], max_devices: int = MAX_DEVICES) -> None:
        """``today`` gives the local date."""
        self._limit = limit_chars
        self._today = today
        self._max_devices = max_devices
        self._day = date.min
        self._chars: OrderedDict[str, int] = OrderedDict()  # told longest ago first

    def spend(self, device_id: str, chars: int) -> None:
        """Count ``chars`` that the device is being told. What was begun may be finished: it may exceed the limit."""
        if not self._limit or chars <= 0:
            return
        self._turn_page()
        self._chars[device_id] = self._chars.pop(device_id, 0) + chars
        self._trim()

    def left(self, device_id: str) -> int | None:
        """Return how many characters the device may still be told today, 0 when it is enough; None without limit."""
        if not self._limit:
            return None
        self._turn_page()
        return max(0, self._limit - self._chars.get(device_id, 0))

    def snapshot(self) -> Spent:
        """Return what was counted today."""
        if self._limit:
            self._turn_page()
        return Spent(self._day, dict(self._chars))

    def restore(self, spent: Spent) -> None:
        """Go on from a snapshot; one of another day counts for nothing, and neither does a negative number."""
        if not self._limit:
            return
        self._turn_page()
        if spent.day == self._day:
            self._chars = OrderedDict((device, chars) for device, chars in spent.chars.items() if chars > 0)
            self._trim()

    def _turn_page(self) -> None:
        today = self._today()
        if today != self._day:
            self._day = today
            self._chars.clear()

    def _trim(self) -> None:
        while len(self._chars) > self._max_devices:
            self._chars.popitem(last=False)
