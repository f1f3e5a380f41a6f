"""The WebSocket transport over real sockets."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import socket
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest
from picows import WSMsgType

from mynah.net import websocket as module
from mynah.net.address import WEBSOCKET_PATH
from mynah.wire import frames
from mynah.wire.messages import Stt
from tests.conformance.test_lifecycle import masked, open_raw
from tests.servers import app, connect


async def raw(url: str, request: str) -> bytes:
    """Send bytes to the port and return all that comes back until the server hangs up or half a second has passed."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    writer.write(request.encode())
    answer = b""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.5):
            answer = await reader.read(-1)
    if not answer:
        with contextlib.suppress(TimeoutError):
            answer = await asyncio.wait_for(reader.read(4096), 0.5)
    writer.close()
    return answer


def handshake(path: str = WEBSOCKET_PATH, connection: str = "Upgrade", more: str = "") -> str:
    key = base64.b64encode(os.urandom(16)).decode()
    return (
        f"GET {path} HTTP/1.1\r\nHost: mynah\r\nUpgrade: websocket\r\nConnection: {connection}\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n{more}\r\n"
    )


async def first_line(url: str, request: str) -> str:
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    writer.write(request.encode())
    line = await asyncio.wait_for(reader.readline(), 5)
    writer.close()
    return line.decode().strip()


async def test_plain_http_gets_a_plain_answer(tmp_path: Path) -> None:
    async with app(tmp_path) as (_, at):
        answer = await raw(at.ws, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK")
        assert b"Content-Length: 18" in head
        assert body == b"Server is running\n"


@pytest.mark.parametrize("connection", ["Upgrade", "upgrade", "keep-alive, Upgrade", "Upgrade, keep-alive"])
async def test_every_legal_connection_header_upgrades(tmp_path: Path, connection: str) -> None:
    async with app(tmp_path) as (_, at):
        assert await first_line(at.ws, handshake(connection=connection)) == "HTTP/1.1 101 Switching Protocols"


async def test_bad_handshakes_are_refused_before_any_session_exists(tmp_path: Path) -> None:
    async with app(tmp_path) as (server, at):
        assert server.devices is not None
        assert (await first_line(at.ws, handshake(path="/other"))).split()[1] == "404"
        bad_key = handshake().replace("Sec-WebSocket-Key: ", "Sec-WebSocket-Key: x")
        assert (await first_line(at.ws, bad_key)).split()[1] == "400"
        assert (await first_line(at.ws, "nonsense\r\n\r\n")).split()[1] == "400"
        assert len(server.devices) == 0


async def test_a_handshake_in_small_pieces_is_understood(tmp_path: Path) -> None:
    async with app(tmp_path) as (_, at):
        parts = urlsplit(at.ws)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        request = handshake(more="X-Filler: " + "y" * 900 + "\r\n").encode()
        for start in range(0, len(request), 100):
            writer.write(request[start : start + 100])
            await asyncio.sleep(0.002)
        assert (await asyncio.wait_for(reader.readline(), 5)).startswith(b"HTTP/1.1 101")
        writer.close()


async def test_path_with_and_without_slash_and_with_query(tmp_path: Path) -> None:
    async with app(tmp_path) as (_, at):
        for path in ("/xiaozhi/v1", "/xiaozhi/v1/", "/xiaozhi/v1/?device-id=02:00:00:00:00:09"):
            assert (await first_line(at.ws, handshake(path=path))).split()[1] == "101"


@pytest.mark.parametrize("version", ["1", "2", "3", "", "junk"])
async def test_audio_comes_in_the_framing_that_was_asked_for(tmp_path: Path, version: str) -> None:
    async with app(tmp_path) as (_, at), connect(at.ws, Protocol_Version=version) as device:
        await device.hello()
        await device.say(type="listen", state="detect", text="hi")
        await device.until("tts", "sentence_start")
        with contextlib.suppress(TimeoutError):
            await device.until("tts", "stop", timeout_s=0.3)
        number = int(version) if version.isdigit() else 1
        decoded = [frames.decode_audio(number, data) for data in device.audio]
        assert len(decoded) >= 3
        if number == 2:
            stamps = [frame.timestamp for frame in decoded]
            assert stamps == sorted(set(stamps)) and stamps[0] > 0
        await device.say(type="abort")
        await device.until("tts", "stop")


async def test_bad_frames_are_ignored(tmp_path: Path) -> None:
    async with app(tmp_path) as (_, at), connect(at.ws, Protocol_Version="3") as device:
        for bad in (
            "",
            "{",
            "[]",
            '{"type":"nope"}',
            '{"type":"listen","state":"fly"}',
            '{"type":"hello","version":[]}',
        ):
            await device.socket.send_str(bad)
        for bad_audio in (b"", b"\x00", b"\x00\x00\x00\xff", b"\x01\x00\x00\x01x", os.urandom(3000)):
            await device.socket.send_bytes(bad_audio)
        assert (await device.hello())["transport"] == "websocket"
        await device.say(type="ping")
        await device.until("pong")


async def test_fragmented_messages_are_put_together(tmp_path: Path) -> None:
    async with app(tmp_path) as (_, at):
        parts = urlsplit(at.ws)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        writer.write(handshake().encode())
        await reader.readuntil(b"\r\n\r\n")

        def frame(first: int, payload: bytes) -> bytes:
            mask = b"\x01\x02\x03\x04"
            return (
                bytes([first, 0x80 | len(payload)])
                + mask
                + bytes(b ^ mask[i % 4] for i, b in enumerate(payload))
            )

        text = b'{"type":"ping"}'
        writer.write(frame(0x01, text[:5]) + frame(0x00, text[5:9]) + frame(0x80, text[9:]))
        header = await asyncio.wait_for(reader.readexactly(2), 5)
        assert b'"pong"' in await reader.readexactly(header[1])
        writer.close()


async def test_oversize_messages_end_the_connection_and_nothing_else(tmp_path: Path) -> None:
    async with (
        app(tmp_path, "server.limits.max_message_bytes=65536") as (_, at),
        connect(at.ws, "02:00:00:00:00:02") as good,
    ):
        await good.hello()
        async with connect(at.ws) as bad:
            await bad.socket.send_str("x" * 100_000)
            await bad.until("close")
        await good.say(type="ping")
        await good.until("pong")


async def test_websocket_ping_is_answered(tmp_path: Path) -> None:
    async with (
        app(tmp_path) as (_, at),
        aiohttp.ClientSession() as http,
        http.ws_connect(at.ws, heartbeat=0.1) as socket,
    ):
        await socket.send_str('{"type":"hello"}')
        await socket.receive()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.5):  # five heartbeats; an unanswered one would close the connection
                await socket.receive()
        assert not socket.closed


