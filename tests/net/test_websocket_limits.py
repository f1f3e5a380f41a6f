"""What the WebSocket port does to those who want too much: floods, and handshakes that are never finished."""

from __future__ import annotations

import asyncio
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from mynah.net import websocket
from tests.conformance.device import device
from tests.conformance.test_lifecycle import open_raw
from tests.servers import app


@pytest.mark.parametrize("kind", ["text", "binary", "ping", "turns"])
async def test_a_flood_is_cut_off_and_others_go_on(tmp_path: Path, kind: str) -> None:
    async with app(tmp_path) as (server, at), device(at.ws, "02:00:00:00:00:02") as good:
        assert server.devices is not None
        await good.hello()
        async with device(at.ws, "02:00:00:00:00:03") as bad:
            await bad.hello()
            sent = 0
            try:
                while not bad.closed and sent < 50_000:
                    if kind == "text":
                        await bad.socket.send_str('{"type":"ping"}')
                    elif kind == "turns":
                        await bad.socket.send_str('{"type":"listen","state":"detect","text":"hi"}')
                    elif kind == "binary":
                        await bad.socket.send_bytes(b"\xf8\xff\xfe")
                    else:
                        await bad.socket.ping()
                    sent += 1
                    if sent % 100 == 0:
                        await asyncio.sleep(0)
            except ConnectionError:
                pass
            await bad.wait(lambda: bad.closed, 5)
            assert bad.socket.close_code == websocket.POLICY_VIOLATION
            each = websocket.TURN_UNITS + 1 if kind == "turns" else 1
            assert sent >= websocket.FLOOD_UNITS // each - 10
        await good.alive()
        async with asyncio.timeout(websocket.CLOSE_GRACE_S + 5):
            while len(server.devices) > 1:
                await asyncio.sleep(0.02)


async def test_large_messages_count_for_more(tmp_path: Path) -> None:
    async with app(tmp_path) as (_, at), device(at.ws) as bad:
        await bad.hello()
        for _ in range(100):  # of 25 units each
            if bad.closed:
                break
            try:
                await bad.socket.send_str("x" * 100_000)
            except ConnectionError:
                break
            await asyncio.sleep(0.01)
        await bad.wait(lambda: bad.closed, 5)
        assert bad.socket.close_code == websocket.POLICY_VIOLATION


async def test_a_lively_device_is_no_flood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket, "FLOOD_WINDOW_S", 0.05)
    async with app(tmp_path) as (_, at), device(at.ws) as one:
        await one.hello()
        for _ in range(60):  # 2400 units in more than the window
            for _ in range(40):
                await one.socket.send_bytes(b"\xf8\xff\xfe")
            await asyncio.sleep(0.002)
        await one.alive()


async def test_the_oldest_unfinished_handshake_makes_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(websocket, "MAX_HANDSHAKES", 3)
    async with app(tmp_path) as (_, at):
        parts = urlsplit(at.ws)
        waiting = [await asyncio.open_connection(parts.hostname, parts.port) for _ in range(5)]
        for _, writer in waiting:
            writer.write(b"GET /xiaozhi/v1/ HTTP/1.1\r\n")
        async with device(at.ws) as good:  # done at once, so never the oldest for long
            await good.hello()
            for reader, _ in waiting[:2]:
                with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
                    await asyncio.wait_for(reader.readexactly(1), 5)
            await good.alive()
        for _, writer in waiting:
            writer.close()


async def test_finished_handshakes_are_forgotten(tmp_path: Path) -> None:
    async with app(tmp_path) as (server, at):
        assert server._websocket is not None
        for _ in range(3):
            async with device(at.ws) as one:
                await one.hello()
        reader, writer = await asyncio.open_connection(urlsplit(at.ws).hostname, urlsplit(at.ws).port)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.read()
        writer.close()
        reader, writer = await asyncio.open_connection(urlsplit(at.ws).hostname, urlsplit(at.ws).port)
        writer.close()
        async with asyncio.timeout(5):
            while server._websocket._handshakes:
                await asyncio.sleep(0.01)


async def test_what_is_no_websocket_is_not_our_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with app(tmp_path) as (_, at):
        _, writer = await open_raw(at.ws)
        writer.write(b"\xff" * 100)
        async with device(at.ws, "02:00:00:00:00:02") as good:
            await good.hello()
        writer.close()
    assert not [record for record in caplog.records if record.name.startswith("picows")]
