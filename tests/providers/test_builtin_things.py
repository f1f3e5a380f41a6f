"""Volume, brightness and battery of a device that has legacy things only."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from mynah.providers.llm.builtin_things import LevelTool, find_level_tool, read_things
from mynah.texts import text
from tests.providers.builtin_talk import Talk


@pytest.fixture
async def talk() -> AsyncIterator[Talk]:
    conversation = Talk()
    conversation.describe_things()
    yield conversation
    conversation.agenda.close()


@pytest.mark.parametrize(
    ("said", "answer", "volume", "brightness"),
    [
        ("turn the volume to 30", "The volume is now 30 percent.", 30, 75),
        ("set the volume to 250", "The volume is now 100 percent.", 100, 75),
        ("louder", "The volume is now 80 percent.", 80, 75),
        ("turn it down please", "The volume is now 60 percent.", 60, 75),
        ("mute", "I am silent now.", 0, 75),
        ("音量调到五十", "音量已调到百分之50。", 50, 75),
        ("静音", "已静音。", 0, 75),
        ("set the brightness to 20 percent", "The brightness is now 20 percent.", 70, 20),
        ("make the screen brighter", "The brightness is now 85 percent.", 70, 85),
        ("屏幕暗一点", "亮度已调到百分之65。", 70, 65),
    ],
)
async def test_levels(talk: Talk, said: str, answer: str, volume: int, brightness: int) -> None:
    assert await talk.say(said) == answer
    assert (talk.things.settings.volume, talk.things.settings.brightness) == (volume, brightness)
    assert talk.things.faults == []


async def test_relative_changes_go_on_from_what_was_reported(talk: Talk) -> None:
    await talk.say("louder")
    assert [call.name for call in talk.called] == ["get_device_state", "Speaker_SetVolume"]
    assert await talk.say("louder") == "The volume is now 90 percent."
    await talk.say("full volume")
    assert await talk.say("louder") == text("device_volume_max", "en")


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        ("how is your battery", "The battery is at 80 percent."),
        ("还有多少电", "电量是百分之80。"),
        ("what is the volume", "The volume is at 70 percent."),
        ("what is the screen brightness", "The brightness is at 75 percent."),
        (
            "device status",
            "The battery is at 80 percent. The volume is at 70 percent. The brightness is at 75 percent.",
        ),
    ],
)
async def test_status(talk: Talk, said: str, answer: str) -> None:
    assert await talk.say(said) == answer


async def test_network_is_not_known(talk: Talk) -> None:
    assert await talk.say("what network are you on") == text("device_network_missing", "en")


async def test_a_device_with_both_is_asked_over_mcp(talk: Talk) -> None:
    await talk.connect()
    await talk.say("turn the volume to 30")
    assert talk.device.settings.volume == 30
    assert talk.things.calls == []


def one(argument: str, kind: str = "number", **more: object) -> dict[str, Any]:
    return {"type": "object", "properties": {argument: {"type": kind, **more}}}


@pytest.mark.parametrize(
    ("name", "schema", "argument"),
    [
        ("Speaker_SetVolume", one("volume"), "volume"),
        ("Speaker_set_volume", one("Volume", "integer", minimum=0, maximum=100), "Volume"),
        ("Speaker_SetVolume", one("value"), "value"),
        ("thing_do", one("volume"), "volume"),
        ("thing_do", one("value"), ""),
        ("Speaker_SetVolume", one("volume", "string"), ""),
        ("Speaker_SetVolume", one("volume", maximum=255), ""),
        ("Speaker_SetVolume", {"properties": {"volume": {"type": "number"}, "ramp": {"type": "number"}}}, ""),
        ("Speaker_VolumeUp", {"properties": {}}, ""),
        ("Speaker_SetVolume", {}, ""),
        ("Speaker_SetVolume", {"properties": {"volume": True}}, ""),
        ("Screen_SetBrightness", one("brightness"), ""),
    ],
)
def test_a_level_tool_is_known_by_its_meaning(name: str, schema: dict[str, Any], argument: str) -> None:
    assert find_level_tool({name: schema}, "volume") == (LevelTool(name, argument) if argument else None)


def test_the_screen_comes_before_other_lights() -> None:
    tools = {"Lamp_SetBrightness": one("brightness"), "Backlight_SetBrightness": one("brightness")}
    assert find_level_tool(tools, "brightness") == LevelTool("Backlight_SetBrightness", "brightness")
    del tools["Backlight_SetBrightness"]
    assert find_level_tool(tools, "brightness") == LevelTool("Lamp_SetBrightness", "brightness")


@pytest.mark.parametrize(
    ("content", "status"),
    [
        ("", {}),
        ("[]", {}),
        ('{"Speaker": 3}', {}),
        ('{"Speaker": {"volume": 3}}', {}),
        ('{"Speaker": {"volume": {"unknown": "not reported yet"}}}', {}),
        ('{"Speaker": {"volume": {"value": 30.0}}}', {"audio_speaker": {"volume": 30}}),
        (
            '{"Lamp": {"brightness": {"value": 1}}, "Screen": {"Brightness": {"value": 2}}}',
            {"screen": {"brightness": 2}},
        ),
        (
            '{"Battery": {"level": {"value": 5}, "charging": {"value": true}, "cells": {"value": 2}}}',
            {"battery": {"level": 5, "charging": True}},
        ),
        ('{"Board": {"battery_level": {"value": 5}, "level": {"value": 1}}}', {"battery": {"level": 5}}),
    ],
)
def test_states_are_read(content: str, status: dict[str, Any]) -> None:
    assert read_things(content) == status
