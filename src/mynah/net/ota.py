"""Service discovery: every device asks here at boot where to talk to, what time it is and whether to upgrade."""

from __future__ import annotations

import datetime
import html
import re
import time
from collections.abc import Callable
from operator import itemgetter
from typing import Final
from urllib.parse import urlsplit

from loguru import logger

from mynah.config import Settings
from mynah.net.address import RequestOrigin, http_address
from mynah.net.firmware import DOWNLOAD_PATH, FirmwareFolder
from mynah.net.placement import placement_of
from mynah.net.source import source_of
from mynah.security.binding import Bindings
from mynah.security.tokens import Authenticator, normal_device_id
from mynah.texts import languages, text
from mynah.texts.catalog import FALLBACK
from mynah.wire.ota import (
    MAX_FIELD_CHARS,
    PULL4G,
    Activation,
    Firmware,
    OtaReply,
    OtaRequest,
    Pull4gSettings,
    ServerTime,
    WebsocketSettings,
    encode_reply,
    is_newer,
    no_update,
    parse_request,
)

_log = logger.bind(tag="ota")

WIRE_VERSION = 1
"""Framing handed to devices: plain Opus. Sent every time, because devices keep the last value they got."""

_QUALITY: Final = re.compile(r"\s*q\s*=\s*([01](?:\.[0-9]{0,3})?)\s*")
_PAGE: Final = """\
<!DOCTYPE html>
<html lang="{language}"><head><meta charset="utf-8"><title>Mynah</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
:root {{ color-scheme: light dark }}
body {{ font: 1rem/1.6 system-ui, sans-serif; max-width: 42rem; margin: 3rem auto; padding: 0 1rem }}
h1 {{ font-size: 1.5rem }}
dt {{ opacity: .7; margin-top: .8rem }}
dd {{ margin: 0 }}
code {{ overflow-wrap: anywhere }}
footer {{ opacity: .7; margin-top: 2rem; font-size: .9rem }}
</style></head>
<body><h1>{title}</h1>
<p>{purpose}</p>
<dl>
{rows}
</dl>
<footer>{hint}</footer>
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
        *,
        bindings: Bindings | None = None,
        firmware: FirmwareFolder | None = None,
        pull4g_port: int = 0,
    ) -> None:
        """The ports are those really listened on; ``clock`` gives seconds since the epoch.

        ``bindings`` None: devices need no owner. ``firmware`` None: none is offered. ``pull4g_port`` 0: devices that
        fetch their answers are not served.
        """
        self._settings = settings
        self._authenticator = authenticator
        self._placement = placement_of(settings, websocket_port)
        self._clock = clock
        self._bindings = bindings
        self._firmware = firmware
        self._pull4g_port = pull4g_port

    async def refresh(self) -> None:
        """Take note of new firmware, if it was not looked for lately. Takes a second at most."""
        if self._firmware is not None:
            await self._firmware.refresh()

    def reply(self, origin: RequestOrigin, body: bytes, transport: str = "") -> bytes:
        """Answer one device with JSON. Needs neither a body nor a Device-Id.

        ``transport`` is what the query asks for: with `PULL4G` the answer says where that is served, too.
        """
        request = parse_request(origin.headers, body)
        device_id = request.device_id or _told_id(origin.headers.get("device-id", ""))
        address = self._placement.websocket_url(device_id, origin)
        token = self._authenticator.token_for(device_id, request.client_id)
        reply = OtaReply(
            server_time=self._server_time(),
            firmware=self._firmware_for(request, origin),
            websocket=WebsocketSettings(url=address, token=token, version=WIRE_VERSION),
            pull4g=self._pull4g(address, token) if transport == PULL4G else None,
            activation=self._activation_for(request, device_id, origin),
        )
        waits = "waits to be bound: type `bind` and the code it shows into this server's terminal"
        _note(request, device_id, waits if reply.activation is not None else f"sent to {address}")
        return encode_reply(reply, request.app_version)

    def welcome(self, origin: RequestOrigin, as_html: bool) -> str:
        """Say to a person, in plain text or HTML, that the service is up and what it hands out.

        In the first language of the browser that there are texts in.
        """
        language = accepted_language(origin.headers.get("accept-language", ""))
        title, purpose = text("ota_page_title", language), text("ota_page_purpose", language)
        hint = text("ota_page_hint", language, proxies="server.trusted_proxies")
        facts = self._facts(origin, language)
        if not as_html:
            lines = [title, "", purpose, "", *(f"{name}: {value}" for name, value in facts), "", hint]
            return "\n".join(lines) + "\n"
        rows = "\n".join(f"<dt>{html.escape(name)}</dt><dd>{_marked_up(value)}</dd>" for name, value in facts)
        return _PAGE.format(
            language=language,
            title=html.escape(title),
            purpose=html.escape(purpose),
            rows=rows,
            hint=html.escape(hint),
        )

    def _facts(self, origin: RequestOrigin, language: str) -> list[tuple[str, str]]:
        token = "required" if self._authenticator.required else "not_required"
        binding = "open" if self._bindings is None else "code"
        count = 0 if self._firmware is None else len(self._firmware)
        return [
            (text("ota_page_address", language), self._placement.websocket_url("", origin)),
            (text("ota_page_token", language), text(f"ota_page_token_{token}", language)),
            (text("ota_page_binding", language), text(f"ota_page_binding_{binding}", language)),
            (text("ota_page_firmware", language), str(count)),
        ]

    def _firmware_for(self, request: OtaRequest, origin: RequestOrigin) -> Firmware:
        image = None if self._firmware is None else self._firmware.newest(request.board_type)
        if image is None or not is_newer(image.version, request.app_version):
            return no_update(request.app_version)
        url = http_address(self._settings, origin, DOWNLOAD_PATH + image.name)
        _log.info("{} {} is offered {}", request.board_type, request.app_version, image.name)
        return Firmware(image.version, url)

    def _pull4g(self, websocket_url: str, token: str) -> Pull4gSettings | None:
        """Say where devices fetch their answers: under the name that leads to the WebSocket, at a port of its own."""
        server = self._settings.server
        host = urlsplit(websocket_url).hostname
        if not self._pull4g_port or not host:
            return None
        return Pull4gSettings(host, self._pull4g_port, bool(server.tls.cert) and server.pull4g.tls, token)

    def _activation_for(
        self, request: OtaRequest, device_id: str, origin: RequestOrigin
    ) -> Activation | None:
        waits = self._authenticator.awaits_owner(device_id, request.client_id)
        if self._bindings is None or not waits or not device_id:
            return None  # without an id there is nothing to bind
        source = source_of(origin, self._settings.server.trusted_proxies)
        offer = self._bindings.offer(device_id, request.client_id, source)
        language = accepted_language(request.language)
        return Activation(offer.code, text("activation", language, code=offer.code), offer.challenge)

    def _server_time(self) -> ServerTime:
        now = self._clock()
        offset = datetime.datetime.fromtimestamp(now, self._settings.zone()).utcoffset()
        minutes = 0 if offset is None else round(offset.total_seconds() / 60)
        return ServerTime(timestamp=int(now * 1000), timezone_offset=minutes)


def _marked_up(value: str) -> str:
    escaped = html.escape(value)
    return f"<code>{escaped}</code>" if "://" in value else escaped


def _told_id(text: str) -> str:
    """Return an id that is not a MAC address as its device will present it again, bounded and printable."""
    return normal_device_id("".join(c for c in text[:MAX_FIELD_CHARS] if c.isprintable()))


def accepted_language(header: str) -> str:
    """Return the first language of an Accept-Language header that there are texts in; English without any."""
    ranked: list[tuple[float, str]] = []
    for item in header.split(","):
        tag, _, quality = item.partition(";")
        match = _QUALITY.fullmatch(quality)
        ranked.append(
            (-float(match[1]) if match else -1.0, tag.strip().replace("_", "-").split("-")[0].lower())
        )
    known = (language for _, language in sorted(ranked, key=itemgetter(0)) if language in languages())
    return next(known, FALLBACK)


def _note(request: OtaRequest, device_id: str, outcome: str) -> None:
    # The type is what firmware is found by, so it is named even where the device has another name for its board.
    board = request.board_type or "unknown board"
    other = request.board_name if request.board_name != request.board_type else ""
    _log.info(
        "{} ({} {}{}) asked at boot, {}",
        device_id or "a device without id",
        board,
        request.app_version or "unknown version",
        f", calls itself {other}" if other else "",
        outcome,
    )
