"""The device's end of a connection: a WebSocket, opened the way firmware opens it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from http import HTTPStatus
from typing import Protocol
from urllib.parse import urlsplit

import picows

from mynah.errors import MynahError

MAX_FRAME_BYTES = 1 << 20
"""A server's frame: firmware takes 64 kB of glyphs at most, so 1 MiB leaves room for any server worth talking to."""

CONNECT_TIMEOUT_S = 10.0
"""What firmware gives the handshake."""


class ConnectError(MynahError):
    """No conversation came about. The message names the address and what to do about it."""

    code = "connect"


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
        host = urlsplit(url).hostname or ""
        context: ssl.SSLContext | None = None
        if url.startswith("wss:"):
            context = ssl.create_default_context()
            if not verify_tls:  # as cellular modems do
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        try:
            async with asyncio.timeout(timeout_s):
                _, link = await picows.ws_connect(
                    lambda: cls(listener),
                    url,
                    ssl_context=context,
                    # Firmware names the host without its port.
                    extra_headers={"Host": host, **headers},
                    max_redirects=0,
                    max_frame_size=MAX_FRAME_BYTES,
                    read_buffer_init_size=2048,
                    websocket_handshake_timeout=None,
                )
        except (picows.WSError, OSError, ValueError) as error:  # a time-out is an OSError
            raise ConnectError(_why(url, error, timeout_s, "Authorization" in headers)) from error
        assert isinstance(link, cls)
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


def _why(url: str, error: Exception, timeout_s: float, had_token: bool) -> str:
    """Say in one line what is wrong with an address and what to do."""
    match error:
        case picows.WSHandshakeError(response=response) if response is not None:
            status = response.status
            if status == HTTPStatus.UNAUTHORIZED:
                wish = "does not accept this token" if had_token else "wants a token"
                return f"{url} {wish} (401): pass --token, or --ota so that the server hands one out"
            return f"{url} answered {int(status)} {HTTPStatus(status).phrase} instead of opening a WebSocket"
        case TimeoutError():
            return f"{url} did not answer within {timeout_s:g} s: is there a firewall in between?"
        case ConnectionRefusedError():
            return (
                f"nothing listens at {url}: start the server (`mynah serve`) or pass its address with --url"
            )
        case picows.WSInvalidURL():
            return f"{url} is not a WebSocket address; it looks like ws://host:8000/xiaozhi/v1/"
    return f"cannot open {url}: {error or type(error).__name__}"
