"""A device of the JSON dialect: no binary frames, no `listen`, audio as base64 in both directions."""

from __future__ import annotations

import asyncio
import base64
import binascii
import time
from typing import Any

from mynah.sim.device import AudioFormat, SimulatedDevice
from mynah.sim.state import Direction
from mynah.wire.json_dialect import SILENCE
from mynah.wire.messages import (
    AudioData,
    AudioParams,
    DeviceInfo,
    DeviceMessage,
    Heartbeat,
    HeartbeatAck,
    ListenMode,
    ReceivedMessage,
    ServerHello,
    SessionReady,
    Tts,
    TtsAudio,
    encode_device,
)

HEARTBEAT_S = 10.0
"""Pause between two heartbeats."""

PCM_RATE = 16000
"""Of the audio sent, in Hz."""


class JsonDevice(SimulatedDevice):
    """Introduces itself with ``device_info``, then sends audio whenever its microphone is open.

    It plays a reply until its ``is_final``; the ``tts stop`` that follows means nothing more to it.
    """

    def __init__(
        self, *args: Any, audio_format: AudioFormat = "opus", heartbeat_s: float = HEARTBEAT_S, **options: Any
    ) -> None:
        """``audio_format`` is what goes up; the rest is for `SimulatedDevice`."""
        super().__init__(*args, **options)
        self.audio_format = audio_format
        self._heartbeat_s = heartbeat_s
        self._beat: asyncio.TimerHandle | None = None
        self._beat_sent: int | None = None
        self._finished = False

    def on_binary(self, _frame: bytes) -> None:
        """Take a binary frame (the link calls this): this device has no use for one."""
        self.counters.bad_payload += 1

    def on_closed(self) -> None:
        """The connection is gone (the link calls this)."""
        if self._beat is not None:
            self._beat.cancel()
            self._beat = None
        super().on_closed()

    # ------------------------------------------------------------ what this dialect says differently

    def _introduction(self) -> DeviceMessage:
        return DeviceInfo(self.identity.device_id, self.identity.client, self.identity.version)

    def _check_hello(self, _hello: asyncio.Future[ServerHello], _frame: bytes) -> None:
        """Check nothing: this dialect has no transport to name."""

    def _say_listening(self) -> None:
        """Say nothing: the first audio says it."""

    def _say_stopped(self) -> None:
        if self.mode is ListenMode.MANUAL:
            self._send_data(b"", is_final=True)

    def _send_packet(self, packet: bytes, _timestamp: int) -> None:
        if self._link is not None:
            self._send_data(packet)
            self._observer.on_audio(Direction.UP, packet, time.monotonic())

    def _on_message(self, message: ReceivedMessage) -> None:
        match message:
            case SessionReady():
                self._on_ready(message)
            case HeartbeatAck():
                if message.timestamp == self._beat_sent:
                    self._beat_sent = None
            case TtsAudio():
                self._on_tts_audio(message)
            case Tts(state="start"):
                self._finished = False
                super()._on_message(message)
            case Tts(state="stop") if self._finished:
                self._finished = False
            case Tts(state="stop"):
                self.counters.missing_final += 1
                super()._on_message(message)
            case _:
                super()._on_message(message)

    # ------------------------------------------------------------ inside

    def _send_data(self, audio: bytes, *, is_final: bool = False) -> None:
        if self._link is not None:
            data = base64.b64encode(audio).decode()
            message = AudioData(data, self.audio_format, PCM_RATE, is_final)
            self._link.send_text(encode_device(message))

    def _on_ready(self, ready: SessionReady) -> None:
        # This dialect has no audio parameters: the first `tts_audio` tells the rate.
        self._on_hello(ServerHello(ready.session_id, AudioParams(sample_rate=self.sample_rate)))
        self._heartbeat()

    def _on_tts_audio(self, message: TtsAudio) -> None:
        try:
            packet = base64.b64decode(message.data, validate=True)
        except (binascii.Error, ValueError):
            self.counters.bad_payload += 1
            return
        if message.format != "opus":
            self.counters.bad_payload += 1
            return
        self.sample_rate = message.sample_rate
        # An end that carries nothing to hear is only an end; an abort is answered with one, reply or not.
        if packet != SILENCE and (self._reply.open or not message.is_final):
            self._on_packet(packet, 0)
        if message.is_final:
            self._finished = True
            self._on_tts_stop()

    def _heartbeat(self) -> None:
        self.counters.missed_heartbeats += self._beat_sent is not None
        self._beat_sent = round(time.time() * 1000)
        self._send(Heartbeat(self._beat_sent))
        self._beat = self._loop.call_later(self._heartbeat_s, self._heartbeat)
        self._notify()
