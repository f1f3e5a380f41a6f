"""The MCP server inside a device: a few of firmware's built-in tools, with its rules and its quirks.

Ids are numbers only, errors have no code, answers to nothing are silence, tool lists come in pages of about 8 kB
whose cursor is the name of the next tool, and user-only tools are hidden but callable.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

PAGE_BYTES = 8000
MAX_ID = 2**31 - 1


class DeviceSettings(msgspec.Struct):
    """What the tools change."""

    volume: int = 70
    brightness: int = 75
    theme: str = "light"
    reboots: int = 0


class _Tool(msgspec.Struct, frozen=True):
    name: str
    description: str
    run: Callable[[Mapping[str, Any]], str]
    properties: dict[str, dict[str, Any]] = {}
    user_only: bool = False

    def as_json(self) -> dict[str, Any]:
        schema: dict[str, Any] = {"type": "object", "properties": self.properties}
        required = [name for name, prop in self.properties.items() if "default" not in prop]
        if required:
            schema["required"] = required
        listed: dict[str, Any] = {
            "name": self.name,
            "description": self.description,
            "inputSchema": schema,
        }
        if self.user_only:
            listed["annotations"] = {"audience": ["user"]}
        return listed


class _Refusal(Exception):  # noqa: N818 - an answer to the caller, not a fault
    pass


class DeviceMcpServer:
    """Answers JSON-RPC payloads. ``settings`` is the state the tools work on; ``calls`` lists tools by name."""

    def __init__(self, name: str = "mynah-simulator", version: str = "2.4.2") -> None:
        self.settings = DeviceSettings()
        self.calls: list[str] = []
        self.vision: dict[str, Any] = {}
        """What the last ``initialize`` said about the camera service."""
        self._info = {"name": name, "version": version}
        percent = {"type": "integer", "minimum": 0, "maximum": 100}
        tools = (
            _Tool(
                "self.get_device_status",
                "Provides the real-time information of the device: speaker, screen, battery and network. "
                "Use it before you control the device, and to answer questions about its condition.",
                self._status,
            ),
            _Tool(
                "self.audio_speaker.set_volume",
                "Set the volume of the audio speaker. If the current volume is unknown, call "
                "`self.get_device_status` first.",
                self._set_volume,
                {"volume": percent},
            ),
            _Tool(
                "self.screen.set_brightness",
                "Set the brightness of the screen.",
                self._set_brightness,
                {"brightness": percent},
            ),
            _Tool(
                "self.screen.set_theme",
                "Set the theme of the screen: `light` or `dark`.",
                self._set_theme,
                {"theme": {"type": "string"}},
            ),
            _Tool("self.reboot", "Reboot the system.", self._reboot, user_only=True),
        )
        self._tools = {tool.name: tool for tool in tools}

    def handle(self, payload: Mapping[str, Any]) -> dict[str, Any] | None:
        """Answer one payload, or return None where firmware stays silent."""
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
            result = self._dispatch(method, params)
        except _Refusal as refusal:
            return {"jsonrpc": "2.0", "id": request_id, "error": {"message": str(refusal)}}
        return {"jsonrpc": "2.0", "id": request_id, "result": result}

    def _dispatch(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        if method == "initialize":
            capabilities = params.get("capabilities")
            vision = capabilities.get("vision") if isinstance(capabilities, dict) else None
            self.vision = vision if isinstance(vision, dict) else {}
            return {
                "protocolVersion": "2024-11-05",
                "capabilities": {"tools": {}},
                "serverInfo": self._info,
            }
        if method == "tools/list":
            return self._page(params.get("cursor") or "", params.get("withUserTools") is True)
        if method == "tools/call":
            return self._call(params)
        raise _Refusal(f"Method not implemented: {method}")

    def _page(self, cursor: str, with_user_tools: bool) -> dict[str, Any]:
        tools = [tool for tool in self._tools.values() if with_user_tools or not tool.user_only]
        names = [tool.name for tool in tools]
        if cursor and cursor not in names:
            raise _Refusal(f"Unknown cursor: {cursor}")
        listed: list[dict[str, Any]] = []
        size = 0
        for tool in tools[names.index(cursor) if cursor else 0 :]:
            entry = tool.as_json()
            size += len(msgspec.json.encode(entry))
            if listed and size > PAGE_BYTES:
                return {"tools": listed, "nextCursor": tool.name}
            listed.append(entry)
        return {"tools": listed}

    def _call(self, params: dict[str, Any]) -> dict[str, Any]:
        name = params.get("name")
        tool = self._tools.get(name) if isinstance(name, str) else None
        if tool is None:
            raise _Refusal(f"Unknown tool: {name}")
        given = params.get("arguments")
        arguments = {
            key: _argument(key, schema, given if isinstance(given, dict) else {})
            for key, schema in tool.properties.items()
        }
        self.calls.append(tool.name)
        return {"content": [{"type": "text", "text": tool.run(arguments)}], "isError": False}

    def _status(self, _arguments: Mapping[str, Any]) -> str:
        settings = self.settings
        return msgspec.json.encode(
            {
                "audio_speaker": {"volume": settings.volume},
                "screen": {"brightness": settings.brightness, "theme": settings.theme},
                "battery": {"level": 80, "charging": False},
                "network": {"type": "wifi", "ssid": "simulated", "signal": "strong"},
            }
        ).decode()

    def _set_volume(self, arguments: Mapping[str, Any]) -> str:
        self.settings.volume = arguments["volume"]
        return "true"

    def _set_brightness(self, arguments: Mapping[str, Any]) -> str:
        self.settings.brightness = arguments["brightness"]
        return "true"

    def _set_theme(self, arguments: Mapping[str, Any]) -> str:
        if arguments["theme"] not in {"light", "dark"}:
            return "false"
        self.settings.theme = arguments["theme"]
        return "true"

    def _reboot(self, _arguments: Mapping[str, Any]) -> str:
        self.settings.reboots += 1
        return "true"


def _argument(name: str, schema: Mapping[str, Any], given: Mapping[str, Any]) -> Any:
    """Take one argument as firmware does: a value of another type counts as missing."""
    value = given.get(name)
    if schema["type"] == "integer":
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise _Refusal(f"Missing valid argument: {name}")
        number = int(value)
        if not schema["minimum"] <= number <= schema["maximum"]:
            raise _Refusal(f"Value of {name} is out of range")
        return number
    if not isinstance(value, str):
        raise _Refusal(f"Missing valid argument: {name}")
    return value
