"""The tools of one conversation: the plugins, and what the device itself offers over MCP or as legacy IoT things."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from loguru import logger

from mynah.dialogue.services import VisionAccess
from mynah.tools.device_mcp import DeviceMcp
from mynah.tools.iot import DeviceThings
from mynah.tools.toolbox import SessionTools, Toolbox
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
        device = self._mcp = DeviceMcp(lambda payload: self._send(Mcp(payload, self._session_id)))
        self._tools.add(device)

        async def discover() -> None:
            if reason := await device.discover(vision.url, vision.token):
                log.debug("{}: not all device tools are known: {}", self._device_id, reason)

        # Not one of the turn's tasks: an interrupt must not end it; `close` does.
        self._discovery = asyncio.get_running_loop().create_task(discover())

    def on_mcp(self, payload: Mapping[str, Any]) -> None:
        """Take what the device says over MCP."""
        if self._mcp is not None:
            self._mcp.receive(payload)

    def on_iot(self, message: Iot) -> None:
        """Take descriptions and states of legacy IoT things."""
        if self._things is None:
            self._things = DeviceThings(lambda commands: self._send(IotCommands(commands, self._session_id)))
            self._tools.add(self._things)
        if message.descriptors:
            self._things.describe(message.descriptors)
        if message.states:
            self._things.update(message.states)

    async def ready(self) -> SessionTools:
        """Return the tools, after a moment for a device that was just asked: first words often come with the hello."""
        if self._discovery is not None and not self._discovery.done():
            await asyncio.wait({self._discovery}, timeout=DISCOVERY_PATIENCE_S)
        return self._tools

    def close(self) -> None:
        """The connection is gone: end all waiting calls."""
        if self._mcp is not None:
            self._mcp.close()
