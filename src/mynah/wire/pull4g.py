"""The 4G pull protocol: devices behind a modem send a recording over TCP and poll for the reply. Pure.

Plain mode is lines and, between them, audio:

===================================== ================================================================================
device                                server
===================================== ================================================================================
``SESSION_START:<id>[;options]``      (nothing in plain mode) what follows the line is audio
audio, then ``RECORDING_COMPLETE``
``REQUEST_AUDIO:<id>[;options]``      ``AUDIO_START`` line, audio, ``AUDIO_END`` line; with ``text=1`` ``STT:`` and
                                      ``SENTENCE:`` lines in front of them
``INTERRUPT:<id>[;token=…]``
an empty line: stay connected         ``ERROR:<code>:<text>``
===================================== ================================================================================

An id has 12 hex digits; on this side of the wire it reads ``aa:bb:cc:dd:ee:ff``. Lines have at most 256 bytes.
Recording and reply end at their markers wherever TCP cuts them, and wherever audio is glued to them. So in plain mode
audio must not contain the markers; the device's commands end a recording only with the id that began it.

Framed mode begins behind the first command with ``frame=1``, and in the other direction behind the line
``SESSION_READY:<session id>`` that answers it: u8 type, u8 flags, u16 length (big-endian), content. Type 1 is a line
without its end, 2 audio, 3 an acknowledgement: u32, bytes of the current reply that were played or stored, or, from
the server, bytes of the current recording that were received. Flag 1 of ``AUDIO_END`` says that the reply is complete.

    bytes → `ServerStream.feed` → `ClientEvent` …    `audio_start`, `audio`, `audio_end` … → bytes
"""

from __future__ import annotations

import enum
import re
from typing import Final

import msgspec

from mynah.errors import WireError
from mynah.wire import pull4g_words as words
from mynah.wire.frames import MAX_PACKET_BYTES
from mynah.wire.pull4g_device import (
    AudioEnd,
    AudioStart,
    DeviceStream,
    Failed,
    Heard,
    Ready,
    Received,
    Said,
    ServerEvent,
    Unknown,
    device_acknowledge,
    device_audio,
    device_complete,
    device_interrupt,
    device_keep_alive,
    device_request,
    device_start,
)
from mynah.wire.pull4g_words import MAX_LINE_BYTES, Audio, Codec, ErrorCode, FrameType, Options, audio

__all__ = [
    "Acknowledge", "Audio", "AudioEnd", "AudioStart", "ClientEvent", "Codec", "DeviceStream", "ErrorCode", "Failed",
    "Heard", "Interrupt", "KeepAlive", "Malformed", "Options", "Ready", "Received", "RecordingComplete", "Request",
    "Said", "ServerEvent", "ServerStream", "Start", "Unknown", "audio", "audio_end", "audio_start",
    "device_acknowledge", "device_audio", "device_complete", "device_interrupt", "device_keep_alive",
    "device_request", "device_start", "error", "ready", "received", "sentence", "stt",
]  # fmt: skip

_HEX: Final = rb"[0-9A-Fa-f]"
_WORD: Final = rb"(SESSION_START|REQUEST_AUDIO|INTERRUPT):"
_COMMAND: Final = re.compile(_WORD + rb"[ \t]*(" + _HEX + rb"{2}(?:[:-]?" + _HEX + rb"{2}){5})")
_BEGUN: Final = re.compile(_WORD + rb"[ \t]*(?:" + _HEX + rb"{2}[:-]?){0,5}" + _HEX + rb"?\Z")
"""A command whose id is not complete."""
_MARKER: Final = re.compile(words.RECORDING_COMPLETE + b"|" + _WORD)
_PRINTABLE: Final = re.compile(rb"[\t\x20-\x7e]*")
_BLANKS: Final = re.compile(rb"[ \t\r]+")
_NEWLINE: Final = 0x0A
_CONTROL: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_MARKERS: Final = (words.RECORDING_COMPLETE, words.SESSION_START, words.REQUEST_AUDIO, words.INTERRUPT)
_TAILS: Final = {
    b"\n"[:newline] + marker[:size]
    for marker in _MARKERS
    for size in range(len(marker))
    for newline in (0, 1)
    if newline or size
}
"""All that may be the beginning of a marker, with the line end in front of it."""
_LONGEST_TAIL: Final = max(map(len, _TAILS))


