"""Activation: a device that shows a code asks here, every few seconds, whether it has been bound by now."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Final

from aiohttp import web

from mynah.security.binding import Bindings
from mynah.wire.ota import parse_activation

PATHS: Final = ("/xiaozhi/ota/activate", "/xiaozhi/ota/activate/")


class ActivationService:
    """Answers 200 to a device that has an owner and 202 to one that has none yet."""

    def __init__(self, bindings: Bindings | None) -> None:
        """``bindings`` None: no device needs an owner, so all are answered 200."""
        self._bindings = bindings

    def routes(self) -> Sequence[web.RouteDef]:
        """Return what to serve on the device HTTP port."""
        return [web.post(path, self._activate) for path in PATHS]

    def status(self, device_id: str, client_id: str, body: bytes) -> HTTPStatus:
        """Return the answer to one device. Whatever the body, it is an answer."""
        if self._bindings is None:
            return HTTPStatus.OK
        challenge = parse_activation(body).challenge
        activated = self._bindings.is_activated(device_id, client_id, challenge)
        return HTTPStatus.OK if activated else HTTPStatus.ACCEPTED

    async def _activate(self, request: web.Request) -> web.Response:
        headers = request.headers
        status = self.status(headers.get("Device-Id", ""), headers.get("Client-Id", ""), await request.read())
        # Clients look at the status only, but one of them wants JSON.
        return web.json_response({"bound": status is HTTPStatus.OK}, status=status)
