"""What a device of the pull protocol lives through: turns, replies, faults; and how patient it is."""

from __future__ import annotations

import enum
from typing import Final

import msgspec

from mynah.sim.pull4g.keeper import BACKOFF_S
from mynah.sim.pull4g.player import PREBUFFER_S

LOST_RECORDING: Final = "the connection was lost while recording"
NO_ANSWER: Final = "no answer came"
FORGOTTEN: Final = "the server has forgotten the conversation"


class PullState(enum.StrEnum):
    """What the device is doing."""

    IDLE = "idle"
    RECORDING = "recording"
    WAITING = "waiting"
    """For the answer."""
    PLAYING = "playing"


class Policy(msgspec.Struct, frozen=True):
    """How the device behaves; the defaults are those of the protocol. Times in s."""

    poll_s: float = 0.5
    active_s: float = 30.0
    """It polls for so long after a button or a wake word; longer only while it plays."""
    keep_alive_s: float = 60.0
    """How often it says that it is there, while it does not poll."""
    unanswered: int = 3
    """Polls without a sign of life after which the link counts as lost."""
    backoff_s: tuple[float, ...] = BACKOFF_S
    connect_timeout_s: float = 10.0
    prebuffer_s: float = PREBUFFER_S
    over_after: int = 3
    """Plain mode does not tell the end of a reply: it is over after so many empty answers with nothing left to play."""
    nothing_after: int = 8
    """Framed mode: so many times told that nothing is to come, the question was not answered."""


class Reply(msgspec.Struct):
    """The audio of one reply. Times are those of the device's clock."""

    begun_at: float
    last_at: float = 0.0
    """When its last byte came."""
    data: bytearray = msgspec.field(default_factory=bytearray)
    """Every byte, as it came over the line, without frames."""
    packets: list[int] = []
    """With Opus the size of each packet."""
    seconds: float = 0.0
    late: int = 0
    """Pieces that came more than 5 ms after there was nothing left to play."""
    gap_s: float = 0.0
    """For how long nothing was heard in its middle."""
    complete: bool = False
    """It came to its end. In plain mode that is a guess."""
    interrupted: bool = False

    def pieces(self) -> list[bytes]:
        """Return the audio as it can be decoded: single packets with Opus, else all at once."""
        whole = bytes(self.data)
        if not self.packets:
            return [whole]
        pieces, at = [], 0
        for size in self.packets:
            pieces.append(whole[at : at + size])
            at += size
        return pieces


class PullTurn(msgspec.Struct):
    """One question and its answer. Times are those of the device's clock, 0: it did not happen."""

    said: str = ""
    pressed_at: float = 0.0
    released_at: float = 0.0
    """The end of the question: the button was released."""
    stt: str = ""
    sentences: list[str] = []
    reply: Reply | None = None
    over_at: float = 0.0
    """When the turn was over: the reply was played to its end, or something went wrong."""
    resumed: int = 0
    """How often the connection was lost in between, and it went on."""
    interrupted: bool = False
    error: str = ""

    @property
    def over(self) -> bool:
        """Whether nothing more belongs to it."""
        return bool(self.over_at)

    @property
    def ok(self) -> bool:
        """Whether it was answered, and the answer heard to its end."""
        return self.over and not self.error and self.reply is not None and self.reply.complete

    @property
    def first_audio_s(self) -> float | None:
        """From the end of the question to the first byte of the answer; None when there was none."""
        return self.reply.begun_at - self.released_at if self.reply is not None and self.released_at else None


class Faults(msgspec.Struct):
    """What went wrong, counted. With a sound server and link all are zero."""

    audio_after_interrupt: int = 0
    """Pieces of audio after the AUDIO_END that answers an interruption."""
    audio_outside: int = 0
    """Pieces of audio outside AUDIO_START … AUDIO_END, or that nobody had polled for."""
    unknown_lines: int = 0
    errors: int = 0
    """ERROR lines."""
    unanswered_polls: int = 0
    """Polls that never got an answer."""
    dead_links: int = 0
    """Connections given up after too many of them."""
    lost_recordings: int = 0
    """Recordings that a device which cannot resume had to give up."""
    resent_recordings: int = 0
    """Recordings that had to go on over another connection."""
    underruns: int = 0


class TextLines:
    """Puts texts together that took several lines: each but the last is as long as a line can be."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held = ""

    def add(self, text: str, room: int) -> str:
        """Take a line, in which ``room`` bytes of text have room; return the whole text, empty when more follows."""
        whole = self._held + text
        full = len(text.encode()) > room - 4  # no character has more than four bytes
        self._held = whole if full else ""
        return "" if full else whole

    def rest(self) -> str:
        """Return what was held back, when something else follows after all."""
        held, self._held = self._held, ""
        return held
