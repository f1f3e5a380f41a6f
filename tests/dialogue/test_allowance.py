"""The daily allowance counts per device, begins again at midnight and survives a restart."""

from __future__ import annotations

from datetime import date, timedelta

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from mynah.dialogue.allowance import DailyAllowance, Spent
from mynah.texts import text

MONDAY = date(2026, 11, 23)


class Calendar:
    def __init__(self) -> None:
        self.day = MONDAY
        self.asked = 0

    def __call__(self) -> date:
        self.asked += 1
        return self.day


def test_each_device_has_its_own() -> None:
    allowance = DailyAllowance(100, Calendar())
    allowance.spend("a", 30)
    allowance.spend("a", 30)
    allowance.spend("b", 99)
    assert [allowance.left(device) for device in "abc"] == [40, 1, 100]


def test_the_last_sentence_may_exceed_it() -> None:
    allowance = DailyAllowance(100, Calendar())
    allowance.spend("a", 99)
    allowance.spend("a", 50)
    assert allowance.left("a") == 0


def test_it_begins_again_at_midnight() -> None:
    calendar = Calendar()
    allowance = DailyAllowance(100, calendar)
    allowance.spend("a", 100)
    assert allowance.left("a") == 0
    calendar.day += timedelta(days=1)
    assert allowance.left("a") == 100
    allowance.spend("a", 10)
    assert allowance.snapshot() == Spent(calendar.day, {"a": 10})


def test_no_limit_counts_nothing() -> None:
    calendar = Calendar()
    allowance = DailyAllowance(0, calendar)
    allowance.spend("a", 10**9)
    allowance.restore(Spent(MONDAY, {"a": 5}))
    assert allowance.left("a") is None
    assert allowance.snapshot().chars == {}
    assert calendar.asked == 0


def test_devices_are_bounded_and_the_silent_one_goes() -> None:
    allowance = DailyAllowance(100, Calendar(), max_devices=2)
    for device in "abac":
        allowance.spend(device, 10)
    assert allowance.snapshot().chars == {"a": 20, "c": 10}
    for number in range(100):
        assert allowance.left(f"stranger-{number}") == 100
    assert len(allowance.snapshot().chars) == 2, "asking costs no room"


def test_nothing_can_be_given_back() -> None:
    allowance = DailyAllowance(100, Calendar())
    allowance.spend("a", 50)
    allowance.spend("a", -50)
    allowance.restore(Spent(MONDAY, {"a": -1000, "b": 50}))
    assert [allowance.left("a"), allowance.left("b")] == [100, 50]


def test_a_snapshot_is_not_changed_by_what_follows() -> None:
    allowance = DailyAllowance(100, Calendar())
    allowance.spend("a", 1)
    before = allowance.snapshot()
    allowance.spend("a", 1)
    assert before.chars == {"a": 1}


@given(
    st.dictionaries(st.text(max_size=20), st.integers(1, 200), max_size=10),
    st.integers(0, 1),
    st.integers(1, 12),
)
def test_a_restart_on_the_same_day_changes_nothing(spent: dict[str, int], days: int, bound: int) -> None:
    calendar = Calendar()
    before = DailyAllowance(100, calendar, bound)
    for device, chars in spent.items():
        before.spend(device, chars)
    file = msgspec.json.encode(before.snapshot())
    calendar.day += timedelta(days=days)
    after = DailyAllowance(100, calendar, bound)
    after.restore(msgspec.json.decode(file, type=Spent))
    assert {d: after.left(d) for d in spent} == {d: before.left(d) for d in spent}
    assert after.snapshot() == before.snapshot()
    assert list(after.snapshot().chars) == list(before.snapshot().chars)


def test_what_is_said_then_needs_no_values() -> None:
    assert text("allowance_used_up", "en") != text("allowance_used_up", "zh")
