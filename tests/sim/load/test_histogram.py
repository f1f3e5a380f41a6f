from __future__ import annotations

import math

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from mynah.sim.load.histogram import Histogram
from mynah.sim.load.record import Distribution

TIMES = st.lists(st.floats(0, 1e7, allow_nan=False), min_size=1, max_size=200)


def filled(values: list[float]) -> Histogram:
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    return histogram


@given(TIMES)
def test_percentiles_are_within_a_hundredth(values: list[float]) -> None:
    found = filled(values).distribution()
    ordered = sorted(values)
    for share, read in ((0.5, found.p50), (0.95, found.p95), (0.99, found.p99)):
        true = ordered[math.ceil(share * len(ordered)) - 1]
        assert math.isclose(read, true, rel_tol=0.0101, abs_tol=0.00101)
    assert found.count == len(values)
    assert found.max == max(values)
    assert math.isclose(found.mean, sum(values) / len(values), rel_tol=1e-9, abs_tol=1e-12)


@given(TIMES, TIMES)
def test_two_processes_are_as_good_as_one(some: list[float], others: list[float]) -> None:
    together = filled(some)
    sent = msgspec.msgpack.decode(msgspec.msgpack.encode(filled(others)), type=Histogram)
    together.merge(sent)
    one = filled(some + others)
    assert together.counts == one.counts
    assert together.distribution().p95 == one.distribution().p95


def test_nothing_and_the_impossible() -> None:
    assert Histogram().distribution() == Distribution()
    assert filled([-3.0]).distribution() == Distribution(count=1)
    assert filled([1e300]).distribution().max == 1e8


def test_memory_is_bounded() -> None:
    histogram = filled([1.001**power for power in range(-20_000, 30_000)])
    assert len(histogram.counts) < 1300
