"""JSON messages between device and server, as the xiaozhi protocol defines them.

`decode` turns a text frame of a device into one of the structs in `DeviceMessage`; `encode` turns a
`ServerMessage` into the text to send. The reverse pair (`decode_server`, `encode_device`) is what a device
uses, ours for tests included. Unknown fields are ignored, as the firmware's own extensions demand; an unknown
``type``, a missing or mistyped field raises `WireError`, and the caller drops the frame without closing the
connection.
"""

from __future__ import annotations

import enum
from typing import Any, Literal

import msgspec

from mynah.errors import WireError
from mynah.wire import mcp


class ListenMode(enum.StrEnum):
    """Who ends an utterance: the server (auto, realtime) or the user's finger (manual)."""

    AUTO = "auto"
    MANUAL = "manual"
    REALTIME = "realtime"


class AudioParams(msgspec.Struct, frozen=True, omit_defaults=False):
    """Opus parameters as announced in a hello. ``frame_duration`` in ms, ``sample_rate`` in Hz."""

    format: str = "opus"
    sample_rate: int = 16000
    channels: int = 1
    frame_duration: int = 60


# ---------------------------------------------------------------- device → server


class Hello(msgspec.Struct, frozen=True, tag_field="type", tag="hello"):
    """First message of a device. Old firmware lacks ``features``; py-xiaozhi announces 20 ms frames."""

    version: int = 1
    transport: str = "websocket"
    features: dict[str, Any] = {}
    audio_params: AudioParams = AudioParams()


class Listen(msgspec.Struct, frozen=True, tag_field="type", tag="listen"):
    """The microphone opens or closes, or (``detect``) a wake word was heard or text was typed."""

    state: Literal["start", "stop", "detect"]
    mode: ListenMode | None = None
    text: str = ""
    session_id: str | None = ""


class Abort(msgspec.Struct, frozen=True, tag_field="type", tag="abort"):
    """The user interrupts. ``reason`` is empty for a button."""

    reason: str | None = ""
    session_id: str | None = ""


class Mcp(msgspec.Struct, frozen=True, tag_field="type", tag="mcp"):
    """A JSON-RPC payload, either direction."""

    payload: dict[str, Any]
    session_id: str | None = ""


class Iot(msgspec.Struct, frozen=True, tag_field="type", tag="iot"):
    """Legacy device description or state."""

    descriptors: list[dict[str, Any]] | None = None
    states: list[dict[str, Any]] | None = None
    session_id: str | None = ""


class Goodbye(msgspec.Struct, frozen=True, tag_field="type", tag="goodbye"):
    """The sender ends the conversation."""

    session_id: str | None = ""


class Ping(msgspec.Struct, frozen=True, tag_field="type", tag="ping"):
    """Keep-alive of web pages."""

    session_id: str | None = ""


class DeviceInfo(msgspec.Struct, frozen=True, tag_field="type", tag="device_info"):
    """First message in the JSON dialect, in place of `Hello`. Ids that the handshake told win over these."""

    device_id: str = ""
    client_id: str = ""
    version: str = ""


class Heartbeat(msgspec.Struct, frozen=True, tag_field="type", tag="heartbeat"):
    """A device of the JSON dialect is there and wants to stay connected. ``timestamp`` is its own and echoed."""

    timestamp: int | float | str | None = None


class AudioData(msgspec.Struct, frozen=True, tag_field="type", tag="audio"):
    """Audio in the JSON dialect: one Opus packet or a stretch of s16le mono PCM, as base64 in ``data``.

    ``sample_rate`` in Hz counts for PCM only. ``is_final`` ends the utterance; without it the server finds the end.
    """

    data: str = ""
    format: Literal["opus", "pcm"] = "opus"
    sample_rate: int = 16000
    is_final: bool = False


SessionMessage = Hello | Listen | Abort | Mcp | Iot | Goodbye | Ping | Heartbeat
"""What a conversation is about, in either dialect."""

DeviceMessage = SessionMessage | DeviceInfo | AudioData


# ---------------------------------------------------------------- server → device


class ServerHello(msgspec.Struct, frozen=True, tag_field="type", tag="hello"):
    """Answer to `Hello`. Firmware crashes without ``transport``; xiaozhi-sdk needs all the rest."""

    session_id: str
    audio_params: AudioParams
    transport: str = "websocket"
    version: int = 1


class Stt(msgspec.Struct, frozen=True, tag_field="type", tag="stt"):
    """What the user said."""

    text: str
    session_id: str


class Llm(msgspec.Struct, frozen=True, tag_field="type", tag="llm"):
    """The face to show. ``text`` is an emoji, ``emotion`` one of the 21 names in `EMOTIONS`."""

    emotion: str
    text: str
    session_id: str


class TtsStart(msgspec.Struct, frozen=True, tag_field="type", tag="tts"):
    """A reply begins: the device starts its speaker."""

    session_id: str
    state: Literal["start"] = "start"


class TtsSentence(msgspec.Struct, frozen=True, tag_field="type", tag="tts"):
    """Text of the sentence whose audio follows (or has just ended)."""

    text: str
    session_id: str
    state: Literal["sentence_start", "sentence_end"] = "sentence_start"


class TtsStop(msgspec.Struct, frozen=True, tag_field="type", tag="tts"):
    """The reply is over. Exactly one per `TtsStart`."""

    session_id: str
    state: Literal["stop"] = "stop"


class IotCommands(msgspec.Struct, frozen=True, tag_field="type", tag="iot"):
    """Legacy device control."""

    commands: list[dict[str, Any]]
    session_id: str


