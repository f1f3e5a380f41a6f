"""Whether it pays to think ahead: how often the words at the first pause were already all of them.

A guess that holds hides the recogniser and the model inside the silence that ends an utterance. One that does not costs
tokens. So hits and waste are counted per pair of recogniser and model, and guessing pauses while it does not pay.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

TRIAL: Final = 20
"""Guesses after which the hit rate is judged: fewer say little."""
LEAST_HIT_RATE: Final = 0.4
"""Below this, more than one request in two is paid for nothing, and most turns gain nothing."""
BREAK: Final = 200
"""Utterances without guesses before it is tried again: people and their ways change."""


class SpeculationStats(msgspec.Struct):
    """Counters since the start."""

    hits: int = 0
    misses: int = 0
    used_tokens: int = 0
    """Tokens that guesses which held had delivered by then."""
    wasted_tokens: int = 0
    breaks: int = 0
    """How often guessing was paused because it did not pay."""

    @property
    def hit_rate(self) -> float:
        """Share of guesses that held, 0…1; 0 before the first."""
        return self.hits / total if (total := self.hits + self.misses) else 0.0


class Speculation:
    """One per pair of recogniser and language model, shared by all sessions."""

    def __init__(self, setting: Literal["auto", True, False] = "auto") -> None:
        self._setting = setting
        self.paused = False
        """The server has too much to do for answers that may be wasted."""
        self._recent_hits = 0
        self._recent = 0
        self._resting = 0
        self.stats = SpeculationStats()

    @property
    def enabled(self) -> bool:
        """Whether guesses are made at all."""
        return self._setting is not False

    def wanted(self) -> bool:
        """Return whether to guess in this utterance; call once for each that pauses."""
        if self.paused:
            return False
        if self._setting == "auto" and self._resting:
            self._resting -= 1
            return False
        return self.enabled

    def settle(self, hit: bool, tokens: int) -> None:
        """Note what became of a guess, and how many tokens it had brought."""
        stats = self.stats
        if hit:
            stats.hits += 1
            stats.used_tokens += tokens
        else:
            stats.misses += 1
            stats.wasted_tokens += tokens
        self._recent += 1
        self._recent_hits += hit
        if self._recent >= TRIAL:
            if self._setting == "auto" and self._recent_hits < LEAST_HIT_RATE * self._recent:
                self._resting = BREAK
                stats.breaks += 1
            self._recent = self._recent_hits = 0
