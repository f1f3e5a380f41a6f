"""Replies of whole conversations: held and resumed, interrupted, announced, ended; what is remembered of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mynah.dialogue.interruption import DECIDE_S
from mynah.dialogue.replying import CUT_IN_S
from mynah.dialogue.services import DialogueSettings
from mynah.dialogue.turn import MAX_PENDING_SAYS, Phase, TurnPolicy
from mynah.providers.base import Role
from mynah.texts import variants
from mynah.wire.messages import Abort, Alert, Listen, TtsSentence, TtsStart, TtsStop
from tests.dialogue.test_session import START, play
from tests.dialogue.test_speak import Siren
from tests.dialogue.test_think import Echo, call
from tests.fakes import DEVICE_ID, HUSH, PROVIDER_DOWN, VOICE, Script, Stage

QUESTION = ((VOICE, 10), (HUSH, 12))
POLICY = TurnPolicy.from_phrases(["hey mynah"], ["goodbye"], greeting=True)
ANSWER = "First we go up the hill. Then we come down again."


def converse(script: Script, act: Callable[[Stage], Awaitable[None]], **options: object) -> Stage:
    stage = play(script, act, **{"min_silence_ms": 600, **options})
    check_brackets(stage)
    return stage


def check_brackets(stage: Stage, idle_stops: bool = False) -> None:
    """One stop per start, no sound outside of them, stamps that grow."""
    speaking = False
    for _, message in stage.link.log:
        match message:
            case TtsStart():
                assert not speaking
                speaking = True
            case TtsStop():
                assert speaking or idle_stops
                speaking = False
            case bytes() | TtsSentence():
                assert speaking
    assert not speaking or stage.session.phase is Phase.CLOSED
    assert stage.link.stamps == sorted(set(stage.link.stamps))


def packets(stage: Stage) -> list[bytes]:
    return [message for _, message in stage.link.log if isinstance(message, bytes)]


def told(stage: Stage, index: int = -1) -> list[tuple[Role, str]]:
    """The conversation as the model was told of it."""
    return [(m.role, m.content) for m in stage.llm.requests[index].messages if m.role is not Role.SYSTEM]


async def ask(stage: Stage, mode: str = "realtime") -> None:
    """Say a question and come back when the answer has begun."""
    stage.session.on_message(START[mode])
    await stage.stream(*QUESTION)
    assert stage.session.phase is Phase.REPLYING


def answered(*heard: str | Exception, speech_s: float = 1.5, asr_s: float = 0.05) -> Script:
    return Script(
        heard=["a story please", *heard], replies=[[ANSWER], ["Fine."]], speech_s=speech_s, asr_s=asr_s
    )


# ---------------------------------------------------------------- held for nothing


async def _with_voice(stage: Stage, after: int, packet: bytes, tts_s: float = 0.0) -> None:
    stage.tts.__class__ = Siren
    await ask(stage)
    await stage.stream((HUSH, after), (packet, 4), (HUSH, 90))
    await stage.settle()


@pytest.mark.parametrize("after", [0, 1, 10, 20, 36, 43, 46])
@pytest.mark.parametrize("words", ["", "mhm", "嗯嗯", "we go up the hill"])
def test_a_false_alarm_changes_nothing_but_the_time(after: int, words: str) -> None:
    held = converse(answered(words), partial(_with_voice, after=after, packet=VOICE))
    whole = converse(answered(words), partial(_with_voice, after=after, packet=HUSH))
    assert held.link.story == whole.link.story
    assert packets(held) == packets(whole)
    assert held.link.stamps == whole.link.stamps
    assert len(set(packets(whole))) > 20, "equal frames would hide a mistake"
    record = held.recorder.turns[0]
    assert (record.false_alarms, record.interrupted, record.answer) == (1, False, ANSWER)
    assert len(held.recorder.turns) == 1
    delay = held.link.when(TtsStop)[0] - whole.link.when(TtsStop)[0]
    # What the device still has plays during the hold.
    assert 0 <= delay <= DECIDE_S + 0.1


def test_a_hold_before_the_first_frame_is_resumed_too() -> None:
    async def act(stage: Stage) -> None:
        stage.session.on_message(START["realtime"])
        await stage.stream((VOICE, 10), (HUSH, 2))
        stage.session.on_message(Listen("detect", text="typed"))  # there is no sound of this for a second
        await stage.stream((HUSH, 3), (VOICE, 4), (HUSH, 60))
        assert stage.link.of(TtsStart)
        await stage.settle()

    script = Script(heard=[""], replies=[["Fine."]], tts_s=1.0)
    stage = converse(script, act, speculation=False)
    assert stage.recorder.turns[0].false_alarms == 1
    assert stage.link.story[-3:] == ["say:Fine.", "audio", "stop"]


def test_the_second_false_alarm_takes_more() -> None:
    async def act(stage: Stage) -> None:
        await ask(stage)
        await stage.stream((HUSH, 5), (VOICE, 3), (HUSH, 15), (VOICE, 3), (HUSH, 15))
        assert stage.session._replying.record.false_alarms == 1
        await stage.stream((VOICE, 6), (HUSH, 15))
        assert stage.session._replying.record.false_alarms == 2
        await stage.stream((VOICE, 6), (HUSH, 15))
        assert stage.session._replying.record.false_alarms == 2
        await stage.settle()

    stage = converse(answered("", speech_s=10.0), act)
    assert stage.recorder.turns[0].answer == ANSWER


@pytest.mark.parametrize("voice", [3, 6])
def test_a_slow_recogniser_does_not_hold_a_reply_for_long(voice: int) -> None:
    async def act(stage: Stage) -> None:
        await ask(stage)
        stage.script.asr_s = 5.0
        await stage.stream((HUSH, 5), (VOICE, voice), (HUSH, 20))
        await stage.settle()

    stage = converse(answered("mm", speech_s=4.0), act)
    gaps = [
        later - earlier
        for earlier, later in zip(stage.link.when(bytes), stage.link.when(bytes)[1:], strict=False)
    ]
    assert 0.5 < max(gaps) < DECIDE_S + 0.4
    assert stage.recorder.turns[0].false_alarms == 1


def test_a_recogniser_with_a_bug_does_not_end_the_reply() -> None:
    async def act(stage: Stage) -> None:
        await ask(stage)
        await stage.stream((HUSH, 5), (VOICE, 4), (HUSH, 30))
        await stage.settle()

    stage = converse(answered(ZeroDivisionError("bug"), speech_s=2.0), act)
    assert stage.recorder.turns[0].answer == ANSWER
    assert stage.link.story.count("stop") == 1


# ---------------------------------------------------------------- interrupted


def test_who_has_something_to_say_is_heard_from_his_first_word() -> None:
    async def act(stage: Stage) -> None:
        await ask(stage)
        await stage.stream((HUSH, 15), (VOICE, 10), (HUSH, 40))
        await stage.settle()

    stage = converse(answered("no stop", speech_s=4.0), act)
    assert stage.link.story == [
        "stt:a story please", "start", "face:happy", "say:First we go up the hill.", "audio", "stop",
        "stt:no stop", "start", "face:happy", "say:Fine.", "audio", "stop",
    ]  # fmt: skip
    assert stage.asr.audio[-1].count(VOICE) == 10
    first, second = stage.recorder.turns
    assert first.interrupted
    assert (second.text, second.interrupted) == ("no stop", False)
    assert first.answer.endswith("…")
    assert told(stage) == [
        (Role.USER, "a story please"),
        (Role.ASSISTANT, first.answer),
        (Role.USER, "no stop"),
    ]


def test_nothing_is_sent_between_the_voice_and_the_stop() -> None:
    begun: list[float] = []

    async def act(stage: Stage) -> None:
        await ask(stage)
        await stage.stream((HUSH, 15))
        begun.append(asyncio.get_running_loop().time())
        await stage.stream((VOICE, 10), (HUSH, 30))
        await stage.settle()

    stage = converse(answered("no stop", speech_s=4.0), act)
    stopped = stage.link.when(TtsStop)[0]
    last = max(at for at in stage.link.when(bytes) if at < stopped)
    assert last - begun[0] < 0.25, "held as soon as the voice is certain"
    assert stopped - begun[0] < DECIDE_S + 0.3


def test_a_word_that_is_over_when_it_is_understood_is_answered() -> None:
    async def act(stage: Stage) -> None:
        await ask(stage)
        stage.script.asr_s = 0.5
        await stage.stream((HUSH, 15), (VOICE, 4), (HUSH, 40))
        await stage.settle()

    stage = converse(answered("stop", speech_s=4.0), act, min_silence_ms=200)
    assert stage.link.story[-7:] == ["stop", "stt:stop", "start", "face:happy", "say:Fine.", "audio", "stop"]


def test_a_failing_recogniser_leaves_it_to_the_length() -> None:
    async def act(stage: Stage) -> None:
        await ask(stage)
        await stage.stream((HUSH, 15), (VOICE, 12), (HUSH, 40))
        await stage.settle()

    stage = converse(answered(PROVIDER_DOWN, speech_s=4.0), act)
    assert stage.recorder.turns[0].interrupted
    assert stage.link.story[-1] == "stop", "what was said could not be understood: an apology"
    assert stage.recorder.turns[1].error


@pytest.mark.parametrize("words", ["mhm", "we go up the hill", "stop"])
def test_without_a_judge_every_longer_voice_ends_the_reply(words: str) -> None:
    async def act(stage: Stage) -> None:
        await ask(stage)
        await stage.stream((HUSH, 15), (VOICE, 3), (HUSH, 15))
        assert not stage.recorder.turns
        await stage.stream((VOICE, 8), (HUSH, 40))
        await stage.settle()

    policy = TurnPolicy(judge_interruptions=False)
    stage = converse(answered(words, speech_s=4.0), act, settings=DialogueSettings("en", policy, 16000))
    assert stage.recorder.turns[0].interrupted
    assert f"stt:{words}" in stage.link.story


@pytest.mark.parametrize("what", ["abort", "text", "close", "stop", "say", "start"])
def test_what_comes_during_a_hold(what: str) -> None:
    async def act(stage: Stage) -> None:
        await ask(stage)
        stage.script.asr_s = 0.6
        await stage.stream((HUSH, 15), (VOICE, 4))
        sent = len(packets(stage))
        match what:
            case "abort":
                stage.session.on_message(Abort())
            case "text":
                stage.session.on_message(Listen("detect", text="typed"))
            case "close":
                return
            case "stop":
                stage.session.on_message(Listen("stop"))
            case "say":
                stage.session.say("Tea!")
            case "start":
                stage.session.on_message(START["realtime"])
        await stage.stream((HUSH, 4))
        assert what == "text" or len(packets(stage)) == sent
        await stage.stream((HUSH, 40))
        await stage.settle()

    stage = converse(answered("", speech_s=2.0), act)
    story = stage.link.story
    if what == "abort":
        assert story[-1] == "stop"
        assert story.count("start") == 1
    elif what == "text":
        assert story[-6:] == ["stt:typed", "start", "face:happy", "say:Fine.", "audio", "stop"]
    elif what == "close":
        assert "stop" not in story
    else:
        assert stage.recorder.turns[0].answer == ANSWER
        assert ("say:Tea!" in story) is (what == "say")


# ---------------------------------------------------------------- announcements


class Fate:
    """What became of announcements."""

    def __init__(self) -> None:
        self.told: list[tuple[str, bool]] = []

    def of(self, name: str) -> Callable[[bool], None]:
        return lambda said: self.told.append((name, said))


def test_an_announcement_counts_as_made_when_its_sound_begins() -> None:
    fate = Fate()

    async def act(stage: Stage) -> None:
        stage.session.say("Tea!", fate.of("tea"))
        assert fate.told == []
        while not packets(stage):
            assert fate.told == []
            await asyncio.sleep(0.01)
        assert fate.told == [("tea", True)]
        await stage.settle()

    converse(Script(speech_s=2.0), act)
    assert fate.told == [("tea", True)]


@pytest.mark.parametrize("how", ["abort", "text", "close", "goodbye"])
def test_an_announcement_that_is_cut_short_before_its_sound_was_not_made(how: str) -> None:
    fate = Fate()

    async def act(stage: Stage) -> None:
        stage.session.say("Tea!", fate.of("tea"))
        stage.session.say("Eggs!", fate.of("eggs"))
        await asyncio.sleep(0.5)
        match how:
            case "abort":
                stage.session.on_message(Abort())
                assert fate.told == [("tea", False)]
            case "text":
                stage.session.on_message(Listen("detect", text="typed"))
            case "goodbye":
                stage.session.on_message(Listen("detect", text="goodbye"))
                await stage.settle()
                assert stage.link.closed

    converse(Script(tts_s=1.0), act)
    assert sorted(fate.told) == [("eggs", False), ("tea", False)]


def test_an_announcement_that_is_only_shown_was_made() -> None:
    fate = Fate()

    async def act(stage: Stage) -> None:
        stage.session.say("Tea!", fate.of("tea"))
        await stage.settle()

    stage = converse(Script(tts_error=PROVIDER_DOWN), act)
    assert "say:Tea!" in stage.link.story
    assert fate.told == [("tea", True)]


def test_announcements_that_are_too_many_are_told_so_at_once_and_the_others_made() -> None:
    fate = Fate()

    async def act(stage: Stage) -> None:
        for number in range(MAX_PENDING_SAYS + 3):
            stage.session.say(f"Number {number}.", fate.of(str(number)))
        assert [name for name, said in fate.told if not said] == ["9", "10"]
        await stage.settle(120)

    converse(Script(), act)
    assert sorted(name for name, said in fate.told if said) == sorted(str(n) for n in range(9))
    assert len(fate.told) == 11


def test_after_the_end_nothing_is_announced() -> None:
    fate = Fate()

    async def act(stage: Stage) -> None:
        stage.link.closed = True
        stage.session.on_closed()
        stage.session.say("Tea!", fate.of("tea"))
        assert fate.told == [("tea", False)]

    converse(Script(), act)


# ---------------------------------------------------------------- endings


def test_who_has_been_told_enough_is_told_so_and_hung_up_on() -> None:
    async def act(stage: Stage) -> None:
        await ask(stage, "auto")
        await stage.settle()
        assert not stage.link.closed
        await ask(stage, "auto")
        await stage.settle()
        assert stage.link.closed

    stage = converse(answered(), act, daily_chars=10)
    assert stage.tts.said[-1].text in variants("allowance_used_up", "en")
    assert len(stage.llm.requests) == 1
    assert stage.link.story.count("stop") == 2


def test_the_farewell_is_asked_of_the_model_and_is_no_part_of_the_conversation() -> None:
    async def act(stage: Stage) -> None:
        stage.session.on_message(START["auto"])
        await stage.settle(200)
        stage.session.check_quiet(asyncio.get_running_loop().time())
        await stage.settle()
        assert stage.link.closed

    wanted = DialogueSettings("en", POLICY, 16000, farewell_prompt="Say goodbye in verse.")
    stage = converse(Script(replies=[["So long."]]), act, settings=wanted)
    assert told(stage) == [(Role.USER, "Say goodbye in verse.")]
    assert stage.link.story == ["start", "face:happy", "say:So long.", "audio", "stop"]
    assert stage.recorder.turns[0].text == ""


@pytest.mark.parametrize("reply", [[PROVIDER_DOWN], []])
def test_a_farewell_that_fails_hangs_up_all_the_same(reply: list[str | Exception]) -> None:
    async def act(stage: Stage) -> None:
        stage.session.on_message(START["auto"])
        await stage.settle(200)
        stage.session.check_quiet(asyncio.get_running_loop().time())
        await stage.settle()
        assert stage.link.closed

    wanted = DialogueSettings("en", POLICY, 16000, farewell_prompt="Say goodbye in verse.")
    converse(Script(replies=[reply]), act, settings=wanted)  # type: ignore[list-item]


def test_a_farewell_that_is_interrupted_does_not_hang_up() -> None:
    async def act(stage: Stage) -> None:
        stage.session.on_message(START["realtime"])
        await stage.settle(200)
        stage.session.check_quiet(asyncio.get_running_loop().time())
        await stage.stream((HUSH, 15), (VOICE, 10), (HUSH, 40))
        await stage.settle(10)
        assert not stage.link.closed
        assert stage.session.phase is Phase.LISTENING

    stage = converse(Script(heard=["wait"], replies=[["Fine."]], speech_s=4.0), act)
    assert "stt:wait" in stage.link.story


def test_a_tool_may_end_the_conversation() -> None:
    async def act(stage: Stage) -> None:
        stage.session.on_message(Listen("detect", text="bye then"))
        await stage.settle()
        assert stage.link.closed

    stage = converse(Script(replies=[[call(1)], []]), act, tools=(Echo(end_session=True),))
    assert stage.tts.said[-1].text in variants("farewell", "en")


def test_a_model_that_says_nothing_is_an_apology() -> None:
    async def act(stage: Stage) -> None:
        await ask(stage, "auto")
        await stage.settle()

    stage = converse(Script(heard=["hello"], replies=[[]]), act)
    assert stage.link.story[:3] == ["stt:hello", "start", "face:sad"]
    assert stage.tts.said[-1].text in variants("error_provider", "en")
    assert stage.recorder.turns[0].error


def test_an_answer_that_fails_when_the_device_is_listening_still_is_an_apology() -> None:
    async def act(stage: Stage) -> None:
        stage.session.on_message(START["auto"])
        await stage.stream(*QUESTION)
        assert stage.session.phase is Phase.THINKING
        await stage.settle()

    stage = converse(Script(heard=["hello"], replies=[[2.0, PROVIDER_DOWN]]), act)
    assert stage.link.story == [
        "stt:hello", "start", "face:sad", f"say:{stage.tts.said[-1].text}", "audio", "stop",
    ]  # fmt: skip


# ---------------------------------------------------------------- beside it


@pytest.mark.parametrize(
    ("mode", "words", "after_s", "cut_in"),
    [
        ("auto", "What is the", 0.5, True),
        ("auto", "What is the", CUT_IN_S + 1.0, False),
        ("auto", "Sing me a song.", 0.5, False),
        ("manual", "What is the", 0.5, False),
    ],
)
def test_who_stops_a_reply_at_once_and_had_not_finished_was_cut_short(
    mode: str, words: str, after_s: float, cut_in: bool
) -> None:
    async def act(stage: Stage) -> None:
        stage.session.on_message(START[mode])
        await stage.stream((VOICE, 10), (HUSH, 5))
        while mode == "auto" and not stage.link.stamps:
            await stage.stream((HUSH, 1))
        stage.session.on_message(Listen("stop"))
        await stage.settle(after_s)
        stage.session.on_message(Abort())
        learnt.append(not stage.services.profiles.of(DEVICE_ID).empty)

    learnt: list[bool] = []
    stage = converse(Script(heard=[words], replies=[[ANSWER]], speech_s=10.0), act)
    assert stage.recorder.turns[0].cut_in is cut_in
    assert learnt == [cut_in]


def test_alerts_are_shown_while_thinking_and_not_during_a_hold() -> None:
    async def act(stage: Stage) -> None:
        stage.session.on_message(START["realtime"])
        await stage.stream(*QUESTION)
        assert stage.session.phase is Phase.THINKING
        stage.session.alert("a", "thinking", "happy")
        assert [alert.message for alert in stage.link.of(Alert)] == ["thinking"]
        await stage.stream((HUSH, 40), (VOICE, 4))
        assert stage.session.phase is Phase.REPLYING
        stage.session.alert("a", "held", "happy")
        assert len(stage.link.of(Alert)) == 1
        await stage.stream((HUSH, 20))
        assert len(stage.link.of(Alert)) == 1
        await stage.settle()

    stage = converse(Script(heard=["hello", ""], replies=[[2.0, "Fine."]], speech_s=4.0), act)
    assert stage.link.story[-2:] == ["stop", "Alert"]


def test_quiet_is_the_time_in_which_nobody_spoke_nor_was_about_to() -> None:
    async def act(stage: Stage) -> None:
        session = stage.session
        await stage.settle(5)
        assert session.quiet_s == pytest.approx(5)
        session.on_message(START["realtime"])
        await stage.stream((VOICE, 10), (HUSH, 5))
        assert session.quiet_s == 0
        await stage.stream((HUSH, 7))
        assert session.phase is Phase.THINKING
        assert session.quiet_s == 0
        await stage.settle(20)
        assert session.phase is Phase.LISTENING
        assert 10 < session.quiet_s < 20

    converse(Script(replies=[[2.0, "Fine."]]), act)


# ---------------------------------------------------------------- storms

ACTIONS = st.one_of(
    st.sampled_from(
        ["auto", "manual", "realtime", "stop", "abort", "hello", "hey mynah", "say", "alert", "lull"]
    ),
    st.tuples(st.sampled_from([VOICE, HUSH]), st.integers(1, 15)),
    st.floats(0.0, 3.0),
)
SAID = st.sampled_from(["hello there", "mhm", "", "up the hill", "no stop", "what is the", PROVIDER_DOWN])


@settings(max_examples=120)
@given(
    st.lists(ACTIONS, min_size=3, max_size=25), st.lists(SAID, min_size=1, max_size=8), st.floats(0.0, 2.0)
)
def test_whatever_happens_the_brackets_hold_and_nothing_is_left(
    actions: list[object], said: list[str | Exception], pause: float
) -> None:
    """`play` checks that no task, stream or session is left."""
    fate = Fate()
    asked: list[str] = []

    async def act(stage: Stage) -> None:
        for number, action in enumerate(actions):
            match action:
                case "auto" | "manual" | "realtime":
                    stage.session.on_message(START[action])
                case "stop":
                    stage.session.on_message(Listen("stop"))
                case "abort":
                    stage.session.on_message(Abort())
                case "hello" | "hey mynah":
                    stage.session.on_message(Listen("detect", text=action))
                case "say":
                    asked.append(str(number))
                    stage.session.say("Tea!", fate.of(str(number)))
                case "alert":
                    stage.session.alert("a", "b", "happy")
                case "lull":
                    stage.session.check_quiet(asyncio.get_running_loop().time())
                case float():
                    await stage.settle(action)
                case (packet, count):
                    await stage.stream((packet, count))
            before_wait = stage.session.phase
            assert before_wait is not Phase.CLOSED
        await stage.settle(60)
        assert stage.session.phase in (Phase.IDLE, Phase.LISTENING), "every phase has a way out by itself"

    replies: list[list[object]] = [
        ["First we go. ", pause, "Up the hill."],
        [pause, "Fine."],
        [PROVIDER_DOWN],
    ]
    script = Script(heard=[*said], replies=replies, asr_s=0.2)  # type: ignore[arg-type]
    stage = play(script, act, min_silence_ms=300)
    check_brackets(stage, idle_stops=True)
    assert sorted(name for name, _ in fate.told) == sorted(asked)