class System(msgspec.Struct, frozen=True, tag_field="type", tag="system"):
    """A command to the device itself; firmware knows ``reboot``."""

    command: str
    session_id: str


class Alert(msgspec.Struct, frozen=True, tag_field="type", tag="alert"):
    """Shown and vibrated at once. All three texts are required by firmware; never send it during a reply."""

    status: str
    message: str
    emotion: str
    session_id: str


class Pong(msgspec.Struct, frozen=True, tag_field="type", tag="pong"):
    """Answer to `Ping`."""

    session_id: str


class SessionConfig(msgspec.Struct, frozen=True):
    """What a device of the JSON dialect is told of the server's ears. ``max_audio_length`` in ms of one utterance."""

    vad_threshold: float
    max_audio_length: int


class SessionReady(msgspec.Struct, frozen=True, tag_field="type", tag="session_ready"):
    """Answer to `DeviceInfo`."""

    session_id: str
    config: SessionConfig


class HeartbeatAck(msgspec.Struct, frozen=True, tag_field="type", tag="heartbeat_ack"):
    """Answer to `Heartbeat`, with its timestamp."""

    timestamp: int | float | str | None = None


class TtsAudio(msgspec.Struct, frozen=True, tag_field="type", tag="tts_audio"):
    """Speech in the JSON dialect: one Opus packet as base64. ``sample_rate`` in Hz; ``is_final`` ends the reply."""

    data: str
    format: str = "opus"
    sample_rate: int = 24000
    is_final: bool = False


_Shared = (
    ServerHello
    | Stt
    | Llm
    | Mcp
    | IotCommands
    | System
    | Alert
    | Goodbye
    | Pong
    | SessionReady
    | HeartbeatAck
    | TtsAudio
)

ServerMessage = _Shared | TtsStart | TtsSentence | TtsStop


class Tts(msgspec.Struct, frozen=True, tag_field="type", tag="tts"):
    """Any tts message, as a device reads it."""

    state: str
    text: str | None = None
    session_id: str | None = ""


ReceivedMessage = _Shared | Tts
"""What a server says, as a device reads it."""

EMOTIONS = (
    "neutral", "happy", "laughing", "funny", "sad", "angry", "crying", "loving", "embarrassed", "surprised",
    "shocked", "thinking", "winking", "cool", "relaxed", "delicious", "kissy", "confident", "sleepy", "silly",
    "confused",
)  # fmt: skip
"""The names every client has a face for."""

_device_decoder: msgspec.json.Decoder[DeviceMessage] = msgspec.json.Decoder(DeviceMessage)
_server_decoder: msgspec.json.Decoder[ReceivedMessage] = msgspec.json.Decoder(ReceivedMessage)
_encoder = msgspec.json.Encoder()


def decode(frame: bytes | str) -> DeviceMessage:
    """Read one text frame of a device. Raises WireError, with a reason that holds none of the content.

    Clients in the field send ``null``, numbers as texts and modes of their own. A hello that is dropped leaves a
    device waiting for ten seconds and a dropped ``listen`` leaves it deaf, so of these a field of the wrong type counts
    as one that was left out. Nor do devices escape what they put into MCP errors: of a spoilt ``mcp`` frame the id is
    saved, and whoever waits for that answer is told at once.
    """
    try:
        return _device_decoder.decode(frame)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        saved = _forgive(frame) if isinstance(error, msgspec.ValidationError) else _salvage(frame)
        if saved is not None:
            return saved
        raise WireError(_reason(error)) from None


_FORGIVEN: dict[object, type[Hello | Listen | Abort]] = {"hello": Hello, "listen": Listen, "abort": Abort}


def _forgive(frame: bytes | str) -> Hello | Listen | Abort | None:
    """Read valid JSON as a message without those of its fields that have the wrong type."""
    try:
        told = msgspec.json.decode(frame, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
    tag = told.get("type")
    kind = _FORGIVEN.get(tag) if isinstance(tag, str) else None
    if kind is None:
        return None
    fields = msgspec.structs.fields(kind)
    sound = {
        field.name: told[field.name] for field in fields if _fits(told.get(field.name, _fits), field.type)
    }
    try:
        return msgspec.convert({"type": tag, **sound}, kind)
    except msgspec.ValidationError:  # a field that it cannot do without
        return None


def _fits(value: object, kind: Any) -> bool:
    try:
        msgspec.convert(value, kind)
    except (msgspec.ValidationError, RecursionError):
        return False
    return True


def _salvage(frame: bytes | str) -> Mcp | None:
    payload = mcp.salvage(frame)
    return Mcp(payload) if payload is not None else None


def encode(message: ServerMessage) -> bytes:
    """Write one message of the server."""
    return _encoder.encode(message)


def decode_server(frame: bytes | str) -> ReceivedMessage:
    """Read one text frame of a server. Raises WireError, with a reason that holds none of the content."""
    try:
        return _server_decoder.decode(frame)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise WireError(_reason(error)) from None


def encode_device(message: DeviceMessage) -> bytes:
    """Write one message of a device."""
    return _encoder.encode(message)


def _reason(error: Exception) -> str:
    """Say what is wrong with a frame without quoting it: what people say must not reach the logs."""
    if isinstance(error, msgspec.ValidationError):
        text = str(error)
        # These two name only our own fields and types; msgspec's other texts quote the offending value.
        if text.startswith(("Expected `", "Object missing required field `")):
            return f"not a message: {text}"
        return "not a message: unknown type or a value out of range"
    return "not a message: malformed JSON"
