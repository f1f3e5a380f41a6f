"""A tool: a Python function whose JSON schema comes from its type hints and docstring.

    @register_function("get_weather")
    async def get_weather(context: ToolContext, city: str, days: int = 1) -> str:
        '''Say what the weather will be.

        Args:
            city: name of the city, in the user's words
            days: how many days ahead, 1 to 7
        '''

The parameter annotated with `ToolContext` (optional, any position) is filled in by the toolbox and hidden from the model.
A plain ``def`` runs in a worker thread, an ``async def`` on the event loop.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any, Protocol

import msgspec

from mynah.providers.base import ToolSpec


class ToolResult(msgspec.Struct, frozen=True):
    """What a tool hands back. A tool that returns a plain ``str`` means ``ToolResult(content=that)``."""

    content: str
    """For the language model (or, from the built-in responder, for the user)."""
    direct: bool = False
    """Speak ``content`` as it is, without asking the model to phrase it."""
    end_session: bool = False
    """Close the conversation after the reply has been spoken."""


class Reminder(msgspec.Struct, frozen=True):
    """A timer or reminder that is running in a session."""

    id: int
    due_in_s: float
    text: str
    """What will be said when it is due."""
    label: str = ""


class Reminders(Protocol):
    """Timers of one session; the session speaks ``text`` when one is due."""

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
