"""The device's end of one TCP connection of the pull protocol."""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import Protocol, cast
from urllib.parse import urlsplit

import msgspec

from mynah.sim.link import CONNECT_TIMEOUT_S, TLS_TIMEOUT_S, ConnectError
from mynah.wire.pull4g import DeviceStream, ServerEvent

DEFAULT_PORT = 10002
"""Of the pull protocol."""

SCHEMES = ("tcp", "tls")
"""Of its addresses: as it is, and with TLS around it."""


class Address(msgspec.Struct, frozen=True):
    """Where a server listens."""

    host: str
    port: int = DEFAULT_PORT
    tls: bool = False

    @property
    def url(self) -> str:
        """Return it as text."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'tls' if self.tls else 'tcp'}://{host}:{self.port}"


def address_of(url: str) -> Address:
    """Read ``tcp://host:port`` or ``tls://host:port``; without a port it is 10002. Raises ConnectError."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:  # a port that is no number, half an IPv6 address
        parts, host, port = urlsplit(""), "", None
    if parts.scheme not in SCHEMES or not host or port == 0 or parts.path not in {"", "/"}:
        raise ConnectError(
            f"{url} is no address of the 4G pull protocol; it looks like tcp://host:{DEFAULT_PORT}"
        )
    return Address(host, port or DEFAULT_PORT, parts.scheme == "tls")


class LineListener(Protocol):
    """Who hears what arrives; called on the event loop."""

    def on_events(self, events: list[ServerEvent]) -> None:
        """Something has arrived, though it may not complete any event."""

    def on_lost(self, why: str) -> None:
        """The connection is gone; called once, also after `Line.abort`."""


class Line(Protocol):
    """One connection."""

    @property
    def closed(self) -> bool:
        """Whether it is gone, or about to be."""

    def write(self, data: bytes) -> None:
        """Send; dropped when the connection is gone."""

    def abort(self) -> None:
        """Drop the connection."""


class TcpLine(asyncio.Protocol):
    """Implements `Line` with a TCP connection."""

    def __init__(self, listener: LineListener) -> None:
        self._listener = listener
        self._stream = DeviceStream()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport (asyncio calls this)."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Read what the server says (asyncio calls this)."""
        self._listener.on_events(self._stream.feed(data))

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the listener (asyncio calls this)."""
        self._transport = None
        self._listener.on_lost(str(exc) if exc is not None else "the server closed the connection")

    @property
    def closed(self) -> bool:
        """Whether it is gone, or about to be."""
        return self._transport is None or self._transport.is_closing()

    def write(self, data: bytes) -> None:
        """Send; dropped when the connection is gone. Nothing waits: what the link does not take yet is kept."""
        if self._transport is not None:
            self._transport.write(data)

    def abort(self) -> None:
        """Drop the connection."""
        if self._transport is not None:
            self._transport.abort()


async def open_line(
    address: Address, listener: LineListener, *, timeout_s: float = CONNECT_TIMEOUT_S, verify_tls: bool = True
) -> Line:
    """Connect. Raises ConnectError."""
    loop = asyncio.get_running_loop()
    context = tls_context(verify_tls) if address.tls else None
    try:
        async with asyncio.timeout(timeout_s):
            transport, line = await loop.create_connection(
                lambda: TcpLine(listener),
                address.host,
                address.port,
                ssl=context,
                ssl_handshake_timeout=TLS_TIMEOUT_S if context is not None else None,
            )
    except (OSError, ValueError) as error:  # a time-out is an OSError
        raise ConnectError(_why(address, error, timeout_s)) from error
    connection = transport.get_extra_info("socket")
    if connection is not None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return line


def tls_context(verify: bool) -> ssl.SSLContext:
    """Return what TLS needs; without ``verify`` any certificate is taken, as cellular modems do."""
    context = ssl.create_default_context()
    if not verify:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _why(address: Address, error: Exception, timeout_s: float) -> str:
    """Say in one line what is wrong with an address and what to do."""
    match error:
        case ssl.SSLCertVerificationError():
            return (
                f"{address.url} has a certificate that nobody vouches for ({error.verify_message}): "
                "pass --insecure to take it"
            )
        case ssl.SSLError() | ConnectionResetError() | ConnectionAbortedError() if address.tls:
            return f"{address.url}: TLS handshake failed: is it tcp:// there?"
        case TimeoutError():
            return f"{address.url} did not answer within {timeout_s:g} s: is there a firewall in between?"
        case ConnectionRefusedError():
            return f"nothing listens at {address.url}: start the server (`mynah serve`), or pass its address with --url"
    return f"cannot open {address.url}: {error or type(error).__name__}"
