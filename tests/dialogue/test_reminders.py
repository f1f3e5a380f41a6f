"""Timers and reminders, on virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec
import pytest

from mynah.dialogue import reminders as module
from mynah.dialogue.outbox import ANONYMOUS, Outbox
from mynah.dialogue.reminders import (
    KEEP_S,
    MAX_DELAY_S,
    MAX_REMINDERS,
    MAX_TEXT_CHARS,
    Agenda,
    KeptReminder,
)
from mynah.errors import ToolError
from tests.virtual_time import settle, virtual

LAMP, RADIO = "02:00:00:00:00:01", "02:00:00:00:00:02"
EPOCH = 1_800_000_000.0
"""Wall-clock time when the loop's clock shows 0."""


class Talker:
    """A conversation in which everything is heard at once."""

    quiet_s = 10.0

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, words: str, on_done: Callable[[bool], None] | None = None) -> None:
        self.said.append(words)
        assert on_done is not None
        on_done(True)


class House:
    """Agenda, outbox, and the devices that are connected."""

    def __init__(self, slept_s: float = 0.0) -> None:
        """``slept_s``: how long ago the last server stopped."""
        self.here: dict[str, Talker] = {}
        self.outbox = Outbox(self.here.get)
        self.changes = 0
        self.agenda = Agenda(self.outbox.announce, self.change, lambda: wall() + slept_s)

    def change(self) -> None:
        self.changes += 1

    def connect(self, device_id: str = LAMP) -> list[str]:
        talker = self.here[device_id] = Talker()
        self.outbox.hand_over(device_id)
        return talker.said


def wall() -> float:
    return EPOCH + asyncio.get_running_loop().time()


@virtual
async def test_due_ones_are_said_in_order_and_forgotten() -> None:
    house = House()
    said = house.connect()
    reminders = house.agenda.of(LAMP)
    reminders.add(600, "eggs", "eggs")
    reminders.add(60, "tea")
    assert [r.text for r in reminders.list()] == ["tea", "eggs"]
    await asyncio.sleep(61)
    assert said == ["tea"]
    assert [(r.text, r.label, r.due_in_s) for r in reminders.list()] == [("eggs", "eggs", pytest.approx(539))]
    await asyncio.sleep(600)
    assert said == ["tea", "eggs"]
    assert len(reminders) == len(house.agenda) == 0


@virtual
async def test_cancel() -> None:
    house = House()
    said = house.connect()
    reminders, others = house.agenda.of(LAMP), house.agenda.of(RADIO)
    first = reminders.add(10, "a")
    assert not others.cancel(first.id)
    assert reminders.cancel(first.id)
    assert not reminders.cancel(first.id)
    await asyncio.sleep(100)
    assert said == []


@virtual
async def test_every_connection_of_a_device_has_the_same() -> None:
    house = House()
    before, after, other = house.agenda.of(LAMP), house.agenda.of(LAMP), house.agenda.of(RADIO)
    made = before.add(60, "tea")
    assert after.list()[0].id == made.id
    assert (len(after), len(other)) == (1, 0)
    assert after.cancel(made.id)
    assert len(before) == 0


@virtual
async def test_who_comes_back_before_it_is_due_hears_it_in_time() -> None:
    house = House()
    house.connect()
    house.agenda.of(LAMP).add(60, "tea")
    del house.here[LAMP]
    await asyncio.sleep(30)
    said = house.connect()
    await asyncio.sleep(31)
    assert said == ["tea"]


@virtual
async def test_who_comes_back_later_hears_how_late_it_is() -> None:
    house = House()
    house.agenda.of(LAMP).add(60, "Tea!")
    await asyncio.sleep(60 + 600)
    assert house.outbox.holds(LAMP)
    assert len(house.agenda.of(LAMP)) == 0, "it is not running, so it keeps no connection open"
    assert [(device, r.due_in_s) for device, r in house.agenda] == [(LAMP, 0.0)]
    said = house.connect()
    await settle()
    assert said == ["This was due 10 minutes ago: Tea!"]
    assert len(house.agenda) == 0


@virtual
async def test_it_is_dropped_after_a_day() -> None:
    house = House()
    house.agenda.of(LAMP).add(60, "tea")
    await asyncio.sleep(60 + KEEP_S - 1)
    assert len(house.agenda) == 1
    await asyncio.sleep(2)
    assert len(house.agenda) == 0
    assert house.connect() == []


