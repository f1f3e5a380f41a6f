"""The one table of providers: ``Kind.type`` → ``module:Class``.

Built-ins and third-party packages go through the same door: both are entry points of the group
``mynah.providers`` named ``ASR.mytype``. The built-in ones are written down here instead of in package
metadata, so that the server also runs from a source tree. A provider's module is imported when it is
listed or created, and imports its vendor's packages only when it starts to work.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any, get_args

import msgspec
from pydantic import AliasChoices, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from mynah.errors import ConfigError
from mynah.providers.base import (
    AsrProvider,
    IntentProvider,
    Kind,
    LlmProvider,
    MemoryProvider,
    Provider,
    ProviderOptions,
    TtsProvider,
    TurnDetectorProvider,
    VadProvider,
    VllmProvider,
)

GROUP = "mynah.providers"
"""Entry-point group that third-party packages register in."""

BUILT_IN = "built-in"
"""``ProviderEntry.source`` of the providers that come with the server."""

_BUILT_INS: Mapping[str, str] = {
    "VAD.silero": "mynah.providers.vad.silero:SileroVad",
    "VAD.energy": "mynah.providers.vad.energy:EnergyVad",
    "ASR.pocketsphinx": "mynah.providers.asr.pocketsphinx:PocketSphinxAsr",
    "ASR.fake": "mynah.providers.asr.fake:FakeAsr",
    "LLM.builtin": "mynah.providers.llm.builtin:BuiltinLlm",
    "LLM.openai": "mynah.providers.llm.openai:OpenAiLlm",
    "LLM.fake": "mynah.providers.llm.fake:FakeLlm",
    "VLLM.openai": "mynah.providers.vllm.openai:OpenAiVllm",
    "VLLM.fake": "mynah.providers.vllm.fake:FakeVllm",
    "TTS.espeak": "mynah.providers.tts.espeak:EspeakTts",
    "TTS.fake": "mynah.providers.tts.fake:FakeTts",
    "Memory.nomem": "mynah.providers.memory.nomem:NoMemory",
    "Intent.function_call": "mynah.providers.intent.function_call:FunctionCallIntent",
    "Intent.nointent": "mynah.providers.intent.nointent:NoIntent",
    "TurnDetector.smart_turn": "mynah.providers.turn.smart_turn:SmartTurn",
    "TurnDetector.fake": "mynah.providers.turn.fake:FakeTurnDetector",
}

_INTERFACES: Mapping[Kind, type[Provider[Any]]] = {
    Kind.VAD: VadProvider,
    Kind.ASR: AsrProvider,
    Kind.LLM: LlmProvider,
    Kind.VLLM: VllmProvider,
    Kind.TTS: TtsProvider,
    Kind.MEMORY: MemoryProvider,
    Kind.INTENT: IntentProvider,
    Kind.TURN_DETECTOR: TurnDetectorProvider,
}

# What people leave in place of a key when they copy an example: 你的…, your_…, <key>, xxx, change-me, 请填写.
_PLACEHOLDER = re.compile(
    r"\s*$|你的|您的|请|填|<|your(?![a-z0-9]{8})|x{3,}|sk-x{3,}|change[-_ ]?me|\.\.\.", re.IGNORECASE
)
_UNRESOLVED = re.compile(r"\$\{(\w+)")


class ProviderEntry(msgspec.Struct, frozen=True):
    """One row of the table."""

    kind: Kind
    type: str
    summary: str
    """One line, or why the provider cannot be used here."""
    source: str
    """``built-in`` or the name of the distribution that brings it."""


def available(kind: Kind | None = None) -> list[ProviderEntry]:
    """List the providers of ``kind`` (default: of all), built-in ones first; a broken plug-in says so."""
    rows = []
    for point in _points():
        point_kind, type_ = _split(point.name)
        if point_kind is None or kind not in {None, point_kind}:
            continue
        try:
            summary = _load(point, point_kind, type_).summary
        except ConfigError as error:
            summary = f"not usable: {error}"
        rows.append(ProviderEntry(kind=point_kind, type=type_, summary=summary, source=_source(point)))
    return rows


def options_model(kind: Kind, type_: str) -> type[ProviderOptions]:
    """Return the options schema of a provider. Raises ConfigError when there is no such provider."""
    return _provider_class(kind, type_, f"{kind}: type").Options


def create(kind: Kind, name: str, entry: Mapping[str, Any]) -> Provider[Any]:
    """Make the provider that the configuration entry ``kind.name`` describes; it is not started.

    An entry without ``type`` uses its own name as the type. Raises ConfigError: one line that
    names every wrong key and its remedy.
    """
    where = f"{kind}.{name}"
    given = {**entry, "type": entry.get("type", name)}
    if not isinstance(given["type"], str):
        raise ConfigError(f"{where}.type: must be a text, such as {_types(kind)}")
    provider = _provider_class(kind, given["type"], f"{where}.type")
    _refuse_placeholders(where, provider.Options, given)
    try:
        options = provider.Options.model_validate(given)
    except ValidationError as error:
        lines = [
            _explain(where, provider.Options, detail)
            for detail in error.errors(include_url=False, include_context=True)
        ]
        raise ConfigError("; ".join(lines)) from None  # the original repeats the values, keys among them
    return provider(name, options)


# ---------------------------------------------------------------- finding and loading


def _points() -> Iterator[EntryPoint]:
    for name, value in _BUILT_INS.items():
        yield EntryPoint(name=name, value=value, group=GROUP)
    yield from entry_points(group=GROUP)


def _split(point_name: str) -> tuple[Kind | None, str]:
    kind, _, type_ = point_name.partition(".")
    return (Kind(kind), type_) if kind in set(Kind) and type_ else (None, type_)


def _source(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else BUILT_IN


def _types(kind: Kind) -> str:
    names = sorted({type_ for point in _points() for found, type_ in [_split(point.name)] if found is kind})
    return ", ".join(names) or "(none is installed)"


def _provider_class(kind: Kind, type_: str, where: str) -> type[Provider[Any]]:
    found = [point for point in _points() if point.name == f"{kind}.{type_}"]
    if not found:
        names = _types(kind)
        raise ConfigError(
            f"{where}: unknown {kind} type {type_!r}{_meant(type_, names.split(', '))}; available: {names}"
        )
    if len(found) > 1:
        sources = " and ".join(_source(point) for point in found)
        raise ConfigError(f"{where}: {kind} type {type_!r} is provided by {sources}; uninstall one of them")
    return _load(found[0], kind, type_)


def _load(point: EntryPoint, kind: Kind, type_: str) -> type[Provider[Any]]:
    try:
        loaded = point.load()
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] == point.module.split(".")[0]:
            raise ConfigError(
                f"{kind} type {type_!r} cannot be loaded from {point.value}: {error}"
            ) from error
        raise ConfigError(
            f"{kind} type {type_!r} needs the Python module {error.name!r}: install it with pip"
        ) from error
    except (ImportError, AttributeError, OSError) as error:
        raise ConfigError(f"{kind} type {type_!r} cannot be loaded from {point.value}: {error}") from error
    interface = _INTERFACES.get(kind, Provider)
    if not (isinstance(loaded, type) and issubclass(loaded, interface)):
        raise ConfigError(f"{kind} type {type_!r}: {point.value} is not a {interface.__name__}")
    return loaded


# ---------------------------------------------------------------- explaining what is wrong


def _meant(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _names(field_name: str, field: FieldInfo) -> list[str]:
    """Every key under which a field may be written in the configuration."""
    alias = field.validation_alias
    if isinstance(alias, AliasChoices):
        return [choice for choice in alias.choices if isinstance(choice, str)]
    return [alias] if isinstance(alias, str) else [field_name]


def _explain(where: str, options: type[ProviderOptions], detail: ErrorDetails) -> str:
    path = ".".join(str(part) for part in detail["loc"])
    key = f"{where}.{path}" if path else where
    known = [name for field_name, field in options.model_fields.items() for name in _names(field_name, field)]
    if detail["type"] == "extra_forbidden":
        word = str(detail["loc"][-1])
        field = _field_of(options, word) if len(detail["loc"]) == 1 else None
        if field is not None:
            return f"{key}: the same setting as {' and '.join(set(_names(word, field)) - {word})}; keep one of them"
        meant = _meant(word, known)
        return f"{key}: unknown key{meant}; known keys: {', '.join(sorted(known))}"
    if detail["type"] == "missing":
        field = _field_of(options, str(detail["loc"][0]))
        described = f" ({field.description})" if field is not None and field.description else ""
        return f"{key}: missing{described}; add this key"
    message = detail["msg"].removeprefix("Value error, ")
    return f"{key}: {message[:1].lower()}{message[1:]}"


def _field_of(options: type[ProviderOptions], key: str) -> FieldInfo | None:
    for field_name, field in options.model_fields.items():
        if key == field_name or key in _names(field_name, field):
            return field
    return None


def _is_secret(field: FieldInfo) -> bool:
    return field.annotation is SecretStr or SecretStr in get_args(field.annotation)


def _refuse_placeholders(where: str, options: type[ProviderOptions], given: Mapping[str, Any]) -> None:
    """Raise ConfigError when a required secret is absent or any secret is still an example's placeholder."""
    for field_name, field in options.model_fields.items():
        if not _is_secret(field):
            continue
        names = _names(field_name, field)
        key = next((name for name in names if name in given), names[0])
        value = given.get(key)
        text = value.get_secret_value() if isinstance(value, SecretStr) else value
        if text is None or text == "":
            if field.is_required():
                raise ConfigError(f"{where}.{key}: no key is set; {_how_to_set(given['type'], key)}")
        elif isinstance(text, str) and (unresolved := _UNRESOLVED.match(text)):
            name = unresolved[1]
            raise ConfigError(f"{where}.{key}: the environment variable {name} is not set; export {name}=…")
        elif isinstance(text, str) and _PLACEHOLDER.match(text):
            raise ConfigError(
                f"{where}.{key}: still the example's placeholder; {_how_to_set(given['type'], key)}"
            )


def _how_to_set(type_: str, key: str) -> str:
    variable = re.sub(r"\W", "_", f"{type_}_{key}").upper()
    return (
        f"write it here, or `{key}: ${{{variable}}}` and export {variable}=… "
        f"(a service that needs none: `{key}: none`)"
    )
