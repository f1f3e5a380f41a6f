"""Addresses handed out and listened on."""

from __future__ import annotations

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mynah import config
from mynah.errors import ConfigError, PortInUseError
from mynah.net.address import (
    RequestOrigin,
    carries_forwarding,
    http_address,
    is_trusted,
    lan_address,
    listening_socket,
    vision_address,
)
from mynah.net.placement import placement_of

TRUSTED = ("server.trusted_proxies=[10.0.0.0/8, 'fd00::/8']",)


def address(
    headers: dict[str, str],
    *overrides: str,
    peer: str = "10.1.1.1",
    local: str = "192.168.1.5",
    secure: bool = False,
) -> str:
    origin = RequestOrigin(headers, peer, local, secure)
    return placement_of(config.defaults(*overrides), 8000).websocket_url("", origin)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("192.168.1.5:8003", "ws://192.168.1.5:8000/xiaozhi/v1/"),
        ("voice.local", "ws://voice.local:8000/xiaozhi/v1/"),
        ("[fd00::5]:8003", "ws://[fd00::5]:8000/xiaozhi/v1/"),
        ("", "ws://192.168.1.5:8000/xiaozhi/v1/"),
        ("0.0.0.0:8003", "ws://192.168.1.5:8000/xiaozhi/v1/"),
        ("evil/path", "ws://192.168.1.5:8000/xiaozhi/v1/"),
        ("a b", "ws://192.168.1.5:8000/xiaozhi/v1/"),
        ("x" * 300, "ws://192.168.1.5:8000/xiaozhi/v1/"),
    ],
)
def test_the_name_the_device_used(host: str, expected: str) -> None:
    assert address({"host": host} if host else {}) == expected


def test_the_interface_when_the_request_names_none() -> None:
    assert address({}, local="fd00::7%eth0") == "ws://[fd00::7]:8000/xiaozhi/v1/"
    assert address({}, local="::ffff:10.2.3.4") == "ws://10.2.3.4:8000/xiaozhi/v1/"
    assert address({}, local="") == f"ws://{lan_address()}:8000/xiaozhi/v1/"
    assert address({"host": "a"}, secure=True) == "wss://a:8000/xiaozhi/v1/"


def test_the_setting_wins_unless_it_is_the_templates_example() -> None:
    forwarded = {"host": "h", "x-forwarded-proto": "https"}
    own = "server.websocket=wss://voice.example.org/xiaozhi/v1/"
    assert address(forwarded, own, *TRUSTED) == "wss://voice.example.org/xiaozhi/v1/"
    example = "server.websocket=ws://你的ip或者域名:端口号/xiaozhi/v1/"
    assert address({"host": "h"}, example) == "ws://h:8000/xiaozhi/v1/"


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"x-forwarded-proto": "https"}, "wss://inner/xiaozhi/v1/"),
        ({"x-forwarded-proto": "http"}, "ws://inner/xiaozhi/v1/"),
        (
            {"x-forwarded-proto": "https, http", "x-forwarded-host": "v.example.org, in"},
            "wss://v.example.org/xiaozhi/v1/",
        ),
        (
            {"x-forwarded-proto": "https", "x-forwarded-host": "v.org:8443"},
            "wss://v.org:8443/xiaozhi/v1/",
        ),
        (
            {"x-forwarded-proto": "https", "x-forwarded-host": "v.org", "x-forwarded-port": "443"},
            "wss://v.org/xiaozhi/v1/",
        ),
        (
            {"x-forwarded-proto": "http", "x-forwarded-host": "v.org", "x-forwarded-port": "8080"},
            "ws://v.org:8080/xiaozhi/v1/",
        ),
        (
            {"x-forwarded-proto": "https", "x-forwarded-host": "v.org", "x-forwarded-prefix": "/voice/"},
            "wss://v.org/voice/xiaozhi/v1/",
        ),
        (
            {"x-forwarded-proto": "https", "x-forwarded-host": "v.org", "x-forwarded-prefix": "/a?b"},
            "wss://v.org/xiaozhi/v1/",
        ),
        (
            {"forwarded": 'for="[2001:db8::1]";proto=https;host="v.org:8443", for=10.0.0.1'},
            "wss://v.org:8443/xiaozhi/v1/",
        ),
        ({"forwarded": "proto=https;host=v.org"}, "wss://v.org/xiaozhi/v1/"),
        ({"x-forwarded-host": "[fd00::9]:444", "x-forwarded-proto": "https"}, "wss://[fd00::9]:444/xiaozhi/v1/"),
        ({"x-forwarded-for": "1.2.3.4"}, "ws://inner:8000/xiaozhi/v1/"),
        ({"x-forwarded-proto": "gopher"}, "ws://inner:8000/xiaozhi/v1/"),
        ({"x-forwarded-proto": "https", "x-forwarded-host": "bad/host"}, "ws://inner:8000/xiaozhi/v1/"),
    ],
)  # fmt: skip
def test_a_trusted_proxy_is_believed_and_others_are_not(headers: dict[str, str], expected: str) -> None:
    headers = {"host": "inner", **headers}
    assert address(headers, *TRUSTED) == expected
    assert address(headers, *TRUSTED, peer="192.168.1.9") == "ws://inner:8000/xiaozhi/v1/"
    assert address(headers) == "ws://inner:8000/xiaozhi/v1/"


def http(
    headers: dict[str, str],
    *overrides: str,
    peer: str = "10.1.1.1",
    local: str = "192.168.1.5",
    local_port: int = 8003,
    secure: bool = False,
    port: int | None = None,
) -> str:
    origin = RequestOrigin(headers, peer, local, secure, local_port)
    return http_address(config.defaults(*overrides), origin, "/x", port)


