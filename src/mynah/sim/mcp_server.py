"""The MCP server inside a device, with firmware's rules and its quirks.

Ids are numbers only, errors have no code, answers to nothing are silence, tool lists come in pages of about 8 kB
whose cursor is the name of the next tool, and user-only tools are hidden but callable.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from mynah.sim.board import Board, DeviceSettings
from mynah.sim.discovery import DeviceIdentity
from mynah.sim.mcp_tool import Refusal, Result, Tool, content

__all__ = ["DeviceMcpServer", "DeviceSettings"]

PAGE_BYTES = 8000
MAX_ID = 2**31 - 1

MAX_SLOW_CALLS = 8
"""Calls that wait for the network at once; firmware does one after the other. Further ones are refused."""

Answer = dict[str, Any]


class DeviceMcpServer:
    """Answers JSON-RPC payloads. ``settings`` is the state the tools work on; ``calls`` lists tools by name."""

    def __init__(
        self,
        name: str = "mynah-simulator",
        version: str = "2.4.2",
        *,
        identity: DeviceIdentity | None = None,
        full: bool = False,
        photo: bytes = b"",
        tools: Sequence[Tool] = (),
    ) -> None:
        """With ``full`` the board has everything; ``photo`` (JPEG) is what its camera sees. ``tools`` come on top."""
        self.board = Board(identity or DeviceIdentity(), photo=photo)
        self.settings = self.board.settings
        self.calls: list[str] = []
        self.vision: dict[str, Any] = {}
        """What the last ``initialize`` said about the camera service."""
        self._info = {"name": name, "version": version}
        self._tools = {tool.name: tool for tool in (*self.board.tools(full=full), *tools)}
        self._slow: set[asyncio.Task[None]] = set()

    def handle(
        self, payload: Mapping[str, Any], *, later: Callable[[Answer], None] | None = None
    ) -> Answer | None:
        """Answer one payload, or return None where firmware stays silent.

        A tool that waits for the network answers through ``later``; without that it is refused.
        """
        method, request_id, params = payload.get("method"), payload.get("id"), payload.get("params", {})
        if (
            payload.get("jsonrpc") != "2.0"
            or not isinstance(method, str)
            or method.startswith("notifications")
        ):
            return None
        if not isinstance(params, dict) or not isinstance(request_id, int) or isinstance(request_id, bool):
            return None
        if not -MAX_ID <= request_id <= MAX_ID:
            return None
        try:
            if method != "tools/call":
                return _answered(request_id, self._dispatch(method, params))
            tool, arguments = self._chosen(params)
            if tool.slow:
                self._wait_for(tool, arguments, request_id, later)
                return None
            self.calls.append(tool.name)
            result = tool.run(arguments)
            assert not inspect.isawaitable(result)  # the tool is not slow
        except Refusal as refusal:
            return _refused(request_id, refusal)
        return _answered(request_id, _result(result))

    def close(self) -> None:
        """Give up calls that wait for the network."""
        for task in self._slow:
            task.cancel()

    def _wait_for(
        self,
        tool: Tool,
        arguments: Mapping[str, Any],
        request_id: int,
        later: Callable[[Answer], None] | None,
    ) -> None:
        if later is None or len(self._slow) >= MAX_SLOW_CALLS:
            raise Refusal("The device is busy")
        self.calls.append(tool.name)

        async def wait() -> None:
            try:
                result = tool.run(arguments)
                answer = await result if inspect.isawaitable(result) else result
                later(_answered(request_id, _result(answer)))
            except Refusal as refusal:
                later(_refused(request_id, refusal))

        task = asyncio.get_running_loop().create_task(wait())
        self._slow.add(task)
        task.add_done_callback(self._slow.discard)

    def _dispatch(self, method: str, params: dict[str, Any]) -> Answer:
        if method == "initialize":
            capabilities = params.get("capabilities")
            vision = capabilities.get("vision") if isinstance(capabilities, dict) else None
            self.vision = vision if isinstance(vision, dict) else {}
            self.board.camera.explain_at(self.vision)
            return {
                "protocolVersion": "2024-11-05",
                "capabilities": {"tools": {}},
                "serverInfo": self._info,
            }
        if method == "tools/list":
            return self._page(params.get("cursor") or "", params.get("withUserTools") is True)
        raise Refusal(f"Method not implemented: {method}")

    def _page(self, cursor: str, with_user_tools: bool) -> Answer:
        tools = [tool for tool in self._tools.values() if with_user_tools or not tool.user_only]
        names = [tool.name for tool in tools]
        if cursor and cursor not in names:
            raise Refusal(f"Unknown cursor: {cursor}")
        listed: list[dict[str, Any]] = []
        size = 0
        for tool in tools[names.index(cursor) if cursor else 0 :]:
            entry = tool.as_json()
            size += len(msgspec.json.encode(entry))
            if listed and size > PAGE_BYTES:
                return {"tools": listed, "nextCursor": tool.name}
            listed.append(entry)
        return {"tools": listed}

    def _chosen(self, params: dict[str, Any]) -> tuple[Tool, dict[str, Any]]:
        name = params.get("name")
        tool = self._tools.get(name) if isinstance(name, str) else None
        if tool is None:
            raise Refusal(f"Unknown tool: {name}")
        given = params.get("arguments")
        return tool, tool.arguments(given if isinstance(given, dict) else {})


def _result(result: Result) -> Answer:
    return {"content": [content(result)], "isError": False}


def _answered(request_id: int, result: Answer) -> Answer:
    return {"jsonrpc": "2.0", "id": request_id, "result": result}


def _refused(request_id: int, refusal: Refusal) -> Answer:
    return {"jsonrpc": "2.0", "id": request_id, "error": {"message": str(refusal)}}
