"""Utterances: asked for at each pause, longer for who has not finished, joined where the user goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mynah.dialogue.hearing import MAX_INTERIMS, join
from mynah.dialogue.patience import PauseProfile
from mynah.dialogue.speculation import TRIAL
from mynah.dialogue.turn import MAX_GOING_ON, Phase
from mynah.providers.base import AsrCapabilities, Role
from mynah.texts import variants
from mynah.wire.messages import Abort, Listen, Stt, TtsStart, TtsStop
from tests.dialogue.test_session import START, play
from tests.fakes import DEVICE_ID, HUSH, PROVIDER_DOWN, VOICE, Script, ScriptedAsr, Stage
from tests.virtual_time import run

SPEECH, PAUSE, END, REST = (VOICE, 10), (HUSH, 2), (HUSH, 12), (HUSH, 40)
"""With a silence of 600 ms, the second packet without a voice makes a pause and the ninth ends the utterance. Who
was cut short once is given more time: after that it takes a ``REST``."""


def hear(script: Script, act: Callable[[Stage], Awaitable[None]], **options: object) -> Stage:
    return play(script, act, **{"min_silence_ms": 600, **options})


def questions(stage: Stage) -> list[str]:
    """What the language model was asked, in order."""
    return [[m.content for m in r.messages if m.role is Role.USER][-1] for r in stage.llm.requests]


def brackets(stage: Stage) -> tuple[int, int]:
    return len(stage.link.of(TtsStart)), len(stage.link.of(TtsStop))


class Streaming(ScriptedAsr):
    """Answers what it has so far, and something else in the end."""

    @property
    def capabilities(self) -> AsrCapabilities:
        return AsrCapabilities(streaming=True)


# ---------------------------------------------------------------- one utterance


def test_the_answer_is_prepared_in_the_silence_that_ends_the_utterance() -> None:
    async def act(stage: Stage) -> None:
        stage.session.on_message(START["auto"])
        await stage.stream(SPEECH, (HUSH, 6))
        assert stage.session.phase is Phase.LISTENING
        assert questions(stage) == ["hello there"]
        assert [request.text for request in stage.tts.said] == ["One."], "no more until it is certain"
        assert stage.link.log == []
        await stage.stream((HUSH, 8))
        await stage.settle()

    stage = hear(Script(replies=[["One. ", "Two. ", "Three."]]), act)
    assert stage.link.story == [
        "stt:hello there", "start", "face:happy", "say:One.", "audio", "say:Two.", "audio", "say:Three.",
        "audio", "stop",
    ]  # fmt: skip
    assert questions(stage) == ["hello there"]
    assert len(stage.asr.audio) == 1
    assert stage.services.speculation.stats.hits == 1
    assert stage.recorder.turns[0].guess == "hit"


def test_who_goes_on_within_the_pause_is_not_answered_by_half() -> None:
    async def act(stage: Stage) -> None:
        stage.session.on_message(START["auto"])
        await stage.stream(SPEECH, (HUSH, 5))
        assert questions(stage) == ["tell me"]
        await stage.stream(SPEECH, REST)
        await stage.settle()

    script = Script(heard=["tell me", "tell me more"], replies=[["Wrong. ", 5.0], ["Right."]])
    stage = hear(script, act)
    assert stage.link.story == ["stt:tell me more", "start", "face:happy", "say:Right.", "audio", "stop"]
    assert questions(stage) == ["tell me", "tell me more"]
    stats = stage.services.speculation.stats
    assert (stats.hits, stats.misses, stats.wasted_tokens) == (1, 1, 1)


def test_speech_that_resumes_while_the_words_are_asked_for_voids_them() -> None:
    async def act(stage: Stage) -> None:
        stage.session.on_message(START["auto"])
        await stage.stream(SPEECH, PAUSE, SPEECH, REST)
        await stage.settle()

    stage = hear(Script(heard=["all of it"], asr_s=0.3), act)
    assert questions(stage) == ["all of it"]
    assert [audio.count(VOICE) for audio in stage.asr.audio] == [10, 20]
    assert brackets(stage) == (1, 1)


@pytest.mark.parametrize(
    ("interim", "final", "guess"),
    [("tell me more", "Tell me more!", "hit"), ("I am", "I am here", "miss"), ("", "tell me more", "")],
)
def test_a_streaming_recogniser_has_the_last_word(interim: str, final: str, guess: str) -> None:
    async def act(stage: Stage) -> None:
        stage.asr.__class__ = Streaming
        stage.session.on_message(START["auto"])
        await stage.stream(SPEECH, REST)
        await stage.settle()

    stage = hear(Script(heard=[interim, final], replies=[["Fine."]]), act)
    assert [m.text for m in stage.link.of(Stt)] == [final]
    assert stage.recorder.turns[0].guess == guess
    assert len(stage.llm.requests) == (2 if guess == "miss" else 1)
    assert questions(stage)[-1] == (interim if guess == "hit" else final)
    assert stage.link.story[-3:] == ["say:Fine.", "audio", "stop"]


def test_noise_is_not_guessed_at_and_exit_commands_neither() -> None:
    async def act(stage: Stage) -> None:
        stage.session.on_message(START["auto"])
        await stage.stream(SPEECH, END)
        assert stage.session.phase is Phase.LISTENING
        await stage.stream(SPEECH, REST)
        await stage.settle()
        assert stage.link.closed

    stage = hear(Script(heard=["…", "Goodbye!"]), act)
    assert stage.llm.requests == []
    assert stage.tts.said[0].text in variants("farewell", "en")


def test_a_wake_word_said_in_a_conversation_is_a_question() -> None:
    async def act(stage: Stage) -> None:
        stage.session.on_message(START["auto"])
        await stage.stream(SPEECH, REST)
        await stage.settle()

    stage = hear(Script(heard=["hey mynah"]), act)
    assert questions(stage) == ["hey mynah"]
    assert brackets(stage) == (1, 1)


def test_a_failing_interim_is_made_up_for_at_the_end() -> None:
    async def act(stage: Stage) -> None:
        stage.session.on_message(START["auto"])
        await stage.stream(SPEECH, REST)
        await stage.settle()

    stage = hear(Script(heard=[PROVIDER_DOWN, "at last"]), act)
    assert questions(stage) == ["at last"]
    assert not stage.recorder.turns[0].error


def test_who_pauses_often_is_not_recognised_at_each_pause() -> None:
    async def act(stage: Stage) -> None:
        stage.session.on_message(START["auto"])
        for _ in range(MAX_INTERIMS + 3):
            await stage.stream(SPEECH, (HUSH, 4))
        await stage.stream(SPEECH, REST)
        await stage.settle()

    stage = hear(Script(heard=["all of it"]), act)
    assert len(stage.asr.audio) == MAX_INTERIMS + 1
    assert stage.asr.audio[-1].count(VOICE) == 10 * (MAX_INTERIMS + 4)
    assert brackets(stage) == (1, 1)


def test_without_guesses_everything_happens_at_the_end() -> None:
    async def act(stage: Stage) -> None:
        stage.session.on_message(START["auto"])
        await stage.stream(SPEECH, (HUSH, 8))
        assert stage.asr.audio == []
        await stage.stream(END)
        await stage.settle()

    stage = hear(Script(), act, speculation=False)
    assert len(stage.asr.audio) == len(stage.llm.requests) == 1
    assert stage.recorder.turns[0].guess == ""


def test_guessing_stops_where_it_does_not_pay() -> None:
    async def act(stage: Stage) -> None:
        for _ in range(TRIAL):
            stage.services.speculation.settle(False, 10)
        stage.session.on_message(START["auto"])
        await stage.stream(SPEECH, PAUSE, (HUSH, 5))
        assert stage.llm.requests == []
        await stage.stream(END)
        await stage.settle()

    assert brackets(hear(Script(), act)) == (1, 1)


# ---------------------------------------------------------------- the button


@pytest.mark.parametrize("asr_s", [0.05, 1.0])
def test_a_button_released_in_a_pause_takes_what_was_understood_there(asr_s: float) -> None:
    async def act(stage: Stage) -> None:
        stage.session.on_message(START["manual"])
        await stage.stream(SPEECH, (HUSH, 5))
        stage.session.on_message(Listen("stop"))
        await stage.settle()

    stage = hear(Script(asr_s=asr_s), act)
    assert len(stage.asr.audio) == 1
    assert brackets(stage) == (1, 1)
    assert stage.recorder.turns[0].text == "hello there"


@pytest.mark.parametrize("silence", [3, 30])
def test_what_is_said_after_a_pause_counts_with_the_button_held(silence: int) -> None:
    async def act(stage: Stage) -> None:
        stage.session.on_message(START["manual"])
        await stage.stream(SPEECH, (HUSH, silence), SPEECH)
        stage.session.on_message(Listen("stop"))
        await stage.settle()

    stage = hear(Script(heard=["half", "half and half"]), act)
    assert [m.text for m in stage.link.of(Stt)] == ["half and half"]
    assert stage.asr.audio[-1].count(VOICE) == 20
    assert questions(stage)[-1] == "half and half"


@pytest.mark.parametrize("then", [Abort(), START["manual"], None])
@pytest.mark.parametrize("mode", ["manual", "auto"])
def test_a_slow_interim_that_nobody_waits_for_is_ended(mode: str, then: object) -> None:
    """`Stage.end` finds the task otherwise."""

    async def act(stage: Stage) -> None:
        stage.session.on_message(START[mode])
        await stage.stream(SPEECH, (HUSH, 5))
        stage.session.on_message(Listen("stop"))
        if then is not None:
            stage.session.on_message(then)  # type: ignore[arg-type] # in the same read of the socket

    hear(Script(asr_s=60.0), act)


# ---------------------------------------------------------------- going on


@pytest.mark.parametrize("mode", ["auto", "realtime"])
def test_who_goes_on_while_the_model_thinks_is_answered_to_all_of_it(mode: str) -> None:
    async def act(stage: Stage) -> None:
        stage.session.on_message(START[mode])
        await stage.stream(SPEECH, END)
        assert stage.session.phase is Phase.THINKING
        await stage.stream(SPEECH, REST)
        await stage.settle()

    script = Script(heard=["I like tea", "and cake"], replies=[[3.0, "Half."], ["All of it."]])
    stage = hear(script, act)
    assert stage.link.story == [
        "stt:I like tea", "stt:I like tea and cake", "start", "face:happy", "say:All of it.", "audio", "stop",
    ]  # fmt: skip
    assert [audio.count(VOICE) for audio in stage.asr.audio] == [10, 10], "each part is recognised once"
    record = stage.recorder.turns[0]
    assert (record.parts, record.text, len(stage.recorder.turns)) == (2, "I like tea and cake", 1)


def test_who_goes_on_before_the_first_part_is_recognised_is_heard_whole() -> None:
    async def act(stage: Stage) -> None:
        stage.session.on_message(START["auto"])
        await stage.stream(SPEECH, END)
        assert stage.session.phase is Phase.RECOGNISING
        await stage.stream(SPEECH, REST)
        await stage.settle()

    stage = hear(Script(heard=["I like tea", "and cake"], asr_s=1.0), act)
    assert [m.text for m in stage.link.of(Stt)] == ["I like tea and cake"]
    assert questions(stage)[-1] == "I like tea and cake"
    assert brackets(stage) == (1, 1)


def test_half_of_what_was_said_is_not_guessed_at_while_the_other_half_is_unknown() -> None:
    async def act(stage: Stage) -> None:
        stage.session.on_message(START["auto"])
        stage.script.asr_s = 6.0
        await stage.stream(SPEECH, END)
        stage.script.asr_s = 0.05
        await stage.stream(SPEECH, REST)
        await stage.settle()

    # In the order in which they become known.
    stage = hear(Script(heard=["and cake", "I like tea"]), act)
    assert questions(stage) == ["I like tea and cake"]
    assert [m.text for m in stage.link.of(Stt)] == ["I like tea and cake"]


@pytest.mark.parametrize("second", ["and cake", PROVIDER_DOWN])
def test_what_was_understood_of_an_utterance_is_answered(second: str | Exception) -> None:
    async def act(stage: Stage) -> None:
        stage.session.on_message(START["auto"])
        await stage.stream(SPEECH, (HUSH, 10))
        assert stage.session.phase is Phase.RECOGNISING
        await stage.stream(SPEECH, REST)
        await stage.settle()

    heard: list[str | Exception] = [PROVIDER_DOWN, PROVIDER_DOWN, second]
    stage = hear(Script(heard=heard, asr_s=0.4), act)
    assert brackets(stage) == (1, 1)
    if second is PROVIDER_DOWN:
        assert stage.link.story[:2] == ["start", "face:sad"]
        assert stage.recorder.turns[0].error
    else:
        assert questions(stage) == ["and cake"]


def test_a_click_does_not_cancel_what_is_being_prepared() -> None:
    async def act(stage: Stage) -> None:
        stage.session.on_message(START["auto"])
        await stage.stream(SPEECH, END, (VOICE, 2), (HUSH, 4))
        assert stage.session.phase is Phase.THINKING
        await stage.settle()

    stage = hear(Script(replies=[[3.0, "Fine."]]), act)
    assert len(stage.llm.requests) == 1


def test_a_noise_after_the_question_leaves_the_question() -> None:
    async def act(stage: Stage) -> None:
        stage.session.on_message(START["auto"])
        await stage.stream(SPEECH, END, (VOICE, 5), REST)
        await stage.settle()

    stage = hear(Script(heard=["I like tea", ""], replies=[[3.0, "Fine."]]), act)
    assert questions(stage) == ["I like tea"], "the answer that was being prepared is kept"
    assert stage.link.story[-3:] == ["say:Fine.", "audio", "stop"]
    assert stage.services.profiles.of(DEVICE_ID).empty, "a cough teaches nothing about pauses"


def test_who_really_goes_on_is_learnt_from() -> None:
    async def act(stage: Stage) -> None:
        stage.session.on_message(START["auto"])
        await stage.stream(SPEECH, END, SPEECH, REST)
        await stage.settle()

    stage = hear(Script(heard=["I like tea", "and cake"], replies=[[3.0, "Fine."]]), act)
    assert questions(stage)[-1] == "I like tea and cake"
    assert not stage.services.profiles.of(DEVICE_ID).empty


def test_a_long_required_speech_is_heard_from_its_beginning() -> None:
    async def act(stage: Stage) -> None:
        stage.session.on_message(START["realtime"])
        await stage.stream(SPEECH, REST)
        while stage.session.phase is not Phase.REPLYING:
            await asyncio.sleep(0.05)
        hearing = stage.session._hearing
        assert hearing is not None
        assert hearing.ear is not None
        hearing.ear.endpointer.require_speech(1500)
        await stage.stream((VOICE, 30), REST)
        await stage.settle()

    stage = hear(Script(heard=["tell me", "something long"], speech_s=8.0), act)
    assert stage.asr.audio[-1].count(VOICE) >= 30


def test_a_cancellation_that_leaks_out_of_a_provider_is_an_error() -> None:
    async def act(stage: Stage) -> None:
        stage.session.on_message(START["auto"])
        await stage.stream(SPEECH, REST)
        await stage.settle()
        assert stage.session.phase is not Phase.THINKING

    leak: Exception = asyncio.CancelledError()  # type: ignore[assignment]
    stage = hear(Script(replies=[[leak], ["Fine."]]), act)
    assert brackets(stage) == (1, 1)


def test_a_television_is_not_listened_to_for_ever() -> None:
    async def act(stage: Stage) -> None:
        stage.session.on_message(START["auto"])
        for _ in range(MAX_GOING_ON + 3):
            await stage.stream(SPEECH, REST)
        await stage.settle(60)

    stage = hear(Script(heard=["on and on"], replies=[[20.0, "Fine."]]), act)
    assert stage.recorder.turns[0].text == " ".join(["on and on"] * (MAX_GOING_ON + 1))
    assert brackets(stage) == (1, 1)


def test_going_on_is_learnt_from() -> None:
    profiles: list[PauseProfile] = []

    async def act(stage: Stage) -> None:
        stage.session.on_message(START["auto"])
        await stage.stream(SPEECH, END, SPEECH, REST)
        profiles.append(stage.services.profiles.of(DEVICE_ID))

    hear(Script(replies=[[3.0, "Fine."]]), act)
    assert not profiles[0].empty


# ---------------------------------------------------------------- how long to wait


def answered_after(words: str, asr_s: float = 0.05, **options: object) -> float:
    """Return how many ms after the last sound the text was shown."""

    async def act(stage: Stage) -> None:
        stage.session.on_message(START["auto"])
        await stage.stream(SPEECH)
        silent_since.append(asyncio.get_running_loop().time())
        await stage.stream((HUSH, 60))
        await stage.settle()

    silent_since: list[float] = []
    stage = play(Script(heard=[words], asr_s=asr_s), act, **{"min_silence_ms": 500, **options})
    return (stage.link.when(Stt)[0] - silent_since[0]) * 1000


def test_who_has_obviously_not_finished_is_waited_for() -> None:
    complete, unfinished = answered_after("It is five o'clock."), answered_after("What is the")
    assert 380 <= complete <= 520, "what is known at the end is not waited for again"
    assert unfinished >= complete + 200


@pytest.mark.parametrize("asr_s", [0.6, 0.8])
def test_words_that_are_known_late_are_waited_for_all_the_same(asr_s: float) -> None:
    assert answered_after("What is the", asr_s) == pytest.approx(answered_after("What is the"), abs=130)
    assert answered_after("It is five o'clock.", asr_s) == pytest.approx(asr_s * 1000 + 60, abs=80)


def test_who_goes_on_while_unfinished_words_are_waited_for_is_heard() -> None:
    async def act(stage: Stage) -> None:
        stage.session.on_message(START["auto"])
        await stage.stream(SPEECH, (HUSH, 12), SPEECH, (HUSH, 60))
        await stage.settle()

    stage = play(Script(heard=["What is the", "weather like?"], asr_s=0.5), act, min_silence_ms=500)
    assert [m.text for m in stage.link.of(Stt)] == ["What is the weather like?"]
    assert brackets(stage) == (1, 1)


class Detector:
    """Stands for a `GuardedTurnDetector`: says what it is told to, and keeps what it was asked about."""

    threshold = 0.5

    def __init__(self, finished: float | None, takes_s: float = 0.02) -> None:
        self.finished, self.takes_s = finished, takes_s
        self.asked: list[bytes] = []

    async def judge(self, pcm: bytes) -> float | None:
        self.asked.append(pcm)
        await asyncio.sleep(self.takes_s)
        return self.finished


def test_a_turn_detector_makes_the_silence_shorter_or_longer() -> None:
    words = "It is five o'clock."
    plain = answered_after(words)
    assert answered_after(words, turn_detector=Detector(None)) == plain
    assert answered_after(words, turn_detector=Detector(1.0)) < plain - 100
    assert answered_after(words, turn_detector=Detector(0.0)) > plain + 200


def test_a_turn_detector_is_given_the_sound_of_the_utterance() -> None:
    detector = Detector(0.9)
    answered_after("hello", turn_detector=detector)
    assert len(detector.asked) == 1
    assert detector.asked[0].count(VOICE) == 10


def test_a_turn_detector_works_without_guesses() -> None:
    detector = Detector(1.0)
    assert answered_after("hello", speculation=False, turn_detector=detector) < answered_after("hello")
    assert len(detector.asked) == 1


# ---------------------------------------------------------------- joining


@pytest.mark.parametrize(
    ("parts", "whole"),
    [
        (["what is", "the time"], "what is the time"),
        (["今天天气", "怎么样"], "今天天气怎么样"),
        (["播放", "Yesterday"], "播放Yesterday"),
        (["", "hello", ""], "hello"),
        ([], ""),
    ],
)
def test_parts_are_joined_as_they_are_written(parts: list[str], whole: str) -> None:
    assert join(parts) == whole


@given(st.lists(st.text(max_size=10), max_size=5))
def test_joining_loses_nothing(parts: list[str]) -> None:
    assert join(parts).replace(" ", "") == "".join(parts).replace(" ", "")


def test_a_closed_ear_has_heard_nothing() -> None:
    async def main() -> None:
        stage = Stage()
        stage.session.on_message(Listen("stop"))
        stage.session.on_message(START["manual"])
        stage.session.on_message(Listen("stop"))
        stage.session.on_message(Listen("stop"))
        await stage.settle(1)
        assert stage.link.story == []
        await stage.end()

    run(main())


@pytest.mark.parametrize("speculation", [True, False])
def test_an_utterance_that_is_dropped_in_the_moment_it_ends_leaves_no_work(speculation: bool) -> None:
    """`Stage.end` finds the task otherwise."""

    async def act(stage: Stage) -> None:
        stage.session.on_message(START["auto"])
        await stage.stream(SPEECH, PAUSE)
        while stage.session.phase is Phase.LISTENING:
            await stage.settle(0.06)
            stage.session.on_audio(HUSH)
        stage.session.on_message(Abort())  # in the same step

    hear(Script(asr_s=60.0), act, speculation=speculation)
