"""Turn taking as a pure state machine: an event and the current state in, commands out.

No clock, no async, no logger. The session feeds it everything that happens on one device and carries out what it
answers; all decisions about who speaks when are made here and nowhere else.

Each recording and each reply belongs to a turn with a number. Results of asynchronous work carry the number they were
started with; `TurnMachine.step` drops those that come too late, in one place.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Collection

import msgspec

from mynah.errors import IllegalTransitionError
from mynah.wire.messages import ListenMode


class Phase(enum.Enum):
    """What a conversation is doing, as the device sees it."""

    IDLE = "idle"
    """Channel open, nothing recorded, nothing played."""
    LISTENING = "listening"
    """The device streams its microphone and we wait for, or hear, an utterance."""
    RECOGNISING = "recognising"
    """The utterance is over, its text is not known yet."""
    REPLYING = "replying"
    """Between ``tts start`` and ``tts stop``: thinking or speaking."""
    CLOSED = "closed"


# ---------------------------------------------------------------- events


class ListenStarted(msgspec.Struct, frozen=True):
    """The device opened its microphone."""

    mode: ListenMode


class ListenStopped(msgspec.Struct, frozen=True):
    """The user let go of the button."""


class TextGiven(msgspec.Struct, frozen=True):
    """``listen detect``: a wake word was heard, or somebody typed."""

    text: str


class Aborted(msgspec.Struct, frozen=True):
    """The user interrupted with a button or a wake word."""


class SpeechStarted(msgspec.Struct, frozen=True):
    """Voice activity began in the open recording."""


class SpeechEnded(msgspec.Struct, frozen=True):
    """The configured silence has passed after speech."""


class Recognised(msgspec.Struct, frozen=True):
    """The recogniser's final text; empty when nothing intelligible was said."""

    turn: int
    text: str
    voiced: bool = True
    """Whether voice activity was found at all."""


class Failed(msgspec.Struct, frozen=True):
    """A stage of the turn failed for good. ``say`` is the localised apology."""

    turn: int
    say: str


class Played(msgspec.Struct, frozen=True):
    """The last frame of the reply had time to play."""

    turn: int
    end_session: bool = False


class SayRequested(msgspec.Struct, frozen=True):
    """The assistant has something to say by itself: a timer, a reminder, an API call."""

    text: str


class Lull(msgspec.Struct, frozen=True):
    """A quiet moment, told every few seconds: announcements that still wait may be made."""


class Fell(msgspec.Struct, frozen=True):
    """Nobody has spoken for the configured time."""

    farewell: str


class Closed(msgspec.Struct, frozen=True):
    """The connection is gone."""


Event = (
    ListenStarted
    | ListenStopped
    | TextGiven
    | Aborted
    | SpeechStarted
    | SpeechEnded
    | Recognised
    | Failed
    | Played
    | SayRequested
    | Lull
    | Fell
    | Closed
)


# ---------------------------------------------------------------- commands


class OpenEar(msgspec.Struct, frozen=True):
    """Start recording an utterance. ``interrupting``: a reply is being spoken meanwhile, so be harder to convince."""

    turn: int
    mode: ListenMode
    interrupting: bool = False


class CloseEar(msgspec.Struct, frozen=True):
    """Drop the recording."""


class Recognise(msgspec.Struct, frozen=True):
    """The utterance is complete: get its text."""

    turn: int


class ShowText(msgspec.Struct, frozen=True):
    """Tell the device what the user said."""

    text: str


class StartReply(msgspec.Struct, frozen=True):
    """Send ``tts start``."""

    turn: int


class Think(msgspec.Struct, frozen=True):
    """Ask the language model and speak what it answers."""

    turn: int
    text: str


class Say(msgspec.Struct, frozen=True):
    """Speak a fixed sentence. ``remember``: it is part of the conversation; else it is a courtesy or an apology."""

    turn: int
    text: str
    remember: bool = False
    end_session: bool = False
    sorry: bool = False


class AskAgain(msgspec.Struct, frozen=True):
    """Say that nothing intelligible was heard."""

    turn: int


