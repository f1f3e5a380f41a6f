"""What a device does between power and its first conversation: ask, upgrade, wait for an owner, remember."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import http
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import msgspec

from mynah.errors import WireError
from mynah.sim.counters import Counters
from mynah.sim.discovery import TIMEOUT_S, DeviceIdentity, fetch_reply
from mynah.sim.firmware import download, image_version, is_newer
from mynah.sim.link import ConnectError
from mynah.sim.nvs import Nvs
from mynah.sim.pull4g.line import Address
from mynah.sim.state import Observer
from mynah.wire.hello import VERSIONS
from mynah.wire.ota import PULL4G

Sleep = Callable[[float], Awaitable[None]]


class BootPolicy(msgspec.Struct, frozen=True):
    """How long a device tries. The defaults are firmware's; all times in s."""

    attempts: int = 10
    """Requests to the OTA address before it goes on without."""
    first_retry_s: float = 10.0
    """Pause after the first failure; every further one is twice as long."""
    activation_polls: int = 10
    """Questions whether the device has an owner, before the OTA address is asked again."""
    unbound_s: float = 3.0
    """Pause after "not yet"."""
    failed_s: float = 10.0
    """Pause after any other answer, or none."""


ONE_TRY = BootPolicy(attempts=1)
"""For people who wait: the first failure is told at once."""


class BootResult(msgspec.Struct, frozen=True):
    """Where the device talks to from now on."""

    url: str
    """Of a WebSocket, or ``tcp://`` and ``tls://`` where the pull protocol was asked for."""
    token: str
    protocol: int
    """Framing version."""
    firmware: str
    """Version that the device runs now."""
    clock_ms: int = 0
    """The device's clock: *local* time in ms since 1970; 0 when the server told none."""
    polls: int = 0
    """Activation requests that were sent."""


class _Reply(msgspec.Struct):
    """An answer of the OTA address as firmware sees it: everything may be missing or of any type."""

    activation: Any = None
    mqtt: Any = None
    websocket: Any = None
    pull4g: Any = None
    server_time: Any = None
    firmware: Any = None


