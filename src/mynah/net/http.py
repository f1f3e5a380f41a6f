"""The HTTP port for devices: service discovery and health, and the routes that other services bring along.

Modems match header names letter by letter, so names go out in canonical capitals, every answer has a
Content-Length, and header blocks stay under one kilobyte. Every connection carries one request: devices close
anyway, and a connection without a second request needs only one deadline. Connections are counted and timed from the
moment they are accepted: with TLS a client that never says a word is one of them.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol, TypeAlias, cast

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from loguru import logger

from mynah.config import Settings
from mynah.net.address import FORWARDING_HEADERS, RequestOrigin, listening_socket
from mynah.net.ota import OtaService
from mynah.net.source import SOURCE, source_of

_log = logger.bind(tag="http")

HEADER_BYTES: Final = 16384
"""What a request may have in front of its body; a device's has 400 bytes."""
READ_AHEAD_BYTES: Final = 512 * 1024
"""What the kernel may hand us of a body before its handler can say how much it wants: two reads of 256 KB."""
ACCEPTED_AT_ONCE: Final = 32
"""Connections accepted before the loop's other work gets its turn; the kernel holds the rest."""
ACCEPT_PAUSE_S: Final = 1.0
"""How long nobody is accepted when the system has no file descriptor left."""
SHUTDOWN_S: Final = 2.0
"""How long requests under way may take when the server stops: an answer takes milliseconds."""


def _is_ours(record: logging.LogRecord) -> bool:
    """Leave out aiohttp's reports of what is no HTTP: anybody could fill the log with tracebacks and his own bytes."""
    return record.exc_info is None or not isinstance(record.exc_info[1], HttpProcessingError)


logging.getLogger("aiohttp.server").addFilter(_is_ours)

Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Delivery(Protocol):
    """How much of a request may still come, and until when: what passes that is cut off."""

    def extend(self, max_bytes: int, timeout_s: float) -> None:
        """Let this much more come, from now on."""

    def received(self) -> None:
        """All is here: no more deadline."""


_DELIVERY: Final = web.RequestKey("delivery", Delivery)


def delivery_of(request: web.Request) -> Delivery:
    """Return the delivery of an upload. Raises ConnectionResetError when the client is gone."""
    found: Delivery | None = request.get(_DELIVERY)
    if found is None:
        raise ConnectionResetError("the client is gone")
    return found


