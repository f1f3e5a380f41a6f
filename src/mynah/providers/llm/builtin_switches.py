"""Things of a device that can be turned on and off, recognised by what their tools are called.

Nobody has agreed names for these either: a lamp may come as ``Lamp_TurnOn`` and ``Lamp_TurnOff`` without arguments,
or as ``self_lamp_set_power`` with one boolean. A name says both what is switched and what the tool does with it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
"""Words of a tool's name: ``Lamp_TurnOn``, ``self_lamp_turn_on``, ``LED_on``."""

_STATES = {True: frozenset({"on", "open", "enable"}), False: frozenset({"off", "close", "disable"})}
"""What the last word of a tool without arguments says: the state it leads to."""

_ARGUMENTS = frozenset({"on", "power", "state", "enabled", "enable", "value", "status", "switch", "open"})
"""What a boolean may be called for which true means on; others may mean the contrary, or something else."""

_VERBS = frozenset({"turn", "switch", "set", "power", "state", "control", "enabled", "status"})
"""Words of a name that say what is done, not with what. ``self`` stands in front of all names of firmware."""

_SAME = (
    frozenset({"lamp", "lamps", "light", "lights", "led", "bulb", "灯", "灯光", "电灯", "台灯", "灯泡"}),
    frozenset({"fan", "fans", "ventilator", "风扇", "电风扇", "电扇"}),
    frozenset({"screen", "display", "屏幕", "显示屏"}),
    frozenset({"tv", "television", "电视", "电视机"}),
    frozenset({"socket", "outlet", "plug", "插座"}),
    frozenset({"heater", "heating", "暖气", "取暖器", "加热器"}),
    frozenset({"curtain", "curtains", "blinds", "窗帘"}),
    frozenset({"motor", "电机", "马达"}),
    frozenset({"pump", "水泵"}),
    frozenset({"relay", "继电器"}),
    frozenset({"camera", "摄像头", "相机"}),
)
"""Words that people use for one and the same thing, in both languages: tools have English names as a rule."""


class Switch(msgspec.Struct, frozen=True):
    """A tool and the arguments that turn a thing on, or off."""

    tool: str
    arguments: dict[str, bool]
    subject: tuple[str, ...]
    """What is switched: the words of the tool's name that name it."""


def find_switches(
    tools: Mapping[str, Mapping[str, Any]], descriptions: Mapping[str, str], wanted: str, *, on: bool
) -> list[Switch]:
    """Return the tools that turn ``wanted`` on or off, one for each thing that fits best.

    ``tools`` are names → JSON schemas, ``descriptions`` names → texts; ``wanted`` is what the user calls the thing,
    in English or Chinese. More than one means that the name does not say which.
    """
    ranked: list[tuple[int, Switch]] = []
    for name, schema in tools.items():
        switch = _switch(name, schema, on=on)
        if switch is not None and (rank := _rank(switch.subject, descriptions.get(name, ""), wanted)):
            ranked.append((rank, switch))
    best = min((rank for rank, _ in ranked), default=0)
    by_subject: dict[tuple[str, ...], Switch] = {}
    for rank, switch in ranked:
        if rank == best:
            by_subject.setdefault(switch.subject, switch)
    return list(by_subject.values())


def _switch(name: str, schema: Mapping[str, Any], *, on: bool) -> Switch | None:
    """Read out of a tool's name and schema what it switches; None when it is no such tool."""
    words = [word.casefold() for word in _WORD.findall(name) if word != "self"]
    declared = schema.get("properties")
    properties: Mapping[str, Any] = declared if isinstance(declared, Mapping) else {}
    if not properties:
        if len(words) < 2 or words[-1] not in _STATES[on]:
            return None
        return Switch(name, {}, _subject(words[:-1]))
    argument, kind = next(iter(properties.items()))
    boolean = isinstance(kind, Mapping) and kind.get("type") == "boolean"
    if len(properties) != 1 or not boolean or argument.casefold() not in _ARGUMENTS:
        return None
    # A tool that does something else and only happens to take a boolean has a verb that is none of ours.
    if not _VERBS & set(words):
        return None
    return Switch(name, {argument: on}, _subject(words))


def _subject(words: list[str]) -> tuple[str, ...]:
    return tuple(word for word in words if word not in _VERBS)


def _rank(subject: tuple[str, ...], description: str, wanted: str) -> int:
    """Return how well a thing fits what was said: 1 is best, 0 not at all."""
    words = tuple(wanted.casefold().split())
    if not words:
        return 0
    if words == subject:
        return 1
    if all(_names(word) & set(subject) for word in words):
        # "the lamp" is the thing called lamp rather than the one called reading lamp.
        return 2 if len(words) == len(subject) else 3
    # English descriptions mention other things as well; Chinese names of things are found nowhere else.
    chinese = not wanted.isascii()
    return 4 if chinese and any(name in description for name in _names(wanted) if not name.isascii()) else 0


def _names(word: str) -> frozenset[str]:
    return next((names for names in _SAME if word in names), frozenset({word}))
