"""Conversations of devices that went away for a moment: whoever comes back soon goes on where he was."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

import msgspec

from mynah.dialogue.history import History

ANONYMOUS: Final = "anonymous-"
"""How the id of a device that tells none begins: made up for one connection, so nobody can come back with it."""
MAX_DEVICES: Final = 10_000
"""Conversations kept of devices that are away: as many as one server is made for. Overflow policy: that of the device
which has been away longest is forgotten."""
MAX_TOKENS: Final = 5_000_000
"""In all conversations that are kept, together: some 60 MB of English or Chinese, 160 MB at worst (four bytes for a
character). A usual conversation has 500 to 2000. Overflow policy: as for `MAX_DEVICES`."""


class Kept(msgspec.Struct, gc=False):
    """What outlives a connection."""

    history: History
    language: str
    """``en`` or ``zh``: what was spoken last."""
    talked_at: float = 0.0
    """When somebody last began to talk or got an answer, by the event loop's clock; 0 for never."""


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
    ) -> None:
        """``language`` is that of a new conversation; ``clock`` gives seconds and never goes back.

        With ``resume_s`` 0 every session gets a conversation of its own, and nothing is kept.
        """
        self._history_tokens = history_tokens
        self._language = language
        self._resume_s = resume_s
        self._clock = clock
        self._max_devices = max_devices
        self._max_tokens = max_tokens
        self._live: dict[str, _Live] = {}  # bounded by the number of connections
        self._away: OrderedDict[str, _Away] = OrderedDict()  # longest away first
        self._tokens = 0

    def __len__(self) -> int:
        """How many conversations of devices that are away are kept."""
        self.expire()
        return len(self._away)

    def join(self, device_id: str) -> Kept:
        """Return the conversation of this device for a session that begins: a running one, a kept one or a new one."""
        if not self._keeps(device_id):
            return self._new()
        live = self._live.get(device_id)
        if live is None:
            self.expire()
            away = self._take(device_id)
            live = self._live[device_id] = _Live(self._new() if away is None else away.kept, 0)
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

    def talked_at(self, device_id: str) -> float:
        """Return when this device last had a turn, by the event loop's clock; 0 when that is not known."""
        live, away = self._live.get(device_id), self._away.get(device_id)
        kept = live.kept if live is not None else away.kept if away is not None else None
        return kept.talked_at if kept is not None else 0.0

    def forget(self, device_id: str) -> None:
        """Forget what was said with this device, also in a session that is running; that goes on with nothing."""
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
        return self._resume_s > 0 and bool(device_id) and not device_id.startswith(ANONYMOUS)

    def _new(self) -> Kept:
        return Kept(History(self._history_tokens), self._language)

    def _take(self, device_id: str) -> _Away | None:
        away = self._away.pop(device_id, None)
        if away is not None:
            self._tokens -= away.tokens
        return away
