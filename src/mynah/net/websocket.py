"""The WebSocket transport: adapts picows' callbacks to `Session` and `Link`. No other file knows picows' server side.

A connection costs a `DeviceSocket`, picows' own buffers and a `Session`; no task.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Protocol
from urllib.parse import parse_qs, urlsplit

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

from mynah.dialogue.session import Session
from mynah.errors import WireError
from mynah.net.address import WEBSOCKET_PATH, carries_forwarding, listening_socket
from mynah.security.tokens import MAX_ID_CHARS, is_loopback, normal_device_id
from mynah.wire import frames, hello, messages

PLAIN_ANSWER = b"Server is running\n"
HANDSHAKE_TIMEOUT_S = 10.0
"""Firmware itself gives up after ten seconds."""
READ_BUFFER = 2048
"""Devices send frames of 20–300 bytes; picows' 16 KB default would be most of what an idle connection costs."""
MAX_QUEUED_BYTES = 512 * 1024
"""Unsent bytes after which a device is taken for dead: at 4 KB/s of speech that is two minutes of not reading.
Overflow policy: disconnect."""
CLOSE_GRACE_S = 1.0
"""The firmware never answers a close frame, so the TCP connection is cut this long after it."""
MAX_FRAGMENTED_BYTES = 64 * 1024
"""A message put together from fragments; firmware never fragments and its largest message is an 8 KB tool list.
Overflow policy: the message is dropped."""
BAD_FRAMES_LOGGED = 3
"""Malformed frames of one connection that are logged; a flood of them must not flood the log."""

log = logger.bind(tag="websocket")


class Peer(msgspec.Struct, frozen=True):
    """Who asks to connect, as far as the handshake tells. Header names are lower-case."""

    ip: str
    path: str
    headers: Mapping[str, str]
    device_id: str
    client_id: str
    authorization: str | None

    @property
    def forwarded(self) -> bool:
        """Whether a proxy stands in between."""
        return carries_forwarding(self.headers)

    @property
    def cross_site(self) -> bool:
        """Whether a browser sends this for a page of another host. Devices send no Origin at all."""
        origin = self.headers.get("origin")
        if origin is None:
            return False
        page = urlsplit(origin).hostname or ""
        own = urlsplit(f"//{self.headers.get('host', '')}").hostname or ""
        return not (is_loopback(page) or page in ("localhost", own))


class Refusal(msgspec.Struct, frozen=True):
    """The answer to a handshake that is not accepted."""

    status: HTTPStatus
    reason: str


class Gate(Protocol):
    """Decides who may connect and makes the session for those who may."""

    def admit(self, peer: Peer) -> Refusal | None:
        """Return why the peer is refused, or None to let it in."""

    def open(self, link: DeviceSocket, peer: Peer) -> Session:
        """Make the session of an accepted connection."""

    def closed(self, link: DeviceSocket) -> None:
        """The connection is gone."""


