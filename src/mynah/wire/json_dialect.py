"""The JSON dialect: the same conversation with everything as text, for devices that have no binary frames.

======================== ===================================================================================
device                   server
======================== ===================================================================================
``device_info``          ``session_ready``
``heartbeat``            ``heartbeat_ack``
``audio`` (base64)       ``tts_audio`` (base64), the last one of a reply with ``is_final``
======================== ===================================================================================

All other messages are those of the main protocol, in both directions. A connection speaks the dialect when its
first message is ``device_info`` or ``audio``.
"""

from __future__ import annotations

import base64
import binascii

from mynah.errors import WireError
from mynah.wire import messages
from mynah.wire.frames import MAX_PACKET_BYTES
from mynah.wire.messages import (
    AudioData,
    ServerHello,
    ServerMessage,
    SessionConfig,
    SessionReady,
    TtsAudio,
    TtsStop,
)

SILENCE = b"\xf8\xff\xfe"
"""20 ms of silence as an Opus packet. The message that ends a reply carries it, so that a device need not make a
special case of a message without audio."""

MAX_PCM_BYTES = 96_000
"""PCM in one message: a second at 48 kHz. Devices send 20 to 100 ms."""

PCM_RATES = (8000, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
"""Sample rates in Hz that are taken for PCM."""


class JsonDialect:
    """Writes what the server sends on one connection that speaks the dialect."""

    __slots__ = ("_config", "_sample_rate")

    def __init__(self, config: SessionConfig) -> None:
        self._config = config
        self._sample_rate = 24000

    def encode(self, message: ServerMessage) -> list[bytes]:
        """Return the text frames for one message, in order."""
        match message:
            case ServerHello():
                self._sample_rate = message.audio_params.sample_rate
                return [messages.encode(SessionReady(message.session_id, self._config))]
            case TtsStop():
                return [self.encode_audio(SILENCE, is_final=True), messages.encode(message)]
            case _:
                return [messages.encode(message)]

    def encode_audio(self, packet: bytes, *, is_final: bool = False) -> bytes:
        """Return the text frame for one Opus packet."""
        data = base64.b64encode(packet).decode()
        return messages.encode(TtsAudio(data, sample_rate=self._sample_rate, is_final=is_final))


def decode_data(message: AudioData) -> bytes:
    """Return the audio of a message; empty when it only ends the utterance.

    Raises WireError for what is not base64, more audio than one message may hold, PCM that is not whole samples or
    has a rate that is not one of `PCM_RATES`.
    """
    limit = MAX_PACKET_BYTES if message.format == "opus" else MAX_PCM_BYTES
    if len(message.data) > limit * 4 // 3 + 4:
        raise WireError(f"an audio message holds at most {limit} bytes")
    try:
        audio = base64.b64decode(message.data, validate=True)
    except (binascii.Error, ValueError):
        raise WireError("the data of an audio message is not base64") from None
    if len(audio) > limit:
        raise WireError(f"an audio message holds at most {limit} bytes")
    if message.format == "pcm":
        if len(audio) % 2:
            raise WireError("PCM of an audio message ends in half a sample")
        if message.sample_rate not in PCM_RATES:
            raise WireError("PCM has a sample rate that is not one of " + ", ".join(map(str, PCM_RATES)))
    return audio