async def test_a_newer_connection_replaces_the_older(tmp_path: Path) -> None:
    async with app(tmp_path) as (server, at), connect(at.ws) as older:
        await older.hello()
        async with connect(at.ws, "02:00:00:00:00:01".upper()) as newer:
            await newer.hello()
            await older.until("close")
            await newer.say(type="ping")
            await newer.until("pong")
            assert server.devices is not None
            assert len(server.devices) == 1


async def test_abrupt_loss_is_a_normal_end(tmp_path: Path) -> None:
    async with app(tmp_path) as (server, at):
        assert server.devices is not None
        async with connect(at.ws) as device:
            await device.hello()
            await device.say(type="listen", state="detect", text="hi")
            await device.until("tts", "sentence_start")
            transport = device.socket._response.connection.transport  # type: ignore[union-attr]
            transport.abort()  # type: ignore[union-attr]
            for _ in range(100):
                await asyncio.sleep(0.01)
                if not len(server.devices):
                    break
        assert len(server.devices) == 0


async def test_tokens(tmp_path: Path) -> None:
    named = 'server.auth.tokens=[{"token": "s3cret-token", "name": "kitchen"}]'
    async with app(tmp_path, "server.auth.enabled=true", named) as (_, at):
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            async with connect(at.ws):
                pass
        assert refused.value.status == 401
        with pytest.raises(aiohttp.WSServerHandshakeError):
            async with connect(at.ws, Authorization="Bearer wrong"):
                pass
        async with connect(at.ws, Authorization="Bearer s3cret-token") as device:
            await device.hello()
        async with connect(
            at.ws + "?authorization=Bearer%20s3cret-token&device-id=02:00:00:00:00:07", ""
        ) as page:
            await page.hello()
        async with aiohttp.ClientSession() as http:
            ask = {"Device-Id": "02:00:00:00:00:08", "Client-Id": "test"}
            answer = await (await http.post(at.ota, json={}, headers=ask)).json()
        token = answer["websocket"]["token"]
        async with connect(at.ws, "02:00:00:00:00:08", Authorization=f"Bearer {token}") as device:
            await device.hello()
        with pytest.raises(aiohttp.WSServerHandshakeError):
            async with connect(at.ws, "02:00:00:00:00:09", Authorization=f"Bearer {token}"):
                pass


