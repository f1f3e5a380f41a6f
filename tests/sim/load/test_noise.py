import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mynah.sim.load.noise import Change, Reading, count, judge, level, percentile, share
from mynah.sim.load.record import Distribution


def measured(rng: random.Random, middle: float, number: int) -> Distribution:
    """What a run of so many answers would write down, of times that have a long tail as real ones do."""
    found = sorted(middle * rng.lognormvariate(0, 0.3) for _ in range(number))

    def at(rank: float) -> float:
        return found[min(int(rank * number), number - 1)]

    return Distribution(
        count=number, mean=sum(found) / number, p50=at(0.5), p95=at(0.95), p99=at(0.99), max=found[-1]
    )


def judged(middle: float, number: int, rank: float, seed: int) -> Change:
    rng = random.Random(seed)
    before = percentile(measured(rng, 300, number), rank, 0)
    after = percentile(measured(rng, middle, number), rank, 0)
    return judge(before, after, less_is_better=True)


@pytest.mark.parametrize("rank", [0.5, 0.95, 0.99])
@pytest.mark.parametrize("number", [40, 200, 2000])
def test_the_same_server_measured_twice_is_the_same(number: int, rank: float) -> None:
    found = [judged(300, number, rank, seed) for seed in range(150)]
    assert found.count(Change.SAME) >= 0.96 * len(found)


def test_a_server_half_as_slow_again_is_worse_and_the_other_way_round_better() -> None:
    for rank in (0.5, 0.95):
        slower = [judged(450, 300, rank, seed) for seed in range(60)]
        faster = [judged(200, 300, rank, seed) for seed in range(60)]
        assert slower.count(Change.WORSE) >= 0.9 * len(slower)
        assert faster.count(Change.BETTER) >= 0.9 * len(faster)


def test_few_measurements_say_little() -> None:
    few = [judged(450, 5, 0.95, seed) for seed in range(60)]
    assert few.count(Change.SAME) > 40


def test_what_the_generator_cannot_measure_is_no_difference() -> None:
    fast = Distribution(count=10_000, mean=2, p50=2, p95=2.1, p99=2.2, max=3)
    slow = Distribution(count=10_000, mean=6, p50=6, p95=6.1, p99=6.2, max=7)
    assert judge(percentile(fast, 0.5, 0), percentile(slow, 0.5, 0), less_is_better=True) is Change.WORSE
    assert judge(percentile(fast, 0.5, 5), percentile(slow, 0.5, 0), less_is_better=True) is Change.SAME


def test_shares() -> None:
    def of(part: float, number: int) -> Reading | None:
        return share(part, number)

    assert judge(of(1.0, 1000), of(0.8, 1000), less_is_better=False) is Change.WORSE
    assert judge(of(0.5, 1000), of(1.0, 1000), less_is_better=False) is Change.BETTER
    assert judge(of(1.0, 4), of(0.8, 5), less_is_better=False) is Change.SAME
    assert share(0.5, 0) is None


def test_counts_of_rare_events() -> None:
    assert judge(count(0), count(1), less_is_better=True) is Change.SAME
    assert judge(count(3), count(6), less_is_better=True) is Change.SAME
    assert judge(count(0), count(30), less_is_better=True) is Change.WORSE


def test_levels_need_a_tenth() -> None:
    assert judge(level(100, 1), level(108, 1), less_is_better=True) is Change.SAME
    assert judge(level(100, 1), level(120, 1), less_is_better=True) is Change.WORSE
    assert judge(level(100, 30), level(120, 1), less_is_better=True) is Change.SAME


def test_one_alone_cannot_be_judged() -> None:
    assert judge(None, level(1, 0), less_is_better=True) is Change.UNKNOWN
    assert percentile(Distribution(), 0.5, 0) is None


@given(
    st.integers(1, 10**6),
    st.lists(st.floats(0, 1e9), min_size=4, max_size=4),
    st.sampled_from([0.5, 0.95, 0.99]),
)
def test_a_range_holds_its_value(number: int, figures: list[float], rank: float) -> None:
    p50, p95, p99, largest = figures
    found = percentile(Distribution(count=number, p50=p50, p95=p95, p99=p99, max=largest), rank, 0)
    assert found is not None
    assert found.low <= found.value <= found.high
    assert judge(found, found, less_is_better=True) is Change.SAME


@given(st.floats(0, 1), st.integers(1, 10**6))
def test_a_share_lies_in_its_interval(part: float, number: int) -> None:
    found = share(part, number)
    assert found is not None
    assert -1e-9 <= found.low <= part <= found.high <= 1 + 1e-9


@pytest.mark.parametrize(("rank", "least"), [(0.5, 5), (0.95, 20), (0.99, 100)])
def test_too_few_measurements_are_no_verdict(rank: float, least: int) -> None:
    def of(value: float, number: int) -> Reading | None:
        # All the same, as a single one is: a spread that says 0.
        times = Distribution(count=number, mean=value, p50=value, p95=value, p99=value, max=value)
        return percentile(times, rank, 0)

    for few, many in ((1, 1), (least - 1, 10_000), (10_000, least - 1)):
        assert judge(of(100, few), of(1000, many), less_is_better=True) is Change.SAME
    assert judge(of(100, least), of(1000, least), less_is_better=True) is Change.WORSE
    found = of(100, 1)
    assert found is not None
    assert found.value == 100, "it is shown all the same"
