"""The tasks of a turn."""

from __future__ import annotations

import asyncio

from mynah.dialogue.work import TurnWork


class Turns:
    """Who counts the turns."""

    turn = 1


class FaultError(Exception):
    """Something went wrong."""


async def fail() -> None:
    await asyncio.sleep(0)
    raise FaultError


async def fail_when_cancelled() -> None:
    try:
        await asyncio.sleep(60)
    finally:
        raise FaultError


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_what_goes_wrong_is_told_with_the_number_of_the_turn() -> None:
    told: list[tuple[int, BaseException]] = []
    work = TurnWork(Turns(), lambda number, error: told.append((number, error)))
    work.spawn(fail)
    await settle()
    assert [(number, type(error)) for number, error in told] == [(1, FaultError)]


async def test_nothing_is_owned_while_nothing_is_worked_on() -> None:
    work = TurnWork(Turns(), lambda *_: None)
    assert work._tasks is None
    work.spawn(fail)
    assert work._tasks is not None
    await settle()
    assert work._tasks is None


async def test_after_the_end_nobody_is_told() -> None:
    told: list[int] = []
    instead: list[str] = []
    work = TurnWork(Turns(), lambda number, _: told.append(number))
    work.spawn(fail_when_cancelled)
    work.spawn(fail_when_cancelled, lambda: instead.append("done"))
    await settle()
    work.close()
    await settle()
    assert told == []
    assert work._tasks is None
