"""When is looked for garbage, and when what has settled is put aside."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from mynah import collector as module
from mynah.collector import THRESHOLDS, Collector


class World:
    """What the collector asks for."""

    def __init__(self) -> None:
        self.made = 0
        self.talking = 1


@pytest.fixture
def thresholds() -> Iterator[tuple[int, int, int]]:
    before = gc.get_threshold()
    yield before
    gc.unfreeze()
    gc.set_threshold(*before)


@pytest.fixture
def thaws(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How much was frozen before each time that it was looked through."""
    seen: list[int] = []

    def unfreeze() -> None:
        seen.append(gc.get_freeze_count())
        original()

    original = gc.unfreeze
    monkeypatch.setattr(module.gc, "unfreeze", unfreeze)
    return seen


async def test_what_is_there_at_the_start_is_put_aside_until_the_end(
    thresholds: tuple[int, int, int],
) -> None:
    collector = Collector(lambda: 0, lambda: 0)
    collector.start()
    assert gc.get_freeze_count() > 1000
    assert gc.get_threshold() == THRESHOLDS
    collector.stop()
    collector.stop()
    assert gc.get_freeze_count() == 0
    assert gc.get_threshold() == thresholds


@pytest.mark.usefixtures("thresholds")
async def test_a_thousand_connections_are_put_aside(thaws: list[int]) -> None:
    world = World()
    collector = Collector(lambda: world.made, lambda: world.talking)
    collector.start()
    begun = len(thaws)
    world.made = module.FREEZE_AFTER - 1
    before = gc.get_freeze_count()
    kept = [[number] for number in range(500)]
    collector.look()
    assert gc.get_freeze_count() == before
    world.made += 1
    collector.look()
    assert gc.get_freeze_count() >= before + len(kept)
    assert len(thaws) == begun  # somebody talks
    collector.stop()


@pytest.mark.usefixtures("thresholds")
async def test_it_is_looked_through_when_nobody_talks_and_nobody_comes(thaws: list[int]) -> None:
    world = World()
    collector = Collector(lambda: world.made, lambda: world.talking)
    collector.start()
    begun = len(thaws)
    world.talking = 0
    for _ in range(module.CALM_AFTER):
        collector.look()
        assert len(thaws) == begun  # little was added
        world.made += module.FREEZE_AFTER
        collector.look()
        assert len(thaws) == begun  # many are coming
    collector.look()
    assert len(thaws) == begun + 1
    collector.look()
    assert len(thaws) == begun + 1
    collector.stop()


@pytest.mark.usefixtures("thresholds")
async def test_garbage_that_was_put_aside_does_not_stay_for_ever(thaws: list[int]) -> None:
    world = World()
    collector = Collector(lambda: world.made, lambda: world.talking)
    collector.start()
    begun = len(thaws)
    for _ in range(module.THAW_AFTER):
        world.made += module.FREEZE_AFTER
        collector.look()
    assert len(thaws) == begun + 1
    collector.stop()
