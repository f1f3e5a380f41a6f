"""What devices are answered at boot."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mynah import config
from mynah.net.address import RequestOrigin
from mynah.net.ota import OtaService
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
