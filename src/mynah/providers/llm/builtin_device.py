"""Commands about the device itself: volume, brightness, battery, network, switches, through the tools it offers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from mynah.providers.base import ToolCall
from mynah.providers.commands import CommandMatch
from mynah.providers.llm.builtin_switches import find_switches
from mynah.providers.llm.builtin_things import (
    STATE_TOOLS,
    LevelTool,
    find_level_tool,
    read_things,
    takes_level,
)
from mynah.providers.llm.builtin_turn import Turn
from mynah.texts import text

_STATUS_TOOLS = ("self_get_device_status", "get_device_status")

DEFAULT_LEVEL = 50
"""Where a change starts when the device does not tell its present level."""


class _Control(msgspec.Struct, frozen=True):
    """Something of the device that has a level from 0 to 100."""

    name: str
    """Part of text keys, and the name of the tool's argument."""
    section: str
    """Where `get_device_status` has its level."""
    tools: tuple[str, ...]
    """What firmware and other clients call the tool, dots as underscores."""


_VOLUME = _Control(
    "volume", "audio_speaker", ("self_audio_speaker_set_volume", "audio_speaker_set_volume", "set_volume")
)
_BRIGHTNESS = _Control(
    "brightness", "screen", ("self_screen_set_brightness", "screen_set_brightness", "set_brightness")
)
_CONTROLS = {
    "set_volume": _VOLUME, "volume_up": _VOLUME, "volume_down": _VOLUME, "mute": _VOLUME,
    "set_brightness": _BRIGHTNESS, "brightness_up": _BRIGHTNESS, "brightness_down": _BRIGHTNESS,
}  # fmt: skip

_SWITCHES = {"turn_on": True, "turn_off": False}

Said = tuple[str, bool]
"""A sentence, and whether the user got what was asked for."""


def handles(command: CommandMatch) -> bool:
    """Whether a command is about the device."""
    return command.intent in _CONTROLS or command.intent in _SWITCHES or command.intent == "device_status"


def answer(turn: Turn, command: CommandMatch) -> Said | ToolCall:
    """Return the next step for a command about the device."""
    if command.intent == "device_status":
        return _status(turn, str(command.arguments.get("topic", "all")))
    if command.intent in _SWITCHES:
        return _switch(turn, str(command.arguments["name"]), on=_SWITCHES[command.intent])
    return _change(turn, command, _CONTROLS[command.intent])


def _change(turn: Turn, command: CommandMatch, control: _Control) -> Said | ToolCall:
    language = turn.language
    tool = _level_tool(turn, control)
    if tool is None:
        return text(f"device_{control.name}_missing", language), False
    if (done := turn.outcome(tool.name)) is not None:
        if done.refused:
            return text("device_failed", language), False
        level = done.arguments[tool.argument]
        key = "device_muted" if control is _VOLUME and level == 0 else f"device_{control.name}_set"
        return text(key, language, value=level), True
    if "delta" not in command.arguments:
        wanted = 0 if command.intent == "mute" else int(command.arguments[control.name])
        return turn.call(tool.name, {tool.argument: max(0, min(100, wanted))})
    status_tool = _offered(turn, (*_STATUS_TOOLS, *STATE_TOOLS))
    if status_tool and turn.outcome(status_tool) is None:
        return turn.call(status_tool, {})
    level = _level(_read_status(turn), control)
    before = DEFAULT_LEVEL if level is None else level
    after = max(0, min(100, before + int(command.arguments["delta"])))
    if after == before:
        return text(f"device_{control.name}_{'max' if before else 'min'}", language), True
    return turn.call(tool.name, {tool.argument: after})


def _switch(turn: Turn, name: str, *, on: bool) -> Said | ToolCall:
    found = find_switches(turn.tools, turn.descriptions, name, on=on)
    if len(found) != 1:
        return text("device_switch_several" if found else "device_switch_missing", turn.language), False
    switch = found[0]
    if (done := turn.outcome(switch.tool)) is None:
        return turn.call(switch.tool, switch.arguments)
    if done.refused:
        return text("device_failed", turn.language), False
    return text(f"device_switch_{'on' if on else 'off'}", turn.language, name=name), True


def _status(turn: Turn, topic: str) -> Said | ToolCall:
    tool = _offered(turn, (*_STATUS_TOOLS, *STATE_TOOLS))
    if not tool:
        key = f"device_{topic}_missing" if topic in {"battery", "network"} else "device_status_missing"
        return text(key, turn.language), False
    if (done := turn.outcome(tool)) is None:
        return turn.call(tool, {})
    if done.failed:
        return text("device_failed", turn.language), False
    status = _read_status(turn)
    topics = ("battery", "volume", "brightness", "network") if topic == "all" else (topic,)
    sentences = [sentence for name in topics if (sentence := _say(status, name, turn.language))]
    if sentences:
        joint = " " if turn.language == "en" else ""
        return joint.join(sentences), True
    key = f"device_{topic}_missing" if topic in {"battery", "network"} else "device_status_missing"
    return text(key, turn.language), False


def _say(status: Mapping[str, Any], topic: str, language: str) -> str:
    """Put one part of the status into words; empty when the device does not have it."""
    if topic in {"volume", "brightness"}:
        control = _VOLUME if topic == "volume" else _BRIGHTNESS
        level = _level(status, control)
        return text(f"device_{topic}_is", language, value=level) if level is not None else ""
    section = status.get(topic)
    if not isinstance(section, Mapping):
        return ""
    if topic == "battery":
        level = section.get("level")
        key = "device_battery_charging" if section.get("charging") is True else "device_battery_is"
        return text(key, language, value=level) if isinstance(level, int) else ""
    kind = "cellular" if section.get("type") == "cellular" else "wifi"
    name = section.get("carrier" if kind == "cellular" else "ssid")
    signal = str(section.get("signal", "unknown")).replace(" ", "_")
    if signal not in {"very_weak", "weak", "medium", "strong"}:
        signal = "unknown"
    if not isinstance(name, str) or not name:
        return ""
    return text(f"device_network_{kind}", language, name=name, signal=text(f"signal_{signal}", language))


def _level_tool(turn: Turn, control: _Control) -> LevelTool | None:
    agreed = (name for name in control.tools if takes_level(turn.tools.get(name, {}), control.name))
    if name := next(agreed, ""):
        return LevelTool(name, control.name)
    return find_level_tool(turn.tools, control.name)


def _offered(turn: Turn, names: tuple[str, ...]) -> str:
    return next((name for name in names if name in turn.tools), "")


def _read_status(turn: Turn) -> Mapping[str, Any]:
    for tool in (*_STATUS_TOOLS, *STATE_TOOLS):
        done = turn.outcome(tool)
        if done is not None and not done.failed:
            if tool in STATE_TOOLS:
                return read_things(done.content)
            try:
                status = msgspec.json.decode(done.content)
            except (msgspec.DecodeError, UnicodeError):
                return {}
            return status if isinstance(status, dict) else {}
    return {}


def _level(status: Mapping[str, Any], control: _Control) -> int | None:
    section = status.get(control.section)
    level = section.get(control.name) if isinstance(section, Mapping) else None
    return level if isinstance(level, int) and not isinstance(level, bool) else None
