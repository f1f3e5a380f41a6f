"""The way down to a device that fetches: polls, the audio that answers them, and what is sent again after a lost link.

A poll is answered with what there is: `AUDIO_START`, audio, `AUDIO_END`. Where more is on its way the answer stays open
for a moment (`HOLD_S`), so that audio leaves as it is made. Audio comes out of the `Outlet` only while a poll is being
answered, and is kept in a `PullReply` until it has arrived.
"""

from __future__ import annotations

import asyncio
import enum
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from mynah.audio.encode import Form
from mynah.audio.outlet import Outlet
from mynah.dialogue.speak import Voice
from mynah.net.pull_reply import KEPT_S, PullReply, ReplyStore
from mynah.wire import pull4g
from mynah.wire.pull4g import Codec, Options

HOLD_S: Final = 0.45
"""How long a poll waits for audio that is on its way: polls come every 0.5 s, and the one before is answered first."""
MAX_LINES: Final = 32
"""Text lines that wait for the end of the audio in front of them: a reply's sentences. Overflow policy: the oldest is
dropped."""


Encode = Callable[[str, bool], bytes]
"""Makes what is sent of a text; the flag says whether the connection is in framed mode."""


class Outlook(enum.Enum):
    """What a conversation is about to bring."""

    NOTHING = enum.auto()
    LATER = enum.auto()
    """A reply, but not soon: the recording that it will answer is still coming in."""
    SOON = enum.auto()


class Line(Protocol):
    """The connection that a device has at the moment."""

    @property
    def framed(self) -> bool:
        """Whether it is in framed mode."""

    @property
    def full(self) -> bool:
        """Whether it takes no more audio at the moment; `Download.on_room` follows."""

    def write(self, data: bytes) -> None:
        """Send."""

    def write_audio(self, data: bytes, end: int) -> None:
        """Send a piece of the current reply that ends at offset ``end``."""

    def begin_reply(self) -> None:
        """Offsets from now on are those of another reply."""

    def arrived(self) -> int:
        """Return up to which offset of the current reply everything has reached the other end's kernel."""

    def close(self) -> None:
        """End the connection once what was written has left."""

    def free(self) -> None:
        """The conversation that it carried is over."""


