"""Turn taking as a pure state machine: an event (`mynah.dialogue.events`) and the current state in, commands
(`mynah.dialogue.commands`) out.

No clock, no async, no logger. The session feeds it everything that happens on one device and carries out what it
answers; all decisions about who speaks when are made here and nowhere else.

Each recording and each reply belongs to a turn with a number. Results of asynchronous work carry the number they were
started with; `TurnMachine.step` drops those that come too late, in one place.
"""

from __future__ import annotations

import enum
from collections.abc import Collection

import msgspec

from mynah.dialogue.commands import (
    AskAgain,
    CancelTurn,
    CloseEar,
    Command,
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
    Event,
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
from mynah.errors import IllegalTransitionError
from mynah.wire.messages import ListenMode


class Phase(enum.Enum):
    """What a conversation is doing, as the device sees it."""

    IDLE = "idle"
    """Channel open, nothing recorded, nothing played."""
    LISTENING = "listening"
    """The device streams its microphone; an utterance is waited for, or heard."""
    RECOGNISING = "recognising"
    """The utterance is over, its text is not known yet."""
    THINKING = "thinking"
    """The text is known and the reply in the making, but the device has not been told to speak: it listens still, and
    whoever goes on is heard."""
    REPLYING = "replying"
    """Between ``tts start`` and ``tts stop``."""
    CLOSED = "closed"


MAX_PENDING_SAYS = 8
"""Announcements that wait for a gap in the conversation. More than eight would keep a user listening for a minute;
overflow policy: the newest is dropped."""
MAX_GOING_ON = 3
"""How often a user may go on with an utterance that seemed to be over. A television in the room goes on for ever; then
the question is answered all the same."""


class TurnPolicy(msgspec.Struct, frozen=True):
    """What the words themselves decide. All phrases are compared after `normalise`."""

    wakeup_words: frozenset[str] = frozenset()
    exit_commands: frozenset[str] = frozenset()
    greeting: bool = True
    judge_interruptions: bool = True
    """Whether a voice during a reply holds it first, or ends it at once."""

    @classmethod
    def from_phrases(
        cls,
        wakeup_words: Collection[str],
        exit_commands: Collection[str],
        greeting: bool,
        judge_interruptions: bool = True,
    ) -> TurnPolicy:
        """Build a policy from phrases as written in the configuration."""
        return cls(
            frozenset(normalise(phrase) for phrase in wakeup_words),
            frozenset(normalise(phrase) for phrase in exit_commands),
            greeting,
            judge_interruptions,
        )


def normalise(phrase: str) -> str:
    """Return the phrase without case, punctuation and spaces, so that "Hey, Mynah!" equals "hey mynah"."""
    return "".join(char for char in phrase.casefold() if char.isalnum())


class TurnMachine:
    """State of one conversation. `step` is its only entry."""

    __slots__ = (
        "_going_on", "_hearing", "_held", "_holds", "_mic_closed", "_policy", "_relisten", "_says",
        "mode", "phase", "turn",
    )  # fmt: skip

    def __init__(self, policy: TurnPolicy) -> None:
        self._policy = policy
        self.phase = Phase.IDLE
        self.mode = ListenMode.AUTO
        self.turn = 0
        """Number of the current turn; grows with every recording and every reply."""
        self._relisten = False
        """A ``listen start`` came while we were busy: open the ear when the reply is over."""
        self._mic_closed = False
        """The device said ``listen stop`` and has not opened its microphone again."""
        self._hearing = False
        """The user is in the middle of an utterance."""
        self._held = False
        """The reply is held back until it is known whether somebody interrupts."""
        self._holds = 0
        """How often one has been held."""
        self._going_on = 0
        """How often the user has gone on with this utterance."""
        self._says: list[SayRequested] = []

    def awaits(self, turn: int, hold: int) -> bool:
        """Return whether the reply of this turn is still held for the voice that is being judged."""
        return self._held and (turn, hold) == (self.turn, self._holds)

    def step(self, event: Event) -> list[Command]:
        """Take in one event and return what has to be done, in order."""
        if self.phase is Phase.CLOSED:
            return []
        match event:
            case Recognised(number) | Ready(number) | Judged(number) | Failed(number) | Played(number):
                # A late result of a turn that was cancelled or overtaken is dropped, here and nowhere else.
                return self._result(event) if number == self.turn else []
            case SpeechStarted():
                return self._speech_started()
            case SpeechEnded():
                return self._speech_ended()
            case SayRequested():
                return self._say_requested(event)
            case Lull():
                return self._lull()
            case Fell():
                return self._fell_silent(event)
            case Closed():
                self.phase = Phase.CLOSED
                return [CloseEar(), CancelTurn(self.turn)]
            case _:
                return self._from_device(event)

    def _from_device(self, event: ListenStarted | ListenStopped | TextGiven | Aborted) -> list[Command]:
        match event:
            case ListenStarted(mode):
                return self._listen_started(mode)
            case ListenStopped():
                return self._listen_stopped()
            case TextGiven(text):
                return self._text_given(text)
            case Aborted():
                return self._aborted()

    # -- what the device says

    def _listen_started(self, mode: ListenMode) -> list[Command]:
        self._mic_closed = False
        changed = mode is not self.mode
        self.mode = mode
        match self.phase:
            case Phase.IDLE:
                return self._listen()
            case Phase.LISTENING:
                # Repeated starts are common (py-xiaozhi sends two after an abort) and mean nothing new.
                return self._listen() if changed else []
            case Phase.RECOGNISING | Phase.THINKING if mode is ListenMode.MANUAL:
                # The button was pressed again before there was an answer: the user starts over.
                return [CancelTurn(self.turn), *self._listen()]
            case Phase.REPLYING if mode is ListenMode.REALTIME and changed:
                return [OpenEar(self.turn, mode, interrupting=True)]
            case Phase.REPLYING if changed:
                # The ear that watched a reply in realtime mode has nothing to watch any more.
                self._relisten = True
                return [*self._release(), CloseEar()]
            case _:
                self._relisten = True
                return []

    def _listen_stopped(self) -> list[Command]:
        self._relisten = False
        self._mic_closed = True
        if self.phase is not Phase.LISTENING:
            return []
        return self._recognise()

    def _text_given(self, text: str) -> list[Command]:
        commands = self._silence()
        self.turn += 1
        commands.append(ShowText(text))
        word = normalise(text)
        if word in self._policy.exit_commands:
            return [*commands, *self._begin_reply(), Leave(self.turn)]
        if word in self._policy.wakeup_words or not word:
            if self._policy.greeting:
                return [*commands, *self._begin_reply(), Greet(self.turn)]
            self.phase = Phase.IDLE
            # Firmware goes on to listen by itself; clients that do not are waiting for a stop.
            return commands if StopReply() in commands else [*commands, StopReply()]
        return [*commands, *self._begin_reply(), Think(self.turn, text)]

    def _aborted(self) -> list[Command]:
        match self.phase:
            case Phase.REPLYING | Phase.THINKING | Phase.RECOGNISING:
                cancelled = self.turn
                self.turn += 1
                # The stop is what takes firmware out of its speaking state, whatever we were doing.
                # Who interrupts wants to speak: announcements wait for the next gap.
                return [CloseEar(), CancelTurn(cancelled), StopReply(), *self._listen_or_rest()]
            case _:
                return [StopReply()]

    # -- what the ear hears

    def _speech_started(self) -> list[Command]:
        match self.phase:
            case Phase.REPLYING if self.mode is ListenMode.REALTIME:
                if not self._policy.judge_interruptions:
                    return self._barge_in()
                if self._held:
                    return []
                self._held = True
                self._holds += 1
                return [HoldReply(self.turn, self._holds)]
            case Phase.RECOGNISING | Phase.THINKING if self._going_on < MAX_GOING_ON:
                # Only an ear that stands by says so. What was understood is kept; the answer to half of it is not.
                cancelled = self.turn
                self.turn += 1
                self._going_on += 1
                self.phase = Phase.LISTENING
                self._hearing = True
                going_on: list[Command] = [CancelTurn(cancelled, going_on=True), GoOn()]
                # With the microphone closed it was said before that, and no silence will end it.
                return [*going_on, *self._recognise()] if self._mic_closed else going_on
            case _:
                self._hearing = self.phase is Phase.LISTENING
                return []

    def _speech_ended(self) -> list[Command]:
        if self.phase is not Phase.LISTENING or self.mode is ListenMode.MANUAL:
            return []
        return self._recognise()

    def _barge_in(self, over: bool = False) -> list[Command]:
        """End the reply; the recording that noticed the voice goes on under a new number."""
        cancelled = self.turn
        self.turn += 1
        self.phase = Phase.LISTENING
        self._relisten = self._held = False
        self._hearing = True
        self._going_on = 0
        commands: list[Command] = [CancelTurn(cancelled), StopReply()]
        # With the microphone closed no silence will end it.
        return [*commands, *self._recognise()] if over or self._mic_closed else commands

    # -- results of our own work

    def _result(self, event: Recognised | Ready | Judged | Failed | Played) -> list[Command]:
        match event:
            case Recognised(_, text, voiced):
                return self._recognised(text, voiced)
            case Ready():
                # Told in phase REPLYING where the device was not listening and the reply began at once.
                return self._begin_reply() if self.phase is Phase.THINKING else []
            case Judged():
                return self._judged(event)
            case Failed(_, say):
                return self._failed(say)
            case Played(_, end_session):
                if self.phase is not Phase.REPLYING:
                    raise IllegalTransitionError(f"played in phase {self.phase.value}")
                self._held = False
                if end_session:
                    self.phase = Phase.CLOSED
                    return [CloseEar(), StopReply(), HangUp()]
                return [StopReply(), *self._after_reply()]

    def _recognised(self, text: str, voiced: bool) -> list[Command]:
        if self.phase is not Phase.RECOGNISING:
            raise IllegalTransitionError(f"recognised in phase {self.phase.value}")
        word = normalise(text)
        if not word:
            if self.mode is ListenMode.MANUAL and voiced:
                # Somebody held the button and spoke: silence would look like a broken device.
                return [*self._begin_reply(), AskAgain(self.turn)]
            return self._after_reply()
        shown: list[Command] = [ShowText(text)]
        if word in self._policy.exit_commands:
            return [*shown, *self._begin_reply(), Leave(self.turn)]
        if self._stands_by():
            self.phase = Phase.THINKING
            return [*shown, Think(self.turn, text)]
        return [*shown, *self._begin_reply(), Think(self.turn, text)]

    def _judged(self, event: Judged) -> list[Command]:
        if not self.awaits(event.turn, event.hold):
            return []  # the device changed its mode meanwhile, and the reply went on
        if event.real:
            return self._barge_in(event.over)
        self._held = False
        return [ResumeReply(self.turn)]

    def _failed(self, say: str) -> list[Command]:
        # The number stays: the apology is the rest of this turn's reply.
        if self.phase in (Phase.RECOGNISING, Phase.THINKING):
            return [*self._begin_reply(), Say(self.turn, say, sorry=True)]
        if self.phase is Phase.REPLYING:
            return [Say(self.turn, say, sorry=True)]
        raise IllegalTransitionError(f"failed in phase {self.phase.value}")

    def _say_requested(self, event: SayRequested) -> list[Command]:
        holding = self.phase is Phase.LISTENING and (self._hearing or self.mode is ListenMode.MANUAL)
        if holding or self._busy():
            if len(self._says) < MAX_PENDING_SAYS:
                self._says.append(event)
                return []
            return [Unsaid(event.ticket)]
        self._says.append(event)
        return [*self._silence(), *self._announce()]

    def _lull(self) -> list[Command]:
        resting = self.phase is Phase.IDLE or (
            self.phase is Phase.LISTENING and not self._hearing and self.mode is not ListenMode.MANUAL
        )
        if not self._says or not resting:
            return []
        return [*self._silence(), *self._announce()]

    def _fell_silent(self, event: Fell) -> list[Command]:
        if self._busy():
            return []
        if not event.farewell:
            self.phase = Phase.CLOSED
            return [CloseEar(), HangUp()]
        commands = self._silence()
        self.turn += 1
        commands += self._begin_reply()
        if event.asked:
            return [*commands, Think(self.turn, event.farewell, farewell=True)]
        return [*commands, Say(self.turn, event.farewell, end_session=True)]

    # -- pieces

    def _release(self) -> list[Command]:
        """Let go of a reply that is held: nobody will tell any more what the voice was."""
        held, self._held = self._held, False
        return [ResumeReply(self.turn)] if held else []

    def _busy(self) -> bool:
        return self.phase in (Phase.RECOGNISING, Phase.THINKING, Phase.REPLYING)

    def _stands_by(self) -> bool:
        """Return whether the device still streams its microphone after an utterance, until it is told to speak."""
        return self.mode is not ListenMode.MANUAL and not self._mic_closed

    def _listen(self) -> list[Command]:
        self.turn += 1
        self.phase = Phase.LISTENING
        self._relisten = False
        self._hearing = False
        self._going_on = 0
        return [OpenEar(self.turn, self.mode)]

    def _recognise(self) -> list[Command]:
        self.phase = Phase.RECOGNISING
        return [Recognise(self.turn, final=not self._stands_by())]

    def _silence(self) -> list[Command]:
        """End whatever is going on, with a ``tts stop`` if the device was told to speak."""
        match self.phase:
            case Phase.LISTENING:
                # Firmware in realtime mode goes on streaming after the reply and sends no new listen start.
                return [CloseEar()]
            case Phase.RECOGNISING | Phase.THINKING:
                return [CloseEar(), CancelTurn(self.turn)]
            case Phase.REPLYING:
                return [CloseEar(), CancelTurn(self.turn), StopReply()]
            case _:
                return []

    def _begin_reply(self) -> list[Command]:
        # Told to speak, a device in auto mode closes its microphone; there is nothing to stand by for any more.
        standing_by = self.phase in (Phase.RECOGNISING, Phase.THINKING) and self.mode is ListenMode.AUTO
        self.phase = Phase.REPLYING
        self._held = False
        self._going_on = 0
        commands: list[Command] = [CloseEar()] if standing_by else []
        commands.append(StartReply(self.turn))
        if self.mode is ListenMode.REALTIME:
            commands.append(OpenEar(self.turn, self.mode, interrupting=True))
        return commands

    def _after_reply(self) -> list[Command]:
        return self._announce() if self._says else self._listen_or_rest()

    def _announce(self) -> list[Command]:
        self.turn += 1
        say = self._says.pop(0)
        return [*self._begin_reply(), Say(self.turn, say.text, remember=True, ticket=say.ticket)]

    def _listen_or_rest(self) -> list[Command]:
        if self.mode is ListenMode.REALTIME or self._relisten or self._listening_goes_on():
            return self._listen()
        stood_by = self.phase in (Phase.RECOGNISING, Phase.THINKING) and self.mode is not ListenMode.MANUAL
        self.phase = Phase.IDLE
        return [CloseEar()] if stood_by else []

    def _listening_goes_on(self) -> bool:
        """Return whether the device still streams without having said so again: it was never told to speak."""
        unanswered = self.phase in (Phase.RECOGNISING, Phase.THINKING)
        return unanswered and self.mode is ListenMode.AUTO and not self._mic_closed
