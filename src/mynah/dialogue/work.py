"""The tasks that work for a turn, and what happens when one goes wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from loguru import logger

log = logger.bind(tag="dialogue")


class Turns(Protocol):
    """Who counts the turns."""

    turn: int
    """Number of the current one."""


class TurnWork:
    """The tasks of one session. Owns none while nothing is worked on, not even a set for them."""

    __slots__ = ("_fail", "_tasks", "_turns")

    def __init__(self, turns: Turns, fail: Callable[[int, BaseException], None]) -> None:
        """``fail`` is told the number of the turn and what went wrong."""
        self._turns = turns
        self._fail = fail
        self._tasks: set[asyncio.Task[None]] | None = None

    @property
    def turn(self) -> int:
        """Number of the current turn."""
        return self._turns.turn

    def spawn(
        self, work: Callable[[], Coroutine[Any, Any, None]], instead: Callable[[], None] | None = None
    ) -> None:
        """Do work of the current turn. ``instead`` of an apology is called when it fails."""
        task = asyncio.get_running_loop().create_task(self._guard(self.turn, work, instead))
        if self._tasks is None:
            self._tasks = set()
        self._tasks.add(task)
        task.add_done_callback(self._forget)

    def cancel(self) -> None:
        """End all of it."""
        for task in tuple(self._tasks or ()):
            task.cancel()

    def close(self) -> None:
        """End all of it, and tell nobody any more: the session is over, and nothing here shall keep it in memory."""
        self.cancel()
        self._fail = _too_late

    def _forget(self, task: asyncio.Task[None]) -> None:
        if self._tasks is not None:
            self._tasks.discard(task)
            self._tasks = self._tasks or None

    async def _guard(
        self, number: int, work: Callable[[], Coroutine[Any, Any, None]], instead: Callable[[], None] | None
    ) -> None:
        """Root of every task of a turn: whatever goes wrong, the device leaves its speaking state."""
        try:
            await work()
        except asyncio.CancelledError as error:
            if number != self.turn or _being_cancelled():
                raise
            self._failed(
                number, error, instead
            )  # the cancellation of something else has leaked out of a library
        except Exception as error:  # noqa: BLE001 - the task root: see rule 8 of the rooms
            if number == self.turn:  # else a clean-up failed, and the state belongs to a newer turn
                self._failed(number, error, instead)

    def _failed(self, number: int, error: BaseException, instead: Callable[[], None] | None) -> None:
        if instead is not None:
            log.opt(exception=error).warning("turn {}: work failed that can be done without", number)
            instead()
        else:
            self._fail(number, error)


def _being_cancelled() -> bool:
    # Not in the frame above: a task that is kept in the traceback of its own end is left to the garbage collector.
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _too_late(number: int, error: BaseException) -> None:
    log.opt(exception=error).debug("turn {}: work failed after its connection had ended", number)
