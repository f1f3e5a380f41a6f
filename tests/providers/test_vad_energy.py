from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from mynah.errors import ProviderError
from mynah.providers.vad.energy import EnergyEngine, EnergyOptions, EnergyVad
from tests.providers.vad_speech import chunked, needs_flite, noise, probabilities, sentence


def engine() -> EnergyEngine:
    return EnergyEngine(margin_db=10)


@needs_flite
@pytest.mark.parametrize("voice", ["slt", "rms", "awb"])
@pytest.mark.parametrize("background", [-65, -45])
def test_tells_speech_from_background(voice: str, background: float) -> None:
    speech = sentence(voice)
    speech = speech + noise(len(speech) / 16000 + 1, background)[: len(speech)]
    audio = np.concatenate([noise(1, background), speech, noise(1, background)])
    found = probabilities(engine(), audio)
    assert np.mean(found[16:28] >= 0.5) == 0
    assert np.mean(found[32 : 32 + len(speech) // 512] > 0.5) > 0.6
    assert np.mean(found[-16:] >= 0.5) == 0


@needs_flite
def test_speech_from_the_first_chunk_on() -> None:
    speech = sentence("slt")
    assert np.mean(probabilities(engine(), speech)[:20] > 0.5) > 0.5


@pytest.mark.parametrize("dbfs", [-60, -40, -20])
def test_steady_noise_becomes_background(dbfs: float) -> None:
    found = probabilities(engine(), noise(4, dbfs))
    assert np.all(found[62:] < 0.35)


def test_silence_and_offset_are_no_speech() -> None:
    assert np.max(probabilities(engine(), np.zeros(16000, np.float32))) < 0.1
    assert np.max(probabilities(engine(), np.full(16000, 0.3, np.float32))) < 0.1


def test_slots_grow_and_keep_their_states() -> None:
    one = engine()
    audio = noise(1, -30)
    expected = probabilities(engine(), audio)
    slot, found = one.open(), []
    for index, chunk in enumerate(chunked(audio)):
        if index == 5:
            assert len({one.open() for _ in range(100)} | {slot}) == 101
        found.append(one.process(np.array([slot]), chunk[None])[0])
    assert np.allclose(found, expected)


async def test_provider() -> None:
    provider = EnergyVad("EnergyVAD", EnergyOptions(type="energy", min_silence_duration_ms=300))
    with pytest.raises(ProviderError, match="not started"):
        provider.engine()
    await provider.start()
    assert provider.engine().chunk_samples == 512
    assert provider.capabilities.min_silence_ms == 300
    await provider.stop()


def test_options_are_checked() -> None:
    with pytest.raises(ValidationError, match="threshold_low"):
        EnergyOptions(type="energy", threshold=0.3, threshold_low=0.4)
