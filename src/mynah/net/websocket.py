"""The WebSocket transport: adapts picows' callbacks to `Session` and `Link`. No other file knows picows' server side.

A connection costs a `DeviceSocket`, picows' own buffers and a `Session`; no task.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from http import HTTPStatus

import msgspec
from loguru import logger
from picows import (
    WSAutoPingStrategy,
    WSCloseCode,
    WSFrame,
    WSListener,
    WSMsgType,
    WSTransport,
    WSUpgradeRequest,
    WSUpgradeResponse,
    WSUpgradeResponseWithListener,
)
from picows.picows import WSProtocol  # type: ignore[attr-defined] # what ws_create_server uses; not in its stub

from mynah.dialogue.services import Services
from mynah.dialogue.session import Session
from mynah.dialogue.turn import Phase
from mynah.errors import WireError
from mynah.net.address import BACKLOG, WEBSOCKET_PATH, listening_socket
from mynah.net.departures import Departures
from mynah.net.gate import Gate
from mynah.net.lines import Lines
from mynah.net.peer import Peer, read_peer
from mynah.wire import frames, hello, messages
from mynah.wire.json_dialect import JsonDialect, decode_data

PLAIN_ANSWER = b"Server is running\n"
HANDSHAKE_TIMEOUT_S = 10.0
"""Firmware itself gives up after ten seconds."""
READ_BUFFER = 2048
"""Devices send frames of 20–300 bytes; picows' 16 KB default would be most of what an idle connection costs."""
POLICY_VIOLATION = 1008
"""Close code for who breaks the rules: a flood, a name that is not its own."""
MAX_QUEUED_BYTES = 512 * 1024
"""Unsent bytes after which a device is taken for dead: at 4 KB/s of speech that is two minutes of not reading.
Overflow policy: disconnect."""
CLOSE_GRACE_S = 1.0
"""The firmware never answers a close frame, so the TCP connection is cut this long after it."""
FLOOD_UNITS = 2000
FLOOD_WINDOW_S = 10.0
"""A frame counts one unit and one more for every 4 KB; so many units in less time are a flood, not a device: 200 a
second, while the liveliest (20 ms packets and messages beside them) sends 60. A wake-word burst is 35, a tool list of
1 MB 256. Overflow policy: disconnect, close code 1008."""
TURN_UNITS = 20
"""What a message counts that begins or ends a turn or describes things, which is so much more work: ten a second are
a flood."""
COSTLY = (messages.Listen, messages.Abort, messages.Iot)
MAX_HANDSHAKES = 4096
"""Connections that have not finished their handshake: all devices of a site may come back in the same second. Overflow
policy: the oldest is cut, because an honest client is done in milliseconds and only a slow attacker grows old."""
MAX_FRAGMENTED_BYTES = 64 * 1024
"""A message put together from fragments; firmware never fragments and its largest message is an 8 KB tool list.
Overflow policy: the message is dropped."""
BAD_FRAMES_LOGGED = 3
"""Malformed frames of one connection that are logged; a flood of them must not flood the log."""

RETRY_AFTER_S = 30
"""When a client that was turned away may ask again: most conversations are shorter."""

log = logger.bind(tag="websocket")

_picows_log = logging.getLogger("picows.server")
# Handshakes of strangers that fail are warnings to picows; ours are logged by the gate.
_picows_log.setLevel(logging.ERROR)
# Nor is it our error when somebody sends no WebSocket frames: his connection is closed and that is that.
_picows_log.addFilter(lambda record: not str(record.msg).startswith("WS parser error"))
# For a plain Logger picows would make a child per connection.
PICOWS_LOG = logging.LoggerAdapter(_picows_log)


class _Switching(WSUpgradeResponse):
    """The answer to every handshake that is accepted: picows adds the key and writes it at once, so one serves all."""

    __slots__ = ()

    def __init__(self) -> None:
        self.version, self.status, self.body = b"HTTP/1.1", HTTPStatus.SWITCHING_PROTOCOLS, None
        self.headers = WSUpgradeResponse.create_101_response().headers

    def to_bytes(self) -> bytearray:
        """Return it as it is sent."""
        key = self.headers["Sec-WebSocket-Accept"].encode()
        return bytearray(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Accept: %b\r\n\r\n" % key
        )


_ACCEPTED = _Switching()


