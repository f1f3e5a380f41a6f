"""Any number of measurements in bounded memory: counts by size, which can be added up across processes."""

from __future__ import annotations

import math
from typing import Final

import msgspec

from mynah.sim.load.record import Distribution

GROWTH: Final = 1.02
"""Each bucket is so much wider than the one before: what is read back is off by 1 % at most."""

LEAST: Final = 0.001
"""Smallest measurement that is told apart from 0; in ms that is 1 µs."""

MOST: Final = 1e8
"""Larger ones count as this; in ms that is more than a day. So there are fewer than 1300 buckets."""

_PER_E: Final = 1 / math.log(GROWTH)


class Histogram(msgspec.Struct):
    """Measurements that are 0 or more, usually in ms."""

    counts: dict[int, int] = {}
    """How many fell into each bucket; -1 is that of 0."""
    total: float = 0.0
    largest: float = 0.0

    def add(self, value: float) -> None:
        """Count one measurement; a negative one counts as 0."""
        if value < LEAST:
            bucket = -1
            value = max(value, 0.0)
        else:
            value = min(value, MOST)
            bucket = int(math.log(value / LEAST) * _PER_E)
        self.counts[bucket] = self.counts.get(bucket, 0) + 1
        self.total += value
        self.largest = max(self.largest, value)

    def merge(self, other: Histogram) -> None:
        """Count everything that the other has counted."""
        for bucket, count in other.counts.items():
            self.counts[bucket] = self.counts.get(bucket, 0) + count
        self.total += other.total
        self.largest = max(self.largest, other.largest)

    def distribution(self) -> Distribution:
        """Sum up. Percentiles are of the nearest rank, within 1 %; mean and maximum are exact."""
        count = sum(self.counts.values())
        if not count:
            return Distribution()
        p50, p95, p99 = self._percentiles(count, (0.50, 0.95, 0.99))
        return Distribution(count=count, mean=self.total / count, p50=p50, p95=p95, p99=p99, max=self.largest)

    def _percentiles(self, count: int, shares: tuple[float, ...]) -> list[float]:
        ranks = [max(1, math.ceil(share * count)) for share in shares]
        found: list[float] = []
        seen = 0
        for bucket in sorted(self.counts):
            seen += self.counts[bucket]
            while len(found) < len(ranks) and seen >= ranks[len(found)]:
                value = LEAST * GROWTH ** (bucket + 0.5) if bucket >= 0 else 0.0
                found.append(min(value, self.largest))
        return found
