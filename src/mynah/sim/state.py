"""The states of a device, the moves between them, and who looks on."""

from __future__ import annotations

import enum

from mynah.wire.messages import DeviceMessage, ReceivedMessage


class DeviceState(enum.StrEnum):
    """The firmware's states that matter in a conversation."""

    IDLE = "idle"
    CONNECTING = "connecting"
    LISTENING = "listening"
    SPEAKING = "speaking"


_MOVES = {
    DeviceState.IDLE: {DeviceState.CONNECTING, DeviceState.LISTENING, DeviceState.SPEAKING},
    DeviceState.CONNECTING: {DeviceState.IDLE, DeviceState.LISTENING},
    DeviceState.LISTENING: {DeviceState.SPEAKING, DeviceState.IDLE},
    DeviceState.SPEAKING: {DeviceState.LISTENING, DeviceState.IDLE},
}


def may_move(state: DeviceState, to: DeviceState) -> bool:
    """Say whether firmware makes this move; others it refuses and logs. Staying is always allowed."""
    return to is state or to in _MOVES[state]


class Direction(enum.StrEnum):
    """Who sent it: up is device to server."""

    UP = "up"
    DOWN = "down"


class Observer:
    """Looks on; override what is of interest.

    Times are `time.monotonic` in s: uvloop's own clock counts only whole ms.
    """

    def on_message(self, direction: Direction, message: DeviceMessage | ReceivedMessage, at_s: float) -> None:
        """A JSON message was sent or received. Audio of the JSON dialect counts as audio."""

    def on_audio(self, direction: Direction, packet: bytes, at_s: float) -> None:
        """An Opus packet (or, up only, a frame of PCM) was sent, or received and accepted for playing."""

    def on_state(self, state: DeviceState, at_s: float) -> None:
        """The device changed its state."""

    def on_code(self, code: str, message: str) -> None:
        """At boot: the device shows and speaks this code until somebody has entered it."""
