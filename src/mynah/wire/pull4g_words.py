"""The words of the 4G pull protocol that both sides use: options, chip ids, lines and frames. Pure."""

from __future__ import annotations

import enum
import re
import struct
from typing import Final

import msgspec

from mynah.errors import WireError

MAX_LINE_BYTES: Final = 256
"""Longest control line, without its end."""
MAX_TEXT_LINE_BYTES: Final = 250
"""Longest control line with text for people, without its end; longer text takes several lines."""
MAX_FRAME_BYTES: Final = 65_535
"""Longest content of a frame: what its u16 can say."""
MAX_OFFSET: Final = 0xFFFF_FFFF
"""Largest count of bytes: what the u32 of an acknowledgement can say."""

RECORDING_COMPLETE: Final = b"RECORDING_COMPLETE"
SESSION_START: Final = b"SESSION_START:"
REQUEST_AUDIO: Final = b"REQUEST_AUDIO:"
INTERRUPT: Final = b"INTERRUPT:"
SESSION_READY: Final = b"SESSION_READY:"
AUDIO_START: Final = b"AUDIO_START"
AUDIO_END: Final = b"AUDIO_END"
ERROR: Final = b"ERROR:"
STT: Final = b"STT:"
SENTENCE: Final = b"SENTENCE:"

HEADER: Final = struct.Struct(">BBH")
"""In front of each frame: type, flags, bytes of its content."""
COUNT: Final = struct.Struct(">I")
"""Content of an acknowledgement."""
REPLY_COMPLETE: Final = 1
"""Flag of the control frame ``AUDIO_END``: this was the last audio of the reply."""

_OPUS_RATES: Final = (8000, 12000, 16000, 24000, 48000)
_MIN_RATE: Final = 8000
_MAX_RATE: Final = 48000
_ID: Final = re.compile(r"[0-9A-Fa-f]{2}(?:[:-]?[0-9A-Fa-f]{2}){5}")
_SENDABLE: Final = re.compile(r"[\x21-\x3a\x3c-\x7e]*")  # what a value may hold: it ends at a semicolon
_NUMBER: Final = re.compile(r"[0-9]{1,10}")
_BREAKS: Final = dict.fromkeys([*range(0x20), 0x7F, 0x85, 0x2028, 0x2029], " ")


class FrameType(enum.IntEnum):
    """What a frame holds."""

    CONTROL = 1
    AUDIO = 2
    ACKNOWLEDGE = 3


class Codec(enum.StrEnum):
    """How audio is written, in both directions."""

    PCM = "pcm"
    """Signed 16-bit little-endian samples, mono."""
    ADPCM = "adpcm"
    """IMA ADPCM, 4 bits for a sample."""
    OPUS = "opus"
    """One packet in each frame."""


class ErrorCode(enum.StrEnum):
    """Why something failed, as written on the wire."""

    BAD_COMMAND = "bad_command"
    UNAUTHORIZED = "unauthorized"
    TOO_LARGE = "too_large"
    BUSY = "busy"
    NO_SESSION = "no_session"


class Options(msgspec.Struct, frozen=True):
    """What follows the id of a command. ``rate`` is in Hz, ``offset`` (``from``) a count of bytes.

    ``framed`` is True for all commands of a connection that is framed already.
    """

    token: str | None = None
    codec: Codec = Codec.PCM
    rate: int = 16000
    framed: bool = False
    text: bool = False
    offset: int | None = None
    client_id: str = ""
    """What tokens of the OTA reply are made out for, besides the chip id (``client``)."""


class Audio(msgspec.Struct, frozen=True):
    """The next bytes of audio, never empty. With Opus it is one packet, else the pieces have no meaning."""

    data: bytes


# ---------------------------------------------------------------- ids and options


def colon_form(device_id: str) -> str:
    """Return an id as ``aa:bb:cc:dd:ee:ff``. Raises WireError when it is not 12 hex digits."""
    digits = _digits(device_id)
    return ":".join(digits[at : at + 2] for at in range(0, 12, 2))


def _digits(device_id: str) -> str:
    if not _ID.fullmatch(device_id):
        raise WireError("a chip id has 12 hex digits")
    return device_id.replace(":", "").replace("-", "").lower()


def split_options(text: str) -> dict[str, str]:
    """Take ``;key=value;key=value`` apart; of a key that comes twice the last value counts.

    Raises WireError when something stands in front of the first semicolon.
    """
    front, *pairs = text.split(";")
    if front.strip():
        raise WireError("options follow the id as ;key=value")
    found: dict[str, str] = {}
    for pair in pairs:
        key, _, value = pair.partition("=")
        found[key.strip().lower()] = value.strip()
    return found


