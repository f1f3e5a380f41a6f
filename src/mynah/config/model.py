"""The typed settings. Every field carries its description, unit and when a change takes effect.

The layout is that of the xiaozhi-esp32-server configuration file, so that an existing file keeps working.
Named provider entries stay raw mappings here: the provider registry validates them against the provider's own
options.
"""

from __future__ import annotations

import datetime
import ipaddress
import zoneinfo
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, SecretStr, field_validator

from mynah.errors import ConfigError

LOG_FORMAT = (
    "<green>{time:YYMMDD HH:mm:ss}</green>[{version}_{selected_module}]"
    "[<light-blue>{extra[tag]}</light-blue>]-<level>{level}</level>-<light-green>{message}</light-green>"
)
"""The documented format of the console log."""
LOG_FORMAT_FILE = (
    "{time:YYYY-MM-DD HH:mm:ss} - {version}_{selected_module} - {name} - {level} - {extra[tag]} - {message}"
)
"""The documented format of the log file."""

LogLevel = Literal["TRACE", "DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]
Effect = Literal["restart", "next session"]


def _as_text(value: Any) -> Any:
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


SecretText = Annotated[SecretStr, BeforeValidator(_as_text)]
"""A secret; a number in the file is taken as its digits."""
Text = Annotated[str, BeforeValidator(_as_text)]
"""Text; a number in the file is taken as its digits."""


def setting(description: str, *, unit: str = "", effect: Effect = "restart", **options: Any) -> Any:
    """Declare a field with what the reference documentation needs; ``options`` go to `pydantic.Field`."""
    return Field(description=description, json_schema_extra={"unit": unit, "effect": effect}, **options)


def is_placeholder(text: str) -> bool:
    """Say whether a value is a template's example (``你的…``, ``your-token1``), which means: not set."""
    lowered = text.strip().lower()
    return "你的" in text or lowered.startswith(("your_", "your-", "your ", "<your"))


def _split(addresses: str) -> list[str]:
    return [address for part in addresses.split(";") if (address := part.strip())]


class Section(BaseModel):
    """Base of all sections: frozen, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, hide_input_in_errors=True)


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
        "devices connected at once; more are refused with 503. About 14 KB of memory each.",
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
        "TCP port of the 4G pull protocol, once it is installed; 0 picks a free one",
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
    firmware_dir: str = setting(
        "folder of the firmware images offered to devices; empty: `firmware` in the data directory",
        default="",
    )
    tls: Tls = setting("encryption of the device ports", default=Tls())
    trusted_proxies: tuple[str, ...] = setting(
        "addresses or networks (`10.0.0.0/8`) of reverse proxies whose `X-Forwarded-*` and `Forwarded` "
        "headers are believed",
        default=(),
    )
    limits: Limits = setting("bounds against mistakes and abuse", default=Limits())

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


class Log(Section):
    """Logging, and where data lives."""

    log_format: str = setting("format of console lines (loguru)", default=LOG_FORMAT)
    log_format_file: str = setting("format of lines in the log file", default=LOG_FORMAT_FILE)
    log_level: LogLevel = setting("lowest level that is logged", default="INFO")
    levels: Mapping[str, LogLevel] = setting(
        "levels of single modules, for example `mynah.net: DEBUG`", default={}
    )
    log_dir: str = setting("directory of the log file", default="tmp")
    log_file: str = setting("name of the log file; empty: none", default="server.log")
    rotation: str = setting("size or age at which a new log file is begun", default="10 MB")
    retention: int = setting("rotated log files to keep", default=5, ge=0)
    data_dir: str = setting("directory of everything that must survive a restart", default="data")

    @field_validator("log_level", mode="before")
    @classmethod
    def _upper(cls, value: Any) -> Any:
        return value.upper() if isinstance(value, str) else value

    @field_validator("levels", mode="before")
    @classmethod
    def _upper_all(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {key: level.upper() if isinstance(level, str) else level for key, level in value.items()}


class SelectedModule(Section):
    """Which named entry of each section is used."""

    VAD: str = setting("voice-activity detection", default="SileroVAD", effect="next session")
    ASR: str = setting("speech recognition", default="PocketSphinx", effect="next session")
    LLM: str = setting("language model", default="Builtin", effect="next session")
    VLLM: str = setting("vision model; empty: none", default="", effect="next session")
    TTS: str = setting("speech synthesis", default="EspeakTTS", effect="next session")
    Memory: str = setting("what is remembered between conversations", default="nomem", effect="next session")
    Intent: str = setting("how requests for tools are found", default="function_call", effect="next session")


class Timeouts(Section):
    """How long the assistant waits for an AI service before it apologises."""

    asr_s: float = setting(
        "speech recognition, from the end of the utterance to its text; a recogniser on this machine gets 10 s",
        unit="s",
        default=3.0,
        gt=0,
        effect="next session",
    )
    llm_s: float = setting(
        "language model, to the first piece of its answer and between pieces",
        unit="s",
        default=10.0,
        gt=0,
        effect="next session",
    )
    tts_s: float = setting(
        "speech synthesis, to the first audio of a sentence and between pieces",
        unit="s",
        default=5.0,
        gt=0,
        effect="next session",
    )
    vllm_s: float = setting(
        "vision model, to its whole answer about a picture; devices give up after 30, so more than 28 has no effect",
        unit="s",
        default=25.0,
        gt=0,
        effect="next session",
    )
    tool_s: float = setting("one tool call", unit="s", default=10.0, gt=0, effect="next session")


class DownlinkAudio(Section):
    """Audio sent to devices."""

    format: Literal["opus"] = setting("codec; the protocol knows no other", default="opus")
    sample_rate: Literal["auto", 8000, 12000, 16000, 24000, 48000] = setting(
        "sample rate; `auto`: that of the chosen voice, at most 24000",
        unit="Hz",
        default="auto",
        effect="next session",
    )
    channels: Literal[1] = setting("devices have one loudspeaker", default=1)
    frame_duration: Literal[60] = setting(
        "audio per packet; what firmware is tuned for", unit="ms", default=60
    )


class Xiaozhi(Section):
    """What the server says in its hello."""

    type: Literal["hello"] = setting("fixed by the protocol", default="hello")
    version: int = setting("fixed by the protocol", default=1)
    transport: Literal["websocket"] = setting("fixed by the protocol", default="websocket")
    audio_params: DownlinkAudio = setting("audio sent to devices", default=DownlinkAudio())


Entries = Mapping[str, Mapping[str, Any]]


def _entries(what: str) -> Any:
    return setting(
        f"named {what} entries: `type` and the options of that type, see `mynah providers`",
        default={},
        effect="next session",
        repr=False,
    )


class Settings(Section):
    """All settings. Made by `mynah.config.load`."""

    server: Server = setting("addresses, ports and who may connect", default=Server())
    log: Log = setting("logging, and where data lives", default=Log())
    selected_module: SelectedModule = setting(
        "which named entry of each section is used", default=SelectedModule()
    )
    VAD: Entries = _entries("voice-activity detection")
    ASR: Entries = _entries("speech recognition")
    LLM: Entries = _entries("language model")
    VLLM: Entries = _entries("vision model")
    TTS: Entries = _entries("speech synthesis")
    Memory: Entries = _entries("memory")
    Intent: Entries = _entries("intent")
    plugins: Mapping[str, Any] = setting(
        "options of tools, by tool name", default={}, effect="next session", repr=False
    )
    language: Literal["auto", "en", "zh"] = setting(
        "language of greetings, error phrases and recognition; `auto` follows the user",
        default="en",
        effect="next session",
    )
    timezone: str = setting(
        "IANA name of the time zone (`Europe/Berlin`); empty: that of the machine",
        default="",
        effect="next session",
    )
    prompt: str = setting(
        "the assistant's character, given to the language model; empty: a built-in one",
        default="",
        effect="next session",
    )
    wakeup_words: tuple[str, ...] = setting(
        "phrases that only wake the device, without any order", default=(), effect="next session"
    )
    exit_commands: tuple[str, ...] = setting(
        "phrases that end the conversation", default=(), effect="next session"
    )
    enable_greeting: bool = setting(
        "answer the wake word with a greeting", default=True, effect="next session"
    )
    close_connection_no_voice_time: float = setting(
        "a connection is closed after this long without anyone speaking; more than 100 counts as 100, because firmware "
        "takes a connection without data for dead after 120",
        unit="s",
        default=100.0,
        gt=0,
        effect="next session",
    )
    timeouts: Timeouts = setting("how long to wait for AI services", default=Timeouts())
    xiaozhi: Xiaozhi = setting("what the server says in its hello", default=Xiaozhi())

    _path: Path | None = PrivateAttr(default=None)
    _notices: tuple[str, ...] = PrivateAttr(default=())

    @field_validator("language", mode="before")
    @classmethod
    def _short_language(cls, value: Any) -> Any:
        return value.replace("_", "-").split("-")[0].lower() if isinstance(value, str) else value

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        if value:
            try:
                zoneinfo.ZoneInfo(value)
            except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
                raise ValueError("is not a known time zone; write it like Europe/Berlin") from None
        return value

    @property
    def path(self) -> Path | None:
        """The file that was read, if any."""
        return self._path

    @property
    def notices(self) -> tuple[str, ...]:
        """Remarks on keys that are accepted but have no effect; one sentence each."""
        return self._notices

    @property
    def data_dir(self) -> Path:
        """Directory of everything that must survive a restart."""
        return Path(self.log.data_dir)

    @property
    def firmware_dir(self) -> Path:
        """Folder of the firmware images offered to devices."""
        return Path(self.server.firmware_dir) if self.server.firmware_dir else self.data_dir / "firmware"

    def entries(self, kind: str) -> Entries:
        """Return the named entries of a section (``LLM``)."""
        section: Entries = getattr(self, str(kind))
        return section

    def entry(self, kind: str) -> tuple[str, Mapping[str, Any]]:
        """Return name and options (``type`` included) of the selected entry of a section.

        Raises ConfigError when none is selected.
        """
        name: str = getattr(self.selected_module, str(kind))
        if not name:
            raise ConfigError(
                f"selected_module.{kind} is empty: name one of {', '.join(self.entries(kind)) or 'none'}"
            )
        return name, self.entries(kind)[name]

    def zone(self) -> datetime.tzinfo:
        """Return the time zone of the people who talk to the devices."""
        offset = self.server.timezone_offset
        if offset is not None:
            return datetime.timezone(datetime.timedelta(minutes=offset * 60 if abs(offset) <= 14 else offset))
        if self.timezone:
            return zoneinfo.ZoneInfo(self.timezone)
        local = datetime.datetime.now().astimezone().tzinfo
        assert local is not None  # astimezone always sets one
        return local
