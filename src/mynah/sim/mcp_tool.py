"""One tool of a device's MCP server: how firmware lists it, takes its arguments and writes its result."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec


class Picture(msgspec.Struct, frozen=True):
    """A result that is an image."""

    data: bytes
    mime_type: str = "image/jpeg"


Result = bool | int | str | dict[str, Any] | Picture
"""What a tool returns: truth, a whole number, plain text, an object or an image."""

Run = Callable[[Mapping[str, Any]], Result | Awaitable[Result]]


class Refusal(Exception):  # noqa: N818 - an answer to the caller, not a fault
    """A tool, or the server, declines; the text goes to the caller."""


class Tool(msgspec.Struct, frozen=True):
    """A tool. ``properties`` are JSON schemas by name, of type boolean, integer or string.

    ``run`` gets the arguments checked; only that of a ``slow`` tool returns an awaitable.
    """

    name: str
    description: str
    run: Run
    properties: dict[str, dict[str, Any]] = {}
    user_only: bool = False
    slow: bool = False

    def as_json(self) -> dict[str, Any]:
        """Return the entry of a tool list."""
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

    def arguments(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Take the arguments as firmware does: a value of another type counts as missing. Raises Refusal."""
        return {name: _argument(name, schema, given.get(name)) for name, schema in self.properties.items()}


def _argument(name: str, schema: Mapping[str, Any], value: object) -> bool | int | str:
    kind = schema["type"]
    if kind == "boolean" and isinstance(value, bool):
        return value
    if kind == "string" and isinstance(value, str):
        return value
    if kind == "integer" and isinstance(value, int | float) and not isinstance(value, bool):
        number = int(value)
        if not schema.get("minimum", number) <= number <= schema.get("maximum", number):
            raise Refusal(f"Value of {name} is out of range")
        return number
    if "default" not in schema:
        raise Refusal(f"Missing valid argument: {name}")
    default: bool | int | str = schema["default"]
    return default


def content(result: Result) -> dict[str, Any]:
    """Write a result as firmware does: as text, objects as JSON; images in a form of its own."""
    match result:
        case Picture():
            image = {
                "type": "image",
                "mimeType": result.mime_type,
                "data": base64.b64encode(result.data).decode(),
            }
            return {"type": "image", "image": msgspec.json.encode(image).decode()}
        case str():
            return {"type": "text", "text": result}
        case _:
            return {"type": "text", "text": msgspec.json.encode(result).decode()}
