"""How devices find their server, and what is told when they do not."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from mynah.sim.load.device import Device
from mynah.sim.load.dial import (
    BAD_REPLY,
    BUSY,
    HUNG_UP,
    TIMED_OUT,
    WANTS_OWNER,
    Dialer,
    Endpoint,
    identity_of,
    read_reply,
)
from mynah.sim.load.record import Stage

from ..scripted import ScriptedServer, silent
from .crowds import crowd, plan, until


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@asynccontextmanager
async def answering(answer: bytes | None) -> AsyncIterator[str]:
    """A server that answers a request with these bytes and hangs up, or never answers."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
        if answer is None:
            await reader.read()
        else:
            writer.write(answer)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", BUSY),
        (b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n", "refused with 401"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", "refused with 200"),
        (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", "not a WebSocket"),
        (b"", HUNG_UP),
    ],
)
async def test_servers_that_open_no_websocket(answer: bytes, why: str) -> None:
    async with answering(answer) as address, crowd(f"ws://{address}/x") as one:
        await until(lambda: one.tally.errors or one.tally.busy)
        assert one.tally.errors == ({} if why == BUSY else {why: 1})
        assert one.tally.busy == (why == BUSY)
        assert one.tally.attempted == (why != BUSY)
        assert one.tally.untried == 0


async def test_nobody_there() -> None:
    for target, why in (
        (f"ws://127.0.0.1:{free_port()}/x", "connection refused"),
        (f"http://127.0.0.1:{free_port()}/ota/", "OTA: connection refused"),
    ):
        async with crowd(target) as one:
            await until(lambda one=one: one.tally.errors)  # type: ignore[misc]
            assert one.tally.errors == {why: 1}


async def test_a_tls_server_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mynah.sim.load.dial.TLS_TIMEOUT_S", 0.3)
    async with answering(b"HTTP/1.1 400 Bad Request\r\n\r\n") as address, crowd(f"wss://{address}/x") as one:
        # It waits for the end of a request, which never comes; so does the device, for a moment.
        await until(lambda: one.tally.errors)
        (kind,) = one.tally.errors
        assert kind in {"TLS handshake failed", "connection reset", "connect timed out"}


async def test_a_server_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mynah.sim.load.crowd.CONNECT_TIMEOUT_S", 0.3)
    for scheme in ("ws", "http"):
        async with answering(None) as address, crowd(f"{scheme}://{address}/x") as one:
            await until(lambda one=one: one.tally.errors)  # type: ignore[misc]
            assert one.tally.errors == {TIMED_OUT: 1}


async def test_no_hello_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async def mute(connection: Any) -> None:
        await connection.drain()

    monkeypatch.setattr("mynah.sim.load.crowd.CONNECT_TIMEOUT_S", 0.3)
    async with ScriptedServer(mute).running() as server, crowd(server.ws_url) as one:
        await until(lambda: one.tally.errors)
        assert one.tally.errors == {"no hello": 1}
        assert one.tally.times.keys() == {Stage.CONNECT}


async def test_each_device_asks_the_ota_address_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mynah.sim.load.crowd._AGAIN_S", (0.0, 0.1))
    async with ScriptedServer(silent, token="t").running() as server, crowd(server.ota_url, 3) as one:
        await until(lambda: one.tally.connected == 3)
        assert one.tally.errors == {}
        assert one.tally.times[Stage.OTA].distribution().count == 3
        asked = {headers["Device-Id"] for headers, _ in server.ota_requests}
        assert asked == {connection.headers["Device-Id"] for connection in server.connections}
        assert len(asked) == 3
        one._devices[0].hang_up("tried")
        await until(lambda: one.tally.succeeded == 4)
        assert len(server.ota_requests) == 3, "a device asks when it boots"


async def test_one_may_ask_for_all() -> None:
    async with (
        ScriptedServer(silent, token="t").running() as server,
        crowd(server.ota_url, 3, ota_once=True) as one,
    ):
        await until(lambda: one.tally.connected == 3)
        assert len(server.ota_requests) == 1


async def test_a_token_of_the_command_line_wins() -> None:
    server = ScriptedServer(silent, token="right")
    async with server.running():
        server._ota = {"websocket": {"url": server.ws_url, "token": "wrong"}}
        async with crowd(server.ota_url, token="right") as one:
            await until(lambda: one.tally.connected)
        async with crowd(server.ota_url) as one:
            await until(lambda: one.tally.errors)
            assert one.tally.errors == {"refused with 401": 1}


@pytest.mark.parametrize(
    ("status", "why"), [(503, {}), (500, {"OTA answered 500": 1}), (302, {"OTA answered 302": 1})]
)
async def test_an_ota_address_that_does_not_help(status: int, why: dict[str, int]) -> None:
    async def handle(request: web.Request) -> web.Response:
        return web.Response(status=status, headers={"Location": "/elsewhere"})

    async with http(handle) as address, crowd(f"http://{address}/ota/") as one:
        await until(lambda: one.tally.errors or one.tally.busy)
        assert one.tally.errors == why
        assert one.tally.busy == (not why)


