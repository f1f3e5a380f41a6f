"""What a tool works with in these tests: real reminders on the test's event loop, a fixed clock."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from mynah.dialogue.outbox import Outbox
from mynah.dialogue.reminders import Agenda
from mynah.tools.base import ToolContext

NOW = datetime(2026, 11, 21, 15, 5, tzinfo=ZoneInfo("Europe/Berlin"))


@pytest.fixture
async def context() -> AsyncIterator[Callable[..., ToolContext]]:
    """Make contexts that share one list of reminders."""
    agenda = Agenda(Outbox(lambda _: None).announce)
    reminders = agenda.of("02:00:00:00:00:01")

    def make(language: str = "en", now: datetime = NOW) -> ToolContext:
        return ToolContext("aa:bb:cc:dd:ee:ff", language, lambda: now, reminders)

    yield make
    agenda.close()
