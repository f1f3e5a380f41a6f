"""When guessing pays."""

from __future__ import annotations

from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mynah.dialogue.speculation import BREAK, LEAST_HIT_RATE, TRIAL, Speculation


def settle(speculation: Speculation, hits: int, misses: int) -> None:
    for number in range(hits + misses):
        speculation.settle(number < hits, 10)


@pytest.mark.parametrize(("setting", "wanted"), [("auto", True), (True, True), (False, False)])
def test_the_setting_decides_at_first(setting: Literal["auto", True, False], wanted: bool) -> None:
    speculation = Speculation(setting)
    assert speculation.enabled is wanted
    assert speculation.wanted() is wanted


def test_guesses_that_fail_make_a_break_and_then_it_is_tried_again() -> None:
    speculation = Speculation("auto")
    settle(speculation, 0, TRIAL - 1)
    assert speculation.wanted(), "too few to judge"
    settle(speculation, 0, 1)
    assert [speculation.wanted() for _ in range(BREAK)] == [False] * BREAK
    assert speculation.wanted()
    assert speculation.stats.breaks == 1
    settle(speculation, 0, TRIAL - 1)
    assert speculation.wanted(), "the new trial begins at nothing"
    settle(speculation, 0, 1)
    assert not speculation.wanted()
    assert speculation.stats.breaks == 2


def test_the_hit_rate_that_is_just_enough() -> None:
    enough = round(LEAST_HIT_RATE * TRIAL)
    for hits, wanted in ((enough, True), (enough - 1, False)):
        speculation = Speculation("auto")
        settle(speculation, hits, TRIAL - hits)
        assert speculation.wanted() is wanted


def test_early_hits_do_not_pay_for_later_misses() -> None:
    speculation = Speculation("auto")
    settle(speculation, 5 * TRIAL, 0)
    settle(speculation, 0, TRIAL)
    assert not speculation.wanted()


def test_who_insists_is_not_given_breaks() -> None:
    speculation = Speculation(True)
    settle(speculation, 0, 5 * TRIAL)
    assert speculation.wanted()
    assert speculation.stats.breaks == 0


@pytest.mark.parametrize("setting", ["auto", True])
def test_a_server_that_has_too_much_to_do_makes_no_guesses(setting: Literal["auto", True]) -> None:
    speculation = Speculation(setting)
    speculation.paused = True
    assert not speculation.wanted()
    speculation.paused = False
    assert speculation.wanted()


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 1000)), max_size=200))
def test_everything_is_counted(guesses: list[tuple[bool, int]]) -> None:
    speculation = Speculation()
    for hit, tokens in guesses:
        speculation.settle(hit, tokens)
    stats = speculation.stats
    assert stats.hits + stats.misses == len(guesses)
    assert stats.used_tokens == sum(tokens for hit, tokens in guesses if hit)
    assert stats.wasted_tokens == sum(tokens for hit, tokens in guesses if not hit)
    assert stats.hit_rate == (stats.hits / len(guesses) if guesses else 0.0)
