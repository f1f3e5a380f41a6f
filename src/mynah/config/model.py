"""The typed settings. Every field carries its description, unit and when a change takes effect.

The layout is that of the xiaozhi-esp32-server configuration file, so that an existing file keeps working.
Named provider entries stay raw mappings here: the provider registry validates them against the provider's own
options.
"""

from __future__ import annotations

import datetime
import zoneinfo
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import PrivateAttr, field_validator

from mynah.config.conversation import Conversation, EndPrompt
from mynah.config.observability import Tracing
from mynah.config.section import Section, setting
from mynah.config.server import Server
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
    TurnDetector: str = setting(
        "model that tells from the sound whether somebody has finished; empty: none",
        default="",
        effect="next session",
    )


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
    TurnDetector: Entries = _entries("turn-detector")
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
    location: str = setting(
        "where the devices stand (`Berlin`), for the language model; empty: it is not told",
        default="",
        effect="next session",
    )
    prompt: str = setting(
        "the assistant's character, given to the language model; empty: a built-in one",
        default="",
        effect="next session",
    )
    prompt_template: str = setting(
        "file (Jinja) that makes the whole system prompt; `{{base_prompt}}` in it is `prompt`. Empty: a built-in one",
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
    end_prompt: EndPrompt = setting("the farewell when nobody has spoken for long", default=EndPrompt())
    device_max_output_size: int = setting(
        "characters a device is told per day, by local time; then it hears that it is enough for today. 0: no limit",
        default=0,
        ge=0,
        effect="next session",
    )
    conversation: Conversation = setting("turn taking and memory", default=Conversation())
    timeouts: Timeouts = setting("how long to wait for AI services", default=Timeouts())
    tracing: Tracing = setting("traces of single turns, for an OpenTelemetry collector", default=Tracing())
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
