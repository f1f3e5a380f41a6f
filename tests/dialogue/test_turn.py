"""The turn machine, transition by transition, and under random storms of events."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mynah.dialogue.commands import (
    AskAgain,
    CancelTurn,
    CloseEar,
    GoOn,
    Greet,
    HangUp,
    HoldReply,
    Leave,
    OpenEar,
    Recognise,
    ResumeReply,
    Say,
    ShowText,
    StartReply,
    StopReply,
    Think,
    Unsaid,
)
from mynah.dialogue.events import (
    Aborted,
    Closed,
    Failed,
    Fell,
    Judged,
    ListenStarted,
    ListenStopped,
    Lull,
    Played,
    Ready,
    Recognised,
    SayRequested,
    SpeechEnded,
    SpeechStarted,
    TextGiven,
)
from mynah.dialogue.turn import MAX_GOING_ON, MAX_PENDING_SAYS, Phase, TurnMachine, TurnPolicy, normalise
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
    assert turns.step(SpeechEnded()) == [Recognise(1, final=False)]
    assert turns.phase is Phase.RECOGNISING
    # The device is not told to speak before there is something to say.
    assert turns.step(Recognised(1, "what time is it")) == [
        ShowText("what time is it"),
        Think(1, "what time is it"),
    ]
    assert turns.phase is Phase.THINKING
    assert turns.step(Ready(1)) == [CloseEar(), StartReply(1)]
    assert turns.step(Ready(1)) == []
    assert turns.step(Played(1)) == [StopReply()]
    assert turns.phase is Phase.IDLE  # the device says when its microphone is open again


def test_manual_turn_ends_only_when_the_button_is_released() -> None:
    turns = machine()
    steps(turns, ListenStarted(MANUAL), SpeechStarted())
    assert turns.step(SpeechEnded()) == []
    assert turns.step(ListenStopped()) == [Recognise(1, final=True)]
    # The microphone is closed: nobody can go on, so the device may be told at once.
    assert turns.step(Recognised(1, "hi")) == [ShowText("hi"), StartReply(1), Think(1, "hi")]
    assert turns.step(Ready(1)) == []


def test_realtime_goes_on_listening_without_being_told() -> None:
    turns = machine()
    steps(turns, ListenStarted(REALTIME), SpeechStarted(), SpeechEnded())
    assert turns.step(Recognised(1, "hi")) == [ShowText("hi"), Think(1, "hi")]
    assert turns.step(Ready(1)) == [StartReply(1), OpenEar(1, REALTIME, interrupting=True)]
    assert turns.step(Played(1)) == [StopReply(), OpenEar(2, REALTIME)]


def replying(mode: ListenMode, policy: TurnPolicy = POLICY) -> TurnMachine:
    """A machine whose turn 1 is being answered."""
    turns = machine(policy)
    steps(turns, ListenStarted(mode), SpeechStarted(), ListenStopped() if mode is MANUAL else SpeechEnded())
    steps(turns, Recognised(1, "hi"), Ready(1))
    assert turns.phase is Phase.REPLYING
    return turns


def test_voice_holds_a_reply_in_realtime_and_ends_it_when_it_is_meant() -> None:
    turns = replying(REALTIME)
    assert turns.step(SpeechStarted()) == [HoldReply(1, 1)]
    assert turns.phase is Phase.REPLYING
    assert turns.step(SpeechStarted()) == []  # one judgement at a time
    assert turns.step(SpeechEnded()) == []
    assert turns.step(Judged(1, 1, real=True)) == [CancelTurn(1), StopReply()]
    assert turns.phase is Phase.LISTENING
    assert turns.step(Judged(1, 1, real=True)) == []
    assert turns.step(Played(1)) == []  # the cancelled reply's end comes too late
    assert turns.step(SpeechEnded()) == [Recognise(2, final=False)]


@pytest.mark.parametrize("mode", [AUTO, MANUAL])
def test_voice_does_nothing_to_a_reply_in_other_modes(mode: ListenMode) -> None:
    turns = replying(mode)
    assert turns.step(SpeechStarted()) == []
    assert turns.step(Played(1)) == [StopReply()]


def test_a_false_alarm_resumes_the_reply_and_the_next_voice_holds_it_again() -> None:
    turns = replying(REALTIME)
    for hold in (1, 2, 3):
        assert turns.step(SpeechStarted()) == [HoldReply(1, hold)]
        assert turns.step(Judged(1, hold, real=False)) == [ResumeReply(1)]
    assert turns.turn == 1
    assert turns.step(Played(1)) == [StopReply(), OpenEar(2, REALTIME)]


def test_an_interruption_that_is_over_when_it_is_judged_is_recognised_at_once() -> None:
    turns = replying(REALTIME)
    steps(turns, SpeechStarted(), SpeechEnded())
    assert turns.step(Judged(1, 1, real=True, over=True)) == [
        CancelTurn(1), StopReply(), Recognise(2, final=False),
    ]  # fmt: skip
    assert turns.step(Recognised(2, "stop")) == [ShowText("stop"), Think(2, "stop")]


def test_without_a_judge_a_voice_ends_the_reply() -> None:
    turns = replying(REALTIME, TurnPolicy(judge_interruptions=False))
    assert turns.step(SpeechStarted()) == [CancelTurn(1), StopReply()]
    assert turns.step(SpeechEnded()) == [Recognise(2, final=False)]


def test_an_interruption_whose_microphone_has_closed_is_recognised_at_once() -> None:
    turns = replying(REALTIME)
    steps(turns, SpeechStarted(), ListenStopped())
    assert turns.step(Judged(1, 1, real=True)) == [
        CancelTurn(1), StopReply(), Recognise(2, final=True),
    ]  # fmt: skip


@pytest.mark.parametrize("event", [Aborted(), TextGiven("no"), Closed()])
def test_what_ends_a_held_reply_makes_its_judgement_a_late_result(event: object) -> None:
    turns = replying(REALTIME)
    steps(turns, SpeechStarted())
    commands = turns.step(event)  # type: ignore[arg-type]
    assert CancelTurn(1) in commands
    assert commands.count(StopReply()) == (not isinstance(event, Closed))
    assert turns.step(Judged(1, 1, real=True, over=True)) == []
    if turns.phase is Phase.REPLYING:
        assert turns.step(SpeechStarted()) == [HoldReply(2, 2)], "the hold does not stick to the next reply"


def test_a_failure_during_a_hold_is_told_after_it() -> None:
    turns = replying(REALTIME)
    steps(turns, SpeechStarted())
    assert turns.step(Failed(1, "sorry")) == [Say(1, "sorry", sorry=True)]
    assert turns.step(Judged(1, 1, real=False)) == [ResumeReply(1)]


@pytest.mark.parametrize("mode", [AUTO, MANUAL])
def test_a_change_of_mode_lets_go_of_a_held_reply(mode: ListenMode) -> None:
    turns = replying(REALTIME)
    steps(turns, SpeechStarted())
    assert turns.awaits(1, 1)
    assert turns.step(ListenStarted(mode)) == [ResumeReply(1), CloseEar()]
    assert not turns.awaits(1, 1)
    assert turns.step(Judged(1, 1, real=True)) == [], "that came too late"
    assert turns.phase is Phase.REPLYING
    steps(turns, ListenStarted(REALTIME), SpeechStarted())
    assert turns.step(Judged(1, 1, real=True)) == [], "that was about the hold before"
    assert turns.step(Judged(1, 2, real=False)) == [ResumeReply(1)]
    steps(turns, ListenStarted(mode))
    assert turns.step(Played(1)) == [StopReply(), OpenEar(2, mode)]


@pytest.mark.parametrize("mode", [AUTO, REALTIME])
@pytest.mark.parametrize("thinking", [False, True])
def test_who_goes_on_before_the_reply_is_heard(mode: ListenMode, thinking: bool) -> None:
    turns = machine()
    steps(turns, ListenStarted(mode), SpeechStarted(), SpeechEnded())
    if thinking:
        steps(turns, Recognised(1, "what is the"))
    assert turns.step(SpeechStarted()) == [CancelTurn(1, going_on=True), GoOn()]
    assert (turns.phase, turns.turn) == (Phase.LISTENING, 2)
    assert turns.step(Recognised(1, "what is the")) == []
    assert turns.step(Ready(1)) == []
    assert turns.step(Failed(1, "sorry")) == []
    assert turns.step(SayRequested("tea")) == []  # the user is speaking
    assert turns.step(SpeechEnded()) == [Recognise(2, final=False)]
    assert turns.step(Recognised(2, "what is the time"))[-1] == Think(2, "what is the time")


def test_going_on_has_an_end_and_begins_anew_with_the_next_question() -> None:
    turns = machine()
    steps(turns, ListenStarted(AUTO), SpeechStarted())
    for number in range(1, MAX_GOING_ON + 1):
        steps(turns, SpeechEnded())
        assert turns.step(SpeechStarted()) == [CancelTurn(number, going_on=True), GoOn()]
    steps(turns, SpeechEnded())
    assert turns.step(SpeechStarted()) == []
    last = MAX_GOING_ON + 1
    steps(turns, Recognised(last, "at last"))
    assert turns.phase is Phase.THINKING
    assert turns.step(SpeechStarted()) == []
    steps(turns, Ready(last), Played(last), ListenStarted(AUTO), SpeechStarted(), SpeechEnded())
    assert turns.step(SpeechStarted()) == [CancelTurn(last + 1, going_on=True), GoOn()]


def test_a_closed_microphone_has_nobody_to_go_on() -> None:
    turns = machine()
    steps(turns, ListenStarted(AUTO), SpeechStarted())
    assert turns.step(ListenStopped()) == [Recognise(1, final=True)]
    assert turns.step(Recognised(1, "hi"))[1:] == [CloseEar(), StartReply(1), Think(1, "hi")]


@pytest.mark.parametrize("mode", [AUTO, REALTIME])
def test_a_failure_while_thinking_is_spoken(mode: ListenMode) -> None:
    turns = machine()
    steps(turns, ListenStarted(mode), SpeechEnded(), Recognised(1, "hi"))
    commands = turns.step(Failed(1, "sorry"))
    assert StartReply(1) in commands
    assert commands[-1] == Say(1, "sorry", sorry=True)
    assert turns.step(Ready(1)) == []
    assert turns.step(Played(1))[0] == StopReply()


def test_a_button_pressed_while_thinking_starts_over() -> None:
    turns = machine()
    steps(turns, ListenStarted(AUTO), SpeechEnded(), Recognised(1, "hi"))
    assert turns.step(ListenStarted(MANUAL)) == [CancelTurn(1), OpenEar(2, MANUAL)]
    assert turns.step(Ready(1)) == []


def test_announcements_wait_while_thinking() -> None:
    turns = machine()
    steps(turns, ListenStarted(AUTO), SpeechEnded(), Recognised(1, "hi"))
    assert turns.step(SayRequested("tea")) == []
    assert turns.step(Lull()) == []
    assert turns.step(Fell("bye")) == []
    steps(turns, Ready(1))
    assert turns.step(Played(1))[-1] == Say(2, "tea", remember=True)


def test_typed_text_while_thinking_replaces_the_question() -> None:
    turns = machine()
    steps(turns, ListenStarted(AUTO), SpeechEnded(), Recognised(1, "hi"))
    commands = turns.step(TextGiven("typed"))
    assert commands[:3] == [CloseEar(), CancelTurn(1), ShowText("typed")]
    assert commands[-2:] == [StartReply(2), Think(2, "typed")]
    assert StopReply() not in commands, "the device has not been told to speak"


def test_an_abort_while_thinking_cancels_and_is_answered_with_a_stop() -> None:
    turns = machine()
    steps(turns, ListenStarted(AUTO), SpeechEnded(), Recognised(1, "hi"))
    assert turns.step(Aborted())[:3] == [CloseEar(), CancelTurn(1), StopReply()]
    assert turns.step(Ready(1)) == []


def test_an_abort_while_thinking_leaves_a_streaming_device_heard() -> None:
    turns = machine()
    steps(turns, ListenStarted(AUTO), SpeechEnded(), Recognised(1, "hi"))
    assert turns.step(Aborted())[-1] == OpenEar(3, AUTO)
    assert turns.phase is Phase.LISTENING


@pytest.mark.parametrize("mode", [AUTO, MANUAL])
def test_an_idle_device_owns_no_ear(mode: ListenMode) -> None:
    turns = replying(REALTIME)
    assert turns.step(ListenStarted(mode)) == [CloseEar()]
    steps(turns, ListenStopped())
    assert turns.step(Played(1)) == [StopReply()]
    assert turns.phase is Phase.IDLE


def test_the_farewell_may_be_asked_of_the_model() -> None:
    turns = machine()
    steps(turns, ListenStarted(AUTO))
    assert turns.step(Fell("Say goodbye.", asked=True)) == [
        CloseEar(), StartReply(2), Think(2, "Say goodbye.", farewell=True),
    ]  # fmt: skip


def test_tickets_go_with_their_announcements() -> None:
    turns = machine()
    steps(turns, SayRequested("now", 1))
    for number in range(2, MAX_PENDING_SAYS + 2):
        assert turns.step(SayRequested("later", number)) == []
    assert turns.step(SayRequested("too many", 99)) == [Unsaid(99)]
    tickets = []
    while turns.phase is Phase.REPLYING:
        tickets += [c.ticket for c in turns.step(Played(turns.turn)) if isinstance(c, Say)]
    assert tickets == list(range(2, MAX_PENDING_SAYS + 2))


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
    assert turns.step(TextGiven("typed"))[:2] == [CloseEar(), CancelTurn(1)]


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
    assert turns.step(Failed(1, "sorry")) == [CloseEar(), StartReply(1), Say(1, "sorry", sorry=True)]
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


WORK = (Recognise, Think, Greet, AskAgain, Leave, Say)
NUMBERED = (Recognised, Ready, Judged, Failed, Played)
EVENTS = st.one_of(
    st.sampled_from([AUTO, MANUAL, REALTIME]).map(ListenStarted),
    st.just(ListenStopped()),
    st.sampled_from(["hey mynah", "goodbye", "what time is it", ""]).map(TextGiven),
    st.just(Aborted()),
    st.just(SpeechStarted()),
    st.just(SpeechEnded()),
    st.just(SayRequested("tea", 1)),
    st.just(Lull()),
    st.sampled_from([Fell(""), Fell("bye"), Fell("Say goodbye.", asked=True)]),
    # Results: of the current turn where they may come, else late.
    st.sampled_from(["hello", "", "…", "goodbye"]).map(lambda text: Recognised(0, text)),
    st.just(Ready(0)),
    st.builds(Judged, st.just(0), st.booleans(), st.booleans()),
    st.just(Failed(0, "sorry")),
    st.just(Played(0)),
)


class Device:
    """What the commands look like from outside: brackets, the ear, the work of a turn."""

    def __init__(self, policy: TurnPolicy = POLICY) -> None:
        self.turns = machine(policy)
        self.speaking = self.ear = self.ending = self.held = False
        self.working: int | None = None
        """Number of the turn that something works for."""
        self.pending: set[int] = set()
        self.tickets = 0
        self.hold = 0

    def may_come(self, event: object) -> bool:
        """Return whether the work of the current turn can have this result now."""
        phase = self.turns.phase
        match event:
            case Recognised():
                return phase is Phase.RECOGNISING
            case Ready() | Failed():
                return self.working == self.turns.turn
            case Judged():
                return self.held
            case _:
                return phase is Phase.REPLYING and not self.held

    def take(self, event: object) -> None:
        turns = self.turns
        before, phase = turns.turn, turns.phase
        late = False
        if isinstance(event, SpeechStarted | SpeechEnded) and not self.ear:
            return  # only an ear says so
        if isinstance(event, NUMBERED):
            late = not self.may_come(event)
            number = turns.turn - late
            event = msgspec.structs.replace(event, turn=number)
            if isinstance(event, Judged):
                event = msgspec.structs.replace(event, hold=self.hold)
            if isinstance(event, Played):
                event = Played(number, end_session=self.ending)
        if isinstance(event, SayRequested):
            self.tickets += 1
            event = SayRequested(event.text, self.tickets)
            self.pending.add(self.tickets)
        commands = turns.step(event)  # type: ignore[arg-type]
        if late:
            assert commands == []
            assert (turns.turn, turns.phase) == (before, phase)
        for command in commands:
            if isinstance(command, CancelTurn):
                assert command.turn == before
                self.working, self.held = None, False
            elif isinstance(command, WORK):
                assert command.turn == turns.turn, "work is started for the turn that waits for it"
                self.working = command.turn
            self.check_ear(command)
            self.check_reply(command, event)
            self.check_ending(command)
        if isinstance(event, Played) and commands and turns.phase is not Phase.REPLYING:
            self.working = None
        if isinstance(event, Recognised) and turns.phase in (Phase.LISTENING, Phase.IDLE):
            self.working = None
        self.check_state(before)

    def check_state(self, before: int) -> None:
        turns, phase = self.turns, self.turns.phase
        assert turns.turn >= before
        assert self.speaking is (phase is Phase.REPLYING) or phase is Phase.CLOSED
        assert self.ear or phase is not Phase.LISTENING
        assert not self.held or phase is Phase.REPLYING
        if phase in (Phase.RECOGNISING, Phase.THINKING, Phase.REPLYING):
            assert self.working == turns.turn, "something works that will lead out of here"
        else:
            assert self.working is None, "nothing works that nobody waits for"

    def check_ear(self, command: object) -> None:
        match command:
            case OpenEar():
                self.ear = True
            case CloseEar():
                self.ear = False
            case GoOn():
                assert self.ear
                assert not self.speaking
            case Recognise():
                assert self.ear
                assert not self.speaking
                self.ear = not command.final

    def check_reply(self, command: object, event: object) -> None:
        match command:
            case StartReply():
                assert not self.speaking
                self.speaking, self.ending, self.held = True, False, False
            case StopReply():
                assert self.speaking or isinstance(event, Aborted | TextGiven)
                self.speaking = self.held = False
            case Think():
                assert self.speaking or self.turns.phase is Phase.THINKING
                self.ending = command.farewell
            case Greet() | AskAgain() | Leave() | Say():
                assert self.speaking
            case HoldReply():
                assert self.speaking
                assert self.ear
                assert not self.held
                self.held = True
                self.hold = command.hold
            case ResumeReply():
                assert self.held
                self.held = False

    def check_ending(self, command: object) -> None:
        match command:
            case Leave():
                self.ending = True
            case Say():
                self.ending |= command.end_session
                self.pending.discard(command.ticket)
            case Unsaid():
                self.pending.remove(command.ticket)
            case HangUp():
                assert self.turns.phase is Phase.CLOSED

    def rest(self) -> None:
        """Let all work come to its end: from any state there is a way back to a quiet one."""
        for _ in range(4 * (MAX_PENDING_SAYS + 2)):
            match self.turns.phase:
                case Phase.RECOGNISING:
                    self.take(Recognised(0, ""))
                case Phase.THINKING:
                    self.take(Ready(0))
                case Phase.REPLYING if self.held:
                    self.take(Judged(0, 0, real=False))
                case Phase.REPLYING:
                    self.take(Played(0))
                case _:
                    return
        raise AssertionError(f"no way out of {self.turns.phase}")


POLICIES = [
    POLICY,
    TurnPolicy.from_phrases(["hey mynah"], ["goodbye"], greeting=False, judge_interruptions=False),
]


@settings(max_examples=1500, deadline=None)
@given(st.sampled_from(POLICIES), st.lists(EVENTS, max_size=60))
def test_any_order_of_events_keeps_the_brackets(policy: TurnPolicy, events: list[object]) -> None:
    """One stop per start, never two starts, one ear at a time, work behind every phase that waits for some."""
    device = Device(policy)
    for event in events:
        device.take(event)
    device.rest()
    assert not device.speaking
    assert len(device.pending) <= MAX_PENDING_SAYS
    device.turns.step(Closed())
    assert device.turns.phase is Phase.CLOSED
    for event in events:
        assert device.turns.step(event) == []  # type: ignore[arg-type]


@settings(max_examples=300, deadline=None)
@example([ListenStarted(AUTO), SpeechEnded(), ListenStopped(), Recognised(0, "")])
@given(st.lists(EVENTS, max_size=40))
def test_an_idle_device_owns_no_decoder_whatever_happened(events: list[object]) -> None:
    device = Device()
    for event in events:
        device.take(event)
        assert not device.ear or device.turns.phase is not Phase.IDLE


@settings(max_examples=300, deadline=None)
@given(st.lists(EVENTS, max_size=40))
def test_a_lost_connection_ends_everything_from_anywhere(events: list[object]) -> None:
    device = Device()
    for event in events:
        device.take(event)
    if device.turns.phase is not Phase.CLOSED:
        device.take(Closed())
        assert not device.ear
        assert not device.working
        assert not device.held


def test_realtime_that_begins_during_a_reply_can_interrupt_it() -> None:
    turns = machine()
    steps(turns, SayRequested("tea"))
    assert turns.step(ListenStarted(REALTIME)) == [OpenEar(1, REALTIME, interrupting=True)]
    assert turns.step(SpeechStarted()) == [HoldReply(1, 1)]


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
    assert turns.step(Recognised(1, "")) == [CloseEar()]
    assert turns.phase is Phase.IDLE
