"""All tools behind one door: names, arguments, time-outs and failures are dealt with here."""

from __future__ import annotations

import asyncio
import operator
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Protocol

import msgspec
from loguru import logger

from mynah.errors import ToolError
from mynah.providers.base import TOOL_FAILED, ToolCall, ToolSpec
from mynah.tools.arguments import parse
from mynah.tools.base import Tool, ToolContext, ToolResult
from mynah.tools.guard import contained

MAX_NAME_CHARS = 64
"""The longest name of a function that OpenAI's interface allows."""

DEVICE_TOOL: Final = "device"
UNKNOWN_TOOL: Final = "unknown"

ToolWatch = Callable[[str, float, bool], None]
"""Told of each call that has ended: which tool, how long it took in s, whether it failed.

Tools of devices are all `DEVICE_TOOL`, those that a model has made up `UNKNOWN_TOOL`: there is no end of names that
others choose. Called on the event loop, must return at once."""


class ToolSource(Protocol):
    """Something that offers tools to one session besides the plugins: its device, or another server."""

    @property
    def tools(self) -> tuple[Tool, ...]:
        """What it offers at present; a new tuple whenever that changes. Each tool keeps its own time-out."""


class Toolbox:
    """The tools of the server, shared by all sessions."""

    def __init__(
        self,
        functions: Iterable[Tool],
        settings: Mapping[str, Mapping[str, Any]] | None = None,
        timeout_s: float = 10.0,
    ) -> None:
        """Take the plugins' functions; of two with the same name the later one counts.

        ``settings`` are the sections of ``plugins`` in the configuration, by name of tool; ``timeout_s``
        is what one call of a plugin may take.
        """
        self._functions: dict[str, Tool] = {tool.spec.name: tool for tool in functions}
        self._settings = settings or {}
        self._timeout_s = timeout_s
        self.watch: ToolWatch | None = None
        """Told of every call of the sessions that are made from now on."""

    def for_session(self, *sources: ToolSource) -> SessionTools:
        """Return the tools of one session: the plugins, and what ``sources`` offer, now or later."""
        return SessionTools(self._functions, self._settings, self._timeout_s, sources, self.watch)


class SessionTools:
    """The tools one session can use. Made by `Toolbox.for_session`; holds no task and no timer."""

    def __init__(
        self,
        functions: Mapping[str, Tool],
        settings: Mapping[str, Mapping[str, Any]],
        timeout_s: float,
        sources: tuple[ToolSource, ...],
        watch: ToolWatch | None = None,
    ) -> None:
        self._functions = functions
        self._settings = settings
        self._timeout_s = timeout_s
        self._sources = sources
        self._watch = watch
        self._named_for: tuple[tuple[Tool, ...], ...] = ()
        self._sourced: dict[str, Tool] = {}
        self._specs: tuple[ToolSpec, ...] = tuple(tool.spec for tool in functions.values())

    def add(self, source: ToolSource) -> None:
        """Let the session use one more source of tools, after those it has. Adding one twice changes nothing."""
        if not any(source is known for known in self._sources):
            self._sources += (source,)

    def specs(self) -> tuple[ToolSpec, ...]:
        """Return what a model is shown; grows when a source has learnt of tools. Cheap: made once per change."""
        self._name_sourced_tools()
        return self._specs

    async def call(self, context: ToolContext, call: ToolCall) -> ToolResult:
        """Run one tool. Never raises (only cancelling passes): whatever goes wrong is told in the result.

        The content of a failure begins with `TOOL_FAILED`, so that a model can act on it.
        """
        watch = self._watch
        if watch is None:
            return await self._contained(context, call)
        began = time.monotonic()
        result = await self._contained(context, call)
        watch(self._known_name(call.name), time.monotonic() - began, result.content.startswith(TOOL_FAILED))
        return result

    def _known_name(self, name: str) -> str:
        if name in self._name_sourced_tools():
            return DEVICE_TOOL
        return name if name in self._functions else UNKNOWN_TOOL

    async def _contained(self, context: ToolContext, call: ToolCall) -> ToolResult:
        problems: list[BaseException] = []
        with contained(problems.append):
            return await self._call(context, call)
        problem = problems[0]
        if isinstance(problem, ToolError):
            return ToolResult(f"{TOOL_FAILED}{problem}")
        logger.opt(exception=problem).warning("tool {} failed", call.name)
        return ToolResult(f"{TOOL_FAILED}{call.name} failed with {type(problem).__name__}")

    async def _call(self, context: ToolContext, call: ToolCall) -> ToolResult:
        sourced = self._name_sourced_tools().get(call.name)
        tool = sourced or self._functions.get(call.name)
        if tool is None:
            known = ", ".join(spec.name for spec in self.specs()[:40])
            raise ToolError(f"there is no tool named '{call.name[:MAX_NAME_CHARS]}'; there are: {known}")
        arguments = parse(call.arguments)
        context = msgspec.structs.replace(context, settings=self._settings.get(call.name, {}))
        # A device's tool has its own time-out: a camera needs longer than a plugin may take.
        deadline = asyncio.timeout(None if sourced else self._timeout_s)
        try:
            async with deadline:
                return await tool.call(context, arguments)
        except TimeoutError:
            if not deadline.expired():
                raise
            raise ToolError(f"{call.name} did not finish within {self._timeout_s:g} seconds") from None
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # The tool cancelled itself; that is no reason to end the turn.
            raise ToolError(f"{call.name} was cancelled") from None

    def _name_sourced_tools(self) -> dict[str, Tool]:
        """Give every tool of the sources a name of its own; a plugin keeps its name, a later one gets a suffix."""
        offered = tuple(source.tools for source in self._sources)
        if len(offered) == len(self._named_for) and all(map(operator.is_, offered, self._named_for)):
            return self._sourced
        named: dict[str, Tool] = {}
        for tool in (tool for tools in offered for tool in tools):
            name, n = tool.spec.name, 1
            while name in self._functions or name in named:
                n += 1
                suffix = "_device" if n == 2 else f"_device{n - 1}"
                name = tool.spec.name[: MAX_NAME_CHARS - len(suffix)] + suffix
            named[name] = tool
        self._named_for, self._sourced = offered, named
        plugins = (tool.spec for tool in self._functions.values())
        sourced = (msgspec.structs.replace(tool.spec, name=name) for name, tool in named.items())
        self._specs = (*plugins, *sourced)
        return named
