"""A light voice detector: how far the level stands out of the background. No weights, under 1 µs per stream.

It follows the background of each stream. The floor falls quickly to any quieter level. It rises slowly
while the level varies, as speech does, and quickly while it is steady, as fans and hum are. Music and
clatter are speech to it; for anything but tiny machines and tests, Silero is the better choice.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from mynah.audio.ingest_wire import EngineSource
from mynah.errors import ProviderError
from mynah.providers.base import VadOptions, VadProvider

Floats = NDArray[np.float32]

CHUNK: Final = 512
_FIRST_SLOTS: Final = 32
"""Rows made at first; doubled when they run out. The number of listening devices bounds it (12 bytes each)."""

# Per chunk of 32 ms, levels in dB of full scale.
_SILENCE_DB: Final = -90.0
_QUIETEST_FLOOR_DB: Final = -65.0
"""Below this nothing is background: a muted microphone must not make its own click speech."""
_FIRST_FLOOR_DB: Final = -50.0
"""A quiet room through a device's microphone; where every stream starts."""
_FALL: Final = 0.3
"""Share of the way to a quieter level."""
_RISE_DB: Final = 0.06
"""While the level varies: 2 dB per second, so a long sentence does not become its own background."""
_STEADY_RISE_DB: Final = 1.0
"""While the level is steady: 30 dB per second."""
_STEADY_DB: Final = 2.0
"""Mean deviation below which a level is steady; noise has 1 dB over 32 ms, speech 5 dB and more."""
_SMOOTH: Final = 0.15
"""Memory of the mean and its deviation: some 7 chunks, longer than any vowel is steady."""
_SOFTNESS_DB: Final = 2.0
"""How many dB take the probability from 0.5 to 0.73."""


class EnergyEngine:
    """The `VadEngine`: per slot a floor, a mean level and its deviation. Used by one thread at a time."""

    chunk_samples = CHUNK

    def __init__(self, margin_db: float) -> None:
        """``margin_db``: how far above the floor the probability is 0.5."""
        self._margin = margin_db
        self._floor = np.zeros(_FIRST_SLOTS, np.float32)
        self._mean = np.zeros(_FIRST_SLOTS, np.float32)
        self._deviation = np.zeros(_FIRST_SLOTS, np.float32)
        self._free = list(range(_FIRST_SLOTS - 1, -1, -1))

    def open(self) -> int:
        """Take a slot with a fresh state."""
        if not self._free:
            self._grow()
        slot = self._free.pop()
        self._floor[slot] = self._mean[slot] = _FIRST_FLOOR_DB
        self._deviation[slot] = 10.0  # not steady until shown to be
        return slot

    def close(self, slot: int) -> None:
        """Return a slot."""
        self._free.append(slot)

    def process(self, slots: NDArray[np.intp], chunks: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the speech probability of each row of ``chunks`` (n × 512, −1…1). No slot twice in a call."""
        centred = chunks - chunks.mean(axis=1, keepdims=True)  # cheap microphones have an offset
        power = np.einsum("ij,ij->i", centred, centred) / CHUNK
        level = 10 * np.log10(np.maximum(power, 10 ** (_SILENCE_DB / 10)))
        mean, floor = self._mean[slots], self._floor[slots]
        deviation = self._deviation[slots]
        deviation += _SMOOTH * (np.abs(level - mean) - deviation)
        mean += _SMOOTH * (level - mean)
        rise = np.where(deviation < _STEADY_DB, _STEADY_RISE_DB, _RISE_DB)
        floor = np.where(level < floor, floor + _FALL * (level - floor), np.minimum(floor + rise, level))
        floor = np.maximum(floor, _QUIETEST_FLOOR_DB).astype(np.float32)
        self._mean[slots], self._deviation[slots], self._floor[slots] = mean, deviation, floor
        above = level - floor - self._margin
        probabilities: Floats = (0.5 + 0.5 * np.tanh(above / (2 * _SOFTNESS_DB))).astype(np.float32)
        return probabilities

    def _grow(self) -> None:
        old = len(self._floor)
        self._floor, self._mean, self._deviation = (
            np.concatenate([state, np.zeros_like(state)])
            for state in (self._floor, self._mean, self._deviation)
        )
        self._free += range(2 * old - 1, old - 1, -1)


def engine_of(margin_db: str) -> EnergyEngine:
    """Return an engine with this margin, a number in dB."""
    return EnergyEngine(float(margin_db))


class EnergyOptions(VadOptions):
    """Options of ``type: energy``."""

    margin_db: float = Field(
        10.0, ge=1, le=40, description="level above the background, in dB, at which the probability is 0.5"
    )
    min_speech_duration_ms: int = Field(
        160, ge=0, le=5000, description="speech shorter than this, in ms, is taken for a click"
    )


class EnergyVad(VadProvider[EnergyOptions]):
    """Voice detection by level, for all sessions of the process."""

    Options = EnergyOptions
    summary = "voice detection by level above the background; light, but takes any loud sound for speech"

    def __init__(self, name: str, options: EnergyOptions) -> None:
        super().__init__(name, options)
        self._engine: EnergyEngine | None = None

    async def start(self) -> None:
        """Make the engine."""
        self._engine = EnergyEngine(self.options.margin_db)

    def source(self) -> EngineSource:
        """Return how another process makes the engine."""
        return EngineSource(f"{__name__}:{engine_of.__name__}", str(self.options.margin_db))

    async def stop(self) -> None:
        """Forget all states."""
        self._engine = None

    def engine(self) -> EnergyEngine:
        """Return the shared engine. Raises ProviderError before `start`."""
        if self._engine is None:
            raise ProviderError("the voice detector was not started", provider=self.name)
        return self._engine
