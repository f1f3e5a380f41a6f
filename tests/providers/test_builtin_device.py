"""Volume, brightness, battery and network, through the tools of a simulated device."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from mynah.providers.base import ChatMessage, LlmRequest, Role, TextDelta, ToolCall, ToolSpec
from mynah.providers.llm.builtin import BuiltinLlm, BuiltinLlmOptions
from mynah.texts import text, variants
from tests.providers.builtin_talk import Talk


@pytest.fixture
async def talk() -> AsyncIterator[Talk]:
    conversation = Talk()
    await conversation.connect()
    yield conversation
    conversation.agenda.close()


@pytest.mark.parametrize(
    ("said", "answer", "volume"),
    [
        ("set the volume to 30", "The volume is now 30 percent.", 30),
        ("volume sixty percent", "The volume is now 60 percent.", 60),
        ("set the volume to 250", "The volume is now 100 percent.", 100),
        ("turn up the volume", "The volume is now 80 percent.", 80),
        ("louder", "The volume is now 80 percent.", 80),
        ("turn it down please", "The volume is now 60 percent.", 60),
        ("full volume", "The volume is now 100 percent.", 100),
        ("mute", "I am silent now.", 0),
        ("what is the volume", "The volume is at 70 percent.", 70),
        ("音量调到五十", "音量已调到百分之50。", 50),
        ("大声一点", "音量已调到百分之80。", 80),
        ("把声音调小一点", "音量已调到百分之60。", 60),
        ("静音", "已静音。", 0),
        ("现在音量多大", "现在音量是百分之70。", 70),
    ],
)
async def test_volume(talk: Talk, said: str, answer: str, volume: int) -> None:
    assert await talk.say(said) == answer
    assert talk.device.settings.volume == volume
    assert talk.device.settings.brightness == 75


@pytest.mark.parametrize(
    ("said", "answer", "brightness"),
    [
        ("set the brightness to 20 percent", "The brightness is now 20 percent.", 20),
        ("make the screen brighter", "The brightness is now 85 percent.", 85),
        ("dim the screen", "The brightness is now 65 percent.", 65),
        ("what is the screen brightness", "The brightness is at 75 percent.", 75),
        ("亮度调到百分之四十", "亮度已调到百分之40。", 40),
        ("把屏幕调亮一点", "亮度已调到百分之85。", 85),
        ("屏幕暗一点", "亮度已调到百分之65。", 65),
    ],
)
async def test_brightness(talk: Talk, said: str, answer: str, brightness: int) -> None:
    assert await talk.say(said) == answer
    assert talk.device.settings.brightness == brightness
    assert talk.device.settings.volume == 70


async def test_relative_changes_read_the_level_first_and_stop_at_the_ends(talk: Talk) -> None:
    await talk.say("louder")
    assert talk.device.calls == ["self.get_device_status", "self.audio_speaker.set_volume"]
    talk.device.settings.volume = 95
    assert await talk.say("louder") == "The volume is now 100 percent."
    assert await talk.say("louder") == text("device_volume_max", "en")
    talk.device.settings.volume = 5
    assert await talk.say("quieter") == "I am silent now."
    assert await talk.say("quieter") == text("device_volume_min", "en")


async def test_again_goes_on_in_the_same_direction(talk: Talk) -> None:
    await talk.say("louder")
    assert await talk.say("again") == "The volume is now 90 percent."


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        ("how is your battery", "The battery is at 80 percent."),
        ("还有多少电", "电量是百分之80。"),
        (
            "what network are you on",
            "It is connected to the wireless network simulated, and the signal is strong.",
        ),
        ("网络怎么样", "已连接无线网络simulated，信号很强。"),
        (
            "device status",
            "The battery is at 80 percent. The volume is at 70 percent. The brightness is at 75 percent. "
            "It is connected to the wireless network simulated, and the signal is strong.",
        ),
    ],
)
async def test_status(talk: Talk, said: str, answer: str) -> None:
    assert await talk.say(said) == answer


@pytest.mark.parametrize(
    ("said", "key"),
    [
        ("set the volume to 30", "device_volume_missing"),
        ("mute", "device_volume_missing"),
        ("make it brighter", "device_brightness_missing"),
        ("how is your battery", "device_battery_missing"),
        ("are you connected", "device_network_missing"),
        ("device status", "device_status_missing"),
    ],
)
async def test_a_device_without_tools(said: str, key: str) -> None:
    talk = Talk()
    assert await talk.say(said) == variants(key, "en")[0]
    assert talk.face == "😔"
    assert talk.called == []


async def ask(said: str, *results: tuple[str, str, str], tools: tuple[str, ...]) -> ToolCall | str:
    """The responder's next step when tools (name, arguments, result) have been called already."""
    messages = [ChatMessage(Role.USER, said)]
    for n, (name, arguments, result) in enumerate(results):
        messages.append(ChatMessage(Role.ASSISTANT, "", (ToolCall(str(n), name, arguments),)))
        messages.append(ChatMessage(Role.TOOL, result, tool_call_id=str(n), name=name))
    offered = tuple(ToolSpec(name, "", LEVEL if "volume" in name else {}) for name in tools)
    llm = BuiltinLlm("builtin", BuiltinLlmOptions())
    chunks = [chunk async for chunk in llm.generate(LlmRequest(tuple(messages), offered))]
    if isinstance(chunks[0], ToolCall):
        return chunks[0]
    return "".join(chunk.text for chunk in chunks if isinstance(chunk, TextDelta))[2:]


