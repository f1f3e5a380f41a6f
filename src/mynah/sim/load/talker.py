"""Somebody who talks to a device: asks, hears the answer out, thinks for a moment, asks again. Driven by ticks."""

from __future__ import annotations

import random
from enum import Enum, auto
from typing import TYPE_CHECKING, Final

import msgspec

from mynah.sim.load.record import Stage
from mynah.sim.load.scenario import Scenario, Transport
from mynah.sim.load.stock import Recording
from mynah.sim.microphone import FRAME_MS
from mynah.wire.frames import encode_audio
from mynah.wire.messages import ListenMode
from mynah.wire.pull4g import device_audio

if TYPE_CHECKING:
    from mynah.sim.load.member import Member
    from mynah.sim.load.tally import Tally

HEARD_S: Final = 1.0
"""What is heard of an answer before it is cut off."""

FIRST_PAUSE_S: Final = 4.0
"""The first question of each comes within so long, about a turn: people do not all begin at once."""

RELEASED: Final = 3
"""Packets after the one with the last sound before the button is released: people take about 200 ms."""

TAIL: Final = 16
"""Packets of noise at the end of a recording, about a second, which are repeated for who has to wait."""

BUFFERED_S: Final = 2.4
"""A device may still have so much to play after the last packet: 40 of them."""

NO_ANSWER: Final = "no answer"
NO_AUDIO: Final = "answer without audio"
NO_TRANSCRIPT: Final = "answer without stt"
EARLY: Final = "answered before the end of the question"
STALLED: Final = "answer without end"
UNANSWERED: Final = "no answer by the end of the step"
"""The wait was too long for this step, though the time for an answer was not over; see `mynah.sim.load.tally`."""
TURN_ERRORS: Final = frozenset({NO_ANSWER, NO_AUDIO, NO_TRANSCRIPT, EARLY, STALLED, UNANSWERED})
"""All kinds of failures of turns."""


class Script(msgspec.Struct, frozen=True):
    """What all talkers of a process share."""

    scenario: Scenario
    recordings: list[Recording]
    """Their packets framed as they are sent."""

    @classmethod
    def make(cls, scenario: Scenario, stock: list[Recording]) -> Script:
        """Frame the packets of a stock."""
        framed = [
            msgspec.structs.replace(one, packets=[_framed(packet, scenario) for packet in one.packets])
            for one in stock
        ]
        return cls(scenario, framed)


def _framed(packet: bytes, scenario: Scenario) -> bytes:
    if scenario.transport is Transport.PULL4G:
        return device_audio(packet, scenario.framed)
    return encode_audio(scenario.protocol, packet)


class Doing(Enum):
    """Where a talker is in a turn."""

    THINKING = auto()
    """Between two turns."""
    ASKING = auto()
    RELEASING = auto()
    """The words are over, the button is still held (manual mode)."""
    WAITING = auto()
    """For the answer."""
    HEARING = auto()
    PLAYING = auto()
    """The answer has ended, and what is buffered of it is still played (auto mode)."""


