"""The up-link of a simulated device: speech in real time, with room noise before and after it."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable

import numpy as np

from mynah.audio.opus import OpusEncoder
from mynah.sim.device import AudioFormat, SimulatedDevice

SAMPLE_RATE = 16000
FRAME_MS = 60
FRAME_BYTES = SAMPLE_RATE * FRAME_MS // 1000 * 2

NOISE_AMPLITUDE = 8
"""Peak of the room noise in 16-bit steps: -78 dBFS, a quiet room."""

SPEECH_DBFS = -45.0
"""What is louder, in windows of 10 ms, belongs to the speech."""

LEAD_MS = 240
"""Noise before the first word: people need longer than that to start."""

PcmSource = Callable[[], bytes | None]
"""Gives one frame of a real microphone, or None when none is ready."""


def burst(pcm: bytes, audio_format: AudioFormat = "opus") -> list[bytes]:
    """Return speech (16 kHz s16le mono) as frames of 60 ms, the way a device keeps a wake word."""
    whole = pcm + bytes(-len(pcm) % FRAME_BYTES)
    frames = [whole[i : i + FRAME_BYTES] for i in range(0, len(whole), FRAME_BYTES)]
    if audio_format == "pcm":
        return frames
    encoder = OpusEncoder(SAMPLE_RATE, FRAME_MS, complexity=0, dtx=True)
    return [encoder.encode(frame) for frame in frames]


class Speech:
    """One utterance on its way. ``ended_at`` is when its last audible sample was sent, by `time.monotonic`."""

    def __init__(self, pcm: bytes, lead_ms: int) -> None:
        lead = -(-lead_ms // FRAME_MS)
        padding = -len(pcm) % FRAME_BYTES
        whole = pcm + bytes(padding)
        self._frames = deque(whole[i : i + FRAME_BYTES] for i in range(0, len(whole), FRAME_BYTES))
        self._lead = lead
        self._last_audible = max(0, -(-audible_end(pcm) // FRAME_BYTES) - 1)
        self._sent = 0
        self.begun = False
        """A frame of it, or of the noise before it, is on its way."""
        self.ended_at: float | None = None
        self.finished = asyncio.Event()
        """Set when every frame was sent, or the microphone closed before that."""

    def next_frame(self) -> bytes | None:
        """Return the next frame, or None for one of noise."""
        self.begun = True
        if self._lead > 0:
            self._lead -= 1
            return None
        return self._frames.popleft() if self._frames else None

    def sent(self, frame: bytes | None, now: float) -> None:
        """Note that a frame from `next_frame` was sent."""
        if frame is None:
            return
        if self._sent == self._last_audible:
            self.ended_at = now
        self._sent += 1
        if not self._frames:
            self.finished.set()

    def cut(self, now: float) -> None:
        """The microphone closed."""
        if self.ended_at is None:
            self.ended_at = now
        self._frames.clear()
        self.finished.set()


def audible_end(pcm: bytes) -> int:
    """Return how many bytes of 16 kHz PCM there are up to the end of the speech in it."""
    window = SAMPLE_RATE // 100
    samples = np.frombuffer(pcm[: len(pcm) & ~1], "<i2")
    whole = samples[: len(samples) // window * window].reshape(-1, window).astype(np.float64)
    if not len(whole):
        return len(pcm)
    threshold = 32768.0 * 10 ** (SPEECH_DBFS / 20)
    loud = np.flatnonzero(np.sqrt(np.mean(whole**2, axis=1)) > threshold)
    return (int(loud[-1]) + 1) * window * 2 if len(loud) else len(pcm)


class Microphone:
    """Streams to the server for as long as the device's microphone is open. `run` it as a task."""

    def __init__(self, device: SimulatedDevice, *, source: PcmSource | None = None) -> None:
        """With a ``source`` its audio is streamed; otherwise noise, and what `say` is given."""
        self._device = device
        self._source = source
        # The settings of firmware: cheap, and silence becomes packets of a few bytes.
        self._encoder = OpusEncoder(SAMPLE_RATE, FRAME_MS, complexity=0, dtx=True)
        self._noise = np.random.default_rng(20_26)
        self._speech: Speech | None = None

    def say(self, pcm: bytes, *, lead_ms: int = LEAD_MS) -> Speech:
        """Queue one utterance (16 kHz s16le mono) behind ``lead_ms`` of noise; the one before is cut."""
        if self._speech is not None:
            self._speech.cut(time.monotonic())
        self._speech = Speech(pcm, lead_ms)
        return self._speech

    async def run(self) -> None:
        """Stream whenever the device listens, one frame per 60 ms on an absolute clock. Ends by cancellation."""
        while True:
            while not self._device.mic_open:
                await self._device.changed()
            await self._stream()
            # What was queued only after the microphone had closed waits for it to open again.
            if self._speech is not None and self._speech.begun:
                self._speech.cut(time.monotonic())
                self._speech = None

    async def _stream(self) -> None:
        due = time.monotonic()
        while self._source is not None and self._source() is not None:
            pass  # recorded while the microphone was closed: the device did not hear it
        while True:
            due += FRAME_MS / 1000
            await asyncio.sleep(due - time.monotonic())
            if not self._device.mic_open:
                return
            if self._source is None:
                self._send_queued(time.monotonic())
            else:
                while (pcm := self._source()) is not None:
                    self._send(pcm)

    def _send_queued(self, now: float) -> None:
        speech = self._speech
        frame = speech.next_frame() if speech is not None else None
        if self._send(frame or self._room()) and speech is not None:
            speech.sent(frame, now)
            if speech.finished.is_set():
                self._speech = None

    def _send(self, pcm: bytes) -> bool:
        coded = pcm if self._device.audio_format == "pcm" else self._encoder.encode(pcm)
        return self._device.send_audio(coded)

    def _room(self) -> bytes:
        noise = self._noise.integers(-NOISE_AMPLITUDE, NOISE_AMPLITUDE + 1, FRAME_BYTES // 2, dtype=np.int16)
        return noise.astype("<i2").tobytes()
