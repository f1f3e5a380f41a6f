"""Timers and reminders of one session."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from mynah.errors import ToolError
from mynah.tools.base import Reminder

MAX_REMINDERS = 20
"""More than anybody keeps in mind; it bounds what a talkative model can allocate."""
MAX_DELAY_S = 7 * 24 * 3600.0
"""A week. Reminders live as long as the session does, so longer ones would be a promise nobody keeps."""


class SessionReminders:
    """Implements `mynah.tools.base.Reminders` with timer handles of the event loop."""

    __slots__ = ("_due", "_handles", "_next_id", "_reminders", "_say")

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._next_id = 1
        self._reminders: dict[int, Reminder] = {}
        self._due: dict[int, float] = {}
        self._handles: dict[int, asyncio.TimerHandle] = {}

    def add(self, delay_s: float, text: str, label: str = "") -> Reminder:
        """Start one. Raises ToolError when too many are running or the delay is out of range."""
        if not 0 < delay_s <= MAX_DELAY_S:
            raise ToolError(f"the delay must be between 1 second and {MAX_DELAY_S / 86400:.0f} days")
        if len(self._reminders) >= MAX_REMINDERS:
            raise ToolError(f"{MAX_REMINDERS} timers are running already; cancel one first")
        loop = asyncio.get_running_loop()
        reminder = Reminder(self._next_id, delay_s, text, label)
        self._next_id += 1
        self._reminders[reminder.id] = reminder
        self._due[reminder.id] = loop.time() + delay_s
        self._handles[reminder.id] = loop.call_later(delay_s, self._fire, reminder.id)
        return reminder

    def list(self) -> tuple[Reminder, ...]:
        """All running ones with the time that is left, the next due first."""
        now = asyncio.get_running_loop().time()
        running = sorted(self._reminders.values(), key=lambda reminder: self._due[reminder.id])
        return tuple(Reminder(r.id, max(0.0, self._due[r.id] - now), r.text, r.label) for r in running)

    def cancel(self, reminder_id: int) -> bool:
        """Stop one; False when it does not exist."""
        handle = self._handles.get(reminder_id)
        if handle is None:
            return False
        handle.cancel()
        self._forget(reminder_id)
        return True

    def clear(self) -> None:
        """Stop all of them."""
        for handle in self._handles.values():
            handle.cancel()
        self._handles.clear()
        self._reminders.clear()
        self._due.clear()

    def __len__(self) -> int:
        return len(self._reminders)

    def _fire(self, reminder_id: int) -> None:
        text = self._reminders[reminder_id].text
        self._forget(reminder_id)
        self._say(text)

    def _forget(self, reminder_id: int) -> None:
        del self._handles[reminder_id], self._reminders[reminder_id], self._due[reminder_id]
