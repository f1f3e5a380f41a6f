"""What is to be done in a conversation: the answers of `mynah.dialogue.turn`, carried out by the session."""

from __future__ import annotations

import msgspec

from mynah.wire.messages import ListenMode


class OpenEar(msgspec.Struct, frozen=True):
    """Start recording an utterance. ``interrupting``: a reply is being spoken meanwhile, so be harder to convince."""

    turn: int
    mode: ListenMode
    interrupting: bool = False


class GoOn(msgspec.Struct, frozen=True):
    """The user was not done: the open recording continues the utterance that seemed to be over."""


class CloseEar(msgspec.Struct, frozen=True):
    """Drop the recording."""


class Recognise(msgspec.Struct, frozen=True):
    """The utterance is complete: get its text.

    ``final``: no more audio will come. Else the ear stands by, for a user who goes on before the reply has begun.
    """

    turn: int
    final: bool


class ShowText(msgspec.Struct, frozen=True):
    """Tell the device what the user said."""

    text: str


class StartReply(msgspec.Struct, frozen=True):
    """Send ``tts start``."""

    turn: int


class Think(msgspec.Struct, frozen=True):
    """Ask the language model and speak what it answers.

    ``farewell``: ``text`` is what it is asked for a farewell, not part of the conversation; hang up after it.
    """

    turn: int
    text: str
    farewell: bool = False


class HoldReply(msgspec.Struct, frozen=True):
    """Stop sending the reply at once, and find out what the voice is that was heard."""

    turn: int
    hold: int
    """Number of this hold, for `Judged`."""


class ResumeReply(msgspec.Struct, frozen=True):
    """It was nothing: go on with exactly the frame that was held back."""

    turn: int


class Say(msgspec.Struct, frozen=True):
    """Speak a fixed sentence. ``remember``: it is part of the conversation; else it is a courtesy or an apology."""

    turn: int
    text: str
    remember: bool = False
    end_session: bool = False
    sorry: bool = False
    ticket: int = 0
    """That of the `SayRequested` this comes from."""


class Unsaid(msgspec.Struct, frozen=True):
    """An announcement that will not be made: too many wait already."""

    ticket: int


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
    """End everything that works for this turn; none of its audio may leave any more.

    ``going_on``: the user may be going on. The answer has not begun, and is kept in case nothing is added.
    """

    turn: int
    going_on: bool = False


class HangUp(msgspec.Struct, frozen=True):
    """Close the connection."""


Command = (
    OpenEar
    | GoOn
    | CloseEar
    | Recognise
    | ShowText
    | StartReply
    | Think
    | HoldReply
    | ResumeReply
    | Say
    | Unsaid
    | AskAgain
    | Greet
    | Leave
    | StopReply
    | CancelTurn
    | HangUp
)
