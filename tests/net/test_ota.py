"""What devices are answered at boot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loguru import logger

from mynah import config
from mynah.net.address import RequestOrigin
from mynah.net.firmware import FirmwareFolder
from mynah.net.ota import OtaService, accepted_language
from mynah.security.binding import MAX_PENDING_PER_SOURCE, Bindings
from mynah.security.tokens import Authenticator, TokenIssuer
from mynah.wire.ota import decode_reply

NOW = 1_800_000_000.25  # 2027-01-15 08:00 UTC
MAC = "aa:bb:cc:dd:ee:ff"
ISSUER = TokenIssuer(b"0123456789abcdef")


def service(*overrides: str) -> OtaService:
    settings = config.defaults("timezone=Europe/Berlin", *overrides)
    return OtaService(settings, 8000, Authenticator(settings, ISSUER), clock=lambda: NOW)


def ask(service: OtaService, headers: dict[str, str], body: bytes = b"") -> dict[str, Any]:
    origin = RequestOrigin({"host": "192.168.1.5:8003", **headers}, "192.168.1.77", "192.168.1.5")
    data = service.reply(origin, body)
    decode_reply(data)  # what a device's flash would not survive is refused here
    reply: dict[str, Any] = json.loads(data)
    return reply


def test_headers_alone_are_enough() -> None:
    reply = ask(service(), {"device-id": MAC.upper(), "client-id": "c-1", "user-agent": "bread/1.2.3"})
    assert reply["server_time"] == {"timestamp": 1_800_000_000_250, "timezone_offset": 60}
    assert reply["firmware"] == {"version": "1.2.3", "url": ""}
    websocket = reply["websocket"]
    assert websocket["url"] == "ws://192.168.1.5:8000/xiaozhi/v1/"
    assert websocket["version"] == 1
    assert ISSUER.verify(websocket["token"], MAC, "c-1", NOW)
    assert not ISSUER.verify(websocket["token"], MAC, "c-2", NOW)
    assert set(reply) == {"server_time", "firmware", "websocket"}


@pytest.mark.parametrize(
    ("host", "overrides", "told"),
    [
        ("192.168.1.5:8003", (), ("192.168.1.5", False)),
        ("[fd00::1]:8003", (), ("fd00::1", False)),
        ("192.168.1.5:8003", ("server.websocket=wss://voice.example/xiaozhi/v1/",), ("voice.example", False)),
        ("h:8003", ("server.tls.cert=c.pem", "server.tls.key=k.pem"), ("h", True)),
        (
            "h:8003",
            ("server.tls.cert=c.pem", "server.tls.key=k.pem", "server.pull4g.tls=false"),
            ("h", False),
        ),
    ],
)
def test_who_asks_for_it_is_told_where_answers_are_fetched(
    host: str, overrides: tuple[str, ...], told: tuple[str, bool]
) -> None:
    settings = config.defaults(*overrides)
    made = OtaService(settings, 8000, Authenticator(settings, ISSUER), clock=lambda: NOW, pull4g_port=10002)
    origin = RequestOrigin({"host": host, "device-id": MAC, "client-id": "c"}, "192.168.1.77", "192.168.1.5")
    found = decode_reply(made.reply(origin, b"", "pull4g"))
    assert found.pull4g is not None
    assert found.websocket is not None
    assert (found.pull4g.host, found.pull4g.tls) == told
    assert found.pull4g.port == 10002
    assert found.pull4g.token == found.websocket.token
    assert ISSUER.verify(found.pull4g.token, MAC, "c", NOW)
    for unasked in (
        made.reply(origin, b""),
        made.reply(origin, b"", "mqtt"),
        service().reply(origin, b"", "pull4g"),
    ):
        assert "pull4g" not in json.loads(unasked)


def test_the_body_says_the_version() -> None:
    body = json.dumps({"mac_address": MAC, "uuid": "c", "application": {"version": "2.4.2"}}).encode()
    reply = ask(service(), {}, body)
    assert reply["firmware"] == {"version": "2.4.2", "url": ""}
    assert ISSUER.verify(reply["websocket"]["token"], MAC, "c", NOW)


def test_without_a_device_id_the_answer_is_usable() -> None:
    reply = ask(service(), {}, b'{"ssid": "a"b"}')
    assert reply["websocket"]["url"]
    # A token without any id in it would open the door to every device.
    assert reply["websocket"]["token"] == ""
    odd = ask(service(), {"device-id": "My-Board"})
    assert ISSUER.verify(odd["websocket"]["token"], "my-board", "", NOW)
    assert not ISSUER.verify(odd["websocket"]["token"], MAC, "", NOW)


def test_no_token_when_none_is_needed() -> None:
    reply = ask(service("server.auth.enabled=false"), {"device-id": MAC})
    assert reply["websocket"]["token"] == ""


@pytest.mark.parametrize(
    ("override", "minutes"),
    [
        ("server.timezone_offset=+8", 480),
        ("server.timezone_offset=-210", -210),
        ("timezone=Asia/Kolkata", 330),
    ],
)
def test_the_time_zone_told_to_devices(override: str, minutes: int) -> None:
    assert ask(service(override), {})["server_time"]["timezone_offset"] == minutes


@pytest.mark.parametrize(
    ("board", "told"),
    [
        ({"type": "bread-compact", "name": "kitchen"}, "(bread-compact 2.4.2, calls itself kitchen)"),
        ({"type": "bread-compact", "name": "bread-compact"}, "(bread-compact 2.4.2)"),
        ({"type": "bread-compact"}, "(bread-compact 2.4.2, calls itself other)"),
        ({}, "(unknown board 2.4.2, calls itself other)"),
    ],
)
def test_the_log_names_the_type_that_firmware_is_found_by(board: dict[str, str], told: str) -> None:
    lines: list[str] = []
    sink = logger.add(lambda line: lines.append(str(line)), format="{message}")
    body = json.dumps({"application": {"version": "2.4.2"}, "board": board}).encode()
    ask(service(), {"device-id": MAC, "user-agent": "other/1.0"}, body)
    logger.remove(sink)
    assert lines[0].startswith(f"{MAC} {told} asked at boot, sent to ws://")


def test_a_person_gets_plain_words() -> None:
    origin = RequestOrigin({"host": "box"}, "10.0.0.1")
    text = service().welcome(origin, as_html=False)
    assert "Mynah is running" in text
    assert "ws://box:8000/xiaozhi/v1/" in text
    assert "handed out" in text
    assert "not needed" in service("server.auth.enabled=false").welcome(origin, as_html=False)
    page = service("server.websocket=ws://a/<script>").welcome(origin, as_html=True)
    assert page.startswith("<!DOCTYPE html>")
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_the_page_speaks_the_first_language_there_are_texts_in() -> None:
    for header, expected in (
        ("", "en"),
        ("zh-CN,zh;q=0.9,en;q=0.8", "zh"),
        ("fr-FR, en;q=0.5, zh_TW;q=0.7", "zh"),
        ("de", "en"),
        ("en, zh", "en"),
        ("zh;q=x,;;,q=1", "zh"),
    ):
        assert accepted_language(header) == expected
        origin = RequestOrigin({"host": "box", "accept-language": header}, "10.0.0.1")
        page = service().welcome(origin, as_html=True)
        assert f'<html lang="{expected}">' in page
        assert ("正在运行" in page) is (expected == "zh")
        assert "http" not in page, "nothing from elsewhere"


async def test_the_page_says_how_devices_get_in_and_what_firmware_there_is(tmp_path: Path) -> None:
    (tmp_path / "board_1.0.bin").write_bytes(b"\xe9")
    folder = FirmwareFolder(tmp_path)
    origin = RequestOrigin({"host": "box"}, "10.0.0.1")
    settings = config.defaults()
    authenticator = Authenticator(settings, ISSUER)
    made = OtaService(settings, 8000, authenticator, bindings=Bindings(), firmware=folder)
    await made.refresh()
    text = made.welcome(origin, as_html=False)
    assert "server.binding is code" in text
    assert "Firmware images on offer: 1\n" in text
    assert "server.binding is open" in service().welcome(origin, as_html=False)


def unbound(*overrides: str) -> tuple[OtaService, Bindings]:
    settings, bindings = config.defaults(*overrides), Bindings(clock=lambda: NOW)
    authenticator = Authenticator(settings, ISSUER, lambda: NOW, bindings.is_bound)
    return OtaService(settings, 8000, authenticator, lambda: NOW, bindings=bindings), bindings


def test_an_unknown_device_gets_a_code_and_no_token() -> None:
    ota, bindings = unbound()
    device = {"device-id": MAC, "client-id": "c-1"}
    reply = ask(ota, device | {"accept-language": "zh-CN"})
    assert reply["websocket"]["token"] == ""
    code = reply["activation"]["code"]
    assert f"bind {code}" in reply["activation"]["message"]
    assert "绑定" in reply["activation"]["message"]
    bindings.bind(code)
    bound = ask(ota, device)
    assert "activation" not in bound
    assert ISSUER.verify(bound["websocket"]["token"], MAC, "c-1", NOW)
    stranger = ask(ota, {"device-id": MAC, "client-id": "guessed"})
    assert stranger["websocket"]["token"] == "", "who knows the MAC address only stays outside"
    assert stranger["activation"]["code"] != code


def test_codes_are_counted_by_who_asks_for_them_behind_a_proxy_too() -> None:
    for overrides, apart in (((), False), (("server.trusted_proxies=[192.168.1.77]",), True)):
        ota, bindings = unbound(*overrides)
        honest = {"device-id": MAC, "client-id": "c-1", "x-forwarded-for": "198.51.100.1"}
        code = ask(ota, honest)["activation"]["code"]
        for number in range(MAX_PENDING_PER_SOURCE):
            invented = {"device-id": f"02:00:00:00:01:{number:02x}", "x-forwarded-for": "203.0.113.1"}
            ask(ota, invented)
        assert bindings.pending == MAX_PENDING_PER_SOURCE + apart
        assert (ask(ota, honest)["activation"]["code"] == code) is apart


def test_who_tells_no_id_has_nothing_to_bind_and_no_way_in() -> None:
    ota, bindings = unbound()
    reply = ask(ota, {"client-id": "c-1"})
    assert "activation" not in reply
    assert reply["websocket"]["token"] == ""
    assert bindings.pending == 0


HEADERS = st.dictionaries(
    st.sampled_from(["device-id", "client-id", "user-agent", "accept-language", "host", "serial-number"]),
    st.text(max_size=300),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=10,
)
APPLICATION = JSON | st.fixed_dictionaries({"version": st.text()})
KNOWN = st.fixed_dictionaries(
    {}, optional={"mac_address": JSON, "uuid": JSON, "application": APPLICATION, "board": JSON}
)


@given(HEADERS, st.binary(max_size=200) | KNOWN.map(lambda tree: json.dumps(tree).encode()))
def test_every_device_gets_an_answer_it_survives(headers: dict[str, str], body: bytes) -> None:
    websocket = ask(service(), headers, body)["websocket"]
    assert websocket["url"].startswith("ws://")
    assert len(websocket["token"]) < 200
    assert " " not in websocket["token"]


@given(HEADERS, st.binary(max_size=200) | KNOWN.map(lambda tree: json.dumps(tree).encode()))
def test_every_unknown_device_gets_an_answer_it_survives(headers: dict[str, str], body: bytes) -> None:
    ota, _ = unbound()
    reply = ask(ota, headers, body)
    assert reply["websocket"]["token"] == ""
