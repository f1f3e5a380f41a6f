"""The arithmetic of an axis: where it begins and ends, where its ticks are, and which of many points it needs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from mynah.sim.load.units import LARGEST

_SHORTEST, _LONGEST = 1e-4, 1e6
"""Numbers that are written out; others would not fit beside the axis."""

MAX_TICKS: Final = 20
"""Whatever the numbers are."""

_SMALLEST: Final = 1e-9
"""What is nearer to 0 is drawn as 0, or at the end of a logarithmic axis."""


class Axis(NamedTuple):
    """From values to places between 0 and 1."""

    low: float
    high: float
    logarithmic: bool

    @classmethod
    def linear(cls, values: Iterable[float]) -> Axis:
        """Return an axis that holds all these values, with a little room above them."""
        found = _bounded(values) or [0.0]
        low, high = min(found), max(found)
        if high <= low:
            high = low + (abs(low) or 1.0)
        step = nice_step(high - low, 5)
        return cls(
            math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step, logarithmic=False
        )

    @classmethod
    def log(cls, values: Iterable[float]) -> Axis:
        """Return a logarithmic axis that holds all these values above 0, from and to a 1, 2 or 5."""
        found = [max(value, _SMALLEST) for value in _bounded(values) if value > 0] or [1.0, 10.0]
        low, high = _round_down(min(found)), _round_up(max(found))
        return cls(low, high if high > low else low * 10, logarithmic=True)

    def place(self, value: float) -> float:
        """Return where a value stands; what is outside is at the edge."""
        if not math.isfinite(value):
            return 0.0
        low, high, value = self.low, self.high, min(max(value, self.low), self.high)
        if self.logarithmic:
            low, high, value = math.log(low), math.log(high), math.log(value)
        return (value - low) / (high - low)


def nice_step(span: float, count: int) -> float:
    """Return a step of 1, 2, 2.5 or 5 and zeros that divides ``span`` into about ``count`` parts."""
    raw = max(span, _SMALLEST) / count
    ten = 10.0 ** math.floor(math.log10(raw))
    return next((factor * ten for factor in (1, 2, 2.5, 5) if factor * ten >= raw * 0.999), 10 * ten)


def ticks(low: float, high: float, count: int) -> list[float]:
    """Return round numbers from ``low`` to ``high``, about ``count`` of them."""
    step = nice_step(high - low, count)
    first, last = math.ceil(low / step - 1e-6), math.floor(high / step + 1e-6)
    return [number * step for number in range(first, min(last, first + MAX_TICKS) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Return 1, 2 and 5 and their decades; only whole decades, or some of them, where there are many."""
    decades = math.log10(high / low)
    factors = (1, 2, 5) if decades <= 2.5 else (1,)
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    every = max(math.ceil(decades / 6), 1)
    found = [
        factor * 10.0**power for power in range(first, last + 1) if power % every == 0 for factor in factors
    ]
    return [tick for tick in found if low * 0.999 <= tick <= high * 1.001]


def tick_text(value: float, step: float) -> str:
    """Write a tick with the digits that its step needs."""
    if value and not _SHORTEST <= max(abs(value), abs(step)) < _LONGEST:
        return f"{value:.2g}"
    digits = min(max(-math.floor(math.log10(abs(step)) + 1e-9), 0), 9) if step else 0
    if digits and abs(step * 10**digits - round(step * 10**digits)) > 1e-6:
        digits += 1  # 2.5 and its like
    text = f"{value:,.{digits}f}"
    if value and not digits and abs(value - round(value)) > 1e-6:
        text = f"{value:,.1f}"
    return text.removeprefix("-") if text.strip("-0.,") == "" else text


def thin(points: Sequence[tuple[float, float | None]], limit: int) -> list[tuple[float, float | None]]:
    """Return at most ``limit`` of the points: of each stretch the lowest and the highest, in their order.

    A gap is kept where a whole stretch is one. Points that are no numbers become gaps.
    """
    clean = [(x, y if y is not None and math.isfinite(y) else None) for x, y in points if math.isfinite(x)]
    if len(clean) <= limit:
        return clean
    stretches = max(limit // 2, 1)
    kept: list[tuple[float, float | None]] = []
    for number in range(stretches):
        stretch = clean[number * len(clean) // stretches : (number + 1) * len(clean) // stretches]
        known = [(y, at) for at, (_, y) in enumerate(stretch) if y is not None]
        chosen = {min(known)[1], max(known)[1]} if known else {0}
        kept += [stretch[at] for at in sorted(chosen)]
    return kept


def _bounded(values: Iterable[float]) -> list[float]:
    found = [min(max(value, -LARGEST), LARGEST) for value in values if math.isfinite(value)]
    return [value if abs(value) > _SMALLEST else 0.0 for value in found]


def _round_down(value: float) -> float:
    ten = 10.0 ** math.floor(math.log10(value))
    return max(factor * ten for factor in (1, 2, 5) if factor == 1 or factor * ten <= value)


def _round_up(value: float) -> float:
    ten = 10.0 ** math.floor(math.log10(value))
    return next((factor * ten for factor in (1, 2, 5) if factor * ten >= value), 10 * ten)
