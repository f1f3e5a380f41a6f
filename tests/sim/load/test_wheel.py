from __future__ import annotations

import asyncio
import itertools

import pytest

from mynah.sim.load import wheel
from mynah.sim.load.wheel import MAX_CATCH_UP, SLOTS, Wheel
from tests.virtual_time import virtual


class Heart:
    def __init__(self) -> None:
        self.beats: list[float] = []

    def tick(self, now: float) -> None:
        self.beats.append(now)


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """The wheel reads the clock of the loop, which is virtual."""
    monkeypatch.setattr(wheel.time, "monotonic", lambda: asyncio.get_running_loop().time())


@virtual
async def test_everybody_gets_a_tick_in_each_packet_time_and_nobody_drifts() -> None:
    turning = Wheel()
    hearts = [Heart() for _ in range(SLOTS)]
    for place, heart in enumerate(hearts):
        turning.add(heart, place)
    await asyncio.sleep(600)
    turning.stop()
    assert {len(heart.beats) for heart in hearts} <= {9999, 10_000, 10_001}
    for heart in hearts:
        gaps = [later - earlier for earlier, later in itertools.pairwise(heart.beats)]
        assert max(gaps) < 0.0625
        assert min(gaps) > 0.0575
    firsts = sorted(heart.beats[0] for heart in hearts)
    assert all(0.003 < b - a < 0.007 for a, b in itertools.pairwise(firsts)), "spread over the packet"


@virtual
async def test_after_a_stall_it_catches_up_but_not_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    turning, heart = Wheel(), Heart()
    turning.add(heart, 0)
    await asyncio.sleep(0.6)
    before = len(heart.beats)
    shift = 0.6
    monkeypatch.setattr(wheel.time, "monotonic", lambda: asyncio.get_running_loop().time() + shift)
    await asyncio.sleep(0.07)
    assert len(heart.beats) - before in {10, 11, 12}, "what was due meanwhile is done"
    before, shift = len(heart.beats), 3600.0
    await asyncio.sleep(0.07)
    assert MAX_CATCH_UP <= len(heart.beats) - before <= MAX_CATCH_UP + 2
    turning.stop()


@virtual
async def test_it_sleeps_while_nobody_is_there() -> None:
    turning, heart, other = Wheel(), Heart(), Heart()
    turning.add(heart, 3)
    await asyncio.sleep(0.3)
    turning.remove(heart, 3)
    seen = len(heart.beats)
    await asyncio.sleep(100)
    assert len(heart.beats) == seen
    turning.add(other, 4)
    await asyncio.sleep(0.13)
    assert len(other.beats) == 2, "what was due while nobody was there is not made up for"
    turning.stop()
    turning.stop()
