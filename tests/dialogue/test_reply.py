"""What a device is told of one reply, in order, on virtual time."""

from __future__ import annotations

from mynah.wire.messages import Abort, Listen, TtsSentence
from tests.dialogue.test_session import play
from tests.fakes import Script, Stage


def test_sentences_end_before_the_next_begins_and_before_the_stop() -> None:
    async def act(stage: Stage) -> None:
        stage.session.on_message(Listen("detect", text="hi"))
        await stage.settle()

    stage = play(None, act)
    story = [(m.state, m.text) for m in stage.link.of(TtsSentence)]
    assert story == [
        ("sentence_start", "Hi!"),
        ("sentence_end", "Hi!"),
        ("sentence_start", "I am fine."),
        ("sentence_end", "I am fine."),
    ]


def test_a_sentence_that_was_cut_short_does_not_end() -> None:
    async def act(stage: Stage) -> None:
        stage.session.on_message(Listen("detect", text="hi"))
        while not stage.link.of(TtsSentence):
            await stage.settle(0.02)
        stage.session.on_message(Abort())
        await stage.settle()

    stage = play(Script(speech_s=2.0), act)
    assert [m.state for m in stage.link.of(TtsSentence)] == ["sentence_start"]


def test_stamps_grow_over_replies_and_interruptions() -> None:
    async def act(stage: Stage) -> None:
        for turn in range(3):
            stage.session.on_message(Listen("detect", text="hi"))
            await stage.settle(0.4 if turn == 1 else 30)

    stamps = play(Script(speech_s=1.0), act).link.stamps
    assert len(stamps) > 30
    assert stamps[0] > 0
    assert stamps == sorted(set(stamps))
