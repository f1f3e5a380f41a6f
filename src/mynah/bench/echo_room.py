"""A room as a calculation: what a microphone hears of a loudspeaker beside it, and of somebody who speaks.

The loudspeaker is a small one: it plays little below 300 Hz and bends loud samples. The room answers with the direct
sound after `Room.delay_ms` and a tail of noise that decays exponentially. Everything follows from the seed.
"""

from __future__ import annotations

from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
"""Samples at 16 kHz, −1…1."""

RATE: Final = 16000
_SPEAKER_CUT_HZ: Final = 300.0
_DIRECT: Final = 0.7
"""Share of the direct sound in the amplitude; the rest is the tail."""
_NEAR_DBFS: Final = -80.0
"""Frames of 10 ms below this are taken for pauses when the level of speech is measured."""


class Room(msgspec.Struct, frozen=True):
    """Where the device stands."""

    delay_ms: float = 60.0
    """From the samples the loudspeaker is given to the direct sound in the recording: buffers and air."""
    decay_ms: float = 250.0
    """Until the tail has fallen by 60 dB."""
    echo_dbfs: float = -26.0
    """Level of the echo while the device speaks."""
    noise_dbfs: float = -62.0
    drive: float = 0.7
    """How far the loudspeaker is driven into its bend: 0 is linear, 0.7 compresses the peaks by some 2 dB."""
    seed: int = 0

    def echo(self, far: Floats) -> Floats:
        """Return what the microphone hears of the loudspeaker alone, as long as ``far``."""
        rng = np.random.default_rng(self.seed)
        peak = float(np.max(np.abs(far))) or 1.0
        played = far / peak
        if self.drive > 0:
            played = np.tanh(self.drive * played + 0.1) - np.tanh(0.1)
        delay = round(self.delay_ms * RATE / 1000)
        tail = round(self.decay_ms * RATE / 1000)
        answer = np.zeros(delay + tail + 1)
        answer[delay + 1 :] = rng.standard_normal(tail) * 10 ** (-3 * np.arange(tail) / tail)
        answer *= (1 - _DIRECT) / (float(np.sqrt(np.sum(answer**2))) or 1.0)
        answer[delay] = _DIRECT
        size = 1 << (len(far) + len(answer)).bit_length()
        spectrum = np.fft.rfft(played, size) * np.fft.rfft(answer, size)
        frequency = np.fft.rfftfreq(size, 1 / RATE)
        spectrum *= frequency**2 / (frequency**2 + _SPEAKER_CUT_HZ**2)
        heard: Floats = np.fft.irfft(spectrum, size)[: len(far)].astype(np.float32)
        return at_level(heard, self.echo_dbfs)

    def noise(self, samples: int) -> Floats:
        """Return the noise of the room."""
        rng = np.random.default_rng(self.seed + 1)
        return (rng.standard_normal(samples) * 10 ** (self.noise_dbfs / 20)).astype(np.float32)

    def record(self, far: Floats, near: Floats | None = None) -> Floats:
        """Return what the microphone hears while ``far`` plays and ``near`` is said, as long as ``far``."""
        heard = self.echo(far) + self.noise(len(far))
        return heard if near is None else heard + near[: len(far)]


def level_dbfs(sound: Floats) -> float:
    """Return the RMS level in dB of full scale, of what is not a pause."""
    whole = sound[: len(sound) // 160 * 160].reshape(-1, 160)
    power = np.mean(np.square(whole, dtype=np.float64), axis=1)
    loud = power[power > 10 ** (_NEAR_DBFS / 10)]
    return float(10 * np.log10(np.mean(loud))) if loud.size else -120.0


def at_level(sound: Floats, dbfs: float) -> Floats:
    """Return the sound at another level, as `level_dbfs` measures it."""
    scaled: Floats = sound * np.float32(10 ** ((dbfs - level_dbfs(sound)) / 20))
    return scaled


def floats(pcm: bytes) -> Floats:
    """Return s16le as samples."""
    return np.frombuffer(pcm, "<i2").astype(np.float32) * np.float32(1 / 32768)


def pcm(sound: Floats) -> bytes:
    """Return samples as s16le, clipped."""
    return (np.clip(sound, -1, 1) * 32767).astype("<i2").tobytes()