class DeviceHttp:
    """Serves the device-facing HTTP port."""

    def __init__(
        self,
        settings: Settings,
        ota: OtaService,
        ready: Callable[[], bool],
        routes: Sequence[web.RouteDef] = (),
        tls: ssl.SSLContext | None = None,
        uploads: Sequence[web.RouteDef] = (),
    ) -> None:
        """``ready`` says whether devices can be served; ``routes`` are those of other services on this port.

        ``uploads`` are routes whose handlers take in the body themselves and say how large it may be, with
        `delivery_of`. All other bodies are small, and read before their handler runs.
        """
        self._tls = tls
        self._limits = settings.server.limits
        self._proxies = settings.server.trusted_proxies
        self._ota = ota
        self._ready = ready
        self._waiting: dict[object, _Connection] = {}
        self._runner: web.AppRunner | None = None
        self._listener: socket.socket | None = None
        self._upload_handlers = frozenset(route.handler for route in uploads)
        self._routes = [
            *(
                web.route(method, path, handler)
                for path in ("/xiaozhi/ota/", "/xiaozhi/ota")
                for method, handler in (("GET", self._welcome), ("POST", self._discover))
            ),
            web.get("/healthz", self._health),
            web.get("/readyz", self._readiness),
            *routes,
            *uploads,
        ]

    async def start(self, host: str, port: int) -> int:
        """Listen, and return the port (``port`` 0 picks a free one). Raises PortInUseError or ConfigError."""
        listener = listening_socket(host, port, "server.http_port")
        actual: int = listener.getsockname()[1]
        application = web.Application(
            middlewares=[self._receive], client_max_size=self._limits.http_body_bytes
        )
        application.add_routes(self._routes)
        application.on_response_prepare.append(_finish_headers)
        # Access is logged by the services; devices never compress, and unpacking would be a way to hurt us.
        self._runner = web.AppRunner(
            application,
            access_log=None,
            auto_decompress=False,
            shutdown_timeout=SHUTDOWN_S,
            handler_cancellation=True,  # nobody waits for an answer any more: what makes it can stop
        )
        await self._runner.setup()
        # We accept ourselves: a server of the event loop tells of TLS clients only when they have shaken hands.
        self._listener = listener
        self._listen()
        return actual

    async def stop(self) -> None:
        """Stop listening and let requests under way finish. Safe to call twice."""
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
            self._listener = None
        for connection in list(self._waiting.values()):
            connection.close()
        if self._runner is not None:
            runner, self._runner = self._runner, None
            await runner.cleanup()

    def _listen(self) -> None:
        if self._listener is not None:
            asyncio.get_running_loop().add_reader(self._listener, self._accept, self._listener)

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(ACCEPTED_AT_ONCE):
            try:
                connected, _ = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                _log.warning("cannot accept connections ({}): trying again in a moment", error.strerror)
                loop = asyncio.get_running_loop()
                loop.remove_reader(listener)
                loop.call_later(ACCEPT_PAUSE_S, self._listen)
                return
            self._admit(connected)

    def _admit(self, connected: socket.socket) -> None:
        assert self._runner is not None
        assert self._runner.server is not None  # set up before we listen
        if len(self._waiting) >= self._limits.http_connections and not self._make_room():
            connected.close()
            return
        connected.setblocking(False)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        max_bytes = HEADER_BYTES + self._limits.http_body_bytes + READ_AHEAD_BYTES
        connection = _Connection(self._runner.server(), self._waiting, self._limits.http_timeout_s, max_bytes)
        connection.open(connected, self._tls)

    def _make_room(self) -> bool:
        """Hang up on the client that has taken longest to say what it wants: honest ones are done in milliseconds."""
        slowest = next((client for client in self._waiting.items() if client[1].receiving), None)
        if slowest is None:
            return False
        del self._waiting[slowest[0]]
        slowest[1].close()
        return True

    @web.middleware
    async def _receive(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Take in the whole request before its handler runs, within the connection's deadline."""
        connection = self._waiting.get(request.protocol)
        request[SOURCE] = source_of(_origin(request), self._proxies)
        try:
            if request.match_info.handler in self._upload_handlers:
                if connection is not None:
                    request[_DELIVERY] = connection
                response = await handler(request)
            else:
                response = await self._answer(request, handler, connection)
        except web.HTTPException as error:  # a path or method that we do not have
            error.force_close()
            raise
        response.force_close()
        return response

    async def _answer(
        self, request: web.Request, handler: Handler, connection: _Connection | None
    ) -> web.StreamResponse:
        try:
            await request.read()
        except web.HTTPRequestEntityTooLarge:
            limit = self._limits.http_body_bytes
            return web.Response(status=413, text=f"request body larger than {limit} bytes\n")
        except web.RequestPayloadError:
            return web.Response(status=400, text="unreadable request body\n")
        if connection is not None:
            connection.received()
        return await handler(request)

    async def _welcome(self, request: web.Request) -> web.Response:
        as_html = "text/html" in request.headers.get("Accept", "")
        await self._ota.refresh()
        text = self._ota.welcome(_origin(request), as_html)
        return web.Response(text=text, content_type="text/html" if as_html else "text/plain")

    async def _discover(self, request: web.Request) -> web.Response:
        await self._ota.refresh()
        body = self._ota.reply(_origin(request), await request.read(), request.query.get("transport", ""))
        return web.Response(body=body, content_type="application/json")

    async def _health(self, _request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readiness(self, _request: web.Request) -> web.Response:
        ready = self._ready()
        return web.Response(text="ready\n" if ready else "not ready\n", status=200 if ready else 503)


async def _finish_headers(_request: web.Request, response: web.StreamResponse) -> None:
    response.headers["Server"] = "Mynah"  # aiohttp would tell its own version and Python's


def _origin(request: web.Request) -> RequestOrigin:
    headers: dict[str, str] = {}
    for name, value in request.headers.items():
        known = headers.setdefault(name.lower(), value)
        if known is not value and name.lower() in FORWARDING_HEADERS:
            headers[name.lower()] = f"{known}, {value}"  # some proxies add a line of their own
    transport = request.transport
    local = transport.get_extra_info("sockname") if transport is not None else None
    return RequestOrigin(
        headers=headers,
        peer_ip=request.remote or "",
        local_ip=local[0] if isinstance(local, tuple) else "",
        secure=request.secure,
        local_port=local[1] if isinstance(local, tuple) else 0,
    )


class _Connection(asyncio.Protocol):
    """Stands in front of aiohttp's protocol: shakes hands, and hangs up on clients that are slow or send too much.

    aiohttp itself waits for a request without end.
    """

    def __init__(
        self, inner: asyncio.Protocol, waiting: dict[object, _Connection], timeout_s: float, max_bytes: int
    ) -> None:
        self._inner = inner
        self._waiting = waiting
        self._timeout_s = timeout_s
        self._bytes_left = max_bytes
        self._head_left = HEADER_BYTES
        self._head_end = b""
        self._opening: asyncio.Task[None] | None = None
        self._handshaking = False
        self._unwanted = False
        self.receiving = True
        """The request is not complete yet."""
        self._deadline: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None

    def open(self, connected: socket.socket, tls: ssl.SSLContext | None) -> None:
        """Take over an accepted connection, which counts from now on."""
        self._waiting[self._inner] = self
        self._opening = asyncio.get_running_loop().create_task(self._open(connected, tls))

    async def _open(self, connected: socket.socket, tls: ssl.SSLContext | None) -> None:
        timeout_s = self._timeout_s if tls else None
        try:
            if self._unwanted:  # a task that is cancelled before it begins would never close the socket
                connected.close()
                return
            self._handshaking = True
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: self, connected, ssl=tls, ssl_handshake_timeout=timeout_s
            )
        except OSError:
            pass  # it speaks no TLS, does not like our certificate, was too slow, or has gone
        finally:
            if self._transport is None:
                self._waiting.pop(self._inner, None)

    def extend(self, max_bytes: int, timeout_s: float) -> None:
        """Let this much more come, from now on."""
        if self.receiving and self._deadline is not None:
            self._bytes_left = max_bytes
            self._set_deadline(timeout_s)

    def received(self) -> None:
        """The request is complete: no more deadline."""
        self.receiving = False
        if self._deadline is not None:
            self._deadline.cancel()

    def close(self) -> None:
        """Hang up on a client whose request is not complete."""
        self._unwanted = self.receiving
        if self._transport is not None and self.receiving:
            self._transport.abort()
        elif self._transport is None and self._handshaking and self._opening is not None:
            self._opening.cancel()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not isinstance: uvloop's transports are no subclass of asyncio.Transport.
        self._transport = cast(asyncio.Transport, transport)
        self._set_deadline(self._timeout_s)
        self._inner.connection_made(transport)

    def _set_deadline(self, timeout_s: float) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = asyncio.get_running_loop().call_later(timeout_s, self.close)

    def data_received(self, data: bytes) -> None:
        if self.receiving:
            self._bytes_left -= len(data)
            if self._bytes_left < 0 or self._head_is_too_long(data):
                self.close()
                return
        self._inner.data_received(data)

    def _head_is_too_long(self, data: bytes) -> bool:
        """Follow the request to the end of its header block: only behind it may come more than a little."""
        if self._head_left <= 0:
            return False
        seen = self._head_end + data
        end = seen.find(b"\r\n\r\n")
        if end >= 0:
            too_long = end - len(self._head_end) > self._head_left
            self._head_left = 0
            return too_long
        self._head_left -= len(data)
        self._head_end = seen[-3:]
        return self._head_left <= 0

    def eof_received(self) -> bool | None:
        return self._inner.eof_received()

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._waiting.pop(self._inner, None)
        if self._deadline is not None:
            self._deadline.cancel()
        self._inner.connection_lost(exc)
