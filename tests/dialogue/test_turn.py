"""The turn machine, transition by transition, and under random storms of events."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mynah.dialogue.turn import (
    MAX_PENDING_SAYS,
    Aborted,
    AskAgain,
    CancelTurn,
    Closed,
    CloseEar,
    Failed,
    Fell,
    Greet,
    HangUp,
    Leave,
    ListenStarted,
    ListenStopped,
    Lull,
    OpenEar,
    Phase,
    Played,
    Recognise,
    Recognised,
    Say,
    SayRequested,
    ShowText,
    SpeechEnded,
    SpeechStarted,
    StartReply,
    StopReply,
    TextGiven,
    Think,
    TurnMachine,
    TurnPolicy,
    normalise,
)
from mynah.errors import IllegalTransitionError
from mynah.wire.messages import ListenMode

AUTO, MANUAL, REALTIME = ListenMode.AUTO, ListenMode.MANUAL, ListenMode.REALTIME
POLICY = TurnPolicy.from_phrases(["Hey Mynah", "你好小智"], ["goodbye", "退出"], greeting=True)


def machine(policy: TurnPolicy = POLICY) -> TurnMachine:
    return TurnMachine(policy)


def steps(turns: TurnMachine, *events: object) -> list[object]:
    commands: list[object] = []
    for event in events:
        commands = turns.step(event)  # type: ignore[arg-type]
    return commands


def test_auto_turn_from_microphone_to_stop() -> None:
    turns = machine()
    assert turns.step(ListenStarted(AUTO)) == [OpenEar(1, AUTO)]
    assert turns.step(SpeechStarted()) == []
    assert turns.step(SpeechEnded()) == [Recognise(1)]
    assert turns.phase is Phase.RECOGNISING
    assert turns.step(Recognised(1, "what time is it")) == [
        ShowText("what time is it"),
        StartReply(1),
        Think(1, "what time is it"),
    ]
    assert turns.step(Played(1)) == [StopReply()]
    assert turns.phase is Phase.IDLE  # the device says when its microphone is open again


def test_manual_turn_ends_only_when_the_button_is_released() -> None:
    turns = machine()
    steps(turns, ListenStarted(MANUAL), SpeechStarted())
    assert turns.step(SpeechEnded()) == []
    assert turns.step(ListenStopped()) == [Recognise(1)]


def test_realtime_goes_on_listening_without_being_told() -> None:
    turns = machine()
    steps(turns, ListenStarted(REALTIME), SpeechStarted(), SpeechEnded())
    commands = turns.step(Recognised(1, "hi"))
    assert commands[1:] == [StartReply(1), OpenEar(1, REALTIME, interrupting=True), Think(1, "hi")]
    assert turns.step(Played(1)) == [StopReply(), OpenEar(2, REALTIME)]


def test_voice_interrupts_in_realtime_only() -> None:
    turns = machine()
    steps(turns, ListenStarted(REALTIME), SpeechEnded(), Recognised(1, "hi"))
    assert turns.step(SpeechStarted()) == [CancelTurn(1), StopReply()]
    assert turns.phase is Phase.LISTENING
    assert turns.step(Played(1)) == []  # the cancelled reply's end comes too late
    assert turns.step(SpeechEnded()) == [Recognise(2)]

    turns = machine()
    steps(turns, ListenStarted(AUTO), SpeechEnded(), Recognised(1, "hi"))
    assert turns.step(SpeechStarted()) == []


@pytest.mark.parametrize("mode", [AUTO, MANUAL, REALTIME])
def test_abort_while_replying_stops_once_and_cancels(mode: ListenMode) -> None:
    turns = machine()
    steps(turns, ListenStarted(mode), ListenStopped(), Recognised(1, "hi"))
    commands = turns.step(Aborted())
    assert commands[:3] == [CloseEar(), CancelTurn(1), StopReply()]
    assert commands.count(StopReply()) == 1
    assert turns.phase is (Phase.LISTENING if mode is REALTIME else Phase.IDLE)
    assert turns.step(Played(1)) == []


def test_abort_when_nothing_plays_still_answers_with_a_stop() -> None:
    turns = machine()
    assert turns.step(Aborted()) == [StopReply()]
    steps(turns, ListenStarted(AUTO))
    assert turns.step(Aborted()) == [StopReply()]
    assert turns.phase is Phase.LISTENING


def test_abort_while_recognising_drops_the_utterance() -> None:
    turns = machine()
    steps(turns, ListenStarted(MANUAL), ListenStopped())
    assert turns.step(Aborted()) == [CloseEar(), CancelTurn(1), StopReply()]
    assert turns.step(Recognised(1, "too late")) == []


def test_repeated_listen_start_changes_nothing() -> None:
    turns = machine()
    steps(turns, ListenStarted(AUTO))
    assert turns.step(ListenStarted(AUTO)) == []
    assert turns.step(ListenStarted(MANUAL)) == [OpenEar(2, MANUAL)]


def test_listen_start_during_a_reply_is_kept_for_its_end() -> None:
    turns = machine()
    assert turns.step(TextGiven("hey, mynah!"))[-1] == Greet(1)
    assert turns.step(ListenStarted(AUTO)) == []  # must not cancel the greeting
    assert turns.step(Played(1)) == [StopReply(), OpenEar(2, AUTO)]


def test_pressing_the_button_again_replaces_what_is_being_recognised() -> None:
    turns = machine()
    steps(turns, ListenStarted(MANUAL), ListenStopped())
    assert turns.step(ListenStarted(MANUAL)) == [CancelTurn(1), OpenEar(2, MANUAL)]


def test_wake_word_without_greeting_only_opens_the_conversation() -> None:
    turns = machine(TurnPolicy.from_phrases(["hey mynah"], [], greeting=False))
    assert turns.step(TextGiven("Hey Mynah")) == [ShowText("Hey Mynah"), StopReply()]
    assert turns.phase is Phase.IDLE


def test_typed_text_replaces_the_reply_in_progress() -> None:
    turns = machine()
    steps(turns, TextGiven("first"))
    assert turns.step(TextGiven("second")) == [
        CloseEar(),
        CancelTurn(1),
        StopReply(),
        ShowText("second"),
        StartReply(2),
        Think(2, "second"),
    ]


def test_typed_text_closes_an_open_ear_and_drops_an_utterance_being_recognised() -> None:
    turns = machine()
    steps(turns, ListenStarted(MANUAL))
    assert turns.step(TextGiven("typed"))[0] == CloseEar()
    turns = machine()
    steps(turns, ListenStarted(MANUAL), ListenStopped())
    assert turns.step(TextGiven("typed"))[0] == CancelTurn(1)


@pytest.mark.parametrize("phrase", ["Goodbye!", "退出。"])
def test_exit_commands_say_goodbye_and_hang_up(phrase: str) -> None:
    turns = machine()
    steps(turns, ListenStarted(AUTO), SpeechEnded())
    assert turns.step(Recognised(1, phrase))[-1] == Leave(1)
    assert turns.step(Played(1, end_session=True)) == [CloseEar(), StopReply(), HangUp()]
    assert turns.phase is Phase.CLOSED
    assert turns.step(ListenStarted(AUTO)) == []
    assert machine().step(TextGiven(phrase))[-1] == Leave(1)


def test_nothing_understood() -> None:
    turns = machine()
    steps(turns, ListenStarted(AUTO), SpeechEnded())
    assert turns.step(Recognised(1, "…")) == [OpenEar(2, AUTO)]  # a noise: listen on
    turns = machine()
    steps(turns, ListenStarted(MANUAL), ListenStopped())
    assert turns.step(Recognised(1, "", voiced=False)) == []  # a slip of the finger
    steps(turns, ListenStarted(MANUAL), ListenStopped())
    assert turns.step(Recognised(2, "")) == [StartReply(2), AskAgain(2)]


def test_failures_are_spoken_and_the_reply_always_ends() -> None:
    turns = machine()
    steps(turns, ListenStarted(AUTO), SpeechEnded())
    assert turns.step(Failed(1, "sorry")) == [StartReply(1), Say(1, "sorry", sorry=True)]
    assert turns.step(Failed(1, "sorry again")) == [Say(1, "sorry again", sorry=True)]
    assert turns.step(Played(1)) == [StopReply()]


def test_announcements_wait_for_a_gap() -> None:
    turns = machine()
    assert turns.step(SayRequested("tea")) == [StartReply(1), Say(1, "tea", remember=True)]
    assert turns.step(SayRequested("eggs")) == []
    assert turns.step(Played(1)) == [StopReply(), StartReply(2), Say(2, "eggs", remember=True)]
    steps(turns, Played(2), ListenStarted(AUTO), SpeechStarted())
    assert turns.step(SayRequested("rice")) == []  # never talk into a user's sentence
    steps(turns, SpeechEnded())
    assert turns.step(Recognised(3, ""))[-1] == Say(4, "rice", remember=True)


def test_announcement_closes_an_ear_that_hears_nothing() -> None:
    turns = machine()
    steps(turns, ListenStarted(AUTO))
    assert turns.step(SayRequested("tea")) == [CloseEar(), StartReply(2), Say(2, "tea", remember=True)]


def test_announcements_are_bounded() -> None:
    turns = machine()
    for number in range(MAX_PENDING_SAYS + 5):
        turns.step(SayRequested(str(number)))
    spoken = 1
    while turns.phase is Phase.REPLYING:
        spoken += any(isinstance(command, Say) for command in turns.step(Played(turns.turn)))
    assert spoken == 1 + MAX_PENDING_SAYS


def test_silence_ends_the_conversation_politely_or_quietly() -> None:
    turns = machine()
    steps(turns, ListenStarted(AUTO))
    assert turns.step(Fell("bye")) == [CloseEar(), StartReply(2), Say(2, "bye", end_session=True)]
    assert turns.step(Fell("bye")) == []
    assert machine().step(Fell("")) == [CloseEar(), HangUp()]


def test_stop_without_start_and_closed() -> None:
    turns = machine()
    assert turns.step(ListenStopped()) == []
    assert turns.step(Closed()) == [CloseEar(), CancelTurn(0)]
    assert turns.step(Closed()) == []


@pytest.mark.parametrize("event", [Recognised(0, "x"), Failed(0, "x"), Played(0)])
def test_results_nobody_asked_for_are_bugs(event: object) -> None:
    with pytest.raises(IllegalTransitionError):
        machine().step(event)  # type: ignore[arg-type]


def test_normalise() -> None:
    assert normalise(" Hey, Mynah! ") == normalise("heymynah") == "heymynah"
    assert normalise("你好，小智。") == "你好小智"


EVENTS = st.one_of(
    st.sampled_from([AUTO, MANUAL, REALTIME]).map(ListenStarted),
    st.just(ListenStopped()),
    st.sampled_from(["hey mynah", "goodbye", "what time is it", ""]).map(TextGiven),
    st.just(Aborted()),
    st.just(SpeechStarted()),
    st.just(SpeechEnded()),
    st.sampled_from(["hello", "", "goodbye"]),  # stands for a recogniser's result
    st.sampled_from([0, 1]),  # stands for the end of a reply: late (0) or of the current turn (1)
    st.just(SayRequested("tea")),
    st.just(Lull()),
    st.sampled_from(["", "bye"]).map(Fell),
)


class Device:
    """What the commands look like from outside: brackets and the ear."""

    def __init__(self) -> None:
        self.turns = machine()
        self.speaking = self.ear = self.ending = False

    def take(self, event: object) -> None:
        if isinstance(event, str):
            if self.turns.phase is not Phase.RECOGNISING:
                return
            event = Recognised(self.turns.turn, event)
        elif isinstance(event, int):
            if event and self.turns.phase is not Phase.REPLYING:
                return
            event = Played(self.turns.turn - (not event), end_session=self.ending and bool(event))
        before = self.turns.turn
        for command in self.turns.step(event):  # type: ignore[arg-type]
            self.check(command, event)
        assert self.turns.turn >= before
        assert self.speaking is (self.turns.phase is Phase.REPLYING)
        assert self.ear or self.turns.phase is not Phase.LISTENING

    def check(self, command: object, event: object) -> None:
        match command:
            case StartReply():
                assert not self.speaking
                self.speaking, self.ending = True, False
            case StopReply():
                assert self.speaking or isinstance(event, Aborted | TextGiven)
                self.speaking = False
            case OpenEar():
                self.ear = True
            case CloseEar():
                self.ear = False
            case Recognise():
                assert self.ear
                self.ear = False
            case Think() | Greet() | AskAgain():
                assert self.speaking
            case Leave():
                self.ending = True
            case Say():
                self.ending |= command.end_session
            case HangUp():
                assert self.turns.phase is Phase.CLOSED


@settings(max_examples=1000, deadline=None)
@given(st.lists(EVENTS, max_size=60))
def test_any_order_of_events_keeps_the_brackets(events: list[object]) -> None:
    """One stop per start, never two starts, one ear at a time, and no state without a way out."""
    device = Device()
    for event in events:
        device.take(event)
    if device.turns.phase is Phase.REPLYING:
        device.turns.step(Played(device.turns.turn))
        assert device.turns.phase is not Phase.CLOSED


def test_realtime_that_begins_during_a_reply_can_interrupt_it() -> None:
    turns = machine()
    steps(turns, SayRequested("tea"))
    assert turns.step(ListenStarted(REALTIME)) == [OpenEar(1, REALTIME, interrupting=True)]
    assert turns.step(SpeechStarted()) == [CancelTurn(1), StopReply()]


def test_who_interrupts_is_listened_to_before_announcements_are_made() -> None:
    turns = machine()
    steps(turns, ListenStarted(MANUAL), ListenStopped(), Recognised(1, "hi"), SayRequested("tea"))
    assert turns.step(Aborted()) == [CloseEar(), CancelTurn(1), StopReply()]
    assert turns.step(Lull()) == [StartReply(3), Say(3, "tea", remember=True)]
    steps(turns, Played(3), ListenStarted(MANUAL), SayRequested("eggs"))
    assert turns.step(Lull()) == []  # the button is held


def test_a_lull_while_listening_closes_the_ear_for_an_announcement() -> None:
    turns = machine()
    steps(turns, TextGiven("hello"), ListenStarted(REALTIME), SayRequested("tea"), Aborted())
    assert turns.step(Lull()) == [
        CloseEar(),
        StartReply(4),
        OpenEar(4, REALTIME, interrupting=True),
        Say(4, "tea", remember=True),
    ]


def test_wake_word_without_greeting_during_a_reply_stops_it_once() -> None:
    turns = machine(TurnPolicy.from_phrases(["hey mynah"], [], greeting=False))
    steps(turns, TextGiven("tell me a story"))
    assert turns.step(TextGiven("hey mynah")).count(StopReply()) == 1


def test_auto_mode_with_an_explicit_stop_and_no_text_rests() -> None:
    turns = machine()
    steps(turns, ListenStarted(AUTO), ListenStopped())
    assert turns.step(Recognised(1, "")) == []
    assert turns.phase is Phase.IDLE
