"""The tools a device offers over MCP."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import msgspec
from loguru import logger

from mynah.errors import ToolError
from mynah.providers.base import ToolSpec
from mynah.tools.arguments import fit
from mynah.tools.base import ToolContext, ToolResult
from mynah.wire.mcp import (
    MAX_PAGES,
    MAX_TOOLS,
    DeviceTool,
    McpFailure,
    McpResult,
    McpSession,
    is_error,
    parse_tools,
    result_text,
)

CALL_TIMEOUT_S = 35.0
"""A camera waits up to 30 s for the answer to its picture."""

DISCOVERY_TIMEOUT_S = 10.0
"""For one answer of a handshake: a device on a mobile network needs a second or two."""

MAX_PENDING = 16
"""Calls under way on one device, which does them one after the other anyway."""

MAX_TOLD_CHARS = 300
"""What is logged of a device's words. The rest is cut; a log line is no place for a whole answer."""

MAX_SHARED = 1024
"""Descriptions of tools that devices have in common, some KB each. Policy: those not seen for longest are forgotten,
and held by the devices that have them."""

_UNSAFE = re.compile(r"[^A-Za-z0-9_-]")

_log = logger.bind(tag="tools")


def loggable(told: str) -> str:
    """Return a device's words for one line of the log: printable, at most `MAX_TOLD_CHARS` characters."""
    shown = "".join(char if char.isprintable() else " " for char in told[:MAX_TOLD_CHARS])
    return shown if len(told) <= MAX_TOLD_CHARS else f"{shown}…"


class DeviceMcp:
    """The client side of MCP for one connection. Between calls it holds no task, no timer and no future."""

    def __init__(self, send: Callable[[dict[str, Any]], None], device_id: str = "a device") -> None:
        """``send`` puts a payload into an ``mcp`` message and on its way; it must not block.

        ``device_id`` names the device in the log.
        """
        self._send = send
        self._device_id = device_id
        self._session = McpSession()
        self._pending: dict[int, asyncio.Future[McpResult | McpFailure]] = {}
        self._closed = False
        self.tools: tuple[DeviceMcpTool, ...] = ()
        """What the device offers to a language model; empty until `discover` has finished."""
        self.left_out: Counter[str] = Counter()
        """Why what was listed is not among `tools`, and how often; filled by `discover`."""

    async def discover(self, vision_url: str = "", vision_token: str = "") -> str:
        """Shake hands and read the list of tools; tools for people only are left out.

        Returns why the list is empty or incomplete, or an empty text. Does not raise: a device that
        does not answer simply has no tools.
        """
        found: list[DeviceTool] = []
        reason = ""
        self.left_out.clear()
        try:
            await self._request(self._session.initialize(vision_url, vision_token), DISCOVERY_TIMEOUT_S)
        except ToolError as error:
            # The list can be read without the handshake.
            reason = f"initialize: {error}"
        try:
            cursor, seen = "", {""}
            for _ in range(MAX_PAGES):
                payload = self._session.list_tools(cursor)
                page = parse_tools(await self._request(payload, DISCOVERY_TIMEOUT_S))
                found += page.tools
                self.left_out.update(page.left_out)
                cursor = page.next_cursor
                if cursor in seen or len(found) >= MAX_TOOLS:
                    break
                seen.add(cursor)
        except ToolError as error:
            reason = f"tools/list: {error}"
        self._offer(found)
        return reason

    def _offer(self, found: list[DeviceTool]) -> None:
        listed: dict[str, DeviceTool] = {}
        for tool in found[:MAX_TOOLS]:
            # A device that repeats itself over its pages offers each tool once.
            listed.setdefault(tool.name, tool)
        self.tools = tuple(
            DeviceMcpTool(self, *_shared(msgspec.json.encode(tool)))
            for tool in listed.values()
            if not tool.user_only
        )
        for reason, count in (
            ("for people only", len(listed) - len(self.tools)),
            (f"more than {MAX_TOOLS}", len(found) - MAX_TOOLS),
        ):
            if count > 0:
                self.left_out[reason] += count

    def receive(self, payload: Mapping[str, Any]) -> None:
        """Take a payload that came from the device; what is no answer to a waiting call is dropped."""
        answer = self._session.receive(payload)
        waiting = self._pending.get(answer.id) if answer is not None else None
        if waiting is not None and answer is not None and not waiting.done():
            waiting.set_result(answer)

    async def call(self, name: str, arguments: Mapping[str, Any]) -> str:
        """Call a tool by the device's own name and return its text. Raises ToolError, and logs it."""
        try:
            result = await self._request(self._session.call(name, arguments), CALL_TIMEOUT_S)
            text = result_text(result)
            if is_error(result):
                raise ToolError(text or "the device reported a failure")
        except ToolError as error:
            _log.warning("{}: tool {} failed: {}", self._device_id, loggable(name), loggable(str(error)))
            raise
        return text

    def close(self) -> None:
        """The connection is gone: end all waiting calls. Safe to call twice."""
        self._closed = True
        for waiting in self._pending.values():
            if not waiting.done():
                waiting.set_exception(ToolError("the device has disconnected"))

    async def _request(self, payload: dict[str, Any], timeout_s: float) -> Any:
        if self._closed:
            raise ToolError("the device has disconnected")
        if len(self._pending) >= MAX_PENDING:
            raise ToolError("the device is still busy with earlier calls")
        request_id: int = payload["id"]
        waiting: asyncio.Future[McpResult | McpFailure] = asyncio.get_running_loop().create_future()
        self._pending[request_id] = waiting
        try:
            self._send(payload)
            async with asyncio.timeout(timeout_s):
                answer = await waiting
        except TimeoutError:
            raise ToolError(f"the device did not answer within {timeout_s:g} seconds") from None
        finally:
            del self._pending[request_id]
        if isinstance(answer, McpFailure):
            raise ToolError(f"the device says: {answer.message}")
        return answer.result


@lru_cache(MAX_SHARED)
def _shared(encoded: bytes) -> tuple[DeviceTool, ToolSpec]:
    """Return a tool, and how a model sees it: one object for all devices that offer the same."""
    tool = msgspec.json.decode(encoded, type=DeviceTool)
    name = _UNSAFE.sub("_", tool.name)[:64]
    return tool, ToolSpec(name=name, description=tool.description, parameters=tool.input_schema)


class DeviceMcpTool:
    """One tool of a device."""

    __slots__ = ("_device", "_spec", "_tool")

    def __init__(self, device: DeviceMcp, tool: DeviceTool, spec: ToolSpec) -> None:
        self._device = device
        self._tool = tool
        self._spec = spec

    @property
    def spec(self) -> ToolSpec:
        """How a model sees it; dots in the device's name are underscores here."""
        return self._spec

    async def call(self, context: ToolContext, arguments: Mapping[str, Any]) -> ToolResult:  # noqa: ARG002
        """Have the device do it. Raises ToolError."""
        return ToolResult(await self._device.call(self._tool.name, fit(arguments, self._tool.input_schema)))
