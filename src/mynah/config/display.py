"""Settings as people read them: masked values, and the reference documentation."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from importlib import resources
from typing import Any, Final, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from mynah.config.layers import is_secret_name
from mynah.config.model import Settings
from mynah.config.upstream import ACCEPTED, IDLE_OPTIONS, RENAMED

MASK: Final = "********"
_URL_SECRET: Final = re.compile(
    r"(://[^/@\s:]*:)[^/@\s]+(@)|([?&](?:token|key|api_key|access_token)=)[^&\s]+", re.IGNORECASE
)


def masked(settings: Settings) -> dict[str, Any]:
    """Return all settings as plain data in the file's layout, secrets replaced by asterisks."""
    tree: dict[str, Any] = _mask(settings.model_dump(), "")
    return tree


def _mask(value: Any, name: str) -> Any:
    if isinstance(value, SecretStr):
        return MASK if value.get_secret_value() else ""
    if isinstance(value, Mapping):
        return {key: _mask(item, str(key)) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_mask(item, name) for item in value]
    if is_secret_name(name) and isinstance(value, str | int | float) and not isinstance(value, bool):
        return MASK if value and not str(value).startswith("${") else value
    if isinstance(value, str):
        return _URL_SECRET.sub(lambda m: f"{m[1] or m[3]}{MASK}{m[2] or ''}", value)
    return value


def secret_values(settings: Settings) -> frozenset[str]:
    """Return every secret text in the settings that is long enough to be recognised in a log line."""

    def walk(value: Any, name: str) -> Iterator[str]:
        if isinstance(value, SecretStr):
            yield value.get_secret_value()
        elif isinstance(value, Mapping):
            for key, item in value.items():
                yield from walk(item, str(key))
        elif isinstance(value, list | tuple):
            for item in value:
                yield from walk(item, name)
        elif isinstance(value, str) and is_secret_name(name) and not value.startswith("${"):
            yield value

    # Shorter texts ("none", "ollama") are no secrets, and blotting them out would garble ordinary words.
    return frozenset(text for text in walk(settings.model_dump(), "") if len(text) >= 10)


# ---------------------------------------------------------------- reference

_HEAD: Final = """\
# Settings

<!-- Generated from the settings model: `mynah config reference > docs/configuration.md` -->

Settings come in four layers; a later one wins:

1. the packaged defaults below,
2. a file: `mynah serve -c FILE`, else `data/.config.yaml`, else `config.yaml` in the working directory,
3. environment variables: `MYNAH__SERVER__PORT=8000` sets `server.port`,
4. the command line: `mynah serve -s server.port=8000`.

In any text, `${NAME}` takes the value of an environment variable and `${NAME:-default}` names a substitute
for one that is missing or empty; `$${` stands for a plain `${`. A missing variable is an error only where its
value is used: keys of AI services that are not selected need not be there. A key without a value means *not
set*.

`mynah config show` prints the settings in effect with secrets masked, `mynah config validate FILE` lists all
that is wrong with a file. The layout is that of xiaozhi-esp32-server, and its files can be used as they are;
keys of it that have no effect here are listed at the end.

Changes take effect at the next `restart`, or for the `next session`: conversations that begin after the
settings were loaded again. A running server does not load them again by itself, so for now restart it in both
cases.
"""


def settings_reference() -> str:
    """Return the reference documentation of all settings as Markdown."""
    lines = [
        _HEAD,
        "## All keys\n",
        "| key | type | default | takes effect | meaning |",
        "|---|---|---|---|---|",
    ]
    lines += list(_rows(Settings, ""))
    lines += ["", "## Keys of xiaozhi-esp32-server under another name\n", "| key there | here |", "|---|---|"]
    lines += [f"| `{there}` | `{here}` |" for there, here in RENAMED.items()]
    lines += ["", "## Keys of xiaozhi-esp32-server without effect\n"]
    lines += ["They are accepted with a notice.\n", "| key | why |", "|---|---|"]
    lines += [f"| `{key}` | {reason} |" for key, reason in ACCEPTED.items()]
    lines += [
        f"| `{section}.….{option}` | {reason} |"
        for section, options in IDLE_OPTIONS.items()
        for option, reason in options.items()
    ]
    packaged = resources.files("mynah.config").joinpath("default.yaml").read_text("utf-8")
    lines += ["", "## Packaged entries\n", "```yaml", packaged.rstrip(), "```"]
    return "\n".join(lines) + "\n"


def _rows(model: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield from _rows(annotation, f"{prefix}{name}.")
            continue
        extra = field.json_schema_extra
        notes = extra if isinstance(extra, dict) else {}
        unit = notes.get("unit")
        meaning = f"{field.description}{f' ({unit})' if unit else ''}".replace("|", "\\|")
        effect = notes.get("effect", "")
        yield f"| `{prefix}{name}` | {_type_name(annotation)} | {_default(field)} | {effect} | {meaning} |"
        inner = get_args(annotation)
        if get_origin(annotation) is tuple and isinstance(inner[0], type) and issubclass(inner[0], BaseModel):
            yield from _rows(inner[0], f"{prefix}{name}[].")


def _type_name(annotation: Any) -> str:
    names = {str: "text", int: "whole number", float: "number", bool: "true/false", SecretStr: "secret text"}
    if annotation in names:
        return names[annotation]
    origin = get_origin(annotation)
    arguments = get_args(annotation)
    if origin is tuple:
        return "list"
    if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping):
        return "mapping"
    if type(None) in arguments:
        return _type_name(arguments[0])
    return " / ".join(f"`{str(item).lower() if isinstance(item, bool) else item}`" for item in arguments)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.default
    if isinstance(value, SecretStr):
        return "–"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if value is None or value in ("", (), {}):
        return "–"
    return "`" + str(value).replace("|", "\\|") + "`"
