"""Edges of speech from probabilities and levels, in media time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mynah.dialogue.endpointing import BACKDATE_CHUNKS, Edge, Endpointer
from mynah.providers.base import VadCapabilities

CAPABILITIES = VadCapabilities(threshold=0.5, threshold_low=0.35, min_silence_ms=200, min_speech_ms=96)
STARTED, PAUSED, RESUMED, ENDED = Edge.STARTED, Edge.PAUSED, Edge.RESUMED, Edge.ENDED
CHUNK = 32.0
SILENT_CHUNKS = 5
"""Decisions after which 200 ms of silence are over: the last with speech in it and the way here take the rest."""
VOICE, ROOM = -20.0, -62.0

Decision = tuple[float, float]
Found = list[tuple[int, Edge]]

decisions = st.lists(st.tuples(st.floats(0, 1), st.floats(-120, 0)), max_size=300)


def run(endpointer: Endpointer, given: list[Decision]) -> Found:
    return [(i, edge) for i, (p, db) in enumerate(given) if (edge := endpointer.push(p, db)) is not None]


def edges(probabilities: list[float], **options: float) -> Found:
    """Without levels: the probability alone decides."""
    endpointer = Endpointer(CAPABILITIES, **options)
    return [(i, edge) for i, p in enumerate(probabilities) if (edge := endpointer.push(p)) is not None]


def test_start_after_three_decisions_a_pause_and_the_end_where_the_silence_is_over() -> None:
    found = edges([0.0] * 5 + [0.9] * 10 + [0.0] * 20)
    assert found == [(7, STARTED), (16, PAUSED), (19, ENDED)]
    silent = 19 - 14
    # Speech may have filled the last decision or none of it, and the packet may have waited for 60 ms.
    assert abs(silent * CHUNK + 16 + 30 - 200) <= 60


@pytest.mark.parametrize(
    ("configured", "chunks"), [(32, 1), (100, 2), (200, 5), (300, 8), (500, 15), (800, 24)]
)
def test_the_silence_is_what_was_configured_less_what_no_decision_counts(
    configured: int, chunks: int
) -> None:
    capabilities = VadCapabilities(min_silence_ms=configured)
    found = run(Endpointer(capabilities), [(0.9, 0.0)] * 5 + [(0.0, 0.0)] * 40)
    assert found[-1] == (4 + chunks, ENDED)


def test_a_click_is_not_speech() -> None:
    assert edges([0.0, 0.9, 0.9, 0.0, 0.0, 0.9, 0.0, 0.0]) == []


def test_one_dip_inside_a_word_does_not_start_the_count_anew() -> None:
    assert edges([0.9, 0.9, 0.1, 0.9]) == [(3, STARTED)]


def test_between_the_thresholds_the_last_decision_stands() -> None:
    assert edges([0.9] * 3 + [0.4] * 50) == [(2, STARTED)]
    assert edges([0.4] * 50) == []


def test_one_dip_is_no_pause() -> None:
    assert edges(([0.9] * 4 + [0.0]) * 20) == [(2, STARTED)]


def test_a_pause_is_reported_with_its_length_when_speech_goes_on() -> None:
    endpointer = Endpointer(CAPABILITIES)
    found = run(endpointer, [(0.9, 0.0)] * 3 + [(0.0, 0.0)] * 4 + [(0.9, 0.0)] * 3)
    assert found == [(2, STARTED), (4, PAUSED), (8, RESUMED)]
    assert endpointer.pause_ms == 4 * CHUNK
    assert not endpointer.paused
    assert endpointer.voiced_ms == 6 * CHUNK
    assert endpointer.silence_ms == 0


def test_a_closure_in_a_word_is_no_pause_to_learn_from() -> None:
    endpointer = Endpointer(CAPABILITIES)
    found = run(endpointer, [(0.9, 0.0)] * 3 + [(0.0, 0.0)] * 2 + [(0.9, 0.0)] * 3)
    assert found == [(2, STARTED), (4, PAUSED), (6, RESUMED)]
    assert endpointer.pause_ms == 0
    assert endpointer.voiced_ms == 6 * CHUNK


def test_a_lone_sound_right_after_the_speech_still_belongs_to_it() -> None:
    found = edges([0.9] * 3 + [0.0] * 2 + [0.9] + [0.0] * 9)
    assert found == [(2, STARTED), (4, PAUSED), (5 + SILENT_CHUNKS, ENDED)]


def test_two_lone_sounds_right_after_the_speech_make_what_was_guessed_void() -> None:
    found = edges([0.9] * 3 + [0.0] * 2 + [0.9, 0.0, 0.9] + [0.0] * 9)
    assert found == [(2, STARTED), (4, PAUSED), (7, RESUMED), (9, PAUSED), (7 + SILENT_CHUNKS, ENDED)]


def test_a_click_does_not_end_a_pause_nor_lengthen_the_silence() -> None:
    quiet = edges([0.9] * 3 + [0.0] * 10)
    clicked = edges([0.9] * 3 + [0.0] * 3 + [0.9] + [0.0] * 6)
    assert clicked == quiet == [(2, STARTED), (4, PAUSED), (7, ENDED)]


def test_speech_that_may_be_a_click_delays_the_end_by_one_decision() -> None:
    found = edges([0.9] * 3 + [0.0] * (SILENT_CHUNKS - 1) + [0.9, 0.9, 0.9])
    assert found == [(2, STARTED), (4, PAUSED), (8, RESUMED)]


def test_ending_before_the_pause_is_long_enough_needs_no_pause() -> None:
    found = edges([0.9] * 3 + [0.0] * 9, pause_ms=300)
    assert found == [(2, STARTED), (2 + SILENT_CHUNKS, ENDED)]


def test_interrupting_takes_more_speech() -> None:
    assert edges([0.9] * 9, min_speech_ms=320) == []
    endpointer = Endpointer(CAPABILITIES, min_speech_ms=320)
    for _ in range(5):
        assert endpointer.push(0.9) is None
    endpointer.require_speech(96)
    assert endpointer.push(0.9) is STARTED


def test_the_peak_is_reported() -> None:
    endpointer = Endpointer(CAPABILITIES)
    for probability in (0.6, 0.1, 0.1):
        endpointer.push(probability)
    assert endpointer.peak == pytest.approx(0.6)


# -- levels


SPOKEN: list[Decision] = [(0.01, ROOM)] * 10 + [(1.0, VOICE)] * 10
LAGGING: list[Decision] = [(0.99, ROOM), (0.9, ROOM), (0.6, ROOM)]
"""The voice has fallen silent, the detector has not let go."""
SILENT: list[Decision] = [(0.02, ROOM)] * 20


def test_the_silence_is_dated_back_to_the_last_audible_sound() -> None:
    found = run(Endpointer(CAPABILITIES), SPOKEN + LAGGING + SILENT)
    assert found == [(12, STARTED), (21, PAUSED), (19 + SILENT_CHUNKS, ENDED)]


def test_a_shorter_silence_still_waits_for_the_detector() -> None:
    capabilities = VadCapabilities(min_silence_ms=64)
    found = run(Endpointer(capabilities), SPOKEN + LAGGING + SILENT)
    assert found == [(12, STARTED), (21, PAUSED), (23, ENDED)]


def test_a_pause_is_told_before_the_detector_lets_go() -> None:
    """Else the end, which is dated back, would come first, and nothing were ready."""
    late = [(0.99, ROOM)] * 4 + [(0.02, ROOM)] * 9
    assert run(Endpointer(CAPABILITIES), SPOKEN + late) == [(12, STARTED), (22, PAUSED), (24, ENDED)]


def test_a_detector_that_wavers_tells_a_pause_earlier() -> None:
    wavering = [(0.99, ROOM), (0.9, ROOM), (0.8, ROOM), (0.7, ROOM)]
    assert run(Endpointer(CAPABILITIES), SPOKEN + wavering) == [(12, STARTED), (21, PAUSED)]


def test_pauses_may_be_told_only_when_the_detector_has_let_go() -> None:
    endpointer = Endpointer(CAPABILITIES, early=False)
    assert run(endpointer, SPOKEN + LAGGING + SILENT) == [
        (12, STARTED),
        (23, PAUSED),
        (19 + SILENT_CHUNKS, ENDED),
    ]
    endpointer = Endpointer(CAPABILITIES, early=False)
    assert run(endpointer, [(0.9, 0.0)] * 5 + SILENT)[1] == (7, PAUSED)


def test_only_what_can_be_heard_ends_a_pause_that_the_detector_has_not_noticed() -> None:
    endpointer = Endpointer(CAPABILITIES)
    assert run(endpointer, SPOKEN + [(0.99, ROOM)] * 30) == [(12, STARTED), (22, PAUSED)]
    assert run(endpointer, [(0.99, VOICE)] * 2) == [(1, RESUMED)]
    assert endpointer.pause_ms == 0
    assert endpointer.voiced_ms == 12 * CHUNK
    assert run(endpointer, SILENT)[-1] == (SILENT_CHUNKS - 1, ENDED)


def test_a_lone_sound_while_the_detector_is_late_puts_the_end_off() -> None:
    found = run(Endpointer(CAPABILITIES), SPOKEN + [(0.99, ROOM)] * 3 + [(0.99, VOICE)] + LAGGING + SILENT)
    assert found == [(12, STARTED), (22, PAUSED), (23 + SILENT_CHUNKS, ENDED)]


def test_dating_back_has_a_limit() -> None:
    endpointer = Endpointer(CAPABILITIES, pause_ms=32)
    found = run(endpointer, SPOKEN + [(0.9, ROOM)] * 30 + [(0.02, ROOM)])
    assert found[-1] == (50, ENDED)
    # One is confirmed, one stands for what no decision counts.
    assert endpointer.silence_ms == (BACKDATE_CHUNKS + 1 + 1) * CHUNK


def test_a_quiet_fricative_at_the_end_is_speech() -> None:
    fricative = [(0.98, VOICE - 28.0)] * 5
    found = run(Endpointer(CAPABILITIES), SPOKEN + fricative + SILENT)
    assert found[-1] == (24 + SILENT_CHUNKS, ENDED)


def test_in_noise_the_probability_alone_decides() -> None:
    loud_room = VOICE - 15.0
    noisy = [(0.01, loud_room)] * 10 + [(1.0, VOICE)] * 10 + [(0.9, loud_room)] * 3 + [(0.02, loud_room)] * 20
    found = run(Endpointer(CAPABILITIES), noisy)
    assert found[-1] == (22 + SILENT_CHUNKS, ENDED)


def test_noise_after_the_speech_does_not_keep_the_utterance_open() -> None:
    found = run(Endpointer(CAPABILITIES), SPOKEN + [(0.02, VOICE)] * 20)
    assert found[-1] == (19 + SILENT_CHUNKS, ENDED)


def test_a_quieter_speaker_after_a_loud_one_is_measured_by_himself() -> None:
    quiet = [(1.0, -50.0)] * 10
    found = run(Endpointer(CAPABILITIES), [*SPOKEN, *SILENT, *quiet, *LAGGING, *SILENT])
    assert [edge for _, edge in found] == [STARTED, PAUSED, ENDED] * 2
    # 12 dB above the room are too few for the level to tell anything: counted from the detector's last word.
    assert found[-1][0] == 52 + SILENT_CHUNKS


def test_the_time_spoken_leaves_out_what_cannot_be_heard() -> None:
    endpointer = Endpointer(CAPABILITIES)
    run(endpointer, SPOKEN + LAGGING + SILENT)
    assert endpointer.voiced_ms == 10 * CHUNK


# -- how long to wait


def test_another_silence_can_be_required_at_any_time() -> None:
    endpointer = Endpointer(CAPABILITIES)
    endpointer.require_silence(500)
    assert run(endpointer, [(0.9, 0.0)] * 3 + [(0.0, 0.0)] * 20)[-1] == (2 + 15, ENDED)
    endpointer.require_silence(200)
    assert run(endpointer, [(0.9, 0.0)] * 3 + [(0.0, 0.0)] * 20)[-1] == (2 + SILENT_CHUNKS, ENDED)


def test_waiting_longer_in_a_pause_is_forgotten_when_speech_goes_on() -> None:
    endpointer = Endpointer(CAPABILITIES)
    run(endpointer, [(0.9, 0.0)] * 3 + [(0.0, 0.0)] * 4)
    assert endpointer.paused
    endpointer.wait(1000)
    assert run(endpointer, [(0.0, 0.0)] * 20 + [(0.9, 0.0)] * 2) == [(21, RESUMED)]
    assert endpointer.pause_ms == 24 * CHUNK
    assert run(endpointer, [(0.0, 0.0)] * 20) == [(1, PAUSED), (SILENT_CHUNKS - 1, ENDED)]


def test_waiting_less_than_the_silence_so_far_ends_with_the_next_decision() -> None:
    endpointer = Endpointer(CAPABILITIES)
    endpointer.require_silence(1000)
    run(endpointer, [(0.9, 0.0)] * 3 + [(0.0, 0.0)] * 8)
    endpointer.wait(160)
    assert endpointer.push(0.0) is ENDED
    assert endpointer.silence_ms == (9 + 1) * CHUNK


def test_what_was_said_in_one_utterance_about_waiting_does_not_hold_for_the_next() -> None:
    endpointer = Endpointer(CAPABILITIES)
    run(endpointer, [(0.9, 0.0)] * 3)
    endpointer.wait(64)
    assert run(endpointer, [(0.0, 0.0)] * 9) == [(0, ENDED)]
    assert run(endpointer, [(0.9, 0.0)] * 3 + [(0.0, 0.0)] * 9)[-1] == (2 + SILENT_CHUNKS, ENDED)


def test_the_silence_before_an_utterance_is_known_when_it_starts() -> None:
    endpointer = Endpointer(CAPABILITIES)
    run(endpointer, [(0.0, 0.0)] * 10 + [(0.9, 0.0)] * 3)
    assert endpointer.pause_ms == 10 * CHUNK
    found = run(endpointer, [(0.0, 0.0)] * 20 + [(0.9, 0.0)] + [(0.0, 0.0)] * 4 + [(0.9, 0.0)] * 3)
    assert found[-1] == (27, STARTED)
    assert endpointer.pause_ms == 25 * CHUNK


# -- properties


@given(decisions)
def test_edges_come_in_a_legal_order(given_: list[Decision]) -> None:
    after = {
        None: {STARTED},
        STARTED: {PAUSED, ENDED},
        PAUSED: {RESUMED, ENDED},
        RESUMED: {PAUSED, ENDED},
        ENDED: {STARTED},
    }
    endpointer, previous = Endpointer(CAPABILITIES), None
    for probability, level in given_:
        edge = endpointer.push(probability, level)
        if edge is not None:
            assert edge in after[previous]
            previous = edge
        assert endpointer.speaking == (previous in {STARTED, PAUSED, RESUMED})
        assert endpointer.paused == (previous is PAUSED)


@given(decisions, st.sampled_from([32.0, 96.0]), st.sampled_from([64, 200, 500]))
def test_when_a_pause_is_told_changes_neither_beginnings_nor_ends(
    given_: list[Decision], pause_ms: float, silence_ms: int
) -> None:
    capabilities = VadCapabilities(min_silence_ms=silence_ms)
    usual, other = (
        [(at, edge) for at, edge in run(endpointer, given_) if edge in {STARTED, ENDED}]
        for endpointer in (Endpointer(capabilities), Endpointer(capabilities, pause_ms=pause_ms))
    )
    assert usual == other


@given(decisions, st.integers(0, 60))
def test_later_speech_has_later_edges_and_no_others(given_: list[Decision], shift: int) -> None:
    room = [(0.0, given_[0][1] if given_ else ROOM)]
    there = run(Endpointer(CAPABILITIES), room + given_)
    later = run(Endpointer(CAPABILITIES), room * (shift + 1) + given_)
    assert later == [(at + shift, edge) for at, edge in there]


@given(decisions, st.sampled_from([100, 200, 500, 1000]))
def test_no_end_before_the_silence_is_long_enough(given_: list[Decision], silence_ms: int) -> None:
    """Counted from the last audible speech; a lone decision of speech in a pause may be a click."""
    endpointer = Endpointer(VadCapabilities(min_silence_ms=silence_ms))
    last_run = run_length = 0
    for at, (probability, level) in enumerate(given_):
        edge = endpointer.push(probability, level)
        run_length = run_length + 1 if probability >= 0.5 else 0
        if run_length >= 2:
            last_run = at
        if edge is ENDED:
            assert endpointer.silence_ms >= silence_ms - CHUNK / 2
            assert (at - last_run + BACKDATE_CHUNKS) * CHUNK >= silence_ms - 1.5 * CHUNK


@given(st.lists(st.floats(0, 1), max_size=300), st.floats(-120, 0))
def test_a_level_that_never_changes_changes_nothing(probabilities: list[float], level: float) -> None:
    assert run(Endpointer(CAPABILITIES), [(p, level) for p in probabilities]) == edges(probabilities)


@given(decisions, st.integers(1, 2000))
def test_silence_that_goes_on_always_ends_the_utterance(given_: list[Decision], wait_ms: int) -> None:
    endpointer = Endpointer(CAPABILITIES)
    run(endpointer, given_)
    endpointer.wait(wait_ms)
    run(endpointer, [(0.0, ROOM)] * 65)
    assert not endpointer.speaking
