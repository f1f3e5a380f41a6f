"""Fit what a language model wrote as arguments to the JSON schema of a tool.

Models write ``"30"`` for 30, ``"Today"`` for ``today``, ``null`` for "not given". What can be meant in one
way only is put right here; anything else becomes a ToolError that tells the model how to do better. The
result has the exact JSON types of the schema: devices do not convert.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from mynah.errors import ToolError

MAX_ARGUMENTS_BYTES = 16_384
"""Longer arguments are refused: a device takes less than 8 kB, and no sentence of a user needs more."""

MAX_NUMBER_CHARS = 40
"""A number in quotes may be this long; it keeps parsing cheap."""

_TRUE = frozenset({"true", "yes", "on", "1", "是", "开"})
_FALSE = frozenset({"false", "no", "off", "0", "否", "关"})


def parse(arguments: str) -> dict[str, Any]:
    """Read the JSON text a model wrote; empty means no arguments. Raises ToolError."""
    if len(arguments) > MAX_ARGUMENTS_BYTES:
        raise ToolError("the arguments are too long")
    value: object = arguments
    # Some models encode the object a second time, as a JSON string.
    for _ in range(2):
        if isinstance(value, str):
            if not value.strip():
                return {}
            try:
                value = msgspec.json.decode(value)
            except (msgspec.DecodeError, UnicodeError, RecursionError):
                raise ToolError("the arguments are not valid JSON; send one JSON object") from None
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ToolError("the arguments must be one JSON object")
    return value


def fit(arguments: Mapping[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``arguments`` as ``schema``, of type object, wants them; drop unknown ones. Raises ToolError.

    The schema may come from a device: what is malformed in it demands nothing.
    """
    declarations, required = schema.get("properties"), schema.get("required")
    properties: Mapping[str, Any] = declarations if isinstance(declarations, Mapping) else {}
    required = required if isinstance(required, list) else ()
    # Models change the case style of names now and then: fromUnit, From_Unit.
    by_plain_name = {_plain(name): value for name, value in arguments.items()}
    fitted: dict[str, Any] = {}
    for name, declared in properties.items():
        property_schema = declared if isinstance(declared, Mapping) else {}
        value = arguments[name] if name in arguments else by_plain_name.get(_plain(name))
        if value is None and "null" not in _types(property_schema):
            if name in required:
                raise ToolError(f"argument '{name}' is missing; it is {_describe(property_schema)}")
            continue
        if name in arguments or _plain(name) in by_plain_name:
            fitted[name] = _fit_value(value, property_schema, name)
    return fitted


def _plain(name: str) -> str:
    return name.replace("_", "").replace("-", "").casefold()


def _types(schema: Mapping[str, Any]) -> tuple[str, ...]:
    found = schema.get("type")
    if isinstance(found, str):
        return (found,)
    return tuple(item for item in found if isinstance(item, str)) if isinstance(found, list) else ()


def _describe(schema: Mapping[str, Any]) -> str:
    if isinstance(schema.get("enum"), list):
        return "one of " + ", ".join(str(value) for value in schema["enum"])
    kind = " or ".join(_types(schema)) or "any value"
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        kind += f" from {low} to {high}"
    elif low is not None:
        kind += f" of at least {low}"
    elif high is not None:
        kind += f" of at most {high}"
    return kind


def _fit_value(value: Any, schema: Mapping[str, Any], name: str) -> Any:
    choices = schema.get("enum")
    if isinstance(choices, list):
        return _fit_choice(value, choices, schema, name)
    kinds = _types(schema)
    for kind in kinds:
        fitted = _FITTERS[kind](value) if kind in _FITTERS else None
        if fitted is not None:
            _check_range(fitted, schema, name)
            if isinstance(fitted, list) and isinstance(schema.get("items"), Mapping):
                return [_fit_value(item, schema["items"], name) for item in fitted]
            return fitted
    if not kinds:
        return value
    if "null" in kinds and (value is None or str(value).strip().casefold() in {"", "null", "none"}):
        return None
    raise ToolError(f"argument '{name}' must be {_describe(schema)}, not {_shown(value)}")


def _shown(value: Any) -> str:
    shown = msgspec.json.encode(value).decode(errors="replace")
    return shown if len(shown) <= MAX_NUMBER_CHARS else shown[:MAX_NUMBER_CHARS] + "…"


def _fit_choice(value: Any, choices: list[Any], schema: Mapping[str, Any], name: str) -> Any:
    for choice in choices:
        if type(choice) is type(value) and choice == value:
            return choice
    plain = _plain(str(value).strip().replace(" ", ""))
    for choice in choices:
        if _plain(str(choice).replace(" ", "")) == plain:
            return choice
    raise ToolError(f"argument '{name}' must be {_describe(schema)}, not {_shown(value)}")


def _check_range(value: Any, schema: Mapping[str, Any], name: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return
    low, high = schema.get("minimum"), schema.get("maximum")
    if (isinstance(low, int | float) and value < low) or (isinstance(high, int | float) and value > high):
        raise ToolError(f"argument '{name}' must be {_describe(schema)}, not {value}")


def _number(value: Any) -> float | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return value if not isinstance(value, float) or math.isfinite(value) else None
    if not isinstance(value, str) or len(value) > MAX_NUMBER_CHARS:
        return None
    text = value.strip().removesuffix("%").strip()
    try:
        number: float = int(text)
    except ValueError:
        try:
            number = float(text)
        except ValueError:
            return None
    return number if math.isfinite(number) else None


def _integer(value: Any) -> int | None:
    number = _number(value)
    return int(number) if number is not None and number == int(number) else None


def _boolean(value: Any) -> bool | None:
    if isinstance(value, bool):
        return value
    word = str(value).strip().casefold() if isinstance(value, str | int) else ""
    return True if word in _TRUE else False if word in _FALSE else None


def _string(value: Any) -> str | None:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else None


def _decoded(value: Any, kind: type) -> Any:
    """Return ``value`` when it is of ``kind``, what it holds when it is the JSON text of one, or None."""
    if isinstance(value, str):
        try:
            value = msgspec.json.decode(value)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return None
    return value if isinstance(value, kind) else None


def _array(value: Any) -> list[Any] | None:
    items = _decoded(value, list)
    if items is not None:
        return list(items)
    # One thing where a list is wanted is a list of one.
    return [value] if isinstance(value, str | int | float) else None


def _object(value: Any) -> dict[str, Any] | None:
    found = _decoded(value, dict)
    return dict(found) if found is not None else None


_FITTERS: dict[str, Callable[[Any], Any]] = {
    "integer": _integer,
    "number": _number,
    "boolean": _boolean,
    "string": _string,
    "array": _array,
    "object": _object,
}
