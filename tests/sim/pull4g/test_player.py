"""The jitter buffer."""

from __future__ import annotations

import pytest

from mynah.sim.pull4g.player import Player


def test_it_gathers_something_before_it_plays() -> None:
    one = Player(0.2)
    one.begin()
    assert one.push(0.5, 10.0) == 0
    assert one.ends_at == pytest.approx(10.7)
    assert one.push(0.5, 10.1) == 0
    assert one.ends_at == pytest.approx(11.2)
    assert (one.underruns, one.gap_s) == (0, 0)


def test_a_gap_in_the_middle_and_a_pause_between_replies() -> None:
    one = Player(0.2)
    one.begin()
    one.push(0.5, 10.0)
    assert one.push(0.5, 10.703) == 0, "3 ms: nobody hears that"
    gap_s = one.push(0.5, 12.0)
    assert gap_s == pytest.approx(12.2 - 11.2)
    assert one.push(0.5, 13.0) == pytest.approx(13.2 - 12.7)
    assert one.underruns == 2
    assert one.worst_gap_s == pytest.approx(1.0)
    assert one.gap_s == pytest.approx(1.5)
    one.begin()
    assert one.push(0.5, 20.0) == 0


def test_what_is_interrupted_is_silent_at_once() -> None:
    one = Player(0.2)
    one.push(5.0, 10.0)
    one.stop(11.0)
    assert one.ends_at == 11.0
    one.stop(12.0)
    assert one.ends_at == 11.0


def test_a_reply_that_follows_another_waits_for_its_end() -> None:
    one = Player(0.2)
    one.push(5.0, 10.0)
    one.begin()
    assert one.push(1.0, 11.0) == 0
    assert one.ends_at == pytest.approx(16.2)
