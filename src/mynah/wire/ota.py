"""Service discovery: what a device posts to the OTA address at boot, and the answer it stores in its flash.

The answer's ``websocket`` and ``mqtt`` objects are written to flash key by key under an abort-on-error macro,
and ``firmware.version`` goes through ``std::stoi``: a value out of bounds makes a device abort at every boot.
So `encode_reply` lets nothing of that kind through.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from mynah.errors import WireError

PULL4G: Final = "pull4g"
"""Value of the query's ``transport`` that asks for `Pull4gSettings`."""

MAX_BODY_BYTES = 65_536
"""A real body has 2 to 3 kB; beyond this only the headers are read."""

MAX_FIELD_CHARS = 128
"""Longer values are cut: the longest real one is a 36-character id."""

MAX_STRING_BYTES = 4000
"""A string of this length no longer fits in a device's flash entry."""

MAX_KEY_CHARS = 15
"""Longest key of a device's flash."""

SAFE_VERSION = "0.0.0"
"""Answered in place of a firmware version that would hurt: never newer than anything."""

_MAC = re.compile(r"[0-9a-f]{2}(?:[:-][0-9a-f]{2}){5}")
# stoi reads the digits at the start of each dot segment; nine of them always fit an int32.
_VERSION = re.compile(r"[0-9]{1,9}(?![0-9])[^.]*(?:\.[0-9]{1,9}(?![0-9])[^.]*)*")
_LEADING_DIGITS = re.compile(r"[0-9]+")


class OtaRequest(msgspec.Struct, frozen=True):
    """Who is asking. Every text is printable and at most `MAX_FIELD_CHARS` long, and empty when not told.

    The image hash (``elf_sha256``) is deliberately not here: py-xiaozhi puts its private key into it.
    """

    device_id: str = ""
    """Lower-case MAC with colons, or empty."""
    client_id: str = ""
    serial_number: str = ""
    activation_version: str = ""
    user_agent: str = ""
    language: str = ""
    board_type: str = ""
    """The firmware's product key, the one upgrades are matched on."""
    board_name: str = ""
    app_name: str = ""
    app_version: str = ""
    chip_model: str = ""


class ServerTime(msgspec.Struct, frozen=True):
    """``timestamp`` in ms since 1970 UTC; ``timezone_offset`` in minutes east of UTC, added by the device."""

    timestamp: int
    timezone_offset: int = 0


class Firmware(msgspec.Struct, frozen=True):
    """The image a device should run. An empty ``url`` says that there is nothing to install."""

    version: str
    url: str = ""


class WebsocketSettings(msgspec.Struct, frozen=True):
    """Where a conversation goes. All three are sent every time: a key left out keeps its value in flash."""

    url: str
    token: str = ""
    version: int = 1


class MqttSettings(msgspec.Struct, frozen=True):
    """Sent only when MQTT is served for this device: firmware prefers it to WebSocket. ``keepalive`` in s."""

    endpoint: str
    client_id: str
    username: str
    password: str
    publish_topic: str
    subscribe_topic: str = "null"
    keepalive: int = 240


class Pull4gSettings(msgspec.Struct, frozen=True):
    """Where a device that fetches its answers connects to. Sent only to who asks for it."""

    host: str
    port: int
    tls: bool = False
    token: str = ""


class Activation(msgspec.Struct, frozen=True):
    """The device has no owner yet: it shows and speaks ``code`` until it has one. ``timeout_ms`` in ms."""

    code: str
    message: str
    challenge: str
    timeout_ms: int = 30_000


class OtaReply(msgspec.Struct, frozen=True, omit_defaults=True):
    """The answer; parts that are None are left out."""

    server_time: ServerTime | None = None
    firmware: Firmware | None = None
    websocket: WebsocketSettings | None = None
    mqtt: MqttSettings | None = None
    pull4g: Pull4gSettings | None = None
    activation: Activation | None = None


# ---------------------------------------------------------------- request


def parse_request(headers: Mapping[str, str], body: bytes) -> OtaRequest:
    """Read a request. Never fails: firmware does not escape what it puts into the body, so headers must do.

    Header names are matched case-insensitively. Ids and language are taken from the headers where those have them,
    version and name of the board from the body.
    """
    named: dict[str, str] = {}
    for name, value in headers.items():
        named.setdefault(name.lower(), value)
    told = _json_object(body)
    application, board = _member(told, "application"), _member(told, "board")
    user_agent = _text(named.get("user-agent"))
    agent_board, _, agent_version = user_agent.partition("/")
    return OtaRequest(
        device_id=_first_mac(
            named.get("device-id"), told.get("mac_address"), told.get("mac_addr"), board.get("mac")
        ),
        client_id=_text(named.get("client-id")) or _text(told.get("uuid")),
        serial_number=_text(named.get("serial-number")),
        activation_version=_text(named.get("activation-version")),
        user_agent=user_agent,
        language=_text(named.get("accept-language")) or _text(told.get("language")),
        board_type=_text(board.get("type")),
        board_name=_text(board.get("name")) or agent_board,
        app_name=_text(application.get("name")),
        app_version=_text(application.get("version")) or agent_version,
        chip_model=_text(told.get("chip_model_name")),
    )


