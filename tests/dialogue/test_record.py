"""The record of a turn."""

from __future__ import annotations

from mynah.dialogue.record import TurnRecord


def test_stages_are_milliseconds_after_the_end_of_speech() -> None:
    record = TurnRecord("d", "auto", speech_end=10.0, transcript=10.05, first_frame=10.2)
    stages = record.stages_ms()
    assert list(stages) == ["transcript", "first_frame"]
    assert round(stages["transcript"]) == 50
    assert TurnRecord("d", first_frame=1.0).stages_ms() == {}
