"""A device behind a 4G modem: a talk button, a loudspeaker, and one connection that it opens itself and polls over.

Everything happens on callbacks and timers of one event loop; nothing blocks, and a device at rest has one timer. What
goes over the line is decided here, when there is a line in `keeper`, what becomes of the answer in `hearing`.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final

from mynah.sim.discovery import DeviceIdentity
from mynah.sim.microphone import FRAME_MS
from mynah.sim.pull4g.brackets import Answer
from mynah.sim.pull4g.codec import Form, Words
from mynah.sim.pull4g.commands import Commands, Speaker
from mynah.sim.pull4g.hearing import MAX_KEPT, Hearing
from mynah.sim.pull4g.keeper import Keeper, Opening
from mynah.sim.pull4g.line import Line, address_of, open_line
from mynah.sim.pull4g.record import FORGOTTEN, LOST_RECORDING, NO_ANSWER, Faults, Policy, PullState, PullTurn
from mynah.sim.pull4g.recording import Recording
from mynah.sim.pull4g.witness import Witness
from mynah.sim.state import Observer
from mynah.wire import pull4g
from mynah.wire.pull4g import Codec, ErrorCode, ServerEvent

SEED: Final = Form(Codec.PCM, 16000, framed=False)
"""All that a device knows which was written from the commands alone."""


class PullDevice:
    """One device. Make and use it on one event loop; `start` it, `close` it."""

    def __init__(
        self,
        url: str,
        identity: DeviceIdentity = DeviceIdentity(),  # noqa: B008 - frozen
        *,
        form: Form = Form(),  # noqa: B008 - frozen
        token: str = "",
        text: bool = True,
        resume: bool = True,
        seed_only: bool = False,
        policy: Policy = Policy(),  # noqa: B008 - frozen
        observer: Observer | None = None,
        seed: int = 0,
        verify_tls: bool = True,
        clock: Callable[[], float] = time.monotonic,
        opening: Opening | None = None,
    ) -> None:
        """``url`` is ``tcp://host:port`` or ``tls://host:port``. ``text``: ask for transcript and sentences as well.

        ``resume``: after a lost link go on with ``from=``. ``seed_only``: know no options at all, so no frames, no
        codec, no token and no resumption. ``seed`` is for the jitter of pauses. ``opening`` makes connections instead
        of TCP. Raises ConnectError for a bad address, ConfigError for a form that does not exist, WireError for a token
        that fits in no command.
        """
        self.url = url
        self.form = SEED if seed_only else form.check()
        self.identity = identity
        self.policy = policy
        self.faults = Faults()
        self.state = PullState.IDLE
        self.turns: deque[PullTurn] = deque(maxlen=MAX_KEPT)
        """The latest, the last one may go on."""
        self.refused: pull4g.Failed | None = None
        """What the server said last when it refused something."""
        self.session_id = ""
        """Name of the conversation; told in framed mode only."""
        who = Speaker(identity.device_id, self.form, token, identity.client, text=text, bare=seed_only)
        self._commands = Commands(who)
        self._resume = resume and not seed_only
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._witness = Witness(observer, self.form, clock)
        self.hearing = Hearing(self.form, policy, self.faults, self._witness, clock, self._on_heard_out)
        """The way down: replies, jitter buffer."""
        address = address_of(url)
        dial = partial(open_line, address, timeout_s=policy.connect_timeout_s, verify_tls=verify_tls)
        self.keeper = Keeper(self, opening or dial, backoff_s=policy.backoff_s, dice=random.Random(seed))
        """The connection, and how often there was one."""
        self._unheard = 0  # polls since something came
        self._returned = False  # it is not the first one, and no poll was sent over it
        self._aligning: int | None = None  # the offset told, until the server says what it has
        self._recording: Recording | None = None
        self._words: deque[tuple[bytes, bytes]] = deque()  # what is still to be said: PCM, piece
        self._hold = False
        self._nothings = 0  # answers in a row that said that nothing is to come
        self._owes_interrupt = False
        self._active_until = 0.0
        self._change: asyncio.Future[None] | None = None
        self._beat_timer: asyncio.TimerHandle | None = None
        self._capture_timer: asyncio.TimerHandle | None = None

    # ------------------------------------------------------------ what the user does

    def start(self) -> None:
        """Open the connection ahead of time, and keep it open from now on."""
        self.keeper.start()

    def activate(self) -> None:
        """Wake up: poll from now on, as after a button."""
        self._active_until = self._clock() + self.policy.active_s
        self.keeper.hurry()
        self._beat()

    def press(self, words: Words, *, hold: bool = False) -> PullTurn:
        """Press the talk button and say something, in real time. What is playing is interrupted.

        The button is released after the last word; with ``hold`` not before `release`. Return the turn, which fills up.
        """
        if self.state is not PullState.IDLE:
            self.interrupt()
        now = self._clock()
        turn = PullTurn(said=words.text, pressed_at=now)
        self.turns.append(turn)
        self._active_until = now + self.policy.active_s
        self._recording = Recording(whole_packets=self.form.codec is Codec.OPUS)
        pcm = words.pcm if self._witness.looks_on else ()
        self._words = deque(zip(pcm or words.pieces, words.pieces, strict=False))
        self._hold = hold
        self.hearing.turn = turn
        self.hearing.forget()
        self.state = PullState.RECORDING
        self._witness.pressed()
        self.keeper.hurry()
        if self.keeper.line is not None:
            self._begin_upload(self._recording)
        self._capture_timer = self._loop.call_later(FRAME_MS / 1000, self._capture, now)
        self._notify()
        return turn

    def release(self) -> None:
        """Release the talk button: the question is complete."""
        if self.state is not PullState.RECORDING or self._recording is None:
            return
        self._stop_capture()
        now = self._clock()
        self._active_until = now + self.policy.active_s
        self._recording.complete = True
        self.turns[-1].released_at = now
        self.state = PullState.WAITING
        self._nothings = 0
        self.hearing.brackets.asked()
        self._witness.released()
        self._flush()
        self._notify()

    def interrupt(self) -> None:
        """Stop: neither the recording nor the answer is wanted any more."""
        self._stop_capture()
        self._recording = None
        self._aligning = None
        self.hearing.interrupted()
        self._owes_interrupt = not self._commands.interrupt()
        self.state = PullState.IDLE
        self._witness.interrupted()
        if (turn := self._turn) is not None:
            turn.interrupted = True
            self._finish(turn, "interrupted")
        self._notify()

    async def ask(self, words: Words, *, timeout_s: float = 30.0) -> PullTurn:
        """Say something in real time, and hear the answer out. ``timeout_s`` counts from the last sign of the answer.

        What went wrong is in the turn's ``error``.
        """
        turn = self.press(words)
        while not turn.over:
            seen = max(
                turn.released_at,
                self.hearing.player.ends_at,
                turn.reply.last_at if turn.reply is not None else 0.0,
            )
            left_s = max(0.0, seen + timeout_s - self._clock()) if turn.released_at else None
            try:
                async with asyncio.timeout(left_s):
                    await self.changed()
            except TimeoutError:
                missing = NO_ANSWER if turn.reply is None else "the answer did not end"
                self._finish(turn, f"{missing} within {timeout_s:g} s{self._because()}")
                self.state = PullState.IDLE
        return turn

    async def changed(self) -> None:
        """Wait until something arrives, the state changes, or the connection is lost or there again."""
        if self._change is None or self._change.done():
            self._change = self._loop.create_future()
        await asyncio.shield(self._change)

    async def close(self) -> None:
        """Hang up, for good."""
        self._stop_capture()
        self.hearing.close()
        if self._beat_timer is not None:
            self._beat_timer.cancel()
        await self.keeper.stop()
        self._notify()

    @property
    def connected(self) -> bool:
        """Whether there is a connection."""
        return self.keeper.line is not None

    # ------------------------------------------------------------ the connection

    def on_line(self, line: Line, first: bool) -> None:
        """A connection is open: go on where we were (the keeper calls this)."""
        self._commands.attach(line)
        self._unheard = 0
        self._returned = not first
        self._aligning = None
        recording = self._recording
        if self._owes_interrupt:
            self._owes_interrupt = False
            if recording is None:  # else it begins, which is an interruption as well
                self._returned = False
                self._poll()  # tells who we are
                self.hearing.interrupted()
                self._commands.interrupt()
        if recording is not None and not recording.confirmed:
            recording.told = False
            if recording.begun:
                self._resume_upload(recording)
            else:
                self._begin_upload(recording)
        self._beat()
        self._notify()

    def on_failed(self) -> None:
        """No connection came about (the keeper calls this)."""
        self._notify()

    def on_lost(self, why: str) -> None:  # noqa: ARG002 - the keeper keeps it
        """The connection is gone (the keeper calls this)."""
        self._commands.attach(None)
        self.faults.unanswered_polls += self.hearing.brackets.pending
        self.hearing.brackets.lost()
        self._aligning = None
        if self._beat_timer is not None:
            self._beat_timer.cancel()
        turn, recording = self._turn, self._recording
        if turn is not None:
            turn.resumed += 1
        if recording is not None and recording.begun and not recording.confirmed and not self._resume:
            if recording.complete:
                recording.confirmed = True  # it was sent to its end: such a device hopes for the best
            else:
                self._give_up_recording()
        self._notify()

    def _give_up_recording(self) -> None:
        self.faults.lost_recordings += 1
        self._stop_capture()
        self._recording = None
        self.state = PullState.IDLE
        self.hearing.brackets.asked()  # what got through will be answered
        if (turn := self._turn) is not None:
            self._finish(turn, LOST_RECORDING)

    # ------------------------------------------------------------ up

    def _begin_upload(self, recording: Recording) -> None:
        recording.begun = True
        self._commands.start()
        self._flush()

    def _resume_upload(self, recording: Recording) -> None:
        """Go on with a recording: in framed mode the server says how much it has, in plain mode it skips that."""
        self.faults.resent_recordings += 1
        self._commands.start(0)
        recording.rewind(0)
        if self._commands.framed:
            self._aligning = 0
        else:
            self._flush()

    def _on_received(self, count: int) -> None:
        """The server has so many bytes of the recording."""
        recording = self._recording
        if recording is None:
            return
        if self._aligning is not None:
            recording.rewind(count)
            if count != self._aligning:
                self._commands.start(count)
            self._aligning = None
            self._flush()
        elif recording.told and count >= recording.size:
            recording.confirmed = True

    def _capture(self, due: float) -> None:
        """60 ms more were recorded."""
        due += FRAME_MS / 1000
        recording = self._recording
        if recording is None or self.state is not PullState.RECORDING:
            return
        if self._words:
            pcm, piece = self._words.popleft()
            recording.add(piece)
            self._witness.recorded(pcm)
            self._flush()
        if not self._words and not self._hold:
            self.release()
            return
        self._capture_timer = self._loop.call_later(
            max(0.0, due + FRAME_MS / 1000 - self._clock()), self._capture, due
        )

    def _stop_capture(self) -> None:
        self._words.clear()
        if self._capture_timer is not None:
            self._capture_timer.cancel()
            self._capture_timer = None

    def _flush(self) -> None:
        """Send what was recorded, as far as there is a line and it is known where the server is."""
        recording = self._recording
        if recording is None or self.keeper.line is None or self._aligning is not None or recording.told:
            return
        for piece in recording.take():
            self._commands.audio(piece)
        if recording.complete:
            self._commands.complete()
            recording.told = True
            self._beat()

    # ------------------------------------------------------------ polling

    def _beat(self) -> None:
        """Poll, or say that we are there; again when it is time."""
        if self._beat_timer is not None:
            self._beat_timer.cancel()
            self._beat_timer = None
        line = self.keeper.line
        if line is None:
            return
        if line.closed:
            self.keeper.lose("it cannot be written to")
            return
        if not self._polls():
            if self.state is PullState.IDLE:
                self._beat_timer = self._loop.call_later(self.policy.keep_alive_s, self._stay)
                return
        elif self._unheard >= self.policy.unanswered:
            self.faults.dead_links += 1
            self.keeper.lose(f"{self._unheard} polls were not answered")
            return
        else:
            self._poll()
        self._beat_timer = self._loop.call_later(self.policy.poll_s, self._beat)

    def _stay(self) -> None:
        if not self._polls() and self.state is PullState.IDLE:
            self._commands.keep_alive()
        self._beat()

    def _polls(self) -> bool:
        """Whether it is time to poll: active, and not in the middle of a recording."""
        recording = self._recording
        if self.state is PullState.RECORDING or (
            recording is not None and not (recording.told or recording.confirmed)
        ):
            return False
        if self._clock() < self._active_until or self.state is PullState.PLAYING:
            return True
        if self.state is PullState.WAITING and (turn := self._turn) is not None:
            self.state = PullState.IDLE
            self._finish(turn, NO_ANSWER + self._because())
            self._notify()
        return False

    def _poll(self) -> None:
        offset = self.hearing.have if self._returned and self._resume else None
        self._returned = False
        self._commands.request(offset)
        self.hearing.brackets.polled()
        self._unheard += 1

    # ------------------------------------------------------------ down

    def on_events(self, events: list[ServerEvent]) -> None:
        """Take what has arrived (the keeper calls this)."""
        self._unheard = 0
        for event in events:
            self._on_event(event)
        if events:
            self._notify()

    def _on_event(self, event: ServerEvent) -> None:
        match event:
            case pull4g.Audio(data):
                if self.hearing.on_audio(data):
                    self.state = PullState.PLAYING
            case pull4g.AudioStart():
                self.hearing.brackets.opened()
                self._on_answer()
            case pull4g.AudioEnd(final):
                self._on_end(final)
            case pull4g.Received(count):
                self._on_received(count)
            case pull4g.Heard() | pull4g.Said():
                self._on_answer()
                self.hearing.on_text(event)
            case pull4g.Ready(session_id):
                self._on_ready(session_id)
            case pull4g.Failed():
                self._on_failed(event)
            case pull4g.Unknown():
                self.faults.unknown_lines += 1

    def _on_ready(self, session_id: str) -> None:
        """The server tells which conversation it is."""
        before, self.session_id = self.session_id, session_id
        recording, turn = self._recording, self._turn
        asked = self.state is PullState.PLAYING or (recording is not None and recording.confirmed)
        if before not in {"", session_id} and asked and turn is not None:
            self.state = PullState.IDLE
            self._finish(turn, FORGOTTEN)

    def _on_answer(self) -> None:
        """An answer begins: whoever gives it knows that the recording is over."""
        recording = self._recording
        if recording is not None and recording.told and self.hearing.brackets.rests:
            recording.confirmed = True

    def _on_end(self, final: bool) -> None:
        """A poll was answered."""
        answer = self.hearing.on_end(final)
        if self._commands.framed and (count := self.hearing.unacknowledged()):
            self._commands.acknowledge(count)
        if self.state is PullState.WAITING and self._commands.framed:
            self._nothings = self._nothings + 1 if final and answer is Answer.NOTHING else 0
            if self._nothings >= self.policy.nothing_after and (turn := self._turn) is not None:
                self.state = PullState.IDLE
                self._finish(turn, NO_ANSWER)

    def _on_heard_out(self) -> None:
        """The reply was played to its end."""
        if self.state is PullState.PLAYING:
            self.state = PullState.IDLE
        turn = self._turn
        if turn is not None and turn.reply is not None and turn.reply is self.hearing.reply:
            self._finish(turn, "")
        self._notify()

    def _on_failed(self, failed: pull4g.Failed) -> None:
        """The server has refused something."""
        recording, turn = self._recording, self._turn
        if failed.code is ErrorCode.NO_SESSION and recording is not None and recording.told:
            recording.confirmed = True  # it had the whole recording before the connection was lost
            return
        self.faults.errors += 1
        self.refused = failed
        match failed.code:
            case ErrorCode.TOO_LARGE:
                self._stop_capture()
                if recording is not None:
                    recording.complete = recording.told = recording.confirmed = True
                if turn is not None and self.state is PullState.RECORDING:
                    turn.released_at = self._clock()
                    self.state = PullState.WAITING
                    self._witness.released()
                    self.hearing.brackets.asked()
                    self._beat()
                return
            case ErrorCode.UNAUTHORIZED:
                self.keeper.give_up_for_long()
            case _:
                self.hearing.brackets.refused()
        if turn is not None and self.state in {PullState.RECORDING, PullState.WAITING}:
            self._stop_capture()
            self._recording = None
            self.state = PullState.IDLE
            self._finish(turn, f"{failed.code}: {failed.text}")

    # ------------------------------------------------------------ inside

    @property
    def _turn(self) -> PullTurn | None:
        """Return the turn that goes on."""
        return self.turns[-1] if self.turns and not self.turns[-1].over else None

    def _finish(self, turn: PullTurn, error: str) -> None:
        turn.over_at, turn.error = self._clock(), error

    def _because(self) -> str:
        """Return what is wrong with the connection, as a part of a sentence; nothing when it is there."""
        return f": {self.keeper.trouble}" if self.keeper.trouble and self.keeper.line is None else ""

    def _notify(self) -> None:
        if self._change is not None and not self._change.done():
            self._change.set_result(None)