class Start(msgspec.Struct, frozen=True):
    """A recording begins, or with ``options.offset`` goes on."""

    device_id: str
    options: Options


class RecordingComplete(msgspec.Struct, frozen=True):
    """The recording is over."""


class Request(msgspec.Struct, frozen=True):
    """The device asks for what is ready of the reply, with ``options.offset`` from that byte on."""

    device_id: str
    options: Options


class Interrupt(msgspec.Struct, frozen=True):
    """The device wants neither its recording nor the reply any more. Its options are token and Client-Id."""

    device_id: str
    options: Options


class Acknowledge(msgspec.Struct, frozen=True):
    """The device has played or stored this many bytes of the current reply."""

    count: int


class KeepAlive(msgspec.Struct, frozen=True):
    """The device wants to stay connected."""


class Malformed(msgspec.Struct, frozen=True):
    """Something could not be understood; ``text`` says what is allowed (`ErrorCode.BAD_COMMAND`).

    ``fatal``: nor can what follows, the connection is of no use any more.
    """

    text: str
    fatal: bool = False


ClientEvent = Start | Audio | RecordingComplete | Request | Interrupt | Acknowledge | KeepAlive | Malformed


_START: Final = b"SESSION_START"
_REQUEST: Final = b"REQUEST_AUDIO"
_INTERRUPT: Final = b"INTERRUPT"
_EVENTS: Final[dict[bytes, type[Start | Request | Interrupt]]] = {
    _START: Start, _REQUEST: Request, _INTERRUPT: Interrupt,
}  # fmt: skip


class _Mode(enum.Enum):
    LINES = enum.auto()
    RECORDING = enum.auto()  # audio up to a marker
    FRAMED = enum.auto()
    LOST = enum.auto()  # out of step for good


class _Command(msgspec.Struct, frozen=True):
    word: bytes
    device_id: str
    options: bytes
    after: int  # where the next thing begins
    ended: bool = True  # False: a line end that comes next belongs to it


class _Unfinished(msgspec.Struct, frozen=True):
    device_id: str | None = None  # None: not complete itself
    settles: bool = False  # complete, if nothing follows


def _read_command(data: bytes, at: int, silence: bool) -> _Command | _Unfinished | None:
    """Read the command at ``at``; None when there is none. ``silence``: nothing will follow what is there."""
    stop = min(len(data), at + MAX_LINE_BYTES + 2)
    match = _COMMAND.match(data, at, stop)
    if match is None:
        begun = stop == len(data) and _BEGUN.match(data, at)
        return _Unfinished() if begun and stop - at <= MAX_LINE_BYTES else None
    word, end = match[1], match.end()
    if end - at > MAX_LINE_BYTES:
        return None
    device_id = words.colon_form(match[2].decode("ascii"))
    # The id may be all there is: the oldest devices write no line end. Nor have they options, so what cannot be
    # options is audio that happens to begin with a semicolon or blank.
    bare = _Command(word, device_id, b"", end)
    if end < len(data) and data[end] not in b"; \t\r\n":
        return bare
    printable = _PRINTABLE.match(data, end, stop)
    tail = printable.end() if printable else end
    if tail - at > MAX_LINE_BYTES:
        return None
    options, behind = data[end:tail].strip(), data[tail : tail + 2]
    if behind[:1] == b"\n":
        return _Command(word, device_id, options, tail + 1)
    if behind == b"\r\n":
        return _Command(word, device_id, options, tail + 2)
    if behind not in {b"", b"\r"}:
        return bare
    if options or not silence:
        return _Unfinished(device_id, settles=not options)
    return _Command(word, device_id, b"", len(data), ended=False)


