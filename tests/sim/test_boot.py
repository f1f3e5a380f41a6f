import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from mynah.sim.boot import Boot, BootPolicy
from mynah.sim.counters import Counters
from mynah.sim.discovery import DeviceIdentity
from mynah.sim.link import ConnectError
from mynah.sim.nvs import Nvs
from mynah.sim.state import Observer

from .test_firmware import image

IDENTITY = DeviceIdentity("02:aa:00:00:00:01")
WEBSOCKET = {"url": "ws://h/", "token": "t", "version": 1}
OFFER = {"activation": {"code": "123456", "message": "Enter 123456", "challenge": "c-1"}}

Answer = dict[str, Any] | bytes | int


class OtaServer:
    """Answers one after the other what it is given, the last one for ever; the same for activation."""

    def __init__(self, *replies: Answer, activations: tuple[int, ...] = (), firmware: bytes = b"") -> None:
        self.replies, self.activations, self.firmware = list(replies), list(activations), firmware
        self.asked: list[dict[str, Any]] = []
        self.queries: list[str] = []
        self.claims: list[tuple[dict[str, str], bytes]] = []
        self.downloads = 0
        self.base = ""

    async def _on_ota(self, request: web.Request) -> web.Response:
        self.asked.append(await request.json())
        self.queries.append(request.query_string)
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        if isinstance(reply, int):
            return web.Response(status=reply)
        if isinstance(reply, bytes):
            return web.Response(body=reply)
        return web.Response(text=json.dumps(reply).replace("BASE", self.base))

    async def _on_activate(self, request: web.Request) -> web.Response:
        self.claims.append((dict(request.headers), await request.read()))
        return web.Response(status=self.activations.pop(0))

    async def _on_firmware(self, _request: web.Request) -> web.Response:
        self.downloads += 1
        return web.Response(body=self.firmware) if self.firmware else web.Response(status=404)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        app = web.Application()
        app.router.add_post("/ota/", self._on_ota)
        app.router.add_post("/ota/activate", self._on_activate)
        app.router.add_get("/firmware.bin", self._on_firmware)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.base = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield f"{self.base}/ota/"
        finally:
            await runner.cleanup()


class Patience:
    """Waits no time at all, and remembers how long it should have been."""

    def __init__(self) -> None:
        self.pauses: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.pauses.append(seconds)


def boot(**options: Any) -> tuple[Boot, Patience]:
    patience = Patience()
    return Boot(options.pop("identity", IDENTITY), sleep=patience, **options), patience


async def test_a_boot_for_the_pull_protocol() -> None:
    told = {"host": "fd00::1", "port": 10002, "tls": True, "token": "t2"}
    server = OtaServer(OFFER, {"websocket": WEBSOCKET, "pull4g": told}, activations=(200,))
    device, _ = boot(pull4g=True)
    async with server.running() as url:
        found = await device.run(url)
    assert (found.url, found.token, found.polls) == ("tls://[fd00::1]:10002", "t2", 1)
    assert server.queries == ["transport=pull4g"] * 2


@pytest.mark.parametrize(
    "told", [None, [], {"host": "h"}, {"host": "", "port": 1}, {"host": "h", "port": 70000}]
)
async def test_an_answer_without_an_address_of_the_pull_protocol(told: Any) -> None:
    device, _ = boot(pull4g=True)
    async with OtaServer({"websocket": WEBSOCKET, "pull4g": told}).running() as url:
        with pytest.raises(ConnectError, match="names no address of the 4G pull protocol"):
            await device.run(url)


async def test_a_boot() -> None:
    server = OtaServer(
        {"websocket": WEBSOCKET, "server_time": {"timestamp": 1_700_000_000_000, "timezone_offset": 60}}
    )
    device, patience = boot()
    async with server.running() as url:
        result = await device.run(url)
    assert (result.url, result.token, result.protocol, result.firmware) == ("ws://h/", "t", 1, "2.4.2")
    assert result.clock_ms == 1_700_003_600_000
    assert patience.pauses == []
    assert device.counters == Counters()