@pytest.mark.parametrize("ip", ["0.0.0.0", "127.0.0.1"])
async def test_a_web_page_of_another_site_is_not_this_machine(tmp_path: Path, ip: str) -> None:
    async with app(tmp_path, f"server.ip={ip}", "server.auth.enabled=auto") as (_, at):
        for origin, host, status in (
            ("https://evil.example", "127.0.0.1:8000", "401"),
            ("null", "127.0.0.1:8000", "401"),
            ("http://[::1", "127.0.0.1:8000", "401"),
            ("http://evil.example:8000", "evil.example:8000", "401"),  # his name may lead to our address
            ("http://localhost:8002", "evil.example:8000", "401"),
            ("http://localhost:8002", "127.0.0.1:8000", "101"),
            ("http://127.0.0.1:8002", "localhost:8000", "101"),
        ):
            request = handshake(more=f"Origin: {origin}\r\n").replace("Host: mynah", f"Host: {host}")
            line = await first_line(at.ws, request)
            assert line.split()[1] == status, (origin, host)
        assert (await first_line(at.ws, handshake())).split()[1] == "101"  # no page at all
    open_to_all = (f"server.ip={ip}", "server.auth.enabled=false")
    async with app(tmp_path, *open_to_all) as (_, at):
        line = await first_line(at.ws, handshake(more="Origin: https://evil.example\r\n"))
        assert line.split()[1] == "101"  # somebody has said so


async def test_a_peer_that_does_not_read_is_cut_after_the_grace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CLOSE_GRACE_S", 0.1)
    async with app(tmp_path) as (server, at):
        assert server.devices is not None
        parts = urlsplit(at.ws)
        with socket.socket() as peer:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            peer.connect((parts.hostname, parts.port))
            peer.sendall(handshake().encode())
            while not len(server.devices):
                await asyncio.sleep(0.01)
            link = next(iter(server.devices))._link
            for _ in range(300):
                link._write(WSMsgType.TEXT, b"x" * 1000)
            link.close()
            async with asyncio.timeout(3):
                while len(server.devices):
                    await asyncio.sleep(0.01)


async def test_a_target_that_is_no_address_is_refused(tmp_path: Path) -> None:
    async with app(tmp_path) as (_, at):
        assert (await first_line(at.ws, handshake(path="//[x"))).split()[1] == "400"


async def test_text_that_is_no_text_is_not_sent_and_harms_nobody(tmp_path: Path) -> None:
    async with app(tmp_path) as (server, at), connect(at.ws) as device:
        await device.hello()
        assert server.devices is not None
        next(iter(server.devices))._link.send(Stt("\ud800", "s"))
        await device.say(type="ping")
        await device.until("pong")


async def test_abort_stops_the_answer_and_nothing_of_it_follows(tmp_path: Path) -> None:
    async with app(tmp_path) as (_, at), connect(at.ws) as device:
        await device.hello()
        await device.say(type="listen", state="detect", text="hi")
        await device.until("tts", "sentence_start")
        await device.say(type="abort")
        await device.until("tts", "stop", timeout_s=1)
        heard = len(device.audio)
        with contextlib.suppress(TimeoutError):
            await device.until("tts", "start", timeout_s=0.5)
        assert len(device.audio) == heard
        assert [m["state"] for m in device.messages if m["type"] == "tts"].count("stop") == 1


async def test_a_version_that_is_no_text_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with app(tmp_path) as (_, at):
        parts = urlsplit(at.ws)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        writer.write(handshake().encode().replace(b"Version: 13", b"Version: \xc713"))
        assert (await asyncio.wait_for(reader.readline(), 5)).split()[1] == b"400"
        writer.close()
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize(("sent", "answered"), [(b"", 1000), (b"\x03\xe9", 1001), (b"\x0b\xb8bye", 3000)])
async def test_a_close_is_answered_with_a_legal_code(tmp_path: Path, sent: bytes, answered: int) -> None:
    async with app(tmp_path) as (_, at):
        reader, writer = await open_raw(at.ws)
        writer.write(masked(0x88, sent))
        header = await asyncio.wait_for(reader.readexactly(2), 5)
        assert header[0] == 0x88
        assert int.from_bytes((await reader.readexactly(header[1]))[:2], "big") == answered
        writer.close()