class ServerStream:
    """Reads what a device sends on one connection.

    Kept between two calls: a piece of a line, of a marker or of an Opus packet, so at most `MAX_PACKET_BYTES` and a
    header; while the device is idle, nothing. Audio is told between `Start` and its end only. In plain mode a
    `Request` ends a recording; in framed mode it may come in the middle of one.
    """

    __slots__ = ("_codec", "_left", "_mode", "_odd", "_owner", "_passing", "_recording", "_rest", "_settling",
                 "_swallow", "frames")  # fmt: skip

    def __init__(self) -> None:
        self._mode = _Mode.LINES
        self._rest = b""
        self._settling = False
        self._swallow = False  # a line end that comes next belongs to what was there
        self._owner = ""  # whose recording it is
        self._recording = False  # False: audio belongs to nothing, its Start was refused
        self._codec = Codec.PCM
        self._odd = False  # whether the recording has an odd number of bytes so far
        self._left = 0  # bytes of the current frame that are not kept, but passed on or skipped as they come
        self._passing = False
        self.frames = 0
        """How many have begun, those among them that told nothing."""

    @property
    def framed(self) -> bool:
        """Whether the device sends frames."""
        return self._mode is _Mode.FRAMED

    @property
    def settling(self) -> bool:
        """Whether there is a command that is complete if nothing follows: call `settle` after 0.2 s of silence."""
        return self._settling

    def feed(self, data: bytes) -> list[ClientEvent]:
        """Take the next bytes; return what they complete. Never raises.

        Give it a few KB at a time: what a client must not do can only be looked at in between.
        """
        return self._read(self._rest + data if self._rest else bytes(data), silence=False)

    def settle(self) -> list[ClientEvent]:
        """Take silence for the end of the command that waits; nothing happens when none does."""
        return self._read(self._rest, silence=True) if self._settling else []

    def _read(self, data: bytes, silence: bool) -> list[ClientEvent]:
        events: list[ClientEvent] = []
        self._settling = False
        at = 0
        while at < len(data):
            if self._swallow:
                if data[at:] == b"\r":
                    break
                self._swallow = False
                at += 2 if data[at : at + 2] == b"\r\n" else data[at] == _NEWLINE
                continue
            match self._mode:
                case _Mode.LINES:
                    ahead = self._line(data, at, silence, events)
                case _Mode.RECORDING:
                    ahead = self._audio(data, at, silence, events)
                case _Mode.FRAMED:
                    ahead = self._frame(data, at, events)
                case _Mode.LOST:
                    ahead = len(data)
            if ahead == at:  # more is needed
                break
            at = ahead
        self._rest = data[at:]
        return events

    # The steps: each reads one thing that begins at ``at`` and returns where the next begins, ``at`` to wait for more.

    def _line(self, data: bytes, at: int, silence: bool, events: list[ClientEvent]) -> int:
        if blanks := _BLANKS.match(data, at):
            return blanks.end()
        if data.startswith(words.RECORDING_COMPLETE, at):
            self._complete(events, always=True)
            return at + len(words.RECORDING_COMPLETE)
        match _read_command(data, at, silence):
            case _Command() as command:
                self._swallow = not command.ended
                self._carry_out(command.word, command.device_id, command.options, events)
                return command.after
            case _Unfinished(settles=settles):
                self._settling = settles
                return at
        end = data.find(b"\n", at, at + MAX_LINE_BYTES + 2)
        whole = data[at:end] if end >= 0 else data[at : at + MAX_LINE_BYTES + 2]
        if len(whole.removesuffix(b"\r")) > MAX_LINE_BYTES:
            return self._lose(f"a line has at most {MAX_LINE_BYTES} bytes", data, events)
        if end < 0:
            return at
        content = whole.strip()
        if _CONTROL.search(content):
            return self._lose(
                "this is no text: a recording begins with SESSION_START:<chip id>", data, events
            )
        events.append(_refused(content) if content else KeepAlive())
        return end + 1

    def _lose(self, text: str, data: bytes, events: list[ClientEvent]) -> int:
        events.append(Malformed(text, fatal=True))
        self._mode = _Mode.LOST
        return len(data)

    def _audio(self, data: bytes, at: int, silence: bool, events: list[ClientEvent]) -> int:
        # Looking for the words first is faster than the expression by far, and there is none in most pieces.
        there = any(data.find(marker, at) >= 0 for marker in _MARKERS)
        for marker in _MARKER.finditer(data, at) if there else ():
            begin = marker.start()
            if marker[1] is None:
                self._pass_on(data, at, begin, events, marked=True)
                self._complete(events)
                return marker.end()
            match _read_command(data, begin, silence):
                case _Command() as command if command.device_id == self._owner:
                    self._pass_on(data, at, begin, events, marked=True)
                    self._swallow = not command.ended
                    self._carry_out(command.word, command.device_id, command.options, events)
                    return command.after
                case _Unfinished(device_id=device_id, settles=settles) if device_id in {None, self._owner}:
                    self._settling = settles
                    end = begin - 1 if begin > at and data[begin - 1] == _NEWLINE else begin
                    return self._pass_on(data, at, end, events)
        longest = min(_LONGEST_TAIL, len(data) - at)
        tail = next((size for size in range(longest, 0, -1) if data[-size:] in _TAILS), 0)
        return self._pass_on(data, at, len(data) - tail, events)

    def _pass_on(
        self, data: bytes, at: int, end: int, events: list[ClientEvent], marked: bool = False
    ) -> int:
        """Tell the audio up to ``end`` and return that. ``marked``: a marker follows, perhaps on its own line."""
        chunk = data[at:end]
        if marked and self._codec is Codec.PCM and self._odd != len(chunk) % 2 and chunk.endswith(b"\n"):
            chunk = chunk[:-1]  # half a sample is none, so this is the end of a line
        self._odd ^= bool(len(chunk) % 2)
        if chunk and self._recording:
            events.append(Audio(chunk))
        return end

    def _complete(self, events: list[ClientEvent], always: bool = False) -> None:
        """End the recording in plain mode. It is told when there was one, or ``always``."""
        if self._recording or always:
            events.append(RecordingComplete())
        self._recording = False
        self._mode = _Mode.LINES
        self._swallow = True

    def _frame(self, data: bytes, at: int, events: list[ClientEvent]) -> int:
        if self._left:
            end = min(at + self._left, len(data))
            self._left -= end - at
            return self._pass_on(data, at, end, events) if self._passing else end
        body = at + words.HEADER.size
        if len(data) < body:
            return at
        kind, _, size = words.read_header(data, at)
        self.frames += 1
        fault = _fault(kind, size, self._codec)
        self._passing = kind == FrameType.AUDIO and self._codec is not Codec.OPUS
        if fault or self._passing:
            self._left = size
            if fault:
                events.append(Malformed(fault))
            return body
        end = body + size
        if len(data) < end:
            return at
        content = data[body:end]
        if kind == FrameType.AUDIO:
            self._pass_on(data, body, end, events)
        elif kind == FrameType.ACKNOWLEDGE:
            events.append(Acknowledge(words.COUNT.unpack(content)[0]))
        else:
            self._control(content.strip(), events)
        return end

    def _control(self, content: bytes, events: list[ClientEvent]) -> None:
        if not content:
            events.append(KeepAlive())
        elif content == words.RECORDING_COMPLETE:
            self._recording = False
            events.append(RecordingComplete())
        elif match := _COMMAND.match(content):
            device_id = words.colon_form(match[2].decode("ascii"))
            self._carry_out(match[1], device_id, content[match.end() :], events)
        else:
            events.append(_refused(content))

    def _carry_out(self, word: bytes, device_id: str, told: bytes, events: list[ClientEvent]) -> None:
        """Tell a command. One that is wrong is told as such, but what follows it is what would follow a right one."""
        framed = self._mode is _Mode.FRAMED
        values: dict[str, str] = {}
        options: Options | None = None
        event: ClientEvent
        try:
            values = words.split_options(told.decode("ascii", "replace"))
            known = {"token", "client"} if word == _INTERRUPT else values.keys()
            options = words.read_options({key: values[key] for key in values if key in known}, framed)
            event = _EVENTS[word](device_id, options)
        except WireError as error:
            event = Malformed(str(error))
        polled = word == _REQUEST
        if self._recording and not (polled and framed) and (polled or options is None):
            events.append(RecordingComplete())
        if word == _START:
            begun = options or Options()
            self._owner, self._recording = device_id, options is not None
            self._codec, self._odd = begun.codec, bool((begun.offset or 0) % 2)
        elif not (polled and framed):
            self._recording = False
        if framed or (word != _INTERRUPT and values.get("frame") == "1"):
            self._mode = _Mode.FRAMED
        else:
            self._mode = _Mode.RECORDING if word == _START else _Mode.LINES
        events.append(event)


