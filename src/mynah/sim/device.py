"""A fake ESP32: the conversation part of the firmware's state machine, over any `Link`.

It keeps what real devices are strict about: a hello within 10 s that names its transport, audio only while speaking,
a buffer of 40 packets that drops the newest, a flush when speaking begins, play-out before it listens again. What a
real device would suffer in silence is counted in `Counters`.
"""

from __future__ import annotations

import asyncio
import enum
import time
from collections.abc import Callable

import msgspec

from mynah.audio.opus import packet_duration_ms
from mynah.errors import AudioError, WireError
from mynah.sim.discovery import DeviceIdentity
from mynah.sim.link import CONNECT_TIMEOUT_S, ConnectError, Link, WebSocketLink
from mynah.sim.mcp_server import DeviceMcpServer
from mynah.sim.speaker import Speaker
from mynah.sim.stall import StallDetector
from mynah.wire.frames import decode_audio, encode_audio
from mynah.wire.hello import FRAME_DURATIONS
from mynah.wire.messages import (
    Abort,
    DeviceMessage,
    Hello,
    Listen,
    ListenMode,
    Mcp,
    ReceivedMessage,
    ServerHello,
    Tts,
    decode_server,
    encode_device,
)

HELLO_TIMEOUT_S = 10.0
"""How long firmware waits for the server's hello."""

SWITCH_DELAY_S = 0.01
"""From reading ``tts start`` to accepting audio: on a device that passes through another thread.

Left out whenever this process was held up itself: audio that then seems to come at once was only read late.
"""

STUCK_AFTER_S = 15.0
"""Speaking with an empty buffer and no message for so long means that ``tts stop`` was forgotten."""

WAKE_WORD = "wake_word_detected"
"""The abort reason after which a device listens at once."""


class DeviceState(enum.StrEnum):
    """The firmware's states that matter in a conversation."""

    IDLE = "idle"
    CONNECTING = "connecting"
    LISTENING = "listening"
    SPEAKING = "speaking"


class Direction(enum.StrEnum):
    """Who sent it: up is device to server."""

    UP = "up"
    DOWN = "down"


class Counters(msgspec.Struct):
    """What went wrong, as a device would feel it. All zero with a sound server."""

    overflow: int = 0
    """Packets dropped because more than 40 were waiting: the server does not pace."""
    lost_before_speaking: int = 0
    """Packets that came so soon after ``tts start`` that the device was not speaking yet."""
    stray_audio: int = 0
    """Packets outside ``tts start`` … ``stop``."""
    bad_payload: int = 0
    """Binary frames that make firmware read out of bounds, or that it cannot decode."""
    hello_without_transport: int = 0
    """A hello that makes firmware crash."""
    cut_off: int = 0
    """Packets of a finished reply that the next reply's flush threw away before they were heard."""
    stuck_speaking: int = 0
    """Times the device was left speaking without ``tts stop``."""
    second_hello: int = 0
    """More than one hello on a connection spoils the next one."""
    unreadable_messages: int = 0
    """Text frames that are no message, or of a type this device does not know."""


class Observer:
    """Looks on; override what is of interest.

    Times are `time.monotonic` in s: uvloop's own clock counts only whole ms.
    """

    def on_message(self, direction: Direction, message: DeviceMessage | ReceivedMessage, at_s: float) -> None:
        """A JSON message was sent or received."""

    def on_audio(self, direction: Direction, packet: bytes, at_s: float) -> None:
        """An audio packet was sent, or received and accepted for playing."""

    def on_state(self, state: DeviceState, at_s: float) -> None:
        """The device changed its state."""


class _HelloKeys(msgspec.Struct):
    type: str = ""
    transport: str | None = None


