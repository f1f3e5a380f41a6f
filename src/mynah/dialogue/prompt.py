"""What the language model is told besides the conversation: who it is, how to speak, what time it is.

Services keep the beginning of a request and are faster when the next one begins alike. Therefore what stays the same
comes first (`Prompt.system`), then the history, and what changes (`Prompt.context`) just before the newest words.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Final

import jinja2
import msgspec
from jinja2 import meta
from jinja2.sandbox import ImmutableSandboxedEnvironment
from loguru import logger

from mynah.dialogue.emotion import FACES
from mynah.dialogue.history import shorten
from mynah.errors import ConfigError
from mynah.providers.base import ChatMessage, Role
from mynah.texts import text
from mynah.texts.spoken import date, weekday

DEFAULT_OF_UPSTREAM: Final = Path("agent-base-prompt.txt")
"""The template that settings files of xiaozhi-esp32-server name without having one of their own."""
MAX_TEMPLATE_BYTES: Final = 65_536
"""Twenty pages, as much as small models can read. Overflow policy: the file is refused at start-up."""
MAX_MEMORY_TOKENS: Final = 2000
"""Of what is remembered about a device; more would crowd out the conversation. Overflow policy: the middle is cut."""
EMOJIS: Final = tuple({emotion: emoji for emoji, emotion in reversed(FACES.items())}.values())[::-1]
"""One for each face that devices can show."""

_FAULTS: Final = (
    jinja2.TemplateError,
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)
"""What a template can raise."""

log = logger.bind(tag="dialogue")


class Facts(msgspec.Struct, frozen=True):
    """What is so at one moment of one conversation."""

    now: datetime
    """Local time."""
    language: str
    """``en`` or ``zh``."""
    memory: str = ""
    """What is known about the user from earlier conversations."""
    device_id: str = ""


class TemplateFile(msgspec.Struct, frozen=True):
    """A template as it was read."""

    name: str
    source: str


SAMPLES: Final = (
    Facts(datetime(2026, 1, 1, 12, 0), "en", "The user likes tea.", "02:00:00:00:00:01"),
    Facts(datetime(2026, 1, 1, 12, 0), "zh"),
)
"""Every template has to work with these before the first conversation."""


class Prompt:
    """Makes the messages around a conversation. One for all devices; it keeps nothing of any."""

    __slots__ = ("_character", "_language", "_location", "_name", "_rules", "_template")

    def __init__(
        self,
        language: str,
        base_prompt: str = "",
        template: TemplateFile | None = None,
        *,
        location: str = "",
        rules: str = "",
        assistant_name: str = "",
    ) -> None:
        """Empty texts stand for the built-in ones in ``language``; ``location`` may stay unknown.

        Raises ConfigError, naming the setting and what is wrong, when ``base_prompt`` or ``template`` cannot be used.
        """
        self._language = language
        self._location = location.strip()
        self._rules = rules or text("prompt_rules", language)
        self._name = assistant_name or text("prompt_name", language)
        known = frozenset(self._values(SAMPLES[0]))
        self._character: str | jinja2.Template = base_prompt.strip() or text("prompt_character", language)
        self._template: jinja2.Template | None = None
        if "{{" in self._character or "{%" in self._character:
            self._character = _compile(self._character, "prompt", known)
            for facts in SAMPLES:
                _try("prompt", self._character, self._values(facts))
        if template is not None:
            where = f"prompt_template: {template.name}"
            self._template = _compile(template.source, where, known | {"base_prompt", "rules"})
            for facts in SAMPLES:
                if not _try(where, self._template, self._template_values(facts)):
                    raise ConfigError(f"{where} makes an empty prompt: write one, or leave the setting empty")

    def system(self, facts: Facts) -> str:
        """Return what stays the same for a whole conversation: make it once, at its beginning, and keep it.

        What changes, such as the time, is in it as of then, and only where a template or `prompt` asks for it.
        """
        try:
            values = self._template_values(facts)
            if self._template is not None:
                return self._template.render(values).strip()
            return self._builtin(str(values["base_prompt"]))
        except _FAULTS as error:
            # Cannot be foreseen, as when a template divides by the length of something: talk rather than fail.
            log.warning("prompt_template or prompt failed, the built-in one is used: {}", error)
            return self._builtin(text("prompt_character", self._language))

    def context(self, facts: Facts, system: str = "") -> str:
        """Return what may change from turn to turn: date and time to the minute, and what is remembered.

        What ``system`` says of the memory already is not repeated.
        """
        now, language = facts.now, facts.language
        said = {"time": f"{now:%H:%M}", "weekday": weekday(now, language), "date": date(now, language)}
        note = text("prompt_context", language, **said)
        memory = _memory(facts)
        if memory not in system:
            note += "\n" + text("prompt_memory", language, memory=memory)
        return note

    def messages(
        self, system: str, history: Iterable[ChatMessage], facts: Facts, words: str
    ) -> tuple[ChatMessage, ...]:
        """Return the request for an answer to ``words``: ``system`` as of the beginning, ``facts`` as of now."""
        return (
            ChatMessage(Role.SYSTEM, system),
            *history,
            ChatMessage(Role.SYSTEM, self.context(facts, system)),
            ChatMessage(Role.USER, words),
        )

    def _builtin(self, character: str) -> str:
        parts = [character, self._rules]
        if self._location:
            parts.append(text("prompt_place", self._language, location=self._location))
        return "\n\n".join(parts)

    def _template_values(self, facts: Facts) -> dict[str, object]:
        values = self._values(facts)
        character = self._character
        if isinstance(character, jinja2.Template):
            character = character.render(values).strip()
        return {**values, "base_prompt": character, "rules": self._rules}

    def _values(self, facts: Facts) -> dict[str, object]:
        language = facts.language
        unknown = _Unknown(text("prompt_unknown", language))
        place = self._location or unknown
        return {
            "assistant_name": self._name,
            "language": text("prompt_language", language),
            "language_code": language,
            "current_time": f"{facts.now:%H:%M}",
            "today_date": f"{facts.now:%Y-%m-%d}",
            "today_weekday": weekday(facts.now, language),
            "location": place,
            "local_address": place,
            "memory": _memory(facts),
            # A device chooses its own name: keep line breaks out of the prompt.
            "device_id": "".join(char for char in facts.device_id if char.isprintable()),
            "emojiList": list(EMOJIS),
            "emoji_enabled": True,
            # Templates written for xiaozhi-esp32-server ask for these; nothing here knows them.
            "lunar_date": unknown,
            "weather_info": unknown,
            "dynamic_context": "",
            "client_ip": "",
        }


def read_template(setting: str) -> TemplateFile | None:
    """Read the file that ``prompt_template`` names, from the working directory; None means the built-in prompt.

    Raises ConfigError when there is no such file, or it is not text.
    """
    if not setting.strip():
        return None
    path = Path(setting.strip())
    remedy = "name a file as seen from the server's working directory, or leave it empty"
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        if path == DEFAULT_OF_UPSTREAM:
            log.info("prompt_template: there is no {}, so the built-in prompt is used", path)
            return None
        raise ConfigError(f"prompt_template: {path} does not exist: {remedy}") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"prompt_template: {path} cannot be read ({reason}): {remedy}") from None
    if len(content) > MAX_TEMPLATE_BYTES:
        raise ConfigError(f"prompt_template: {path} is larger than {MAX_TEMPLATE_BYTES} bytes: shorten it")
    try:
        return TemplateFile(str(path), content.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise ConfigError(f"prompt_template: {path} is not UTF-8 text: save it as UTF-8") from None


def _memory(facts: Facts) -> str:
    return shorten(facts.memory.strip(), MAX_MEMORY_TOKENS)


# ---------------------------------------------------------------- Jinja


class _Unknown(jinja2.Undefined):
    """A value that nobody knows: reads ``unknown`` where it is printed, and is false where it is asked for."""

    def __init__(self, words: str) -> None:
        super().__init__()
        self._words = words

    def __str__(self) -> str:
        return self._words


_ENVIRONMENT: Final = ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined, autoescape=False)
"""Templates cannot reach Python, files or other templates. Nothing is escaped: the result is no HTML."""


def _compile(source: str, where: str, known: frozenset[str]) -> jinja2.Template:
    try:
        tree = _ENVIRONMENT.parse(source)
        unknown = meta.find_undeclared_variables(tree) - known - set(_ENVIRONMENT.globals)
        if not unknown:
            return _ENVIRONMENT.from_string(tree)
    except jinja2.TemplateSyntaxError as error:
        raise ConfigError(f"{where}, line {error.lineno}: {error.message}") from None
    except RecursionError:
        raise ConfigError(f"{where}: is nested too deeply") from None
    name = min(unknown)
    similar = difflib.get_close_matches(name, known, 1)
    remedy = f"did you mean {similar[0]}?" if similar else f"there are {', '.join(sorted(known))}"
    raise ConfigError(f"{where}: unknown variable {name}: {remedy}")


def _try(where: str, template: jinja2.Template, values: Mapping[str, object]) -> str:
    try:
        return template.render(values).strip()
    except _FAULTS as error:
        raise ConfigError(f"{where}: {error}") from None
