"""The tools a device offers as legacy IoT things: one per method, and one that tells the state of all things."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from mynah.providers.base import ToolSpec
from mynah.tools.arguments import fit
from mynah.tools.base import Tool, ToolContext, ToolResult
from mynah.wire.iot import (
    MAX_MEMBERS,
    MAX_THINGS,
    Thing,
    ThingMethod,
    ThingParameter,
    ValueType,
    command,
    parse_descriptors,
    parse_states,
)

STATE_TOOL = "get_device_state"
"""Reads the state of all things. One for all: every further tool would cost prompt tokens in each request."""

MAX_TOOLS = 128
"""Tools made from one device, as many as OpenAI's interface takes in one request. Overflow policy: the rest of the
methods, in the order of the device, gets none."""

MAX_NAME_CHARS = 64
"""The longest name of a function that OpenAI's interface allows."""

MAX_DESCRIPTION_CHARS = 1000
"""Of the state tool, which names all properties: ten times what the commonest devices need. The rest is cut."""

MAX_STATE_CHARS = 8000
"""Of an answer about the state; longer ones are given without the descriptions of the properties."""

_UNSAFE = re.compile(r"[^A-Za-z0-9_-]+")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_RANGE = re.compile(r"(-?\d+)\s*%?\s*(?:-|–|~|～|到|至|to|and|\.\.)\s*(-?\d+)", re.IGNORECASE)
_INTEGER = re.compile(r"整数|整數|\binteger\b", re.IGNORECASE)
_NO_RANGE = re.compile(r"例|比如|默认|預設|e\.g|example|default|such as|step", re.IGNORECASE)


class DeviceThings:
    """The things of one connection. Holds what the device has told, and no task, timer or future."""

    def __init__(self, send: Callable[[list[dict[str, Any]]], None]) -> None:
        """``send`` puts commands into an ``iot`` message and on its way; it must not block."""
        self._send = send
        self._things: dict[str, Thing] = {}
        self._states: dict[str, dict[str, Any]] = {}
        self._tools: tuple[Tool, ...] | None = ()

    @property
    def tools(self) -> tuple[Tool, ...]:
        """What the device offers to a language model; a new tuple whenever that changes."""
        if self._tools is None:  # made when a model asks, not for each of the messages that describe a device
            self._tools = self._make_tools()
        return self._tools

    @property
    def things(self) -> tuple[Thing, ...]:
        """All things that the device has described, in the order in which it did."""
        return tuple(self._things.values())

    def describe(self, descriptors: list[dict[str, Any]]) -> None:
        """Take in ``descriptors``: of one message, or of several, as some clients send one thing each.

        A description replaces the earlier one of the same name. Beyond `MAX_THINGS` new ones are dropped.
        """
        before = dict(self._things)
        for thing in parse_descriptors(descriptors):
            if thing.name in self._things or len(self._things) < MAX_THINGS:
                self._things[thing.name] = thing
        if self._things != before:
            self._tools = None

    def update(self, states: list[dict[str, Any]]) -> None:
        """Take in ``states``; they may come before the description, and hold only what has changed.

        Beyond `MAX_THINGS` things, or `MAX_MEMBERS` properties of one, new ones are dropped.
        """
        for name, state in parse_states(states).items():
            if name not in self._states and len(self._states) >= MAX_THINGS:
                continue
            known = self._states.setdefault(name, {})
            for key, value in state.items():
                if key in known or len(known) < MAX_MEMBERS:
                    known[key] = value

    def invoke(self, thing: Thing, method: ThingMethod, arguments: Mapping[str, Any]) -> None:
        """Send one command; there will be no answer."""
        self._send([command(thing.name, method.name, arguments)])

    def value(self, thing: Thing, name: str) -> Any:
        """Return what the device last reported of a property; None when it has not."""
        return self._states.get(thing.name, {}).get(name)

    def _make_tools(self) -> tuple[Tool, ...]:
        taken: set[str] = {STATE_TOOL}
        tools: list[Tool] = []
        if any(thing.properties for thing in self._things.values()):
            tools.append(StateTool(self))
        methods = [(thing, method) for thing in self._things.values() for method in thing.methods]
        for thing, method in methods[: MAX_TOOLS - len(tools)]:
            name = _unique(f"{_safe(thing.name, 'thing')}_{_safe(method.name, 'do')}", taken)
            taken.add(name)
            tools.append(MethodTool(self, thing, method, name))
        return tuple(tools)


