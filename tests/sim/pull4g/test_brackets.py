"""Whose answer it is that arrives."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mynah.sim.pull4g.brackets import Answer, Brackets, Sound


def test_an_answer_with_audio_and_one_without() -> None:
    one = Brackets()
    one.polled()
    one.opened()
    assert one.heard() is Sound.WANTED
    assert one.ended() is Answer.AUDIO
    one.polled()
    one.opened()
    assert one.ended() is Answer.NOTHING
    assert (one.pending, one.answered) == (0, 2)


def test_audio_that_nobody_asked_for() -> None:
    one = Brackets()
    assert one.heard() is Sound.OUTSIDE
    one.opened()
    assert one.heard() is Sound.OUTSIDE, "nobody has polled"
    one.polled()
    one.ended()
    assert one.heard() is Sound.OUTSIDE


def test_what_is_on_its_way_when_the_user_interrupts_is_dropped() -> None:
    one = Brackets()
    one.polled()
    one.polled()
    one.opened()
    one.interrupted()
    assert not one.rests
    assert one.heard() is Sound.UNWANTED
    assert one.ended() is Answer.UNWANTED
    one.opened()
    assert one.ended() is Answer.UNWANTED
    assert one.rests
    one.polled()
    one.opened()
    assert one.heard() is Sound.AFTER_INTERRUPT
    one.ended()
    one.asked()
    one.polled()
    one.opened()
    assert one.heard() is Sound.WANTED


def test_after_a_silent_answer_what_comes_is_something_new() -> None:
    one = Brackets()
    one.interrupted()
    one.polled()
    one.opened()
    one.ended()
    one.polled()
    one.opened()
    assert one.heard() is Sound.WANTED


def test_an_error_answers_a_poll() -> None:
    one = Brackets()
    one.polled()
    one.refused()
    assert one.pending == 0
    one.polled()
    one.opened()
    one.refused()
    assert one.pending == 1, "it stands in the middle of another answer"
    one.lost()
    assert one.heard() is Sound.OUTSIDE


@given(st.lists(st.sampled_from(["poll", "answer", "interrupt", "ask", "lose"]), max_size=60))
def test_no_answer_is_lost_and_none_is_taken_for_another(steps: list[str]) -> None:
    one = Brackets()
    wanted: list[bool] = []  # of each poll that has no answer yet
    for step in steps:
        if step == "poll":
            one.polled()
            wanted.append(True)
        elif step == "interrupt":
            one.interrupted()
            wanted = [False] * len(wanted)
        elif step == "ask":
            one.asked()
        elif step == "lose":
            one.lost()
            wanted = []
        elif wanted:
            one.opened()
            sound = one.heard()
            assert (sound is Sound.UNWANTED) != wanted[0]
            assert sound is not Sound.OUTSIDE
            assert (one.ended() is Answer.UNWANTED) != wanted.pop(0)
        assert one.pending == len(wanted)
        assert one.rests == all(wanted)
