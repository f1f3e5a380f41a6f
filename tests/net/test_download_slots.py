"""Who may download when more want to than can, on virtual time."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mynah.net import download_slots
from mynah.net.download_slots import MIN_BYTES_S, WINDOW_S, DownloadSlots, Slot
from tests.virtual_time import run, virtual


class Hall:
    """Downloads that end when their slot is taken away."""

    def __init__(self, slots: int, wait_s: float = 20.0) -> None:
        self.slots = DownloadSlots(slots, wait_s)
        self.cut: list[str] = []
        self.running: list[Slot] = []

    async def enter(self, source: str) -> Slot | None:
        slot = await self.slots.take(source, lambda: self.cut.append(source))
        if slot is not None:
            self.running.append(slot)
        return slot

    async def reading(self, source: str, bytes_s: float) -> None:
        """A download without end at this speed, as long as it is let."""
        slot = await self.enter(source)
        while slot is not None and source not in self.cut:
            await asyncio.sleep(2.0)
            self.slots.took(slot, int(bytes_s * 2))


@virtual
async def test_turns_are_free_as_long_as_there_are_any_and_then_in_order() -> None:
    hall = Hall(2)
    first, second = await hall.enter("a"), await hall.enter("a")
    assert first is not None and second is not None
    waiting = [asyncio.create_task(hall.enter("a")) for _ in range(3)]
    await asyncio.sleep(1)
    assert not any(task.done() for task in waiting)
    hall.slots.end(first)
    assert await waiting[0] is not None
    hall.slots.end(first)  # once more: it makes no second slot
    await asyncio.sleep(1)
    assert not waiting[1].done()
    hall.slots.end(second)
    assert await waiting[1] is not None
    assert not hall.cut, "one address: all of them go on at a fair speed"
    waiting[2].cancel()


@virtual
async def test_nobody_waits_too_long() -> None:
    hall = Hall(1, wait_s=5.0)
    assert await hall.enter("a") is not None
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert await hall.enter("a") is None
    assert loop.time() - began == pytest.approx(5.0)


@virtual
async def test_the_slow_make_room_within_seconds() -> None:
    hall = Hall(64)
    slow = [asyncio.create_task(hall.reading(f"slow-{number}", 2048)) for number in range(64)]
    await asyncio.sleep(0.1)
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert await hall.enter("honest") is not None
    assert loop.time() - began < 2.5 * WINDOW_S
    assert len(hall.cut) == 1, "no more of them than are needed"
    for task in slow:
        task.cancel()


@virtual
async def test_weak_links_are_not_taken_for_slow() -> None:
    hall = Hall(4)
    weak = [asyncio.create_task(hall.reading(f"weak-{number}", 8000)) for number in range(4)]
    await asyncio.sleep(500)
    assert await hall.enter("late") is None
    assert not hall.cut
    for task in weak:
        task.cancel()


@virtual
async def test_who_was_fast_once_is_slow_all_the_same() -> None:
    hall = Hall(1)
    slot = await hall.enter("a")
    assert slot is not None
    hall.slots.took(slot, MIN_BYTES_S * 10_000)
    await asyncio.sleep(WINDOW_S + 0.1)
    assert await hall.enter("b") is not None
    assert hall.cut == ["a"]


@virtual
async def test_one_address_with_all_turns_gives_way_at_once_until_all_have_their_share() -> None:
    hall = Hall(64)
    for _ in range(64):
        assert await hall.enter("crowd") is not None
    newest = hall.running[-1]
    assert await hall.enter("honest") is not None
    assert newest not in hall.slots._running, "the one that has got least"
    assert hall.cut == ["crowd"]
    others = [asyncio.create_task(hall.enter("another")) for _ in range(64)]
    await asyncio.sleep(0)
    counts = Counter(slot.source for slot in hall.slots._running)
    assert (counts["honest"], counts["crowd"] - counts["another"]) == (1, 1)
    for task in others:
        task.cancel()


@virtual
async def test_a_crowd_that_waits_keeps_nobody_out_either(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download_slots, "MAX_WAITING", 10)
    hall = Hall(2)
    tasks = [asyncio.create_task(hall.enter("crowd")) for _ in range(12)]
    await asyncio.sleep(0)
    assert await hall.enter("crowd") is None, "at once: too many wait"
    assert await hall.enter("honest") is not None
    assert len(hall.slots._waiting) == 9
    await asyncio.sleep(0)
    assert [task.done() and task.result() is None for task in tasks].count(True) == 1
    for task in tasks:
        task.cancel()


@virtual
async def test_a_client_that_goes_while_it_waits_leaves_nothing_behind() -> None:
    hall = Hall(1)
    first = await hall.enter("a")
    assert first is not None
    gone, stays = asyncio.create_task(hall.enter("a")), asyncio.create_task(hall.enter("a"))
    await asyncio.sleep(0)
    hall.slots.end(first)
    gone.cancel()  # its slot has been granted, but it has not noticed yet
    assert await stays is not None
    assert len(hall.slots._running) == 1
    assert not hall.slots._waiting


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from([0.0, 0.5, 7.0]), st.booleans()), max_size=40),
    st.integers(1, 5),
)
def test_never_more_than_there_are_turns_and_none_is_lost(
    arrivals: list[tuple[str, float, bool]], slots: int
) -> None:
    async def scenario() -> None:
        hall = Hall(slots, wait_s=3.0)

        async def visit(source: str, stay_s: float) -> None:
            slot = await hall.slots.take(source, lambda: None)
            assert len(hall.slots._running) <= slots
            if slot is not None:
                try:
                    await asyncio.sleep(stay_s)
                finally:
                    hall.slots.end(slot)

        tasks = []
        for source, pause, impatient in arrivals:
            tasks.append(asyncio.create_task(visit(source, 4.0)))
            await asyncio.sleep(pause)
            if impatient:
                tasks[-1].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert not hall.slots._running
        assert not hall.slots._waiting

    run(scenario())