@virtual
async def test_bounds() -> None:
    house = House()
    reminders = house.agenda.of(LAMP)
    for bad in (0, -1, MAX_DELAY_S + 1, float("nan")):
        with pytest.raises(ToolError, match="delay"):
            reminders.add(bad, "x")
    for _ in range(MAX_REMINDERS):
        reminders.add(1000, "x" * 10_000, "y" * 10_000)
    with pytest.raises(ToolError, match="running already"):
        reminders.add(1000, "x")
    house.agenda.of(RADIO).add(1000, "x")
    assert {(len(r.text), len(r.label)) for r in reminders.list()} == {(MAX_TEXT_CHARS, MAX_TEXT_CHARS)}


@virtual
async def test_too_many_in_all_and_those_that_wait_count() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MAX_TOTAL", 3)
        house = House()
        for number in range(3):
            house.agenda.of(str(number)).add(10, "x")
        await asyncio.sleep(11)
        with pytest.raises(ToolError, match="this server"):
            house.agenda.of("3").add(10, "x")
        house.connect("0")
        await settle()
        house.agenda.of("3").add(10, "x")


@virtual
async def test_forgetting_a_device() -> None:
    house = House()
    reminders = house.agenda.of(LAMP)
    reminders.add(10, "due")
    reminders.add(1000, "running")
    house.agenda.of(RADIO).add(1000, "other")
    await asyncio.sleep(11)
    house.agenda.forget(LAMP)
    house.outbox.forget(LAMP)
    assert [device for device, _ in house.agenda] == [RADIO]
    await asyncio.sleep(2000)
    assert house.connect() == []


@virtual
async def test_changes_are_told() -> None:
    house = House()
    reminders = house.agenda.of(LAMP)
    before = house.agenda.snapshot()
    made = reminders.add(10, "a")
    assert (house.changes, house.agenda.snapshot() == before) == (1, False)
    reminders.cancel(made.id)
    reminders.cancel(made.id)
    assert house.changes == 2
    reminders.add(10, "b")
    await asyncio.sleep(11)
    assert house.changes == 3, "it is due, and would still be missed after a restart"
    house.connect()
    await settle()
    assert (house.changes, house.agenda.snapshot()) == (4, ())
    house.agenda.forget(LAMP)
    assert house.changes == 4


# ---------------------------------------------------------------- over a restart


def as_file(kept: tuple[KeptReminder, ...]) -> list[KeptReminder]:
    return msgspec.json.decode(msgspec.json.encode(kept), type=list[KeptReminder])


@virtual
async def test_a_restart_loses_nothing() -> None:
    before = House()
    reminders = before.agenda.of(LAMP)
    reminders.add(100, "soon", "label")
    reminders.add(5000, "later")
    reminders.add(10, "Due!")
    before.agenda.of(ANONYMOUS + "7f").add(100, "nobody's")
    await asyncio.sleep(20)
    before.agenda.close()
    before.outbox.close()
    await settle()
    kept = as_file(before.agenda.snapshot())
    assert {(k.device_id, k.text, round(k.due_at - wall())) for k in kept} == {
        (LAMP, "Due!", -10),
        (LAMP, "soon", 80),
        (LAMP, "later", 4980),
    }

    after = House(slept_s=3600)
    after.agenda.restore(kept)
    assert after.agenda.snapshot() != ()
    await settle()
    said = after.connect()
    assert said == ["This was due 1 hour ago: Due!", "This was due 59 minutes ago: soon"]
    assert [(r.text, round(r.due_in_s)) for r in after.agenda.of(LAMP).list()] == [("later", 1380)]
    await asyncio.sleep(1381)
    assert said[-1] == "later"
    assert after.agenda.snapshot() == ()


@virtual
async def test_nothing_is_said_after_the_end() -> None:
    house = House()
    said = house.connect()
    house.agenda.of(LAMP).add(10, "tea")
    house.agenda.close()
    await asyncio.sleep(20)
    assert said == []
    assert len(house.agenda.snapshot()) == 1


@virtual
async def test_after_a_long_time_switched_off_old_reminders_are_dropped() -> None:
    house = House()
    house.agenda.restore(
        [KeptReminder(LAMP, wall() - KEEP_S - 1, "old"), KeptReminder(LAMP, wall() - 60, "new")]
    )
    await settle()
    assert house.connect() == ["This was due 1 minute ago: new"]


@virtual
async def test_a_file_that_is_too_long_or_from_the_future_does_no_harm() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MAX_TOTAL", 5)
        house = House()
        house.agenda.restore(KeptReminder(LAMP, wall() + 1e9, "x") for _ in range(100))
        assert len(house.agenda) == 5
        assert house.agenda.of(LAMP).list()[-1].due_in_s == pytest.approx(MAX_DELAY_S)