class Greet(msgspec.Struct, frozen=True):
    """Speak the greeting for a wake word."""

    turn: int


class Leave(msgspec.Struct, frozen=True):
    """Speak the farewell and hang up after it."""

    turn: int


class StopReply(msgspec.Struct, frozen=True):
    """Send ``tts stop``."""


class CancelTurn(msgspec.Struct, frozen=True):
    """End everything that works for this turn; none of its audio may leave any more."""

    turn: int


class HangUp(msgspec.Struct, frozen=True):
    """Close the connection."""


Command = (
    OpenEar
    | CloseEar
    | Recognise
    | ShowText
    | StartReply
    | Think
    | Say
    | AskAgain
    | Greet
    | Leave
    | StopReply
    | CancelTurn
    | HangUp
)

MAX_PENDING_SAYS = 8
"""Announcements that wait for a gap in the conversation. More than eight would keep a user listening for a minute;
overflow policy: the newest is dropped."""


class TurnPolicy(msgspec.Struct, frozen=True):
    """What the words themselves decide. All phrases are compared after `normalise`."""

    wakeup_words: frozenset[str] = frozenset()
    exit_commands: frozenset[str] = frozenset()
    greeting: bool = True

    @classmethod
    def from_phrases(
        cls, wakeup_words: Collection[str], exit_commands: Collection[str], greeting: bool
    ) -> TurnPolicy:
        """Build a policy from phrases as written in the configuration."""
        return cls(
            frozenset(normalise(phrase) for phrase in wakeup_words),
            frozenset(normalise(phrase) for phrase in exit_commands),
            greeting,
        )


def normalise(phrase: str) -> str:
    """Return the phrase without case, punctuation and spaces, so that "Hey, Mynah!" equals "hey mynah"."""
    return "".join(char for char in phrase.casefold() if char.isalnum())


