"""Layers of raw settings: reading, merging, and remembering where each value came from.

A layer is a tree of plain mappings, lists and scalars plus, for every path in it, a note of its origin
(``config.yaml:12``, ``environment variable MYNAH__SERVER__PORT``) that error messages can name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias

import yaml

from mynah.errors import ConfigError

KeyPath: TypeAlias = tuple[str, ...]

ENTRY_SECTIONS: Final = ("VAD", "ASR", "LLM", "VLLM", "TTS", "Memory", "Intent", "TurnDetector")
OPTIONAL_SECTIONS: Final = frozenset({"VLLM", "TurnDetector"})
"""Those of which no entry needs to be selected."""
"""Sections of named provider entries."""
ENV_PREFIX: Final = "MYNAH__"

_SECRET_NAME: Final = re.compile(
    r"(?:^|[_-])(?:token|secret|password|passwd|authorization|credentials?|signature|hmac)$"
    r"|(?:api|access|auth|app|secret|private|signature)[_-]?key(?:[_-](?:id|secret))?$"
    r"|^(?:secret_id|personal_access_token|elf_sha256)$",
    re.IGNORECASE,
)
_VARIABLE: Final = re.compile(r"\$(\$)?\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")

_Loader: type[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the C parser is ten times faster


def is_secret_name(name: str) -> bool:
    """Say whether a key of this name holds a secret (``api_key``, ``access_token``, not ``max_tokens``)."""
    return _SECRET_NAME.search(name) is not None


def dotted(path: Iterable[str]) -> str:
    """Write a path as people do: ``server.auth.tokens[0].name``."""
    text = ""
    for part in path:
        text += f"[{part}]" if part.isdigit() and text else f".{part}" if text else part
    return text


@dataclass
class Layer:
    """Raw values and their origins."""

    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[KeyPath, str] = field(default_factory=dict)

    def origin(self, path: KeyPath) -> str:
        """Return where a value, or the nearest thing around it, was written; empty when unknown."""
        while path:
            if path in self.origins:
                return self.origins[path]
            path = path[:-1]
        return ""


@dataclass(frozen=True)
class Missing:
    """A ``${VARIABLE}`` without value."""

    path: KeyPath
    variable: str


# ---------------------------------------------------------------- reading


def read_yaml(text: str, name: str) -> Layer:
    """Parse a YAML document whose top is a mapping. Raises ConfigError for anything else, naming ``name``."""
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        values = {} if node is None else loader.construct_document(node)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{name}:{mark.line + 1}" if mark else name
        what = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ConfigError(f"{where}: this is not valid YAML: {what}") from None
    except (ValueError, RecursionError, TypeError) as error:
        raise ConfigError(f"{name}: this is not valid YAML: {error}") from None
    finally:
        loader.dispose()
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise ConfigError(f"{name}: expected `key: value` lines, found {type(values).__name__}")
    layer = Layer(values)
    if node is not None:
        _note_lines(node, (), name, layer.origins)
    return layer


def read_file(path: Path) -> Layer:
    """Read a settings file. Raises ConfigError when it cannot be read."""
    try:
        text = path.read_text("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}; check `-c FILE`") from None
    except UnicodeError:
        raise ConfigError(f"{path}: is not UTF-8 text; save it as UTF-8") from None
    return read_yaml(text, str(path))


def _note_lines(
    node: yaml.Node, path: KeyPath, name: str, origins: dict[KeyPath, str], depth: int = 0
) -> None:
    if depth > 50:  # aliases can make a cycle; no setting is this deep
        raise ConfigError(f"{name}: nested too deeply at {dotted(path[:3])}")
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            where = f"{name}:{key.start_mark.line + 1}"
            text = str(key.value)
            if not isinstance(key, yaml.ScalarNode):
                raise ConfigError(f"{where}: a key must be plain text")
            if text in seen:
                raise ConfigError(f"{where}: {dotted((*path, text))} is written twice; keep one")
            seen.add(text)
            origins[(*path, text)] = where
            _note_lines(value, (*path, text), name, origins, depth + 1)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            origins[(*path, str(index))] = f"{name}:{value.start_mark.line + 1}"
            _note_lines(value, (*path, str(index)), name, origins, depth + 1)


def read_override(argument: str, is_text: Callable[[KeyPath], bool]) -> Layer:
    """Read one ``key.path=value`` of the command line. Raises ConfigError.

    ``is_text`` says which keys want their value as it was typed; others are read as YAML.
    """
    key, separator, text = argument.partition("=")
    path = tuple(part.strip() for part in key.split("."))
    if not separator or not all(path):
        raise ConfigError(f"-s {key}: expected key=value, for example -s server.port=8000")
    return _single(path, text, "command line", is_text)


def read_environment(
    environ: Mapping[str, str], base: Mapping[str, Any], is_text: Callable[[KeyPath], bool]
) -> Layer:
    """Read all ``MYNAH__SECTION__KEY`` variables. Letter case is taken from ``base`` where it has the key."""
    layer = Layer()
    for variable in sorted(environ):
        if not variable.startswith(ENV_PREFIX):
            continue
        path: list[str] = []
        level: Any = base
        for part in variable[len(ENV_PREFIX) :].split("__"):
            known = list(level) if isinstance(level, Mapping) else []
            name = next((key for key in known if key.lower() == part.lower()), part.lower())
            path.append(name)
            level = level.get(name) if isinstance(level, Mapping) else None
        if not all(path):
            raise ConfigError(f"environment variable {variable}: expected MYNAH__SECTION__KEY")
        layer = merge(
            layer, _single(tuple(path), environ[variable], f"environment variable {variable}", is_text)
        )
    return layer


def _single(path: KeyPath, text: str, origin: str, is_text: Callable[[KeyPath], bool]) -> Layer:
    tree: Any = text if is_text(path) or is_secret_name(path[-1]) else _scalar(text)
    for part in reversed(path):
        tree = {part: tree}
    return Layer(tree, {path[:end]: origin for end in range(1, len(path) + 1)})


def _scalar(text: str) -> Any:
    try:
        value = yaml.load(text, Loader=_Loader)  # noqa: S506 - _Loader is a safe loader
    except (yaml.YAMLError, ValueError):
        return text  # a value such as `a: b` or `@x` is meant as text
    if value is None:
        return ""
    if isinstance(value, str) and text.strip()[:1] in "\"'":
        return value  # quoted on purpose: "401" is a name, not a number
    if isinstance(value, bool | list) or (isinstance(value, dict) and text.lstrip().startswith("{")):
        return value
    # 007 and 1.50 are text to whoever wrote them; settings that want numbers take them from text too.
    return value if isinstance(value, int | float) and str(value) == text.strip() else text


# ---------------------------------------------------------------- merging


def without_nulls(values: Any) -> Any:
    """Drop keys without a value: they mean *not set*."""
    if isinstance(values, dict):
        return {key: without_nulls(value) for key, value in values.items() if value is not None}
    return values


def merge(below: Layer, above: Layer) -> Layer:
    """Lay one layer over another: mappings merge key by key, everything else replaces."""
    return Layer(_merge(below.values, above.values, ()), {**below.origins, **above.origins})


def _merge(below: dict[str, Any], above: Mapping[str, Any], path: KeyPath) -> dict[str, Any]:
    result = dict(below)
    for key, value in above.items():
        old = result.get(key)
        here = (*path, str(key))
        if isinstance(old, dict) and isinstance(value, Mapping) and not _replaces(here, old, value):
            result[key] = _merge(old, value, here)
        else:
            result[key] = value
    return result


def _replaces(path: KeyPath, old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    # An entry that changes its type shares nothing with the packaged entry of that name.
    return (
        len(path) == 2 and path[0] in ENTRY_SECTIONS and new.get("type", old.get("type")) != old.get("type")
    )


# ---------------------------------------------------------------- ${VARIABLES}


def interpolate(values: Any, environ: Mapping[str, str], path: KeyPath = ()) -> tuple[Any, list[Missing]]:
    """Put the environment's values in for ``${NAME}`` and ``${NAME:-default}``; ``$${`` stands for ``${``.

    An empty variable counts as missing. Text with a missing variable stays as it is, and is reported.
    """
    missing: list[Missing] = []
    if isinstance(values, Mapping):
        tree: dict[str, Any] = {}
        for key, value in values.items():
            tree[key], more = interpolate(value, environ, (*path, str(key)))
            missing += more
        return tree, missing
    if isinstance(values, Sequence) and not isinstance(values, str | bytes):
        items = []
        for index, value in enumerate(values):
            item, more = interpolate(value, environ, (*path, str(index)))
            items.append(item)
            missing += more
        return items, missing
    if not isinstance(values, str) or "${" not in values:
        return values, missing

    def replace(match: re.Match[str]) -> str:
        escaped, name, default = match.groups()
        if escaped:
            return match.group(0)[1:]
        if environ.get(name):
            return environ[name]
        if default is not None:
            return default
        missing.append(Missing(path, name))
        return match.group(0)

    return _VARIABLE.sub(replace, values), missing
