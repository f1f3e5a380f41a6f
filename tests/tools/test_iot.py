"""Legacy things as tools: named for a model, sent with exact types, answered from what was last reported."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mynah.errors import ToolError
from mynah.sim.iot_things import IotThings
from mynah.tools import iot
from mynah.tools.base import Tool, ToolContext
from mynah.tools.iot import STATE_TOOL, DeviceThings
from mynah.wire.iot import MAX_MEMBERS, MAX_THINGS

Contexts = Callable[..., ToolContext]
Command = dict[str, Any]


class Device:
    """Simulated things and the client that speaks to them."""

    def __init__(self) -> None:
        self.things = IotThings()
        self.sent: list[Command] = []
        self.client = DeviceThings(self._send)

    def _send(self, commands: list[Command]) -> None:
        self.sent += commands
        self.things.handle(json.loads(json.dumps(commands)))

    def tool(self, name: str) -> Tool:
        return next(tool for tool in self.client.tools if tool.spec.name == name)

    def report(self, *, changed_only: bool = False) -> None:
        self.client.update(self.things.states(changed_only=changed_only))


@pytest.fixture
def device() -> Device:
    found = Device()
    found.client.describe(found.things.descriptors())
    return found


def one(method: dict[str, Any], thing: str = "T", name: str = "m") -> tuple[Tool, list[Command]]:
    sent: list[Command] = []
    client = DeviceThings(sent.extend)
    client.describe([{"name": thing, "methods": {name: method}}])
    return client.tools[0], sent


def test_each_method_and_the_state_is_a_tool(device: Device) -> None:
    assert [tool.spec.name for tool in device.client.tools] == [
        STATE_TOOL, "Speaker_SetVolume", "Screen_SetTheme", "Screen_SetBrightness", "Lamp_TurnOn", "Lamp_TurnOff",
    ]  # fmt: skip
    volume = device.tool("Speaker_SetVolume").spec
    assert volume.description == "调节音量 (Speaker: 机器人的扬声器)"
    assert volume.parameters == {
        "type": "object",
        "properties": {
            "volume": {"type": "integer", "description": "0到100之间的整数", "minimum": 0, "maximum": 100}
        },
        "required": ["volume"],
    }
    assert device.tool("Lamp_TurnOn").spec.parameters == {"type": "object", "properties": {}, "required": []}
    listed = "Speaker (volume); Screen (theme, brightness); Lamp (power); Battery (level, charging)."
    assert device.tool(STATE_TOOL).spec.description.endswith(listed)


async def test_a_call_sends_one_command_and_claims_nothing_more(device: Device, context: Contexts) -> None:
    volume = device.tool("Speaker_SetVolume")
    result = await volume.call(context(), {"volume": "30"})
    assert device.sent == [{"name": "Speaker", "method": "SetVolume", "parameters": {"volume": 30}}]
    assert result.content == (
        "The command was sent. This device does not confirm commands. Speaker has not reported a state."
    )
    device.report()
    result = await volume.call(context(), {"volume": 40.0})
    assert result.content.endswith('Before it, Speaker had reported {"volume":30}.')
    assert type(device.sent[-1]["parameters"]["volume"]) is int
    assert device.things.settings.volume == 40
    assert device.things.faults == []


@pytest.mark.parametrize(
    ("tool", "arguments", "told"),
    [
        ("Speaker_SetVolume", {"volume": 300}, "must be integer from 0 to 100, not 300"),
        ("Speaker_SetVolume", {"volume": -1}, "from 0 to 100"),
        ("Speaker_SetVolume", {"volume": "loud"}, "must be integer"),
        ("Speaker_SetVolume", {"volume": 30.5}, "must be integer"),
        ("Speaker_SetVolume", {}, "'volume' is missing"),
        ("Screen_SetTheme", {"theme_name": {}}, "must be string"),
    ],
)
async def test_what_the_device_cannot_take_is_not_sent(
    device: Device, context: Contexts, tool: str, arguments: dict[str, Any], told: str
) -> None:
    with pytest.raises(ToolError, match=told):
        await device.tool(tool).call(context(), arguments)
    assert device.sent == []


async def test_state(device: Device, context: Contexts) -> None:
    tool = device.tool(STATE_TOOL)
    before = json.loads((await tool.call(context(), {})).content)
    assert before["Speaker"] == {"volume": {"unknown": "not reported yet", "means": "扬声器现在的音量"}}
    device.report()
    device.things.settings.power = True
    device.report(changed_only=True)
    after = json.loads((await tool.call(context(), {})).content)
    assert after["Lamp"]["power"] == {"value": True, "means": "Whether the lamp is on"}
    assert after["Battery"]["level"]["value"] == 80


async def test_states_may_come_before_the_description(context: Contexts) -> None:
    device = Device()
    device.report()
    assert device.client.tools == ()
    device.client.describe(device.things.descriptors())
    content = (await device.tool(STATE_TOOL).call(context(), {})).content
    assert json.loads(content)["Speaker"]["volume"]["value"] == 70


def test_one_message_per_thing_and_a_newer_description() -> None:
    device = Device()
    for descriptor in device.things.descriptors():
        device.client.describe([descriptor])
    assert len(device.client.tools) == 6
    before = device.client.tools
    device.client.describe(device.things.descriptors())
    assert device.client.tools is before  # Nothing new: whoever caches by identity keeps what he has.
    device.client.describe([{"name": "Lamp", "methods": {"Blink": {}}}])
    names = [tool.spec.name for tool in device.client.tools]
    assert names[-1] == "Lamp_Blink"
    assert "Lamp_TurnOn" not in names


@pytest.mark.parametrize(
    ("kind", "description", "schema"),
    [
        ("number", "An integer between 0 and 100", {"type": "integer", "minimum": 0, "maximum": 100}),
        ("number", "1到6之间的整数", {"type": "integer", "minimum": 1, "maximum": 6}),
        ("number", "音量(0-100)", {"type": "number", "minimum": 0, "maximum": 100}),
        ("number", "degrees, -10 to 40", {"type": "number", "minimum": -10, "maximum": 40}),
        ("number", "0%~100%", {"type": "number", "minimum": 0, "maximum": 100}),
        ("float", "seconds", {"type": "number"}),
        ("number", "for example 10 to 20", {"type": "number"}),
        ("number", "0.5-3 seconds", {"type": "number"}),
        ("number", "1 to 5, or 9", {"type": "number"}),
        ("number", "100 to 0", {"type": "number"}),
        ("number", "0 to 10 and 20 to 30", {"type": "number"}),
        ("string", "a text of 1 to 5 words", {"type": "string"}),
        ("boolean", "", {"type": "boolean"}),
        ("array", "", {"type": "array", "items": {}}),
    ],
)
def test_schemas_hold_a_range_only_when_it_is_plain(
    kind: str, description: str, schema: dict[str, Any]
) -> None:
    tool, _ = one({"parameters": {"p": {"type": kind, "description": description}}})
    found = dict(tool.spec.parameters["properties"]["p"])
    assert found.pop("description", "") == description
    assert found == schema


@pytest.mark.parametrize(
    ("kind", "given", "sent"),
    [
        ("number", 30.0, 30),
        ("number", "30", 30),
        ("number", "30.5", 30.5),
        ("boolean", "on", True),
        ("boolean", True, True),
        ("string", 5, "5"),
        ("integer", "7", 7),
        ("object", '{"a": 1}', {"a": 1}),
    ],
)
async def test_exact_types_are_sent(context: Contexts, kind: str, given: object, sent: object) -> None:
    tool, commands = one({"parameters": {"p": {"type": kind}}})
    await tool.call(context(), {"p": given})
    assert commands == [{"name": "T", "method": "m", "parameters": {"p": sent}}]
    assert type(commands[0]["parameters"]["p"]) is type(sent)


async def test_optional_parameters_may_be_left_out(context: Contexts) -> None:
    tool, commands = one({"parameters": {"p": {"type": "number", "required": False}}})
    await tool.call(context(), {})
    assert commands[0]["parameters"] == {}


async def test_names_are_safe_and_unique_and_lead_back_to_the_device(context: Contexts) -> None:
    sent: list[Command] = []
    client = DeviceThings(sent.extend)
    client.describe(
        [
            {"name": "灯", "methods": {"打开": {}, "关闭": {}}},
            {"name": "Living room/lamp", "methods": {"on.off": {}}},
            {"name": "x" * 60, "methods": {"m" * 60: {}, "m" * 61: {}}},
        ]
    )
    names = [tool.spec.name for tool in client.tools]
    assert names == [
        "thing_do", "thing_do_2", "Living_room_lamp_on_off", f"{'x' * 60}_mmm", f"{'x' * 60}_m_2",
    ]  # fmt: skip
    for tool in client.tools:
        await tool.call(context(), {})
    assert [(command["name"], command["method"]) for command in sent][:3] == [
        ("灯", "打开"), ("灯", "关闭"), ("Living room/lamp", "on.off"),
    ]  # fmt: skip


def test_a_device_without_properties_has_no_state_tool() -> None:
    tool, _ = one({})
    assert tool.spec.name == "T_m"


async def test_what_a_device_tells_is_bounded(context: Contexts) -> None:
    client = DeviceThings(lambda commands: None)
    members = {f"member{n}" + "x" * 50: {"description": "d" * 300} for n in range(30)}
    for n in range(100):
        client.describe([{"name": f"t{n}", "properties": members, "methods": members}])
        client.update([{"name": f"t{n}", "state": {f"p{n}{m}": 1 for m in range(10)}}])
        client.update([{"name": "t0", "state": {f"q{n}{m}": 1 for m in range(10)}}])
    assert len(client.things) == MAX_THINGS
    assert len(client._states) == MAX_THINGS
    assert len(client._states["t0"]) == MAX_MEMBERS
    assert len(client.tools) == iot.MAX_TOOLS
    state = client.tools[0]
    assert len(state.spec.description) == iot.MAX_DESCRIPTION_CHARS
    assert "means" not in (await state.call(context(), {})).content
    # A full list still takes newer values of what it holds.
    client.update([{"name": "t0", "state": {"p00": 2}}])
    assert client._states["t0"]["p00"] == 2


async def test_nothing_runs_between_calls(device: Device, context: Contexts) -> None:
    await device.tool("Lamp_TurnOn").call(context(), {})
    assert asyncio.all_tasks() == {asyncio.current_task()}


KEYS = st.sampled_from(("name", "description", "type", "properties", "methods", "parameters", "state"))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=15,
)


@given(st.lists(st.dictionaries(KEYS, VALUES), max_size=3))
def test_anything_is_survived(entries: list[dict[str, Any]]) -> None:
    client = DeviceThings(lambda commands: None)
    client.describe(entries)
    client.update(entries)
    assert all(0 < len(tool.spec.name) <= 64 and tool.spec.name.isascii() for tool in client.tools)
