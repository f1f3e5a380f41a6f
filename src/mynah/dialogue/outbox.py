"""Messages for devices: spoken where a conversation is open, kept for the others until they come back.

Each message is one `Announcement`, which tells what has become of it. A message that cannot be spoken now waits for as
long as whoever sent it asked for. What waits is handed over by `Outbox.hand_over`, at a moment its caller finds quiet.
"""

from __future__ import annotations

import asyncio
import enum
import itertools
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final, Protocol

from loguru import logger

from mynah.texts import detect_language, text
from mynah.texts.spoken import duration

MAX_PER_DEVICE: Final = 20
"""Messages that wait for one device: as many as it may have reminders, which all may become due while it is away.
Overflow policy: the message that finds no room is undelivered."""
MAX_MESSAGES: Final = 10_000
"""Messages that wait, over all devices: about 10 MB, 40 MB if all are as long as they may be. Overflow policy: the
message that finds no room is undelivered."""
MAX_WORDS_CHARS: Final = 1000
"""Of one message, more than a minute of speech. Overflow policy: the rest is cut off; whoever takes messages from
outside refuses longer ones before."""
MAX_WAIT_S: Final = 24 * 3600.0
"""How long a message may wait: what was not heard within a day is news no more. Longer waits are cut to it."""
LATE_S: Final = 60.0
"""A reminder that is later than this says how late it is."""
ANONYMOUS: Final = "anonymous-"
"""How the names of devices begin that told no name. They cannot be known again, so nothing waits for them."""

log = logger.bind(tag="outbox")


class Delivery(enum.Enum):
    """What has become of a message."""

    SPOKEN = "spoken"
    """Its sound has begun, or its text was shown where there is no voice. It may be interrupted after that."""
    QUEUED = "queued"
    """The device is connected, the message is spoken at the next gap in the conversation."""
    WAITING = "waiting"
    """The device is not connected, the message is spoken when it comes back."""
    UNDELIVERED = "undelivered"
    """It was not heard and never will be."""


class Speaker(Protocol):
    """A device with an open conversation, as far as messages are concerned; `mynah.dialogue.session.Session` is one."""

    @property
    def quiet_s(self) -> float:
        """How long nobody has spoken or been about to, in seconds: 0 while the user speaks or a reply is under way."""

    def say(self, words: str, on_done: Callable[[bool], None] | None = None) -> None:
        """Speak unprompted as soon as there is a gap.

        ``on_done`` is called once, possibly before this returns. True: the sound has begun, or the text was shown.
        False: it never will, as too much waits already, it was cut off before, or the conversation is over.
        """


class Announcement:
    """One message on its way to a device."""

    __slots__ = ("deadline", "device_id", "done", "due", "number", "state", "timer", "words")

    def __init__(
        self, number: int, device_id: str, words: str, deadline: float, due: float | None = None
    ) -> None:
        """Times are seconds of the event loop's clock. ``due``: when it should have been said, if that is told."""
        self.number = number
        self.device_id = device_id
        self.words = words
        self.deadline = deadline
        self.due = due
        self.state = Delivery.WAITING
        """What has become of it so far."""
        self.done: asyncio.Future[Delivery] = asyncio.get_running_loop().create_future()
        """The outcome: spoken or undelivered. Wait for it with `asyncio.wait`, which does not cancel it."""
        self.timer: asyncio.TimerHandle | None = None

    def phrase(self, now: float) -> str:
        """Return what to say: a reminder that is late tells so."""
        late = now - self.due if self.due is not None else 0.0
        if late < LATE_S:
            return self.words
        language = detect_language(self.words)
        minutes = round(late / 60) * 60  # nobody wants to know the seconds
        return text("missed_reminder", language, duration=duration(minutes, language), text=self.words)

    def settle(self, outcome: Delivery) -> None:
        """Tell the outcome."""
        self.state = outcome
        if not self.done.done():
            self.done.set_result(outcome)


