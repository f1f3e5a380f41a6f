"""Numbers with their units, as people read them: rounded to what matters, and never rounded up to perfection."""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Final, NamedTuple

NOTHING: Final = "–"
"""Stands where there is no number."""

LARGEST: Final = 1e15
"""What claims to be more is shown as this: a report may come from anywhere."""


class Unit(StrEnum):
    """What a number counts."""

    MS = "ms"
    SECONDS = "s"
    BYTES = "bytes"
    BYTES_PER_S = "bytes per s"
    SHARE = "share"
    """0 to 1, shown in percent."""
    CORES = "cores"
    COUNT = "count"
    PER_S = "per s"


class Scale(NamedTuple):
    """How an axis shows its numbers: times ``factor``, in ``suffix``."""

    factor: float
    suffix: str


_SIZES: Final = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "KB"))
"""Decimal, as disks and networks are measured: 1 KB is 1000 bytes."""


def show(value: float | None, unit: Unit) -> str:
    """Return a number with its unit; a dash for None and for what is no number."""
    if value is None or not math.isfinite(value):
        return NOTHING
    value = min(max(float(value), -LARGEST), LARGEST)
    match unit:
        case Unit.SHARE:
            return _percent(value)
        case Unit.COUNT:
            return f"{value:,.0f}" if value == int(value) else _three(value)
        case Unit.CORES:
            return f"{value:.2f}" if abs(value) < 9.995 else f"{value:,.1f}"
        case Unit.PER_S:
            return f"{_three(value)}/s"
        case Unit.MS if abs(value) < 9999.5:
            return f"{value:,.0f} ms" if abs(value) >= 99.95 else f"{_three(value)} ms"
        case Unit.MS:
            return f"{_three(value / 1000)} s"
        case Unit.SECONDS:
            return f"{value:,.1f} s" if abs(value) < 600 else f"{value / 60:,.1f} min"
        case _:
            return _size(value) + ("/s" if unit is Unit.BYTES_PER_S else "")


def scale(largest: float, unit: Unit) -> Scale:
    """Return how an axis that goes up to ``largest`` shows its numbers."""
    match unit:
        case Unit.SHARE:
            return Scale(100, "%")
        case Unit.MS:
            return Scale(1, "ms") if largest < 10_000 else Scale(1e-3, "s")
        case Unit.SECONDS:
            return Scale(1, "s") if largest <= 600 else Scale(1 / 60, "min")
        case Unit.BYTES | Unit.BYTES_PER_S:
            rate = "/s" if unit is Unit.BYTES_PER_S else ""
            size, name = next((row for row in _SIZES if largest >= row[0]), (1.0, "B"))
            return Scale(1 / size, name + rate)
        case Unit.PER_S:
            return Scale(1, "/s")
        case _:
            return Scale(1, "")


def _percent(share: float) -> str:
    """99.96 % is not 100 %, and 0.001 % is not 0 %."""
    percent = share * 100
    if percent in {0.0, 100.0}:
        return f"{percent:.0f} %"
    if 0 < percent < 0.01:
        return "< 0.01 %"
    if 99.99 < percent < 100:
        return "> 99.99 %"
    digits = 2 if abs(percent) < 1 or 99 < percent < 100 else 1 if abs(percent) < 1000 else 0
    return f"{percent:,.{digits}f} %"


def _size(size: float) -> str:
    for factor, name in _SIZES:
        if abs(size) >= factor * 0.9995:
            return f"{_three(size / factor)} {name}"
    return f"{size:.0f} B"


def _three(value: float) -> str:
    """Write three digits, or more where they are whole."""
    if value == 0:
        return "0"
    before = math.floor(math.log10(abs(value))) + 1
    digits = min(max(3 - before, 0), 3 if before <= 0 else 2)
    text = f"{value:,.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
