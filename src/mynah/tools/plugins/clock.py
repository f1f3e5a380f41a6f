"""What time and what day it is."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

from mynah.texts import text
from mynah.texts.spoken import clock_time, date, weekday
from mynah.tools.base import ToolContext, register_function

_DAYS = {"yesterday": -1, "today": 0, "tomorrow": 1, "day_after_tomorrow": 2}


@register_function()
async def get_time(context: ToolContext) -> str:
    """Say what time it is."""
    return text("time_is", context.language, time=clock_time(context.now(), context.language))


@register_function()
async def get_date(
    context: ToolContext, day: Literal["today", "tomorrow", "yesterday", "day_after_tomorrow"] = "today"
) -> str:
    """Say the date and the day of the week.

    Args:
        day: which day
    """
    # Only the calendar day counts, so a change to summer time in between does not matter.
    moment = context.now() + timedelta(days=_DAYS[day])
    language = context.language
    return text(f"date_{day}", language, date=date(moment, language), weekday=weekday(moment, language))
