"""How long things usually take: whether people should be told to wait."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

FILLER_AFTER_S: Final = 1.2
"""Silence that people begin to wonder about. What usually takes less is simply waited for."""
LEAST_SAMPLES: Final = 3
"""Times something must have been slow before it counts as slow: everything is slow once."""
WEIGHT: Final = 0.3
"""Of the newest time in the running mean: what has become fast is believed to be fast after a few times."""
MAX_NAMES: Final = 500
"""Models and tools that are kept track of. Overflow policy: what was not used for longest is forgotten."""


class Delays:
    """Running means of how long models and tools take, by name. Shared by all sessions."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def note(self, name: str, seconds: float) -> None:
        """Take in how long it took this time."""
        count, mean = self._known.get(name, (0, seconds))
        self._known[name] = (count + 1, mean + WEIGHT * (seconds - mean))
        self._known.move_to_end(name)
        if len(self._known) > MAX_NAMES:
            self._known.popitem(last=False)

    def expected(self, name: str) -> float:
        """Return how many seconds it usually takes; 0 while too little is known."""
        count, mean = self._known.get(name, (0, 0.0))
        return mean if count >= LEAST_SAMPLES else 0.0

    def is_slow(self, name: str, waited_s: float = 0.0) -> bool:
        """Return whether people will have to wait noticeably, ``waited_s`` after it began."""
        return self.expected(name) - waited_s >= FILLER_AFTER_S
