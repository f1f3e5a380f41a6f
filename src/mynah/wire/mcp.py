"""MCP with a device: the device serves tools over JSON-RPC inside ``mcp`` messages, we are its client.

Nothing is sent from here. Each request comes back as the payload to put into `messages.Mcp`, and
`McpSession.receive` says what an incoming payload is; waiting, time-outs and the bound on pages of a tool
list are the caller's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from mynah import __version__

MAX_ID = 2**31 - 1
"""Devices read the id as int32 and echo it."""

MAX_TOOLS = 256
"""Tools taken from one device, over all pages: a real one has 10 to 40, and every one costs prompt tokens."""

MAX_PAGES = 32
"""Pages a caller should follow: 8 kB each on firmware."""

MAX_NAME_CHARS = 128
"""Tool names: firmware's longest built-in one has 31 characters."""

MAX_DESCRIPTION_CHARS = 4000
"""Longer descriptions are cut: half of a firmware page."""

MAX_SCHEMA_BYTES = 8192
"""A firmware page is at most about this long, so a longer schema is not from a sound device."""

MAX_TEXT_CHARS = 16_000
"""What is kept of a tool's answer: enough for a device status or a picture's description."""

MAX_FAILURE_CHARS = 500
"""What is kept of an error message."""


class McpResult(msgspec.Struct, frozen=True):
    """The device answered. ``result`` is the JSON value as it came."""

    id: int
    result: Any


class McpFailure(msgspec.Struct, frozen=True):
    """The device refused. Firmware gives a message and no code."""

    id: int
    message: str


class DeviceTool(msgspec.Struct, frozen=True):
    """A tool a device offers. ``user_only`` ones must never be shown to a language model."""

    name: str
    description: str
    input_schema: dict[str, Any]
    user_only: bool = False


class ToolPage(msgspec.Struct, frozen=True):
    """One page of a tool list. ``next_cursor`` is empty on the last one."""

    tools: tuple[DeviceTool, ...]
    next_cursor: str = ""
    left_out: tuple[str, ...] = ()
    """For each entry that is no tool we can use: why, in a few words of ours."""


