"""Keeps a connection open ahead of time: opens it again when it is lost, with pauses that grow."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

import msgspec

from mynah.sim.link import ConnectError
from mynah.sim.pull4g.line import Line, LineListener
from mynah.wire.pull4g import ServerEvent

BACKOFF_S: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""Pauses before a connection is tried again; the last one is repeated."""

JITTER: Final = 0.25
"""How far a pause may be from that, as a share: a cell's devices must not all come back at once."""

Opening = Callable[[LineListener], Awaitable[Line]]
"""Opens a connection whose listener is the argument. Raises ConnectError."""


class Connections(msgspec.Struct):
    """What became of connections."""

    tried: int = 0
    made: int = 0
    lost: int = 0
    """Made, and ended by anybody but the device's own user."""


class Owner(Protocol):
    """Whose connection it is."""

    def on_line(self, line: Line, first: bool) -> None:
        """A connection is open: the ``first`` one, or another after one was lost."""

    def on_failed(self) -> None:
        """No connection came about; `Keeper.trouble` says why. It will be tried again."""

    def on_events(self, events: list[ServerEvent]) -> None:
        """Something has arrived."""

    def on_lost(self, why: str) -> None:
        """The connection is gone, and will be opened again."""


class Keeper:
    """One device's connection. `start` it, `stop` it."""

    def __init__(
        self, owner: Owner, opening: Opening, *, backoff_s: tuple[float, ...], dice: random.Random
    ) -> None:
        self._owner, self._opening, self._backoff_s, self._dice = owner, opening, backoff_s, dice
        self.connections = Connections()
        self.line: Line | None = None
        """The connection, while there is one."""
        self.trouble = ""
        """Why there is none, for people."""
        self._failures = 0  # since something was last heard
        self._dialling: asyncio.Task[None] | None = None
        self._pause: asyncio.TimerHandle | None = None
        self._current: _Listener | None = None
        self._running = False

    def start(self) -> None:
        """Connect, and stay so."""
        if not self._running:
            self._running = True
            self._dial()

    def hurry(self) -> None:
        """The user wants something: do not wait for the end of the pause."""
        if self._pause is not None:
            self._pause.cancel()
            self._dial()

    def lose(self, why: str) -> None:
        """Give up the connection: nothing comes over it any more."""
        line, listener = self.line, self._current
        if line is not None and listener is not None:
            listener.gone(why)
            line.abort()

    def give_up_for_long(self) -> None:
        """The server does not want us: take the longest pause before the next attempt."""
        self._failures = len(self._backoff_s)

    async def stop(self) -> None:
        """Hang up."""
        self._running = False
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        line, self.line, self._current = self.line, None, None
        if line is not None:
            line.abort()
        if self._dialling is not None:
            self._dialling.cancel()
            await asyncio.gather(self._dialling, return_exceptions=True)

    # ------------------------------------------------------------ inside

    def _dial(self) -> None:
        self._pause = None
        self.connections.tried += 1
        self._dialling = asyncio.create_task(self._connect())

    async def _connect(self) -> None:
        listener = _Listener(self)
        try:
            line = await self._opening(listener)
        except ConnectError as error:
            self.trouble = str(error)
            self._again()
            self._owner.on_failed()
            return
        self.connections.made += 1
        if listener.over or not self._running:  # as soon as it was there
            line.abort()
            if self._running:
                self.connections.lost += 1
                self._again()
            return
        self.line, self._current, self.trouble = line, listener, ""
        self._owner.on_line(line, self.connections.made == 1)

    def _again(self) -> None:
        pause_s = self._backoff_s[min(self._failures, len(self._backoff_s) - 1)]
        self._failures += 1
        pause_s *= self._dice.uniform(1 - JITTER, 1 + JITTER)
        self._pause = asyncio.get_running_loop().call_later(pause_s, self._dial)

    def heard(self, listener: _Listener, events: list[ServerEvent]) -> None:
        """Something has come over the connection of this listener."""
        if listener is self._current:
            self._failures = 0
            self._owner.on_events(events)

    def lost(self, listener: _Listener, why: str) -> None:
        """The connection of this listener is gone."""
        if listener is not self._current:
            return
        self.line = self._current = None
        self.trouble = why
        self.connections.lost += 1
        self._again()
        self._owner.on_lost(why)


class _Listener:
    """Tells the connections of one device apart: what comes late over an old one is not meant."""

    __slots__ = ("_keeper", "over")

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self.over = False

    def on_events(self, events: list[ServerEvent]) -> None:
        self._keeper.heard(self, events)

    def on_lost(self, why: str) -> None:
        self.gone(why)

    def gone(self, why: str) -> None:
        if not self.over:
            self.over = True
            self._keeper.lost(self, why)
