import pytest
from hypothesis import given
from hypothesis import strategies as st

from mynah.sim.echo_stamps import EchoStamps
from mynah.sim.speaker import Speaker

FRAME = 0.06


def test_plays_in_real_time() -> None:
    speaker = Speaker()
    for i in range(5):
        assert speaker.push(bytes([i]), FRAME, 10.0)
    speaker.advance(10.0)
    assert speaker.played == [b"\0"]
    speaker.advance(10.0 + 2.5 * FRAME)
    assert speaker.played == [b"\0", b"\1", b"\2"]
    assert speaker.silent_at(10.2) == pytest.approx(10.0 + 5 * FRAME)
    assert speaker.late_frames == 0


def test_the_newest_packet_is_dropped_when_the_buffer_is_full() -> None:
    speaker = Speaker()
    taken = [speaker.push(bytes([i]), FRAME, 0.0) for i in range(50)]
    # One plays, two are decoded, forty wait.
    assert taken == [True] * 43 + [False] * 7
    assert speaker.overflow == 7
    speaker.advance(60.0)
    assert speaker.played == [bytes([i]) for i in range(43)]


def test_a_pause_within_a_reply_is_late() -> None:
    speaker = Speaker()
    speaker.push(b"a", FRAME, 0.0)
    speaker.push(b"b", FRAME, FRAME + 0.004)  # not yet noticeable
    assert speaker.late_frames == 0
    speaker.push(b"c", FRAME, 2 * FRAME + 0.004 + 0.020)
    assert speaker.late_frames == 1
    assert speaker.worst_gap_s == pytest.approx(0.020)


def test_the_first_packet_of_a_reply_is_never_late() -> None:
    speaker = Speaker()
    speaker.push(b"a", FRAME, 0.0)
    assert speaker.begin(100.0) == 0
    speaker.push(b"b", FRAME, 101.0)
    assert speaker.late_frames == 0


def test_beginning_flushes_and_says_how_much() -> None:
    speaker = Speaker()
    for i in range(10):
        speaker.push(bytes([i]), FRAME, 0.0)
    assert speaker.begin(FRAME * 3 + 0.01) == 6
    assert speaker.played == [b"\0", b"\1", b"\2", b"\3"]


def test_without_record_nothing_is_kept() -> None:
    speaker = Speaker(record=False)
    speaker.push(b"a", FRAME, 0.0)
    assert speaker.played == []
    assert speaker.silent_at(0.0) == pytest.approx(FRAME)


@given(st.lists(st.floats(0, 0.2), max_size=120))
def test_every_packet_is_played_in_order_or_counted(pauses: list[float]) -> None:
    speaker, now = Speaker(), 0.0
    taken = []
    for i, pause in enumerate(pauses):
        now += pause
        if speaker.push(bytes([i]), FRAME, now):
            taken.append(bytes([i]))
    end = speaker.silent_at(now)
    speaker.advance(end)
    assert speaker.played == taken
    assert len(taken) + speaker.overflow == len(pauses)
    assert end <= now + 43 * FRAME + 1e-6


def test_stamps_are_told_when_a_packet_has_been_played() -> None:
    stamps = EchoStamps()
    speaker = Speaker(stamps=stamps)
    for stamp in (5, 6, 0):
        speaker.push(b"x", 0.06, 10.0, stamp)
    assert stamps.take() == 0
    speaker.advance(10.07)
    assert [stamps.take(), stamps.take()] == [5, 0]
    speaker.advance(20.0)
    assert [stamps.take(), stamps.take()] == [6, 0]


def test_a_flush_forgets_stamps() -> None:
    stamps = EchoStamps()
    speaker = Speaker(stamps=stamps)
    speaker.push(b"x", 0.06, 10.0, 5)
    speaker.begin(11.0)
    assert stamps.take() == 0
