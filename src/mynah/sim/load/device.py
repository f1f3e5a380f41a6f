"""A device so light that thousands fit into a process: a listener on picows' callbacks, without task, timer or codec.

It keeps the rules of `mynah.sim.device` that a server can feel: hello, states, framing, the buffer of 40 packets. What
it does not do (tools, wake words, other transports) costs it nothing.
"""

from __future__ import annotations

import struct
import time
from enum import Enum, auto
from typing import Final, Protocol

import msgspec
import picows

from mynah.audio.opus import packet_duration_ms
from mynah.errors import AudioError
from mynah.sim.load.member import Member
from mynah.sim.load.playout import Playout
from mynah.sim.load.record import Stage
from mynah.sim.load.talker import Talker
from mynah.sim.load.tally import Tally
from mynah.wire.messages import Abort, Hello, Listen, ListenMode, encode_device

LATE_MS: Final = 5.0
"""A packet that misses its place by more is late."""

MAX_FRAGMENTED_BYTES: Final = 65_536
"""A message put together from fragments; firmware never sees one. Overflow policy: the message is dropped."""

TRY_LATER: Final = 1013
"""Code of a Close frame: the server is busy."""

NO_TRANSPORT: Final = "hello without transport"
NO_HELLO: Final = "no hello"

_BINARY: Final = picows.WSMsgType.BINARY
_TEXT: Final = picows.WSMsgType.TEXT
_CLOSE: Final = picows.WSMsgType.CLOSE
_CONTINUATION: Final = picows.WSMsgType.CONTINUATION

_V2: Final = struct.Struct(">HHIII")
_V3: Final = struct.Struct(">BBH")
_HEADERS: Final = {1: 0, 2: _V2.size, 3: _V3.size}


class State(Enum):
    """Where a device stands. The last three are those of firmware."""

    AWAY = auto()
    CONNECTING = auto()
    """Until the end of the WebSocket handshake."""
    GREETING = auto()
    """Waiting for the server's hello."""
    IDLE = auto()
    LISTENING = auto()
    SPEAKING = auto()


class Home(Protocol):
    """Where devices live: it is told what becomes of their connections, and counts."""

    tally: Tally
    mode: ListenMode
    protocol: int

    def greeting(self, device: Member) -> None:
        """The device has connected and says hello."""

    def greeted(self, device: Member) -> None:
        """The server has answered the hello."""

    def ended(self, device: Member, why: str, code: int | None) -> None:
        """The connection is gone: why, for the table of errors, and the code of a Close frame.

        An empty ``why`` says that the device has hung up itself.
        """


class _Message(msgspec.Struct):
    """What a device needs of a server's message."""

    type: str = ""
    state: str | None = None
    session_id: str | None = None
    transport: str | None = None


_decode: Final = msgspec.json.Decoder(_Message).decode


