"""Multipart form bodies (RFC 7578), taken apart as they arrive: cameras send their pictures in this form. Pure.

    bytes → `MultipartDecoder.feed` → PartBegin, PartData …, PartEnd

Nothing is kept but what has not been told yet: a few kilobytes at most.
"""

from __future__ import annotations

import enum
import re
from typing import Final

import msgspec

from mynah.errors import WireError

MAX_HEADER_BYTES: Final = 4096
"""Of the headers of one part; a camera's have 90."""
MAX_PARTS: Final = 16
"""In one body; a camera sends two."""
MAX_PADDING: Final = 64
"""Blanks that may follow a boundary on its line."""

_BOUNDARY: Final = re.compile(r';\s*boundary\s*=\s*(?:"([^"]{1,70})"|([^\s;,"]{1,70}))', re.IGNORECASE)
_NAME: Final = re.compile(r';\s*name\s*=\s*(?:"([^"]*)"|([^\s;"]+))', re.IGNORECASE)


class PartBegin(msgspec.Struct, frozen=True):
    """A part begins. ``name`` is that of its form field; empty when it has none."""

    name: str


class PartData(msgspec.Struct, frozen=True):
    """The next bytes of the part, never empty."""

    data: bytes


class PartEnd(msgspec.Struct, frozen=True):
    """The part is complete."""


PartEvent = PartBegin | PartData | PartEnd


def boundary_of(content_type: str) -> bytes:
    """Return the boundary that a Content-Type header names. Raises WireError when it is not of a form."""
    kind, _, _ = content_type.partition(";")
    match = _BOUNDARY.search(content_type)
    if kind.strip().lower() != "multipart/form-data" or match is None or not match[0].isascii():
        raise WireError("not multipart/form-data with a boundary")
    return (match[1] or match[2]).encode("ascii")


class _State(enum.Enum):
    PREAMBLE = enum.auto()
    BOUNDARY = enum.auto()  # behind the boundary itself, on the rest of its line
    HEADERS = enum.auto()
    BODY = enum.auto()
    DONE = enum.auto()


class MultipartDecoder:
    """Takes one body apart."""

    def __init__(self, boundary: bytes) -> None:
        """``boundary`` is what `boundary_of` returned."""
        self._delimiter = b"\r\n--" + boundary
        # The first boundary has no line in front of it; with this one it looks like the others.
        self._buffer = bytearray(b"\r\n")
        self._state = _State.PREAMBLE
        self._parts = 0

    @property
    def done(self) -> bool:
        """Whether the closing boundary has come: what follows means nothing."""
        return self._state is _State.DONE

    def feed(self, data: bytes) -> list[PartEvent]:
        """Take the next bytes; return what they complete. Raises WireError for what is no multipart body."""
        events: list[PartEvent] = []
        self._buffer += data
        while self._step(events):
            pass
        return events

    def _step(self, events: list[PartEvent]) -> bool:
        """Read one piece; False when there are too few bytes for it."""
        match self._state:
            case _State.PREAMBLE | _State.BODY:
                return self._content(events)
            case _State.BOUNDARY:
                return self._rest_of_boundary()
            case _State.HEADERS:
                return self._headers(events)
            case _State.DONE:
                self._buffer.clear()
                return False

    def _content(self, events: list[PartEvent]) -> bool:
        inside = self._state is _State.BODY
        found = self._buffer.find(self._delimiter)
        # Without a boundary, the last bytes may still be the beginning of one.
        end = found if found >= 0 else max(len(self._buffer) - len(self._delimiter) + 1, 0)
        if inside and end:
            events.append(PartData(bytes(self._buffer[:end])))
        if found < 0:
            del self._buffer[:end]
            return False
        if inside:
            events.append(PartEnd())
        del self._buffer[: found + len(self._delimiter)]
        self._state = _State.BOUNDARY
        return True

    def _rest_of_boundary(self) -> bool:
        if self._buffer.startswith(b"--"):
            self._state = _State.DONE
            return True
        end = self._buffer.find(b"\r\n")
        rest = self._buffer if end < 0 else self._buffer[:end]
        if len(rest) > MAX_PADDING or (end >= 0 and rest.strip(b" \t")):
            raise WireError("something follows a boundary on its line")
        if end < 0:
            return False
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise WireError(f"more than {MAX_PARTS} parts")
        del self._buffer[:end]  # the line end stays: with it, no headers look like any other
        self._state = _State.HEADERS
        return True

    def _headers(self, events: list[PartEvent]) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if max(end, len(self._buffer) if end < 0 else 0) > MAX_HEADER_BYTES:
            raise WireError(f"the headers of a part are longer than {MAX_HEADER_BYTES} bytes")
        if end < 0:
            return False
        events.append(PartBegin(_field_name(bytes(self._buffer[:end]))))
        del self._buffer[: end + 4]
        self._state = _State.BODY
        return True


def _field_name(headers: bytes) -> str:
    for line in headers.decode("utf-8", "replace").split("\r\n"):
        name, _, value = line.partition(":")
        if name.strip().lower() == "content-disposition" and (match := _NAME.search(value)):
            return match[1] if match[1] is not None else match[2]
    return ""
