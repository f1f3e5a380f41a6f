"""Which ``tts start`` belongs to which ``tts stop``."""

from __future__ import annotations

from mynah.sim.counters import Counters


class ReplyBracket:
    """Follows replies from ``start`` to ``stop`` and counts what does not pair up."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._owed = 0
        self.open = False
        """A reply has begun and not ended."""
        self.interrupted = False
        """The device asked for an end; what it then throws away is no loss."""

    def asked(self) -> None:
        """The device sent an abort or a wake word: one ``stop`` more is right, also outside a reply."""
        self._owed += 1
        self.interrupted = True

    def start(self) -> None:
        """``tts start`` came. Whatever was owed before is settled by the stop of this reply."""
        self._counters.second_start += self.open
        self.open = True
        self._owed = 0

    def stop(self) -> None:
        """``tts stop`` came."""
        if not self.open:
            self._counters.stop_without_start += self._owed == 0
            self._owed = max(0, self._owed - 1)
        self.open = False

    def lost(self) -> None:
        """The connection is gone, and the reply with it."""
        self.open = False
        self._owed = 0