def _fault(kind: int, size: int, codec: Codec) -> str:
    """Return what is wrong with a frame; empty when nothing is. Its content is skipped then."""
    match kind:
        case FrameType.CONTROL if size > MAX_LINE_BYTES + len(b"\r\n"):
            return f"a control frame has at most {MAX_LINE_BYTES} bytes"
        case FrameType.AUDIO if codec is Codec.OPUS and size > MAX_PACKET_BYTES:
            return f"an Opus packet has at most {MAX_PACKET_BYTES} bytes"
        case FrameType.ACKNOWLEDGE if size != words.COUNT.size:
            return f"an acknowledgement has {words.COUNT.size} bytes"
        case FrameType.CONTROL | FrameType.AUDIO | FrameType.ACKNOWLEDGE:
            return ""
    return "a frame has type 1 (control), 2 (audio) or 3 (acknowledge)"


def _refused(content: bytes) -> Malformed:
    """Say what is wrong with a line that is no command."""
    for word in (_START, _REQUEST, _INTERRUPT):
        if content.startswith(word):
            return Malformed(f"{word.decode()} needs a chip id: {word.decode()}:<12 hex digits>")
    return Malformed("commands are SESSION_START, RECORDING_COMPLETE, REQUEST_AUDIO and INTERRUPT")


