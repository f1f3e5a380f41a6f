"""The microphone of a device played by hand: it streams in real time for as long as firmware would."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator

import numpy as np

from mynah.audio.opus import OpusEncoder
from mynah.sim.microphone import audible_end
from mynah.sim.voice import speak
from mynah.wire.frames import encode_audio
from tests.conformance.device import FRAME_BYTES, FRAME_S, Device

BYTES_PER_S = 32_000
"""16 kHz, 16 bit, mono."""
LOUD = 180
"""Amplitude of the first sound of speech, -45 dBFS."""


def spoken(text: str, voice: str = "slt") -> bytes:
    """Return speech without the silence around it, so that pauses are as long as a test makes them."""
    pcm = speak(text, voice)
    samples = np.frombuffer(pcm, "<i2")
    first = int(np.flatnonzero(np.abs(samples) > LOUD)[0])
    return pcm[2 * max(0, first - 160) : audible_end(pcm)]


def pause(seconds: float) -> bytes:
    """Return a pause."""
    return bytes(round(seconds * BYTES_PER_S / 2) * 2)


def cough(seconds: float = 0.22) -> bytes:
    """Return a burst of noise, as loud as speech."""
    count = round(seconds * 16000)
    rng = np.random.default_rng(1)
    sound = rng.standard_normal(count) * np.exp(-np.arange(count) / (count / 4)) * 6000
    return bytes(np.clip(sound, -32000, 32000).astype("<i2").tobytes())


class Microphone:
    """Noise of a quiet room, and what `say` is given. In auto mode it is closed while the device speaks."""

    def __init__(self, device: Device, mode: str, protocol: int) -> None:
        self._device = device
        self._mode = mode
        self._protocol = protocol
        self._encoder = OpusEncoder(16000, 60, complexity=0, dtx=True)
        self._noise = np.random.default_rng(7)
        self._waiting: deque[bytes] = deque()
        self._quiet = asyncio.Event()
        self._listening = False
        self.muted = False
        """Stream nothing: the device was told to stop listening."""

    async def say(self, pcm: bytes) -> float:
        """Say something (16 kHz s16le); return when the last of it was sent, by `time.monotonic`."""
        pcm += bytes(-len(pcm) % FRAME_BYTES)
        self._waiting.extend(pcm[at : at + FRAME_BYTES] for at in range(0, len(pcm), FRAME_BYTES))
        self._quiet.clear()
        await self._quiet.wait()
        return time.monotonic()

    @property
    def _speaking(self) -> bool:
        """Whether the device plays a reply."""
        device = self._device
        return len(device.messages("tts", "start")) > len(device.messages("tts", "stop"))

    async def run(self) -> None:
        due = time.monotonic()
        while True:
            if self._mode == "auto" and self._speaking:
                self._listening = False
            elif not self._listening and not self.muted:
                self._listening = True
                await self._device.listen(mode=self._mode)
            frame = self._waiting.popleft() if self._waiting else self._room()
            if not self._waiting:
                self._quiet.set()
            packet = self._encoder.encode(frame)
            if self._listening and not self.muted:
                await self._device.socket.send_bytes(encode_audio(self._protocol, packet))
            due += FRAME_S
            await asyncio.sleep(due - time.monotonic())

    def _room(self) -> bytes:
        return bytes(self._noise.integers(-8, 9, FRAME_BYTES // 2, dtype=np.int16).astype("<i2").tobytes())


@contextlib.asynccontextmanager
async def microphone(device: Device, mode: str = "auto", protocol: int = 1) -> AsyncIterator[Microphone]:
    """Open a microphone, and close it at the end."""
    made = Microphone(device, mode, protocol)
    streaming = asyncio.create_task(made.run())
    try:
        yield made
    finally:
        streaming.cancel()
        with contextlib.suppress(asyncio.CancelledError, ConnectionError):
            await streaming