class TurnMachine:
    """State of one conversation. `step` is its only entry."""

    __slots__ = ("_hearing", "_mic_closed", "_policy", "_relisten", "_says", "mode", "phase", "turn")

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
        self._says: deque[str] = deque()

    def step(self, event: Event) -> list[Command]:
        """Take in one event and return what has to be done, in order."""
        if self.phase is Phase.CLOSED:
            return []
        match event:
            case Recognised(number) | Failed(number) | Played(number):
                # A late result of a turn that was cancelled or overtaken is dropped, here and nowhere else.
                return self._result(event) if number == self.turn else []
            case SpeechStarted():
                return self._speech_started()
            case SpeechEnded():
                return self._speech_ended()
            case SayRequested(text):
                return self._say_requested(text)
            case Lull():
                return self._lull()
            case Fell(farewell):
                return self._fell_silent(farewell)
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
            case Phase.RECOGNISING if mode is ListenMode.MANUAL:
                # The button was pressed again before the first recording was understood: the user starts over.
                return [CancelTurn(self.turn), *self._listen()]
            case Phase.REPLYING if mode is ListenMode.REALTIME and changed:
                return [OpenEar(self.turn, mode, interrupting=True)]
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
            case Phase.REPLYING | Phase.RECOGNISING:
                cancelled = self.turn
                self.turn += 1
                # The stop is what takes firmware out of its speaking state, whatever we were doing.
                # Who interrupts wants to speak: announcements wait for the next gap.
                return [CloseEar(), CancelTurn(cancelled), StopReply(), *self._listen_or_rest()]
            case _:
                return [StopReply()]

    # -- what the ear hears

    def _speech_started(self) -> list[Command]:
        if self.phase is Phase.REPLYING and self.mode is ListenMode.REALTIME:
            # Barge-in. The recording that noticed it goes on under a new number.
            cancelled = self.turn
            self.turn += 1
            self.phase = Phase.LISTENING
            self._relisten = False
            self._hearing = True
            return [CancelTurn(cancelled), StopReply()]
        self._hearing = self.phase is Phase.LISTENING
        return []

    def _speech_ended(self) -> list[Command]:
        if self.phase is not Phase.LISTENING or self.mode is ListenMode.MANUAL:
            return []
        return self._recognise()

    # -- results of our own work

    def _result(self, event: Recognised | Failed | Played) -> list[Command]:
        match event:
            case Recognised(_, text, voiced):
                return self._recognised(text, voiced)
            case Failed(_, say):
                return self._failed(say)
            case Played(_, end_session):
                if self.phase is not Phase.REPLYING:
                    raise IllegalTransitionError(f"played in phase {self.phase.value}")
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
        return [*shown, *self._begin_reply(), Think(self.turn, text)]

    def _failed(self, say: str) -> list[Command]:
        # The number stays: the apology is the rest of this turn's reply.
        if self.phase is Phase.RECOGNISING:
            return [*self._begin_reply(), Say(self.turn, say, sorry=True)]
        if self.phase is Phase.REPLYING:
            return [Say(self.turn, say, sorry=True)]
        raise IllegalTransitionError(f"failed in phase {self.phase.value}")

    def _say_requested(self, text: str) -> list[Command]:
        holding = self.phase is Phase.LISTENING and (self._hearing or self.mode is ListenMode.MANUAL)
        if holding or self.phase in (Phase.RECOGNISING, Phase.REPLYING):
            if len(self._says) < MAX_PENDING_SAYS:
                self._says.append(text)
            return []
        commands = self._silence()
        self.turn += 1
        return [*commands, *self._begin_reply(), Say(self.turn, text, remember=True)]

    def _lull(self) -> list[Command]:
        resting = self.phase is Phase.IDLE or (
            self.phase is Phase.LISTENING and not self._hearing and self.mode is not ListenMode.MANUAL
        )
        if not self._says or not resting:
            return []
        return [*self._silence(), *self._announce()]

    def _fell_silent(self, farewell: str) -> list[Command]:
        if self.phase in (Phase.RECOGNISING, Phase.REPLYING):
            return []
        if not farewell:
            self.phase = Phase.CLOSED
            return [CloseEar(), HangUp()]
        commands = self._silence()
        self.turn += 1
        return [*commands, *self._begin_reply(), Say(self.turn, farewell, end_session=True)]

    # -- pieces

    def _listen(self) -> list[Command]:
        self.turn += 1
        self.phase = Phase.LISTENING
        self._relisten = False
        self._hearing = False
        return [OpenEar(self.turn, self.mode)]

    def _recognise(self) -> list[Command]:
        self.phase = Phase.RECOGNISING
        return [Recognise(self.turn)]

    def _silence(self) -> list[Command]:
        """End whatever is going on, with a ``tts stop`` if the device was told to speak."""
        match self.phase:
            case Phase.LISTENING:
                # Firmware in realtime mode goes on streaming after the reply and sends no new listen start.
                return [CloseEar()]
            case Phase.RECOGNISING:
                return [CancelTurn(self.turn)]
            case Phase.REPLYING:
                return [CloseEar(), CancelTurn(self.turn), StopReply()]
            case _:
                return []

    def _begin_reply(self) -> list[Command]:
        self.phase = Phase.REPLYING
        commands: list[Command] = [StartReply(self.turn)]
        if self.mode is ListenMode.REALTIME:
            commands.append(OpenEar(self.turn, self.mode, interrupting=True))
        return commands

    def _after_reply(self) -> list[Command]:
        return self._announce() if self._says else self._listen_or_rest()

    def _announce(self) -> list[Command]:
        self.turn += 1
        return [*self._begin_reply(), Say(self.turn, self._says.popleft(), remember=True)]

    def _listen_or_rest(self) -> list[Command]:
        if self.mode is ListenMode.REALTIME or self._relisten or self._listening_goes_on():
            return self._listen()
        self.phase = Phase.IDLE
        return []

    def _listening_goes_on(self) -> bool:
        """Return whether the device still streams without having said so again (an utterance that had no text)."""
        return self.phase is Phase.RECOGNISING and self.mode is ListenMode.AUTO and not self._mic_closed