class MethodTool:
    """One method of a thing."""

    def __init__(self, device: DeviceThings, thing: Thing, method: ThingMethod, name: str) -> None:
        self._device = device
        self._thing = thing
        self._method = method
        about = f"{thing.name}: {thing.description}" if thing.description else thing.name
        properties = {parameter.name: _schema(parameter) for parameter in method.parameters}
        required = [parameter.name for parameter in method.parameters if parameter.required]
        self._spec = ToolSpec(
            name=name,
            description=f"{method.description or method.name} ({about})",
            parameters={"type": "object", "properties": properties, "required": required},
        )

    @property
    def spec(self) -> ToolSpec:
        """How a model sees it: the name of the thing, then that of the method."""
        return self._spec

    async def call(self, context: ToolContext, arguments: Mapping[str, Any]) -> ToolResult:  # noqa: ARG002
        """Have the device do it; it does not say whether it did. Raises ToolError on arguments it cannot take."""
        fitted = fit(arguments, self._spec.parameters)
        reported = {
            entry.name: value
            for entry in self._thing.properties
            if (value := self._device.value(self._thing, entry.name)) is not None
        }
        self._device.invoke(
            self._thing, self._method, {name: _plain(value) for name, value in fitted.items()}
        )
        sent = "The command was sent. This device does not confirm commands."
        if reported:
            return ToolResult(f"{sent} Before it, {self._thing.name} had reported {_json(reported)}.")
        return ToolResult(f"{sent} {self._thing.name} has not reported a state.")


class StateTool:
    """What all things last reported."""

    def __init__(self, device: DeviceThings) -> None:
        self._device = device
        parts = [
            f"{thing.name} ({', '.join(entry.name for entry in thing.properties)})"
            for thing in device.things
            if thing.properties
        ]
        description = f"Read the present state of the device's parts: {'; '.join(parts)}."
        self._spec = ToolSpec(
            name=STATE_TOOL,
            description=description[:MAX_DESCRIPTION_CHARS],
            parameters={"type": "object", "properties": {}},
        )

    @property
    def spec(self) -> ToolSpec:
        """How a model sees it."""
        return self._spec

    async def call(self, context: ToolContext, arguments: Mapping[str, Any]) -> ToolResult:  # noqa: ARG002
        """Tell what the device last reported as JSON: thing → property → ``value`` and what it ``means``.

        A property that has not been reported says ``unknown`` in place of its ``value``.
        """
        content = _json(self._states(described=True))
        if len(content) > MAX_STATE_CHARS:
            content = _json(self._states(described=False))
        return ToolResult(content)

    def _states(self, *, described: bool) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        for thing in self._device.things:
            for entry in thing.properties:
                value = self._device.value(thing, entry.name)
                told: dict[str, Any] = (
                    {"value": value} if value is not None else {"unknown": "not reported yet"}
                )
                if described and entry.description:
                    told["means"] = entry.description
                found.setdefault(thing.name, {})[entry.name] = told
        return found


def _schema(parameter: ThingParameter) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": parameter.type.value}
    if parameter.description:
        schema["description"] = parameter.description
    if parameter.type is ValueType.ARRAY:
        # OpenAI's interface refuses a list without it.
        schema["items"] = {}
    if parameter.type not in {ValueType.NUMBER, ValueType.INTEGER}:
        return schema
    if _INTEGER.search(parameter.description):
        schema["type"] = ValueType.INTEGER.value
    bounds = _bounds(parameter.description)
    if bounds is not None:
        schema["minimum"], schema["maximum"] = bounds
    return schema


def _bounds(description: str) -> tuple[int, int] | None:
    """Read the range out of a description such as "0到100之间的整数"; None unless it can mean nothing else.

    Firmware stores a volume in eight bits without looking: 300 would become 44.
    """
    found = _RANGE.findall(description)
    if len(found) != 1 or _NO_RANGE.search(description):
        return None
    low, high = int(found[0][0]), int(found[0][1])
    others = len(_NUMBER.findall(_RANGE.sub("", description)))
    return (low, high) if low < high and not others else None


def _plain(value: Any) -> Any:
    """Write a whole number as one: firmware has nothing else."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _safe(name: str, instead: str) -> str:
    """Return ``name`` with what a function's name may hold; ``instead`` when nothing is left (Chinese names)."""
    return _UNSAFE.sub("_", name).strip("_") or instead


def _unique(name: str, taken: set[str]) -> str:
    candidate, n = name[:MAX_NAME_CHARS], 1
    while candidate in taken:
        n += 1
        suffix = f"_{n}"
        candidate = name[: MAX_NAME_CHARS - len(suffix)] + suffix
    return candidate


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
