"""The device's end of a connection: a WebSocket, opened the way firmware opens it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Protocol
from urllib.parse import urlsplit

import picows

from mynah.errors import MynahError

MAX_FRAME_BYTES = 1 << 20
"""A server's frame: firmware takes 64 kB of glyphs at most, so 1 MiB leaves room for any server worth talking to."""

CONNECT_TIMEOUT_S = 10.0
"""What firmware gives the handshake."""

TLS_TIMEOUT_S = 3.0
"""For TLS alone, which takes two round trips: a server without it waits for the rest of what it takes for a request."""

MAX_SENTENCE_CHARS = 200
"""Of what a server says to a refusal; the rest is left out."""


class ConnectError(MynahError):
    """No conversation came about. The message names the address and what to do about it."""

    code = "connect"


class TokenRefusedError(ConnectError):
    """The server wants a token, or another one. What to do about it depends on where this one came from."""

    code = "token_refused"


class LinkListener(Protocol):
    """Who hears what arrives; called on the event loop."""

    def on_text(self, frame: bytes) -> None:
        """One whole text message."""

    def on_binary(self, frame: bytes) -> None:
        """One whole binary message."""

    def on_closed(self) -> None:
        """The connection is gone; called once."""


class Link(Protocol):
    """One connection to a server, whatever the transport."""

    def send_text(self, frame: bytes) -> None:
        """Send one text message; dropped when the connection is gone."""

    def send_binary(self, frame: bytes) -> None:
        """Send one binary message; dropped when the connection is gone."""

    async def close(self) -> None:
        """Drop the connection and wait until it is gone."""


