"""Legacy IoT: how firmware before MCP describes its parts ("things"), reports their state, and is told what to do.

A description says what a thing knows about itself (properties) and what it can do (methods). Firmware does not escape
its texts and clients differ, so what is no description is skipped, and the rest of the message still counts.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

MAX_THINGS = 32
"""Things of one message: real devices have 1 to 10, and every one costs prompt tokens."""

MAX_MEMBERS = 24
"""Properties of a thing, methods of a thing, parameters of a method: the largest known has 8. The rest is left out."""

MAX_TOTAL = 1024
"""Properties, methods and parameters of one message together: ten times what the most gifted device has, and three
milliseconds of reading. Further things are left out."""

MAX_NAME_CHARS = 64
"""Names of things, properties, methods and parameters: firmware's longest one has 20. A longer one is no name."""

MAX_DESCRIPTION_CHARS = 400
"""Longer descriptions are cut: firmware's are one sentence, and each is part of every request to a model."""

MAX_VALUE_BYTES = 1000
"""A state is a number, a word or a title; what is longer as JSON is left out."""


class ValueType(enum.StrEnum):
    """Types of values. Firmware has the first three and takes all numbers as integers; other clients have all."""

    BOOLEAN = "boolean"
    NUMBER = "number"
    STRING = "string"
    INTEGER = "integer"
    ARRAY = "array"
    OBJECT = "object"


class ThingProperty(msgspec.Struct, frozen=True):
    """Something a thing reports. ``type`` is a hint only: some clients call everything text at first."""

    name: str
    description: str = ""
    type: ValueType = ValueType.STRING


class ThingParameter(msgspec.Struct, frozen=True):
    """An argument of a method. Firmware does not say which are optional and crashes when one is left out."""

    name: str
    description: str = ""
    type: ValueType = ValueType.STRING
    required: bool = True


class ThingMethod(msgspec.Struct, frozen=True):
    """Something a thing can do. There is no answer to it, only the state that comes later."""

    name: str
    description: str = ""
    parameters: tuple[ThingParameter, ...] = ()


class Thing(msgspec.Struct, frozen=True):
    """One part of a device: speaker, screen, lamp."""

    name: str
    description: str = ""
    properties: tuple[ThingProperty, ...] = ()
    methods: tuple[ThingMethod, ...] = ()


def parse_descriptors(descriptors: Iterable[object]) -> tuple[Thing, ...]:
    """Read ``descriptors`` of an ``iot`` message; what neither reports nor does anything is left out."""
    things: list[Thing] = []
    total = 0
    for entry in _first(descriptors, MAX_THINGS):
        thing = _parse_thing(entry)
        if thing is None:
            continue
        total += len(thing.properties) + sum(1 + len(method.parameters) for method in thing.methods)
        if total > MAX_TOTAL:
            break
        things.append(thing)
    return tuple(things)


def parse_states(states: Iterable[object]) -> dict[str, dict[str, Any]]:
    """Read ``states`` of an ``iot`` message: name of the thing → name of the property → JSON value."""
    found: dict[str, dict[str, Any]] = {}
    for entry in _first(states, MAX_THINGS):
        if not isinstance(entry, Mapping) or not _is_name(entry.get("name")):
            continue
        values = {name: value for name, value in _members(entry.get("state")) if _is_state(value)}
        found.setdefault(entry["name"], {}).update(values)
    return found


def command(thing: str, method: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return an entry of `messages.IotCommands`. The types must be those described: devices do not convert."""
    return {"name": thing, "method": method, "parameters": dict(parameters)}


def _parse_thing(entry: object) -> Thing | None:
    if not isinstance(entry, Mapping) or not _is_name(entry.get("name")):
        return None
    thing = Thing(
        name=entry["name"],
        description=_description(entry),
        properties=tuple(
            ThingProperty(name, _description(value), _type(value))
            for name, value in _members(entry.get("properties"))
        ),
        methods=tuple(
            ThingMethod(name, _description(value), _parse_parameters(value))
            for name, value in _members(entry.get("methods"))
        ),
    )
    return thing if thing.properties or thing.methods else None


def _parse_parameters(method: object) -> tuple[ThingParameter, ...]:
    if not isinstance(method, Mapping):
        return ()
    return tuple(
        ThingParameter(name, _description(value), _type(value), _field(value, "required") is not False)
        for name, value in _members(method.get("parameters"))
    )


def _members(value: object) -> Iterable[tuple[str, Any]]:
    """Return the named entries of an object. An old list of objects that carry their ``name`` is read as well."""
    if isinstance(value, list):
        named = [(_field(item, "name"), item) for item in value[:MAX_MEMBERS]]
    elif isinstance(value, Mapping):
        named = _first(value.items(), MAX_MEMBERS)
    else:
        named = []
    # Of two with the same name the later one counts.
    return {name: item for name, item in named if _is_name(name)}.items()


def _first(values: Iterable[Any], count: int) -> list[Any]:
    return [value for _, value in zip(range(count), values, strict=False)]


def _field(value: object, name: str) -> Any:
    return value.get(name) if isinstance(value, Mapping) else None


def _is_name(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MAX_NAME_CHARS and bool(value.strip())


def _description(value: object) -> str:
    text = _field(value, "description")
    return " ".join(text[:MAX_DESCRIPTION_CHARS].split()) if isinstance(text, str) else ""


_TYPES = {kind.value: kind for kind in ValueType} | {
    "bool": ValueType.BOOLEAN,
    "float": ValueType.NUMBER,
    "double": ValueType.NUMBER,
    "int": ValueType.INTEGER,
    "list": ValueType.ARRAY,
}


def _type(value: object) -> ValueType:
    kind = _field(value, "type")
    return (
        _TYPES.get(kind.strip().casefold(), ValueType.STRING) if isinstance(kind, str) else ValueType.STRING
    )


def _is_state(value: object) -> bool:
    if value is None:
        return False
    try:
        return len(msgspec.json.encode(value)) <= MAX_VALUE_BYTES
    except (OverflowError, RecursionError, ValueError):
        return False
