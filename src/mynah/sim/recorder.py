"""What goes by in a conversation, taken down as it happens."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from mynah.audio.opus import packet_duration_ms
from mynah.sim.state import DeviceState, Direction, Observer
from mynah.wire.messages import DeviceMessage, IotCommands, Llm, Mcp, ReceivedMessage, Stt, Tts

MAX_MESSAGES = 10_000
"""Messages kept of one conversation: an hour of lively talk; later ones are only counted by the device."""


class CallSeen(msgspec.Struct, frozen=True):
    """What a server wants done: an MCP tool by its name, or a method of an IoT thing as ``Thing.Method``."""

    name: str
    arguments: dict[str, Any] = {}


class MessageSeen(msgspec.Struct, frozen=True, omit_defaults=True):
    """One JSON message, as the report shows it. ``at_ms`` counts from the start of the conversation."""

    at_ms: float
    direction: Direction
    type: str
    state: str | None = None
    text: str | None = None
    mode: str | None = None
    emotion: str | None = None
    reason: str | None = None
    method: str | None = None
    """Of an MCP payload; ``result`` or ``error`` for an answer."""
    calls: tuple[CallSeen, ...] = ()
    """Of an MCP ``tools/call`` (one) and of IoT commands."""


class Marks:
    """When things happened in the current turn, by `time.monotonic`."""

    def __init__(self) -> None:
        self.stt_at: float | None = None
        self.start_at: float | None = None
        self.audio_at: float | None = None
        self.stop_at: float | None = None
        self.last_at = 0.0
        self.stt: list[str] = []
        self.sentences: list[str] = []
        self.emotion = ""
        self.audio_s = 0.0


class Recorder(Observer):
    """Takes down the conversation and passes everything on to a second observer."""

    def __init__(
        self,
        watcher: Observer,
        started_at: float,
        *,
        duration_ms: Callable[[bytes], float] = packet_duration_ms,
    ) -> None:
        """``duration_ms`` tells how long received audio is; without it, it is Opus."""
        self._duration_ms = duration_ms
        self.marks = Marks()
        self.messages: list[MessageSeen] = []
        self.code = ""
        """What the device showed last because it had no owner."""
        self._watcher, self._started_at = watcher, started_at

    def on_message(self, direction: Direction, message: DeviceMessage | ReceivedMessage, at_s: float) -> None:
        """Take down a message."""
        if len(self.messages) < MAX_MESSAGES:
            self.messages.append(describe(direction, message, (at_s - self._started_at) * 1000))
        marks = self.marks
        match message:
            case Stt():
                marks.stt_at = marks.stt_at or at_s
                marks.stt.append(message.text)
            case Llm():
                marks.emotion = message.emotion
            case Tts(state="start"):
                marks.start_at = marks.start_at or at_s
                marks.stop_at = None
            case Tts(state="sentence_start") if message.text:
                marks.sentences.append(message.text)
            case Tts(state="stop") if marks.start_at is not None:
                marks.stop_at = at_s
            case _:
                pass
        if direction is Direction.DOWN:
            marks.last_at = at_s
        self._watcher.on_message(direction, message, at_s)

    def on_audio(self, direction: Direction, packet: bytes, at_s: float) -> None:
        """Take down how much audio came."""
        if direction is Direction.DOWN:
            self.marks.audio_at = self.marks.audio_at or at_s
            self.marks.last_at = at_s
            self.marks.audio_s += self._duration_ms(packet) / 1000
        self._watcher.on_audio(direction, packet, at_s)

    def on_state(self, state: DeviceState, at_s: float) -> None:
        """Pass it on."""
        self._watcher.on_state(state, at_s)

    def on_code(self, code: str, message: str) -> None:
        """Keep the code that the device shows."""
        self.code = code
        self._watcher.on_code(code, message)


def describe(direction: Direction, message: DeviceMessage | ReceivedMessage, at_ms: float) -> MessageSeen:
    """Return the fields of a message that a report shows."""
    method: str | None = None
    calls: list[CallSeen] = []
    if isinstance(message, Mcp):
        payload = message.payload
        named = payload.get("method")
        method = named if isinstance(named, str) else "error" if "error" in payload else "result"
        if method == "tools/call":
            params = payload.get("params")
            told = params if isinstance(params, dict) else {}
            calls.append(_call(told.get("name"), told.get("arguments")))
    elif isinstance(message, IotCommands):
        calls += (
            _call(f"{given.get('name')}.{given.get('method')}", given.get("parameters"))
            for given in message.commands
        )

    def field(name: str) -> str | None:
        value = getattr(message, name, None)
        return value if isinstance(value, str) and value else None

    return MessageSeen(
        at_ms=round(at_ms, 1),
        direction=direction,
        type=str(message.__struct_config__.tag),
        state=field("state"),
        text=field("text"),
        mode=field("mode"),
        emotion=field("emotion"),
        reason=field("reason"),
        method=method,
        calls=tuple(calls),
    )


def _call(name: object, arguments: object) -> CallSeen:
    return CallSeen(str(name), dict(arguments) if isinstance(arguments, Mapping) else {})