def read_options(values: dict[str, str], framed: bool) -> Options:
    """Read the options of a command on a connection that is ``framed`` already or not; unknown ones are ignored.

    Raises WireError that says what is allowed.
    """
    if framed and not _flag(values, "frame", default=True):
        raise WireError("frame=0 comes too late: framed mode lasts until the connection ends")
    framed = framed or _flag(values, "frame")
    try:
        codec = Codec(values.get("codec", Codec.PCM).lower())
    except ValueError:
        raise WireError("codec is pcm, adpcm or opus") from None
    if codec is Codec.OPUS and not framed:
        raise WireError("codec=opus needs frame=1: its packets cannot be told apart otherwise")
    rate = _number(values.get("rate", "16000"))
    if codec is Codec.OPUS and rate not in _OPUS_RATES:
        raise WireError("rate is 8000, 12000, 16000, 24000 or 48000 with codec=opus")
    if rate is None or not _MIN_RATE <= rate <= _MAX_RATE:
        raise WireError(f"rate is {_MIN_RATE} to {_MAX_RATE}")
    offset = _number(values["from"]) if "from" in values else None
    if "from" in values and (offset is None or offset > MAX_OFFSET):
        raise WireError(f"from is a count of bytes, 0 to {MAX_OFFSET}")
    return Options(
        values.get("token"), codec, rate, framed, _flag(values, "text"), offset, values.get("client", "")
    )


def _flag(values: dict[str, str], key: str, default: bool = False) -> bool:
    value = values.get(key, "1" if default else "0")
    if value not in {"0", "1"}:
        raise WireError(f"{key} is 0 or 1")
    return value == "1"


def _number(value: str) -> int | None:
    return int(value) if _NUMBER.fullmatch(value) else None


def command(word: bytes, device_id: str, options: Options, framed: bool) -> bytes:
    """Return a command of the device. Raises WireError for a bad id and for options that fit in no line."""
    told = _digits(device_id)
    if options.token is not None:
        if not _SENDABLE.fullmatch(options.token):
            raise WireError("a token has printable ASCII characters only, no blanks and no semicolons")
        told += f";token={options.token}"
    if options.client_id:
        if not _SENDABLE.fullmatch(options.client_id):
            raise WireError("a Client-Id has printable ASCII characters only, no blanks and no semicolons")
        told += f";client={options.client_id}"
    told += f";codec={options.codec}" if options.codec is not Codec.PCM else ""
    told += f";rate={options.rate}" if options.rate != Options().rate else ""
    told += ";frame=1" if options.framed else ""
    told += ";text=1" if options.text else ""
    told += f";from={options.offset}" if options.offset is not None else ""
    whole = word + told.encode("ascii")
    if len(whole) > MAX_LINE_BYTES:
        raise WireError(f"a command has at most {MAX_LINE_BYTES} bytes; this token is too long")
    return line(whole, framed)


# ---------------------------------------------------------------- lines and frames


def line(content: bytes, framed: bool, flags: int = 0) -> bytes:
    """Return one control line, as a frame or with its end. Only a frame carries ``flags``."""
    return HEADER.pack(FrameType.CONTROL, flags, len(content)) + content if framed else content + b"\n"


def read_header(data: bytes, at: int) -> tuple[int, int, int]:
    """Return type, flags and length of the frame that begins at ``at``; its header must be there whole."""
    kind, flags, size = HEADER.unpack_from(data, at)
    return kind, flags, size


def audio(data: bytes, framed: bool) -> bytes:
    """Return audio as it is sent, in several frames when one cannot hold it; with Opus ``data`` is one packet."""
    if not framed:
        return data
    if len(data) <= MAX_FRAME_BYTES:
        return HEADER.pack(FrameType.AUDIO, 0, len(data)) + data if data else b""
    return b"".join(
        audio(data[at : at + MAX_FRAME_BYTES], True) for at in range(0, len(data), MAX_FRAME_BYTES)
    )


def count(number: int) -> bytes:
    """Return the frame that acknowledges this many bytes. Raises WireError for what is no u32."""
    if not 0 <= number <= MAX_OFFSET:
        raise WireError(f"{number} is no count of bytes")
    return HEADER.pack(FrameType.ACKNOWLEDGE, 0, COUNT.size) + COUNT.pack(number)


def text_pieces(text: str, size: int) -> list[bytes]:
    """Cut text for people into pieces of at most ``size`` bytes of UTF-8 (at least 4), between characters.

    Line breaks and control characters become blanks. Of blank text nothing is left.
    """
    data = text.translate(_BREAKS).strip().encode("utf-8", "replace")
    pieces: list[bytes] = []
    while data:
        end = min(size, len(data))
        while end < len(data) and data[end] & 0xC0 == 0x80:  # inside a character
            end -= 1
        pieces.append(data[:end])
        data = data[end:]
    return pieces