class Device(picows.WSListener):
    """One device. It may connect again after its connection is gone, and is the same device then."""

    __slots__ = (
        "_code", "_fragments", "_home", "_playout", "_replying", "_session_id", "_transport", "failures", "mic_open",
        "number", "since", "state", "talker", "tried",
    )  # fmt: skip

    def __init__(self, home: Home, number: int) -> None:
        self._home = home
        self.number = number
        self.state = State.AWAY
        self.since = 0.0
        """When the current step of connecting began, and later when anything but idleness was last seen."""
        self.talker: Talker | None = None
        self.mic_open = False
        self.failures = 0
        """Failed connections in a row."""
        self.tried = False
        """Whether the outcome of its first connection is known."""
        self._transport: picows.WSTransport | None = None
        self._session_id = ""
        self._playout: Playout | None = None
        self._replying = False
        self._code: int | None = None
        self._fragments: tuple[picows.WSMsgType, bytearray] | None = None

    @property
    def tally(self) -> Tally:
        """Where everything is counted."""
        return self._home.tally

    # ------------------------------------------------------------ what a talker does with it

    def listen(self) -> None:
        """Open the microphone and say so."""
        if self.state in {State.IDLE, State.LISTENING}:
            self.state, self.mic_open = State.LISTENING, True
            self._say(Listen("start", mode=self._home.mode, session_id=self._session_id))

    def stop_listening(self) -> None:
        """Release the talk button."""
        if self.state is State.LISTENING:
            self.state, self.mic_open = State.IDLE, False
            self._say(Listen("stop", session_id=self._session_id))

    def abort(self) -> None:
        """Interrupt the answer by button: the device speaks on until ``tts stop``."""
        self._say(Abort(session_id=self._session_id))

    def send_audio(self, framed: bytes) -> None:
        """Send a framed packet, if the microphone is open.

        What a server does not read piles up in our memory for `answer_timeout_s`: then the talker gives up.
        """
        if self.mic_open and self._transport is not None:
            self._transport.send(_BINARY, framed)
            self._home.tally.sent += 1

    def stuck(self) -> None:
        """The device was left speaking."""
        self._home.tally.fault("stuck_speaking")

    def judge(self) -> None:
        """Count how the packets kept their rhythm that have come since the last time."""
        if self._playout is None:
            return
        tally = self._home.tally
        for missed_s in self._playout.rhythm():
            missed_ms = missed_s * 1000
            tally.late += missed_ms > LATE_MS
            tally.jitter.add(abs(missed_ms))

    def hang_up(self, why: str = "") -> None:
        """Drop the connection without a Close frame, as firmware does. With ``why`` that is the server's fault."""
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.disconnect(graceful=False)
            self._over(why)

    # ------------------------------------------------------------ picows' callbacks

    def on_ws_connected(self, transport: picows.WSTransport) -> None:
        """The handshake is done: say hello."""
        now = time.monotonic()
        self._home.tally.time(Stage.CONNECT, (now - self.since) * 1000)
        self._transport = transport
        self._code = None
        self.since, self.state = now, State.GREETING
        self._home.greeting(self)
        self._say(Hello(version=self._home.protocol))

    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        """A frame has arrived."""
        if transport is not self._transport:
            return
        kind = frame.msg_type
        if kind is _BINARY and frame.fin:
            self._on_packet(frame.get_payload_as_bytes())
        elif kind is _TEXT and frame.fin:
            self._on_text(frame.get_payload_as_bytes())
        elif kind is _CLOSE:
            payload = frame.get_payload_as_bytes()
            self._code = int.from_bytes(payload[:2], "big") if len(payload) >= 2 else None
            transport.disconnect()
        elif kind in {_BINARY, _TEXT, _CONTINUATION}:
            self._reassemble(kind, frame)

    def on_ws_disconnected(self, transport: picows.WSTransport) -> None:
        """The connection is gone."""
        if transport is self._transport:
            self._transport = None
            closed = f"closed with {self._code}" if self._code is not None else "connection lost"
            self._over(NO_HELLO if self.state is State.GREETING and self._code is None else closed)

    # ------------------------------------------------------------ what the server says

    def _on_text(self, payload: bytes) -> None:
        now = time.monotonic()
        try:
            message = _decode(payload)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            self._home.tally.fault("unreadable_messages")
            return
        if message.type == "hello":
            self._on_hello(message, now)
        elif message.type == "stt":
            if self.talker is not None:
                self.talker.on_stt(now)
        elif message.type == "tts":
            if message.state == "start":
                self._on_start(now)
            elif message.state == "stop":
                self._on_stop(now)

    def _on_hello(self, message: _Message, now: float) -> None:
        tally = self._home.tally
        if self.state is not State.GREETING:
            tally.fault("second_hello")
            return
        if message.transport is None:
            tally.fault("hello_without_transport")
            self.hang_up(NO_TRANSPORT)
            return
        tally.time(Stage.HELLO, (now - self.since) * 1000)
        self._session_id = message.session_id or ""
        self.since, self.state, self.failures = now, State.IDLE, 0
        self._home.greeted(self)
        if self.talker is not None:
            self.talker.start()

    def _on_start(self, now: float) -> None:
        if self.state is State.GREETING:
            self._home.tally.fault("refused_start")
            return
        if self._replying:
            self._home.tally.fault("second_start")
            return
        self._replying = True
        if self._playout is None:
            self._playout = Playout()
        self._playout.begin(now)
        self.state = State.SPEAKING
        self.mic_open = self.mic_open and self._home.mode is ListenMode.REALTIME
        if self.talker is not None:
            self.talker.on_start(now)

    def _on_stop(self, now: float) -> None:
        if not self._replying or self._playout is None:
            self._home.tally.fault("stop_without_start")
            return
        self._settle()
        self.since = now
        self.state = State.LISTENING if self.mic_open else State.IDLE
        if self.talker is not None:
            self.talker.on_stop(now, self._playout.ends_at)
        else:
            self._playout = None  # most devices never speak again

    def _on_packet(self, frame: bytes) -> None:
        now = time.monotonic()
        tally = self._home.tally
        tally.received += 1
        if not self._replying or self._playout is None:
            tally.fault("stray_audio")
            return
        duration_s = _duration_s(frame, self._home.protocol)
        if not duration_s:
            tally.fault("bad_payload")
            return
        gap_s = self._playout.push(duration_s, now)
        if gap_s is None:
            tally.overflow += 1
        elif gap_s:
            tally.dry += 1
            tally.worst_gap_ms = max(tally.worst_gap_ms, gap_s * 1000)
        if self.talker is not None:
            self.talker.on_audio(now)

    # ------------------------------------------------------------ inside

    def _say(self, message: Hello | Listen | Abort) -> None:
        if self._transport is not None:
            self._transport.send(_TEXT, encode_device(message))

    def _settle(self) -> None:
        """The reply is over: judge the rhythm of its packets."""
        self._replying = False
        self.judge()

    def _over(self, why: str) -> None:
        """The connection is gone, in whatever way."""
        self._settle()
        self._playout = None
        self.mic_open = False
        self._fragments = None
        code, self._code = self._code, None
        if self.talker is not None:
            self.talker.on_lost(busy=code == TRY_LATER)
        # It looks at the state, to tell a connection that was lost from one that never came about.
        self._home.ended(self, why, code)

    def _reassemble(self, kind: picows.WSMsgType, frame: picows.WSFrame) -> None:
        if kind is not _CONTINUATION:
            self._fragments = (kind, bytearray())
        if self._fragments is None:
            return
        kind, collected = self._fragments
        collected += frame.get_payload_as_memoryview()
        if len(collected) > MAX_FRAGMENTED_BYTES:
            self._fragments = None
        elif frame.fin:
            self._fragments = None
            (self._on_packet if kind is _BINARY else self._on_text)(bytes(collected))


_durations: dict[bytes, float] = {}
"""By the first two bytes of a packet, so 64 k entries at most; in s, 0 for a packet that no decoder takes."""


def _duration_s(frame: bytes, protocol: int) -> float:
    """Return how much audio a frame holds; 0 when firmware would stumble over it."""
    header = _HEADERS[protocol]
    if header:
        size = len(frame) - header
        if size <= 0 or (_V2.unpack_from(frame)[4] if protocol == 2 else _V3.unpack_from(frame)[2]) != size:
            return 0.0
        frame = frame[header : header + 2]
    key = frame[:2]
    known = _durations.get(key)
    if known is None:
        try:
            known = packet_duration_ms(key) / 1000
        except AudioError:
            known = 0.0
        _durations[key] = known
    return known