class DeviceSocket(WSListener):
    """One device connection. Implements `mynah.net.gate.DeviceLink`."""

    # fmt: off
    __slots__ = (
        "_bad_frames", "_closing", "_departures", "_dialect", "_fragments", "_gate", "_load", "_load_since",
        "_session", "_started", "_transport", "_version", "peer",
    )
    # fmt: on

    def __init__(self, gate: Gate, peer: Peer, departures: Departures) -> None:
        super().__init__()
        self._gate = gate
        self._departures = departures
        self.peer = peer
        self._version = hello.protocol_version(peer.headers.get("protocol-version"))
        self._transport: WSTransport | None = None
        self._session: Session | None = None
        self._bad_frames = 0
        self._load = 0
        self._load_since = 0.0
        self._closing = False
        self._started = False
        self._dialect: JsonDialect | None = None
        self._fragments: tuple[WSMsgType, bytearray] | None = None

    # -- picows' callbacks

    def on_ws_connected(self, transport: WSTransport) -> None:
        """The handshake is done."""
        self._transport = transport
        # What picows keeps of the handshake, more than a KB, nobody reads any more.
        transport.request.headers.clear()
        self._load_since = asyncio.get_running_loop().time()
        self._session = self._gate.open(self, self.peer)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """One frame has arrived."""
        kind = frame.msg_type
        self._load += 1 + (frame.payload_size >> 12)
        if self._load >= FLOOD_UNITS and self._floods():
            return
        if kind is WSMsgType.CLOSE:
            # A Close without a code must not be answered with the code that says so.
            transport.send_close(frame.get_close_code() if frame.payload_size >= 2 else WSCloseCode.OK)
            transport.disconnect()
        elif kind is WSMsgType.PING:
            # Here and not by picows itself, which would answer a flood of them without telling us.
            transport.send_pong(frame.get_payload_as_bytes())
        elif kind is WSMsgType.PONG or self._session is None or self._closing:
            return
        elif kind is WSMsgType.CONTINUATION or not frame.fin:
            self._reassemble(frame)
        elif kind is WSMsgType.BINARY:
            self._on_audio(frame.get_payload_as_bytes())
        elif kind is WSMsgType.TEXT:
            self._on_text(frame.get_payload_as_bytes())

    def on_ws_disconnected(self, transport: WSTransport) -> None:  # noqa: ARG002
        """The TCP connection is gone, in whatever way: devices hang up without a close frame."""
        self._transport = None
        if self._session is not None:
            self._departures.add(self._depart)

    def _depart(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            try:
                session.on_closed()
            finally:
                self._gate.closed(self)

    # -- Link

    def equip(self, services: Services) -> Services:
        """Return what the session is given: everything as it is, for this is what it was made for."""
        return services

    def send(self, message: messages.ServerMessage) -> None:
        """Send a JSON message."""
        try:
            texts = [messages.encode(message)] if self._dialect is None else self._dialect.encode(message)
        except UnicodeEncodeError as error:  # half a surrogate pair in a model's or plugin's text
            log.warning("{}: a {} is not sent: {}", self.peer.device_id, type(message).__name__, error.reason)
            return
        for data in texts:
            self._write(WSMsgType.TEXT, data)

    def send_audio(self, packet: bytes, timestamp_ms: int) -> None:
        """Send one Opus packet in the framing that the device asked for."""
        if self._dialect is not None:
            self._write(WSMsgType.TEXT, self._dialect.encode_audio(packet))
            return
        self._write(WSMsgType.BINARY, frames.encode_audio(self._version, packet, timestamp_ms))

    def close(self, code: int = 1000, reason: str = "") -> None:
        """End the connection: a close frame, and a second later the TCP connection."""
        transport = self._transport
        if transport is None or self._closing:
            return
        self._closing = True
        if self._session is not None:
            # What it is working on ends now and not when the connection does; not within a call of its own, though.
            asyncio.get_running_loop().call_soon(self._session.on_closed)
        transport.send_close(WSCloseCode(code), reason.encode())
        # Not gracefully: that would wait for ever for a peer that does not read.
        asyncio.get_running_loop().call_later(CLOSE_GRACE_S, transport.disconnect, False)

    def abort(self) -> None:
        """Cut the connection at once."""
        if self._transport is not None:
            self._transport.disconnect(graceful=False)

    # -- pieces

    def _write(self, kind: WSMsgType, data: bytes) -> None:
        transport = self._transport
        if transport is None or self._closing:
            return
        transport.send(kind, data)
        if transport.underlying_transport.get_write_buffer_size() > MAX_QUEUED_BYTES:
            log.warning("{} reads nothing any more, closing its connection", self.peer.device_id)
            transport.disconnect(graceful=False)

    def _on_text(self, payload: bytes) -> None:
        assert self._session is not None
        try:
            message = messages.decode(payload)
            match message:
                case messages.AudioData():
                    self._on_audio_data(message)
                case messages.DeviceInfo():
                    self._introduce(message)
                case messages.Heartbeat() | messages.Ping():
                    self._session.on_message(message)
                case _:
                    self._started = True
                    if isinstance(message, COSTLY):
                        self._load += TURN_UNITS
                    self._session.on_message(message)
        except WireError as error:
            self._bad_frame(error)

    def _on_audio(self, payload: bytes) -> None:
        assert self._session is not None
        self._started = True
        try:
            frame = frames.decode_audio(self._version, payload)
            self._session.on_audio(frame.packet, frame.timestamp)
        except WireError as error:
            self._bad_frame(error)

    def _introduce(self, info: messages.DeviceInfo) -> None:
        """Begin to speak the JSON dialect: ``device_info`` is its hello."""
        assert self._session is not None
        if self._started:
            return
        self._started = True
        self._dialect = self._gate.json_dialect()
        if not self._gate.identify(self, info.device_id, info.client_id):
            self.close(POLICY_VIOLATION, "this token is not for this device")
            return
        self._session.on_message(messages.Hello())

    def _on_audio_data(self, message: messages.AudioData) -> None:
        assert self._session is not None
        audio = decode_data(message)
        if not self._started:
            self._introduce(messages.DeviceInfo())
        # Nobody presses a button here: who sends audio while nothing is going on wants to be heard.
        if audio and self._session.phase is Phase.IDLE:
            self._session.on_message(messages.Listen("start", messages.ListenMode.AUTO))
        if audio and message.format == "pcm":
            self._session.on_pcm(audio, message.sample_rate)
        elif audio:
            self._session.on_audio(audio)
        if message.is_final:
            self._session.on_message(messages.Listen("stop"))

    def _floods(self) -> bool:
        """Look whether the frames came too fast to be a device's, and if so hang up."""
        now = asyncio.get_running_loop().time()
        self._load = 0
        since, self._load_since = self._load_since, now
        if now - since >= FLOOD_WINDOW_S:
            return False
        if not self._closing:
            log.warning(
                "{} floods us with messages, closing its connection", self.peer.device_id or self.peer.ip
            )
            assert self._transport is not None
            # Not even read any more: cutting the connection at once would lose the close frame.
            self._transport.underlying_transport.pause_reading()
            self.close(POLICY_VIOLATION, "too many messages")
        return True

    def _bad_frame(self, error: WireError) -> None:
        self._bad_frames += 1
        if self._bad_frames <= BAD_FRAMES_LOGGED:
            log.debug("{} sent a bad frame: {}", self.peer.device_id, error)

    def _reassemble(self, frame: WSFrame) -> None:
        if frame.msg_type is not WSMsgType.CONTINUATION:
            self._fragments = (frame.msg_type, bytearray())
        if self._fragments is None:
            return
        kind, collected = self._fragments
        collected += frame.get_payload_as_memoryview()
        if len(collected) > MAX_FRAGMENTED_BYTES:
            self._fragments = None
            self._bad_frame(WireError("fragmented message too large"))
        elif frame.fin:
            self._fragments = None
            deliver = self._on_audio if kind is WSMsgType.BINARY else self._on_text
            deliver(bytes(collected))


class WebsocketServer:
    """Listens for devices on one port."""

    def __init__(
        self,
        gate: Gate,
        *,
        max_message_bytes: int,
        tls: ssl.SSLContext | None = None,
        on_refused: Callable[[str], None] | None = None,
    ) -> None:
        """``on_refused`` is told the `Cause` of each connection that the gate does not let in."""
        self._gate = gate
        self._on_refused, self._lines = on_refused, Lines(log)
        self._max_message_bytes = max_message_bytes
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._handshakes: dict[_Connection, None] = {}  # oldest first
        self._departures = Departures()
        self.accepted = 0
        """Handshakes accepted so far."""

    async def start(self, host: str, port: int) -> int:
        """Listen; return the port. Raises ConfigError and PortInUseError."""
        listening = listening_socket(host, port, "server.port")
        _keep_alive(listening)
        bound: int = listening.getsockname()[1]
        self._server = await asyncio.get_running_loop().create_server(
            self._protocol,
            sock=listening,
            backlog=BACKLOG,  # uvloop listens again, with 100 if it is not told
            ssl=self._tls,
            ssl_handshake_timeout=HANDSHAKE_TIMEOUT_S if self._tls else None,
        )
        return bound

    async def stop(self) -> None:
        """Accept no more connections. Open ones go on."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def _protocol(self) -> WSProtocol:
        return _Connection(self, self._max_message_bytes)

    def begin(self, connection: _Connection) -> None:
        """A client has connected and has not said yet what it wants."""
        self._handshakes[connection] = None
        if len(self._handshakes) > MAX_HANDSHAKES:
            oldest = next(iter(self._handshakes))
            del self._handshakes[oldest]
            oldest.transport.underlying_transport.abort()

    def done(self, connection: _Connection) -> None:
        """The client has said what it wants, or is gone."""
        self._handshakes.pop(connection, None)

    def accept(
        self, request: WSUpgradeRequest, transport: asyncio.BaseTransport
    ) -> WSUpgradeResponseWithListener:
        """Decide on one request: a device, a person with a browser, or neither."""
        headers = {name.lower(): value for name, value in request.headers.items()}
        if "websocket" not in headers.get("upgrade", "").lower():
            return _answer(WSUpgradeResponse.create_ok_response(PLAIN_ANSWER))
        # "keep-alive, Upgrade" is legal and what browsers behind some proxies send; picows compares the whole value.
        if "upgrade" in (token.strip() for token in headers.get("connection", "").lower().split(",")):
            request.headers["Connection"] = "Upgrade"
        # picows stumbles over bytes that are no text when it wants to quote them in its refusal.
        if not headers.get("sec-websocket-version", "").isascii():
            return _refuse(HTTPStatus.BAD_REQUEST, "there is no such WebSocket version\n")
        secure = transport.get_extra_info("sslcontext") is not None
        ours, theirs = _address(transport, "sockname"), _address(transport, "peername")
        try:
            peer = read_peer(request.path.decode("latin-1"), headers, theirs, ours, secure)
        except ValueError:
            return _refuse(HTTPStatus.BAD_REQUEST, "this is not an address\n")
        if peer.path.rstrip("/") != WEBSOCKET_PATH.rstrip("/"):
            return _refuse(HTTPStatus.NOT_FOUND, f"devices connect to {WEBSOCKET_PATH}\n")
        refusal = self._gate.admit(peer)
        if refusal is not None:
            self._lines.refused(refusal.cause, peer.device_id, peer.ip, refusal.reason)
            if self._on_refused is not None:
                self._on_refused(refusal.cause.value)
            return _refuse(refusal.status, refusal.reason + "\n")
        self.accepted += 1
        if peer.device_id:
            # Nobody asks for it again: only who told no id is asked who he is once he tells one.
            msgspec.structs.force_setattr(peer, "authorization", None)
        return WSUpgradeResponseWithListener(_ACCEPTED, DeviceSocket(self._gate, peer, self._departures))


class _Connection(WSProtocol):  # type: ignore[misc] # untyped, see the import
    """picows' protocol for one connection, watched until its handshake is done."""

    __slots__ = ("_owner",)

    def __init__(self, owner: WebsocketServer, max_message_bytes: int) -> None:
        super().__init__(
            None, None, False, self._accept, PICOWS_LOG, True, HANDSHAKE_TIMEOUT_S,
            False, 20.0, 20.0, WSAutoPingStrategy.PING_WHEN_IDLE, False, max_message_bytes, None, READ_BUFFER,
        )  # fmt: skip
        self._owner = owner

    def _accept(self, request: WSUpgradeRequest) -> WSUpgradeResponseWithListener:
        self._owner.done(self)
        return self._owner.accept(request, self.transport.underlying_transport)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._owner.begin(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._owner.done(self)
        super().connection_lost(exc)


def _address(transport: asyncio.BaseTransport, name: str) -> str:
    address = transport.get_extra_info(name)
    return address[0] if address else ""


def _keep_alive(listening: socket.socket) -> None:
    """Have the kernel find peers that went away without a word, at no cost here: gone after a good minute.

    Connections inherit it from the socket that listens: four calls less for each.
    """
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 40), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, option):  # Linux; elsewhere the system's own times apply
            listening.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def _answer(response: WSUpgradeResponse) -> WSUpgradeResponseWithListener:
    return WSUpgradeResponseWithListener(response, None)


def _refuse(status: HTTPStatus, body: str) -> WSUpgradeResponseWithListener:
    headers = {"Content-Type": "text/plain; charset=utf-8"}
    if status is HTTPStatus.SERVICE_UNAVAILABLE:
        headers["Retry-After"] = str(RETRY_AFTER_S)
    return _answer(WSUpgradeResponse.create_error_response(status, body.encode(), headers))
