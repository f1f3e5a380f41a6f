import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mynah.sim.load.axes import MAX_TICKS, Axis, log_ticks, nice_step, thin, tick_text, ticks

numbers = st.floats()
points = st.lists(st.tuples(st.floats(0, 1e6), st.none() | numbers), max_size=800)


@given(st.lists(numbers, max_size=20))
def test_every_value_has_a_place(values: list[float]) -> None:
    for axis in (Axis.linear(values), Axis.log(values)):
        assert axis.low < axis.high
        assert all(0 <= axis.place(value) <= 1 for value in values)


@given(st.floats(-1e12, 1e12), st.floats(1e-6, 1e12))
def test_ticks_are_few_and_inside(low: float, span: float) -> None:
    high = low + max(span, abs(low) * 1e-6)
    found = ticks(low, high, 5)
    assert len(found) <= MAX_TICKS
    step = nice_step(high - low, 5)
    assert all(low - step * 1e-3 <= tick <= high + step * 1e-3 for tick in found)


def test_an_axis_ends_at_round_numbers() -> None:
    assert Axis.linear([0, 97])[:2] == (0, 100)
    assert Axis.linear([0.9, 1.0])[:2] == pytest.approx((0.9, 1.0))
    assert Axis.log([3, 480])[:2] == (2, 500)
    assert Axis.linear([])[:2] == (0, 1)


def test_logarithmic_ticks() -> None:
    assert log_ticks(2, 500) == [2, 5, 10, 20, 50, 100, 200, 500]
    assert log_ticks(1, 1e6) == [1, 10, 100, 1e3, 1e4, 1e5, 1e6]
    assert len(log_ticks(1e-9, 1e15)) <= 8


def test_ticks_are_written_with_the_digits_they_need() -> None:
    assert [tick_text(value, 2.5) for value in (0, 2.5, 5)] == ["0", "2.5", "5"]
    assert tick_text(20_000, 5000) == "20,000"
    assert tick_text(0.05, 0.05) == "0.05"
    assert tick_text(-0.0, 1) == "0"


@given(points, st.integers(4, 400))
def test_thinning_keeps_order_peaks_and_the_bound(
    found: list[tuple[float, float | None]], limit: int
) -> None:
    found = sorted(found, key=lambda point: point[0])
    kept = thin(found, limit)
    assert len(kept) <= max(limit, 2)
    assert [x for x, _ in kept] == sorted(x for x, _ in kept)
    known = [y for _, y in found if y is not None and math.isfinite(y)]
    left = [y for _, y in kept if y is not None]
    assert bool(known) == bool(left)
    if known:
        assert (min(left), max(left)) == (min(known), max(known))


def test_a_gap_survives_thinning() -> None:
    found = [(float(x), None if 400 <= x < 600 else 1.0) for x in range(1000)]
    assert None in [y for _, y in thin(found, 100)]
