"""Timers and reminders, through the session's own list."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mynah.dialogue.reminders import MAX_REMINDERS
from mynah.tools.base import ToolContext
from mynah.tools.plugins.timers import MAX_SECONDS, cancel_timer, list_timers, set_reminder, set_timer

Contexts = Callable[..., ToolContext]


async def test_a_timer_speaks_when_it_is_due(context: Contexts) -> None:
    english, chinese = context("en"), context("zh")
    assert await set_timer(english, 300) == "All right, 5 minutes from now."
    assert await set_timer(english, 60, " tea ") == "All right, the tea timer is set: 1 minute from now."
    assert await set_timer(chinese, 90, "鸡蛋") == "好的，鸡蛋定时器已设好，1分钟30秒后叫你。"
    due = {reminder.label: reminder.text for reminder in english.reminders.list()}
    assert due == {
        "": "Time is up! Your timer for 5 minutes is done.",
        "tea": "Time is up! Your tea timer is done.",
        "鸡蛋": "时间到！鸡蛋定时器结束了。",
    }


async def test_a_reminder_says_what_it_is_about(context: Contexts) -> None:
    assert (
        await set_reminder(context("en"), 3600, "call  home!")
        == "All right, I will remind you in 1 hour: call home."
    )
    assert await set_reminder(context("zh"), 600, "喝水。") == "好的，10分钟后提醒你：喝水。"
    assert {r.text for r in context().reminders.list()} == {
        "Here is your reminder: call home.",
        "提醒你：喝水。",
    }
    assert await set_reminder(context("en"), 60, " ") == "Tell me what I should remind you of."


@pytest.mark.parametrize("seconds", [0, -5, MAX_SECONDS + 1, 10**12])
async def test_lengths_that_make_no_sense(context: Contexts, seconds: int) -> None:
    assert await set_timer(context(), seconds) == "A timer can run from one second to twenty-four hours."
    assert context().reminders.list() == ()


async def test_too_many(context: Contexts) -> None:
    for _ in range(MAX_REMINDERS):
        await set_timer(context(), 60)
    assert await set_timer(context(), 60) == "Too many timers are running. Cancel one first."
    assert await set_reminder(context(), 60, "x") == "Too many timers are running. Cancel one first."


async def test_list(context: Contexts) -> None:
    assert await list_timers(context("en")) == "No timer is running."
    assert await list_timers(context("zh")) == "现在没有定时器。"
    await set_timer(context(), 300)
    assert await list_timers(context("en")) == "One timer is running: 5 minutes left."
    await set_timer(context(), 60, "tea")
    assert await list_timers(context("en")) == "2 timers are running: tea, 1 minute left; 5 minutes left."
    assert await list_timers(context("zh")) == "有2个定时器：tea，还剩1分钟；还剩5分钟。"


async def test_cancel(context: Contexts) -> None:
    assert await cancel_timer(context()) == "No timer is running."
    for label in ("Tea", "pasta", "", "egg"):
        await set_timer(context(), 60, label)
    assert await cancel_timer(context(), "tea") == "The Tea timer is cancelled."
    assert await cancel_timer(context(), "tea") == "There is no timer called tea."
    assert await cancel_timer(context()) == "All 3 timers are cancelled."
    await set_timer(context(), 60)
    assert await cancel_timer(context("zh")) == "定时器已取消。"
    assert context().reminders.list() == ()
