"""The tasks that work for a turn, and what happens when one goes wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from loguru import logger

log = logger.bind(tag="dialogue")


class TurnWork:
    """The tasks of one session. Owns none while nothing is worked on."""

    __slots__ = ("_fail", "_loop", "_tasks", "_turn")

    def __init__(self, turn: Callable[[], int], fail: Callable[[int, BaseException], None]) -> None:
        """``turn`` returns the number of the current turn; ``fail`` is told its number and what went wrong."""
        self._turn = turn
        self._fail = fail
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(
        self, work: Callable[[], Coroutine[Any, Any, None]], instead: Callable[[], None] | None = None
    ) -> None:
        """Do work of the current turn. ``instead`` of an apology is called when it fails."""
        task = self._loop.create_task(self._guard(self._turn(), work, instead))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def cancel(self) -> None:
        """End all of it."""
        for task in tuple(self._tasks):
            task.cancel()

    async def _guard(
        self, number: int, work: Callable[[], Coroutine[Any, Any, None]], instead: Callable[[], None] | None
    ) -> None:
        """Root of every task of a turn: whatever goes wrong, the device leaves its speaking state."""
        try:
            await work()
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if number != self._turn() or (task is not None and task.cancelling()):
                raise
            self._failed(
                number, error, instead
            )  # the cancellation of something else has leaked out of a library
        except Exception as error:  # noqa: BLE001 - the task root: see rule 8 of the rooms
            if number == self._turn():  # else a clean-up failed, and the state belongs to a newer turn
                self._failed(number, error, instead)

    def _failed(self, number: int, error: BaseException, instead: Callable[[], None] | None) -> None:
        if instead is not None:
            log.opt(exception=error).warning("turn {}: work failed that can be done without", number)
            instead()
        else:
            self._fail(number, error)
