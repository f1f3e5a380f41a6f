"""The metrics on the device HTTP port: for programs on this machine, and for those that have the token."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit

from aiohttp import web
from loguru import logger

from mynah.net.address import FORWARDING_HEADERS
from mynah.security.tokens import is_loopback

PATH: Final = "/metrics"
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
"""What Prometheus calls its text format."""
MAX_TOKEN_CHARS: Final = 512
"""Longer ones are compared up to here, so that nobody makes the server look at more."""

_log = logger.bind(tag="metrics")


class MetricsService:
    """Answers who asks for the metrics."""

    def __init__(self, write: Callable[[], Awaitable[bytes]] | None, token: str) -> None:
        """``write`` returns the metrics in Prometheus' text format; None: there is no such call.

        ``token`` empty: only programs on this machine are answered.
        """
        self._write = write
        self._token = token.encode()

    def routes(self) -> Sequence[web.RouteDef]:
        """Return what to serve on the device HTTP port."""
        return [web.get(PATH, self._serve)] if self._write is not None else []

    def admits(self, authorization: str) -> bool:
        """Say whether an ``Authorization`` header has the token. Takes equally long for every wrong one."""
        scheme, _, told = authorization.partition(" ")
        presented = told.strip()[:MAX_TOKEN_CHARS].encode("utf-8", "surrogateescape")
        return (
            scheme.lower() == "bearer" and hmac.compare_digest(presented, self._token) and bool(self._token)
        )

    async def _serve(self, request: web.Request) -> web.Response:
        assert self._write is not None  # else there is no such route
        if not self.admits(request.headers.get("Authorization", "")) and not _is_local(request):
            return self._refuse(request)
        # Not `content_type`: aiohttp would take the version for no part of it.
        return web.Response(body=await self._write(), headers={"Content-Type": CONTENT_TYPE})

    def _refuse(self, request: web.Request) -> web.Response:
        _log.debug("refused {}: no program of this machine, and without the token", request.remote)
        if self._token:
            return web.Response(
                status=HTTPStatus.UNAUTHORIZED,
                text="send the header `Authorization: Bearer` with server.metrics_token\n",
                headers={"WWW-Authenticate": "Bearer"},
            )
        return web.Response(
            status=HTTPStatus.FORBIDDEN,
            text="metrics are told to programs on this machine only: set server.metrics_token, and send it in the "
            "header `Authorization: Bearer`\n",
        )


def _is_local(request: web.Request) -> bool:
    """Say whether a program on this machine asks: not a proxy, and not a web page in a browser on it.

    A page can only ask by a name that its owner has let lead here; who asks this machine by its own name is none.
    """
    forwarded = any(name.lower() in FORWARDING_HEADERS for name in request.headers)
    return (
        not forwarded
        and "Origin" not in request.headers
        and is_loopback(request.remote or "")
        and is_loopback(_host_name(request.headers.get("Host", "")))
    )


def _host_name(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:  # half an IPv6 address
        return ""
