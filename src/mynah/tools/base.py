"""A tool: a Python function whose JSON schema comes from its type hints and docstring.

    @register_function("get_weather")
    async def get_weather(context: ToolContext, city: str, days: int = 1) -> str:
        '''Say what the weather will be.

        Args:
            city: name of the city, in the user's words
            days: how many days ahead, 1 to 7
        '''

The parameter annotated with `ToolContext` (optional, any position) is filled in by the toolbox and hidden
from the model.
A plain ``def`` runs in a worker thread, an ``async def`` on the event loop.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import re
import threading
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any, Protocol, TypeVar

import msgspec

from mynah.errors import ToolError
from mynah.providers.base import ToolSpec
from mynah.tools import arguments as argument_fitting
from mynah.tools.guard import contained
from mynah.tools.schema import Signature

MAX_THREADS = 32
"""Plain functions that may run at once, over all sessions: one that hangs keeps its thread."""

MAX_CONTENT_CHARS = 16_000
"""What is kept of a tool's answer: more would crowd the conversation out of a small model's context."""

_MARK = "__mynah_tool__"
_NAME = re.compile(r"^[A-Za-z0-9_-]{1,64}$")
_threads = threading.BoundedSemaphore(MAX_THREADS)

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])


class ToolResult(msgspec.Struct, frozen=True):
    """What a tool hands back. A tool that returns a plain ``str`` means ``ToolResult(content=that)``."""

    content: str
    """For the language model (or, from the built-in responder, for the user)."""
    direct: bool = False
    """Speak ``content`` as it is, without asking the model to phrase it."""
    end_session: bool = False
    """Close the conversation after the reply has been spoken."""


class Reminder(msgspec.Struct, frozen=True):
    """A timer or reminder that is running for a device."""

    id: int
    due_in_s: float
    text: str
    """What will be said when it is due."""
    label: str = ""


class Reminders(Protocol):
    """Timers of one device, which speaks ``text`` when one is due, or when it comes back."""

    def add(self, delay_s: float, text: str, label: str = "") -> Reminder:
        """Start one. Raises ToolError when too many are running or the delay is out of range."""

    def list(self) -> tuple[Reminder, ...]:
        """All running ones, the next due first."""

    def cancel(self, reminder_id: int) -> bool:
        """Stop one; False when it does not exist (any more)."""


class ToolContext(msgspec.Struct, frozen=True):
    """What a tool may know about the conversation it works for."""

    device_id: str
    language: str
    """``en`` or ``zh``: answer in it."""
    now: Callable[[], datetime]
    """Local time, with its zone."""
    reminders: Reminders
    settings: Mapping[str, Any] = {}
    """The tool's own section of the configuration (``plugins.<name>``)."""


class Tool(Protocol):
    """Anything the toolbox can call."""

    @property
    def spec(self) -> ToolSpec:
        """How a model sees it."""

    def call(self, context: ToolContext, arguments: Mapping[str, Any]) -> Awaitable[ToolResult]:
        """Do it. Raises ToolError with a message that a language model can act on."""


class FunctionTool:
    """A tool that is a Python function. Made by `register_function`."""

    def __init__(self, function: Callable[..., Any], name: str, description: str = "") -> None:
        if not _NAME.match(name):
            raise TypeError(f"'{name}' is no name for a tool: letters, digits, _ and -, at most 64")
        self._function = function
        self._is_async = inspect.iscoroutinefunction(function)
        self._signature = Signature(function, hidden=ToolContext)
        self._spec = ToolSpec(
            name=name,
            description=description or self._signature.description or name.replace("_", " "),
            parameters=self._signature.parameters,
        )

    @property
    def spec(self) -> ToolSpec:
        """How a model sees it."""
        return self._spec

    @property
    def module(self) -> str:
        """Name of the module the function stands in."""
        return self._function.__module__

    async def call(self, context: ToolContext, arguments: Mapping[str, Any]) -> ToolResult:
        """Run the function with fitted arguments. Raises ToolError, or whatever the function raises."""
        values = self._signature.bind(argument_fitting.fit(arguments, self._signature.parameters))
        for name in self._signature.hidden_names:
            values[name] = context
        if self._is_async:
            result = await self._function(**values)
        else:
            result = await _in_thread(lambda: self._function(**values))
        return _as_result(result)


def _as_result(value: object) -> ToolResult:
    if isinstance(value, ToolResult):
        result = value
    elif isinstance(value, str):
        result = ToolResult(value)
    elif value is None:
        result = ToolResult("done")
    else:
        # Plugins hand back numbers, lists and dicts too; a model reads them best as JSON.
        result = ToolResult(msgspec.json.encode(value, enc_hook=str).decode())
    if len(result.content) > MAX_CONTENT_CHARS:
        result = msgspec.structs.replace(result, content=result.content[:MAX_CONTENT_CHARS] + "…")
    return result


async def _in_thread(function: Callable[[], Any]) -> Any:
    """Run ``function`` in a daemon thread of its own: a plugin that hangs must not delay the exit."""
    if not _threads.acquire(blocking=False):
        raise ToolError("too many tools are running; try again later")
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Any] = loop.create_future()
    context = contextvars.copy_context()

    def deliver(result: Any, error: BaseException | None) -> None:
        if done.done():  # The caller has stopped waiting.
            return
        if error is None:
            done.set_result(result)
        else:
            done.set_exception(error)

    def work() -> None:
        failures: list[BaseException] = []
        result: Any = None
        with contained(failures.append):
            result = context.run(function)
        _threads.release()
        failure = failures[0] if failures else None
        if isinstance(failure, SystemExit | StopIteration):
            # The one would end the loop, the other a future refuses.
            failure = RuntimeError(f"{type(failure).__name__}: {failure}")
        try:
            loop.call_soon_threadsafe(deliver, result, failure)
        except RuntimeError:  # The loop is closed: nobody waits any more.
            return

    threading.Thread(target=work, name="mynah-tool", daemon=True).start()
    return await done


def register_function(name: str | None = None, *, description: str = "") -> Callable[[FunctionT], FunctionT]:
    """Mark a function as a tool; the file it stands in is then a plugin.

    The function itself is returned unchanged. Raises TypeError when its parameters cannot be described to
    a model.

    Args:
        name: how models call it; the function's own name by default
        description: what it does, for the model; the docstring up to ``Args:`` by default
    """
    if callable(name):
        raise TypeError("write @register_function(), with parentheses")

    def mark(function: FunctionT) -> FunctionT:
        setattr(function, _MARK, FunctionTool(function, name or function.__name__, description))
        return function

    return mark


def registered_tool(value: object) -> FunctionTool | None:
    """Return the tool that `register_function` made of a function, or None for anything else."""
    tool = vars(value).get(_MARK) if inspect.isfunction(value) else None
    return tool if isinstance(tool, FunctionTool) else None
