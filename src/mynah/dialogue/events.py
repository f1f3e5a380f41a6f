"""What happens to a conversation: the events that `mynah.dialogue.turn` decides on."""

from __future__ import annotations

import msgspec

from mynah.wire.messages import ListenMode


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
    """Voice activity began in the open recording, or while the ear stood by."""


class SpeechEnded(msgspec.Struct, frozen=True):
    """The configured silence has passed after speech."""


class Recognised(msgspec.Struct, frozen=True):
    """The recogniser's final text; empty when nothing intelligible was said."""

    turn: int
    text: str
    voiced: bool = True
    """Whether voice activity was found at all."""


class Ready(msgspec.Struct, frozen=True):
    """The reply has its first words, or is about to do something that cannot be taken back."""

    turn: int


class Judged(msgspec.Struct, frozen=True):
    """What the voice was that made us hold the reply."""

    turn: int
    hold: int
    """The `HoldReply` this is about."""
    real: bool
    """Somebody has something to say; else a cough, an "uh-huh" or an echo."""
    over: bool = False
    """The utterance has already come to its end."""


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
    ticket: int = 0
    """Number by which whoever asked learns what became of it; 0: nobody wants to know."""


class Lull(msgspec.Struct, frozen=True):
    """A quiet moment, told every few seconds: announcements that still wait may be made."""


class Fell(msgspec.Struct, frozen=True):
    """Nobody has spoken for the configured time."""

    farewell: str
    """What is said before hanging up; empty: nothing."""
    asked: bool = False
    """``farewell`` is what the language model is asked for, rather than what is said."""


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
    | Ready
    | Judged
    | Failed
    | Played
    | SayRequested
    | Lull
    | Fell
    | Closed
)