async def test_settings_outlive_a_boot() -> None:
    nvs = Nvs()
    async with OtaServer({"websocket": {**WEBSOCKET, "version": 3}}).running() as url:
        await boot(nvs=nvs)[0].run(url)
    async with OtaServer({"websocket": {"url": "ws://other/"}}).running() as url:
        result = await boot(nvs=nvs)[0].run(url)
    assert (result.url, result.token, result.protocol) == ("ws://other/", "t", 3)


@pytest.mark.parametrize(("version", "protocol"), [(0, 1), (2, 2), (7, 1), ("3", 1)])
async def test_framing_versions(version: object, protocol: int) -> None:
    async with OtaServer({"websocket": {**WEBSOCKET, "version": version}}).running() as url:
        assert (await boot()[0].run(url)).protocol == protocol


@pytest.mark.parametrize(
    "websocket", [{**WEBSOCKET, "a_key_that_is_too_long": 1}, {**WEBSOCKET, "token": "x" * 4000}]
)
async def test_settings_that_do_not_fit_abort_the_boot(websocket: dict[str, Any]) -> None:
    device, _ = boot()
    async with OtaServer({"websocket": websocket}).running() as url:
        with pytest.raises(ConnectError, match="aborts on that at every boot"):
            await device.run(url)
    assert device.counters == Counters(nvs_overflow=1)


@pytest.mark.parametrize(("url", "aborts"), [("", True), (None, False)])
async def test_a_version_that_is_no_number_aborts_the_boot(url: str | None, aborts: bool) -> None:
    """... if firmware looks at it at all."""
    device, _ = boot()
    async with OtaServer(
        {"websocket": WEBSOCKET, "firmware": {"version": "v9", "url": url}}
    ).running() as ota:
        if aborts:
            with pytest.raises(ConnectError, match="aborts"):
                await device.run(ota)
        else:
            await device.run(ota)
    assert device.counters == Counters(bad_version=int(aborts))


async def test_failures_are_tried_again_at_growing_intervals() -> None:
    server = OtaServer(500, b"<html>", 404, {"websocket": WEBSOCKET})
    device, patience = boot()
    async with server.running() as url:
        assert (await device.run(url)).url == "ws://h/"
    assert patience.pauses == [10, 20, 40]
    server = OtaServer(503)
    device, patience = boot()
    async with server.running() as url:
        with pytest.raises(ConnectError, match="answered 503"):
            await device.run(url)
    assert (len(server.asked), patience.pauses[-1], sum(patience.pauses)) == (10, 2560, 5110)


async def test_no_attempts_at_all() -> None:
    with pytest.raises(ConnectError, match="allows no attempt"):
        await boot(policy=BootPolicy(attempts=0))[0].run("http://127.0.0.1:1/")


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ({}, "names no WebSocket address"),
        ({"websocket": {}}, "names no WebSocket address"),
        ({"websocket": WEBSOCKET, "mqtt": {}}, "names an MQTT server"),
        (b"[]", "not an OTA answer"),
    ],
)
async def test_a_boot_that_leads_nowhere(reply: Answer, reason: str) -> None:
    async with OtaServer(reply).running() as url:
        with pytest.raises(ConnectError, match=reason):
            await boot(policy=BootPolicy(attempts=1))[0].run(url)


# ---------------------------------------------------------------- an owner


class Codes(Observer):
    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []

    def on_code(self, code: str, message: str) -> None:
        self.seen.append((code, message))


async def test_waiting_for_an_owner() -> None:
    server = OtaServer(OFFER, {"websocket": WEBSOCKET}, activations=(202, 202, 500, 200))
    codes = Codes()
    device, patience = boot(observer=codes)
    async with server.running() as url:
        result = await device.run(url)
    assert (result.url, result.polls) == ("ws://h/", 4)
    assert codes.seen == [("123456", "Enter 123456")]
    assert patience.pauses == [3, 3, 10]
    headers, body = server.claims[0]
    assert (headers["Device-Id"], headers["Activation-Version"], body) == ("02:aa:00:00:00:01", "1", b"{}")
    assert len(server.asked) == 2


