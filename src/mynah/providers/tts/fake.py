"""A voice that babbles: speech-like sound of a set length for every sentence. For benchmarks and tests."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncGenerator

import numpy as np
from pydantic import Field

from mynah.providers.base import TtsCapabilities, TtsProvider, TtsRequest
from mynah.providers.faults import FaultOptions, Faults

_RATE = 16000
_PEAK = 0.6  # of full scale: as loud as a normalised voice, and nothing clips
_LONGEST_S = 60.0  # longer "sentences" would only measure memory


class FakeTtsOptions(FaultOptions):
    """Options of the fake voice."""

    seconds: float = Field(
        default=2.0, gt=0, le=_LONGEST_S, description="length of every sentence, in seconds"
    )
    chunk_ms: int = Field(
        default=100, ge=10, le=5000, description="length of one piece of audio, in milliseconds"
    )


class FakeTts(TtsProvider[FakeTtsOptions]):
    """Test double; never a default."""

    Options = FakeTtsOptions
    summary = "test double: babbles for a set time after a set delay"

    def __init__(self, name: str, options: FakeTtsOptions) -> None:
        super().__init__(name, options)
        self._faults = Faults(name, options)
        self._pieces = _pieces(options.seconds, options.chunk_ms)

    @property
    def capabilities(self) -> TtsCapabilities:
        """16 kHz; babble is the same in every language."""
        return TtsCapabilities(sample_rate=_RATE, languages=("en", "zh"))

    async def synthesize(self, request: TtsRequest) -> AsyncGenerator[bytes, None]:
        """First piece ``delay_ms`` after the request, the others at once; none for an empty sentence."""
        if not request.text.strip():
            return
        await self._faults.first_result(asyncio.get_running_loop().time())
        for piece in self._pieces:
            yield piece


@functools.lru_cache(maxsize=8)  # one or two settings are in use at a time; 60 s of audio are 1.9 MB
def _pieces(seconds: float, chunk_ms: int) -> tuple[bytes, ...]:
    pcm = babble(seconds)
    step = _RATE * chunk_ms // 1000 * 2
    return tuple(pcm[start : start + step] for start in range(0, len(pcm), step))


def babble(seconds: float) -> bytes:
    """Make speech-like sound, PCM s16le at 16 kHz: a gliding voice with breath, four syllables a second."""
    count = round(seconds * _RATE)
    time = np.arange(count) / _RATE
    rng = np.random.default_rng(1)
    pitch = 130 + 25 * np.sin(2 * np.pi * 0.7 * time) - 8 * time / max(seconds, 1e-3)
    phase = 2 * np.pi * np.cumsum(pitch) / _RATE
    voice = np.zeros(count)
    for harmonic in range(1, 26):
        frequency = harmonic * pitch
        # Two resonances that wander as between vowels, on the falling spectrum of a voice.
        first = np.exp(-(((frequency - 550 - 200 * np.sin(2 * np.pi * 2.1 * time)) / 180) ** 2))
        second = np.exp(-(((frequency - 1600 - 500 * np.sin(2 * np.pi * 1.3 * time + 1)) / 300) ** 2))
        voice += (first + 0.5 * second + 0.05) / np.sqrt(harmonic) * np.sin(harmonic * phase)
    syllable = np.abs(np.sin(2 * np.pi * 2.0 * time)) ** 0.7
    breath = rng.standard_normal(count) * 0.08 * (1.2 - syllable)
    edges = np.minimum(1.0, np.minimum(time, time[-1] - time) / 0.02)  # 20 ms fade in and out
    sound = (voice * syllable + breath) * edges
    return bytes((sound / np.max(np.abs(sound)) * _PEAK * 32767).astype("<i2").tobytes())
