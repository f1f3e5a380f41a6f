"""The composition root."""

from __future__ import annotations

import asyncio
import socket
import ssl
import warnings
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest

from mynah.app import Addresses, App
from mynah.config import load
from mynah.errors import PortInUseError, ProviderError
from tests.certificates import write_certificate
from tests.conformance.raw_http import ask
from tests.servers import FAKES, LOOPBACK, Client, app


def test_ready_line_names_every_service() -> None:
    line = Addresses("ws://h:1/xiaozhi/v1/", "http://h:2/xiaozhi/ota/").ready_line()
    assert line == "READY ws=ws://h:1/xiaozhi/v1/ ota=http://h:2/xiaozhi/ota/"


async def test_ports_are_free_ones_and_on_loopback(tmp_path: Path) -> None:
    async with app(tmp_path) as (_, one), app(tmp_path) as (_, other):
        assert one.ws != other.ws
        assert one.ws.startswith("ws://127.0.0.1:")


async def test_a_failed_start_leaves_nothing_open(tmp_path: Path) -> None:
    async with app(tmp_path) as (_, at):
        taken = at.ws.rsplit(":", 1)[1].split("/")[0]
        settings = load(FAKES, [*LOOPBACK, f"log.data_dir={tmp_path}", f"server.port={taken}"], environ={})
        server = App(settings)
        with pytest.raises(PortInUseError, match=r"server\.port"):
            await server.start()
        await server.stop()
        await server.stop()


async def test_providers_that_cannot_start_stop_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mynah.providers.tts.fake import FakeTts

    async def broken(self: object) -> None:
        raise ValueError("no voice")  # a vendor's error, not one of ours

    monkeypatch.setattr(FakeTts, "start", broken)
    server = App(load(FAKES, [*LOOPBACK, f"log.data_dir={tmp_path}"], environ={}))
    with pytest.raises(ProviderError, match="no voice"):
        await server.start()
    await server.stop()


async def test_only_the_listed_functions_are_offered(tmp_path: Path) -> None:
    listed = 'Intent.function_call={"type": "function_call", "functions": ["get_time", "nobody"]}'
    async with app(tmp_path, "selected_module.Intent=function_call", listed) as (server, _):
        assert server.devices is not None
        tools = server.devices._services.toolbox.for_session()
        assert [spec.name for spec in tools.specs()] == ["get_time"]
    async with app(tmp_path, "selected_module.Intent=function_call") as (server, _):
        assert server.devices is not None
        assert len(server.devices._services.toolbox.for_session().specs()) > 10


async def test_with_a_certificate_both_ports_speak_tls(tmp_path: Path) -> None:
    cert, key = write_certificate(tmp_path)
    put_image(tmp_path)
    tls = (f"server.tls.cert={cert}", f"server.tls.key={key}")
    trusting = ssl.create_default_context(cafile=str(cert))
    async with app(tmp_path, *tls, "TTS.FakeTTS.seconds=0.2") as (_, at):
        assert at.ws.startswith("wss://127.0.0.1:")
        assert at.ota.startswith("https://127.0.0.1:")
        connector = aiohttp.TCPConnector(ssl=trusting)
        async with aiohttp.ClientSession(connector=connector) as http:
            headers = {"Device-Id": "02:00:00:00:00:01", "Client-Id": "c", "User-Agent": "board/1.0"}
            body = {"board": {"type": "board"}, "application": {"version": "1.0"}}
            async with http.post(at.ota, headers=headers, json=body) as answer:
                reply = await answer.json()
            assert reply["websocket"]["url"] == at.ws
            assert reply["firmware"]["url"] == f"{at.ota}download/board_1.1.bin"
            async with http.get(reply["firmware"]["url"]) as answer:
                assert await answer.read() == IMAGE
            async with http.ws_connect(at.ws, headers=headers) as link:
                device = Client(link)
                await device.hello()
                await device.say(type="listen", state="detect", text="tell me something")
                await device.until("tts", "stop")
                assert device.audio
        with pytest.raises((aiohttp.ClientError, OSError)):  # and nothing else
            async with aiohttp.ClientSession() as http, http.get(at.ota.replace("https:", "http:")):
                pass
        await asyncio.to_thread(shake_hands, urlsplit(at.ota).port, trusting)
        old = ssl.create_default_context(cafile=str(cert))
        old.set_ciphers("ALL:@SECLEVEL=0")  # else this end itself would refuse
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
        with pytest.raises(OSError):  # an SSLError is one
            await asyncio.to_thread(shake_hands, urlsplit(at.ota).port, old)


def shake_hands(port: int, context: ssl.SSLContext) -> None:
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as raw,
        context.wrap_socket(raw, server_hostname="127.0.0.1"),
    ):
        pass


async def test_addresses_are_right_on_every_interface(tmp_path: Path) -> None:
    """Without a usable Host header the interface that was reached is named; behind a proxy, the proxy."""
    put_image(tmp_path)
    everywhere = ("server.ip=0.0.0.0", "server.auth.enabled=false")
    async with app(tmp_path, *everywhere, "server.trusted_proxies=[127.0.0.2]") as (_, at):
        port, ws_port = (urlsplit(url).port for url in (at.ota, at.ws))
        for host, headers, expected in (
            ("127.0.0.1", {"Host": "0.0.0.0"}, ("ws://127.0.0.1:{ws}", "http://127.0.0.1:{http}")),
            ("127.0.0.3", {"Host": "not a host"}, ("ws://127.0.0.3:{ws}", "http://127.0.0.3:{http}")),
            ("127.0.0.3", {"Host": "box.lan:8080"}, ("ws://box.lan:{ws}", "http://box.lan:8080")),
            ("127.0.0.1", FORWARDED, ("ws://inner:{ws}", "http://inner")),
        ):
            reply = await ask(f"http://{host}:{port}/xiaozhi/ota/", BOARD, headers=headers)
            urls = reply.json()["websocket"]["url"], reply.json()["firmware"]["url"]
            paths = ("/xiaozhi/v1/", "/xiaozhi/ota/download/board_1.1.bin")
            places = (place.format(ws=ws_port, http=port) for place in expected)
            assert urls == tuple(place + path for place, path in zip(places, paths, strict=True))
        trusted = await ask(
            f"http://127.0.0.1:{port}/xiaozhi/ota/", BOARD, headers=FORWARDED, source="127.0.0.2"
        )
        assert trusted.json()["websocket"]["url"] == "wss://v.org:8443/voice/xiaozhi/v1/"
        assert trusted.json()["firmware"]["url"] == (
            "https://v.org:8443/voice/xiaozhi/ota/download/board_1.1.bin"
        )


IMAGE = b"\xe9mage" * 50_000
BOARD = {"board": {"type": "board"}, "application": {"version": "1.0"}}
FORWARDED = {
    "Host": "inner",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "v.org:8443",
    "X-Forwarded-Prefix": "/voice",
}


def put_image(data_dir: Path) -> None:
    (data_dir / "firmware").mkdir()
    (data_dir / "firmware" / "board_1.1.bin").write_bytes(IMAGE)
