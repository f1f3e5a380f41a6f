"""Timers and reminders of a device; it speaks when one is due, or when it comes back."""

from __future__ import annotations

from mynah.errors import ToolError
from mynah.texts import text
from mynah.texts.spoken import duration
from mynah.tools.base import Reminder, ToolContext, register_function

MAX_SECONDS = 24 * 3600
"""A day: whoever thinks further ahead says a date, which is for a calendar."""

MAX_LABEL_CHARS = 40
MAX_TEXT_CHARS = 200
"""Long enough for any spoken reminder, short enough to be read out."""


@register_function()
async def set_timer(context: ToolContext, seconds: int, label: str = "") -> str:
    """Start a timer that speaks up when it is done.

    Args:
        seconds: how long, in seconds, up to one day
        label: what it is for, one or two words in the user's language; leave it out if the user gave none
    """
    label = " ".join(label.split())[:MAX_LABEL_CHARS]
    language = context.language
    said = duration(seconds, language)
    if label:
        due = text("timer_due_labelled", language, label=label)
        answer = text("timer_set_labelled", language, label=label, duration=said)
    else:
        due = text("timer_due", language, duration=said)
        answer = text("timer_set", language, duration=said)
    return _add(context, seconds, due, label) or answer


@register_function()
async def set_reminder(context: ToolContext, seconds: int, text: str) -> str:
    """Remind the user of something after a while.

    Args:
        seconds: in how many seconds, up to one day
        text: what to remind the user of, as it will be spoken, in the user's language
    """
    language = context.language
    what = " ".join(text.split())[:MAX_TEXT_CHARS].rstrip(".。!！?？")
    if not what:
        return _said("reminder_needs_text", language)
    due = _said("reminder_due", language, text=what)
    problem = _add(context, seconds, due, what[:MAX_LABEL_CHARS])
    return problem or _said("reminder_set", language, duration=duration(seconds, language), text=what)


@register_function()
async def list_timers(context: ToolContext) -> str:
    """Say which timers and reminders are running and how much time is left."""
    running = context.reminders.list()
    if not running:
        return text("timers_none", context.language)
    entries = text("timer_joint", context.language).join(_entry(reminder, context) for reminder in running)
    if len(running) == 1:
        return text("timers_one", context.language, timers=entries)
    return text("timers_some", context.language, n=len(running), timers=entries)


@register_function()
async def cancel_timer(context: ToolContext, label: str = "") -> str:
    """Cancel the timer or reminder with a label, or all of them.

    Args:
        label: the label that it was started with; empty for all
    """
    language = context.language
    wanted = label.strip().casefold()
    running = [
        reminder for reminder in context.reminders.list() if not wanted or wanted in reminder.label.casefold()
    ]
    if not running:
        return text("timer_not_found", language, label=label) if wanted else text("timers_none", language)
    # One may become due between the two calls; it is gone then as well.
    for reminder in running:
        context.reminders.cancel(reminder.id)
    if len(running) > 1:
        return text("timers_cancelled", language, n=len(running))
    if running[0].label:
        return text("timer_cancelled_labelled", language, label=running[0].label)
    return text("timer_cancelled", language)


def _add(context: ToolContext, seconds: int, due: str, label: str) -> str:
    """Start one; returns what to say when that is not possible, else an empty text."""
    if not 1 <= seconds <= MAX_SECONDS:
        return text("timer_out_of_range", context.language)
    try:
        context.reminders.add(seconds, due, label)
    except ToolError:
        # The delay is in range, so only their number can be the reason.
        return text("timer_too_many", context.language)
    return ""


def _entry(reminder: Reminder, context: ToolContext) -> str:
    left = duration(reminder.due_in_s, context.language)
    if not reminder.label:
        return text("timer_entry", context.language, duration=left)
    return text("timer_entry_labelled", context.language, label=reminder.label, duration=left)


_said = text
"""`text` under a second name, for the function that has a parameter called text."""
