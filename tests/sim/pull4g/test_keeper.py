"""How a connection is kept: the pauses between attempts, on virtual time."""

from __future__ import annotations

import asyncio
import itertools
import random

import pytest

from mynah.sim.pull4g.keeper import BACKOFF_S, JITTER, Keeper
from mynah.sim.pull4g.line import Line
from mynah.wire.pull4g import ServerEvent
from tests.virtual_time import settle, virtual

from .tower import Tower


class Owner:
    def __init__(self) -> None:
        self.seen: list[str] = []
        self.heard: list[ServerEvent] = []

    def on_line(self, line: Line, first: bool) -> None:
        self.seen.append("first" if first else "again")

    def on_failed(self) -> None:
        self.seen.append("failed")

    def on_events(self, events: list[ServerEvent]) -> None:
        self.heard += events

    def on_lost(self, why: str) -> None:
        self.seen.append(f"lost: {why}")


def keeper(tower: Tower, seed: int = 0) -> tuple[Keeper, Owner]:
    owner = Owner()
    return Keeper(owner, tower.open, backoff_s=BACKOFF_S, dice=random.Random(seed)), owner


@virtual
async def test_pauses_grow_and_are_never_the_same() -> None:
    tower = Tower()
    tower.down = True
    one, owner = keeper(tower)
    one.start()
    await asyncio.sleep(150)
    pauses = [later - earlier for earlier, later in itertools.pairwise(tower.tried)]
    for pause, wanted in itertools.zip_longest(pauses[:8], (*BACKOFF_S, 30, 30)):
        assert wanted * (1 - JITTER) <= pause <= wanted * (1 + JITTER)
    assert len({round(pause, 3) for pause in pauses}) == len(pauses)
    assert owner.seen == ["failed"] * len(tower.tried)
    assert one.trouble == "no cell in sight"
    assert (one.connections.tried, one.connections.made, one.connections.lost) == (len(tower.tried), 0, 0)
    await one.stop()
    tried = len(tower.tried)
    await asyncio.sleep(100)
    assert len(tower.tried) == tried


@virtual
async def test_two_devices_do_not_come_back_together() -> None:
    tower = Tower()
    tower.down = True
    keepers = [keeper(tower, seed)[0] for seed in range(2)]
    for one in keepers:
        one.start()
    await asyncio.sleep(2)
    assert len({round(at, 4) for at in tower.tried}) == len(tower.tried) - 1, (
        "only the first attempts were together"
    )
    for one in keepers:
        await one.stop()


@virtual
async def test_a_sign_of_life_makes_the_next_pause_short() -> None:
    tower = Tower()
    one, owner = keeper(tower)
    one.start()
    await settle()
    for _ in range(4):  # connects, and is cut at once
        tower.line.cut()
        while one.line is None:
            await asyncio.sleep(0.1)
    assert tower.tried[-1] - tower.tried[-2] > 5
    tower.line.bracket()
    assert owner.heard
    tower.line.cut()
    await asyncio.sleep(1.5)
    assert one.line is not None
    assert owner.seen == ["first", *["lost: cut", "again"] * 5]
    assert one.connections.lost == 5
    await one.stop()
    assert tower.line.closed


@virtual
async def test_who_is_in_a_hurry_does_not_wait() -> None:
    tower = Tower()
    tower.down = True
    one, _ = keeper(tower)
    one.start()
    await asyncio.sleep(10)
    tower.down = False
    one.hurry()
    await settle()
    assert one.line is not None
    one.hurry()
    await settle()
    assert len(tower.lines) == 1
    await one.stop()


@virtual
async def test_what_comes_over_an_old_connection_is_not_meant() -> None:
    tower = Tower()
    one, owner = keeper(tower)
    one.start()
    await settle()
    old = tower.line
    one.lose("no answer")
    assert old.closed
    assert owner.seen[-1] == "lost: no answer"
    old.closed = False
    old.bracket()
    old.cut()
    assert owner.heard == []
    assert owner.seen == ["first", "lost: no answer"]
    await asyncio.sleep(2)
    assert owner.seen[-1] == "again"
    await one.stop()


@virtual
async def test_who_is_not_wanted_comes_back_late() -> None:
    tower = Tower()
    one, _ = keeper(tower)
    one.start()
    await settle()
    one.give_up_for_long()
    tower.line.cut()
    await asyncio.sleep(30 * (1 - JITTER) - 0.1)
    assert one.line is None
    await asyncio.sleep(30 * 2 * JITTER + 0.2)
    assert one.line is not None
    await one.stop()


@pytest.mark.parametrize("seed", range(3))
@virtual
async def test_the_same_seed_makes_the_same_pauses(seed: int) -> None:
    runs = []
    for _ in range(2):
        tower = Tower()
        tower.down = True
        one, _owner = keeper(tower, seed)
        began = asyncio.get_running_loop().time()
        one.start()
        await asyncio.sleep(20)
        runs.append([round(at - began, 6) for at in tower.tried])
        await one.stop()
    assert runs[0] == runs[1]
