"""The measures of the sound: what they say of known damage, and that the figures are those of the setting."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mynah.audio.opus import SPEECH_BITRATE, Application, OpusEncoder
from mynah.bench import opus
from mynah.bench.opus import Setting, Speech, align, log_spectral_distance_db, measure, segmental_snr_db
from mynah.providers.tts.fake import babble

SOUND = np.frombuffer(babble(2.0), "<i2").astype(float)
NOISE = np.random.default_rng(3).standard_normal(len(SOUND))


@pytest.mark.parametrize("wanted", [0.0, 10.0, 20.0])
def test_snr_is_that_of_the_noise_that_was_added(wanted: float) -> None:
    noise = np.concatenate(
        [
            NOISE[at : at + 320]
            * np.sqrt(np.mean(SOUND[at : at + 320] ** 2) / np.mean(NOISE[at : at + 320] ** 2))
            for at in range(0, len(SOUND), 320)
        ]
    )
    damaged = SOUND + noise * 10 ** (-wanted / 20)
    assert segmental_snr_db(SOUND, damaged, 16000) == pytest.approx(wanted, abs=0.1)


def test_distance_is_that_of_a_change_in_level() -> None:
    assert log_spectral_distance_db(SOUND, SOUND, 16000) == 0
    assert log_spectral_distance_db(SOUND, SOUND * 2, 16000) == pytest.approx(6, abs=1)
    softer = log_spectral_distance_db(SOUND, SOUND + NOISE * 30, 16000)
    assert 0 < softer < log_spectral_distance_db(SOUND, SOUND + NOISE * 300, 16000)


@given(st.integers(0, 319))
def test_the_delay_is_found(delay: int) -> None:
    clean, decoded = align(SOUND, np.concatenate([np.zeros(delay), SOUND]), 16000)
    assert np.array_equal(clean, decoded)


def test_more_bits_and_more_effort_sound_better() -> None:
    said = [Speech("babble", babble(2.0), 16000)]

    def found(bitrate: int, complexity: int) -> opus.Measured:
        return measure(said, 16000, OpusEncoder(16000, 60, complexity, bitrate), rounds=1)

    low, high, best = found(24000, 0), found(SPEECH_BITRATE, 0), found(SPEECH_BITRATE, 5)
    assert low.snr_db[0] < high.snr_db[0] < best.snr_db[0]
    assert low.distance_db[0] > high.distance_db[0]
    assert low.kbits[0] == pytest.approx(24, abs=3)
    assert high.kbits[0] == pytest.approx(32, abs=3)
    assert len(high.cost_us) == 33
    assert min(high.cost_us) > 0


def test_every_setting_is_measured_with_every_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opus, "SETTINGS", (Setting(Application.AUDIO, SPEECH_BITRATE, (0, 5)),))
    monkeypatch.setattr(opus, "RATES", (16000,))
    monkeypatch.setattr(opus, "ROUNDS", 1)
    monkeypatch.setattr(opus, "speeches", lambda: [Speech("babble", babble(1.0), 16000)])
    results = list(itertools.islice(opus.opus(), 100))
    assert len(results) == 2 * len(opus.libraries()) * 4 + 1
    assert {result.unit for result in results} == {"µs", "kbit/s", "dB"}
    assert "16 kHz, audio, 32 kbit/s, complexity 0" in results[0].case


@pytest.mark.speech
def test_there_is_speech_in_two_languages() -> None:
    said = opus.speeches()
    assert {speech.name for speech in said} >= {"espeak en-us+f5", "espeak cmn+f5"}
    assert all(len(speech.pcm) > 2 * speech.rate for speech in said)