# ---------------------------------------------------------------- what the server sends


def ready(session_id: str, framed: bool) -> bytes:
    """Answer a command that began framed mode. The first one on a connection is a line (``framed`` False).

    ``framed`` says here and below whether that line was sent already.
    """
    return words.line(words.SESSION_READY + _short(session_id, words.SESSION_READY), framed)


def audio_start(framed: bool) -> bytes:
    """Begin the answer to a poll."""
    return words.line(words.AUDIO_START, framed)


def audio_end(framed: bool, final: bool = False) -> bytes:
    """End the answer to a poll. ``final``: nothing of the reply is left; plain mode does not tell."""
    return words.line(words.AUDIO_END, framed, words.REPLY_COMPLETE if final else 0)


def error(code: ErrorCode, text: str, framed: bool) -> bytes:
    """Tell what went wrong; ``text`` is cut to what fits in a line."""
    head = words.ERROR + code.encode("ascii") + b":"
    return words.line(head + _short(text, head), framed)


def received(count: int) -> bytes:
    """Tell how many bytes of the recording have arrived; framed mode only. Raises WireError for no u32."""
    return words.count(count)


def stt(text: str, framed: bool) -> bytes:
    """Tell what the user said, in as many lines as needed; in none when that is nothing."""
    return _for_people(words.STT, text, framed)


def sentence(text: str, framed: bool) -> bytes:
    """Tell a sentence of the reply, in as many lines as needed; in none when that is nothing."""
    return _for_people(words.SENTENCE, text, framed)


def _for_people(head: bytes, text: str, framed: bool) -> bytes:
    pieces = words.text_pieces(text, words.MAX_TEXT_LINE_BYTES - len(head))
    return b"".join(words.line(head + piece, framed) for piece in pieces)


def _short(text: str, head: bytes) -> bytes:
    return next(iter(words.text_pieces(text, MAX_LINE_BYTES - len(head))), b"")
