"""Timers of a session, on virtual time."""

from __future__ import annotations

import asyncio

import pytest

from mynah.dialogue.reminders import MAX_DELAY_S, MAX_REMINDERS, SessionReminders
from mynah.errors import ToolError
from tests.virtual_time import run


def test_due_ones_are_said_in_order_and_forgotten() -> None:
    async def main() -> tuple[list[str], int, float]:
        said: list[str] = []
        reminders = SessionReminders(said.append)
        reminders.add(600, "eggs", "eggs")
        reminders.add(60, "tea")
        assert [r.text for r in reminders.list()] == ["tea", "eggs"]
        await asyncio.sleep(61)
        left = reminders.list()[0].due_in_s
        await asyncio.sleep(600)
        return said, len(reminders), left

    said, left_over, due = run(main())
    assert said == ["tea", "eggs"]
    assert left_over == 0
    assert due == pytest.approx(539)


def test_cancel_and_clear() -> None:
    async def main() -> list[str]:
        said: list[str] = []
        reminders = SessionReminders(said.append)
        first = reminders.add(10, "a")
        reminders.add(20, "b")
        assert reminders.cancel(first.id)
        assert not reminders.cancel(first.id)
        reminders.clear()
        await asyncio.sleep(100)
        return said

    assert run(main()) == []


def test_bounds() -> None:
    async def main() -> None:
        reminders = SessionReminders(lambda words: None)
        for bad in (0, -1, MAX_DELAY_S + 1):
            with pytest.raises(ToolError):
                reminders.add(bad, "x")
        for _ in range(MAX_REMINDERS):
            reminders.add(1000, "x")
        with pytest.raises(ToolError, match="running already"):
            reminders.add(1000, "x")
        reminders.clear()

    run(main())