class SimulatedDevice:
    """One device. Use from one event loop; `open`, then `listen` or `detect`, finally `close`."""

    def __init__(
        self,
        identity: DeviceIdentity | None = None,
        *,
        protocol: int = 1,
        observer: Observer | None = None,
        record: bool = True,
        switch_delay_s: float = SWITCH_DELAY_S,
        stuck_after_s: float = STUCK_AFTER_S,
    ) -> None:
        """``protocol`` is the framing version 1 to 3. With ``record`` the speaker keeps what it played.

        With ``switch_delay_s`` 0 the device speaks at once, which also saves fifty timer calls a second.
        """
        self.identity = identity or DeviceIdentity()
        self.protocol = protocol
        self.mode = ListenMode.AUTO
        self.state = DeviceState.IDLE
        self.counters = Counters()
        self.speaker = Speaker(record=record)
        self.mcp = DeviceMcpServer(self.identity.board, self.identity.version)
        self.session_id = ""
        self.sample_rate = 24000
        """Rate in Hz that the server announced; firmware's default until then."""
        self.mic_open = False
        self.connected = False
        self._observer = observer or Observer()
        self._switch_delay_s, self._stuck_after_s = switch_delay_s, stuck_after_s
        self._stall = StallDetector()
        self._longest_packet_ms = 60
        self._link: Link | None = None
        self._hello: asyncio.Future[ServerHello] | None = None
        self._in_reply = False
        self._aborted = False
        self._switch: asyncio.TimerHandle | None = None
        self._relisten: asyncio.TimerHandle | None = None
        self._watchdog: asyncio.TimerHandle | None = None
        self._change: asyncio.Future[None] | None = None
        self._active_at = 0.0
        self._loop = asyncio.get_running_loop()

    # ------------------------------------------------------------ what a user does

    async def open(
        self,
        url: str,
        token: str = "",
        *,
        timeout_s: float = CONNECT_TIMEOUT_S,
        verify_tls: bool = True,
        on_connected: Callable[[], None] | None = None,
    ) -> ServerHello:
        """Connect and exchange hellos. Raises ConnectError; the device is then idle and not connected."""
        self._become(DeviceState.CONNECTING)
        self._hello = self._loop.create_future()
        try:
            self._link = await WebSocketLink.connect(
                url,
                self.identity.websocket_headers(token, self.protocol),
                self,
                timeout_s=timeout_s,
                verify_tls=verify_tls,
            )
            self.connected = True
            if self._switch_delay_s > 0:
                self._stall.start()
            if on_connected is not None:
                on_connected()
            self._send(Hello(version=self.protocol, features={"mcp": True, "glyph_push": False}))
            async with asyncio.timeout(HELLO_TIMEOUT_S):
                hello = await self._hello
        except TimeoutError:
            await self.close()
            raise ConnectError(f"{url} opened, but sent no hello within {HELLO_TIMEOUT_S:g} s") from None
        except ConnectError:
            await self.close()
            raise
        return hello

    def listen(self, mode: ListenMode) -> None:
        """Open the microphone and say so."""
        self.mode = mode
        self._start_listening()

    def stop_listening(self) -> None:
        """Release the talk button (manual mode): the microphone closes, the connection stays."""
        if self.state is DeviceState.LISTENING:
            self._send(Listen("stop", session_id=self.session_id))
            self._become(DeviceState.IDLE)

    def detect(self, text: str) -> None:
        """Send a wake word, or typed text."""
        self._send(Listen("detect", text=text, session_id=self.session_id))

    def abort(self, reason: str = "") -> None:
        """Interrupt the answer. By button (no reason) the device goes on speaking until ``tts stop`` comes."""
        self._aborted = True
        self._send(Abort(reason=reason, session_id=self.session_id))
        if reason == WAKE_WORD and self.state is DeviceState.SPEAKING:
            self._start_listening()

    def send_audio(self, packet: bytes, timestamp: int = 0) -> bool:
        """Send one Opus packet if the microphone is open; False when it is not."""
        if not self.mic_open or self._link is None:
            return False
        self._link.send_binary(encode_audio(self.protocol, packet, timestamp))
        self._observer.on_audio(Direction.UP, packet, time.monotonic())
        return True

    def send_raw(self, frame: bytes, *, text: bool) -> None:
        """Send a frame as it is, for tests of what a server survives."""
        if self._link is not None:
            (self._link.send_text if text else self._link.send_binary)(frame)

    async def changed(self) -> None:
        """Wait until a message or audio arrives, the state changes or the connection is lost."""
        if self._change is None or self._change.done():
            self._change = self._loop.create_future()
        await asyncio.shield(self._change)

    async def close(self) -> None:
        """Drop the connection, as a device does at the end of every conversation."""
        link, self._link = self._link, None
        if link is not None:
            await link.close()
        self.speaker.advance(time.monotonic())
        self.on_closed()

    # ------------------------------------------------------------ what the link reports

    def on_text(self, frame: bytes) -> None:
        """Take a text frame (the link calls this)."""
        now = time.monotonic()
        if self._hello is not None and not self._hello.done():
            self._check_hello(frame)
        try:
            message = decode_server(frame)
        except WireError as error:
            self.counters.unreadable_messages += 1
            self._fail_hello(frame, error)
            return
        self._active_at = now
        self._observer.on_message(Direction.DOWN, message, now)
        match message:
            case ServerHello():
                self._on_hello(message)
            case Tts(state="start"):
                self._on_tts_start()
            case Tts(state="stop"):
                self._on_tts_stop()
            case Mcp():
                answer = self.mcp.handle(message.payload)
                if answer is not None:
                    self._send(Mcp(answer, self.session_id))
            case _:
                pass
        self._notify()

    def on_binary(self, frame: bytes) -> None:
        """Take a binary frame (the link calls this)."""
        now = time.monotonic()
        try:
            packet = decode_audio(self.protocol, frame).packet
            duration_ms = packet_duration_ms(packet)
        except (WireError, AudioError):
            self.counters.bad_payload += 1
            return
        if self._switch is not None and self._stall.stalled(now):
            self._start_speaking()
        if self.state is not DeviceState.SPEAKING:
            if self._switch is not None:
                self.counters.lost_before_speaking += 1
            elif not self._in_reply:
                self.counters.stray_audio += 1
            return
        self._active_at = now
        if duration_ms > self._longest_packet_ms:
            self.counters.bad_payload += 1
        elif self.speaker.push(packet, duration_ms / 1000, now):
            self._observer.on_audio(Direction.DOWN, packet, now)
        self.counters.overflow = self.speaker.overflow
        self._notify()

    def on_closed(self) -> None:
        """The connection is gone (the link calls this); what is buffered keeps playing."""
        self.connected = False
        self._in_reply = False
        self._stall.stop()
        for timer in (self._switch, self._relisten, self._watchdog):
            if timer is not None:
                timer.cancel()
        self._switch = self._relisten = self._watchdog = None
        if self._hello is not None and not self._hello.done():
            self._hello.set_exception(
                ConnectError("the server closed the connection instead of saying hello")
            )
            self._hello.exception()  # retrieved: nobody may be waiting any more
        self._become(DeviceState.IDLE)

    # ------------------------------------------------------------ inside

    def _send(self, message: DeviceMessage) -> None:
        if self._link is not None:
            self._link.send_text(encode_device(message))
            self._observer.on_message(Direction.UP, message, time.monotonic())

    def _check_hello(self, frame: bytes) -> None:
        """Fail the handshake where firmware would crash: on a hello that does not name its transport."""
        try:
            keys = msgspec.json.decode(frame, type=_HelloKeys)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return
        if keys.type == "hello" and keys.transport is None and self._hello is not None:
            self.counters.hello_without_transport += 1
            self._hello.set_exception(
                ConnectError("the server's hello lacks `transport`: firmware crashes on that")
            )

    def _fail_hello(self, frame: bytes, error: WireError) -> None:
        if b'"hello"' in frame and self._hello is not None and not self._hello.done():
            self._hello.set_exception(ConnectError(f"the server's hello is {error}"))

    def _on_hello(self, hello: ServerHello) -> None:
        if self._hello is None or self._hello.done():
            self.counters.second_hello += self.counters.hello_without_transport == 0
        else:
            # At once: what the server sent right behind its hello is read before `open` goes on.
            self.session_id = hello.session_id
            self.sample_rate = hello.audio_params.sample_rate
            duration = hello.audio_params.frame_duration
            # With a length it does not know, firmware cannot open its decoder: every packet is lost.
            self._longest_packet_ms = duration if duration in FRAME_DURATIONS else 0
            self._become(DeviceState.IDLE)
            self._hello.set_result(hello)

    def _on_tts_start(self) -> None:
        self._in_reply = True
        if self.state in {DeviceState.IDLE, DeviceState.LISTENING} and self._switch is None:
            if self._switch_delay_s <= 0 or self._stall.stalled(time.monotonic()):
                self._start_speaking()
            else:
                self._switch = self._loop.call_later(self._switch_delay_s, self._start_speaking)

    def _on_tts_stop(self) -> None:
        self._in_reply = False
        if self._switch is not None:  # the device works off its queue in order: start, then stop
            self._start_speaking()
        if self.state is not DeviceState.SPEAKING:
            return
        if self.mode is ListenMode.MANUAL:
            self._become(DeviceState.IDLE)
        elif self.mode is ListenMode.REALTIME:
            self._become(DeviceState.LISTENING)
        else:
            self._become(DeviceState.LISTENING)
            now = time.monotonic()
            self._relisten = self._loop.call_later(
                max(0.0, self.speaker.silent_at(now) - now), self._start_listening
            )

    def _start_listening(self) -> None:
        self._relisten = None
        self.mic_open = True
        self._send(Listen("start", mode=self.mode, session_id=self.session_id))
        self._become(DeviceState.LISTENING)

    def _start_speaking(self) -> None:
        if self._switch is not None:
            self._switch.cancel()
            self._switch = None
        if self._relisten is not None:  # the next reply began before the last had been played out
            self._relisten.cancel()
            self._relisten = None
        self._active_at = time.monotonic()
        flushed = self.speaker.begin(self._active_at)
        if not self._aborted:
            self.counters.cut_off += flushed
        self._aborted = False
        self._become(DeviceState.SPEAKING)
        if self._watchdog is None:
            self._watch()

    def _watch(self) -> None:
        """Look whether ``tts stop`` was forgotten; runs while the device speaks."""
        self._watchdog = None
        if self.state is not DeviceState.SPEAKING:
            return
        now = time.monotonic()
        quiet_since = max(self._active_at, self.speaker.silent_at(now))
        if now - quiet_since >= self._stuck_after_s:
            self.counters.stuck_speaking += 1
            self._active_at = quiet_since = now
            self._notify()
        self._watchdog = self._loop.call_later(quiet_since + self._stuck_after_s - now, self._watch)

    def _become(self, state: DeviceState) -> None:
        if (
            state is DeviceState.IDLE
            or state is DeviceState.CONNECTING
            or (state is DeviceState.SPEAKING and self.mode is not ListenMode.REALTIME)
        ):
            self.mic_open = False
        if state is not self.state:
            self.state = state
            self._observer.on_state(state, time.monotonic())
        self._notify()

    def _notify(self) -> None:
        if self._change is not None and not self._change.done():
            self._change.set_result(None)
