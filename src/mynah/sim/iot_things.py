"""The legacy IoT things inside a device: the four of most firmware before MCP, with its rules and its quirks.

Commands are never answered, not even refused. Numbers are cut to whole ones and stored in eight bits, text where a
number belongs counts as zero, and a missing parameter crashes the device; such harm is listed in ``faults``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec


class ThingSettings(msgspec.Struct):
    """What the things report. ``volume``, ``brightness`` and ``level`` in percent."""

    volume: int = 70
    brightness: int = 75
    theme: str = "light"
    power: bool = False
    level: int = 80
    charging: bool = False


class _Method(msgspec.Struct, frozen=True):
    description: str
    run: Callable[[ThingSettings, Mapping[str, Any]], None]
    parameters: Mapping[str, tuple[str, str]] = {}
    """Name → (type, description)."""


class _Thing(msgspec.Struct, frozen=True):
    description: str
    properties: Mapping[str, tuple[str, str]]
    methods: Mapping[str, _Method] = {}


def _set(name: str, source: str | None = None, value: Any = None) -> Callable[..., None]:
    def run(settings: ThingSettings, given: Mapping[str, Any]) -> None:
        setattr(settings, name, given[source] if source is not None else value)

    return run


_THINGS = {
    "Speaker": _Thing(
        "机器人的扬声器",
        {"volume": ("number", "扬声器现在的音量")},
        {
            "SetVolume": _Method(
                "调节音量", _set("volume", "volume"), {"volume": ("number", "0到100之间的整数")}
            )
        },
    ),
    "Screen": _Thing(
        "The screen of the device",
        {"theme": ("string", "Theme in use"), "brightness": ("number", "Brightness in percent")},
        {
            "SetTheme": _Method(
                "Change the theme",
                _set("theme", "theme_name"),
                {"theme_name": ("string", "'light' or 'dark'")},
            ),
            "SetBrightness": _Method(
                "Change the brightness",
                _set("brightness", "brightness"),
                {"brightness": ("number", "An integer between 0 and 100")},
            ),
        },
    ),
    "Lamp": _Thing(
        "A lamp",
        {"power": ("boolean", "Whether the lamp is on")},
        {
            "TurnOn": _Method("Turn the lamp on", _set("power", value=True)),
            "TurnOff": _Method("Turn the lamp off", _set("power", value=False)),
        },
    ),
    "Battery": _Thing(
        "The battery of the device",
        {"level": ("number", "Charge in percent"), "charging": ("boolean", "Whether it is being charged")},
    ),
}


class IotThings:
    """Describes itself, reports states and takes commands. ``calls`` lists methods as ``Thing.Method``."""

    def __init__(self) -> None:
        self.settings = ThingSettings()
        self.calls: list[str] = []
        self.faults: list[str] = []
        """What a real device would have crashed on or misunderstood."""
        self._reported: dict[str, dict[str, Any]] = {}

    def descriptors(self) -> list[dict[str, Any]]:
        """Return what goes into the ``descriptors`` of an ``iot`` message."""
        return [
            {
                "name": name,
                "description": thing.description,
                "properties": _described(thing.properties),
                "methods": {
                    method_name: {
                        "description": method.description,
                        "parameters": _described(method.parameters),
                    }
                    for method_name, method in thing.methods.items()
                },
            }
            for name, thing in _THINGS.items()
        ]

    def states(self, *, changed_only: bool = False) -> list[dict[str, Any]]:
        """Return ``states`` of an ``iot`` message: of all things, or of those that changed since the last report."""
        found = []
        for name, thing in _THINGS.items():
            state = {entry: getattr(self.settings, entry) for entry in thing.properties}
            if not changed_only or self._reported.get(name) != state:
                found.append({"name": name, "state": state})
            self._reported[name] = state
        return found

    def handle(self, commands: list[dict[str, Any]]) -> None:
        """Do what an ``iot`` message says; what is unknown is ignored."""
        for command in commands:
            name, method_name = command.get("name"), command.get("method")
            thing = _THINGS.get(name) if isinstance(name, str) else None
            method = thing.methods.get(method_name) if thing and isinstance(method_name, str) else None
            if method is None:
                continue
            given = command.get("parameters")
            arguments = self._arguments(
                f"{name}.{method_name}", method, given if isinstance(given, dict) else {}
            )
            if arguments is not None:
                self.calls.append(f"{name}.{method_name}")
                method.run(self.settings, arguments)

    def _arguments(self, where: str, method: _Method, given: Mapping[str, Any]) -> dict[str, Any] | None:
        arguments: dict[str, Any] = {}
        for name, (kind, _) in method.parameters.items():
            value = given.get(name)
            if value is None or (kind == "string" and not isinstance(value, str)):
                self.faults.append(f"{where} without {name}: firmware crashes")
                return None
            if kind == "number":
                is_number = isinstance(value, int | float) and not isinstance(value, bool)
                number = int(value) if is_number else 0
                if not is_number or number != value or not 0 <= number <= 255:
                    self.faults.append(f"{where} with {name} {value!r}: taken for {number & 0xFF}")
                value = number & 0xFF
            arguments[name] = value
        return arguments


def _described(members: Mapping[str, tuple[str, str]]) -> dict[str, dict[str, str]]:
    return {name: {"description": description, "type": kind} for name, (kind, description) in members.items()}
