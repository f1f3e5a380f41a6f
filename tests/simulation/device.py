"""A device as firmware behaves, and the person in front of it. Knows the server by what it sends only."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from mynah.wire.messages import Abort, Goodbye, Hello, Listen, ListenMode, TtsStart, TtsStop
from tests.simulation.scenario import Mode, Speak
from tests.simulation.services import HUSH, NOISE, Words, word_packet

FRAME_S = 0.06
WORD_PACKETS = 4
HUSH_AFTER = 34
"""Packets of silence after speech: two seconds, longer than any silence that is waited for. Then the microphone is as
good as silent, and nothing is sent, to save time."""
WAKE_WORD = "hey mynah"


class Connection(Protocol):
    """One connection to the server, seen from the device."""

    closed: bool

    def up(self, message: Any) -> None: ...

    def up_audio(self, packet: bytes, stamp: int) -> None: ...


class Device:
    """States as in firmware: off (no connection), idle, listening, speaking."""

    def __init__(self, mode: Mode, rtt_s: float, words: Words, connect: Callable[[], Connection]) -> None:
        self.own_mode: Mode = mode
        self.mode: Mode = mode
        self._rtt_s, self._words, self._connect = rtt_s, words, connect
        self._loop = asyncio.get_running_loop()
        self.connection: Connection | None = None
        self.state = "off"
        self._mic_on = False
        """It stays on during a reply in realtime mode only."""
        self._draining: asyncio.TimerHandle | None = None
        self._dry_at = 0.0
        self._stamp = 0
        self._inbox: deque[tuple[Connection, bool]] = deque()
        self._voice: deque[tuple[bytes, ...]] = deque()
        self._hush = 0
        self._ticker: asyncio.TimerHandle | None = None
        self._tick_at = 0.0
        self.whole: set[int] = set()
        """Words whose packets all arrive, once and in order."""

    # -- the person

    def speak(self, step: Speak) -> None:
        packets: list[bytes] = []
        numbers: list[int] = []
        for item in step.words.split():
            if item[0] == "_":
                packets += [HUSH] * round(int(item[1:]) / 60)
            elif item[0] == "*":
                packets += [NOISE] * round(int(item[1:]) / 60)
            else:
                number = self._words.add(item)
                packets += [word_packet(number)] * WORD_PACKETS
                numbers.append(number)
        sent, touched = _damaged(packets, step)
        self.whole.update(number for number in numbers if word_packet(number) not in touched)
        self._voice.extend(sent)
        self._hush = HUSH_AFTER
        if self._ticker is None:
            self._tick_at = self._loop.time()
            self._tick()

    @property
    def quiet(self) -> bool:
        return not self._voice

    @property
    def mic_open(self) -> bool:
        if self.connection is None:
            return False
        if self.state == "listening":
            return self._draining is None
        return self.state == "speaking" and self._mic_on

    def _tick(self) -> None:
        self._ticker = None
        packets = self._voice.popleft() if self._voice else (HUSH,)
        if not self._voice:
            self._hush -= 1
        if self.mic_open and self.connection is not None:
            for packet in packets:
                self.connection.up_audio(packet, self._stamp)
        if self._voice or self._hush > 0:
            self._tick_at += FRAME_S
            self._ticker = self._loop.call_at(self._tick_at, self._tick)

    # -- buttons

    def begin(self) -> None:
        """Click, or press the button of push-to-talk."""
        if self.connection is None:
            self.connect()
        if self.own_mode == "manual":
            if self.state == "speaking":
                self._up(Abort())
            if self.state != "listening":
                self._listen()
        elif self.state == "speaking":
            self._up(Abort())
        elif self.state == "idle":
            self._listen()

    def release(self) -> None:
        if self.state == "listening":
            self._stop_draining()
            self.state = "idle"
            self._mic_on = False
            self._up(Listen("stop"))

    def restart(self, mode: Mode) -> None:
        if self.state == "speaking" and mode == "manual":
            self._up(Abort())
            self._listen(mode)
        elif self.state == "speaking":
            self.mode = mode
            self._up(Listen("start", ListenMode(mode)))
        elif self.state != "off":
            self._listen(mode)

    def wake(self) -> None:
        if self.connection is None:
            self.connect()
        if self.state in ("speaking", "listening"):
            self._up(Abort("wake_word_detected"))
            if self.own_mode != "manual":
                self._listen()
        else:
            self._up(Listen("detect", text=WAKE_WORD))
            if self.own_mode != "manual":
                self._listen()

    def type(self, words: str) -> None:
        if self.connection is None:
            self.connect()
        self._up(Listen("detect", text=words))

    def interrupt(self) -> None:
        self._up(Abort())

    def leave(self) -> None:
        self._up(Goodbye())

    def connect(self) -> None:
        self._stop_draining()
        self.connection = self._connect()
        self.state = "idle"
        self._mic_on = False
        self._stamp = 0
        self._up(Hello())

    def lose(self) -> None:
        """The connection is gone."""
        self.connection = None
        self.state = "off"
        self._mic_on = False
        self._stop_draining()

    def end(self) -> None:
        self._voice.clear()
        self._stop_draining()
        if self._ticker is not None:
            self._ticker.cancel()
            self._ticker = None

    # -- from the server

    def on_message(self, connection: Connection, message: Any) -> None:
        if isinstance(message, TtsStart | TtsStop):
            # Timers for the same moment may go off in any order; a connection keeps the order.
            self._inbox.append((connection, isinstance(message, TtsStart)))
            self._loop.call_later(self._rtt_s, self._take)

    def on_frame(self, stamp: int) -> None:
        self._dry_at = max(self._dry_at, self._loop.time()) + FRAME_S
        self._stamp = stamp

    def on_closed(self, connection: Connection) -> None:
        self._loop.call_later(self._rtt_s, self._closed, connection)

    def _closed(self, connection: Connection) -> None:
        if connection is self.connection:
            self.lose()

    def _take(self) -> None:
        self._on_tts(*self._inbox.popleft())

    def _on_tts(self, connection: Connection, start: bool) -> None:
        if connection is not self.connection:
            return
        if start:
            if self.state in ("idle", "listening"):
                self._stop_draining()
                self.state = "speaking"
                self._mic_on = self._mic_on and self.mode == "realtime"
            return
        if self.state != "speaking":
            return
        if self.mode == "manual":
            self.state = "idle"
        elif self.mode == "realtime":
            if self._mic_on:
                self.state = "listening"
            else:
                self._listen()
        else:
            self.state = "listening"
            self._draining = self._loop.call_at(max(self._dry_at, self._loop.time()), self._listen, self.mode)

    def _listen(self, mode: Mode | None = None) -> None:
        self._stop_draining()
        self.mode = mode or self.own_mode
        self.state = "listening"
        self._mic_on = True
        self._up(Listen("start", ListenMode(self.mode)))

    def _stop_draining(self) -> None:
        if self._draining is not None:
            self._draining.cancel()
            self._draining = None

    def _up(self, message: Any) -> None:
        if self.connection is not None:
            self.connection.up(message)


def _damaged(packets: list[bytes], step: Speak) -> tuple[list[tuple[bytes, ...]], set[bytes]]:
    """Return what is sent in each 60 ms, and the packets of which something does not arrive as it should."""
    sent: list[tuple[bytes, ...]] = [(packet,) for packet in packets]
    end = len(packets)
    touched = {packets[at] for at in (*step.lost, *step.twice, *step.late) if at < end}
    for at in step.twice:
        if at < end:
            sent[at] = (packets[at],) * 2
    for at in step.lost:
        if at < end:
            sent[at] = ()
    for at in step.late:
        if at + 1 < end:
            sent[at], sent[at + 1] = (), (*sent[at + 1], packets[at])
            touched.add(packets[at + 1])
    return sent, touched
