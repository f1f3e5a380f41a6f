"""Speech edges from probabilities, in media time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mynah.dialogue.endpointing import Edge, Endpointer
from mynah.providers.base import VadCapabilities

CAPABILITIES = VadCapabilities(threshold=0.5, threshold_low=0.35, min_silence_ms=200, min_speech_ms=96)


def edges(probabilities: list[float], **options: float) -> list[tuple[int, Edge]]:
    endpointer = Endpointer(CAPABILITIES, **options)
    return [(i, edge) for i, p in enumerate(probabilities) if (edge := endpointer.push(p)) is not None]


def test_start_after_three_decisions_and_end_within_one_of_the_configured_silence() -> None:
    found = edges([0.0] * 5 + [0.9] * 10 + [0.0] * 20)
    assert found == [(7, Edge.STARTED), (20, Edge.ENDED)]
    silence_ms = (20 - 14) * 32
    assert abs(silence_ms - 200) <= 32


def test_a_click_is_not_speech() -> None:
    assert edges([0.0, 0.9, 0.9, 0.0, 0.0, 0.9, 0.0, 0.0]) == []


def test_one_dip_inside_a_word_does_not_start_the_count_anew() -> None:
    assert edges([0.9, 0.9, 0.1, 0.9]) == [(3, Edge.STARTED)]


def test_between_the_thresholds_the_last_decision_stands() -> None:
    assert edges([0.9] * 3 + [0.4] * 50) == [(2, Edge.STARTED)]
    assert edges([0.4] * 50) == []


def test_a_short_pause_does_not_end_the_utterance() -> None:
    assert edges([0.9] * 3 + [0.0] * 5 + [0.9] * 3 + [0.0] * 5) == [(2, Edge.STARTED)]


def test_interrupting_takes_more_speech() -> None:
    assert edges([0.9] * 9, min_speech_ms=320) == []
    endpointer = Endpointer(CAPABILITIES, min_speech_ms=320)
    for _ in range(5):
        assert endpointer.push(0.9) is None
    endpointer.require_speech(96)
    assert endpointer.push(0.9) is Edge.STARTED


def test_the_peak_is_reported() -> None:
    endpointer = Endpointer(CAPABILITIES)
    for probability in (0.6, 0.1, 0.1):
        endpointer.push(probability)
    assert endpointer.peak == pytest.approx(0.6)


@given(st.lists(st.floats(0, 1), max_size=400))
def test_edges_alternate(probabilities: list[float]) -> None:
    kinds = [edge for _, edge in edges(probabilities)]
    assert kinds == [Edge.STARTED, Edge.ENDED] * (len(kinds) // 2) + [Edge.STARTED] * (len(kinds) % 2)
