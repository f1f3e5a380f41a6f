"""How long a connection has brought nothing: devices that hear nothing for two minutes take it for dead."""

from __future__ import annotations

from mynah.sim.counters import Counters

DEAD_AFTER_S = 120.0
"""A connection that has brought nothing for longer is taken for dead, but only when somebody wants to use it."""

MARGIN = 11 / 12
"""The part of it after which a server should have said something, or hung up: 110 s."""


class SilenceWatch:
    """Follows the frames of one connection. Times are seconds on one clock that never goes back."""

    def __init__(self, counters: Counters, dead_after_s: float = DEAD_AFTER_S) -> None:
        self._counters = counters
        self._dead_after_s = dead_after_s
        self._heard_at = 0.0
        self.was_dead = False
        """The silence that ended last had been too long: an answer that ends it is lost."""

    def opened(self, now: float) -> None:
        """The connection has just come about."""
        self._heard_at, self.was_dead = now, False

    def heard(self, now: float) -> None:
        """The server has sent something, or the connection is over."""
        silent_s, self._heard_at = now - self._heard_at, now
        self._counters.long_silence += silent_s > self._dead_after_s * MARGIN
        self.was_dead = silent_s > self._dead_after_s

    def dead(self, now: float) -> bool:
        """Look whether the connection has been silent for too long. Every time it has is counted."""
        dead = now - self._heard_at > self._dead_after_s
        self._counters.dead_channel += dead
        return dead
