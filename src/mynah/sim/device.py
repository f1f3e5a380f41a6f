"""A fake ESP32: the conversation part of the firmware's state machine, over any `Link`.

It keeps what real devices are strict about: a hello within 10 s that names its transport, audio only while speaking,
a buffer of 40 packets that drops the newest, a flush when speaking begins, play-out before it listens again. What a
real device would suffer in silence is counted in `Counters`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Literal

from mynah.audio.opus import packet_duration_ms
from mynah.errors import AudioError, WireError
from mynah.sim.counters import Counters
from mynah.sim.discovery import DeviceIdentity
from mynah.sim.echo_stamps import EchoStamps
from mynah.sim.handshake import lacks_transport
from mynah.sim.link import CONNECT_TIMEOUT_S, ConnectError, Link, WebSocketLink
from mynah.sim.peripherals import Peripherals
from mynah.sim.reply_bracket import ReplyBracket
from mynah.sim.silence import DEAD_AFTER_S, SilenceWatch
from mynah.sim.speaker import Speaker
from mynah.sim.stall import StallDetector
from mynah.sim.state import DeviceState, Direction, Observer, may_move
from mynah.wire.frames import decode_audio, encode_audio
from mynah.wire.hello import FRAME_DURATIONS
from mynah.wire.messages import (
    Abort,
    Alert,
    DeviceMessage,
    Hello,
    IotCommands,
    Listen,
    ListenMode,
    Mcp,
    ReceivedMessage,
    ServerHello,
    Tts,
    TtsAudio,
    decode_server,
    encode_device,
)

__all__ = ["WAKE_WORD", "AudioFormat", "Counters", "DeviceState", "Direction", "Observer", "SimulatedDevice"]

HELLO_TIMEOUT_S = 10.0
"""How long firmware waits for the server's hello."""

SWITCH_DELAY_S = 0.01
"""From reading ``tts start`` to accepting audio: on a device that passes through another thread.

Left out whenever this process was held up itself: audio that then seems to come at once was only read late.
"""

STUCK_AFTER_S = 15.0
"""Speaking with an empty buffer and no message for so long means that ``tts stop`` was forgotten."""

MAX_WAKE_PACKETS = 33
"""Audio of a wake word that is kept: 2 s."""

AudioFormat = Literal["opus", "pcm"]
"""How sound goes up; it comes down as Opus only."""

WAKE_WORD = "wake_word_detected"
"""The abort reason after which a device listens at once."""


