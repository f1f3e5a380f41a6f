"""An asyncio loop on virtual time: a test of an hour of pacing takes milliseconds and always ends the same.

``loop.time()`` stands still while anything is ready to run and jumps to the next scheduled handle when
nothing is. Nothing ever sleeps.

Three ways to use it::

    result = run(main())                 # a plain function call

    @virtual                             # an async test; fixtures and parametrize work as usual
    async def test_something(tmp_path): ...

    with VirtualRunner() as runner:      # several runs on one loop, from a fixture
        runner.run(first())
        runner.run(second())

Limits. Threads, subprocesses and sockets do not take part: the loop cannot know that a thread is still busy,
so it would jump over it or report a deadlock. Where the code under test wants an executor, give it
`InlineExecutor`, which does the work in `submit`.
"""

from __future__ import annotations

import asyncio
import functools
import io
import selectors
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Executor, Future
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

START = 1000.0
"""First value of ``loop.time()``, in seconds; not 0, so that code which takes 0 for "never" is caught."""


class DeadlockError(RuntimeError):
    """Nothing is ready and nothing is scheduled, so what is awaited cannot come. Names the waiting tasks."""


class _JumpingSelector(selectors.DefaultSelector):
    """Asks the real selector without waiting; where asyncio would have slept, moves the clock instead."""

    clock = START

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = super().select(0)
        if events or (timeout is not None and timeout <= 0):
            return events
        if timeout is None:
            raise DeadlockError("nothing is ready and nothing is scheduled")
        self.clock += timeout
        return []


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """See the module's text. ``time()`` is in virtual seconds and starts at `START`."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        """Virtual seconds."""
        return self._jumping.clock


class VirtualRunner:
    """Like `asyncio.Runner`, on virtual time; closing it cancels what is left, as `asyncio.run` does."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner(loop_factory=VirtualTimeLoop)

    def __enter__(self) -> Self:
        self._runner.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._runner.__exit__(kind, error, trace)

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        return self._runner.get_loop()

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Run to the end and return the result. Raises DeadlockError when that end cannot come."""
        try:
            return self._runner.run(main)
        except DeadlockError as error:
            raise DeadlockError(f"{error}; waiting:\n{_describe_tasks(self.loop)}") from None


def _describe_tasks(loop: asyncio.AbstractEventLoop) -> str:
    out = io.StringIO()
    for task in asyncio.all_tasks(loop):
        task.print_stack(limit=4, file=out)
    return out.getvalue() or "(no task is left)"


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end on a fresh virtual-time loop."""
    with VirtualRunner() as runner:
        return runner.run(main)


def virtual(test: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, T]:
    """Turn an ``async def`` test into a plain one on virtual time. Goes innermost, below ``@given``."""

    @functools.wraps(test)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
        return run(test(*args, **kwargs))

    return wrapper


async def settle(turns: int = 50) -> None:
    """Let everything that is ready run, without moving the clock (up to ``turns`` rounds of the loop)."""
    for _ in range(turns):
        await asyncio.sleep(0)


async def elapsed(work: Awaitable[Any]) -> float:
    """Await and return how many virtual seconds it took."""
    loop = asyncio.get_running_loop()
    begin = loop.time()
    await work
    return loop.time() - begin


class InlineExecutor(Executor):
    """An executor that does the work in `submit`, on the caller's thread: what virtual time needs."""

    def __init__(self) -> None:
        self.submitted = 0

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        self.submitted += 1
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:  # noqa: BLE001 - an executor hands every error to its future
            future.set_exception(error)
        return future