class DeviceSocket(WSListener):
    """One device connection. Implements `mynah.dialogue.services.Link`."""

    def __init__(self, gate: Gate, peer: Peer) -> None:
        super().__init__()
        self._gate = gate
        self.peer = peer
        self._version = hello.protocol_version(peer.headers.get("protocol-version"))
        self._transport: WSTransport | None = None
        self._session: Session | None = None
        self._bad_frames = 0
        self._closing = False
        self._fragments: tuple[WSMsgType, bytearray] | None = None

    # -- picows' callbacks

    def on_ws_connected(self, transport: WSTransport) -> None:
        """The handshake is done."""
        self._transport = transport
        connected = transport.underlying_transport.get_extra_info("socket")
        if connected is not None:
            _keep_alive(connected)
        self._session = self._gate.open(self, self.peer)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """One frame has arrived."""
        kind = frame.msg_type
        if kind is WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code())
            transport.disconnect()
        elif kind in (WSMsgType.PING, WSMsgType.PONG) or self._session is None or self._closing:
            return
        elif kind is WSMsgType.CONTINUATION or not frame.fin:
            self._reassemble(frame)
        elif kind is WSMsgType.BINARY:
            self._on_audio(frame.get_payload_as_bytes())
        elif kind is WSMsgType.TEXT:
            self._on_text(frame.get_payload_as_bytes())

    def on_ws_disconnected(self, transport: WSTransport) -> None:  # noqa: ARG002
        """The TCP connection is gone, in whatever way: devices hang up without a close frame."""
        session, self._session = self._session, None
        self._transport = None
        if session is not None:
            session.on_closed()
            self._gate.closed(self)

    # -- Link

    def send(self, message: messages.ServerMessage) -> None:
        """Send a JSON message."""
        try:
            data = messages.encode(message)
        except UnicodeEncodeError as error:  # half a surrogate pair in a model's or plugin's text
            log.warning("{}: a {} is not sent: {}", self.peer.device_id, type(message).__name__, error.reason)
            return
        self._write(WSMsgType.TEXT, data)

    def send_audio(self, packet: bytes, timestamp_ms: int) -> None:
        """Send one Opus packet in the framing that the device asked for."""
        self._write(WSMsgType.BINARY, frames.encode_audio(self._version, packet, timestamp_ms))

    def close(self, code: int = 1000, reason: str = "") -> None:
        """End the connection: a close frame, and a second later the TCP connection."""
        transport = self._transport
        if transport is None or self._closing:
            return
        self._closing = True
        transport.send_close(WSCloseCode(code), reason.encode())
        # Not gracefully: that would wait for ever for a peer that does not read.
        asyncio.get_running_loop().call_later(CLOSE_GRACE_S, transport.disconnect, False)

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
            self._session.on_message(messages.decode(payload))
        except WireError as error:
            self._bad_frame(error)

    def _on_audio(self, payload: bytes) -> None:
        assert self._session is not None
        try:
            self._session.on_audio(frames.decode_audio(self._version, payload).packet)
        except WireError as error:
            self._bad_frame(error)

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

    def __init__(self, gate: Gate, *, max_message_bytes: int, tls: ssl.SSLContext | None = None) -> None:
        self._gate = gate
        self._max_message_bytes = max_message_bytes
        self._tls = tls
        self._server: asyncio.Server | None = None
        # picows logs handshake failures of strangers as warnings; ours are logged by the gate.
        self._picows_log = logging.getLogger("picows.server")
        self._picows_log.setLevel(logging.ERROR)

    async def start(self, host: str, port: int) -> int:
        """Listen; return the port. Raises ConfigError and PortInUseError."""
        listening = listening_socket(host, port, "server.port")
        bound: int = listening.getsockname()[1]
        self._server = await asyncio.get_running_loop().create_server(
            self._protocol, sock=listening, ssl=self._tls
        )
        return bound

    async def stop(self) -> None:
        """Accept no more connections. Open ones go on."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def _protocol(self) -> WSProtocol:
        protocol: WSProtocol | None = None

        def accept(request: WSUpgradeRequest) -> WSListener | WSUpgradeResponseWithListener:
            assert protocol is not None
            address = protocol.transport.underlying_transport.get_extra_info("peername")
            return self._accept(request, address[0] if address else "")

        protocol = WSProtocol(
            None, None, False, accept, self._picows_log, True, HANDSHAKE_TIMEOUT_S,
            False, 20.0, 20.0, WSAutoPingStrategy.PING_WHEN_IDLE, True, self._max_message_bytes, None, READ_BUFFER,
        )  # fmt: skip
        return protocol

    def _accept(self, request: WSUpgradeRequest, ip: str) -> WSListener | WSUpgradeResponseWithListener:
        headers = {name.lower(): value for name, value in request.headers.items()}
        if "websocket" not in headers.get("upgrade", "").lower():
            return _answer(WSUpgradeResponse.create_ok_response(PLAIN_ANSWER))
        # "keep-alive, Upgrade" is legal and what browsers behind some proxies send; picows compares the whole value.
        if "upgrade" in (token.strip() for token in headers.get("connection", "").lower().split(",")):
            request.headers["Connection"] = "Upgrade"
        try:
            peer = read_peer(request.path.decode("latin-1"), headers, ip)
        except ValueError:
            return _refuse(HTTPStatus.BAD_REQUEST, "this is not an address\n")
        if peer.path.rstrip("/") != WEBSOCKET_PATH.rstrip("/"):
            return _refuse(HTTPStatus.NOT_FOUND, f"devices connect to {WEBSOCKET_PATH}\n")
        refusal = self._gate.admit(peer)
        if refusal is not None:
            log.info("refused {} ({}): {}", peer.device_id or "a device without id", ip, refusal.reason)
            return _refuse(refusal.status, refusal.reason + "\n")
        return DeviceSocket(self._gate, peer)


def read_peer(target: str, headers: Mapping[str, str], ip: str) -> Peer:
    """Gather who is asking from headers, or from the query string as browsers must (they cannot set headers).

    Raises ValueError for a target that is no address.
    """
    parts = urlsplit(target)
    query: Callable[[str], str] = {k.lower(): v[0] for k, v in parse_qs(parts.query).items()}.get  # type: ignore[assignment]
    authorization = headers.get("authorization") or query("authorization") or query("token")
    return Peer(
        ip=ip,
        path=parts.path,
        headers=headers,
        device_id=normal_device_id(_printable(headers.get("device-id") or query("device-id"))),
        client_id=_printable(headers.get("client-id") or query("client-id")),
        authorization=authorization,
    )


def _printable(told: str | None) -> str:
    """Return an id fit for logs and terminals, bounded."""
    return "".join(char for char in (told or "") if char.isprintable()).strip()[:MAX_ID_CHARS].rstrip()


def _keep_alive(connected: socket.socket) -> None:
    """Have the kernel find peers that went away without a word, at no cost here: gone after a good minute."""
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 40), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, option):  # Linux; elsewhere the system's own times apply
            connected.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def _answer(response: WSUpgradeResponse) -> WSUpgradeResponseWithListener:
    return WSUpgradeResponseWithListener(response, None)


def _refuse(status: HTTPStatus, body: str) -> WSUpgradeResponseWithListener:
    return _answer(
        WSUpgradeResponse.create_error_response(
            status, body.encode(), {"Content-Type": "text/plain; charset=utf-8"}
        )
    )