class McpSession:
    """Makes requests for one connection and recognises their answers."""

    def __init__(self, first_id: int = 1) -> None:
        if not 1 <= first_id <= MAX_ID:
            raise ValueError(f"request ids go from 1 to {MAX_ID}")
        self._next_id = first_id

    def initialize(self, vision_url: str, vision_token: str) -> dict[str, Any]:
        """Ask for the handshake. Both vision texts are always sent (empty: no camera service).

        xiaozhi-sdk does not answer at all when either is missing.
        """
        return self._request(
            "initialize",
            {
                "protocolVersion": "2024-11-05",
                "capabilities": {"vision": {"url": vision_url, "token": vision_token}},
                "clientInfo": {"name": "mynah", "version": __version__},
            },
        )

    def list_tools(self, cursor: str = "", *, with_user_tools: bool = False) -> dict[str, Any]:
        """Ask for one page of tools; ``cursor`` comes from the previous `ToolPage`."""
        return self._request("tools/list", {"cursor": cursor, "withUserTools": with_user_tools})

    def call(self, name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Ask for a tool to be run. Argument types must be those of its schema: devices do not convert."""
        return self._request("tools/call", {"name": name, "arguments": dict(arguments)})

    @staticmethod
    def receive(payload: Mapping[str, Any]) -> McpResult | McpFailure | None:
        """Read an answer. Requests, notifications and junk give None."""
        request_id = payload.get("id")
        # bool is an int in Python, and true is not an id.
        if not isinstance(request_id, int) or isinstance(request_id, bool) or not 1 <= request_id <= MAX_ID:
            return None
        if "method" in payload:
            return None
        if "error" in payload:
            return McpFailure(request_id, _failure_text(payload["error"]))
        if "result" in payload:
            return McpResult(request_id, payload["result"])
        return None

    def _request(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        request_id = self._next_id
        self._next_id = 1 if request_id == MAX_ID else request_id + 1
        return {"jsonrpc": "2.0", "id": request_id, "method": method, "params": params}


_SPOILT_HEAD_CHARS = 400
"""Where the id of a spoilt answer is looked for: firmware writes it within the first 130 characters."""
_SPOILT_ID = re.compile(r'"type"\s?:\s?"mcp".*?"id"\s?:\s?([1-9][0-9]{0,9})\s?[,}]', re.DOTALL)
_SPOILT_ERROR = re.compile(r'"error"\s?:\s?\{\s?"message"\s?:\s?"')


def salvage(frame: bytes | str) -> dict[str, Any] | None:
    """Return what can be saved of an ``mcp`` frame that is no JSON: the id, and its text as the error.

    Firmware puts messages into its errors without escaping them. None when the frame is nothing of that kind.
    """
    head = frame[: _SPOILT_HEAD_CHARS + MAX_FAILURE_CHARS]
    text = head if isinstance(head, str) else head.decode("utf-8", "replace")
    answer = _SPOILT_ID.search(text, 0, _SPOILT_HEAD_CHARS)
    if answer is None:
        return None
    error = _SPOILT_ERROR.search(text, answer.end())
    message = text[error.end() :].rstrip(" \t\r\n}").removesuffix('"') if error is not None else ""
    return {
        "jsonrpc": "2.0",
        "id": int(answer[1]),
        "error": {"message": message[:MAX_FAILURE_CHARS] or "its answer cannot be read"},
    }


def _failure_text(error: object) -> str:
    message = error.get("message") if isinstance(error, dict) else error
    text = message.strip() if isinstance(message, str) else ""
    return text[:MAX_FAILURE_CHARS] or "the device gave no reason"


def parse_tools(result: object) -> ToolPage:
    """Read the result of ``tools/list``: at most `MAX_TOOLS`, without the entries that are no tools."""
    if not isinstance(result, dict):
        return ToolPage(())
    entries = result.get("tools")
    judged = [_parse_tool(entry) for entry in entries[:MAX_TOOLS]] if isinstance(entries, list) else []
    cursor = result.get("nextCursor")
    return ToolPage(
        tuple(tool for tool in judged if isinstance(tool, DeviceTool)),
        cursor if isinstance(cursor, str) and len(cursor) <= MAX_NAME_CHARS else "",
        tuple(reason for reason in judged if isinstance(reason, str)),
    )


def _parse_tool(entry: object) -> DeviceTool | str:
    """Return the tool, or why it is left out."""
    if not isinstance(entry, dict):
        return "not an object"
    name, description = entry.get("name"), entry.get("description")
    if not isinstance(name, str) or not name:
        return "no name"
    if len(name) > MAX_NAME_CHARS:
        return "name too long"
    schema = entry.get("inputSchema")
    if not isinstance(schema, dict) or schema.get("type") != "object":
        schema = {"type": "object", "properties": {}}
    elif not 0 < len(_json(schema)) <= MAX_SCHEMA_BYTES:
        return "schema too long"
    annotations = entry.get("annotations")
    audience = annotations.get("audience") if isinstance(annotations, dict) else None
    return DeviceTool(
        name=name,
        description=description[:MAX_DESCRIPTION_CHARS] if isinstance(description, str) else "",
        input_schema=_sound(schema),
        user_only=isinstance(audience, list) and "user" in audience and "assistant" not in audience,
    )


def _sound(schema: dict[str, Any]) -> dict[str, Any]:
    """Keep what is well formed: one odd schema, and a model's interface refuses the request with all tools."""
    properties, required = schema.get("properties"), schema.get("required")
    kept = (
        {name: value for name, value in properties.items() if isinstance(value, dict)}
        if isinstance(properties, dict)
        else {}
    )
    sound = {**schema, "properties": kept}
    if required is not None:
        names = required if isinstance(required, list) else []
        sound["required"] = [name for name in names if isinstance(name, str) and name in kept]
    return sound


def is_error(result: object) -> bool:
    """Whether the result of ``tools/call`` reports a failure; `result_text` is then the reason."""
    return isinstance(result, dict) and result.get("isError") is True


def result_text(result: object) -> str:
    """Return the text in the result of ``tools/call``, in at most `MAX_TEXT_CHARS` characters.

    Clients differ: plain text, JSON, or (xiaozhi-sdk) text that was encoded as JSON once more; the last is
    undone. Several text parts are joined by line breaks. Of pictures and sounds only the type is told. A result
    without the usual wrapping is given back as JSON.
    """
    if isinstance(result, str):
        return _unquote(result)[:MAX_TEXT_CHARS]
    if not isinstance(result, dict) or not isinstance(result.get("content"), list):
        return _json(result).decode()[:MAX_TEXT_CHARS]
    parts = [_part_text(item) for item in result["content"] if isinstance(item, dict)]
    return "\n".join(part for part in parts if part is not None)[:MAX_TEXT_CHARS]


def _part_text(item: dict[str, Any]) -> str | None:
    text = item.get("text")
    if isinstance(text, str):
        return _unquote(text)
    held: object = item
    # Firmware puts pictures under "image", as a JSON text.
    if isinstance(item.get("image"), str):
        try:
            held = msgspec.json.decode(item["image"])
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            held = None
        if not isinstance(held, dict) or not isinstance(held.get("data"), str):
            return _unquote(item["image"])
    if not isinstance(held, dict) or not isinstance(held.get("data"), str):
        return None
    # The bytes as base64 would fill a model's context and tell it nothing.
    kind = held.get("mimeType", held.get("type"))
    return (
        f"({kind[:MAX_NAME_CHARS]}: not text, so it is left out)" if isinstance(kind, str) else "(not text)"
    )


def _json(value: object) -> bytes:
    """Encode what came from a device; empty when it holds numbers or depths that JSON encoders refuse."""
    try:
        return msgspec.json.encode(value)
    except (OverflowError, RecursionError):
        return b""


def _unquote(text: str) -> str:
    """Undo one JSON encoding of a text, if there is one."""
    stripped = text.strip()
    if len(stripped) >= 2 and stripped[0] == stripped[-1] == '"':
        try:
            return msgspec.json.decode(stripped, type=str)
        except (msgspec.DecodeError, UnicodeError):
            return text
    return text
