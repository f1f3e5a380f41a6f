"""The hardware behind a device's tools, and the tools that all boards have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from mynah.sim.board_parts import part_tools
from mynah.sim.camera import JPEG, Camera, send_snapshot
from mynah.sim.discovery import DeviceIdentity
from mynah.sim.mcp_tool import Tool

_PERCENT = {"type": "integer", "minimum": 0, "maximum": 100}


class DeviceSettings(msgspec.Struct):
    """What the tools change."""

    volume: int = 70
    brightness: int = 75
    theme: str = "light"
    reboots: int = 0
    parts: dict[str, bool | int | str] = {}
    """State of what only some boards have, by the name of the tool that sets it."""
    firmware_url: str = ""
    """Where the user wants the next firmware from."""
    assets_url: str = ""
    """Where fonts and pictures are to be fetched from at the next boot."""


class Board:
    """A device's hardware. ``settings`` is its state."""

    def __init__(self, identity: DeviceIdentity, *, photo: bytes = b"") -> None:
        """``photo`` (JPEG) is what the camera sees; with it the board has one."""
        self.settings = DeviceSettings()
        self.camera = Camera(identity, photo or JPEG)
        self._has_camera = bool(photo)
        self._identity = identity

    def tools(self, *, full: bool = False) -> list[Tool]:
        """Return the tools in firmware's order: common ones, the board's, those for the user only.

        With ``full`` the board has everything, and its list needs more than one page.
        """
        tools = self._common()
        if full or self._has_camera:
            tools.append(self._photo())
        if full:
            tools += part_tools(self.settings.parts)
        tools.append(Tool("self.reboot", "Reboot the system", self._reboot, user_only=True))
        return tools + (self._user_only() if full else [])

    def _common(self) -> list[Tool]:
        return [
            Tool(
                "self.get_device_status",
                "Provides the real-time information of the device: speaker, screen, battery and network. "
                "Use it before you control the device, and to answer questions about its condition.",
                self._status,
            ),
            Tool(
                "self.audio_speaker.set_volume",
                "Set the volume of the audio speaker. If the current volume is unknown, call "
                "`self.get_device_status` first.",
                self._set_volume,
                {"volume": _PERCENT},
            ),
            Tool(
                "self.screen.set_brightness",
                "Set the brightness of the screen.",
                self._set_brightness,
                {"brightness": _PERCENT},
            ),
            Tool(
                "self.screen.set_theme",
                "Set the theme of the screen: `light` or `dark`.",
                self._set_theme,
                {"theme": {"type": "string"}},
            ),
        ]

    def _photo(self) -> Tool:
        return Tool(
            "self.camera.take_photo",
            "Take a photo and explain it. Use this tool after the user asks you to see something.\n"
            "Args:\n  `question`: The question that you want to ask about the photo.\n"
            "Return:\n  A JSON object that provides the photo information.",
            lambda arguments: self.camera.take_photo(arguments["question"]),
            {"question": {"type": "string"}},
            slow=True,
        )

    def _user_only(self) -> list[Tool]:
        url = {"type": "string"}
        # Firmware declares this one with its help text where the default belongs, so it is never required.
        help_text = {
            "type": "string",
            "default": "The URL of the firmware binary file to download and install",
        }
        quality = {"type": "integer", "default": 80, "minimum": 1, "maximum": 100}
        listed: list[tuple[str, str, Any, dict[str, dict[str, Any]]]] = [
            ("self.get_system_info", "Get the system information", self._system_info, {}),
            (
                "self.upgrade_firmware",
                "Upgrade firmware from a specific URL. This will download and install the firmware, then reboot "
                "the device.",
                self._upgrade,
                {"url": help_text},
            ),
            (
                "self.screen.get_info",
                "Information about the screen, including width, height, etc.",
                self._screen_info,
                {},
            ),
            (
                "self.assets.set_download_url",
                "Set the download url for the assets",
                self._set_assets,
                {"url": url},
            ),
        ]
        snapshot = Tool(
            "self.screen.snapshot",
            "Snapshot the screen and upload it to a specific URL",
            lambda arguments: send_snapshot(arguments["url"]),
            {"url": url, "quality": quality},
            user_only=True,
            slow=True,
        )
        return [*(Tool(*entry, user_only=True) for entry in listed), snapshot]

    def _status(self, _arguments: Mapping[str, Any]) -> dict[str, Any]:
        settings = self.settings
        return {
            "audio_speaker": {"volume": settings.volume},
            "screen": {"brightness": settings.brightness, "theme": settings.theme},
            "battery": {"level": 80, "charging": False},
            "network": {"type": "wifi", "ssid": "simulated", "signal": "strong"},
        }

    def _set_volume(self, arguments: Mapping[str, Any]) -> bool:
        self.settings.volume = arguments["volume"]
        return True

    def _set_brightness(self, arguments: Mapping[str, Any]) -> bool:
        self.settings.brightness = arguments["brightness"]
        return True

    def _set_theme(self, arguments: Mapping[str, Any]) -> bool:
        if arguments["theme"] not in {"light", "dark"}:
            return False
        self.settings.theme = arguments["theme"]
        return True

    def _reboot(self, _arguments: Mapping[str, Any]) -> bool:
        self.settings.reboots += 1
        return True

    def _system_info(self, _arguments: Mapping[str, Any]) -> str:
        return self._identity.ota_body().decode()

    def _screen_info(self, _arguments: Mapping[str, Any]) -> dict[str, Any]:
        return {"width": 240, "height": 240, "monochrome": False}

    def _upgrade(self, arguments: Mapping[str, Any]) -> bool:
        self.settings.firmware_url = arguments["url"]
        return True

    def _set_assets(self, arguments: Mapping[str, Any]) -> bool:
        self.settings.assets_url = arguments["url"]
        return True
