"""What became of a turn, in one word, and telling several observers."""

from __future__ import annotations

import pytest

from mynah.dialogue.record import TurnRecord
from mynah.observe.turns import MODES, Observers, Outcome, mode_of, outcome_of
from tests.fakes import Recorder


@pytest.mark.parametrize(
    ("record", "outcome"),
    [
        (TurnRecord("d"), Outcome.DONE),
        (TurnRecord("d", interrupted=True), Outcome.INTERRUPTED),
        (TurnRecord("d", silent=True), Outcome.SILENT),
        (TurnRecord("d", interrupted=True, silent=True), Outcome.INTERRUPTED),
        (TurnRecord("d", error="provider", interrupted=True, silent=True), Outcome.FAILED),
    ],
)
def test_outcomes(record: TurnRecord, outcome: Outcome) -> None:
    assert outcome_of(record) is outcome


def test_every_mode_is_known() -> None:
    assert mode_of(TurnRecord("d")) == "unprompted"
    assert mode_of(TurnRecord("d", mode="realtime")) == "realtime"
    assert sorted(MODES) == ["auto", "manual", "realtime", "text", "unprompted"]


def test_all_observers_are_told_in_order() -> None:
    told: list[str] = []

    class Named(Recorder):
        def on_turn(self, record: TurnRecord) -> None:
            super().on_turn(record)
            told.append(str(self.number))

        number = 0

    one, two = Named(), Named()
    two.number = 1
    both = Observers([one, two])
    both.on_session_opened("d", "s")
    both.on_turn(TurnRecord("d"))
    both.on_session_closed("d", "s")
    assert told == ["0", "1"]
    assert one.opened == two.opened == one.closed == two.closed == 1
