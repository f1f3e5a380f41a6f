"""Who wants to know what became of an announcement."""

from __future__ import annotations

from collections.abc import Callable


class Tickets:
    """Numbers for announcements whose fate somebody wants to know; each is told once.

    Bounded by the announcements that may wait, `mynah.dialogue.turn.MAX_PENDING_SAYS`: what is beyond is told at once.
    """

    __slots__ = ("_last", "_waiting")

    def __init__(self) -> None:
        self._last = 0
        self._waiting: dict[int, Callable[[bool], None]] = {}

    def issue(self, on_done: Callable[[bool], None]) -> int:
        """Return a number; 0 is none."""
        self._last += 1
        self._waiting[self._last] = on_done
        return self._last

    def settle(self, ticket: int, said: bool) -> None:
        """Tell whoever waits whether it was said; a number that was settled before means nothing."""
        if (tell := self._waiting.pop(ticket, None)) is not None:
            tell(said)

    def close(self) -> None:
        """Nothing will be said any more."""
        for ticket in tuple(self._waiting):
            self.settle(ticket, False)
