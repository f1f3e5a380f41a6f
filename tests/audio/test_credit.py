from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mynah.audio.credit import BURST_S, FILL_RATE, MAX_DEBT_S, PCM_PART, opus_cost_s, pcm_cost_s
from mynah.audio.opus import LEGAL_FRAME_MS, OpusEncoder, packet_duration_ms
from mynah.errors import AudioError


@pytest.mark.parametrize("frame_ms", LEGAL_FRAME_MS)
def test_a_packet_costs_its_own_duration(frame_ms: int) -> None:
    encoder = OpusEncoder(16000, frame_ms)
    packet = encoder.encode(bytes(encoder.frame_bytes))
    assert opus_cost_s(packet) == pytest.approx(frame_ms / 1000 / FILL_RATE)


@given(st.binary(max_size=8))
def test_the_cost_agrees_with_the_duration_and_is_bounded_for_everything_else(packet: bytes) -> None:
    cost = opus_cost_s(packet)
    assert 0.0025 / FILL_RATE <= cost <= 0.12 / FILL_RATE
    try:
        assert cost == pytest.approx(packet_duration_ms(packet) / 1000 / FILL_RATE)
    except AudioError:
        return


@given(st.integers(8000, 48000), st.integers(1, 100_000))
def test_pcm_costs_its_length_and_never_nothing(sample_rate: int, samples: int) -> None:
    cost = pcm_cost_s(2 * samples, sample_rate)
    assert cost == pytest.approx(max(samples / sample_rate * PCM_PART, 0.0025) / FILL_RATE)


def test_the_whole_credit_is_the_burst() -> None:
    assert MAX_DEBT_S * FILL_RATE == BURST_S