class SimulatedDevice:
    """One device. Use from one event loop; `open`, then `listen`, `wake` or `detect`, finally `close`."""

    audio_format: AudioFormat = "opus"
    """What `send_audio` takes: ``opus`` packets, or ``pcm`` (16 kHz s16le mono)."""

    def __init__(
        self,
        identity: DeviceIdentity | None = None,
        *,
        protocol: int = 1,
        observer: Observer | None = None,
        record: bool = True,
        switch_delay_s: float = SWITCH_DELAY_S,
        stuck_after_s: float = STUCK_AFTER_S,
        dead_after_s: float = DEAD_AFTER_S,
        aec: bool = False,
        iot: bool = False,
        full_tools: bool = False,
        photo: bytes = b"",
        counters: Counters | None = None,
    ) -> None:
        """``protocol`` is the framing version 1 to 3. With ``record`` the speaker keeps what it played.

        With ``switch_delay_s`` 0 the device speaks at once, which also saves fifty timer calls a second. ``aec``
        leaves echo cancelling to the server (framing 2 only), ``iot`` makes it firmware from before MCP, and
        ``full_tools`` gives it the tools of a board with everything, ``photo`` (JPEG) a camera that sees this.
        """
        self.identity = identity or DeviceIdentity()
        self.protocol = protocol
        self.default_mode = ListenMode.REALTIME if aec else ListenMode.AUTO
        self.mode = self.default_mode
        self.state = DeviceState.IDLE
        self.counters = counters or Counters()
        self.peripherals = Peripherals(
            self.identity, self._send_frame, iot=iot, full_tools=full_tools, photo=photo
        )
        self.mcp = self.peripherals.mcp
        self.session_id = ""
        self.sample_rate = 24000
        """Rate in Hz that the server announced; firmware's default until then."""
        self.mic_open = False
        self.connected = False
        self._aec = aec
        self._stamps = EchoStamps()
        self._last_stamp = 0
        self.speaker = Speaker(record=record, stamps=self._stamps if aec and protocol == 2 else None)
        self._observer = observer or Observer()
        self._switch_delay_s, self._stuck_after_s = switch_delay_s, stuck_after_s
        self._silence = SilenceWatch(self.counters, dead_after_s)
        self._stall = StallDetector()
        self._longest_packet_ms = 60
        self._link: Link | None = None
        self._hello: asyncio.Future[ServerHello] | None = None
        self._reply = ReplyBracket(self.counters)
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
        if not self._become(DeviceState.CONNECTING):
            raise ConnectError(f"a device that is {self.state.value} opens no connection")
        hello: asyncio.Future[ServerHello] = self._loop.create_future()
        self._hello = hello
        self._silence.opened(time.monotonic())
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
            self._send(self._introduction())
            async with asyncio.timeout(HELLO_TIMEOUT_S):
                return await hello
        except TimeoutError:
            await self.close()
            raise ConnectError(f"{url} opened, but sent no hello within {HELLO_TIMEOUT_S:g} s") from None
        except ConnectError:
            await self.close()
            raise

    def listen(self, mode: ListenMode) -> None:
        """Open the microphone and say so; in auto mode as soon as everything buffered has been played."""
        self.mode = mode
        if self._become(DeviceState.LISTENING):
            self._enter_listening(again=True)

    def stop_listening(self) -> None:
        """Release the talk button (manual mode): the microphone closes, the connection stays."""
        if self.state is DeviceState.LISTENING:
            self._say_stopped()
            self._become(DeviceState.IDLE)

    def wake(self, word: str, packets: Sequence[bytes], mode: ListenMode | None = None) -> None:
        """The wake word was heard: send its last 2 s at once (Opus, 60 ms each), then its text, and listen.

        While speaking or listening it interrupts instead. ``mode``: None for the device's own.
        """
        self.mode = mode or self.default_mode
        if self.state is DeviceState.SPEAKING:
            self.abort(WAKE_WORD)  # and listen at once
            return
        if self.state is DeviceState.LISTENING:
            self.abort(WAKE_WORD)
        else:
            for packet in packets[-MAX_WAKE_PACKETS:]:
                self._send_packet(packet, 0)
            self.detect(word)
        self.listen(self.mode)

    def detect(self, text: str) -> None:
        """Send a wake word, or typed text."""
        self._reply.asked()
        self._send(Listen("detect", text=text, session_id=self.session_id))

    def abort(self, reason: str = "") -> None:
        """Interrupt the answer. By button (no reason) the device goes on speaking until ``tts stop`` comes."""
        self._reply.asked()
        self._send(Abort(reason=reason, session_id=self.session_id))
        if reason == WAKE_WORD and self.state is DeviceState.SPEAKING:
            self.listen(self.mode)

    def send_audio(self, packet: bytes, timestamp: int = 0) -> bool:
        """Send one frame in `audio_format` if the microphone is open; False when it is not.

        When the server cancels the echo, the frame carries the stamp of what was just played.
        """
        if not self.mic_open or self._link is None:
            return False
        if self._aec:
            self.speaker.advance(time.monotonic())
            timestamp = self._stamps.take()
        self._send_packet(packet, timestamp)
        return True

    def send_raw(self, frame: bytes, *, text: bool) -> None:
        """Send a frame as it is, for tests of what a server survives."""
        if self._link is not None:
            (self._link.send_text if text else self._link.send_binary)(frame)

    def channel_open(self) -> bool:
        """Look whether the connection may be used, as firmware does before it does: too long silent, it is dead."""
        return self.connected and not self._silence.dead(time.monotonic())

    def fall_idle(self) -> None:
        """Close the microphone without a word, as a device does that mixes up two connections."""
        self._become(DeviceState.IDLE)

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
        self._silence.heard(now)
        if self._hello is not None and not self._hello.done():
            self._check_hello(self._hello, frame)
        try:
            message = decode_server(frame)
        except WireError as error:
            self.counters.unreadable_messages += 1
            self._fail_hello(frame, error)
            return
        self._active_at = now
        if not isinstance(message, TtsAudio):
            self._observer.on_message(Direction.DOWN, message, now)
        self._on_message(message)
        self._notify()

    def on_binary(self, frame: bytes) -> None:
        """Take a binary frame (the link calls this)."""
        self._silence.heard(time.monotonic())
        try:
            audio = decode_audio(self.protocol, frame)
        except WireError:
            self.counters.bad_payload += 1
            return
        self._on_packet(audio.packet, audio.timestamp)

    def on_closed(self) -> None:
        """The connection is gone (the link calls this); what is buffered keeps playing."""
        if self.connected:
            self._silence.heard(time.monotonic())
        self.connected = False
        self._reply.lost()
        self._stall.stop()
        self.peripherals.close()
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

    # ------------------------------------------------------------ what another dialect says differently

    def _introduction(self) -> DeviceMessage:
        features = self.peripherals.features
        return Hello(version=self.protocol, features={"aec": True, **features} if self._aec else features)

    def _say_listening(self) -> None:
        self._send(Listen("start", mode=self.mode, session_id=self.session_id))

    def _say_stopped(self) -> None:
        self._send(Listen("stop", session_id=self.session_id))

    def _send_packet(self, packet: bytes, timestamp: int) -> None:
        if self._link is not None:
            self._link.send_binary(encode_audio(self.protocol, packet, timestamp))
            self._observer.on_audio(Direction.UP, packet, time.monotonic())

    def _on_message(self, message: ReceivedMessage) -> None:
        match message:
            case ServerHello():
                self._on_hello(message)
            case Tts(state="start"):
                self._on_tts_start()
            case Tts(state="stop"):
                self._on_tts_stop()
            case Alert():
                self.counters.alert_during_tts += self._reply.open
            case Mcp():
                self.peripherals.on_mcp(message.payload)
            case IotCommands():
                self.peripherals.on_iot(message.commands)
            case _:
                pass

    def _check_hello(self, hello: asyncio.Future[ServerHello], frame: bytes) -> None:
        if lacks_transport(frame):
            self.counters.hello_without_transport += 1
            hello.set_exception(
                ConnectError("the server's hello lacks `transport`: firmware crashes on that")
            )

    # ------------------------------------------------------------ inside

    def _send(self, message: DeviceMessage) -> None:
        self._send_frame(encode_device(message), message)

    def _send_frame(self, frame: bytes, message: DeviceMessage) -> None:
        if self._link is not None:
            self._link.send_text(frame)
            self._observer.on_message(Direction.UP, message, time.monotonic())

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
            self._last_stamp = 0
            self._become(DeviceState.IDLE)
            self.peripherals.opened(self.session_id)
            self._hello.set_result(hello)

    def _on_packet(self, packet: bytes, stamp: int) -> None:
        now = time.monotonic()
        try:
            duration_ms = packet_duration_ms(packet)
        except AudioError:
            self.counters.bad_payload += 1
            return
        if self._switch is not None and self._stall.stalled(now):
            self._start_speaking()
        if self.state is not DeviceState.SPEAKING:
            if self._switch is not None:
                self.counters.lost_before_speaking += 1
            elif not self._reply.open:
                self.counters.stray_audio += 1
            return
        self._active_at = now
        if self._aec and self.protocol == 2:
            self.counters.bad_stamps += stamp <= self._last_stamp
            self._last_stamp = stamp
        if duration_ms > self._longest_packet_ms:
            self.counters.bad_payload += 1
        elif self.speaker.push(packet, duration_ms / 1000, now, stamp):
            self._observer.on_audio(Direction.DOWN, packet, now)
        self.counters.overflow = self.speaker.overflow
        self._notify()

    def _on_tts_start(self) -> None:
        self._reply.start()
        self.counters.dead_channel += self._silence.was_dead
        if self.state is DeviceState.CONNECTING:
            self.counters.refused_start += 1
        if self._relisten is not None:  # the next reply begins before the last has been played out
            self._relisten.cancel()
            self._relisten = None
        if self.state in {DeviceState.IDLE, DeviceState.LISTENING} and self._switch is None:
            if self._switch_delay_s <= 0 or self._stall.stalled(time.monotonic()):
                self._start_speaking()
            else:
                self._switch = self._loop.call_later(self._switch_delay_s, self._start_speaking)

    def _on_tts_stop(self) -> None:
        self._reply.stop()
        if self._switch is not None:  # the device works off its queue in order: start, then stop
            self._start_speaking()
        if self.state is not DeviceState.SPEAKING:
            return
        if self.mode is ListenMode.MANUAL:
            self._become(DeviceState.IDLE)
        else:
            self._become(DeviceState.LISTENING)
            self._enter_listening()

    def _enter_listening(self, *, again: bool = False) -> None:
        """Open the microphone: in auto mode not before everything is played, in the others at once.

        A microphone that is open already stays so without a word, unless the user asks ``again``.
        """
        if self.mic_open and not again:
            return
        if self._relisten is not None:
            self._relisten.cancel()
            self._relisten = None
        now = time.monotonic()
        wait_s = self.speaker.silent_at(now) - now
        stopped = not again  # a `tts start` that was read together with the stop still gets its say
        if self.mode is ListenMode.AUTO and (stopped or wait_s > 0):
            self._relisten = self._loop.call_later(max(0.0, wait_s), self._start_listening)
        else:
            self._start_listening()

    def _start_listening(self) -> None:
        self._relisten = None
        self._stamps.clear()
        self.peripherals.report_changes()
        self.mic_open = True
        self._say_listening()
        self._notify()

    def _start_speaking(self) -> None:
        if self._switch is not None:
            self._switch.cancel()
            self._switch = None
        if self._relisten is not None:
            self._relisten.cancel()
            self._relisten = None
        self._active_at = time.monotonic()
        flushed = self.speaker.begin(self._active_at)
        if not self._reply.interrupted:
            self.counters.cut_off += flushed
        self._reply.interrupted = False
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

    def _become(self, state: DeviceState) -> bool:
        """Change the state; False when firmware refuses the move."""
        if not may_move(self.state, state):
            return False
        if state in {DeviceState.IDLE, DeviceState.CONNECTING} or (
            state is DeviceState.SPEAKING and self.mode is not ListenMode.REALTIME
        ):
            self.mic_open = False
        if state is not self.state:
            self.state = state
            self._observer.on_state(state, time.monotonic())
        self._notify()
        return True

    def _notify(self) -> None:
        if self._change is not None and not self._change.done():
            self._change.set_result(None)
