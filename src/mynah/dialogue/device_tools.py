"""The tools of one conversation: the plugins, and what the device itself offers over MCP or as legacy IoT things."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from loguru import logger

from mynah.dialogue.services import VisionAccess
from mynah.tools.device_mcp import DeviceMcp, loggable
from mynah.tools.iot import DeviceThings
from mynah.tools.toolbox import SessionTools, Toolbox
from mynah.wire.mcp import MAX_ID
from mynah.wire.messages import Iot, IotCommands, Mcp, ServerMessage

DISCOVERY_PATIENCE_S = 0.3
"""A device lists its tools within a network round trip or two; some clients never do."""

log = logger.bind(tag="dialogue")


class DeviceTools:
    """Made when a device has something to offer, or when a model first needs tools."""

    __slots__ = ("_device_id", "_discovery", "_mcp", "_send", "_session_id", "_things", "_tools")

    def __init__(
        self, toolbox: Toolbox, send: Callable[[ServerMessage], None], device_id: str, session_id: str
    ) -> None:
        self._send = send
        self._device_id = device_id
        self._session_id = session_id
        self._tools = toolbox.for_session()
        self._mcp: DeviceMcp | None = None
        self._things: DeviceThings | None = None
        self._discovery: asyncio.Task[None] | None = None

    def discover(self, vision: VisionAccess) -> None:
        """Ask a device that speaks MCP for its tools, and tell it where its camera's pictures go."""
        if self._mcp is not None:
            return
        device = self._mcp = DeviceMcp(self._send_mcp, self._device_id)
        self._tools.add(device)

        async def discover() -> None:
            self._tell_offer(device, await device.discover(vision.url, vision.token))

        # Not one of the turn's tasks: an interrupt must not end it; `close` does.
        self._discovery = asyncio.get_running_loop().create_task(discover())

    def on_mcp(self, payload: Mapping[str, Any]) -> None:
        """Take what the device says over MCP."""
        log.debug("{} → mcp {}", self._device_id, _kind_of(payload))
        if self._mcp is not None:
            self._mcp.receive(payload)

    def on_iot(self, message: Iot) -> None:
        """Take descriptions and states of legacy IoT things."""
        if self._things is None:
            self._things = DeviceThings(self._send_iot)
            self._tools.add(self._things)
        if message.descriptors:
            self._things.describe(message.descriptors)
        if message.states:
            self._things.update(message.states)
        log.debug(
            "{} → iot with {} descriptions, {} states; its things: {}",
            self._device_id,
            len(message.descriptors or ()),
            len(message.states or ()),
            loggable(", ".join(thing.name for thing in self._things.things)),
        )

    async def ready(self) -> SessionTools:
        """Return the tools, after a moment for a device that was just asked: first words often come with the hello."""
        if self._discovery is not None and not self._discovery.done():
            await asyncio.wait({self._discovery}, timeout=DISCOVERY_PATIENCE_S)
        return self._tools

    def close(self) -> None:
        """The connection is gone: end all waiting calls."""
        if self._mcp is not None:
            self._mcp.close()

    def _send_mcp(self, payload: dict[str, Any]) -> None:
        log.debug("{} ← mcp {}", self._device_id, _kind_of(payload))
        self._send(Mcp(payload, self._session_id))

    def _send_iot(self, commands: list[dict[str, Any]]) -> None:
        methods = ", ".join(f"{command['name']}.{command['method']}" for command in commands)
        log.debug("{} ← iot {}", self._device_id, loggable(methods))
        self._send(IotCommands(commands, self._session_id))

    def _tell_offer(self, device: DeviceMcp, fault: str) -> None:
        left_out = device.left_out
        reasons = ", ".join(left_out)
        log.info(
            "{} offers {} tools over MCP{}{}",
            self._device_id,
            len(device.tools),
            f", {left_out.total()} left out: {reasons}" if left_out else "",
            f" ({loggable(fault)})" if fault else "",
        )
        log.debug("{} tools: {}", self._device_id, ", ".join(tool.spec.name for tool in device.tools))


def _kind_of(payload: Mapping[str, Any]) -> str:
    """Return what a message is about, without what it says: that may be a token, a picture or somebody's words."""
    if isinstance(method := payload.get("method"), str):
        params = payload.get("params")
        tool = params.get("name") if method == "tools/call" and isinstance(params, Mapping) else None
        kind = f"{method} {tool}" if isinstance(tool, str) else method
    else:
        kind = "error" if "error" in payload else "answer"
    number = payload.get("id")
    return loggable(f"{kind}, id {number}" if isinstance(number, int) and 0 <= number <= MAX_ID else kind)
