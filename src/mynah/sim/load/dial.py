"""How devices of a load test find and open their connections: OTA address, sockets, TLS, and why one failed."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import ssl
import time
from http import HTTPStatus
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import aiohttp
import msgspec
import picows

from mynah.errors import MynahError
from mynah.sim.discovery import MAX_REPLY_BYTES, DeviceIdentity, asking_for
from mynah.sim.link import MAX_FRAME_BYTES, TLS_TIMEOUT_S
from mynah.sim.load.device import Device, State
from mynah.sim.load.fetcher import Fetcher
from mynah.sim.load.member import Member
from mynah.sim.load.record import Stage
from mynah.sim.load.scenario import Scenario, Transport
from mynah.sim.pull4g.line import Address, address_of
from mynah.wire.ota import Pull4gSettings

BUSY: Final = "busy"
"""The server told the device to come back later: status 503."""

TIMED_OUT: Final = "connect timed out"
HUNG_UP: Final = "closed during the handshake"
BAD_REPLY: Final = "OTA answer without WebSocket address"
NO_PULL4G: Final = "OTA answer without pull4g address"
WANTS_OWNER: Final = "OTA answer wants an activation"

READ_BUFFER: Final = 2048
"""Bytes; picows' 16 kB would be most of what an idle device costs here."""

MAX_ENDPOINTS: Final = 1000
"""Addresses that are kept resolved: servers behind one OTA address. What is beyond is looked up each time."""

# For a plain Logger picows would make a child per connection, and each failed handshake would be a line.
_QUIET: Final = logging.LoggerAdapter(logging.getLogger("picows.load"))
_BIND_ADDRESS_NO_PORT: Final = 24
"""IP_BIND_ADDRESS_NO_PORT of Linux: the port is chosen when connecting, so that one serves many destinations."""

_KINDS: Final[tuple[tuple[tuple[type[BaseException], ...], str], ...]] = (
    ((ConnectionRefusedError,), "connection refused"),
    (
        (ConnectionResetError, ConnectionAbortedError, BrokenPipeError, aiohttp.ServerDisconnectedError),
        "connection reset",
    ),
    ((ssl.SSLCertVerificationError,), "TLS certificate refused"),
    ((ssl.SSLError,), "TLS handshake failed"),
    ((TimeoutError,), TIMED_OUT),
    ((socket.gaierror,), "unknown host"),
    ((picows.WSError,), "not a WebSocket"),
    ((ValueError, MynahError), "no address"),
)
_REASONS: Final = {
    errno.EADDRNOTAVAIL: "no local port left",
    errno.EMFILE: "no file descriptor left",
    errno.ENFILE: "no file descriptor left",
    errno.ENETUNREACH: "network unreachable",
    errno.EHOSTUNREACH: "host unreachable",
}


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What one process of a load test does."""

    target: str
    """WebSocket or OTA address."""
    scenario: Scenario
    ota_once: bool = False
    """Ask the OTA address once per process instead of once per device."""
    token: str = ""
    """Instead of the one that the OTA address gives."""
    insecure: bool = False
    """Take any TLS certificate."""
    sources: tuple[str, ...] = ("",)
    """Local addresses to connect from, in turn; an empty one is the system's choice."""
    process: int = 0
    """Number of this process, of so many:"""
    processes: int = 1
    connects_per_s: float = 100.0
    """Of this process."""
    family: int = 0
    """16 bits that tell the devices of this machine from those of others."""


class Endpoint(msgspec.Struct, frozen=True):
    """Where a device connects to."""

    url: str
    token: str = ""


class _Address(NamedTuple):
    """Of a server, as `socket` has it."""

    family: int
    sockaddr: Any


class _WebSocketPart(msgspec.Struct):
    url: str = ""
    token: str = ""


class _Activation(msgspec.Struct):
    code: str = ""
    challenge: str = ""


class _Reply(msgspec.Struct):
    websocket: _WebSocketPart | None = None
    pull4g: Pull4gSettings | None = None
    activation: _Activation | None = None


def asked_of(scenario: Scenario) -> str:
    """Return what a scenario's devices ask the OTA address for besides the WebSocket; empty: nothing."""
    return "" if scenario.transport is Transport.WS else scenario.transport.value


def identity_of(number: int, family: int) -> DeviceIdentity:
    """Return who the device is: the same number on the same machine is the same device in every run."""
    parts = (0x02, family >> 8 & 255, family & 255, number >> 16 & 255, number >> 8 & 255, number & 255)
    return DeviceIdentity(device_id=":".join(f"{part:02x}" for part in parts), board="mynah-loadtest")


