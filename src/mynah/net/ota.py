"""Service discovery: every device asks here at boot where to talk to, what time it is and whether to upgrade."""

from __future__ import annotations

import datetime
import html
import time
from collections.abc import Callable

from loguru import logger

from mynah.config import Settings
from mynah.net.address import RequestOrigin, websocket_address
from mynah.security.tokens import Authenticator, normal_device_id
from mynah.wire.ota import (
    MAX_FIELD_CHARS,
    OtaReply,
    OtaRequest,
    ServerTime,
    WebsocketSettings,
    encode_reply,
    no_update,
    parse_request,
)

_log = logger.bind(tag="ota")

WIRE_VERSION = 1
"""Framing handed to devices: plain Opus. Sent every time, because devices keep the last value they got."""

_PLAIN = """\
Mynah is running.

This is the address that devices ask at boot (the OTA address). It works.
It hands out this WebSocket address: {address}
Access token: {token}

Something wrong with the address? Set server.websocket, or server.trusted_proxies behind a reverse proxy.
"""
_PAGE = """\
<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Mynah</title></head>
<body><h1>Mynah is running</h1>
<p>This is the address that devices ask at boot (the OTA address). It works.</p>
<p>It hands out this WebSocket address: <code>{address}</code></p>
<p>Access token: {token}</p>
<p>Something wrong with the address? Set <code>server.websocket</code>,
or <code>server.trusted_proxies</code> behind a reverse proxy.</p>
</body></html>
"""


class OtaService:
    """Answers what devices ask at boot. Has no state of its own."""

    def __init__(
        self,
        settings: Settings,
        websocket_port: int,
        authenticator: Authenticator,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``websocket_port`` is the port really listened on; ``clock`` gives seconds since the epoch."""
        self._settings = settings
        self._authenticator = authenticator
        self._websocket_port = websocket_port
        self._clock = clock

    def reply(self, origin: RequestOrigin, body: bytes) -> bytes:
        """Answer one device with JSON. Needs neither a body nor a Device-Id."""
        request = parse_request(origin.headers, body)
        device_id = request.device_id or _told_id(origin.headers.get("device-id", ""))
        address = self.address(origin)
        reply = OtaReply(
            server_time=self._server_time(),
            firmware=no_update(request.app_version),
            websocket=WebsocketSettings(
                url=address,
                token=self._authenticator.token_for(device_id, request.client_id),
                version=WIRE_VERSION,
            ),
        )
        _note(request, device_id, address)
        return encode_reply(reply, request.app_version)

    def address(self, origin: RequestOrigin) -> str:
        """Return the WebSocket address for whoever sent this request."""
        return websocket_address(self._settings, origin, self._websocket_port)

    def welcome(self, origin: RequestOrigin, as_html: bool) -> str:
        """Say to a person, in plain text or HTML, that the service is up and which address it hands out."""
        template = _PAGE if as_html else _PLAIN
        token = "handed out with it" if self._authenticator.required else "not needed"
        address = self.address(origin)
        return template.format(address=html.escape(address) if as_html else address, token=token)

    def _server_time(self) -> ServerTime:
        now = self._clock()
        offset = datetime.datetime.fromtimestamp(now, self._settings.zone()).utcoffset()
        minutes = 0 if offset is None else round(offset.total_seconds() / 60)
        return ServerTime(timestamp=int(now * 1000), timezone_offset=minutes)


def _told_id(text: str) -> str:
    """Return an id that is not a MAC address as its device will present it again, bounded and printable."""
    return normal_device_id("".join(c for c in text[:MAX_FIELD_CHARS] if c.isprintable()))


def _note(request: OtaRequest, device_id: str, address: str) -> None:
    _log.info(
        "{} ({} {}) asked at boot, sent to {}",
        device_id or "a device without id",
        request.board_name or request.board_type or "unknown board",
        request.app_version or "unknown version",
        address,
    )
