"""Settings of the server: addresses, ports, encryption, and who may connect."""

from __future__ import annotations

import ipaddress
from typing import Any, Literal

from pydantic import SecretStr, field_validator

from mynah.config.overload import Overload
from mynah.config.section import SecretText, Section, Text, is_placeholder, setting

MIN_TOKEN_CHARS = 16
"""What random characters take to withstand guessing over a network for good."""


def _split(addresses: str) -> list[str]:
    return [address for part in addresses.split(";") if (address := part.strip())]


class NamedToken(Section):
    """A fixed token that a device carries in its firmware."""

    token: SecretText = setting("the bearer token")
    name: Text = setting("who uses it; appears in the log", default="")

    @field_validator("token")
    @classmethod
    def _not_empty(cls, token: SecretStr) -> SecretStr:
        if not token.get_secret_value().strip():
            raise ValueError("is empty: write a token of your own, or remove this entry")
        return token


class Auth(Section):
    """Who may connect."""

    enabled: Literal["auto", True, False] = setting(
        "whether a device needs a token. `auto`: yes, unless the server listens on a loopback address only; "
        "a peer on the same machine that does not come through a proxy is let in without one. `true` makes "
        "no exception. Devices get their token from the OTA reply, so nothing needs to be typed in.",
        default="auto",
    )
    tokens: tuple[NamedToken, ...] = setting(
        "fixed tokens, for devices that do not ask the OTA address", default=()
    )
    allowed_devices: tuple[str, ...] = setting(
        "Device-Ids (MAC addresses, quoted) that are let in with any token or none", default=()
    )
    expire_seconds: int = setting(
        "how long a token from the OTA reply is valid. A device asks for a new one only when it boots, so a "
        "short time locks out devices that simply stay on.",
        unit="s",
        default=365 * 86400,
        ge=60,
    )

    @field_validator("tokens")
    @classmethod
    def _drop_examples(cls, tokens: tuple[NamedToken, ...]) -> tuple[NamedToken, ...]:
        # The template's example tokens are public knowledge: accepting them would be an open door.
        return tuple(item for item in tokens if not is_placeholder(item.token.get_secret_value()))


class Limits(Section):
    """Bounds against mistakes and abuse."""

    max_connections: int = setting(
        "devices connected at once; some more are told that the server is full (`server.overload.reserve`), the rest "
        "is refused with 503. About 8 KB of memory each, 14 KB with tools of its own.",
        default=10000,
        ge=1,
    )
    max_message_bytes: int = setting(
        "largest WebSocket message from a device. Firmware sends at most 65535. Who has sent a large message keeps up "
        "to twice its size in memory until it disconnects.",
        unit="bytes",
        default=131072,
        ge=65536,
    )
    http_body_bytes: int = setting(
        "largest request body on the device HTTP port; an OTA report is about 2 KB",
        unit="bytes",
        default=65536,
        ge=4096,
    )
    http_timeout_s: float = setting(
        "time a client has to deliver its whole HTTP request, so that slow ones cannot hold connections",
        unit="s",
        default=15.0,
        gt=0,
    )
    http_connections: int = setting(
        "open connections on the device HTTP port; beyond, the one that has been slowest to send its request "
        "makes room, and if all are being answered the newest is closed",
        default=1024,
        ge=1,
    )
    vision_bytes: int = setting(
        "largest picture that a device may send; cameras make 20 to 300 KB",
        unit="bytes",
        default=5 << 20,
        ge=65536,
        le=64 << 20,
    )


class Pull4g(Section):
    """Devices behind a mobile modem: they connect to `server.pull4g_port` and fetch their answers."""

    enabled: bool = setting("whether such devices are served", default=True)
    lead_ms: int = setting(
        "how far ahead of its speaker a device is given audio, so that it can bridge a link that stalls. 4000 are "
        "128 KB of PCM in the device, 32 KB of ADPCM, 16 KB of Opus.",
        unit="ms",
        default=4000,
        ge=1000,
        le=30000,
    )
    tls: bool = setting(
        "with `server.tls`: encrypt here, too. `false` is for modems that cannot; tokens and speech are then readable "
        "on the way.",
        default=True,
    )


class Tls(Section):
    """Encryption by the server itself, where no reverse proxy does it."""

    cert: str = setting(
        "PEM file of the certificate, intermediate ones after it. With it the device ports speak TLS (wss, "
        "https) and nothing else. Wi-Fi devices accept publicly trusted certificates only.",
        default="",
    )
    key: str = setting("PEM file of the certificate's private key, without a passphrase", default="")


