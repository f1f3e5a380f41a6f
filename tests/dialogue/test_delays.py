"""What counts as slow."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mynah.dialogue.delays import FILLER_AFTER_S, LEAST_SAMPLES, MAX_NAMES, Delays


def noted(*seconds: float) -> Delays:
    delays = Delays()
    for time in seconds:
        delays.note("x", time)
    return delays


def test_once_is_not_usual() -> None:
    for count in range(LEAST_SAMPLES):
        assert not noted(*[9.0] * count).is_slow("x")
        assert noted(*[9.0] * count).expected("x") == 0.0
    assert noted(*[9.0] * LEAST_SAMPLES).is_slow("x")
    assert not noted(*[9.0] * LEAST_SAMPLES).is_slow("y")


def test_what_was_waited_already_is_not_waited_again() -> None:
    delays = noted(*[3.0] * 5)
    assert delays.is_slow("x", 3.0 - FILLER_AFTER_S - 0.01)
    assert not delays.is_slow("x", 3.0 - FILLER_AFTER_S + 0.01)


def test_what_becomes_fast_is_believed_after_a_few_times() -> None:
    delays = noted(*[3.0] * 10)
    delays.note("x", 0.1)
    assert delays.is_slow("x")
    for _ in range(4):
        delays.note("x", 0.1)
    assert not delays.is_slow("x")


@given(st.lists(st.floats(0, 100), min_size=LEAST_SAMPLES, max_size=50))
def test_the_mean_stays_between_the_extremes(seconds: list[float]) -> None:
    mean = noted(*seconds).expected("x")
    assert min(seconds) - 1e-9 <= mean <= max(seconds) + 1e-9
    assert noted(*seconds, max(seconds) + 10).expected("x") > mean


def test_names_are_bounded_and_the_one_not_used_for_longest_goes() -> None:
    delays = noted(*[3.0] * 3)
    for number in range(MAX_NAMES - 1):
        delays.note(str(number), 1.0)
    delays.note("x", 3.0)
    delays.note("one more", 1.0)
    assert delays.expected("x") == pytest.approx(3.0)
    for number in range(MAX_NAMES):
        delays.note(f"other {number}", 1.0)
    assert delays.expected("x") == 0.0
