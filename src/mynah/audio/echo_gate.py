"""A gate against echo that needs no package: what is not louder than the echo can be is muted.

The gate learns, in bands, how much louder or quieter the microphone hears what the loudspeaker plays. While something
is played, and as long as it rings, only sound that rises above that level in a good part of the bands passes, and then
passes unchanged. So an interruption has to be louder than the echo, but nothing is taken out of it.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from mynah.audio.echo_references import Samples

BLOCK: Final = 160
"""Samples of one decision: 10 ms at 16 kHz."""

_EDGES: Final = np.array([4, 6, 8, 10, 12, 15, 18, 22, 26, 31, 37, 44, 52, 62, 74, 88, 104, 122, 140])
"""Borders of the bands in steps of 50 Hz: about as wide as the ear's, where speech is."""
_BANDS: Final = len(_EDGES) - 1
_WINDOW: Final = np.hanning(2 * BLOCK + 1)[:-1].astype(np.float32)

_REACH: Final = 40
"""Blocks in which an echo may follow its sound: 400 ms, because a stamp tells the time only roughly."""
_RING_DB: Final = 2.0
"""Decay of what is expected after that, per block: a room that rings for 300 ms."""
_FAR_DB: Final = -65.0
"""A band of the reference below this is silent."""
_NEAR_DB: Final = -62.0
"""A band of the microphone below this is no voice."""
_LEAST_BANDS: Final = 4
"""With fewer loud ones the reference is taken for silence."""

_LEARNING: Final = 100
"""Blocks with echo, 1 s, before the gate opens for the first time: nothing is known of the device until then."""
_QUANTILE: Final = 0.95
"""Share of the echo's blocks that stay below the level that is learned."""
_STEP_DB: Final = 0.3
"""Speed of learning per block; rises with `_QUANTILE` of it, falls with the rest."""
_DOUBT: Final = 0.1
"""Share of that speed while somebody seems to speak: their voice must not be learned as echo."""

_MARGIN_DB: Final = 3.0
_SHARE: Final = 0.25
"""Share of the loud bands that must rise above the echo, each by `_MARGIN_DB`."""
_NEEDED: Final = 3
"""Blocks like that before the gate opens: one alone is a click."""
_HANG: Final = 30
"""Blocks for which it then stays open at least, 300 ms: the pauses within words."""


class EchoGate:
    """The gate of one device. Implements `mynah.audio.echo.EchoCanceller`."""

    def __init__(self) -> None:
        self._coupling: NDArray[np.float64] = np.full(_BANDS, -200.0)  # dB of the echo over the reference
        self._learned = 0
        self._evidence = 0.0
        self._open = 0  # blocks for which the gate stays open
        self.release()

    def release(self) -> None:
        """Forget the sound; what is known of the device stays."""
        self._near_tail = np.zeros(BLOCK, np.float32)
        self._far_tail = np.zeros(BLOCK, np.float32)
        self._recent: NDArray[np.float64] = np.full((_REACH, _BANDS), -120.0)
        self._newest = 0
        self._ringing: NDArray[np.float64] = np.full(_BANDS, -120.0)
        self._gain = np.float32(1)

    def restart(self) -> None:
        """The reference moved in time: nothing changes, the gate allows for all times."""

    def process(self, near: Samples, far: Samples) -> Samples:
        """Return ``near``, muted where it can be echo of ``far``; both of the same length, n × `BLOCK` samples."""
        near_db, self._near_tail = _bands(near, self._near_tail)
        far_db, self._far_tail = _bands(far, self._far_tail)
        gains = np.array([self._decide(*pair) for pair in zip(near_db, far_db, strict=True)], np.float32)
        before = np.concatenate(([self._gain], gains[:-1]))
        self._gain = gains[-1]
        if gains.all() and before.all():
            return near
        ramp = (
            np.arange(BLOCK, dtype=np.float32) / BLOCK
        )  # a jump would be a click, and a click sounds like speech
        envelope = before[:, None] + (gains - before)[:, None] * ramp
        return (near * envelope.ravel()).astype(np.int16)

    def _decide(self, near: NDArray[np.float64], far: NDArray[np.float64]) -> float:
        """Take in one block's levels and return its gain, 0 or 1."""
        self._newest = (self._newest + 1) % _REACH
        self._recent[self._newest] = far
        self._ringing = np.maximum(self._recent.max(axis=0), self._ringing - _RING_DB)
        loud = self._ringing > _FAR_DB
        bands = np.count_nonzero(loud)
        if bands < _LEAST_BANDS:
            self._open, self._evidence = 0, 0.0
            return 1.0
        ratio = near - self._ringing
        if self._learned < _LEARNING:
            self._learned += 1
            self._coupling = np.where(loud, np.maximum(self._coupling, ratio), self._coupling)
            return 0.0
        above = loud & (ratio > self._coupling + _MARGIN_DB) & (near > _NEAR_DB)
        voice = np.count_nonzero(above) >= _SHARE * bands
        self._evidence = min(self._evidence + 1, _NEEDED) if voice else max(self._evidence - 0.5, 0.0)
        if self._evidence >= _NEEDED:
            self._open = _HANG
        opened = self._open > 0
        self._open -= opened
        rise = _STEP_DB * _QUANTILE * (_DOUBT if voice or opened else 1.0)
        step = np.where(ratio > self._coupling, rise, -_STEP_DB * (1 - _QUANTILE))
        self._coupling = np.where(loud, self._coupling + step, self._coupling)
        return float(opened)


def _bands(sound: Samples, tail: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Return the level of each band in each block, in dB, and the last block, which the next call's first needs."""
    whole = np.concatenate([tail, sound.astype(np.float32) * np.float32(1 / 32768)])
    frames = np.lib.stride_tricks.sliding_window_view(whole, 2 * BLOCK)[::BLOCK] * _WINDOW
    power = np.abs(np.fft.rfft(frames, axis=1)) ** 2 / (120 * BLOCK)
    sums = np.add.reduceat(power[:, : _EDGES[-1]], _EDGES[:-1], axis=1)
    return 10 * np.log10(sums + 1e-12), whole[-BLOCK:]
