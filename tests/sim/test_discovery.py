import asyncio
import json
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest

from mynah.sim.discovery import DeviceIdentity, asking_for, fetch_reply
from mynah.sim.link import ConnectError
from mynah.wire.ota import OtaRequest, WebsocketSettings, decode_reply, parse_request
from tests.certificates import write_certificate

from .scripted import ScriptedServer, silent

IDENTITY = DeviceIdentity("02:aa:bb:cc:dd:ee", language="zh-CN")


async def test_discovery() -> None:
    async with ScriptedServer(silent, token="t").running() as server:
        reply = decode_reply(await fetch_reply(server.ota_url, IDENTITY))
    assert reply.websocket == WebsocketSettings(server.ws_url, "t", 1)
    headers, body = server.ota_requests[0]
    assert headers["Device-Id"] == body["mac_address"] == "02:aa:bb:cc:dd:ee"
    assert headers["Client-Id"] == body["uuid"] == IDENTITY.client
    assert parse_request(headers, json.dumps(body).encode()) == OtaRequest(
        device_id="02:aa:bb:cc:dd:ee",
        client_id=IDENTITY.client,
        activation_version="1",
        user_agent="mynah-simulator/2.4.2",
        language="zh-CN",
        board_type="mynah-simulator",
        board_name="mynah-simulator",
        app_name="xiaozhi",
        app_version="2.4.2",
        chip_model="esp32s3",
    )


def test_the_same_device_is_the_same_client() -> None:
    assert IDENTITY.client == DeviceIdentity("02:aa:bb:cc:dd:ee").client
    assert IDENTITY.client != DeviceIdentity("02:aa:bb:cc:dd:ef").client
    assert DeviceIdentity(client_id="mine").client == "mine"


def test_websocket_headers() -> None:
    assert "Authorization" not in IDENTITY.websocket_headers("", 1)
    assert IDENTITY.websocket_headers("abc", 3)["Authorization"] == "Bearer abc"
    assert IDENTITY.websocket_headers("Basic abc", 3)["Authorization"] == "Basic abc"


async def answering(answer: bytes, tls: ssl.SSLContext | None = None) -> tuple[asyncio.Server, str]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(4096)
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    return server, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/ota/"


def http(status: str, body: bytes = b"", extra: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{extra}\r\n".encode() + body


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (http("404 Not Found"), "answered 404, and devices take only 200"),
        (http("503 Full", b"try later\n"), r"answered 503 \(try later\), and devices take only 200"),
        (b"", "hung up without an answer: is it https:// there?"),
        (http("301 Moved", extra="Location: http://127.0.0.1:1/\r\n"), "answered 301"),
        (http("200 OK", b" " * 70_000), "answered more than 65536 bytes"),
        (b"nonsense\r\n\r\n", "cannot ask"),
    ],
)
async def test_bad_answers(answer: bytes, reason: str) -> None:
    server, url = await answering(answer)
    async with server:
        with pytest.raises(ConnectError, match=reason):
            await fetch_reply(url, IDENTITY)


async def test_nobody_answers() -> None:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    with pytest.raises(ConnectError, match=f"nothing answers at http://127.0.0.1:{port}/.*mynah serve"):
        await fetch_reply(f"http://127.0.0.1:{port}/", IDENTITY)


async def test_no_answer_in_time() -> None:
    async def mute(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.3)
        writer.close()

    server = await asyncio.start_server(mute, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        with pytest.raises(ConnectError, match=r"did not answer within 0\.1 s"):
            await fetch_reply(url, IDENTITY, timeout_s=0.1)
        await asyncio.sleep(0.3)


@pytest.mark.parametrize("url", ["", "nonsense", "ws://127.0.0.1/"])
async def test_not_an_address(url: Any) -> None:
    with pytest.raises(ConnectError, match="is not an OTA address"):
        await fetch_reply(url, IDENTITY)


async def test_tls_on_one_side_only(tmp_path: Path) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*write_certificate(tmp_path))
    server, url = await answering(http("200 OK", b"{}"), context)
    async with server:
        with pytest.raises(ConnectError, match=r"is it https:// there?"):
            await fetch_reply(url, IDENTITY)
        secure = url.replace("http", "https")
        with pytest.raises(ConnectError, match=r"nobody vouches for \(self-signed.*: pass --insecure"):
            await fetch_reply(secure, IDENTITY)
        assert await fetch_reply(secure, IDENTITY, verify_tls=False) == b"{}"
    server, url = await answering(http("200 OK", b"{}"))
    async with server:
        with pytest.raises(ConnectError, match=r"TLS handshake failed: is it http:// there?"):
            await fetch_reply(url.replace("http", "https"), IDENTITY)


def test_asking_for_another_transport() -> None:
    assert asking_for("http://h/ota/", "") == "http://h/ota/"
    assert asking_for("http://h/ota/", "pull4g") == "http://h/ota/?transport=pull4g"
    assert asking_for("http://h/ota/?a=1", "pull4g") == "http://h/ota/?a=1&transport=pull4g"
