"""Crowds for tests: in this process, with short recordings and no patience."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cache
from typing import Any

from mynah.sim.load.crowd import Crowd
from mynah.sim.load.dial import Dialer, Plan
from mynah.sim.load.scenario import Behaviour, Scenario
from mynah.sim.load.stock import Recording, record

from ..scripted import tone

SCENARIO = Scenario(
    steps=(1,), behaviour=Behaviour.TALK, pause_s=(0.0, 0.1), answer_timeout_s=2.0, connects_per_s=200.0
)


@cache
def stock() -> list[Recording]:
    """One short word."""
    return [record(tone(0.2), 60)]


def plan(target: str, **changed: Any) -> Plan:
    fields = {name: getattr(SCENARIO, name) for name in SCENARIO.__struct_fields__}
    own = {name: changed.pop(name) for name in list(changed) if name in Plan.__struct_fields__}
    return Plan(target=target, scenario=Scenario(**{**fields, **changed}), **{"connects_per_s": 200.0, **own})


@asynccontextmanager
async def crowd(target: str, devices: int = 1, talkers: int = 0, **changed: Any) -> AsyncIterator[Crowd]:
    """So many devices, which begin to connect at once. Python's collector is left as it was."""
    thresholds = gc.get_threshold()
    wanted = plan(target, **changed)
    made = Crowd(wanted, stock(), Dialer(wanted))
    made.ramp(1, devices, talkers)
    try:
        yield made
    finally:
        await made.close()
        gc.set_threshold(*thresholds)


async def until(condition: Callable[[], object], timeout_s: float = 10.0) -> None:
    """Wait until it holds; the time is generous, since the machine may be busy."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "it does not come true"
        await asyncio.sleep(0.01)
