"""Time and date, in the zone of the conversation."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from mynah.tools.base import ToolContext
from mynah.tools.plugins.clock import get_date, get_time

Contexts = Callable[..., ToolContext]


async def test_time(context: Contexts) -> None:
    assert await get_time(context("en")) == "It is 3:05 PM."
    assert await get_time(context("zh")) == "现在是下午三点零五分。"


@pytest.mark.parametrize(
    ("day", "english", "chinese"),
    [
        ("today", "Today is Saturday, November 21, 2026.", "今天是2026年11月21日，星期六。"),
        ("tomorrow", "Tomorrow is Sunday, November 22, 2026.", "明天是2026年11月22日，星期日。"),
        ("yesterday", "Yesterday was Friday, November 20, 2026.", "昨天是2026年11月20日，星期五。"),
        (
            "day_after_tomorrow",
            "The day after tomorrow is Monday, November 23, 2026.",
            "后天是2026年11月23日，星期一。",
        ),
    ],
)
async def test_date(context: Contexts, day: Any, english: str, chinese: str) -> None:
    assert await get_date(context("en"), day) == english
    assert await get_date(context("zh"), day) == chinese


async def test_date_over_the_end_of_a_leap_february_and_a_change_of_clocks(context: Contexts) -> None:
    berlin = ZoneInfo("Europe/Berlin")
    leap = context("en", datetime(2028, 2, 28, 23, 59, tzinfo=berlin))
    assert await get_date(leap, "tomorrow") == "Tomorrow is Tuesday, February 29, 2028."
    summer = context("en", datetime(2026, 3, 28, 23, 30, tzinfo=berlin))
    assert await get_date(summer, "tomorrow") == "Tomorrow is Sunday, March 29, 2026."
