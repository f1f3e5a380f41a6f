from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mynah.sim.load.playout import MAX_SEGMENT, Playout
from mynah.sim.speaker import LATE_S, Speaker

T = 0.06


def heard(arrivals: list[float]) -> tuple[Playout, list[float | None]]:
    playout = Playout()
    playout.begin(arrivals[0])
    return playout, [playout.push(T, at) for at in arrivals]


@given(st.lists(st.integers(0, 200), min_size=1, max_size=150))
def test_it_hears_what_a_speaker_with_a_buffer_hears(pauses_ms: list[int]) -> None:
    """Packets come at odd ms, so that both agree on which side of the limits they fall."""
    at, arrivals = 100.0, []
    for pause in pauses_ms:
        at += pause / 1000
        arrivals.append(at + 0.0005)
    playout, gaps = heard(arrivals)
    speaker = Speaker(record=False)
    speaker.begin(arrivals[0])
    for arrival in arrivals:
        speaker.push(b"", T, arrival)
    assert gaps.count(None) == speaker.overflow
    assert sum(1 for gap in gaps if gap) == speaker.late_frames
    assert max((gap or 0.0 for gap in gaps), default=0.0) == pytest.approx(speaker.worst_gap_s, abs=1e-9)
    assert playout.ends_at == pytest.approx(speaker.silent_at(arrivals[-1]), abs=1e-6)


def paced(count: int, lead: int = 3) -> list[float]:
    return [100.0 + max(0, number - lead + 1) * T for number in range(count)]


def test_a_steady_reply_is_in_rhythm_and_its_lead_is_none_of_it() -> None:
    playout, gaps = heard(paced(30))
    assert set(gaps) == {0.0}
    missed = playout.rhythm()
    assert len(missed) == 27
    assert max(map(abs, missed)) < 1e-9
    assert playout.rhythm() == [], "a reply is judged once"


def test_a_packet_that_is_late_is_seen() -> None:
    arrivals = paced(30)
    arrivals[20] += 0.012
    playout, gaps = heard(arrivals)
    assert set(gaps) == {0.0}, "the lead covers it"
    assert [round(one * 1000) for one in playout.rhythm() if abs(one) > 0.001] == [12]


def test_a_gap_begins_a_new_rhythm() -> None:
    arrivals = paced(20) + [at + 5.0 for at in paced(20)]
    playout, gaps = heard(arrivals)
    assert [gap for gap in gaps if gap] == [pytest.approx(5.0 - 20 * T)]
    assert max(map(abs, playout.rhythm())) < 1e-9


def test_a_lead_that_is_built_up_slowly_is_a_lead() -> None:
    """50 ms apart until ten packets are ahead, then in rhythm."""
    rising = [100.0 + number * 0.03 for number in range(10)]
    playout, _ = heard(rising + [rising[-1] + (number + 1) * T for number in range(20)])
    missed = playout.rhythm()
    assert len(missed) >= 20
    assert max(map(abs, missed)) < LATE_S


def test_a_reply_without_end_takes_bounded_memory() -> None:
    playout, _ = heard(paced(30 * MAX_SEGMENT))
    missed = playout.rhythm()
    assert 10 * MAX_SEGMENT <= len(missed) <= 11 * MAX_SEGMENT
    assert max(map(abs, missed)) < 1e-6


def test_a_new_reply_flushes_the_old_one() -> None:
    playout, _ = heard([100.0] * 20)
    assert playout.ends_at == pytest.approx(100.0 + 20 * T)
    playout.begin(100.5)
    assert playout.ends_at == 100.5
    assert playout.push(T, 103.0) == 0.0, "the pause before a reply is none of its gaps"