class ActivationClaim(msgspec.Struct, frozen=True):
    """What a device says when it asks whether it has an owner by now; ``challenge`` is empty when not told.

    The ``hmac`` is not read: its key is burnt into the chip by the vendor and known to nobody else.
    """

    challenge: str = ""


def parse_activation(body: bytes) -> ActivationClaim:
    """Read the body of an activation request. Never fails.

    Devices without a serial number send ``{}``, others the fields themselves, with or without ``algorithm``, and
    py-xiaozhi wraps them into ``Payload``.
    """
    told = _json_object(body)
    return ActivationClaim(_text(told.get("challenge")) or _text(_member(told, "Payload").get("challenge")))


def _json_object(body: bytes) -> dict[str, Any]:
    if not body or len(body) > MAX_BODY_BYTES:
        return {}
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return {}


def _member(told: dict[str, Any], key: str) -> dict[str, Any]:
    value = told.get(key)
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str:
    if not isinstance(value, str):
        return ""
    return "".join(c for c in value[:MAX_FIELD_CHARS] if c.isprintable()).strip()


def _first_mac(*candidates: object) -> str:
    for candidate in candidates:
        text = _text(candidate).lower()
        if _MAC.fullmatch(text):
            return text.replace("-", ":")
    return ""


# ---------------------------------------------------------------- firmware versions


def is_safe_version(version: str) -> bool:
    """Whether a device survives reading this version: every dot segment starts with 1 to 9 digits."""
    return _VERSION.fullmatch(version) is not None


def is_newer(candidate: str, current: str) -> bool:
    """Compare as firmware does: number by number, and on a tie the longer one is newer.

    A version that no device survives is never newer; anything sound is newer than such a one.
    """
    return is_safe_version(candidate) and _numbers(candidate) > _numbers(current)


def _numbers(version: str) -> list[int]:
    if not is_safe_version(version):
        return []
    return [int(_LEADING_DIGITS.match(segment)[0]) for segment in version.split(".")]  # type: ignore[index]


def no_update(device_version: str) -> Firmware:
    """Say "stay as you are" to a device that runs ``device_version``."""
    return Firmware(version=device_version if is_safe_version(device_version) else SAFE_VERSION, url="")


# ---------------------------------------------------------------- reply


def encode_reply(reply: OtaReply, device_version: str = "") -> bytes:
    """Write the answer for a device that runs firmware ``device_version`` (empty: unknown).

    A firmware entry that would crash the device, or that names a newer version without saying where it is, is
    replaced by `SAFE_VERSION`. Raises WireError for settings that do not fit into a device's flash.
    """
    _check_time(reply.server_time)
    for name, settings in (("websocket", reply.websocket), ("mqtt", reply.mqtt)):
        if settings is not None:
            _check_settings(name, msgspec.structs.asdict(settings))
    if reply.websocket is not None and reply.websocket.version not in {1, 2, 3}:
        raise WireError(f"websocket.version is {reply.websocket.version}, not 1, 2 or 3")
    firmware = reply.firmware
    if firmware is not None:
        nowhere = not firmware.url and is_newer(firmware.version, device_version)
        if nowhere or not is_safe_version(firmware.version):
            reply = msgspec.structs.replace(reply, firmware=Firmware(SAFE_VERSION, ""))
    return msgspec.json.encode(reply)


def _check_time(time: ServerTime | None) -> None:
    # Real offsets go from -12 h to +14 h.
    if time is not None and not (time.timestamp > 0 and -720 <= time.timezone_offset <= 840):
        raise WireError("server_time is not ms since 1970 with an offset of -720 to 840 minutes")


def _check_settings(name: str, settings: Mapping[str, Any]) -> None:
    """Hold one object to what a device's flash takes. Raises WireError naming the key, never the value."""
    for key, value in settings.items():
        if len(key) > MAX_KEY_CHARS:
            raise WireError(
                f"{name} has a key of {len(key)} characters; flash keys have at most {MAX_KEY_CHARS}"
            )
        if isinstance(value, str):
            if len(value.encode()) >= MAX_STRING_BYTES:
                raise WireError(f"{name}.{key} has {MAX_STRING_BYTES} bytes or more")
        elif isinstance(value, int) and not -(2**31) <= value < 2**31:
            raise WireError(f"{name}.{key} is beyond 32 bits")


class _FlashView(msgspec.Struct):
    """The two objects that a device copies to flash as they are, whatever keys they hold."""

    websocket: dict[str, Any] = {}
    mqtt: dict[str, Any] = {}


def decode_reply(body: bytes) -> OtaReply:
    """Read an answer as a device does: missing parts are None, unknown keys are ignored.

    Raises WireError for what is not an answer, and for one that would make a device's flash driver abort.
    """
    try:
        view = msgspec.json.decode(body, type=_FlashView)
        reply = msgspec.json.decode(body, type=OtaReply)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise WireError("not an OTA answer: malformed JSON or a field of the wrong type") from None
    _check_settings("websocket", view.websocket)
    _check_settings("mqtt", view.mqtt)
    if reply.firmware is not None and not is_safe_version(reply.firmware.version):
        raise WireError("firmware.version has a segment that does not start with a number")
    return reply
