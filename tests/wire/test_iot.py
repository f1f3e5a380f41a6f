"""Descriptions and states of legacy things: read exactly, and never a reason to fail."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mynah.wire import iot
from mynah.wire.iot import Thing, ThingMethod, ThingParameter, ThingProperty, ValueType

SPEAKER = {
    "name": "Speaker",
    "description": "这台设备的扬声器",
    "properties": {"volume": {"description": "现在的音量", "type": "number"}},
    "methods": {
        "SetVolume": {
            "description": "调节音量",
            "parameters": {"volume": {"description": "0到100之间的整数", "type": "number"}},
        }
    },
}


def test_a_thing_of_firmware() -> None:
    volume = ThingParameter("volume", "0到100之间的整数", ValueType.NUMBER, required=True)
    assert iot.parse_descriptors([SPEAKER]) == (
        Thing(
            "Speaker",
            "这台设备的扬声器",
            (ThingProperty("volume", "现在的音量", ValueType.NUMBER),),
            (ThingMethod("SetVolume", "调节音量", (volume,)),),
        ),
    )


@pytest.mark.parametrize(
    ("kind", "read"),
    [
        ("boolean", ValueType.BOOLEAN),
        ("number", ValueType.NUMBER),
        ("float", ValueType.NUMBER),
        ("Integer", ValueType.INTEGER),
        ("int", ValueType.INTEGER),
        ("string", ValueType.STRING),
        ("array", ValueType.ARRAY),
        ("object", ValueType.OBJECT),
        ("colour", ValueType.STRING),
        (None, ValueType.STRING),
        (["number"], ValueType.STRING),
    ],
)
def test_types(kind: object, read: ValueType) -> None:
    (thing,) = iot.parse_descriptors([{"name": "x", "properties": {"p": {"type": kind}}}])
    assert thing.properties[0].type is read


def test_only_what_is_called_optional_is_optional() -> None:
    parameters = {"a": {"type": "string"}, "b": {"required": False}, "c": {"required": True}}
    (thing,) = iot.parse_descriptors([{"name": "x", "methods": {"m": {"parameters": parameters}}}])
    assert [parameter.required for parameter in thing.methods[0].parameters] == [True, False, True]


@pytest.mark.parametrize(
    "entry",
    [
        None,
        "Speaker",
        {},
        {"name": ""},
        {"name": "  "},
        {"name": 7, "methods": {"m": {}}},
        {"name": "x" * 65, "methods": {"m": {}}},
        {"name": "does nothing"},
        {"name": "empty", "properties": {}, "methods": {}},
        {"name": "odd", "properties": "none", "methods": 3},
        {"name": "nameless", "methods": {"": {}}},
    ],
)
def test_what_is_no_thing_is_skipped(entry: object) -> None:
    assert [thing.name for thing in iot.parse_descriptors([entry, SPEAKER])] == ["Speaker"]


def test_members_may_come_as_a_list() -> None:
    (thing,) = iot.parse_descriptors(
        [{"name": "x", "methods": [{"name": "m", "parameters": [{"name": "p", "type": "number"}, {}]}, 3]}]
    )
    assert thing.methods == (ThingMethod("m", "", (ThingParameter("p", "", ValueType.NUMBER),)),)


def test_everything_is_bounded() -> None:
    members = {f"m{n}": {"description": "d" * 9000, "parameters": {}} for n in range(500)}
    members["m0"]["parameters"] = {f"p{n}": {} for n in range(500)}
    things = iot.parse_descriptors(
        {"name": f"t{n}", "description": "d" * 9000, "properties": members, "methods": members}
        for n in range(500)
    )
    assert 10 < len(things) < iot.MAX_THINGS  # by `MAX_TOTAL`
    assert (
        len(iot.parse_descriptors({"name": f"t{n}", "methods": {"m": {}}} for n in range(500)))
        == iot.MAX_THINGS
    )
    first = things[0]
    assert len(first.properties) == len(first.methods) == iot.MAX_MEMBERS
    assert len(first.methods[0].parameters) == iot.MAX_MEMBERS
    assert len(first.description) == len(first.methods[0].description) == iot.MAX_DESCRIPTION_CHARS
    states = [{"name": f"t{n}", "state": {f"p{m}": 1 for m in range(500)}} for n in range(500)]
    found = iot.parse_states(states)
    assert len(found) == iot.MAX_THINGS
    assert len(found["t0"]) == iot.MAX_MEMBERS


def test_states() -> None:
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    state = {
        "volume": 30, "on": False, "name": "x", "list": [1, 2], "none": None,
        "long": "x" * 2000, "huge": 10**5000, "deep": deep,
    }  # fmt: skip
    found = iot.parse_states(
        [
            {"name": "Speaker", "state": state},
            {"name": "Lamp", "state": "on"},
            {"name": "Speaker", "state": {"volume": 31}},
            {"state": {"volume": 3}},
            4,
        ]
    )
    assert found == {"Speaker": {"volume": 31, "on": False, "name": "x", "list": [1, 2]}, "Lamp": {}}


def test_command() -> None:
    assert iot.command("Lamp", "TurnOn", {}) == {"name": "Lamp", "method": "TurnOn", "parameters": {}}


NAMES = ("name", "description", "type", "required", "properties", "methods", "parameters", "state")
KEYS = st.sampled_from(NAMES)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(KEYS | st.text(max_size=4), inner, max_size=6)
    ),
    max_leaves=20,
)


@given(st.lists(VALUES, max_size=4))
def test_nothing_a_device_sends_raises(entries: list[Any]) -> None:
    for thing in iot.parse_descriptors(entries):
        assert thing.properties or thing.methods
        assert msgspec.json.encode(thing)
    assert isinstance(msgspec.json.encode(iot.parse_states(entries)), bytes)