class Server(Section):
    """Addresses, ports and who may connect."""

    ip: str = setting("address to listen on; `::` listens on IPv6 as well", default="0.0.0.0")  # noqa: S104 - a LAN server
    port: int = setting("WebSocket port for devices; 0 picks a free one", default=8000, ge=0, le=65535)
    http_port: int = setting(
        "HTTP port for devices (OTA, health); 0 picks a free one", default=8003, ge=0, le=65535
    )
    console_port: int = setting(
        "port of the web console, once it is installed; 0 picks a free one", default=8002, ge=0, le=65535
    )
    pull4g_port: int = setting(
        "TCP port of the 4G pull protocol, for devices that fetch their answers; 0 picks a free one",
        default=10002,
        ge=0,
        le=65535,
    )
    websocket: str = setting(
        "WebSocket address handed to devices (`wss://voice.example.org/xiaozhi/v1/`). Several servers, separated by "
        "`;`, share the devices: each device is sent to the same one every time. Empty: worked out for "
        "each request from trusted proxy headers, the Host header or the network interface.",
        default="",
    )
    vision_explain: str = setting(
        "address of the vision service handed to devices (`https://voice.example.org/mcp/vision/explain`); empty: "
        "worked out like `server.websocket`",
        default="",
    )
    timezone_offset: float | None = setting(
        "offset of local time from UTC as told to devices: hours (`+8`, `5.5`) or, beyond ±14, minutes "
        "(`480`). Not set: from `timezone`.",
        default=None,
    )
    auth_key: SecretText = setting(
        "secret that signs device tokens. Empty: made at the first start and kept in the data directory. Set "
        "it when several servers share devices.",
        default=SecretStr(""),
    )
    auth: Auth = setting("who may connect", default=Auth())
    binding: Literal["open", "code"] = setting(
        "`open`: every device that asks the OTA address may connect, as suits a home network. `code`: an unknown "
        "device shows six digits and stays outside until they are typed in the server's terminal (`bind CODE`)",
        default="open",
    )
    announce_token: SecretText = setting(
        "token of `POST /api/say`, which makes devices speak; at least 16 characters. Empty: there is no such call",
        default=SecretStr(""),
    )
    metrics: bool = setting(
        "count what happens, and tell it at `GET /metrics` of the device HTTP port, for Prometheus",
        default=True,
    )
    metrics_token: SecretText = setting(
        "token of `GET /metrics` for programs on other machines; at least 16 characters. Empty: only programs on this "
        "machine get an answer, and none that a proxy sends",
        default=SecretStr(""),
    )
    firmware_dir: str = setting(
        "folder of the firmware images offered to devices; empty: `firmware` in the data directory",
        default="",
    )
    pull4g: Pull4g = setting("devices behind a mobile modem", default=Pull4g())
    tls: Tls = setting("encryption of the device ports", default=Tls())
    trusted_proxies: tuple[str, ...] = setting(
        "addresses or networks (`10.0.0.0/8`) of reverse proxies whose `X-Forwarded-*` and `Forwarded` "
        "headers are believed",
        default=(),
    )
    audio_process: Literal["auto", "never"] = setting(
        "`auto`: when some 50 people speak at the same moment, voices are decoded and detected in a second process of "
        "55 MB; not on a machine with one core. `never`: always in a thread of the server",
        default="auto",
    )
    limits: Limits = setting("bounds against mistakes and abuse", default=Limits())
    overload: Overload = setting("what happens when too many people talk", default=Overload())

    @field_validator("announce_token", "metrics_token")
    @classmethod
    def _long_enough(cls, value: SecretStr) -> SecretStr:
        if 0 < len(value.get_secret_value()) < MIN_TOKEN_CHARS:
            raise ValueError(
                f"is too short to keep anybody out: use {MIN_TOKEN_CHARS} or more characters, or none"
            )
        return value

    @field_validator("websocket", "vision_explain")
    @classmethod
    def _address(cls, value: str, info: Any) -> str:
        value = value.strip()
        if not value or is_placeholder(value):
            return ""
        several = info.field_name == "websocket"
        schemes = ("ws://", "wss://") if several else ("http://", "https://")
        for address in _split(value) if several else [value]:
            if not address.startswith(schemes):
                raise ValueError(f"must begin with {' or '.join(schemes)}")
            if len(address) > 500:
                raise ValueError("is longer than 500 characters, which devices cannot store")
        return value

    @property
    def websocket_addresses(self) -> tuple[str, ...]:
        """The addresses in ``websocket``; none when they are to be worked out."""
        return tuple(_split(self.websocket))

    @field_validator("timezone_offset")
    @classmethod
    def _real_offset(cls, value: float | None) -> float | None:
        if value is not None and not -720 <= (value * 60 if abs(value) <= 14 else value) <= 840:
            raise ValueError("must be between -12 and +14 hours")  # what clocks on Earth use
        return value

    @field_validator("auth_key")
    @classmethod
    def _auth_key(cls, value: SecretStr) -> SecretStr:
        text = value.get_secret_value()
        return SecretStr("") if "你" in text or is_placeholder(text) else value

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for item in value:
            ipaddress.ip_network(item, strict=False)
        return value