@pytest.mark.parametrize(
    ("host", "same_port", "other_port"),
    [
        ("192.168.1.5:8003", "http://192.168.1.5:8003/x", "http://192.168.1.5:9000/x"),
        ("voice.local", "http://voice.local/x", "http://voice.local:9000/x"),
        ("box:1234", "http://box:1234/x", "http://box:9000/x"),  # a container publishes 8003 as 1234
        ("[fd00::5]:8003", "http://[fd00::5]:8003/x", "http://[fd00::5]:9000/x"),
        ("", "http://192.168.1.5:8003/x", "http://192.168.1.5:9000/x"),
        ("0.0.0.0:8003", "http://192.168.1.5:8003/x", "http://192.168.1.5:9000/x"),
        ("evil/path", "http://192.168.1.5:8003/x", "http://192.168.1.5:9000/x"),
    ],
)
def test_our_http_port_as_the_asker_sees_it(host: str, same_port: str, other_port: str) -> None:
    headers = {"host": host} if host else {}
    assert http(headers) == same_port
    assert http(headers, port=9000) == other_port
    assert http(headers, secure=True) == same_port.replace("http:", "https:")
    assert http(headers, "server.tls.cert=c") == same_port.replace("http:", "https:")


def test_the_interface_for_http() -> None:
    assert http({}, local="fd00::7%eth0") == "http://[fd00::7]:8003/x"
    assert http({}, local="", local_port=0) == f"http://{lan_address()}/x"


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"x-forwarded-proto": "https"}, "https://inner/x"),
        ({"x-forwarded-proto": "wss", "x-forwarded-host": "v.org"}, "https://v.org/x"),
        ({"x-forwarded-host": "v.org", "x-forwarded-port": "8080"}, "http://v.org:8080/x"),
        (
            {"x-forwarded-proto": "https", "x-forwarded-host": "v.org:8443", "x-forwarded-prefix": "/voice"},
            "https://v.org:8443/voice/x",
        ),
        ({"forwarded": 'proto=https;host="[fd00::9]:444"'}, "https://[fd00::9]:444/x"),
    ],
)
def test_http_behind_a_proxy(headers: dict[str, str], expected: str) -> None:
    headers = {"host": "inner", **headers}
    assert http(headers, *TRUSTED) == http(headers, *TRUSTED, port=9000) == expected
    assert http(headers, *TRUSTED, peer="192.168.1.9") == "http://inner/x"


def test_the_vision_service_is_on_the_http_port() -> None:
    origin = RequestOrigin({"host": "box"}, "10.1.1.1", "192.168.1.5", local_port=8000)
    assert vision_address(config.defaults(), origin, 8003) == "http://box:8003/mcp/vision/explain"
    secure = config.defaults("server.tls.cert=c")
    assert vision_address(secure, origin, 8003) == "https://box:8003/mcp/vision/explain"
    own = config.defaults("server.vision_explain=https://eyes.example.org/v")
    assert vision_address(own, origin, 8003) == "https://eyes.example.org/v"


def test_who_is_a_trusted_proxy() -> None:
    proxies = ("10.0.0.0/8", "fd00::/8", "172.16.0.1")
    for peer in ("10.9.9.9", "::ffff:10.9.9.9", "fd00::1%eth0", "172.16.0.1"):
        assert is_trusted(peer, proxies)
    for peer in ("11.0.0.1", "172.16.0.2", "", "proxy"):
        assert not is_trusted(peer, proxies)


def test_forwarding_headers_are_noticed() -> None:
    assert carries_forwarding({"host": "a", "x-real-ip": "1.2.3.4"})
    assert not carries_forwarding({"host": "a", "user-agent": "forwarded"})


HEADERS = st.dictionaries(
    st.sampled_from(
        ["host", "forwarded", "x-forwarded-host", "x-forwarded-proto", "x-forwarded-port", "x-forwarded-prefix"]
    ),
    st.text(max_size=80),
)  # fmt: skip


@given(HEADERS)
def test_whatever_the_headers_the_address_is_one(headers: dict[str, str]) -> None:
    found = address(headers, *TRUSTED)
    assert found.startswith(("ws://", "wss://"))
    assert found.endswith("/xiaozhi/v1/")
    assert found.isascii()
    assert not set(found) & set(" \"'<>{}\\\r\n\0?#")
    image = http(headers, *TRUSTED)
    assert image.startswith(("http://", "https://"))
    assert image.endswith("/x")
    assert image.isascii()


def test_a_taken_port_is_named_with_the_setting_and_the_remedy() -> None:
    with listening_socket("127.0.0.1", 0, "server.port") as first:
        port = first.getsockname()[1]
        with pytest.raises(
            PortInUseError, match=rf"port {port} \(server\.http_port\) is already in use: .*-s"
        ):
            listening_socket("127.0.0.1", port, "server.http_port")


def test_an_address_that_is_not_ours() -> None:
    for host in ("203.0.113.7", "no.such.host.invalid"):
        with pytest.raises(ConfigError, match=r"server\.ip"):
            listening_socket(host, 0, "server.port")


def test_listening_on_both_families() -> None:
    try:
        server = listening_socket("::", 0, "server.port")
    except ConfigError:
        pytest.skip("this machine has no IPv6")
    with server, socket.create_connection(("127.0.0.1", server.getsockname()[1]), timeout=5):
        pass