class WebSocketLink(picows.WSListener):
    """A WebSocket without extensions that pongs by itself and never sends a Close frame, as firmware's."""

    def __init__(self, listener: LinkListener) -> None:
        self._listener = listener
        self._transport: picows.WSTransport | None = None
        self._parts: list[bytes] = []
        self._parts_text = False

    @classmethod
    async def connect(
        cls,
        url: str,
        headers: Mapping[str, str],
        listener: LinkListener,
        *,
        timeout_s: float = CONNECT_TIMEOUT_S,
        verify_tls: bool = True,
    ) -> WebSocketLink:
        """Open ``url`` (ws or wss). Raises ConnectError."""
        try:
            host = urlsplit(url).hostname or ""
        except ValueError as error:  # half an IPv6 address
            raise ConnectError(f"{url} is no address: {error}") from error
        try:
            async with asyncio.timeout(timeout_s):
                _, link = await picows.ws_connect(
                    lambda: cls(listener),
                    url,
                    **_tls(verify_tls) if url.startswith("wss:") else {},
                    # Firmware names the host without its port.
                    extra_headers={"Host": host, **headers},
                    max_redirects=0,
                    max_frame_size=MAX_FRAME_BYTES,
                    read_buffer_init_size=2048,
                    websocket_handshake_timeout=None,
                )
        except (picows.WSError, OSError, ValueError) as error:  # a time-out is an OSError
            raise _failure(url, error, timeout_s, "Authorization" in headers) from error
        if not isinstance(link, cls):  # picows has none when the server hangs up before it answers
            hint = "" if url.startswith("wss:") else ": if the server speaks TLS, use wss://"
            raise ConnectError(f"{url} hung up instead of opening a WebSocket{hint}")
        return link

    def on_ws_connected(self, transport: picows.WSTransport) -> None:
        """Keep the transport (picows calls this)."""
        self._transport = transport

    def on_ws_frame(self, _transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        """Sort a frame (picows calls this); fragments are put together first."""
        kind = frame.msg_type
        if kind in {picows.WSMsgType.TEXT, picows.WSMsgType.BINARY}:
            self._parts_text = kind is picows.WSMsgType.TEXT
            self._parts = [frame.get_payload_as_bytes()]
        elif kind is picows.WSMsgType.CONTINUATION and self._parts:
            self._parts.append(frame.get_payload_as_bytes())
            if sum(map(len, self._parts)) > MAX_FRAME_BYTES:
                self._parts = []
                return
        else:
            if kind is picows.WSMsgType.CLOSE and self._transport is not None:
                self._transport.disconnect()
            return
        if frame.fin:
            message, self._parts = b"".join(self._parts), []
            (self._listener.on_text if self._parts_text else self._listener.on_binary)(message)

    def on_ws_disconnected(self, _transport: picows.WSTransport) -> None:
        """Tell the listener (picows calls this)."""
        self._listener.on_closed()

    def send_text(self, frame: bytes) -> None:
        """Send one text message; dropped when the connection is gone."""
        self._send(picows.WSMsgType.TEXT, frame)

    def send_binary(self, frame: bytes) -> None:
        """Send one binary message; dropped when the connection is gone."""
        self._send(picows.WSMsgType.BINARY, frame)

    def _send(self, kind: picows.WSMsgType, frame: bytes) -> None:
        if self._transport is not None and not self._transport.is_disconnected:
            self._transport.send(kind, frame)

    async def close(self) -> None:
        """Drop the connection without a Close frame, as firmware does, and wait until it is gone."""
        if self._transport is not None:
            self._transport.disconnect()
            await self._transport.wait_disconnected()


def _tls(verify: bool) -> dict[str, Any]:
    """Return what `picows.ws_connect` needs for TLS."""
    context = ssl.create_default_context()
    if not verify:  # as cellular modems do
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    # aiofastnet keeps the reason of a failed handshake to itself, and its log of it ends in a traceback.
    return {"ssl_context": context, "ssl_handshake_timeout": TLS_TIMEOUT_S, "use_aiofastnet": False}


def sentence(body: bytes | None) -> str:
    """Return what a server says to a refusal as `` (…)`` for people; nothing when it says nothing, or says HTML."""
    lines = (body or b"").decode(errors="replace").strip().splitlines()
    text = "".join(filter(str.isprintable, lines[0]))[:MAX_SENTENCE_CHARS] if lines else ""
    return f" ({text})" if text and not text.startswith("<") else ""


def _failure(url: str, error: Exception, timeout_s: float, had_token: bool) -> ConnectError:
    """Say in one line what is wrong with an address and what to do."""
    secure = url.startswith("wss:")
    match error:
        case picows.WSHandshakeError(response=response) if response is not None:
            return _refused(url, response.status, sentence(error.raw_body), had_token)
        case ssl.SSLCertVerificationError():
            return ConnectError(
                f"{url} has a certificate that nobody vouches for ({error.verify_message}): pass --insecure to take it"
            )
        case ssl.SSLError() | ConnectionAbortedError() | ConnectionResetError() if secure:
            return ConnectError(f"{url}: TLS handshake failed: is it plain ws:// there?")
        case TimeoutError():
            return ConnectError(
                f"{url} did not answer within {timeout_s:g} s: is there a firewall in between?"
            )
        case ConnectionRefusedError():
            return ConnectError(
                f"nothing listens at {url}: start the server (`mynah serve`) or pass its address with --url"
            )
        case picows.WSInvalidURL():
            return ConnectError(f"{url} is not a WebSocket address; it looks like ws://host:8000/xiaozhi/v1/")
    return ConnectError(f"cannot open {url}: {error or type(error).__name__}")


def _refused(url: str, status: HTTPStatus, said: str, had_token: bool) -> ConnectError:
    if status == HTTPStatus.UNAUTHORIZED:
        wish = "does not accept this token" if had_token else "wants a token"
        return TokenRefusedError(f"{url} {wish} (401){said}")
    if status == HTTPStatus.NOT_FOUND:
        said = (
            ": devices connect to ws://host:8000/xiaozhi/v1/; port 8003 is that of the OTA address, for --ota"
        )
    return ConnectError(
        f"{url} answered {int(status)} {HTTPStatus(status).phrase} instead of opening a WebSocket{said}"
    )
