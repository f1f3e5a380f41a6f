"""The one mistake in a server's hello that firmware does not survive."""

from __future__ import annotations

import msgspec


class _HelloKeys(msgspec.Struct):
    type: str = ""
    transport: str | None = None


def lacks_transport(frame: bytes) -> bool:
    """Say whether a text frame is a hello that does not name its transport: firmware crashes on it."""
    try:
        keys = msgspec.json.decode(frame, type=_HelloKeys)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return False
    return keys.type == "hello" and keys.transport is None