class Outbox:
    """All messages that wait for their device. Used on the event loop only."""

    def __init__(self, find: Callable[[str], Speaker | None]) -> None:
        """``find`` returns the conversation of a device that can be spoken to, or None."""
        self._find = find
        self._numbers = itertools.count(1)
        self._waiting: dict[str, list[Announcement]] = {}  # each with its oldest first, none empty
        self._count = 0

    def announce(
        self, device_id: str, words: str, wait_s: float = 0.0, due: float | None = None
    ) -> Announcement:
        """Speak to a device: at the next gap if it is connected, else when it comes back within ``wait_s`` seconds.

        The outcome is known at once when the device is not connected and ``wait_s`` is 0. ``due`` is for reminders:
        when it should have been said, by the event loop's clock.
        """
        deadline = asyncio.get_running_loop().time() + min(wait_s, MAX_WAIT_S)
        made = Announcement(next(self._numbers), device_id, words[:MAX_WORDS_CHARS], deadline, due)
        speaker = self._find(device_id)
        if speaker is not None:
            self._give(made, speaker)
        else:
            self._keep(made)
        return made

    def holds(self, device_id: str) -> bool:
        """Say whether something waits for this device."""
        return device_id in self._waiting

    def hand_over(self, device_id: str) -> None:
        """Give a device what waits for it: it is connected, and the moment is quiet. What it cannot take waits on."""
        speaker = self._find(device_id)
        if speaker is None:
            return
        for message in self._take(device_id):
            self._give(message, speaker)

    def forget(self, device_id: str) -> None:
        """Drop what waits for a device: it is another person's now."""
        for message in self._take(device_id):
            message.settle(Delivery.UNDELIVERED)

    def close(self) -> None:
        """Give up everything that waits."""
        for device_id in tuple(self._waiting):
            self.forget(device_id)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Announcement]:
        """All that wait, those of one device together."""
        return itertools.chain.from_iterable(tuple(self._waiting.values()))

    def _give(self, message: Announcement, speaker: Speaker) -> None:
        message.state = Delivery.QUEUED
        now = asyncio.get_running_loop().time()
        speaker.say(message.phrase(now), partial(self._told, message))

    def _told(self, message: Announcement, spoken: bool) -> None:
        """The device has heard it, or did not come to hear it."""
        if message.done.done():
            return
        if spoken:
            message.settle(Delivery.SPOKEN)
        else:
            self._keep(message)

    def _keep(self, message: Announcement) -> None:
        """Have a message wait, if it may and there is room."""
        loop = asyncio.get_running_loop()
        device_id = message.device_id
        known = self._waiting.get(device_id, [])
        if message.deadline <= loop.time() or device_id.startswith(ANONYMOUS):
            message.settle(Delivery.UNDELIVERED)
        elif len(known) >= MAX_PER_DEVICE or self._count >= MAX_MESSAGES:
            log.warning("too many messages wait, one for {} is dropped", device_id)
            message.settle(Delivery.UNDELIVERED)
        else:
            message.state = Delivery.WAITING
            message.timer = loop.call_at(message.deadline, self._expire, message)
            known.append(message)
            known.sort(
                key=lambda waiting: waiting.number
            )  # one that comes back is older than what came meanwhile
            self._waiting[device_id] = known
            self._count += 1

    def _take(self, device_id: str) -> list[Announcement]:
        taken = self._waiting.pop(device_id, [])
        self._count -= len(taken)
        for message in taken:
            if message.timer is not None:
                message.timer.cancel()
                message.timer = None
        return taken

    def _expire(self, message: Announcement) -> None:
        known = self._waiting[message.device_id]
        known.remove(message)
        self._count -= 1
        if not known:
            del self._waiting[message.device_id]
        log.info("a message for {} was not heard: it has not come back in time", message.device_id)
        message.settle(Delivery.UNDELIVERED)