LEVEL = {"type": "object", "properties": {"volume": {"type": "integer", "minimum": 0, "maximum": 100}}}
SET, STATUS = "self_audio_speaker_set_volume", "self_get_device_status"


@pytest.mark.parametrize(
    "content", ["", "no JSON", "[]", '{"audio_speaker": 3}', '{"audio_speaker": {"volume": "x"}}']
)
async def test_an_odd_status_does_not_stop_a_change(content: str) -> None:
    step = await ask("louder", (STATUS, "{}", content), tools=(SET, STATUS))
    assert isinstance(step, ToolCall)
    assert msgspec.json.decode(step.arguments) == {"volume": 60}


async def test_a_change_without_a_status_tool_starts_in_the_middle() -> None:
    step = await ask("quieter", tools=("set_volume",))
    assert isinstance(step, ToolCall)
    assert (step.name, msgspec.json.decode(step.arguments)) == ("set_volume", {"volume": 40})


@pytest.mark.parametrize("content", ["false", "Error: the device says: out of range"])
async def test_a_refusal_is_told(content: str) -> None:
    assert await ask("mute", (SET, '{"volume":0}', content), tools=(SET,)) == text("device_failed", "en")


async def test_cellular_and_charging_and_missing_parts() -> None:
    network = '{"type":"cellular","carrier":"Acme","signal":"very weak"}'
    status = f'{{"battery":{{"level":5,"charging":true}},"network":{network}}}'
    done = (STATUS, "{}", status)
    assert await ask("battery", done, tools=(STATUS,)) == "The battery is at 5 percent and charging."
    assert (
        await ask("network", done, tools=(STATUS,))
        == "It is connected to the mobile network Acme, and the signal is very weak."
    )
    assert await ask("what is the volume", done, tools=(STATUS,)) == text("device_status_missing", "en")
    assert await ask("battery", (STATUS, "{}", "{}"), tools=(STATUS,)) == text("device_battery_missing", "en")
    assert await ask("battery", (STATUS, "{}", "Error: x"), tools=(STATUS,)) == text("device_failed", "en")


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": "object", "properties": {}},
        {"type": "object", "properties": {"volume": {"type": "string"}}},
        {"type": "object", "properties": {"volume": {"type": ["integer", "null"]}}},
        {"type": "object", "properties": {"volume": {"type": "integer", "maximum": 255}}},
        {"type": "object", "properties": {"volume": {"type": "integer", "maximum": []}}},
        {"type": "object", "properties": {"loudness": {"type": "integer"}, "ramp": {"type": "integer"}}},
    ],
)
async def test_success_is_not_claimed_with_a_tool_that_does_not_take_the_number(
    schema: dict[str, Any],
) -> None:
    request = LlmRequest((ChatMessage(Role.USER, "set the volume to 40"),), (ToolSpec(SET, "", schema),))
    llm = BuiltinLlm("builtin", BuiltinLlmOptions())
    said = "".join([chunk.text async for chunk in llm.generate(request) if isinstance(chunk, TextDelta)])
    assert said.endswith(text("device_volume_missing", "en"))
