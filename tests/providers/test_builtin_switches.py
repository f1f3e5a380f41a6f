"""Turning things on and off, with tools that nobody has agreed names for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mynah.providers.base import ChatMessage, LlmRequest, Role, TextDelta, ToolCall, ToolSpec
from mynah.providers.llm.builtin import BuiltinLlm, BuiltinLlmOptions
from mynah.providers.llm.builtin_switches import Switch, find_switches
from mynah.texts import text
from tests.providers.builtin_talk import Talk

NONE: dict[str, Any] = {"type": "object", "properties": {}}


def one(argument: str, kind: object = "boolean") -> dict[str, Any]:
    return {"type": "object", "properties": {argument: {"type": kind}}}


@pytest.fixture
async def talk() -> AsyncIterator[Talk]:
    conversation = Talk()
    conversation.describe_things()
    yield conversation
    conversation.agenda.close()


@pytest.mark.parametrize(
    ("said", "answer", "method"),
    [
        ("turn on the lamp", "Turning on the lamp.", "TurnOn"),
        ("please switch the light off", "Turning off the light.", "TurnOff"),
        ("could you turn my lamp on now", "Turning on the lamp.", "TurnOn"),
        ("打开灯", "正在打开灯。", "TurnOn"),
        ("请把灯打开", "正在打开灯。", "TurnOn"),
        ("开灯", "正在打开灯。", "TurnOn"),
        ("帮我关一下台灯", "正在关闭台灯。", "TurnOff"),
        ("关闭台灯", "正在关闭台灯。", "TurnOff"),
        ("把灯关了", "正在关闭灯。", "TurnOff"),
    ],
)
async def test_the_lamp_among_the_things(talk: Talk, said: str, answer: str, method: str) -> None:
    assert await talk.say(said) == answer
    assert talk.things.calls == [f"Lamp.{method}"]
    assert talk.things.settings.power is (method == "TurnOn")


async def test_what_is_not_there_is_not_switched(talk: Talk) -> None:
    assert await talk.say("turn on the washing machine") == text("device_switch_missing", "en")
    assert await talk.say("打开洗衣机") == text("device_switch_missing", "zh")
    assert talk.face == "😔"
    assert talk.things.calls == []


@pytest.mark.parametrize(
    ("said", "intents"),
    [
        ("turn off the sound", "I am silent now."),
        ("turn the volume up", "The volume is now 80 percent."),
        ("关掉声音", "已静音。"),
    ],
)
async def test_other_commands_with_the_same_verb_stay_what_they_are(
    talk: Talk, said: str, intents: str
) -> None:
    assert await talk.say(said) == intents


@pytest.mark.parametrize(
    ("name", "schema", "arguments"),
    [
        ("Lamp_TurnOn", NONE, {}),
        ("self_lamp_turn_on", {}, {}),
        ("self_light_on", NONE, {}),
        ("LED_on", NONE, {}),
        ("Lamp_SetPower", one("power"), {"power": True}),
        ("self_lamp_set_power", one("on"), {"on": True}),
        ("self_lamp_switch", one("state"), {"state": True}),
        ("Lamp_TurnOff", NONE, None),
        ("Lamp_Toggle", NONE, None),
        ("Lamp_TurnOn", one("level", "integer"), None),
        ("Lamp_SetPower", one("off"), None),
        ("Lamp_SetPower", one("power", ["boolean"]), None),
        ("self_lamp_take_photo", one("on"), None),
        ("self_fan_turn_on", NONE, None),
        ("Lamp_SetPower", {"properties": {"power": {"type": "boolean"}, "fade": {"type": "boolean"}}}, None),
        ("Lamp_SetPower", {"properties": {"power": True}}, None),
        ("Lamp_SetPower", {"properties": []}, None),
        ("on", NONE, None),
    ],
)
def test_a_switch_is_known_by_its_name(
    name: str, schema: dict[str, Any], arguments: dict[str, bool] | None
) -> None:
    found = find_switches({name: schema}, {}, "lamp", on=True)
    assert [(switch.tool, switch.arguments) for switch in found] == (
        [] if arguments is None else [(name, arguments)]
    )


def test_off_is_the_contrary() -> None:
    tools = {"Lamp_TurnOn": NONE, "Lamp_TurnOff": NONE, "Fan_SetPower": one("power")}
    assert find_switches(tools, {}, "lamp", on=False) == [Switch("Lamp_TurnOff", {}, ("lamp",))]
    assert find_switches(tools, {}, "风扇", on=False) == [Switch("Fan_SetPower", {"power": False}, ("fan",))]


def test_the_better_name_counts_and_several_equally_good_ones_are_told() -> None:
    tools = {"Lamp_TurnOn": NONE, "ReadingLamp_TurnOn": NONE, "KitchenLight_TurnOn": NONE}
    assert [switch.tool for switch in find_switches(tools, {}, "lamp", on=True)] == ["Lamp_TurnOn"]
    assert [switch.tool for switch in find_switches(tools, {}, "reading lamp", on=True)] == [
        "ReadingLamp_TurnOn"
    ]
    del tools["Lamp_TurnOn"]
    assert len(find_switches(tools, {}, "lamp", on=True)) == 2


def test_chinese_names_of_things_are_found_in_what_they_say_of_themselves() -> None:
    tools = {"thing_TurnOn": NONE, "thing_TurnOn_2": NONE}
    descriptions = {"thing_TurnOn": "打开 (加湿器: 卧室的加湿器)", "thing_TurnOn_2": "打开 (水泵: 浇花)"}
    assert [switch.tool for switch in find_switches(tools, descriptions, "加湿器", on=True)] == [
        "thing_TurnOn"
    ]
    assert find_switches(tools, descriptions, "冰箱", on=True) == []


async def next_step(said: str, *tools: ToolSpec, done: str | None = None) -> ToolCall | str:
    messages = [ChatMessage(Role.USER, said)]
    if done is not None:
        messages.append(ChatMessage(Role.ASSISTANT, "", (ToolCall("1", tools[0].name, "{}"),)))
        messages.append(ChatMessage(Role.TOOL, done, tool_call_id="1", name=tools[0].name))
    llm = BuiltinLlm("builtin", BuiltinLlmOptions())
    chunks = [chunk async for chunk in llm.generate(LlmRequest(tuple(messages), tools))]
    if isinstance(chunks[0], ToolCall):
        return chunks[0]
    return "".join(chunk.text for chunk in chunks if isinstance(chunk, TextDelta))[2:]


async def test_which_one_is_asked_when_the_name_does_not_say() -> None:
    tools = [ToolSpec(name, "", NONE) for name in ("KitchenLight_TurnOn", "HallLight_TurnOn")]
    assert await next_step("turn on the light", *tools) == text("device_switch_several", "en")
    step = await next_step("turn on the hall light", *tools)
    assert isinstance(step, ToolCall)
    assert step.name == "HallLight_TurnOn"


@pytest.mark.parametrize("content", ["false", "Error: the device says: burnt out"])
async def test_a_refusal_is_told(content: str) -> None:
    lamp = ToolSpec("Lamp_TurnOn", "", NONE)
    assert await next_step("turn on the lamp", lamp, done=content) == text("device_failed", "en")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.text(max_size=30), st.dictionaries(st.sampled_from(["properties", "type"]), JSON), st.text(max_size=9)
)
def test_any_schema_is_survived(name: str, schema: dict[str, Any], wanted: str) -> None:
    assert len(find_switches({name: schema}, {name: wanted}, wanted, on=True)) <= 1
