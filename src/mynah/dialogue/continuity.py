"""Conversations of devices that went away for a moment: whoever comes back soon goes on where he was."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

import msgspec

from mynah.dialogue.admission import GOING_ON_S
from mynah.dialogue.history import History

ANONYMOUS: Final = "anonymous-"
"""How the id of a device that tells none begins: made up for one connection, so nobody can come back with it."""
MAX_DEVICES: Final = 10_000
"""Conversations kept of devices that are away: as many as one server is made for. Overflow policy: that of the device
which has been away longest is forgotten."""
MAX_TOKENS: Final = 5_000_000
"""In all conversations that are kept, together: some 60 MB of English or Chinese, 160 MB at worst (four bytes for a
character). A usual conversation has 500 to 2000. Overflow policy: as for `MAX_DEVICES`."""
MAX_TALKED: Final = 10_000
"""Devices of which it is known that they talked a moment ago: more than one server has conversations with in
`GOING_ON_S`; 2 MB. Overflow policy: the one that talked longest ago is forgotten, and has to wait like a newcomer if it
loses its connection."""


class Kept(msgspec.Struct, gc=False):
    """What outlives a connection."""

    history: History
    language: str
    """``en`` or ``zh``: what was spoken last."""
    talked_at: float = 0.0
    """When somebody was last heard or answered, by the event loop's clock; 0 for never."""
    awaits_answer: bool = False
    """Whether somebody has been heard since the last reply ended."""


class _Live(msgspec.Struct, gc=False):
    kept: Kept
    sessions: int


class _Away(msgspec.Struct, gc=False):
    kept: Kept
    since: float
    tokens: int


class Conversations:
    """One conversation per device id; nothing of one is ever given to another. Use from the event loop.

    Sessions `join` and `leave`. A device may have two sessions for a moment, when it connects again before its older
    connection has closed: they share one `Kept`, so what the older one still adds is not lost to the newer one.

    Whoever may connect under an id gets its conversation: ids are as trustworthy as `server.auth` makes them.
    """

    def __init__(
        self,
        history_tokens: int,
        language: str,
        resume_s: float,
        clock: Callable[[], float],
        max_devices: int = MAX_DEVICES,
        max_tokens: int = MAX_TOKENS,
        max_talked: int = MAX_TALKED,
    ) -> None:
        """``language`` is that of a new conversation; ``clock`` gives seconds and never goes back.

        With ``resume_s`` 0 every session gets a conversation of its own, and nothing of it is kept but when it was.
        """
        self._history_tokens = history_tokens
        self._language = language
        self._resume_s = resume_s
        self._clock = clock
        self._max_devices = max_devices
        self._max_tokens = max_tokens
        self._max_talked = max_talked
        self._live: dict[str, _Live] = {}  # bounded by the number of connections
        self._away: OrderedDict[str, _Away] = OrderedDict()  # longest away first
        self._tokens = 0
        self._talked: OrderedDict[str, float] = OrderedDict()  # longest ago first

    def __len__(self) -> int:
        """How many conversations of devices that are away are kept."""
        self.expire()
        return len(self._away)

    def join(self, device_id: str) -> Kept:
        """Return the conversation of this device for a session that begins: a running one, a kept one or a new one."""
        if not self._keeps(device_id):
            return self._new(device_id)
        live = self._live.get(device_id)
        if live is None:
            self.expire()
            away = self._take(device_id)
            live = self._live[device_id] = _Live(self._new(device_id) if away is None else away.kept, 0)
        live.sessions += 1
        return live.kept

    def leave(self, device_id: str) -> None:
        """A session ends, once for each `join`. After the last one of a device its conversation waits for it."""
        live = self._live.get(device_id)
        if live is None:
            return
        live.sessions -= 1
        if live.sessions:
            return
        del self._live[device_id]
        if len(live.kept.history):
            tokens = live.kept.history.tokens
            self._away[device_id] = _Away(live.kept, self._clock(), tokens)
            self._tokens += tokens
        self.expire()

    def heard(self, device_id: str, kept: Kept, now: float) -> None:
        """Somebody said something in the conversation ``kept`` of this device: a voice, a wake word or a text.

        ``now``: the event loop's clock, never going back. From now on it goes on for `GOING_ON_S`, also where nothing
        else is kept of it.
        """
        kept.awaits_answer = True
        self._note(device_id, kept, now)

    def replied(self, device_id: str, kept: Kept, now: float) -> None:
        """A reply has ended. It counts only where something was heard before it: not an announcement, nor an abort."""
        if kept.awaits_answer:
            kept.awaits_answer = False
            self._note(device_id, kept, now)

    def talked_at(self, device_id: str) -> float:
        """Return when this device last talked, by the event loop's clock; 0 when that is not known, or long ago."""
        live = self._live.get(device_id)
        known = self._talked.get(device_id, 0.0)
        return known if live is None else max(known, live.kept.talked_at)

    def _note(self, device_id: str, kept: Kept, now: float) -> None:
        kept.talked_at = now
        if not _is_name(device_id):
            return  # nobody can come back with it
        self._talked[device_id] = now
        self._talked.move_to_end(device_id)
        while len(self._talked) > self._max_talked or next(iter(self._talked.values())) <= now - GOING_ON_S:
            self._talked.popitem(last=False)

    def forget(self, device_id: str) -> None:
        """Forget what was said with this device, also in a session that is running; that goes on with nothing."""
        self._talked.pop(device_id, None)
        self._take(device_id)
        live = self._live.get(device_id)
        if live is not None:
            live.kept.history.clear()

    def expire(self) -> None:
        """Forget conversations whose time is over; call it now and then, so that no text stays for nothing."""
        latest = self._clock() - self._resume_s
        while self._away:
            device_id, longest = next(iter(self._away.items()))
            full = len(self._away) > self._max_devices or self._tokens > self._max_tokens
            if longest.since > latest and not full:
                return
            self._take(device_id)

    def _keeps(self, device_id: str) -> bool:
        return self._resume_s > 0 and _is_name(device_id)

    def _new(self, device_id: str) -> Kept:
        return Kept(History(self._history_tokens), self._language, self._talked.get(device_id, 0.0))

    def _take(self, device_id: str) -> _Away | None:
        away = self._away.pop(device_id, None)
        if away is not None:
            self._tokens -= away.tokens
        return away


def _is_name(device_id: str) -> bool:
    return bool(device_id) and not device_id.startswith(ANONYMOUS)