class Talker:
    """Gets a `tick` each 60 ms, and is told what the server says. Times are `time.monotonic`."""

    __slots__ = (
        "_asked_at", "_at", "_audio_at", "_begun_at", "_counts", "_deadline", "_device", "_dice", "_failed",
        "_interrupt_at", "_left", "_listen_at", "_recording", "_script", "_stt_at", "doing",
    )  # fmt: skip

    def __init__(self, device: Member, script: Script, seed: int) -> None:
        self._device = device
        self._script = script
        self._dice = random.Random(seed)
        self.doing = Doing.THINKING
        self._counts = False
        self._begun_at: float = 0.0
        self._asked_at: float = 0.0
        self._stt_at: float = 0.0
        self._audio_at: float = 0.0
        self._listen_at: float = 0.0
        self._failed: tuple[str, Tally, bool] | None = None
        """Why the last turn failed and where that was counted, until the next one begins."""
        self._think(self._dice.uniform(0.0, FIRST_PAUSE_S))

    @property
    def in_turn(self) -> bool:
        """Whether it has asked something and has not heard the answer out."""
        return self._counts and self.doing is not Doing.THINKING

    # ------------------------------------------------------------ the clock

    def tick(self, now: float) -> None:
        """Do what is due: one packet of 60 ms, if the microphone is open."""
        doing = self.doing
        if doing is Doing.HEARING:
            self._hear(now)
        elif doing is Doing.ASKING:
            self._ask(now)
        elif doing is Doing.WAITING:
            self._noise()
            if now > self._deadline:
                self._give_up(NO_ANSWER)
        elif doing is Doing.THINKING:
            self._noise()
            self._left -= 1
            if self._left <= 0:
                self._begin()
        elif doing is Doing.RELEASING:
            self._noise()
            self._left -= 1
            if self._left <= 0:
                self._device.stop_listening()
                self._wait(now)
        elif now >= self._listen_at:
            self._think()
            self._device.listen()

    def start(self) -> None:
        """The device has said hello: begin from the beginning."""
        self._think(self._dice.uniform(0.0, FIRST_PAUSE_S))
        if self._script.scenario.mode is not ListenMode.MANUAL:
            self._device.listen()

    # ------------------------------------------------------------ what the server says

    def on_stt(self, now: float) -> None:
        """The server tells what it has understood; the last text before the answer counts."""
        if not self._audio_at:
            self._stt_at = now

    def on_start(self, now: float) -> None:
        """A reply begins: ours, or one that nobody has asked for."""
        if self.doing in {Doing.ASKING, Doing.RELEASING}:
            self._finish(EARLY)
        if self.doing is not Doing.WAITING:
            self._counts = False
            self._deadline = now + self._script.scenario.answer_timeout_s
        self.doing = Doing.HEARING

    def on_audio(self, now: float) -> None:
        """A packet of the reply has come."""
        self._deadline = now + self._script.scenario.answer_timeout_s
        if not self._audio_at and self._counts:
            self._audio_at = now
            # Noted now and not at the end of the turn: a step may be over before, and long waits would be missing.
            self._time_transcript()
            self._device.tally.time(Stage.FIRST_AUDIO, (now - self._asked_at) * 1000)
            if self._dice.random() < self._script.scenario.interrupt_share:
                self._interrupt_at = now + HEARD_S

    def on_stop(self, now: float, played_at: float) -> None:
        """The reply has ended; ``played_at``: when the device will have played all of it."""
        if self.doing is not Doing.HEARING:
            return
        if self._counts:
            self._finish(NO_AUDIO if not self._audio_at else NO_TRANSCRIPT if not self._stt_at else "", now)
        if self._script.scenario.mode is ListenMode.AUTO:
            self.doing = Doing.PLAYING
            self._listen_at = played_at
        else:
            self._think()

    def on_lost(self, *, busy: bool) -> None:
        """The connection is gone: a turn in its midst has failed, and the reason is that of the connection.

        With ``busy`` the server had no time for it and said so: the turn does not count, even if it has failed
        already because the server said so aloud, before the end of the question.
        """
        if busy:
            self._undo()
        elif self.in_turn:
            self._count(succeeded=False)
        self._think()

    # ------------------------------------------------------------ the end of a step

    def settle(self, now: float) -> None:
        """Note how long the first audio of an answer, or more of it, has been waited for that is still to come.

        A turn that has waited for longer than an answer may take has failed.
        """
        if not self._counts or self.doing not in {Doing.WAITING, Doing.HEARING}:
            return
        patience_s = self._script.scenario.answer_timeout_s
        waited_s = now - (self._deadline - patience_s)  # since the end of the question, or the last packet
        if waited_s > patience_s:
            nothing = NO_AUDIO if self.doing is Doing.HEARING else NO_ANSWER
            self._finish(STALLED if self._audio_at else nothing)
        elif self._audio_at:
            self._device.tally.silences.append(max(0.0, waited_s - BUFFERED_S) * 1000)
        else:
            self._time_transcript()
            self._device.tally.waits.append(waited_s * 1000)

    # ------------------------------------------------------------ inside

    def _think(self, pause_s: float | None = None) -> None:
        if pause_s is None:
            pause_s = self._dice.uniform(*self._script.scenario.pause_s)
        self.doing = Doing.THINKING
        self._left = round(pause_s * 1000 / FRAME_MS)
        self._recording = self._dice.choice(self._script.recordings)
        self._at = len(self._recording.packets) - TAIL
        self._counts = False
        self._begun_at = self._asked_at = self._stt_at = self._audio_at = self._listen_at = 0.0
        self._deadline = self._interrupt_at = float("inf")

    def _begin(self) -> None:
        self._at = 0
        self._counts = True
        self._failed = None
        self.doing = Doing.ASKING
        if not self._device.mic_open:
            self._device.listen()

    def _ask(self, now: float) -> None:
        """Send a packet of the words."""
        recording, at = self._recording, self._at
        self._device.send_audio(recording.packets[at])
        self._at = at + 1
        if at == recording.first:
            self._begun_at = now
        if at >= recording.last:
            self._asked_at = now - recording.after_ms / 1000
            if self._script.scenario.mode is ListenMode.MANUAL:
                self._left = RELEASED
                self.doing = Doing.RELEASING
            else:
                self._wait(self._asked_at)

    def _wait(self, asked_at: float) -> None:
        self._asked_at = asked_at
        self._deadline = asked_at + self._script.scenario.answer_timeout_s
        self.doing = Doing.WAITING

    def _noise(self) -> None:
        """Send a packet of the quiet room, if anybody listens."""
        if not self._device.mic_open:
            return
        packets = self._recording.packets
        if self._at >= len(packets):
            self._at = len(packets) - TAIL
        self._device.send_audio(packets[self._at])
        self._at += 1

    def _hear(self, now: float) -> None:
        self._noise()
        if now >= self._interrupt_at:
            self._interrupt_at = float("inf")
            # It is not timed to its end, and the device speaks on until `tts stop`.
            self._begun_at = 0.0
            self._device.abort()
        if now > self._deadline:
            if self._audio_at:
                self._device.stuck()
            self._give_up(STALLED if self._audio_at else NO_AUDIO)

    def _give_up(self, kind: str) -> None:
        """No answer comes: hang up, as people do who press the button. The connection is opened again."""
        if self._counts:
            self._finish(kind)
        self._think()
        self._device.hang_up()

    def _finish(self, failed: str, now: float = 0.0) -> None:
        """The turn is over: count it, and time what there was of it."""
        self._count(succeeded=not failed)
        self._counts = False
        tally = self._device.tally
        if failed:
            tally.error(failed)
            self._failed = (failed, tally, tally.held)
        if not self._audio_at:
            self._time_transcript()
        if not failed and self._begun_at:
            tally.time(Stage.ANSWER, (now - self._asked_at) * 1000)
            tally.time(Stage.TURN, (now - self._begun_at) * 1000)

    def _time_transcript(self) -> None:
        """Time the text that counts: the last one before the first audio, or before nothing more came."""
        if self._stt_at and self._asked_at:
            self._device.tally.time(Stage.TRANSCRIPT, (self._stt_at - self._asked_at) * 1000)

    def _undo(self) -> None:
        """The last turn, which has failed, does not count after all."""
        if self._failed is None:
            return
        kind, tally, held = self._failed
        self._failed = None
        # What was counted in the ramp or in another step is gone already.
        if tally is self._device.tally and tally.held == held:
            tally.turns -= 1
            tally.unerror(kind)

    def _count(self, *, succeeded: bool) -> None:
        tally = self._device.tally
        tally.turns += 1
        tally.answered += succeeded
