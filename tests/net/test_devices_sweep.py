"""Thousands of conversations are looked at a few at a time."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

import pytest

from mynah.dialogue.session import Session
from mynah.net.devices import SWEEP_S, SWEPT_AT_ONCE
from tests.net.test_devices import House, Wire
from tests.virtual_time import virtual

COUNT = 3 * SWEPT_AT_ONCE + 5


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[float, str]]]:
    """When which session was looked at."""
    seen: list[tuple[float, str]] = []
    original = Session.check_quiet

    def check(session: Session, now: float) -> None:
        seen.append((now, session.device_id))
        original(session, now)

    monkeypatch.setattr(Session, "check_quiet", check)
    return iter([seen])


@virtual
async def _sweep_all(seen: list[tuple[float, str]]) -> None:
    home = House()
    home.devices._max_connections = COUNT
    wires = [
        Wire(home.devices, f"02:00:00:00:{number >> 8:02x}:{number & 255:02x}") for number in range(COUNT)
    ]
    home.devices.start()
    await asyncio.sleep(4 * SWEEP_S)
    wires[0].drop()
    gone = asyncio.get_running_loop().time()
    await asyncio.sleep(2 * SWEEP_S)
    home.devices.stop()
    assert all(now <= gone or device != wires[0].session.device_id for now, device in seen)
    for wire in wires[1:]:
        wire.drop()


def test_all_are_looked_at_and_few_at_once(looks: Iterator[list[tuple[float, str]]]) -> None:
    seen = next(looks)
    _sweep_all(seen)
    at_once = Counter(now for now, _ in seen)
    assert max(at_once.values()) <= SWEPT_AT_ONCE
    by_device: dict[str, list[float]] = {}
    for now, device in seen:
        by_device.setdefault(device, []).append(now)
    assert len(by_device) == COUNT
    for times in by_device.values():
        assert len(times) >= 2
        assert max(b - a for a, b in pairwise(times)) <= 2 * SWEEP_S
