"""When two measurements differ by more than noise: pure functions.

Three things have to come together before something is called better or worse, because a load test is one run:

* The difference is larger than chance makes it in 99 of 100 cases, given how often was measured. For a median that is
  reckoned as for a normal distribution, for p95 and p99 as for a tail that falls exponentially, both as wide as the
  other percentiles say; for a share with Wilson's interval; for a count as of a Poisson process. 99 and not 95, as a
  page has some hundred figures.
* The values differ by a tenth at least. One machine running the same thing twice often differs by some percent.
* They differ by more than could be measured: times by more than the generator's own lag.
"""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Final, NamedTuple

from mynah.sim.load.record import Distribution

LEAST_CHANGE: Final = 0.1
"""Smaller relative differences are noise, however many measurements there are."""

LEAST_COUNT: Final = {0.5: 5, 0.95: 20, 0.99: 100}
"""Measurements, by the rank of a percentile. With fewer it is a single device's luck, and how far that goes is not
known: their spread says 0 when there is one."""

_Z: Final = 2.576
"""Standard deviations to either side for 99 %."""

_MEDIAN: Final = 1.2533 / 1.645
"""Error of the median of one measurement, as a multiple of the way from p50 to p95; of a normal distribution."""


class Change(StrEnum):
    """What became of a figure from the first report to the second."""

    BETTER = "better"
    WORSE = "worse"
    SAME = "same"
    """Not different beyond noise."""
    UNKNOWN = "unknown"
    """Only one of the reports has the figure."""


class Reading(NamedTuple):
    """A measured value and the range it lies in with 99 % certainty."""

    value: float
    low: float
    high: float
    floor: float = 0.0
    """Smallest difference that could be measured."""


def judge(before: Reading | None, after: Reading | None, *, less_is_better: bool) -> Change:
    """Return what became of a figure."""
    if before is None or after is None:
        return Change.UNKNOWN
    difference = after.value - before.value
    towards = (before.value - before.low, after.high - after.value)
    if difference > 0:
        towards = (before.high - before.value, after.value - after.low)
    if abs(difference) <= math.hypot(*towards):
        return Change.SAME
    largest = max(abs(before.value), abs(after.value))
    if abs(difference) <= max(before.floor, after.floor) or abs(difference) < LEAST_CHANGE * largest:
        return Change.SAME
    return Change.BETTER if (difference < 0) is less_is_better else Change.WORSE


def percentile(times: Distribution, rank: float, lag_ms: float) -> Reading | None:
    """Return a percentile, ``rank`` 0.5, 0.95 or 0.99, in ms; None where nothing was measured.

    ``lag_ms`` is the same percentile of the generator's lag: shorter differences may be its own. With fewer than
    `LEAST_COUNT` measurements the range has no end, so that no difference is more than noise.
    """
    if times.count <= 0:
        return None
    value = {0.5: times.p50, 0.95: times.p95, 0.99: times.p99}[rank]
    if times.count < LEAST_COUNT[rank]:
        return Reading(value, -math.inf, math.inf, max(lag_ms, 1.0))
    body, tail = max(times.p95 - times.p50, 0.0), max(times.p99 - times.p95, 0.0)
    if rank == 0.5:
        error = _MEDIAN * body / math.sqrt(times.count)
    else:
        fall = max(body / math.log(0.5 / 0.05), tail / math.log(0.05 / 0.01))
        error = fall * math.sqrt(rank / (1 - rank) / times.count)
    return Reading(value, value - _Z * error, value + _Z * error, max(lag_ms, 1.0))


def share(part: float, attempts: int, floor: float = 0.001) -> Reading | None:
    """Return a share of independent attempts with Wilson's interval; None when nothing was attempted."""
    if attempts <= 0:
        return None
    square = _Z * _Z / attempts
    middle = (part + square / 2) / (1 + square)
    reach = _Z * math.sqrt(max(part * (1 - part), 0.0) / attempts + square / attempts / 4) / (1 + square)
    return Reading(part, min(middle - reach, part), max(middle + reach, part), floor)


def count(number: int) -> Reading:
    """Return a count of rare events, as of a Poisson process."""
    root, half = math.sqrt(max(number, 0)), _Z / 2  # the root of a count has a standard deviation of a half
    return Reading(number, max(root - half, 0.0) ** 2, (root + half) ** 2, 1.0)


def level(value: float, floor: float) -> Reading:
    """Return a value that was measured once, such as memory: its noise is in the least change."""
    return Reading(value, value, value, floor)
