"""One timer for all microphones: each has its place within the 60 ms of a packet, on a clock that does not drift."""

from __future__ import annotations

import asyncio
import math
import time
from typing import Final, Protocol

from mynah.sim.microphone import FRAME_MS

SLOTS: Final = 12
"""Places within a packet's 60 ms, 5 ms apart: the packets of all devices do not come at once."""

MAX_CATCH_UP: Final = 40
"""Rounds that are made up for after a stall: firmware's queue holds so many packets, and the oldest are lost."""

_SLOT_S: Final = FRAME_MS / 1000 / SLOTS
_EARLY_S: Final = 0.0005
"""Timers count in whole ms, so they may come so much too early; waiting again would cost more than it mends."""


class Ticking(Protocol):
    """Who gets a tick each 60 ms."""

    def tick(self, now: float) -> None:
        """It is time for the next packet; ``now`` is `time.monotonic`."""


class Wheel:
    """Ticks everybody on it once per 60 ms. It sleeps while nobody is on it."""

    def __init__(self) -> None:
        self._slots: list[dict[Ticking, None]] = [{} for _ in range(SLOTS)]
        self._begun = time.monotonic()
        self._done = 0
        """Number of the last slot that had its turn, counted from the beginning."""
        self._next: float = math.inf
        """The slot that the timer waits for; those before it are empty."""
        self._timer: asyncio.TimerHandle | None = None

    def add(self, who: Ticking, place: int) -> None:
        """Tick ``who`` from now on, in the slot ``place`` modulo `SLOTS`."""
        slot = self._slots[place % SLOTS]
        if not slot:
            # What was due while nobody was in it is not made up for.
            reached = math.floor((time.monotonic() - self._begun) / _SLOT_S)
            self._done = max(self._done, int(min(reached, self._next - 1)))
        slot[who] = None
        if len(slot) == 1:
            self._arm()

    def remove(self, who: Ticking, place: int) -> None:
        """Tick it no longer."""
        self._slots[place % SLOTS].pop(who, None)

    def stop(self) -> None:
        """Tick nobody any more."""
        for slot in self._slots:
            slot.clear()
        self._arm()

    def _arm(self) -> None:
        """Wait for the next slot that somebody is in."""
        if self._timer is not None:
            self._timer.cancel()
        for number in range(self._done + 1, self._done + SLOTS + 1):
            if self._slots[number % SLOTS]:
                due = self._begun + number * _SLOT_S
                self._next = number
                self._timer = asyncio.get_running_loop().call_later(
                    max(0.0, due - time.monotonic()), self._turn
                )
                return
        self._timer, self._next = None, math.inf

    def _turn(self) -> None:
        """Give every slot its turn that is due by now."""
        now = time.monotonic()
        due = math.floor((now + _EARLY_S - self._begun) / _SLOT_S)
        self._done = max(self._done, due - MAX_CATCH_UP * SLOTS)
        while self._done < due:
            self._done += 1
            slot = self._slots[self._done % SLOTS]
            if slot:
                for who in tuple(slot):  # they may leave when it is their turn
                    who.tick(now)
                now = time.monotonic()
        self._arm()
