"""Log-mel features of the last 8 s of an utterance, as networks with a Whisper encoder take them.

The audio is brought to zero mean and unit variance over the whole window, silence before a short utterance included.
Then, for every 10 ms: the power spectrum of 25 ms under a Hann window, 80 triangular bands on the Slaney mel scale,
the logarithm, limited to 80 dB below the loudest value, shifted and scaled. The tests hold the result to the same
thing written out from its definition, and to values of the published feature extractor.

Most utterances are shorter than the window. All frames that see nothing but the silence in front are equal, so they
are computed once: the cost follows the length of the utterance.
"""

from __future__ import annotations

import functools
import math
from typing import Final

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

Floats = NDArray[np.float32]

SAMPLE_RATE: Final = 16000
"""Hz."""
SAMPLES: Final = 8 * SAMPLE_RATE
"""Samples that are looked at."""
MELS: Final = 80
FRAMES: Final = 800

_WINDOW, _HOP, _BINS = 400, 160, 201
_BLOCK: Final = 64
"""Frames in one pass. All 800 at once leave the cache, and 8 s of audio cost twice as much."""
_VARIANCE_FLOOR: Final = 1e-7
_POWER_FLOOR: Final = 1e-10
_RANGE: Final = 8.0
"""Decades of power that are kept below the loudest value."""
_LINEAR_HZ: Final = 200 / 3
"""Width of a mel below 1 kHz on the Slaney scale."""
_BREAK_HZ: Final = 1000.0
_BREAK_MEL: Final = 15.0
_LOG_STEP: Final = math.log(6.4) / 27
"""Natural logarithm of the ratio of frequencies one mel apart, from 1 kHz on."""


def log_mel(pcm: bytes) -> Floats:
    """Return the features (80 × 800, always finite) of the last 8 s of ``pcm``.

    ``pcm`` is s16le mono at 16 kHz, of any length; half a sample at the end is ignored.
    """
    samples = np.frombuffer(pcm, "<i2", count=len(pcm) // 2)[-SAMPLES:].astype(np.float64)
    samples /= 32768
    mean = samples.sum() / SAMPLES
    deviation = math.sqrt(max(np.square(samples).sum() / SAMPLES - mean * mean, 0.0) + _VARIANCE_FLOOR)
    before = SAMPLES - len(samples)
    window = np.full(SAMPLES, -mean / deviation)
    np.divide(samples - mean, deviation, out=window[before:])

    # Frame t is centred on sample 160 t. The first `equal` frames end before the speech begins; the last of them is
    # computed for all.
    equal = min(FRAMES, max(1, (before - _WINDOW // 2) // _HOP + 1))
    mirrored = np.pad(window, _WINDOW // 2, mode="reflect")
    frames = sliding_window_view(mirrored, _WINDOW)[::_HOP][equal - 1 : FRAMES]
    bands = np.concatenate([_bands(frames[at : at + _BLOCK]) for at in range(0, len(frames), _BLOCK)])
    result = np.empty((MELS, FRAMES), np.float32)
    result[:, equal - 1 :] = bands.T
    result[:, : equal - 1] = bands[0][:, np.newaxis]
    np.maximum(result, bands.max() - _RANGE, out=result)
    result += 4
    result /= 4
    return result


def _bands(frames: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the logarithm of the power in each band (n × 80) of n frames of 400 samples."""
    spectrum = np.fft.rfft(frames * _hann())
    power = np.square(spectrum.real)
    power += np.square(spectrum.imag)
    return np.log10(np.maximum(power @ mel_filters(), _POWER_FLOOR))


@functools.cache
def mel_filters() -> NDArray[np.float64]:
    """Return the weights (201 bins of the spectrum × 80 bands): triangles that overlap by half, each of area 1."""
    edges = _mel_to_hz(np.linspace(0.0, _hz_to_mel(SAMPLE_RATE / 2), MELS + 2))
    bins = np.linspace(0.0, SAMPLE_RATE / 2, _BINS)[:, np.newaxis]
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    rising, falling = (bins - low) / (centre - low), (high - bins) / (high - centre)
    return np.maximum(0.0, np.minimum(rising, falling)) * (2.0 / (high - low))


@functools.cache
def _hann() -> NDArray[np.float64]:
    """Return the periodic window: one period of 400 samples without its end."""
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(_WINDOW) / _WINDOW)


def _hz_to_mel(hz: float) -> float:
    if hz < _BREAK_HZ:
        return hz / _LINEAR_HZ
    return _BREAK_MEL + math.log(hz / _BREAK_HZ) / _LOG_STEP


def _mel_to_hz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    logarithmic = _BREAK_HZ * np.exp(_LOG_STEP * (mel - _BREAK_MEL))
    return np.where(mel < _BREAK_MEL, mel * _LINEAR_HZ, logarithmic)
