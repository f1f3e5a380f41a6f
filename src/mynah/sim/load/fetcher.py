"""A device of the pull protocol, so light that thousands fit into a process: without task or codec, with one timer.

It keeps the rules of `mynah.sim.pull4g.device` that a server can feel: the connection opened ahead of time, polls twice
a second, the jitter buffer. It does not resume: a connection that is lost counts as lost, and the turn with it.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final, cast

from mynah.sim.discovery import DeviceIdentity
from mynah.sim.load.device import TRY_LATER, Home, State
from mynah.sim.load.record import Stage
from mynah.sim.load.talker import Talker
from mynah.sim.load.tally import Tally
from mynah.sim.microphone import FRAME_MS
from mynah.sim.pull4g.brackets import Answer, Brackets, Sound
from mynah.sim.pull4g.codec import Form, seconds
from mynah.sim.pull4g.commands import Commands, Speaker
from mynah.sim.pull4g.player import Player
from mynah.sim.pull4g.record import Policy
from mynah.wire import pull4g
from mynah.wire.pull4g import DeviceStream, ErrorCode

POLLS_UNANSWERED: Final = "polls unanswered"
NOT_ALLOWED: Final = "refused: unauthorized"

_POLICY: Final = Policy()
_FRAME_S: Final = FRAME_MS / 1000


class Fetcher(asyncio.Protocol):
    """One device. It may connect again after its connection is gone, and is the same device then.

    Implements `mynah.sim.load.member.Member`.
    """

    __slots__ = (
        "_beat_timer", "_brackets", "_code", "_commands", "_complete", "_empties", "_form", "_greets", "_home",
        "_owed_s", "_play_timer", "_player", "_polls", "_replying", "_stream", "_transport", "_unheard", "failures",
        "mic_open", "number", "since", "state", "talker", "tried",
    )  # fmt: skip

    def __init__(self, home: Home, number: int, form: Form, *, greets: bool) -> None:
        """``greets``: poll once as soon as it is connected, to be let in; who talks does so in any case."""
        self._home, self._form, self._greets = home, form, greets
        self.number = number
        self.state = State.AWAY
        self.since = 0.0
        self.talker: Talker | None = None
        self.mic_open = False
        self.failures = 0
        self.tried = False
        self._transport: asyncio.Transport | None = None
        self._stream: DeviceStream | None = None
        self._commands: Commands | None = None
        self._brackets = Brackets()
        self._player: Player | None = None
        self._code: int | None = None
        self._polls = self._replying = self._complete = False
        self._empties = self._unheard = 0
        self._owed_s = 0.0  # audio that has come, and is not yet a whole frame
        self._beat_timer: asyncio.TimerHandle | None = None
        self._play_timer: asyncio.TimerHandle | None = None

    def introduce(self, identity: DeviceIdentity, token: str) -> None:
        """Be told who it is, before it connects. Raises WireError for a token that fits in no command."""
        self._commands = Commands(Speaker(identity.device_id, self._form, token, identity.client))

    @property
    def tally(self) -> Tally:
        """Where everything is counted."""
        return self._home.tally

    # ------------------------------------------------------------ what a talker does with it

    def listen(self) -> None:
        """Press the button: a recording begins."""
        if self.state in {State.IDLE, State.LISTENING} and self._commands is not None:
            self.state, self.mic_open = State.LISTENING, True
            self._commands.start()

    def stop_listening(self) -> None:
        """Release the button: poll for the answer."""
        if self.state is State.LISTENING and self._commands is not None:
            self.state, self.mic_open = State.IDLE, False
            self._commands.complete()
            self._brackets.asked()
            self._polls = True
            self._beat()

    def abort(self) -> None:
        """Interrupt the answer by button."""
        if self._commands is None:
            return
        self._brackets.interrupted()
        self._commands.interrupt()
        if self._player is not None:
            self._player.stop(time.monotonic())
        self._complete = True
        if self._brackets.rests:
            asyncio.get_running_loop().call_soon(self._await_silence)

    def send_audio(self, framed: bytes) -> None:
        """Send a piece of the recording, if there is one.

        What a server does not read piles up in our memory for `answer_timeout_s`: then the talker gives up.
        """
        if self.mic_open and self._transport is not None:
            self._transport.write(framed)
            self._home.tally.sent += 1

    def stuck(self) -> None:
        """The device was left speaking."""
        self._home.tally.fault("stuck_speaking")

    def judge(self) -> None:
        """Nothing: what is fetched has no rhythm, only gaps."""

    def hang_up(self, why: str = "") -> None:
        """Drop the connection, as a modem does. With ``why`` that is the server's fault."""
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.abort()
            self._over(why)

    # ------------------------------------------------------------ asyncio's callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is open."""
        now = time.monotonic()
        self._home.tally.time(Stage.CONNECT, (now - self.since) * 1000)
        self._transport = cast(asyncio.Transport, transport)
        self._stream = DeviceStream()
        if self._commands is not None:
            self._commands.attach(self._transport)
        self.since, self.state = now, State.GREETING
        self._home.greeting(self)
        if self._greets or self.talker is not None:
            self._poll()
        else:
            self._greeted()
        self._schedule()

    def data_received(self, data: bytes) -> None:
        """Something has come."""
        self._unheard = 0
        if self._stream is None:
            return
        for event in self._stream.feed(data):
            if self._transport is None:
                return
            self._on_event(event)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """The connection is gone."""
        if self._transport is not None:
            self._transport = None
            self._over("connection lost")

    # ------------------------------------------------------------ what the server says

    def _on_event(self, event: pull4g.ServerEvent) -> None:
        match event:
            case pull4g.Audio(data):
                self._on_audio(data)
            case pull4g.AudioStart():
                self._brackets.opened()
                if self.state is State.GREETING:  # what a reply of an earlier connection has left may follow
                    self._home.tally.time(Stage.HELLO, (time.monotonic() - self.since) * 1000)
                    self._greeted()
            case pull4g.AudioEnd(final):
                self._on_end(final)
            case pull4g.Heard():
                if self.talker is not None:
                    self.talker.on_stt(time.monotonic())
            case pull4g.Failed(code):
                self._on_failed(code)
            case pull4g.Unknown():
                self._home.tally.fault("unreadable_messages")

    def _on_audio(self, data: bytes) -> None:
        now = time.monotonic()
        tally = self._home.tally
        length_s = seconds(data, self._form)
        self._owed_s += length_s
        frames = int(self._owed_s / _FRAME_S + 1e-6)
        self._owed_s -= frames * _FRAME_S
        tally.received += frames
        sound = self._brackets.heard()
        if sound is Sound.UNWANTED:
            return
        if sound is not Sound.WANTED:
            tally.fault("stray_audio")
            return
        if not length_s:
            tally.fault("bad_payload")
            return
        player = self._player
        if player is None:
            player = self._player = Player()
        if not self._replying:
            self._replying = True
            player.begin()
            self.state = State.SPEAKING
            if self.talker is not None:
                self.talker.on_start(now)
        self._complete, self._empties = False, 0
        gap_s = player.push(length_s, now)
        if gap_s:
            tally.late += 1
            tally.dry += 1
            tally.worst_gap_ms = max(tally.worst_gap_ms, gap_s * 1000)
        if self.talker is not None:
            self.talker.on_audio(now)

    def _on_end(self, final: bool) -> None:
        answer = self._brackets.ended()
        if not self._replying or self._player is None:
            return
        if answer is Answer.UNWANTED:
            if self._brackets.rests:
                self._await_silence()
            return
        silent = time.monotonic() >= self._player.ends_at
        self._empties = self._empties + 1 if answer is Answer.NOTHING and silent else 0
        if not self._complete and (final if self._form.framed else self._empties >= _POLICY.over_after):
            self._complete = True
            self._await_silence()

    def _on_failed(self, code: ErrorCode) -> None:
        self._brackets.refused()
        if code is ErrorCode.BUSY:
            self._code = TRY_LATER
            self.hang_up("told to come back")
        elif code is ErrorCode.UNAUTHORIZED:
            self.hang_up(NOT_ALLOWED)
        else:
            self.hang_up(f"answered ERROR {code}")

    # ------------------------------------------------------------ inside

    def _greeted(self) -> None:
        self.since, self.state, self.failures = time.monotonic(), State.IDLE, 0
        self._home.greeted(self)
        if self.talker is not None:
            self.talker.start()

    def _beat(self) -> None:
        """Poll, or say that we are there; again when it is time."""
        if self._transport is None or self._commands is None:
            return
        if not self._polls:
            self._commands.keep_alive()
        elif not self.mic_open:
            if self._unheard >= _POLICY.unanswered:
                self.hang_up(POLLS_UNANSWERED)
                return
            self._poll()
        self._schedule()

    def _poll(self) -> None:
        if self._commands is not None:
            self._commands.request()
            self._brackets.polled()
            self._unheard += 1

    def _schedule(self) -> None:
        if self._beat_timer is not None:
            self._beat_timer.cancel()
        pause_s = _POLICY.poll_s if self._polls else _POLICY.keep_alive_s
        self._beat_timer = asyncio.get_running_loop().call_later(pause_s, self._beat)

    def _await_silence(self) -> None:
        """The reply is complete: it is over when it was played."""
        if self._play_timer is not None:
            self._play_timer.cancel()
            self._play_timer = None
        if not self._replying or not self._complete or self._player is None:
            return
        left_s = self._player.ends_at - time.monotonic()
        if left_s > 0:
            self._play_timer = asyncio.get_running_loop().call_later(left_s, self._await_silence)
            return
        self._replying = self._complete = False
        ended_at = self._player.ends_at
        self.since, self.state = time.monotonic(), State.IDLE
        if self.talker is not None:
            self.talker.on_stop(ended_at, ended_at)

    def _over(self, why: str) -> None:
        """The connection is gone, in whatever way."""
        for timer in (self._beat_timer, self._play_timer):
            if timer is not None:
                timer.cancel()
        self._beat_timer = self._play_timer = None
        if self._commands is not None:
            self._commands.attach(None)
        self._brackets = Brackets()
        self._player = self._stream = None
        self.mic_open = self._polls = self._replying = self._complete = False
        self._unheard = 0
        code, self._code = self._code, None
        if self.talker is not None:
            self.talker.on_lost(busy=code == TRY_LATER)
        # It looks at the state, to tell a connection that was lost from one that never came about.
        self._home.ended(self, why, code)
