"""What is noted of a turn, for whoever wants to know where its time went."""

from __future__ import annotations

import asyncio

import pytest

from mynah.dialogue.record import TurnRecord
from mynah.wire.messages import Listen, ListenMode
from tests.fakes import HUSH, VOICE, Stage
from tests.virtual_time import virtual


@virtual
async def test_speech_begins_and_ends_before_all_that_follows_from_it() -> None:
    stage = Stage()
    await stage.settle(1.0)
    opened = asyncio.get_running_loop().time()
    stage.session.on_message(Listen("start", ListenMode.AUTO))
    await stage.stream((HUSH, 10), (VOICE, 20), (HUSH, 20))
    await stage.settle()
    (turn,) = stage.recorder.turns
    assert 0.9 <= turn.speech_end - turn.speech_start <= 2.0, "1.2 s of voice and the silence after it"
    assert turn.speech_start - opened >= 0.5, "not when the microphone opened"
    assert turn.speech_end <= turn.transcript <= turn.first_frame
    await stage.end()


@virtual
async def test_with_a_button_it_begins_when_that_is_pressed() -> None:
    stage = Stage()
    await stage.settle(1.0)
    pressed = asyncio.get_running_loop().time()
    stage.session.on_message(Listen("start", ListenMode.MANUAL))
    await stage.stream((VOICE, 20))
    stage.session.on_message(Listen("stop"))
    await stage.settle()
    (turn,) = stage.recorder.turns
    assert turn.speech_start - pressed == pytest.approx(0.0, abs=0.1)
    assert turn.speech_end - turn.speech_start == pytest.approx(1.2, abs=0.1)
    await stage.end()


@virtual
async def test_typed_text_was_never_spoken() -> None:
    stage = Stage()
    stage.session.on_message(Listen("detect", text="what time is it"))
    await stage.settle()
    (turn,) = stage.recorder.turns
    assert turn.speech_start == 0
    await stage.end()


def test_stages_are_milliseconds_after_the_end_of_speech() -> None:
    record = TurnRecord("d", "auto", speech_end=10.0, transcript=10.05, first_frame=10.2)
    stages = record.stages_ms()
    assert list(stages) == ["transcript", "first_frame"]
    assert round(stages["transcript"]) == 50
    assert TurnRecord("d", first_frame=1.0).stages_ms() == {}
