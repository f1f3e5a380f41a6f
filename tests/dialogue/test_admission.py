"""When a server is tense or full: not for a moment's lateness, and never for good."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mynah.dialogue import admission as admission_module
from mynah.dialogue.admission import (
    FULL_CALM_S,
    FULL_RANK,
    GOING_ON_S,
    MAX_SOURCES,
    TENSE_AT_ONCE,
    TENSE_CALM_S,
    TENSE_PER_S,
    TENSE_RANK,
    WINDOW,
    Admission,
    Bounds,
    Level,
    Places,
    Relay,
    Signal,
    Signals,
    Thresholds,
)

STEP_S = 0.1
LATE = Signals(lag_s=0.5)
HASTY = Signals(lag_s=0.05)
"""Tense, not full."""
CALM = Signals()

lags = st.floats(0, 2, allow_nan=False)
looks = st.builds(
    Signals, lags, lags, lags, st.floats(0, 1.2, allow_nan=False)
)  # loop, encoding, hearing, memory


def admission(always: int = 0) -> Admission:
    return Admission(Thresholds(always=always))


class Clock:
    """Feeds an admission ten looks a second."""

    def __init__(self, made: Admission, now: float = 1000.0) -> None:
        self.made, self.now = made, now

    def see(self, *signals: Signals, times: int = 1) -> Level:
        level = self.made.level
        for _ in range(times):
            for look in signals:
                self.now += STEP_S
                level = self.made.sample(self.now, look)
        return level


def seconds(number: float) -> int:
    return round(number / STEP_S)


# ---------------------------------------------------------------- pressure


@given(st.floats(0, 10), st.floats(0, 10), st.floats(0.01, 1), st.floats(0.01, 1))
def test_pressure_grows_with_the_value(one: float, other: float, tense: float, more: float) -> None:
    bounds = Bounds(tense, tense + more)
    low, high = sorted((one, other))
    assert 0 <= bounds.pressure(low) <= bounds.pressure(high)


def test_pressure_is_one_where_tense_begins_and_two_where_full_does() -> None:
    bounds = Bounds(0.03, 0.1)
    assert bounds.pressure(0.03) == 1.0
    assert bounds.pressure(0.1) == pytest.approx(2.0)
    assert bounds.pressure(0.029) < 1.0
    assert bounds.pressure(-1.0) == 0.0


def test_memory_is_calm_again_soon_below_where_it_was_tense() -> None:
    """A process seldom gives back what it once had."""
    clock = Clock(admission())
    assert clock.see(Signals(memory=0.9), times=WINDOW) is Level.TENSE
    assert clock.see(Signals(memory=0.82), times=seconds(60)) is Level.TENSE
    assert clock.see(Signals(memory=0.75), times=seconds(TENSE_CALM_S + 2)) is Level.NORMAL


def test_a_relay_waits_for_calm_without_a_break() -> None:
    relay = Relay(on=2.0, off=1.0, calm_s=5.0)
    assert not relay.step(0.0, 1.9)
    assert relay.step(1.0, 2.0)
    assert relay.step(2.0, 0.5)
    assert relay.step(6.0, 1.0), "not calm: the time starts anew"
    assert relay.step(7.0, 0.5)
    assert relay.step(11.9, 0.5)
    assert not relay.step(12.0, 0.5)


# ---------------------------------------------------------------- levels


@given(st.lists(looks, max_size=FULL_RANK - 1), st.integers(0, 20))
def test_a_spike_never_turns_anybody_away(spike: list[Signals], before: int) -> None:
    """Fewer than five bad looks in a second are not a load, however bad they are."""
    clock = Clock(admission())
    clock.see(CALM, times=before)
    assert Level.FULL not in [clock.see(look) for look in spike]
    assert clock.see(CALM, times=WINDOW) is not Level.FULL


@pytest.mark.parametrize("bad", range(TENSE_RANK))
def test_one_or_two_late_looks_change_nothing_at_all(bad: int) -> None:
    clock = Clock(admission())
    levels = [clock.see(look) for look in [Signals(lag_s=9.0)] * bad + [CALM] * 20]
    assert set(levels) == {Level.NORMAL}


def test_lasting_lateness_makes_it_tense_and_then_full() -> None:
    clock = Clock(admission())
    levels = [clock.see(LATE) for _ in range(FULL_RANK)]
    assert levels == [Level.NORMAL] * 2 + [Level.TENSE] * 2 + [Level.FULL]
    assert clock.made.cause is Signal.LOOP
    clock = Clock(admission())
    assert clock.see(HASTY, times=100) is Level.TENSE


@given(st.lists(looks, max_size=60))
def test_it_always_recovers(past: list[Signals]) -> None:
    clock = Clock(admission())
    clock.see(*past)
    calm = TENSE_CALM_S + WINDOW * STEP_S + STEP_S
    assert clock.see(CALM, times=seconds(calm)) is Level.NORMAL
    assert clock.made.cause is None
    assert not clock.made.memory_full


def test_levels_are_left_one_after_the_other_and_not_at_once() -> None:
    clock = Clock(admission())
    clock.see(LATE, times=20)
    assert clock.see(CALM, times=seconds(FULL_CALM_S)) is Level.FULL
    assert clock.see(CALM, times=WINDOW) is Level.TENSE
    assert clock.see(CALM, times=seconds(TENSE_CALM_S - FULL_CALM_S)) is Level.NORMAL


def test_it_does_not_flap_around_a_threshold() -> None:
    clock = Clock(admission())
    around = [Signals(lag_s=0.11), Signals(lag_s=0.09)]
    clock.see(*around, times=20)
    changes = 0
    for _ in range(200):
        before = clock.made.level
        changes += clock.see(*around) is not before
    assert clock.made.level is Level.FULL
    assert changes == 0


@given(st.lists(st.tuples(looks, looks), max_size=80))
def test_more_load_is_never_a_lower_level(pairs: list[tuple[Signals, Signals]]) -> None:
    light, heavy = Clock(admission()), Clock(admission())
    for one, other in pairs:
        names = ("lag_s", "encoding_s", "hearing_s", "memory")
        more = Signals(*(max(getattr(one, name), getattr(other, name)) for name in names))
        assert light.see(one) <= heavy.see(more)
        assert light.made.memory_full <= heavy.made.memory_full


@pytest.mark.parametrize(
    ("look", "cause"),
    [
        (Signals(lag_s=1.0), Signal.LOOP),
        (Signals(encoding_s=1.0), Signal.ENCODING),
        (Signals(hearing_s=1.0), Signal.HEARING),
        (Signals(memory=0.99), Signal.MEMORY),
    ],
)
def test_every_signal_counts_and_is_named(look: Signals, cause: Signal) -> None:
    clock = Clock(admission())
    assert clock.see(look, times=FULL_RANK) is Level.FULL
    assert clock.made.cause is cause
    assert clock.made.memory_full is (cause is Signal.MEMORY)


def test_with_few_conversations_only_memory_counts() -> None:
    """It is not they that make the server late, so turning others away would not help."""
    clock = Clock(admission(always=8))
    clock.made.talking = 7
    assert clock.see(LATE, times=50) is Level.NORMAL
    clock.made.talking = 8
    assert clock.see(LATE, times=FULL_RANK) is Level.FULL
    clock.made.talking = 7
    assert clock.see(Signals(memory=1.0), times=50) is Level.FULL


def test_switched_off_nothing_happens() -> None:
    made = Admission(Thresholds(always=0), enabled=False)
    assert Clock(made).see(Signals(9, 9, 9, 9), times=50) is Level.NORMAL
    assert made.admits(1.0, 0.0)
    assert not made.memory_full


# ---------------------------------------------------------------- who may talk


def full(always: int = 0) -> Admission:
    made = admission(always)
    made.talking = 100
    Clock(made).see(LATE, times=FULL_RANK)
    assert made.level is Level.FULL
    return made


def test_full_takes_no_new_conversation_and_keeps_those_going_on() -> None:
    made = full()
    assert not made.admits(2000.0, 0.0)
    assert made.admits(2000.0, 2000.0 - GOING_ON_S + 1)
    assert not made.admits(2000.0, 2000.0 - GOING_ON_S)


def test_some_are_always_taken() -> None:
    made = full(always=8)
    made.talking = 7
    assert made.admits(2000.0, 0.0)
    made.talking = 8
    assert not made.admits(2000.0, 0.0)


@pytest.mark.parametrize(("lag_s", "share"), [(0.03, 1.0), (0.065, 0.5), (0.0999, 0.0)])
def test_tense_lets_new_ones_in_the_more_slowly_the_nearer_it_is_to_full(lag_s: float, share: float) -> None:
    made = admission()
    Clock(made).see(Signals(lag_s=lag_s), times=WINDOW)
    assert made.level is Level.TENSE
    # 100 a second come, for 10 s, each from an address of its own.
    taken = [made.admits(2000.0 + number / 100, 0.0, str(number).__str__) for number in range(1000)]
    assert sum(taken) == pytest.approx(TENSE_AT_ONCE + 10 * TENSE_PER_S * share, abs=2)
    assert all(taken[: int(TENSE_AT_ONCE)])
    assert made.admits(2010.0, 2000.0), "who is talking already is not asked to wait"


def test_one_address_that_asks_all_the_time_keeps_nobody_out() -> None:
    made = admission()
    Clock(made).see(HASTY, times=WINDOW)
    greedy = admitted = 0
    for number in range(1000):  # 10 s
        now = 2000.0 + number / 100
        greedy += made.admits(now, 0.0, lambda: "203.0.113.66")
        if number % 25 == 24:  # meanwhile four others a second
            admitted += made.admits(now, 0.0, f"192.0.2.{number // 25}".__str__)
    assert admitted == 40
    assert greedy > 10, "it is not kept out either"


def test_one_address_alone_has_as_many_places_in_the_long_run_as_many_have() -> None:
    """A site whose devices share one address is not slowed down."""
    places = Places()
    taken = [places.take(2000.0 + number / 100, TENSE_PER_S, "site") for number in range(3000)]
    assert sum(taken) == pytest.approx(30 * TENSE_PER_S, abs=TENSE_AT_ONCE)
    assert taken[:6] == [True] * 5 + [False], "but not all of them in the same moment"


def test_addresses_that_ask_for_more_than_there_is_get_the_same() -> None:
    places = Places()
    got = dict.fromkeys(("a", "b", "c", "d"), 0)
    for number in range(2000):
        for source in got:  # "a" is always the first to ask
            got[source] += places.take(2000.0 + number / 100, TENSE_PER_S, source)
    assert max(got.values()) - min(got.values()) <= 3
    assert sum(got.values()) == pytest.approx(20 * TENSE_PER_S, abs=TENSE_AT_ONCE)


@given(st.lists(st.tuples(st.floats(0, 2), st.integers(0, 200)), max_size=150), st.floats(0, TENSE_PER_S))
def test_there_are_never_more_places_than_there_are(asked: list[tuple[float, int]], per_s: float) -> None:
    places, begin = Places(), 2000.0
    places.take(begin, per_s, "first")
    taken, now = 1, begin
    for pause, source in asked:
        now += pause
        taken += places.take(now, per_s, str(source))
        assert taken <= TENSE_AT_ONCE + (now - begin) * per_s + 1e-6
        assert len(places._taken) <= MAX_SOURCES


def test_only_so_many_addresses_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission_module, "MAX_SOURCES", 3)
    places = Places()
    taken = [places.take(2000.0, 0.0, source) for source in ("a", "a", "b", "b", "c", "d")]
    assert all(taken)
    assert set(places._taken) == {"a", "b", "d"}, "the one that has fewest is forgotten"


def test_nobody_is_asked_for_an_address_where_there_is_room() -> None:
    def source() -> str:
        raise AssertionError("that costs something")

    assert admission().admits(2000.0, 0.0, source)
    assert full().admits(2000.0, 1999.0, source)
    assert not full().admits(2000.0, 0.0, source)


@given(st.lists(st.booleans(), max_size=50))
def test_conversations_are_counted(changes: list[bool]) -> None:
    made, before = admission(), False
    for now in changes:
        before = made.count(before, now)
        assert made.talking == now
