"""Whose answer it is that arrives: each poll gets one; those of polls before an interruption are not played. Pure."""

from __future__ import annotations

import enum


class Sound(enum.Enum):
    """What to do with audio."""

    WANTED = enum.auto()
    UNWANTED = enum.auto()
    """On its way when the user interrupted: dropped, and nobody's fault."""
    AFTER_INTERRUPT = enum.auto()
    """Of an answer to a poll after the interruption: the server did not stop."""
    OUTSIDE = enum.auto()
    """Not between AUDIO_START and AUDIO_END, or nobody has asked for it."""


class Answer(enum.Enum):
    """What the answer to a poll held."""

    AUDIO = enum.auto()
    NOTHING = enum.auto()
    UNWANTED = enum.auto()
    """It answers a poll from before the user interrupted."""


class Brackets:
    """The answers to polls on one connection. Made with the device; `lost` begins anew."""

    __slots__ = ("_muted", "_old", "_open", "_sounded", "answered", "pending")

    def __init__(self) -> None:
        self.pending = 0
        """Polls that have not been answered."""
        self.answered = 0
        """Polls that have, ever."""
        self._old = 0  # how many of these were sent before the user interrupted
        self._muted = False  # interrupted, and no new question asked
        self._open = False
        self._sounded = False

    def polled(self) -> None:
        """A poll was sent."""
        self.pending += 1

    def interrupted(self) -> None:
        """The user does not want what is on its way, and nothing after it until he asks again."""
        self._old = self.pending
        self._muted = True

    def asked(self) -> None:
        """The user has asked something: what is polled for from now on is wanted."""
        self._muted = False

    def lost(self) -> None:
        """The connection is gone, with all that was on its way."""
        self.pending = self._old = 0
        self._open = self._sounded = False

    @property
    def rests(self) -> bool:
        """Whether everything from before the interruption has arrived."""
        return not self._old

    def opened(self) -> None:
        """AUDIO_START has come."""
        self._open, self._sounded = True, False

    def heard(self) -> Sound:
        """Audio has come."""
        if not self._open or not self.pending:
            return Sound.OUTSIDE
        self._sounded = True
        if self._old:
            return Sound.UNWANTED
        return Sound.AFTER_INTERRUPT if self._muted else Sound.WANTED

    def ended(self) -> Answer:
        """AUDIO_END has come."""
        sounded, self._open, self._sounded = self._sounded, False, False
        self.pending = max(0, self.pending - 1)
        self.answered += 1
        if self._old:
            self._old -= 1
            return Answer.UNWANTED
        if sounded:
            return Answer.AUDIO
        self._muted = False  # it is silent: what comes later is something new
        return Answer.NOTHING

    def refused(self) -> None:
        """An error has come instead of an answer."""
        if self.pending and not self._open:
            self.pending -= 1
            self._old = max(0, self._old - 1)
