"""The features agree with their definition and with the extractor that the published networks were trained with."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mynah.providers.turn.features import FRAMES, MELS, SAMPLES, log_mel, mel_filters
from tests.providers.turn import written_out

# (band, frame) → value that the feature extractor of the transformers package gives for `melody`, chunk_length=8,
# do_normalize=True, with silence in front.
PUBLISHED = {
    (0, 0): -0.17694,
    (40, 400): -0.17694,
    (3, 500): 1.46911,
    (3, 600): 1.29932,
    (45, 650): 0.45141,
    (60, 799): 0.11017,
    (0, 799): 0.87065,
}


def pcm(signal: np.ndarray) -> bytes:
    return np.round(np.clip(signal, -1, 1) * 32767).astype("<i2").tobytes()


def melody() -> bytes:
    t = np.arange(48000) / 16000
    signal = 0.3 * np.sin(2 * np.pi * 220 * t) * (0.5 + 0.5 * np.sin(2 * np.pi * 3 * t))
    return np.round((signal + 0.1 * np.sin(2 * np.pi * 1900 * t)) * 32768).astype("<i2").tobytes()


def signals() -> dict[str, bytes]:
    random = np.random.default_rng(3)
    t = np.arange(160000) / 16000
    return {
        "noise": pcm(random.normal(0, 0.1, 160000)),
        "tone": pcm(0.5 * np.sin(2 * np.pi * 440 * t)),
        "chirp": pcm(0.4 * np.sin(2 * np.pi * (100 + 300 * t) * t)),
        "buzz": pcm(np.sign(np.sin(2 * np.pi * 130 * t))),
        "whisper": random.integers(-1, 2, 160000).astype("<i2").tobytes(),
        "offset": pcm(random.normal(0.3, 0.01, 160000)),
        "silence": bytes(320000),
    }


# Around the edges: where the first frame begins to hear something, and where the window is full.
LENGTHS = [0, 1, 200, 201, 16000, 16111, 127639, 127640, 127800, 127801, 127999, 128000, 160000]


@pytest.mark.parametrize("name", signals())
def test_agrees_with_the_definition(name: str) -> None:
    signal = signals()[name]
    for length in LENGTHS if name == "noise" else [3777, 31999, 160000]:
        heard = signal[: 2 * length]
        found = log_mel(heard)
        assert found.shape == (MELS, FRAMES)
        assert found.dtype == np.float32
        assert np.max(np.abs(found - written_out.features(heard))) < 1e-5, f"{length} samples"


def test_agrees_with_the_published_extractor() -> None:
    found = log_mel(melody())
    assert {at: float(found[at]) for at in PUBLISHED} == pytest.approx(PUBLISHED, abs=1e-4)


def test_filters_agree_with_the_definition() -> None:
    assert np.max(np.abs(mel_filters() - written_out.filters())) < 1e-12
    assert np.all(mel_filters().sum(axis=0) > 0), "no band is empty"


def test_only_the_last_eight_seconds_count() -> None:
    long = signals()["noise"]
    assert np.array_equal(log_mel(long), log_mel(long[-2 * SAMPLES :]))
    assert not np.array_equal(log_mel(long), log_mel(long[: 2 * SAMPLES]))


def test_speech_stands_at_the_end() -> None:
    found = log_mel(melody())
    assert np.ptp(found[:, :495]) == 0, "silence in front"
    assert np.ptp(found[:, 500:]) > 1


def test_half_a_sample_is_ignored() -> None:
    assert np.array_equal(log_mel(melody() + b"\x7f"), log_mel(melody()))


@settings(max_examples=60, deadline=None)
@given(
    st.binary(max_size=3000) | st.integers(0, 2 * SAMPLES + 5000).map(bytes),
    st.integers(0, 80),
)
def test_any_sound_gives_finite_features(sound: bytes, times: int) -> None:
    found = log_mel(sound * times if len(sound) <= 3000 else sound)
    assert found.shape == (MELS, FRAMES)
    assert np.isfinite(found).all()
    assert np.ptp(found) <= 2.0 + 1e-6, "eight decades, divided by four"
