"""Whatever some clients do, the others are served and the server gets back to where it was."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.chaos.abuses import ABUSES
from tests.chaos.arena import DESCRIPTORS, Arena, Load, Outcome, arena
from tests.chaos.witnesses import Seen

pytestmark = pytest.mark.e2e

GROWTH_MB = 16.0
"""What an abuse may leave behind at this scale: memory that Python keeps for the next time. The attackers send several
times as much, so keeping what they send would show."""
LATE_SHARE = 0.1
"""Frames that may come late here, where other tests use the same cores; alone on the machine it is none."""
OWN_LAG_MS = 50.0
"""A device that was held up itself by more says nothing about the server."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Arena]:
    async with arena(tmp_path_factory.mktemp("abused")) as made:
        yield made
        code, log = made.end()
    assert code == 0
    assert "Traceback" not in "".join(log)


def check(outcome: Outcome) -> None:
    assert not outcome.trouble, outcome.trouble[:3]
    assert not outcome.notes, outcome.notes[:3]
    failed = [turn for turn in outcome.turns if not turn.ok]
    assert not failed, failed[0]
    fair = [turn for turn in outcome.turns if turn.own_lag_ms < OWN_LAG_MS]
    frames, late = sum(turn.frames for turn in fair), sum(turn.late_frames for turn in fair)
    assert late <= LATE_SHARE * frames, f"{late} of {frames} frames came late"
    assert outcome.after.descriptors <= outcome.before.descriptors + DESCRIPTORS
    grown = outcome.after.memory_mb - outcome.before.memory_mb
    assert grown < GROWTH_MB, f"{grown:.0f} MB more than before"


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("name", ABUSES)
async def test_good_devices_are_served_while(stage: Arena, name: str) -> None:
    outcome = await stage.suffer(name, scale=1.0, seed=secrets.randbelow(10**6))
    assert stage.alive
    assert outcome.turns
    check(outcome)


def test_the_check_can_fail() -> None:
    load = Load(100.0, 20, 0)
    turn = Seen(1, 0.0, 3.0, True, frames=28)
    fine: dict[str, Any] = {
        "name": "x",
        "before": load,
        "notes": [],
        "trouble": [],
        "seconds": 1.0,
        "peak_mb": 100.0,
    }
    check(Outcome(turns=[turn], after=load, **fine))
    for turns, after, more in (
        ([Seen(1, 0.0, 3.0, False)], load, {}),
        ([Seen(1, 0.0, 3.0, True, frames=28, late_frames=5)], load, {}),
        ([turn], Load(120.0, 20, 0), {}),
        ([turn], Load(100.0, 30, 0), {}),
        ([turn], load, {"notes": ["not closed"]}),
        ([turn], load, {"trouble": ["Traceback"]}),
    ):
        with pytest.raises(AssertionError):
            check(Outcome(turns=turns, after=after, **{**fine, **more}))
