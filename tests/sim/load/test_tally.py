from __future__ import annotations

from typing import Any

import msgspec
import pytest

from mynah.sim.load.record import Outcomes, Stage, Step
from mynah.sim.load.talker import NO_ANSWER, UNANSWERED
from mynah.sim.load.tally import MAX_KINDS, Tally, merged


def test_processes_add_up() -> None:
    one = Tally(
        step=2, connected=3, talking=1, attempted=5, succeeded=4, turns=2, answered=1, late=1, received=10
    )
    other = Tally(step=2, held=True, connected=4, attempted=4, succeeded=4, worst_gap_ms=80.0, ramp_s=2.0)
    one.time(Stage.HELLO, 10.0)
    other.time(Stage.HELLO, 30.0)
    one.error("no hello")
    other.error("no hello", 2)
    other.fault("stray_audio")
    total = merged([one, msgspec.msgpack.decode(msgspec.msgpack.encode(other), type=Tally)])
    step = total.step_record(Step(number=2, devices=8))
    assert step.connected == 7
    assert step.connections == Outcomes(attempted=9, succeeded=8)
    assert step.turns == Outcomes(attempted=2, succeeded=1)
    assert step.times[Stage.HELLO].count == 2
    assert step.frames.late_share == 0.1
    assert step.frames.worst_gap_ms == 80.0
    assert step.errors == {"no hello": 3}
    assert step.faults == {"stray_audio": 1}
    assert (total.ramp_s, total.held, total.step) == (2.0, True, 2)
    assert one.errors == {"no hello": 1}, "what was added is not changed"


def test_only_connections_outlive_the_ramp() -> None:
    tally = Tally(attempted=3, succeeded=2, turns=4, answered=4, sent=9, received=9, late=2, connected=2)
    tally.time(Stage.CONNECT, 1.0)
    tally.time(Stage.TURN, 1.0)
    tally.lag.add(5.0)
    tally.hold()
    assert (tally.attempted, tally.succeeded, tally.connected) == (3, 2, 2)
    assert (tally.turns, tally.answered, tally.sent, tally.received, tally.late) == (0, 0, 0, 0, 0)
    assert set(tally.times) == {Stage.CONNECT}
    assert tally.lag.distribution().count == 0
    assert tally.held


def test_what_went_wrong_with_turns_in_the_ramp_is_no_failure_of_the_hold() -> None:
    tally = Tally(waits=[1.0], silences=[1.0])
    tally.error(NO_ANSWER)
    tally.error("connection refused", 2)
    tally.fault("stray_audio")
    tally.hold()
    assert (tally.errors, tally.faults, tally.waits) == ({"connection refused": 2}, {}, [])
    assert tally.silences == []


def test_long_waits_that_are_not_over_count_among_the_first_audios() -> None:
    one, other = Tally(waits=[5000.0, 150.0]), Tally(waits=[4000.0, 6000.0])
    for _ in range(20):
        one.time(Stage.FIRST_AUDIO, 200.0)
    step = merged([one, other]).step_record(Step(number=1, devices=2))
    audio = step.times[Stage.FIRST_AUDIO]
    assert (audio.count, audio.max) == (23, 6000.0), "150 ms say nothing"
    assert audio.p95 > 3900
    assert one.times[Stage.FIRST_AUDIO].distribution().count == 20, "what was counted is not changed"
    assert Stage.FIRST_AUDIO not in merged([other]).step_record(step).times


def answered(count: int, first_audio_ms: float, **fields: Any) -> Tally:
    """A process whose answers all began after the same time."""
    tally = Tally(turns=count, answered=count, **fields)
    for _ in range(count):
        tally.time(Stage.FIRST_AUDIO, first_audio_ms)
    return tally


@pytest.mark.parametrize(
    ("first_audio_ms", "waits", "silences", "unanswered", "pending"),
    [
        (300.0, [], [], 0, 0),
        (300.0, [1990.0, 200.0], [1990.0], 0, 2),  # 2 s at least
        (300.0, [2010.0, 200.0], [], 1, 1),
        (300.0, [], [2010.0, 0.0], 1, 0),
        (3000.0, [5800.0, 6500.0], [5800.0], 1, 1),  # twice the p95 of slow answers
    ],
)
def test_who_waits_too_long_in_the_light_of_the_others_got_no_answer(
    first_audio_ms: float, waits: list[float], silences: list[float], unanswered: int, pending: int
) -> None:
    # The limit is that of all processes together: the second one alone has no answer to compare with.
    total = merged([answered(20, first_audio_ms), Tally(waits=waits, silences=silences)])
    step = total.step_record(Step(number=1, devices=2))
    assert (step.unanswered, step.pending) == (unanswered, pending)
    assert step.turns == Outcomes(attempted=20 + unanswered, succeeded=20)
    assert step.errors == ({UNANSWERED: unanswered} if unanswered else {})
    assert total.errors == {}, "what was counted is not changed"


def test_where_no_answer_has_begun_two_seconds_are_too_long() -> None:
    step = Tally(waits=[9000.0, 8000.0, 1000.0]).step_record(Step(number=1, devices=3))
    assert (step.unanswered, step.pending) == (2, 1)
    assert step.turns == Outcomes(attempted=2)


def test_a_failure_can_be_taken_back() -> None:
    tally = Tally()
    tally.error("x", 2)
    for left in ({"x": 1}, {}, {}):
        tally.unerror("x")
        assert tally.errors == left


def test_a_server_with_many_close_codes_does_not_fill_the_memory() -> None:
    tally = Tally()
    for code in range(10_000):
        tally.error(f"closed with {code}")
    assert len(tally.errors) == MAX_KINDS + 1
    assert sum(tally.errors.values()) == 10_000
