"""An HTTP call that makes a device speak, for programs of the house: a doorbell, a washing machine, a calendar.

It exists only where a token is configured, and answers only to who has it.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Sequence
from http import HTTPStatus
from typing import Annotated, Final, Protocol

import msgspec
from aiohttp import web
from loguru import logger

from mynah.dialogue.outbox import MAX_WAIT_S, MAX_WORDS_CHARS, Announcement, Delivery
from mynah.errors import ConfigError, WireError
from mynah.security.tokens import MAX_ID_CHARS, normal_device_id

PATH: Final = "/api/say"
MIN_TOKEN_CHARS: Final = 16
"""Nobody may try out so many, at a thousand a second, within a lifetime."""
MAX_BODY_BYTES: Final = 8192
"""A thousand characters take 6 KB if each is escaped."""
ANSWER_S: Final = 2.0
"""How long an answer waits for the outcome: an idle device begins to speak within a second."""
CALLS: Final = 60
CALLS_PER_S: Final = 2.0
"""So many calls at once, and so many more every second: for whoever announces dinner in every room. Each call occupies
a connection for `ANSWER_S` and a voice for longer. Overflow policy: 429, with the time to wait."""

_log = logger.bind(tag="announce")


class SayRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is to be said to whom."""

    device_id: Annotated[str, msgspec.Meta(max_length=MAX_ID_CHARS)]
    text: Annotated[str, msgspec.Meta(max_length=MAX_WORDS_CHARS)]
    wait_s: Annotated[float, msgspec.Meta(ge=0, le=MAX_WAIT_S)] = 0.0
    """How long the message may wait for the device to connect."""


class _Said(msgspec.Struct, frozen=True):
    status: str


class _Refused(msgspec.Struct, frozen=True):
    error: str


class Announcer(Protocol):
    """Who reaches devices; `mynah.net.devices.Devices` does."""

    def announce(self, device_id: str, words: str, wait_s: float = 0.0) -> Announcement:
        """Make a device speak, now or when it connects."""


def parse_say(body: bytes) -> SayRequest:
    """Read a request. Raises WireError with a sentence for whoever wrote it."""
    if len(body) > MAX_BODY_BYTES:
        raise WireError(f"the body is larger than {MAX_BODY_BYTES} bytes")
    try:
        request = msgspec.json.decode(body, type=SayRequest)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise WireError(f"the body is not understood: {error}") from None
    device_id = normal_device_id(request.device_id)
    words = " ".join("".join(char if char.isprintable() else " " for char in request.text).split())
    if not device_id:
        raise WireError("`device_id` is empty: it is the MAC address of a device, as the log shows it")
    if not words:
        raise WireError("`text` is empty: there is nothing to say")
    return SayRequest(device_id, words, request.wait_s)


class AnnounceService:
    """Answers who asks to have something said."""

    def __init__(self, devices: Announcer, token: str, answer_s: float = ANSWER_S) -> None:
        """``token`` empty: there is no such call. ``answer_s``: how long to wait for the outcome, in seconds.

        Raises ConfigError when the token is too short to keep anybody out.
        """
        if token and len(token) < MIN_TOKEN_CHARS:
            raise ConfigError(
                f"server.announce_token is too short: use at least {MIN_TOKEN_CHARS} characters, or leave it empty"
            )
        self._devices = devices
        self._token = token.encode()
        self._answer_s = answer_s
        self._calls = float(CALLS)
        self._counted_at = 0.0

    def routes(self) -> Sequence[web.RouteDef]:
        """Return what to serve on the device HTTP port; nothing without a token."""
        return [web.post(PATH, self._say)] if self._token else []

    def admits(self, authorization: str) -> bool:
        """Say whether an ``Authorization`` header has the token. Takes equally long for every wrong one."""
        scheme, _, told = authorization.partition(" ")
        right = hmac.compare_digest(told.strip().encode("utf-8", "surrogateescape"), self._token)
        return scheme.lower() == "bearer" and right and bool(self._token)

    def delay_s(self, now: float) -> float:
        """Count one call at ``now`` (seconds of any clock that only grows); return how long it is too early, or 0."""
        self._calls = min(CALLS, self._calls + max(0.0, now - self._counted_at) * CALLS_PER_S)
        self._counted_at = now
        if self._calls < 1:
            return (1 - self._calls) / CALLS_PER_S
        self._calls -= 1
        return 0.0

    async def _say(self, request: web.Request) -> web.Response:
        if not self.admits(request.headers.get("Authorization", "")):
            _log.info("refused {}: the token is missing or wrong", request.remote)
            return _answer(
                HTTPStatus.UNAUTHORIZED,
                _Refused("send the header `Authorization: Bearer` with server.announce_token"),
                {"WWW-Authenticate": "Bearer"},
            )
        too_early_s = self.delay_s(asyncio.get_running_loop().time())
        if too_early_s:
            return _answer(
                HTTPStatus.TOO_MANY_REQUESTS,
                _Refused("too many calls"),
                {"Retry-After": str(1 + int(too_early_s))},
            )
        try:
            wanted = parse_say(await request.read())
        except WireError as error:
            return _answer(HTTPStatus.BAD_REQUEST, _Refused(str(error)))
        announcement = self._devices.announce(wanted.device_id, wanted.text, wanted.wait_s)
        if announcement.state is Delivery.QUEUED:
            # An idle device is about to speak; one in the middle of a conversation may take longer than we wait.
            await asyncio.wait([announcement.done], timeout=self._answer_s)
        return _answer(HTTPStatus.OK, _Said(announcement.state.value))


def _answer(
    status: HTTPStatus, body: _Said | _Refused, headers: dict[str, str] | None = None
) -> web.Response:
    return web.Response(
        status=status, body=msgspec.json.encode(body), content_type="application/json", headers=headers
    )
