"""What became of all turns."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from loguru import logger

from mynah.dialogue.record import TurnRecord
from mynah.dialogue.speculation import Speculation
from mynah.dialogue.tally import TurnCounts, TurnTally

DEVICE = "02:00:00:00:00:01"


class Observer:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[object] = []

    def on_session_opened(self, device_id: str, session_id: str) -> None:
        self.told.append(("opened", device_id, session_id))

    def on_turn(self, record: TurnRecord) -> None:
        self.told.append(record)

    def on_session_closed(self, device_id: str, session_id: str) -> None:
        self.told.append(("closed", device_id, session_id))


@pytest.fixture
def log() -> Iterator[list[str]]:
    lines: list[str] = []
    sink = logger.add(lambda line: lines.append(str(line)), format="{level} {message}")
    yield lines
    logger.remove(sink)


def tally_of(*records: TurnRecord) -> TurnTally:
    tally = TurnTally(Observer(), Speculation())
    for record in records:
        tally.on_turn(record)
    return tally


def test_everything_is_passed_on_as_it_comes() -> None:
    observer = Observer()
    tally = TurnTally(observer, Speculation())
    record = TurnRecord(DEVICE, text="hello")
    tally.on_session_opened(DEVICE, "s1")
    tally.on_turn(record)
    tally.on_session_closed(DEVICE, "s1")
    assert observer.told == [("opened", DEVICE, "s1"), record, ("closed", DEVICE, "s1")]
    assert observer.told[1] is record


@pytest.mark.parametrize(
    ("record", "counts"),
    [
        (TurnRecord(DEVICE), TurnCounts(1)),
        (TurnRecord(DEVICE, interrupted=True), TurnCounts(1, interrupted=1)),
        (TurnRecord(DEVICE, error="timeout"), TurnCounts(1, failed=1)),
        (TurnRecord(DEVICE, parts=2), TurnCounts(1, continued=1)),
        (TurnRecord(DEVICE, parts=3), TurnCounts(1, continued=1)),
        (
            TurnRecord(DEVICE, cut_in=True, interrupted=True),
            TurnCounts(1, interrupted=1, cut_in=1),
        ),
        (TurnRecord(DEVICE, false_alarms=3), TurnCounts(1, false_alarms=3)),
        (TurnRecord(DEVICE, silent=True), TurnCounts(1, silent=1)),
        (TurnRecord(DEVICE, silent=True, error="internal"), TurnCounts(1, failed=1)),
    ],
)
def test_each_fate_has_a_counter(record: TurnRecord, counts: TurnCounts) -> None:
    assert tally_of(record).counts == counts


def test_counters_add_up() -> None:
    interrupted = TurnRecord(DEVICE, interrupted=True, false_alarms=2)
    assert tally_of(interrupted, TurnRecord(DEVICE), interrupted).counts == TurnCounts(
        3, interrupted=2, false_alarms=4
    )


def test_a_silent_turn_is_reported_at_once_with_its_device(log: list[str]) -> None:
    tally_of(TurnRecord(DEVICE), TurnRecord(DEVICE, silent=True), TurnRecord(DEVICE, silent=True))
    warnings = [line for line in log if line.startswith("WARNING")]
    assert len(warnings) == 2
    assert all(DEVICE in line for line in warnings)
    assert "(2 so far)" in warnings[1]


def test_the_summary_tells_all_of_it_in_one_line() -> None:
    tally = tally_of(
        *[TurnRecord(DEVICE)] * 3,
        TurnRecord(DEVICE, interrupted=True, cut_in=True),
        TurnRecord(DEVICE, error="provider"),
        TurnRecord(DEVICE, parts=2, false_alarms=4),
    )
    assert tally.summary() == (
        "6 turns: 1 interrupted, 1 with a spoken error, 0 silent; 1 continued by the user, 1 begun too early, "
        "4 false alarms"
    )


def test_guesses_are_told_once_there_were_some() -> None:
    speculation = Speculation()
    tally = TurnTally(Observer(), speculation)
    assert "guessed" not in tally.summary()
    for hit in (True, True, True, False):
        speculation.settle(hit, 10)
    assert tally.summary().endswith("; 75% of 4 answers guessed at a pause held, 10 tokens wasted")
