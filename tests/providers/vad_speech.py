"""Audio for the voice detectors' tests: flite's speech between silences, and noise."""

from __future__ import annotations

import functools
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mynah.audio.ingest import VadEngine
from mynah.audio.pcm import read_audio

Floats = NDArray[np.float32]

needs_flite = pytest.mark.skipif(shutil.which("flite") is None, reason="flite is not installed")


@functools.cache
def sentence(voice: str = "slt") -> Floats:
    """About three seconds of speech at 16 kHz, −1…1."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "speech.wav"
        text = "Good morning. What will the weather be like in London tomorrow afternoon?"
        subprocess.run(["flite", "-voice", voice, "-t", text, "-o", str(path)], check=True, timeout=30)
        return np.frombuffer(read_audio(path), "<i2").astype(np.float32) / 32768


def noise(seconds: float, dbfs: float, seed: int = 0) -> Floats:
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(int(16000 * seconds)) * 10 ** (dbfs / 20)).astype(np.float32)


def chunked(audio: Floats) -> Floats:
    return audio[: len(audio) // 512 * 512].reshape(-1, 512)


def probabilities(engine: VadEngine, audio: Floats) -> Floats:
    """One stream through the engine."""
    slot = engine.open()
    result = [engine.process(np.array([slot]), chunk[None])[0] for chunk in chunked(audio)]
    engine.close(slot)
    return np.array(result)
