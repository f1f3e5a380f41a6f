import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mynah.errors import WireError
from mynah.wire import ota

HEADERS = {
    "Activation-Version": "1",
    "Device-Id": "AA:BB:cc:dd:ee:0F",
    "Client-Id": "0c1f4f3e-0000-4000-8000-000000000000",
    "User-Agent": "bread-compact-wifi/2.4.2",
    "Accept-Language": "zh-CN",
}
BODY = json.dumps(
    {
        "version": 2,
        "language": "en-US",
        "mac_address": "11:22:33:44:55:66",
        "uuid": "from-body",
        "chip_model_name": "esp32s3",
        "application": {"name": "xiaozhi", "version": "2.4.2", "elf_sha256": "PRIVATE"},
        "board": {"type": "bread-compact-wifi", "name": "bread-compact-wifi-lcd", "ssid": "home"},
    }
).encode()


def test_request_of_firmware() -> None:
    assert ota.parse_request(HEADERS, BODY) == ota.OtaRequest(
        device_id="aa:bb:cc:dd:ee:0f",
        client_id="0c1f4f3e-0000-4000-8000-000000000000",
        activation_version="1",
        user_agent="bread-compact-wifi/2.4.2",
        language="zh-CN",
        board_type="bread-compact-wifi",
        board_name="bread-compact-wifi-lcd",
        app_name="xiaozhi",
        app_version="2.4.2",
        chip_model="esp32s3",
    )


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"board":{"ssid":"my"net"}}', b"\xff", b"[" * 100_000])
def test_headers_alone_are_enough(body: bytes) -> None:
    request = ota.parse_request({name.lower(): value for name, value in HEADERS.items()}, body)
    assert request.device_id == "aa:bb:cc:dd:ee:0f"
    assert request.board_name == "bread-compact-wifi"
    assert request.app_version == "2.4.2"


def test_body_alone_is_enough() -> None:
    request = ota.parse_request({}, BODY)
    assert (request.device_id, request.client_id, request.language) == (
        "11:22:33:44:55:66",
        "from-body",
        "en-US",
    )


def test_the_private_key_of_py_xiaozhi_is_not_kept() -> None:
    assert "PRIVATE" not in repr(ota.parse_request(HEADERS, BODY))


@pytest.mark.parametrize(
    ("told", "kept"),
    [
        ("AA-BB-CC-DD-EE-FF", "aa:bb:cc:dd:ee:ff"),
        ("web_test_device", ""),
        ("", ""),
        ("aa:bb:cc:dd:ee", ""),
        ("aa:bb:cc:dd:ee:gg", ""),
        ("aa:bb:cc:dd:ee:ff:00", ""),
    ],
)
def test_device_id_is_a_mac_or_nothing(told: str, kept: str) -> None:
    assert ota.parse_request({"Device-Id": told}, b"").device_id == kept


def test_sdk_body_names_the_mac_differently() -> None:
    assert ota.parse_request({}, b'{"mac_addr":"00:11:22:33:44:55"}').device_id == "00:11:22:33:44:55"
    assert ota.parse_request({}, b'{"board":{"mac":"00:11:22:33:44:56"}}').device_id == "00:11:22:33:44:56"


def test_fields_are_bounded_and_printable() -> None:
    request = ota.parse_request({"Client-Id": "a\r\nb" + "x" * 1000, "Accept-Language": "\x1b[31men"}, b"")
    assert request.client_id.startswith("abx")
    assert len(request.client_id) <= ota.MAX_FIELD_CHARS
    assert request.language == "[31men"


def test_an_oversize_body_is_not_read() -> None:
    body = b'{"uuid":"u","pad":"' + b"x" * ota.MAX_BODY_BYTES + b'"}'
    assert ota.parse_request({}, body).client_id == ""


@given(st.dictionaries(st.sampled_from([*HEADERS, "x"]), st.text(max_size=200)), st.binary(max_size=200))
def test_any_request_is_read(headers: dict[str, str], body: bytes) -> None:
    request = ota.parse_request(headers, body)
    assert all(
        len(v) <= ota.MAX_FIELD_CHARS and (v == "" or v.isprintable()) for v in request_fields(request)
    )


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


@given(
    st.dictionaries(
        st.sampled_from(["application", "board", "mac_address", "uuid", "language", "chip_model_name"]),
        json_values
        | st.dictionaries(st.sampled_from(["type", "name", "version", "mac"]), json_values, max_size=4),
    )
)
def test_any_json_body_is_read(told: dict[str, object]) -> None:
    assert all(
        isinstance(value, str) for value in request_fields(ota.parse_request({}, json.dumps(told).encode()))
    )


def request_fields(request: ota.OtaRequest) -> list[str]:
    return [getattr(request, name) for name in request.__struct_fields__]


# ---------------------------------------------------------------- versions


@pytest.mark.parametrize(
    ("candidate", "current", "newer"),
    [
        ("1.0.1", "1.0.0", True),
        ("1.0.0", "1.0.0", False),
        ("1.10", "1.9", True),
        ("1.0.0.1", "1.0.0", True),
        ("1.0", "1.0.0", False),
        ("2.0-rc1", "1.9", True),
        ("v2.0", "1.0", False),
        ("1.0", "v2.0", True),
        ("0.0.0", "", True),
    ],
)
def test_versions_compare_as_in_firmware(candidate: str, current: str, newer: bool) -> None:
    assert ota.is_newer(candidate, current) is newer


@pytest.mark.parametrize(
    "version", ["", "v1", "1.", ".1", "1..2", "1.x", "-1", " 1", "9999999999", "1.9999999999", "١"]
)
def test_versions_that_crash_a_device(version: str) -> None:
    assert not ota.is_safe_version(version)
    assert ota.no_update(version) == ota.Firmware("0.0.0", "")


@given(st.text(alphabet="0123456789.-v ", max_size=12), st.text(alphabet="0123456789.", max_size=8))
def test_newer_is_an_order(one: str, other: str) -> None:
    assert not (ota.is_newer(one, other) and ota.is_newer(other, one))
    assert not ota.is_newer(one, one)


def test_no_update_repeats_the_devices_own_version() -> None:
    assert ota.no_update("2.4.2") == ota.Firmware("2.4.2", "")


# ---------------------------------------------------------------- replies

WEBSOCKET = ota.WebsocketSettings("ws://10.0.0.2:8000/xiaozhi/v1/", "", 1)
MQTT = ota.MqttSettings("10.0.0.2:1883", "c", "u", "p", "device-server")


def test_reply_has_exactly_what_was_put_in() -> None:
    reply = ota.OtaReply(
        server_time=ota.ServerTime(1_760_000_000_000, 480),
        firmware=ota.no_update("1.2.3"),
        websocket=WEBSOCKET,
    )
    assert json.loads(ota.encode_reply(reply, "1.2.3")) == {
        "server_time": {"timestamp": 1_760_000_000_000, "timezone_offset": 480},
        "firmware": {"version": "1.2.3", "url": ""},
        "websocket": {"url": "ws://10.0.0.2:8000/xiaozhi/v1/", "token": "", "version": 1},
    }


def test_reply_round_trip_with_everything() -> None:
    reply = ota.OtaReply(
        server_time=ota.ServerTime(1, -300),
        firmware=ota.Firmware("9.0", "http://10.0.0.2/f.bin"),
        websocket=WEBSOCKET,
        mqtt=MQTT,
        activation=ota.Activation("123456", "Say 123456", "nonce"),
    )
    assert ota.decode_reply(ota.encode_reply(reply, "1.0")) == reply


@pytest.mark.parametrize(
    ("firmware", "device_version", "sent"),
    [
        (ota.Firmware("v2.0", "http://x/f.bin"), "1.0", ota.Firmware("0.0.0", "")),
        (ota.Firmware("2.0", ""), "1.0", ota.Firmware("0.0.0", "")),
        (ota.Firmware("2.0", ""), "", ota.Firmware("0.0.0", "")),
        (ota.Firmware("2.0", ""), "2.0", ota.Firmware("2.0", "")),
        (ota.Firmware("2.0", "http://x/f.bin"), "1.0", ota.Firmware("2.0", "http://x/f.bin")),
    ],
)
def test_no_firmware_entry_can_hurt(firmware: ota.Firmware, device_version: str, sent: ota.Firmware) -> None:
    assert (
        ota.decode_reply(ota.encode_reply(ota.OtaReply(firmware=firmware), device_version)).firmware == sent
    )


@pytest.mark.parametrize(
    ("reply", "names"),
    [
        (ota.OtaReply(websocket=ota.WebsocketSettings("x" * 4000)), "websocket.url"),
        (ota.OtaReply(websocket=ota.WebsocketSettings("ws://x", "汉" * 1334)), "websocket.token"),
        (ota.OtaReply(websocket=ota.WebsocketSettings("ws://x", "", 0)), "websocket.version"),
        (ota.OtaReply(websocket=ota.WebsocketSettings("ws://x", "", 4)), "websocket.version"),
        (ota.OtaReply(mqtt=ota.MqttSettings("e", "c", "u", "p" * 5000, "t")), "mqtt.password"),
        (ota.OtaReply(mqtt=ota.MqttSettings("e", "c", "u", "p", "t", keepalive=2**31)), "mqtt.keepalive"),
        (ota.OtaReply(server_time=ota.ServerTime(0)), "server_time"),
        (ota.OtaReply(server_time=ota.ServerTime(1, 841)), "server_time"),
    ],
)
def test_settings_that_do_not_fit_into_flash(reply: ota.OtaReply, names: str) -> None:
    with pytest.raises(WireError, match=names) as caught:
        ota.encode_reply(reply)
    assert "ppp" not in str(caught.value)


def test_the_longest_string_that_fits() -> None:
    reply = ota.OtaReply(websocket=ota.WebsocketSettings("x" * 3999))
    assert ota.decode_reply(ota.encode_reply(reply)) == reply


def test_our_own_keys_fit_into_flash() -> None:
    for settings in (ota.WebsocketSettings, ota.MqttSettings):
        assert all(len(key) <= ota.MAX_KEY_CHARS for key in settings.__struct_fields__)


def test_reply_of_a_foreign_server() -> None:
    body = b'{"server_time":{"timestamp":1,"timezone_offset":480,"timeZone":"x"},"websocket":{"url":"ws://x"},"x":1}'
    reply = ota.decode_reply(body)
    assert reply.websocket == ota.WebsocketSettings("ws://x", "", 1)
    assert reply.mqtt is None


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "not an OTA answer"),
        (b"[]", "not an OTA answer"),
        (b'{"websocket":{"url":7}}', "not an OTA answer"),
        (b'{"websocket":{"url":"x","reconnect_delay_ms":5}}', "a key of 18 characters"),
        (b'{"websocket":{"url":"x","port":4294967296}}', "beyond 32 bits"),
        (b'{"firmware":{"version":"v1.2"}}', "does not start with a number"),
    ],
)
def test_replies_that_stop_a_device(body: bytes, reason: str) -> None:
    with pytest.raises(WireError, match=reason):
        ota.decode_reply(body)


@given(st.binary(max_size=100))
def test_any_reply_is_read_or_a_wire_error(body: bytes) -> None:
    try:
        ota.decode_reply(body)
    except WireError:
        pass


FLAT = {"serial_number": "S1", "challenge": "c-1", "hmac": "f" * 64}


@pytest.mark.parametrize("told", [FLAT, {"algorithm": "hmac-sha256", **FLAT}, {"Payload": FLAT}])
def test_activation_bodies(told: object) -> None:
    assert ota.parse_activation(json.dumps(told).encode()).challenge == "c-1"


VALUES = st.none() | st.integers() | st.text() | st.lists(st.text(), max_size=2)
CLAIMS = st.dictionaries(st.sampled_from(["challenge", "algorithm", "hmac"]), VALUES)


@given(
    st.binary(max_size=300)
    | (CLAIMS | st.fixed_dictionaries({"Payload": CLAIMS | VALUES})).map(
        lambda tree: json.dumps(tree).encode()
    )
)
def test_no_activation_body_fails(body: bytes) -> None:
    assert isinstance(ota.parse_activation(body).challenge, str)