async def test_after_ten_questions_the_ota_address_is_asked_again() -> None:
    server = OtaServer(OFFER, OFFER, {"websocket": WEBSOCKET}, activations=(202,) * 10 + (200,))
    device, patience = boot()
    async with server.running() as url:
        assert (await device.run(url)).polls == 11
    assert patience.pauses == [3] * 10
    assert len(server.asked) == 3


async def test_without_a_challenge_nothing_is_asked() -> None:
    server = OtaServer({"activation": {"code": "1"}}, {"websocket": WEBSOCKET})
    device, patience = boot()
    async with server.running() as url:
        assert (await device.run(url)).polls == 0
    assert patience.pauses == [10] * 10


async def test_a_device_with_a_serial_number_proves_itself() -> None:
    key = bytes(range(32))
    identity = DeviceIdentity("02:aa:00:00:00:02", serial_number="S" * 32, hmac_key=key)
    server = OtaServer(OFFER, {"websocket": WEBSOCKET}, activations=(200,))
    async with server.running() as url:
        await boot(identity=identity)[0].run(url)
    headers, body = server.claims[0]
    assert (headers["Activation-Version"], headers["Serial-Number"]) == ("2", "S" * 32)
    assert json.loads(body) == {
        "algorithm": "hmac-sha256",
        "serial_number": "S" * 32,
        "challenge": "c-1",
        "hmac": hmac.new(key, b"c-1", hashlib.sha256).hexdigest(),
    }


# ---------------------------------------------------------------- firmware


def offering(version: str, **more: Any) -> dict[str, Any]:
    firmware = {"version": version, "url": "BASE/firmware.bin", **more}
    return {"websocket": WEBSOCKET, "firmware": firmware}


@pytest.mark.parametrize(
    ("data", "offer", "runs"),
    [
        (bytes(1000), offering("2.5.0"), "2.5.0"),
        (image(b"2.5.0"), offering("2.5.0"), "2.5.0"),
        (bytes(1000), offering("2.4.2"), "2.4.2"),
        (bytes(1000), offering("1.0", force=1), "1.0"),
    ],
)
async def test_upgrade(data: bytes, offer: dict[str, Any], runs: str) -> None:
    server = OtaServer(offer, {"websocket": WEBSOCKET}, firmware=data)
    device, _ = boot()
    async with server.running() as url:
        assert (await device.run(url)).firmware == runs
    assert server.downloads == (runs != "2.4.2")
    assert [asked["application"]["version"] for asked in server.asked][-1] == runs
    assert device.counters == Counters()


LOOPS: list[Callable[[], OtaServer]] = [
    lambda: OtaServer(offering("1.0", force=1), firmware=bytes(100)),
    lambda: OtaServer(offering("2.5.0"), firmware=image(b"2.4.2")),  # it is not what it is announced as
]


@pytest.mark.parametrize("make", LOOPS)
async def test_an_endless_upgrade_is_counted(make: Callable[[], OtaServer]) -> None:
    server = make()
    device, _ = boot()
    async with server.running() as url:
        await device.run(url)
    assert (server.downloads, device.counters) == (1, Counters(upgrade_loop=1))


@pytest.mark.parametrize("url", ["", "BASE/firmware.bin"])
async def test_firmware_that_is_not_there_is_counted(url: str) -> None:
    server = OtaServer({"websocket": WEBSOCKET, "firmware": {"version": "9.0", "url": url}})
    device, _ = boot()
    async with server.running() as ota:
        assert (await device.run(ota)).firmware == "2.4.2"
    assert device.counters == Counters(failed_upgrade=1)
