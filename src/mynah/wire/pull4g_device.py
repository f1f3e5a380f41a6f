"""The device's side of the 4G pull protocol: what it sends, and what it reads from the server. Pure.

The simulator and the tests speak it; `mynah.wire.pull4g` explains the protocol.
"""

from __future__ import annotations

from typing import Final

import msgspec

from mynah.wire import pull4g_words as words
from mynah.wire.pull4g_words import MAX_LINE_BYTES, Audio, ErrorCode, FrameType, Options

_ENDS: Final = {words.AUDIO_END[:size] for size in range(1, len(words.AUDIO_END))}


_TYPES: Final = frozenset(FrameType)


class Ready(msgspec.Struct, frozen=True):
    """The server speaks framed mode from here on."""

    session_id: str


class AudioStart(msgspec.Struct, frozen=True):
    """The answer to a poll begins; audio may follow."""


class AudioEnd(msgspec.Struct, frozen=True):
    """The answer to a poll is over. ``final``: and so is the reply; plain mode cannot say it."""

    final: bool


class Failed(msgspec.Struct, frozen=True):
    """The server could not do what it was told."""

    code: ErrorCode
    text: str


class Received(msgspec.Struct, frozen=True):
    """The server has this many bytes of the recording."""

    count: int


class Heard(msgspec.Struct, frozen=True):
    """What the user said, or a part of it."""

    text: str


class Said(msgspec.Struct, frozen=True):
    """A sentence of the reply, or a part of it."""

    text: str


class Unknown(msgspec.Struct, frozen=True):
    """Something this side does not know; at most `MAX_LINE_BYTES` of it."""

    line: str


ServerEvent = Ready | AudioStart | Audio | AudioEnd | Failed | Received | Heard | Said | Unknown


class DeviceStream:
    """Reads what the server sends on one connection; at most one frame is kept.

    In framed mode each frame of audio is one event. In plain mode audio is passed on as it comes, except for a tail
    that may be the beginning of ``AUDIO_END``.
    """

    __slots__ = ("_playing", "_rest", "framed")

    def __init__(self) -> None:
        self._rest = b""
        self._playing = False  # between AUDIO_START and AUDIO_END, in plain mode
        self.framed = False
        """Whether the server sends frames. Begins behind its ``SESSION_READY``, or with a first frame where a line
        would begin: no line begins with a byte as low as the type of a frame."""

    def feed(self, data: bytes) -> list[ServerEvent]:
        """Take the next bytes; return what they complete. Never raises."""
        data = self._rest + data if self._rest else bytes(data)
        events: list[ServerEvent] = []
        at = 0
        while at < len(data):
            if self.framed:
                ahead = self._frame(data, at, events)
            elif self._playing:
                ahead = self._audio(data, at, events)
            else:
                ahead = self._line(data, at, events)
            if ahead == at:  # more is needed
                break
            at = ahead
        self._rest = data[at:]
        return events

    def _line(self, data: bytes, at: int, events: list[ServerEvent]) -> int:
        """Read one line; return where the next thing begins, ``at`` when the end of the line has not come."""
        if data[at] in _TYPES:
            self.framed = True
            return self._frame(data, at, events)
        end = data.find(b"\n", at, at + MAX_LINE_BYTES + 2)
        if end < 0:
            if len(data) - at <= MAX_LINE_BYTES + 1:
                return at
            end = at + MAX_LINE_BYTES  # no server sends that; what is kept is bounded all the same
            events.append(Unknown(_text(data[at:end])))
            return end
        content = _bare(data[at:end])
        if content:  # nothing is what is left of the line of AUDIO_END
            event = _control(content, 0)
            self._playing = isinstance(event, AudioStart)
            self.framed = isinstance(event, Ready)
            events.append(event)
        return end + 1

    def _audio(self, data: bytes, at: int, events: list[ServerEvent]) -> int:
        end = data.find(words.AUDIO_END, at)
        if end < 0:
            longest = min(len(words.AUDIO_END) - 1, len(data) - at)
            tail = next((size for size in range(longest, 0, -1) if data[-size:] in _ENDS), 0)
            end = len(data) - tail
            ahead = end
        else:
            ahead = end + len(words.AUDIO_END)
        if end > at:
            events.append(Audio(data[at:end]))
        if ahead > end:
            events.append(AudioEnd(final=False))
            self._playing = False
        return ahead

    def _frame(self, data: bytes, at: int, events: list[ServerEvent]) -> int:
        """Read one frame; return where the next one begins, ``at`` when it has not come whole."""
        body = at + words.HEADER.size
        if len(data) < body:
            return at
        kind, flags, size = words.read_header(data, at)
        end = body + size
        if len(data) < end:
            return at
        content = data[body:end]
        if kind == FrameType.CONTROL:
            if content := _bare(content):
                events.append(_control(content, flags))
        elif kind == FrameType.AUDIO:
            if content:
                events.append(Audio(content))
        elif kind == FrameType.ACKNOWLEDGE and size == words.COUNT.size:
            events.append(Received(words.COUNT.unpack(content)[0]))
        else:
            events.append(Unknown(f"a frame of type {kind} with {size} bytes"))
        return end


def _control(content: bytes, flags: int) -> ServerEvent:
    """Read a control line that is not empty."""
    if content == words.AUDIO_START:
        return AudioStart()
    if content == words.AUDIO_END:
        return AudioEnd(final=bool(flags & words.REPLY_COMPLETE))
    word, colon, rest = content.partition(b":")
    match word + colon:
        case words.SESSION_READY:
            return Ready(_text(rest.strip()))
        case words.STT:
            return Heard(_text(rest))
        case words.SENTENCE:
            return Said(_text(rest))
        case words.ERROR:
            code, _, text = rest.partition(b":")
            try:
                return Failed(ErrorCode(_text(code)), _text(text))
            except ValueError:
                pass  # a newer server: not known here
    return Unknown(_text(content[:MAX_LINE_BYTES]))


def _bare(content: bytes) -> bytes:
    return content.removesuffix(b"\n").removesuffix(b"\r")


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


# ---------------------------------------------------------------- what a device sends


def device_start(device_id: str, options: Options, framed: bool) -> bytes:
    """Begin a recording. ``framed`` says, here and below, what the connection is already.

    Raises WireError for a bad id and for options that fit in no line.
    """
    return words.command(words.SESSION_START, device_id, options, framed)


def device_audio(data: bytes, framed: bool) -> bytes:
    """Send audio of the recording; with Opus ``data`` is one packet."""
    return words.audio(data, framed)


def device_complete(framed: bool) -> bytes:
    """End the recording."""
    return words.line(words.RECORDING_COMPLETE, framed)


def device_request(device_id: str, options: Options, framed: bool) -> bytes:
    """Ask for what is ready of the reply. Raises WireError as `device_start` does."""
    return words.command(words.REQUEST_AUDIO, device_id, options, framed)


def device_interrupt(device_id: str, framed: bool, token: str | None = None, client_id: str = "") -> bytes:
    """Stop recording and reply. Raises WireError as `device_start` does."""
    return words.command(words.INTERRUPT, device_id, Options(token, client_id=client_id), framed)


def device_acknowledge(count: int) -> bytes:
    """Tell how many bytes of the current reply were played or stored; framed mode only."""
    return words.count(count)


def device_keep_alive(framed: bool) -> bytes:
    """Keep the connection open."""
    return words.line(b"", framed)
