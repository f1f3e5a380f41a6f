"""What models write as arguments becomes what the schema wants, or a refusal that says why."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mynah.errors import ToolError
from mynah.tools.arguments import MAX_ARGUMENTS_BYTES, fit, parse


def schema(required: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required)}


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("", {}),
        ("  ", {}),
        ("null", {}),
        ("{}", {}),
        ('{"a": 1}', {"a": 1}),
        (json.dumps('{"a": 1}'), {"a": 1}),
    ],
)
def test_parse(written: str, read: dict[str, Any]) -> None:
    assert parse(written) == read


@pytest.mark.parametrize("written", ["[1]", "3", '"x"', "{", '{"a": }', '"{"', "[" * 10_000])
def test_parse_refuses_what_is_no_object(written: str) -> None:
    with pytest.raises(ToolError, match="JSON"):
        parse(written)


def test_parse_bounds_the_length() -> None:
    with pytest.raises(ToolError, match="too long"):
        parse(json.dumps({"a": "x" * MAX_ARGUMENTS_BYTES}))


@given(st.text() | st.binary().map(lambda raw: raw.decode("latin-1")))
def test_parse_survives_anything(written: str) -> None:
    try:
        assert isinstance(parse(written), dict)
    except ToolError:
        pass


@pytest.mark.parametrize(
    ("kind", "given_value", "wanted"),
    [
        ("integer", 30, 30),
        ("integer", "30", 30),
        ("integer", " 30 % ", 30),
        ("integer", 30.0, 30),
        ("integer", "-7", -7),
        ("number", "2.5", 2.5),
        ("number", 3, 3),
        ("boolean", "true", True),
        ("boolean", "No", False),
        ("boolean", 1, True),
        ("boolean", "开", True),
        ("string", "x", "x"),
        ("string", 5, "5"),
        ("string", True, "true"),
        ("array", [1], [1]),
        ("array", "[1, 2]", [1, 2]),
        ("array", "x", ["x"]),
        ("object", {"a": 1}, {"a": 1}),
        ("object", '{"a": 1}', {"a": 1}),
    ],
)
def test_coercion_gives_exact_types(kind: str, given_value: Any, wanted: Any) -> None:
    fitted = fit({"x": given_value}, schema(x={"type": kind}))["x"]
    assert fitted == wanted
    assert type(fitted) is type(wanted)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("integer", 30.5),
        ("integer", "soon"),
        ("integer", True),
        ("integer", [1]),
        ("integer", "9" * 50),
        ("integer", float("inf")),
        ("number", "nan"),
        ("number", {}),
        ("boolean", "maybe"),
        ("boolean", 2),
        ("string", ["a"]),
        ("array", {"a": 1}),
        ("object", "[1]"),
        ("object", 1),
    ],
)
def test_what_has_no_clear_meaning_is_refused_by_name(kind: str, value: Any) -> None:
    with pytest.raises(ToolError, match="'x' must be"):
        fit({"x": value}, schema(x={"type": kind}))


def test_choices_ignore_case_and_separators() -> None:
    day = schema(day={"enum": ["today", "day_after_tomorrow"], "type": "string"})
    assert fit({"day": "Today"}, day) == {"day": "today"}
    assert fit({"day": "day after tomorrow"}, day) == {"day": "day_after_tomorrow"}
    with pytest.raises(ToolError, match='one of today, day_after_tomorrow, not "monday"'):
        fit({"day": "monday"}, day)


def test_range_is_checked_and_named() -> None:
    percent = schema(volume={"type": "integer", "minimum": 0, "maximum": 100})
    assert fit({"volume": 100}, percent) == {"volume": 100}
    with pytest.raises(ToolError, match="integer from 0 to 100, not 101"):
        fit({"volume": 101}, percent)
    with pytest.raises(ToolError, match="of at least 1"):
        fit({"n": 0}, schema(n={"type": "integer", "minimum": 1}))
    with pytest.raises(ToolError, match="of at most 1"):
        fit({"n": 2}, schema(n={"type": "integer", "maximum": 1}))


def test_missing_optional_null_and_unknown() -> None:
    place = schema(("city",), city={"type": "string"}, days={"type": "integer"})
    assert fit({"city": "Rome", "days": None, "mood": "good"}, place) == {"city": "Rome"}
    for arguments in ({}, {"city": None}):
        with pytest.raises(ToolError, match="'city' is missing; it is string"):
            fit(arguments, place)


def test_nullable_takes_null() -> None:
    maybe = schema(x={"type": ["integer", "null"]})
    assert fit({"x": None}, maybe) == {"x": None}
    assert fit({"x": "none"}, maybe) == {"x": None}
    assert fit({"x": "4"}, maybe) == {"x": 4}


def test_other_case_styles_of_a_name_are_found() -> None:
    assert fit({"fromUnit": "km"}, schema(from_unit={"type": "string"})) == {"from_unit": "km"}


def test_items_of_lists_are_fitted() -> None:
    numbers = schema(x={"type": "array", "items": {"type": "integer"}})
    assert fit({"x": ["1", 2]}, numbers) == {"x": [1, 2]}
    with pytest.raises(ToolError, match="'x' must be integer"):
        fit({"x": ["one"]}, numbers)


def test_a_property_without_type_takes_anything() -> None:
    assert fit({"x": [1, "a"]}, schema(x={})) == {"x": [1, "a"]}
    assert fit({"x": 1}, {"type": "object", "properties": {"x": True}}) == {"x": 1}
    assert fit({"x": 1}, {"type": "object"}) == {}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(["integer", "number", "boolean", "string", "array", "object"]), JSON)
def test_whatever_passes_has_the_type_of_the_schema(kind: str, value: Any) -> None:
    python = {
        "integer": int,
        "number": (int, float),
        "boolean": bool,
        "string": str,
        "array": list,
        "object": dict,
    }
    try:
        fitted = fit({"x": value}, schema(x={"type": kind}))
    except ToolError:
        return
    if fitted:
        assert isinstance(fitted["x"], python[kind])  # type: ignore[arg-type]
        assert kind == "boolean" or not isinstance(fitted["x"], bool)


@pytest.mark.parametrize(
    "broken",
    [{"properties": [1]}, {"properties": "x"}, {"properties": {"a": {}}, "required": 5}, {"required": {}}],
)
def test_a_malformed_schema_of_a_device_demands_nothing(broken: dict[str, Any]) -> None:
    assert fit({"b": 1}, broken) == {}