class Boot:
    """Boots one device. Its flash, ``nvs``, outlives the boot; pass it again to boot the same device once more."""

    def __init__(
        self,
        identity: DeviceIdentity,
        *,
        nvs: Nvs | None = None,
        counters: Counters | None = None,
        policy: BootPolicy = BootPolicy(),  # noqa: B008 - frozen
        observer: Observer | None = None,
        sleep: Sleep = asyncio.sleep,
        verify_tls: bool = True,
        pull4g: bool = False,
    ) -> None:
        """``sleep`` waits for the pauses of ``policy``; ``observer`` is told the code to show.

        ``pull4g``: ask for the pull protocol, and talk over nothing else.
        """
        self.nvs = nvs or Nvs()
        self.counters = counters or Counters()
        self._identity = identity
        self._policy = policy
        self._observer = observer or Observer()
        self._sleep = sleep
        self._verify_tls = verify_tls
        self._pull4g = pull4g
        self._installed: set[tuple[str, str]] = set()
        self._polls = 0
        self._clock_ms = 0

    async def run(self, url: str) -> BootResult:
        """Boot until the device may talk. Raises ConnectError when it will not.

        Without an owner that takes as long as it takes: put a time limit around it.
        """
        while True:
            reply = await self._ask(url)
            try:
                self._remember(reply)
                if await self._upgraded(reply):
                    continue  # the device has started anew
            except WireError as error:
                raise ConnectError(f"{url}: {error}; firmware aborts on that at every boot") from error
            code, challenge = _text(reply.activation, "code"), _text(reply.activation, "challenge")
            if not code and not challenge:
                return self._result(url, reply)
            if code:
                self._observer.on_code(code, _text(reply.activation, "message"))
            await self._wait_for_owner(url, challenge)

    async def _ask(self, url: str) -> _Reply:
        pause_s = self._policy.first_retry_s
        for attempt in range(1, self._policy.attempts + 1):
            try:
                body = await fetch_reply(
                    url,
                    self._identity,
                    verify_tls=self._verify_tls,
                    transport=PULL4G if self._pull4g else "",
                )
                return msgspec.json.decode(body, type=_Reply)
            except ConnectError:
                if attempt == self._policy.attempts:
                    raise
            except (msgspec.DecodeError, UnicodeError, RecursionError):
                if attempt == self._policy.attempts:
                    raise ConnectError(f"{url}: not an OTA answer: malformed JSON") from None
            await self._sleep(pause_s)
            pause_s *= 2
        raise ConnectError(f"{url} was not asked: the policy allows no attempt")

    async def _upgraded(self, reply: _Reply) -> bool:
        """Install the firmware that is offered; True when the device runs another one now."""
        version, url = _member(reply.firmware, "version"), _member(reply.firmware, "url")
        if not isinstance(version, str) or not isinstance(url, str):
            return False
        try:
            newer = is_newer(version, self._identity.version)
        except WireError:
            self.counters.bad_version += 1
            raise
        if not newer and _member(reply.firmware, "force") != 1:
            return False
        if (version, url) in self._installed:
            self.counters.upgrade_loop += 1
            return False
        try:
            image = await download(url, verify_tls=self._verify_tls)
        except ConnectError:
            self.counters.failed_upgrade += 1
            return False
        self._installed.add((version, url))
        self._identity = msgspec.structs.replace(self._identity, version=image_version(image) or version)
        return True

    def _remember(self, reply: _Reply) -> None:
        try:
            for namespace, settings in (("mqtt", reply.mqtt), ("websocket", reply.websocket)):
                if isinstance(settings, dict):
                    self.nvs.merge(namespace, settings)
        except WireError:
            self.counters.nvs_overflow += 1
            raise
        timestamp = _member(reply.server_time, "timestamp")
        offset = _member(reply.server_time, "timezone_offset")
        if isinstance(timestamp, int | float) and not isinstance(timestamp, bool):
            minutes = offset if isinstance(offset, int | float) and not isinstance(offset, bool) else 0
            self._clock_ms = int(timestamp + minutes * 60_000)

    def _result(self, url: str, reply: _Reply) -> BootResult:
        if self._pull4g:
            return self._pull4g_result(url, reply)
        if isinstance(reply.mqtt, dict):
            raise ConnectError(
                f"{url} names an MQTT server, and devices prefer that to a WebSocket: it is not simulated"
            )
        address = self.nvs.text("websocket", "url")
        if not isinstance(reply.websocket, dict) or not address:
            raise ConnectError(f"{url} names no WebSocket address: is a websocket configured there?")
        version = self.nvs.number("websocket", "version")
        return BootResult(
            url=address,
            token=self.nvs.text("websocket", "token"),
            # Firmware takes 0 for 1; a version it does not know cannot be spoken here either.
            protocol=version if version in VERSIONS else 1,
            firmware=self._identity.version,
            clock_ms=self._clock_ms,
            polls=self._polls,
        )

    def _pull4g_result(self, url: str, reply: _Reply) -> BootResult:
        found = pull4g_address(reply.pull4g)
        if found is None:
            raise ConnectError(
                f"{url} names no address of the 4G pull protocol: is server.pull4g.enabled true there?"
            )
        return BootResult(
            url=found.url,
            token=_text(reply.pull4g, "token"),
            protocol=1,
            firmware=self._identity.version,
            clock_ms=self._clock_ms,
            polls=self._polls,
        )

    async def _wait_for_owner(self, url: str, challenge: str) -> None:
        """Ask whether the device has an owner by now, until it has or it is time to ask the OTA address again."""
        for _ in range(self._policy.activation_polls):
            status = await self._activate(url, challenge) if challenge else 0
            if status == http.HTTPStatus.OK:
                return
            unbound = status == http.HTTPStatus.ACCEPTED
            await self._sleep(self._policy.unbound_s if unbound else self._policy.failed_s)

    async def _activate(self, url: str, challenge: str) -> int:
        """Return the status of one request, 0 when there was no answer."""
        self._polls += 1
        address = url + ("activate" if url.endswith("/") else "/activate")
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_S)) as session,
                session.post(
                    address,
                    data=activation_body(self._identity, challenge),
                    headers=self._identity.ota_headers(),
                    allow_redirects=False,
                    ssl=self._verify_tls,
                ) as response,
            ):
                return response.status
        except (aiohttp.ClientError, OSError, ValueError):  # a time-out is an OSError
            return 0


def activation_body(identity: DeviceIdentity, challenge: str) -> bytes:
    """Return what a device sends to prove itself: nothing, unless it has a serial number and a key of its own."""
    if not identity.serial_number:
        return b"{}"
    proof = hmac.new(identity.hmac_key, challenge.encode(), hashlib.sha256).hexdigest()
    return msgspec.json.encode(
        {
            "algorithm": "hmac-sha256",
            "serial_number": identity.serial_number,
            "challenge": challenge,
            "hmac": proof,
        }
    )


def pull4g_address(told: object) -> Address | None:
    """Read where an OTA answer sends devices that fetch their answers; None when it does not say."""
    host, port, tls = (_member(told, key) for key in ("host", "port", "tls"))
    if not isinstance(host, str) or not host or not isinstance(port, int) or not 0 < port < 65_536:
        return None
    return Address(host, port, tls is True)


def _member(holder: object, key: str) -> object:
    return holder.get(key) if isinstance(holder, dict) else None


def _text(holder: object, key: str) -> str:
    value = _member(holder, key)
    return value if isinstance(value, str) else ""
