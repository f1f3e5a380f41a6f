"""Timers and reminders. They belong to a device and not to its connection: who comes back finds them as they were."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Final

import msgspec
from loguru import logger

from mynah.dialogue.outbox import ANONYMOUS, Announcement, Delivery
from mynah.errors import ToolError
from mynah.tools.base import Reminder

MAX_REMINDERS: Final = 20
"""Running for one device: more than anybody keeps in mind; it bounds what a talkative model can allocate. Overflow
policy: the new one is refused, and the user told."""
MAX_TOTAL: Final = 10_000
"""Over all devices, those that are due and not heard yet included: about 10 MB, 3 MB in a file. Overflow policy: the
new one is refused, and the user told."""
MAX_DELAY_S: Final = 7 * 24 * 3600.0
"""A week: whoever thinks further ahead than that has a calendar."""
MAX_TEXT_CHARS: Final = 500
"""Of a text, and of a label: twice what the built-in tools make. Overflow policy: the rest is cut off."""
KEEP_S: Final = 24 * 3600.0
"""How long a reminder that is due waits for its device. Then it is dropped, and the log tells."""

log = logger.bind(tag="reminders")


class KeptReminder(msgspec.Struct, frozen=True):
    """A reminder as it is written down, so that it survives a restart."""

    device_id: str
    due_at: float
    """Seconds since 1970 UTC."""
    text: str
    label: str = ""


class _Entry:
    """One reminder. It is known until it has been heard or given up, not only until it is due."""

    __slots__ = ("device_id", "due", "handle", "label", "number", "text")

    def __init__(self, device_id: str, number: int, due: float, text: str, label: str) -> None:
        self.device_id = device_id
        self.number = number
        self.due = due
        self.text = text
        self.label = label
        self.handle: asyncio.TimerHandle | None = None
        """None once it is due."""

    def reminder(self, now: float) -> Reminder:
        return Reminder(self.number, max(0.0, self.due - now), self.text, self.label)


class Agenda:
    """The reminders of all devices. Used on the event loop only.

    While the server runs, delays are measured by the event loop's clock, which nobody sets; the wall clock is read
    only for `snapshot` and `restore`.
    """

    def __init__(
        self,
        announce: Callable[[str, str, float, float], Announcement],
        changed: Callable[[], None] = lambda: None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """``announce`` is `Outbox.announce`: device, words, how long they may wait and when they were due.

        ``changed`` is called when `snapshot` has something else to return; ``wall`` gives seconds since 1970.
        """
        self._announce = announce
        self.changed = changed
        self._wall = wall
        self._numbers = itertools.count(1)
        self._running: dict[str, dict[int, _Entry]] = {}  # none empty
        self._owed: dict[int, _Entry] = {}  # due, and not heard yet
        self._count = 0
        self._closed = False

    def of(self, device_id: str) -> DeviceReminders:
        """Return the reminders of one device, for its tools. Two of the same device are the same."""
        return DeviceReminders(self, device_id)

    def add(self, device_id: str, delay_s: float, text: str, label: str = "") -> Reminder:
        """Start one. Raises ToolError when too many are running or the delay is out of range."""
        if not 0 < delay_s <= MAX_DELAY_S:
            raise ToolError(f"the delay must be between 1 second and {MAX_DELAY_S / 86400:.0f} days")
        if self.count(device_id) >= MAX_REMINDERS:
            raise ToolError(f"{MAX_REMINDERS} timers are running already; cancel one first")
        if len(self) >= MAX_TOTAL:
            raise ToolError("too many timers are running on this server; try again later")
        now = asyncio.get_running_loop().time()
        entry = self._start(device_id, now + delay_s, text, label)
        self.changed()
        return entry.reminder(now)

    def running(self, device_id: str) -> tuple[Reminder, ...]:
        """Return those of a device that are not due yet, with the time that is left, the next due first."""
        now = asyncio.get_running_loop().time()
        entries = sorted(self._running.get(device_id, {}).values(), key=lambda entry: entry.due)
        return tuple(entry.reminder(now) for entry in entries)

    def count(self, device_id: str) -> int:
        """Return how many of a device are not due yet."""
        return len(self._running.get(device_id, {}))

    def cancel(self, device_id: str, number: int) -> bool:
        """Stop one that is not due yet; False when it does not exist."""
        entry = self._running.get(device_id, {}).get(number)
        if entry is None:
            return False
        self._stop(entry)
        self.changed()
        return True

    def forget(self, device_id: str) -> None:
        """Drop all of a device: it has gone for good, or is another person's now."""
        entries = tuple(self._running.get(device_id, {}).values())
        owed = [number for number, entry in self._owed.items() if entry.device_id == device_id]
        for entry in entries:
            self._stop(entry)
        for number in owed:
            del self._owed[number]
        if entries or owed:
            self.changed()

    def __len__(self) -> int:
        return self._count + len(self._owed)

    def __iter__(self) -> Iterator[tuple[str, Reminder]]:
        """All with their devices, the next due first; those that are due and not heard have no time left."""
        now = asyncio.get_running_loop().time()
        entries = sorted(self._entries(), key=lambda entry: entry.due)
        return iter([(entry.device_id, entry.reminder(now)) for entry in entries])

    # -- over a restart

    def snapshot(self) -> tuple[KeptReminder, ...]:
        """Return all that would be missed after a restart: running ones, and those that are due and not heard yet."""
        wall = self._wall() - asyncio.get_running_loop().time()
        return tuple(
            KeptReminder(entry.device_id, wall + entry.due, entry.text, entry.label)
            for entry in self._entries()
            if not entry.device_id.startswith(ANONYMOUS)
        )

    def restore(self, kept: Iterable[KeptReminder]) -> None:
        """Take up what `snapshot` returned. What became due meanwhile is said when its device connects.

        At most `MAX_TOTAL` are taken. One that is further ahead than may be (the clock was set) is due at that limit.
        """
        now = asyncio.get_running_loop().time()
        wall = self._wall()
        for reminder in itertools.islice(kept, MAX_TOTAL - len(self)):
            due = now + min(reminder.due_at - wall, MAX_DELAY_S)
            self._start(reminder.device_id, due, reminder.text, reminder.label)

    def close(self) -> None:
        """Let nothing become due any more. What is known stays known, for a last `snapshot`."""
        self._closed = True
        for entry in self._entries():
            if entry.handle is not None:
                entry.handle.cancel()

    # -- pieces

    def _entries(self) -> Iterator[_Entry]:
        yield from self._owed.values()
        for entries in self._running.values():
            yield from entries.values()

    def _start(self, device_id: str, due: float, text: str, label: str) -> _Entry:
        entry = _Entry(device_id, next(self._numbers), due, text[:MAX_TEXT_CHARS], label[:MAX_TEXT_CHARS])
        entry.handle = asyncio.get_running_loop().call_at(due, self._fire, entry)
        self._running.setdefault(device_id, {})[entry.number] = entry
        self._count += 1
        return entry

    def _stop(self, entry: _Entry) -> None:
        if entry.handle is not None:
            entry.handle.cancel()
            entry.handle = None
        running = self._running[entry.device_id]
        del running[entry.number]
        self._count -= 1
        if not running:
            del self._running[entry.device_id]

    def _fire(self, entry: _Entry) -> None:
        """It is due: say it, now or when the device comes back."""
        self._stop(entry)
        self._owed[entry.number] = entry
        wait_s = entry.due + KEEP_S - asyncio.get_running_loop().time()
        announcement = self._announce(entry.device_id, entry.text, wait_s, entry.due)
        announcement.done.add_done_callback(lambda done: self._settled(entry, done.result()))

    def _settled(self, entry: _Entry, outcome: Delivery) -> None:
        if self._closed or self._owed.pop(entry.number, None) is None:
            return  # the server stops, and the reminder is kept for the next start; or it was forgotten
        if outcome is Delivery.UNDELIVERED:
            log.warning("a reminder of {} was not heard", entry.device_id)
        self.changed()


class DeviceReminders:
    """The reminders of one device. Implements `mynah.tools.base.Reminders`."""

    __slots__ = ("_agenda", "_device_id")

    def __init__(self, agenda: Agenda, device_id: str) -> None:
        self._agenda = agenda
        self._device_id = device_id

    def add(self, delay_s: float, text: str, label: str = "") -> Reminder:
        """Start one. Raises ToolError when too many are running or the delay is out of range."""
        return self._agenda.add(self._device_id, delay_s, text, label)

    def list(self) -> tuple[Reminder, ...]:
        """All running ones with the time that is left, the next due first."""
        return self._agenda.running(self._device_id)

    def cancel(self, reminder_id: int) -> bool:
        """Stop one; False when it does not exist."""
        return self._agenda.cancel(self._device_id, reminder_id)

    def __len__(self) -> int:
        """How many are running."""
        return self._agenda.count(self._device_id)
