"""Many connections that end at once."""

from __future__ import annotations

import asyncio
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from mynah.net.departures import AT_ONCE, Departures


async def test_a_few_end_at_once() -> None:
    ended: list[int] = []
    departures = Departures()
    for number in range(AT_ONCE):
        departures.add(lambda number=number: ended.append(number))  # type: ignore[misc]
    assert ended == list(range(AT_ONCE))


async def test_of_many_others_get_their_turn_in_between() -> None:
    ended: list[int] = []
    departures = Departures()
    count = 5 * AT_ONCE + 3
    for number in range(count):
        departures.add(lambda number=number: ended.append(number))  # type: ignore[misc]
    rounds = [len(ended)]
    while len(ended) < count:
        await asyncio.sleep(0)
        rounds.append(len(ended))
    assert ended == list(range(count))
    assert max(now - before for before, now in pairwise(rounds)) <= AT_ONCE
    assert not len(departures)


async def test_one_that_fails_keeps_nobody_here() -> None:
    failures: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context["exception"]))
    ended: list[int] = []
    departures = Departures()

    def end(number: int) -> None:
        if number == AT_ONCE + 1:
            raise ValueError("broken")
        ended.append(number)

    count = 3 * AT_ONCE
    for number in range(count):
        departures.add(lambda number=number: end(number))  # type: ignore[misc]
    for _ in range(count):
        await asyncio.sleep(0)
    assert len(ended) == count - 1
    assert [type(failure) for failure in failures] == [ValueError]


@given(st.lists(st.integers(0, 3 * AT_ONCE), max_size=6))
def test_each_ends_once_and_in_order(waves: list[int]) -> None:
    ended: list[int] = []

    async def act() -> None:
        departures = Departures()
        number = 0
        for wave in waves:
            for _ in range(wave):
                departures.add(lambda number=number: ended.append(number))  # type: ignore[misc]
                number += 1
            await asyncio.sleep(0)
        while len(departures):
            await asyncio.sleep(0)

    asyncio.run(act())
    assert ended == list(range(sum(waves)))