@asynccontextmanager
async def http(handle: Callable[[web.Request], Any]) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def test_answers_of_an_ota_address() -> None:
    good = b'{"websocket": {"url": "wss://h/x", "token": "t"}, "firmware": {"version": "1"}}'
    assert read_reply(good) == Endpoint("wss://h/x", "t")
    assert read_reply(b'{"websocket": {"url": "ws://h/"}, "activation": {}}') == Endpoint("ws://h/", "")
    wants = b'{"websocket": {"url": "ws://h/"}, "activation": {"code": "123456", "message": "m"}}'
    assert read_reply(wants) == WANTS_OWNER
    for bad in (b"", b"[]", b"\xff", b"{}", b'{"websocket": 3}', b'{"websocket": {"url": "http://h"}}'):
        assert read_reply(bad) == BAD_REPLY
    for url in ("ws://[fe80::1/x", "ws://h:port/", "ws://h:70000/", "ws:///x"):
        assert read_reply(b'{"websocket": {"url": "%s"}}' % url.encode()) == BAD_REPLY


def test_devices_have_names_of_their_own() -> None:
    names = {identity_of(number, 0xABCD).device_id for number in range(70_000)}
    assert len(names) == 70_000
    assert identity_of(1, 0xABCD).device_id == "02:ab:cd:00:00:01"


async def test_devices_come_from_several_addresses() -> None:
    seen: set[str] = set()

    async def script(connection: Any) -> None:
        seen.add(connection.socket._req.transport.get_extra_info("peername")[0])
        await silent(connection)

    sources = ("127.0.0.2", "127.0.0.3", "")
    async with ScriptedServer(script).running() as server, crowd(server.ws_url, 3, sources=sources) as one:
        await until(lambda: one.tally.connected == 3 or one.tally.errors)
        assert one.tally.errors == {}
        assert seen == {"127.0.0.2", "127.0.0.3", "127.0.0.1"}


async def test_what_was_given_up_is_closed() -> None:
    closed = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        closed.set()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        target = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        wanted = plan(target)
        dialer = Dialer(wanted)
        async with crowd(target, 0) as one:
            dialling = asyncio.create_task(dialer.dial(Device(one, 0)))
            await asyncio.sleep(0.1)
            dialling.cancel()
            assert await dialling == TIMED_OUT
            await asyncio.wait_for(closed.wait(), 5)
        await dialer.close()


async def test_an_ota_answer_in_two_pieces() -> None:
    async def handle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        body = b'{"websocket": {"url": "%s"}}' % server.ws_url.encode()
        await response.write(body[:20])
        await asyncio.sleep(0.1)
        await response.write(body[20:])
        return response

    async with (
        ScriptedServer(silent).running() as server,
        http(handle) as address,
        crowd(f"http://{address}/ota/") as one,
    ):
        await until(lambda: one.tally.connected or one.tally.errors)
        assert one.tally.errors == {}


async def test_an_ota_answer_without_end_is_given_up() -> None:
    async def handle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            while True:
                await response.write(bytes(10_000))
        return response

    async with http(handle) as address, crowd(f"http://{address}/ota/") as one:
        await until(lambda: one.tally.errors)
        assert one.tally.errors == {BAD_REPLY: 1}


async def test_a_host_is_tried_at_all_its_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    async with ScriptedServer(silent).running() as server:
        port = int(server.ws_url.rpartition(":")[2].partition("/")[0])
        resolved = 0

        async def getaddrinfo(host: str, wanted: int, **options: Any) -> list[Any]:
            nonlocal resolved
            resolved += host == "somewhere"
            # As where localhost is ::1 first and the server listens on 127.0.0.1 only.
            ports = {"somewhere": (closed, port), "elsewhere": (closed, closed)}.get(host, (wanted,))
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", one)) for one in ports]

        closed = free_port()
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
        async with crowd(f"ws://somewhere:{port}/xiaozhi/v1/", 0) as one:
            dialer = Dialer(plan(server.ws_url))
            for number in range(2):
                connection = await dialer._socket("somewhere", port, Device(one, number))
                connection.close()
            assert resolved == 1
            ((address,),) = dialer._resolved.values()
            assert address.sockaddr == ("127.0.0.1", port), "the one that worked is kept"
            with pytest.raises(ConnectionRefusedError):
                await dialer._socket("elsewhere", port, Device(one, 3))
            await dialer.close()


async def test_half_an_address_is_an_error_and_no_end() -> None:
    target = "ws://127.0.0.1:9/"
    dialer = Dialer(plan(target))
    async with crowd(target, 0) as one:
        for url in ("ws://[fe80::1/x", "ws://127.0.0.1:port/"):
            assert await dialer._connect(Device(one, 0), Endpoint(url)) == "no address"
    await dialer.close()