class Download:
    """What a device fetches from. Made with its conversation, used on one loop."""

    # fmt: off
    __slots__ = (
        "_bracket", "_frame_ms", "_hold", "_lead_ms", "_lines", "_loop", "_missing", "_options", "_outlet",
        "_outlook", "_over_at", "_reply", "_returned", "_sent", "_store", "asked_at", "line", "lost_at",
        "polling", "used",
    )
    # fmt: on

    def __init__(
        self, options: Options, store: ReplyStore, lead_ms: int, outlook: Callable[[], Outlook]
    ) -> None:
        """``outlook`` says whether the conversation is about to bring audio. ``lead_ms``: see `Outlet`."""
        self._options, self._store, self._lead_ms, self._outlook = options, store, lead_ms, outlook
        self._loop = asyncio.get_running_loop()
        self._outlet: Outlet | None = None
        self._frame_ms = 60
        self.line: Line | None = None
        """The device's connection, if it has one."""
        self.lost_at = self.asked_at = self._loop.time()
        self._reply: PullReply | None = None
        # Up to here the reply was sent, over this connection or, for certain, over one before it.
        self._sent = 0
        self._missing = False  # some of what came out of the outlet has to be sent again
        self._returned = False  # a connection was lost, and no poll has come since
        self._over_at = 0.0  # when the reply was played to its end; 0 before that
        self.used = False
        """Whether there was a reply, or is."""
        self.polling = False
        """Whether a poll is being answered."""
        self._bracket = False  # AUDIO_START was sent, AUDIO_END was not
        self._hold: asyncio.TimerHandle | None = None
        self._lines: deque[tuple[Encode, str]] = deque(maxlen=MAX_LINES)

    def tap(self, voice: Voice) -> Voice:
        """Return the voice for the session: what it says comes here."""
        self._outlet = Outlet(voice.pacer, self._on_rest, self._lead_ms)
        self._frame_ms = voice.pacer.frame_ms
        return voice.through(self._outlet, Form(self._options.rate, opus=self._options.codec is Codec.OPUS))

    # -- the connection

    def attach(self, line: Line) -> None:
        """A connection of the device. A newer one replaces the older, which is closed."""
        if self.line is line:
            return
        if self.line is not None:
            older = self.line
            self.detach(older)
            older.close()
        self.line = line

    def detach(self, line: Line) -> None:
        """The connection is gone: what it has not carried to the other end will be sent again."""
        if self.line is not line:
            return
        if self._reply is not None:
            self._reply.note_arrived(line.arrived())
            self._sent = self._reply.arrived
        self.line = None
        self.lost_at = self._loop.time()
        self._returned = True
        self._stop_answering()
        self._note_missing()

    def on_room(self) -> None:
        """The connection takes audio again."""
        if self.polling:
            self._pump()
            self._settle()

    # -- from the session

    def begin(self) -> None:
        """A reply begins."""
        if self._bracket:
            self.end_poll()  # two replies in one answer could not be told apart
        self._drop()
        self._reply = PullReply(self._options.codec, self._store, self._loop.time())
        self.used = True
        self._missing = False
        if self.line is not None:
            self.line.begin_reply()

    def add(self, frame: bytes) -> None:
        """Take a frame that the device has asked for."""
        if self._reply is None:  # somebody for whom there is no room is told so without further ado
            self.begin()
        assert self._reply is not None
        behind = self._sent < self._reply.end
        piece = self._reply.add(frame)
        if behind or self.line is None or not self.polling or self.line.full:
            # `on_room` or the next poll sends it. Until then it is not heard, and what follows it may stay where it is.
            if self._outlet is not None:
                self._outlet.shut()
            self._note_missing()
            return
        self._write(self.line, piece, self._reply.end)
        if self._store.full and self._outlet is not None:
            self._outlet.shut()

    def over(self) -> None:
        """The reply was played to its end, or cut short."""
        self._over_at = self._loop.time()

    def tell(self, encode: Encode, words: str) -> None:
        """Send text, if the device wants text; never in the middle of audio, and after a lost link when it is back."""
        if self._options.text:
            self._lines.append((encode, words))
            if not self._bracket:
                self._flush_lines()

    def close(self) -> None:
        """The conversation is over. Nothing of it is sent any more, and nothing here holds on to it."""
        self.silence()
        self._outlet = None
        self._outlook = _no_outlook
        self.line = None

    # -- from the device

    def poll(self, offset: int | None) -> None:
        """The device asks for audio: for what comes next, or after a lost link for what follows ``offset``."""
        self.end_poll()
        if self.line is None:
            return
        self.asked_at = self._loop.time()
        self._flush_lines()
        reply, returned = self._reply, self._returned
        self._returned = False
        if reply is not None and offset is not None:
            if not returned:
                # Nothing is lost on a connection that is still the same; more may be on its way than the device knows.
                reply.note_arrived(offset)
            elif reply.begun_at <= self.lost_at:  # else it speaks of another reply
                reply.go_on(offset)
                self._sent = reply.arrived
                self._note_missing()
        self.polling = True
        self._hold = self._loop.call_later(HOLD_S, self.end_poll)
        self._pump()
        self._settle()

    def acknowledge(self, count: int) -> None:
        """The device has ``count`` bytes of the reply."""
        if self._reply is not None:
            self._reply.acknowledge(count)

    def end_poll(self) -> None:
        """Finish the answer to a poll, if one is being answered."""
        line, polling = self.line, self.polling
        bracket, final = self._bracket, self._complete
        self._stop_answering()
        if line is None or not polling:
            return
        if not bracket:
            line.write(pull4g.audio_start(line.framed))
        line.write(pull4g.audio_end(line.framed, final))
        self._flush_lines()

    def silence(self) -> None:
        """The device interrupts: nothing of what was to be sent is sent."""
        self._drop()
        self._lines.clear()
        self.end_poll()

    # -- looked at now and then

    def unfetched(self, now: float) -> bool:
        """Return whether a reply has been waiting for long that nobody asks for."""
        begun = self._reply.begun_at if self._reply is not None else self.asked_at
        return not self._over_at and now - max(self.asked_at, begun) > KEPT_S

    def expire(self, now: float) -> None:
        """Drop a reply that was played long ago, unless the device is still fetching it."""
        fetching = self._reply is not None and self._sent < self._reply.end and now - self.asked_at < KEPT_S
        if self._over_at and now - self._over_at > KEPT_S and not fetching:
            self._drop()

    # -- pieces

    @property
    def _complete(self) -> bool:
        """Whether everything there is to fetch has been sent, and nothing will follow."""
        if self._reply is not None and self._sent < self._reply.end:
            return False
        if self._outlet is not None and self._outlet.playing:
            return self._outlet.drained
        return bool(self._over_at) or self._outlook() is Outlook.NOTHING

    @property
    def _more(self) -> bool:
        """Whether more audio may come soon."""
        outlet = self._outlet
        if outlet is None:
            return False
        return outlet.waiting if outlet.playing else self._outlook() is Outlook.SOON

    def _drop(self) -> None:
        """Nothing of the reply is to be sent any more."""
        reply, self._reply = self._reply, None
        self._sent, self._over_at = 0, 0.0
        if reply is not None:
            reply.close()

    def _stop_answering(self) -> None:
        self.polling = self._bracket = False
        if self._hold is not None:
            self._hold.cancel()
            self._hold = None
        if self._outlet is not None:
            self._outlet.shut()

    def _flush_lines(self) -> None:
        while self._lines and self.line is not None:
            encode, words = self._lines.popleft()
            self.line.write(encode(words, self.line.framed))

    def _pump(self) -> None:
        """Send what there is of the reply, in answer to the poll, as far as the connection takes it."""
        reply, line = self._reply, self.line
        if reply is None or line is None or not self.polling or self._sent >= reply.end:
            return
        for end, piece in reply.since(self._sent):
            if line.full:
                break
            self._write(line, piece, end)
        if self._missing:
            self._note_missing()

    def _write(self, line: Line, piece: bytes, end: int) -> None:
        if not self._bracket:
            self._bracket = True
            line.write(pull4g.audio_start(line.framed))
        line.write_audio(piece, end)
        self._sent = end

    def _settle(self) -> None:
        """Let more out, or finish the answer when no more will come for it."""
        outlet, line, reply = self._outlet, self.line, self._reply
        if not self.polling or line is None or outlet is None:
            return
        if line.full or (reply is not None and self._sent < reply.end):
            outlet.shut()  # `on_room` follows
            return
        if not self._more or self._store.full:
            self.end_poll()
        elif not outlet.is_open:
            outlet.open()

    def _note_missing(self) -> None:
        if self._outlet is not None:
            frames = self._reply.chunks_since(self._sent) if self._reply is not None else 0
            self._missing = frames > 0
            self._outlet.miss(frames * self._frame_ms)

    def _on_rest(self) -> None:
        """Nothing more comes out for the time being."""
        if self.polling and self.line is not None and not self.line.full:
            self.end_poll()


def _no_outlook() -> Outlook:
    return Outlook.NOTHING
