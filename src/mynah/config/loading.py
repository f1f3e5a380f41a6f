"""From layers to `Settings`: checks, and error messages that say where, what and how to mend it."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, SecretStr, ValidationError

from mynah.config.layers import (
    ENTRY_SECTIONS,
    OPTIONAL_SECTIONS,
    KeyPath,
    Layer,
    Missing,
    dotted,
    interpolate,
    is_secret_name,
    merge,
    read_environment,
    read_file,
    read_override,
    read_yaml,
    without_nulls,
)
from mynah.config.model import Settings
from mynah.config.section import is_placeholder
from mynah.config.upstream import ACCEPTED, RENAMED, adapt_entry
from mynah.errors import ConfigError

DEFAULT_FILES: Final = (Path("data/.config.yaml"), Path("config.yaml"))
"""Looked for in the working directory, in this order, when no file is named."""

_EXPECTED: Final[dict[str, str]] = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text; put it in quotes",
    "tuple_type": "a list",
    "list_type": "a list",
    "mapping_type": "a mapping",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}


@dataclass(frozen=True)
class Problem:
    """One thing wrong with the settings."""

    origin: str
    text: str

    def __str__(self) -> str:
        return f"{self.origin}: {self.text}" if self.origin else self.text


def load(
    path: Path | None = None, overrides: Sequence[str] = (), environ: Mapping[str, str] = os.environ
) -> Settings:
    """Read all layers: packaged defaults, a file, the environment, ``key=value`` overrides; later ones win.

    ``path`` None looks for `DEFAULT_FILES`. Raises ConfigError with one line about the first problem.
    """
    settings, problems = inspect(path, overrides, environ)
    if settings is None:
        more = f" ({len(problems) - 1} more: `mynah config validate`)" if len(problems) > 1 else ""
        raise ConfigError(f"{problems[0]}{more}")
    return settings


def defaults(*overrides: str) -> Settings:
    """Return the packaged defaults with some overrides, whatever files and variables there are."""
    settings, problems = _build(_packaged(), None, overrides, {})
    if settings is None:
        raise ConfigError(str(problems[0]))
    return settings


def inspect(
    path: Path | None = None, overrides: Sequence[str] = (), environ: Mapping[str, str] = os.environ
) -> tuple[Settings | None, tuple[Problem, ...]]:
    """Read all layers like `load`, but return every problem found. Settings are None when there is one.

    Raises ConfigError when a layer cannot even be parsed.
    """
    chosen = path or next((name for name in DEFAULT_FILES if name.is_file()), None)
    layer = _packaged()
    if chosen is not None:
        layer = merge(layer, _adapted(read_file(chosen)))
    return _build(layer, chosen, overrides, environ)


def _packaged() -> Layer:
    text = resources.files("mynah.config").joinpath("default.yaml").read_text("utf-8")
    return read_yaml(text, "packaged defaults")


def _build(
    layer: Layer, path: Path | None, overrides: Sequence[str], environ: Mapping[str, str]
) -> tuple[Settings | None, tuple[Problem, ...]]:
    names = merge(Layer(_skeleton(Settings)), layer)
    layer = merge(layer, _adapted(read_environment(environ, names.values, _is_text)))
    for argument in overrides:
        layer = merge(layer, _adapted(read_override(argument, _is_text)))
    layer, notices = _without_accepted(layer)
    values, missing = interpolate(layer.values, environ)
    problems = list(_unset_variables(values, layer, missing))
    settings: Settings | None = None
    if not problems:
        try:
            settings = Settings.model_validate(values)
        except ValidationError as error:
            # A misspelt key comes first: what else is wrong often follows from it.
            found = sorted(error.errors(), key=lambda item: item["type"] != "extra_forbidden")
            problems = [_explain(item, layer) for item in found]
        else:
            problems = list(_wrong_selections(settings, layer))
    if problems or settings is None:
        return None, tuple(problems)
    settings._path = path
    settings._notices = notices
    return settings, ()


def _skeleton(model: type[BaseModel]) -> dict[str, Any]:
    """Return the keys of a model as a tree, so that environment variables find their letter case."""
    tree: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        inner = field.annotation
        tree[name] = _skeleton(inner) if isinstance(inner, type) and issubclass(inner, BaseModel) else None
    return tree


def _is_text(path: KeyPath) -> bool:
    model: Any = Settings
    for part in path:
        field = (
            model.model_fields.get(part) if isinstance(model, type) and issubclass(model, BaseModel) else None
        )
        if field is None:
            return False
        model = field.annotation
    return model in {str, SecretStr}


def _adapted(layer: Layer) -> Layer:
    """Translate other names for our settings; done per layer, so that later layers still win."""
    values = without_nulls(layer.values)
    origins = dict(layer.origins)
    for there, here in RENAMED.items():
        if there in values:
            section, key = here.split(".")
            target = values.setdefault(section, {})
            value = values.pop(there)
            if isinstance(target, dict) and key not in target:
                target[key] = value
                origins[section, key] = layer.origin((there,))
    for section in ENTRY_SECTIONS:
        entries = values.get(section)
        if isinstance(entries, dict):
            for name, entry in entries.items():
                if isinstance(entry, dict):
                    entries[name] = adapt_entry(section, entry)
    return Layer(values, origins)


def _without_accepted(layer: Layer) -> tuple[Layer, tuple[str, ...]]:
    notices: list[str] = []
    values = dict(layer.values)
    for key, reason in ACCEPTED.items():
        path = tuple(key.split("."))
        parent: Any = values
        for part in path[:-1]:
            child = parent.get(part)
            if not isinstance(child, dict):
                parent = None
                break
            parent[part] = parent = dict(child)
        if isinstance(parent, dict) and path[-1] in parent:
            del parent[path[-1]]
            notices.append(f"{_prefix(layer.origin(path))}{key} has no effect: {reason}")
    return Layer(values, layer.origins), tuple(notices)


def _prefix(origin: str) -> str:
    return f"{origin}: " if origin else ""


# ---------------------------------------------------------------- checks


def _unset_variables(
    values: Mapping[str, Any], layer: Layer, missing: Iterable[Missing]
) -> Iterable[Problem]:
    selected = values.get("selected_module")
    chosen = {**_default_selection(), **(selected if isinstance(selected, dict) else {})}
    for item in missing:
        section = item.path[0]
        if section == "plugins" or (section in ENTRY_SECTIONS and chosen.get(section) != item.path[1]):
            continue  # only what is used must be there
        yield Problem(
            # The packaged defaults are not at fault: whoever selected the entry must bring the value.
            layer.origin(("selected_module", section) if section in ENTRY_SECTIONS else item.path),
            f"{dotted(item.path)} needs the environment variable {item.variable}, which is not set: set it, "
            "or write the value itself at that key",
        )


def _default_selection() -> dict[str, str]:
    return Settings().selected_module.model_dump()


def _wrong_selections(settings: Settings, layer: Layer) -> Iterable[Problem]:
    for section in ENTRY_SECTIONS:
        for entry, options in settings.entries(section).items():
            kind = options.get("type")
            if not isinstance(kind, str) or not kind:
                path: KeyPath = (section, entry, "type")
                yield Problem(
                    layer.origin(path), f"{dotted(path)} is missing: add the type, see `mynah providers`"
                )
        name = getattr(settings.selected_module, section)
        path = ("selected_module", section)
        if not name and section not in OPTIONAL_SECTIONS:
            yield Problem(
                layer.origin(path), f"{dotted(path)} is empty: name an entry of the {section} section"
            )
        elif name and name not in settings.entries(section):
            yield Problem(
                layer.origin(path),
                f"{dotted(path)}: there is no entry {name!r} in section {section}"
                f"{_suggest(name, settings.entries(section))}",
            )
        elif name:
            yield from _placeholders(settings.entries(section)[name], (section, name), layer)


def _placeholders(value: Any, path: KeyPath, layer: Layer) -> Iterable[Problem]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _placeholders(item, (*path, str(key)), layer)
    elif isinstance(value, str) and is_secret_name(path[-1]) and is_placeholder(value):
        key = dotted(path)
        yield Problem(
            layer.origin(path), f"{key} still holds the template's example text: write your own there"
        )


def _explain(error: Any, layer: Layer) -> Problem:
    path = tuple(str(part) for part in error["loc"])
    key = dotted(path)
    origin = layer.origin(path)
    kind: str = error["type"]
    if kind == "extra_forbidden":
        return Problem(origin, f"unknown key {key}{_suggest(path[-1], _fields_at(path[:-1]), path[:-1])}")
    if kind == "missing":
        return Problem(origin, f"{key} is missing: add it")
    found = "" if is_secret_name(path[-1]) else f", found {_shown(_value_at(layer.values, path))}"
    if kind == "literal_error":
        expected = str(error["ctx"]["expected"]).replace("True", "true").replace("False", "false")
        return Problem(origin, f"{key}: expected {expected.replace(chr(39), '')}{found}")
    if kind in _EXPECTED:
        return Problem(origin, f"{key}: expected {_EXPECTED[kind]}{found}")
    message = str(error["msg"]).removeprefix("Value error, ")
    return Problem(origin, f"{key}: {message[:1].lower()}{message[1:]}{found}")


def _shown(value: Any) -> str:
    text = repr(value) if isinstance(value, str | int | float) else f"a {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:57]}…"


def _value_at(values: Any, path: KeyPath) -> Any:
    for part in path:
        if isinstance(values, Mapping):
            values = values.get(part)
        elif isinstance(values, list) and part.isdigit() and int(part) < len(values):
            values = values[int(part)]
        else:
            return None
    return values


def _fields_at(path: KeyPath) -> list[str]:
    model: Any = Settings
    for part in path:
        if part.isdigit():
            continue
        field = model.model_fields.get(part)
        model = field.annotation if field else None
        inner = getattr(model, "__args__", None)
        model = inner[0] if inner else model
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            return []
    return list(model.model_fields)


def _suggest(name: str, known: Iterable[str], parent: KeyPath = ()) -> str:
    names = {item.lower(): item for item in known}
    if not names:
        return ""
    close = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.6)
    if close:
        return f": did you mean {dotted((*parent, names[close[0]]))}?"
    return f": known here are {', '.join(sorted(names.values(), key=str.lower))}"
