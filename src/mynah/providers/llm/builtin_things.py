"""Levels and state of a device whose tools nobody has agreed names for: legacy IoT things above all.

What a tool is for is read out of its name and its schema: ``Speaker_SetVolume`` with one number called ``volume``
sets the volume.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

STATE_TOOLS = ("get_device_state", "get_device_state_device")
"""What the server calls its tool that tells the state of things; the latter when a plugin has the name."""

_ARGUMENTS = frozenset({"value", "level", "percent", "percentage"})
"""What the number may be called when the tool's name says what it is for."""

_PLACES = {"volume": ("speaker",), "brightness": ("screen", "backlight", "display")}
"""Parts of the device whose level is meant; others (a lamp, a music player) only when there is none of these."""


class LevelTool(msgspec.Struct, frozen=True):
    """A tool that sets a level from 0 to 100, and the name of its one argument."""

    name: str
    argument: str


def takes_level(schema: Mapping[str, Any], argument: str) -> bool:
    """Whether a tool takes a level from 0 to 100 as ``argument``; calling another one would change nothing."""
    properties = schema.get("properties")
    declared = properties.get(argument) if isinstance(properties, Mapping) else None
    if not isinstance(declared, Mapping):
        return False
    # Compared one by one: what a device declares need not be hashable.
    kind, maximum = declared.get("type"), declared.get("maximum")
    # One that counts otherwise, in steps or up to 255, would be set to something else than was said.
    return (kind == "number" or kind == "integer") and (maximum is None or maximum == 100)  # noqa: PLR1714


def find_level_tool(tools: Mapping[str, Mapping[str, Any]], level: str) -> LevelTool | None:
    """Return the tool that sets ``level`` (``volume`` or ``brightness``); ``tools`` are names → JSON schemas."""
    found = [
        LevelTool(name, argument)
        for name, schema in tools.items()
        if (argument := _level_argument(name.casefold(), schema, level))
    ]
    return min(found, key=lambda tool: _rank(tool.name, level), default=None)


def read_things(content: str) -> Mapping[str, Any]:
    """Return what `STATE_TOOLS` answered in the shape of firmware's ``get_device_status``; empty when unreadable."""
    try:
        things = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return {}
    if not isinstance(things, dict):
        return {}
    status: dict[str, Any] = {}
    for section, level in (("audio_speaker", "volume"), ("screen", "brightness")):
        values = [(thing, value) for thing, name, value in _values(things) if name == level]
        if values:
            status[section] = {level: min(values, key=lambda found: _rank(found[0], level))[1]}
    battery = {
        "charging" if name == "charging" else "level": value
        for thing, name, value in _values(things)
        if name in {"battery", "battery_level"} or ("battery" in thing and name in {*_ARGUMENTS, "charging"})
    }
    if battery:
        status["battery"] = battery
    return status


def _level_argument(name: str, schema: Mapping[str, Any], level: str) -> str:
    properties = schema.get("properties")
    if not isinstance(properties, Mapping) or len(properties) != 1:
        return ""
    argument = next(iter(properties))
    if not takes_level(schema, argument):
        return ""
    plain = argument.casefold()
    return argument if plain == level or (level in name and plain in _ARGUMENTS) else ""


def _rank(name: str, level: str) -> int:
    return 0 if any(place in name.casefold() for place in _PLACES[level]) else 1


def _values(things: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """Yield the values that were reported: thing, property (both in small letters), value; whole numbers as int."""
    for thing, properties in things.items():
        for name, told in properties.items() if isinstance(properties, dict) else ():
            if isinstance(told, dict) and "value" in told:
                value = told["value"]
                whole = isinstance(value, float) and value.is_integer()
                yield thing.casefold(), name.casefold(), int(value) if whole else value