def read_reply(body: bytes, transport: Transport = Transport.WS) -> Endpoint | str:
    """Read an OTA answer: where to connect to, or what is wrong with it, for the table of errors."""
    try:
        reply = msgspec.json.decode(body, type=_Reply)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return BAD_REPLY
    if reply.activation is not None and (reply.activation.code or reply.activation.challenge):
        return WANTS_OWNER
    if transport is Transport.PULL4G:
        told = reply.pull4g
        if told is None or not told.host or not 0 < told.port < 65_536:
            return NO_PULL4G
        return Endpoint(Address(told.host, told.port, told.tls).url, told.token)
    if reply.websocket is None or not reply.websocket.url.startswith(("ws://", "wss://")):
        return BAD_REPLY
    try:
        parts = urlsplit(reply.websocket.url)
        known = bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, half an IPv6 address
        known = False
    return Endpoint(reply.websocket.url, reply.websocket.token) if known else BAD_REPLY


class Dialer:
    """Opens the connections of one process. `close` it."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._asks = urlsplit(plan.target).scheme in {"http", "https"}
        self._http: aiohttp.ClientSession | None = None
        self._known: dict[int, Endpoint] = {}
        """What the OTA address told each device."""
        self._common: asyncio.Task[Endpoint | str] | None = None
        self._resolved: dict[tuple[str, int], tuple[_Address, ...]] = {}
        """By host and port: all addresses until one has worked, then that one."""
        self._tls = ssl.create_default_context()
        if plan.insecure:
            self._tls.check_hostname, self._tls.verify_mode = False, ssl.CERT_NONE

    async def dial(self, device: Member) -> str:
        """Open a connection for a device, which is then told; return why there is none, or nothing.

        Cancelling it means that it has taken too long, which is `TIMED_OUT`.
        """
        try:
            endpoint = await self._find(device)
            if isinstance(endpoint, str):
                return endpoint
            device.since = time.monotonic()
            if isinstance(device, Device):
                return await self._connect(device, endpoint)
            assert isinstance(device, Fetcher)
            return await self._open_line(device, endpoint)
        except asyncio.CancelledError:
            return TIMED_OUT

    async def close(self) -> None:
        """Give back what asking the OTA address needed."""
        if self._common is not None:
            self._common.cancel()
        if self._http is not None:
            await self._http.close()

    # ------------------------------------------------------------ the OTA address

    async def _find(self, device: Member) -> Endpoint | str:
        """Return where the device connects to; a string says why that is unknown."""
        if not self._asks:
            return Endpoint(self._plan.target, self._plan.token)
        known = self._known.get(device.number)
        if known is not None:
            return known
        if not self._plan.ota_once:
            found = await self._ask(device)
        else:
            if self._common is None or (self._common.done() and isinstance(self._common.result(), str)):
                self._common = asyncio.create_task(self._ask(device))
            found = await asyncio.shield(self._common)
        if isinstance(found, Endpoint) and not self._plan.ota_once:
            self._known[device.number] = found
        return found

    async def _ask(self, device: Member) -> Endpoint | str:
        identity = identity_of(device.number, self._plan.family)
        if self._http is None:
            self._http = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, force_close=True))
        began = time.monotonic()
        try:
            async with self._http.post(
                asking_for(self._plan.target, asked_of(self._plan.scenario)),
                data=identity.ota_body(),
                headers=identity.ota_headers(),
                allow_redirects=False,
                ssl=not self._plan.insecure,
            ) as response:
                body = await response.content.read(MAX_REPLY_BYTES)
                # `read` stops at the end of a chunk, so the rest is asked for until there is none or too much.
                while len(body) <= MAX_REPLY_BYTES and (more := await response.content.read(MAX_REPLY_BYTES)):
                    body += more
                status = response.status
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            return f"OTA: {_reason(error)}"
        if status == HTTPStatus.SERVICE_UNAVAILABLE:
            return BUSY
        if status != HTTPStatus.OK:
            return f"OTA answered {status}"
        device.tally.time(Stage.OTA, (time.monotonic() - began) * 1000)
        found = read_reply(body, self._plan.scenario.transport)
        if isinstance(found, Endpoint) and self._plan.token:
            found = Endpoint(found.url, self._plan.token)
        return found

    # ------------------------------------------------------------ the WebSocket

    async def _connect(self, device: Device, endpoint: Endpoint) -> str:
        identity = identity_of(device.number, self._plan.family)
        headers = identity.websocket_headers(endpoint.token, self._plan.scenario.protocol)
        device.state = State.CONNECTING
        connection: socket.socket | None = None
        try:
            parts = urlsplit(endpoint.url)
            secure = parts.scheme == "wss"
            connection = await self._socket(
                parts.hostname or "", parts.port or (443 if secure else 80), device
            )
            _, listener = await picows.ws_connect(
                lambda: device,
                endpoint.url,
                # Firmware names the host without its port.
                extra_headers={"Host": parts.hostname or "", **headers},
                max_redirects=0,
                max_frame_size=MAX_FRAME_BYTES,
                read_buffer_init_size=READ_BUFFER,
                websocket_handshake_timeout=None,
                logger_name=_QUIET,
                socket_factory=lambda _: connection,
                use_aiofastnet=False,  # its transport takes 5 kB more of each idle device
                **self._tls_options(secure),
            )
        except asyncio.CancelledError:
            _cut(connection)
            raise
        except (picows.WSError, OSError, ValueError) as error:
            _cut(connection)
            return _reason(error)
        return "" if listener is device else HUNG_UP  # picows has none when the server hangs up

    async def _open_line(self, device: Fetcher, endpoint: Endpoint) -> str:
        """Connect a device that fetches its answers."""
        connection: socket.socket | None = None
        try:
            address = address_of(endpoint.url)
            device.introduce(identity_of(device.number, self._plan.family), endpoint.token)
            connection = await self._socket(address.host, address.port, device)
            options: dict[str, Any] = {}
            if address.tls:
                options = {
                    "ssl": self._tls,
                    "ssl_handshake_timeout": TLS_TIMEOUT_S,
                    "server_hostname": address.host,
                }
            await asyncio.get_running_loop().create_connection(lambda: device, sock=connection, **options)
        except asyncio.CancelledError:
            _cut(connection)
            raise
        except (MynahError, OSError, ValueError) as error:
            _cut(connection)
            return _reason(error)
        return ""

    def _tls_options(self, secure: bool) -> dict[str, Any]:
        return {"ssl_context": self._tls, "ssl_handshake_timeout": TLS_TIMEOUT_S} if secure else {}

    async def _socket(self, host: str, port: int, device: Member) -> socket.socket:
        """Return a socket that is connected, to the first of the host's addresses that answers. Raises OSError."""
        addresses = await self._resolve(host, port)
        failure: OSError | None = None
        for address in addresses:
            try:
                connection = await self._open(address, device)
            except OSError as error:
                failure = failure or error
                continue
            if len(addresses) > 1 and (host, port) in self._resolved:
                self._resolved[host, port] = (address,)
            return connection
        raise failure or OSError(errno.EADDRNOTAVAIL, "no address")

    async def _open(self, address: _Address, device: Member) -> socket.socket:
        connection = socket.socket(address.family, socket.SOCK_STREAM)
        try:
            connection.setblocking(False)
            source = self._plan.sources[device.number % len(self._plan.sources)]
            if source and address.family == socket.AF_INET:
                connection.setsockopt(socket.IPPROTO_IP, _BIND_ADDRESS_NO_PORT, 1)
                connection.bind((source, 0))
            await asyncio.get_running_loop().sock_connect(connection, address.sockaddr)
        except (OSError, asyncio.CancelledError):
            connection.close()
            raise
        return connection

    async def _resolve(self, host: str, port: int) -> tuple[_Address, ...]:
        known = self._resolved.get((host, port))
        if known is None:
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
            known = tuple(_Address(int(one[0]), one[4]) for one in found)
            if len(self._resolved) < MAX_ENDPOINTS:
                self._resolved[host, port] = known
        return known


def _cut(connection: socket.socket | None) -> None:
    """End a connection that its transport may own by now, so that it is the transport which closes it."""
    if connection is not None:
        try:
            connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it was never connected, or is gone already


def _reason(error: BaseException) -> str:
    """Name a failure for the table of errors: few words, and the same for the same thing."""
    while isinstance(error, aiohttp.ClientConnectorError) and error.os_error is not None:
        error = error.os_error
    if isinstance(error, picows.WSHandshakeError) and error.response is not None:
        status = int(error.response.status)
        return BUSY if status == HTTPStatus.SERVICE_UNAVAILABLE else f"refused with {status}"
    for kinds, text in _KINDS:
        if isinstance(error, kinds):
            return text
    if isinstance(error, OSError) and error.errno is not None:
        return _REASONS.get(error.errno, os.strerror(error.errno).lower())
    return type(error).__name__
