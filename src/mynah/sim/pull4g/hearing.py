"""The way down: whose answer it is that arrives, what is played of it when, and when it is over."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from mynah.sim.pull4g.brackets import Answer, Brackets, Sound
from mynah.sim.pull4g.codec import Form, seconds
from mynah.sim.pull4g.player import Player
from mynah.sim.pull4g.record import Faults, Policy, PullTurn, Reply, TextLines
from mynah.sim.pull4g.witness import Witness
from mynah.wire import pull4g
from mynah.wire.pull4g import Codec

MAX_KEPT: Final = 50
"""Replies and turns that are remembered. Overflow policy: the oldest go, as a day of talking would fill the memory."""

_STT_ROOM: Final = 250 - len(b"STT:")
_SENTENCE_ROOM: Final = 250 - len(b"SENTENCE:")


class Hearing:
    """What one device hears. Used on one event loop."""

    def __init__(
        self,
        form: Form,
        policy: Policy,
        faults: Faults,
        witness: Witness,
        clock: Callable[[], float],
        on_heard_out: Callable[[], None],
    ) -> None:
        """``on_heard_out`` is called when a reply was played to its end."""
        self._form, self._policy, self._faults = form, policy, faults
        self._witness, self._clock, self._on_heard_out = witness, clock, on_heard_out
        self._loop = asyncio.get_running_loop()
        self.brackets = Brackets()
        self.player = Player(policy.prebuffer_s)
        self.replies: deque[Reply] = deque(maxlen=MAX_KEPT)
        self.turn: PullTurn | None = None
        """The latest; what comes belongs to it until it is over."""
        self.reply: Reply | None = None
        """The current one."""
        self.have = 0
        """Bytes of the current reply; the server counts them as well."""
        self._acknowledged = 0
        self._empties = 0
        self._stt, self._sentences = TextLines(), TextLines()
        self._timer: asyncio.TimerHandle | None = None

    def forget(self) -> None:
        """Count the next reply from its beginning."""
        self.reply, self.have, self._acknowledged, self._empties = None, 0, 0, 0
        self._witness.forget()

    def interrupted(self) -> None:
        """Nothing of what is on its way is wanted any more."""
        self.brackets.interrupted()
        if self.reply is not None:
            self.reply.interrupted = True
        self.forget()
        self.player.stop(self._clock())
        self.close()

    def close(self) -> None:
        """Play nothing any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # ------------------------------------------------------------ what arrives

    def on_text(self, event: pull4g.Heard | pull4g.Said) -> None:
        """Take a line of text; it may be a part only."""
        if isinstance(event, pull4g.Heard):
            self._on_heard(self._stt.add(event.text, _STT_ROOM))
        else:
            self._on_heard(self._stt.rest())
            self._on_said(self._sentences.add(event.text, _SENTENCE_ROOM))

    def on_audio(self, data: bytes) -> bool:
        """Take audio (of Opus: one packet); return whether it is played."""
        match self.brackets.heard():
            case Sound.OUTSIDE:
                self._faults.audio_outside += 1
                return False
            case Sound.AFTER_INTERRUPT:
                self._faults.audio_after_interrupt += 1
                return False
            case Sound.UNWANTED:
                return False
        now = self._clock()
        reply = self.reply
        if reply is None or (reply.complete and self._form.framed):
            reply = self._begin(now)
        reply.complete = False  # in plain mode that was a guess
        reply.data += data
        reply.last_at = now
        self.have += len(data)
        if self._form.codec is Codec.OPUS:
            reply.packets.append(len(data))
        length_s = seconds(data, self._form)
        reply.seconds += length_s
        gap_s = self.player.push(length_s, now)
        if gap_s:
            reply.late += 1
            reply.gap_s += gap_s
            self._faults.underruns += 1
        self._empties = 0
        if self._timer is None:
            self._timer = self._loop.call_later(max(0.0, self.player.ends_at - now), self._on_silent)
        self._witness.played(data)
        return True

    def on_end(self, final: bool) -> Answer:
        """A poll was answered."""
        self._on_heard(self._stt.rest())  # there was no more of it after all
        self._on_said(self._sentences.rest())
        answer = self.brackets.ended()
        reply = self.reply
        if answer is Answer.UNWANTED or reply is None or reply.complete:
            return answer
        silent = self._clock() >= self.player.ends_at
        self._empties = self._empties + 1 if answer is Answer.NOTHING and silent else 0
        framed = self._form.framed
        if final if framed else self._empties >= self._policy.over_after:
            reply.complete = True
            self._witness.over()
            if silent:
                self._on_heard_out()
        return answer

    def unacknowledged(self) -> int:
        """Return how many bytes of the reply there are, if more than at the last call; else 0."""
        if self.have <= self._acknowledged:
            return 0
        self._acknowledged = self.have
        return self.have

    # ------------------------------------------------------------ inside

    def _on_heard(self, words: str) -> None:
        """The server has told what it understood; nothing: it tells the rest soon."""
        turn = self._open_turn
        if words and turn is not None:
            turn.stt = f"{turn.stt} {words}".strip()
            self._witness.heard(words)

    def _on_said(self, words: str) -> None:
        if words:
            if (turn := self._open_turn) is not None:
                turn.sentences.append(words)
            self._witness.said(words)

    @property
    def _open_turn(self) -> PullTurn | None:
        return self.turn if self.turn is not None and not self.turn.over else None

    def _begin(self, now: float) -> Reply:
        if self.reply is not None:  # the one before is complete; what is left of it is still played
            self._on_heard_out()
            self.forget()
        self.player.begin()
        reply = self.reply = Reply(now)
        self.replies.append(reply)
        if (turn := self._open_turn) is not None:
            turn.reply = reply
        return reply

    def _on_silent(self) -> None:
        """Nothing is left to play, unless more has come meanwhile."""
        self._timer = None
        left_s = self.player.ends_at - self._clock()
        if self.reply is None:
            return
        if left_s > 0:
            self._timer = self._loop.call_later(left_s, self._on_silent)
        elif self.reply.complete:
            self._on_heard_out()
