"""The simulated things: what they tell can be read, what they are told is done as firmware does it."""

from __future__ import annotations

from typing import Any

import pytest

from mynah.sim.iot_things import IotThings, ThingSettings
from mynah.wire.iot import ValueType, command, parse_descriptors, parse_states


def test_what_they_tell_is_read_in_full() -> None:
    device = IotThings()
    things = {thing.name: thing for thing in parse_descriptors(device.descriptors())}
    assert list(things) == ["Speaker", "Screen", "Lamp", "Battery"]
    assert [method.name for method in things["Screen"].methods] == ["SetTheme", "SetBrightness"]
    assert things["Speaker"].methods[0].parameters[0].type is ValueType.NUMBER
    assert things["Battery"].methods == ()
    assert parse_states(device.states()) == {
        "Speaker": {"volume": 70},
        "Screen": {"theme": "light", "brightness": 75},
        "Lamp": {"power": False},
        "Battery": {"level": 80, "charging": False},
    }


def test_commands_change_the_state_and_only_changes_are_reported() -> None:
    device = IotThings()
    device.states()
    device.handle(
        [
            command("Speaker", "SetVolume", {"volume": 12}),
            command("Screen", "SetTheme", {"theme_name": "dark"}),
            command("Lamp", "TurnOn", {}),
            {"name": "Lamp", "method": "TurnOff"},
            {"name": "Lamp", "method": "TurnOn"},
        ]
    )
    assert device.settings == ThingSettings(volume=12, theme="dark", power=True)
    assert device.calls == [
        "Speaker.SetVolume",
        "Screen.SetTheme",
        "Lamp.TurnOn",
        "Lamp.TurnOff",
        "Lamp.TurnOn",
    ]
    assert device.faults == []
    changed = {state["name"]: state["state"] for state in device.states(changed_only=True)}
    assert changed == {
        "Speaker": {"volume": 12}, "Screen": {"theme": "dark", "brightness": 75}, "Lamp": {"power": True},
    }  # fmt: skip
    assert device.states(changed_only=True) == []


@pytest.mark.parametrize(
    "unknown",
    [
        {},
        {"name": "Toaster"},
        {"name": "Lamp"},
        {"name": "Lamp", "method": "Explode"},
        {"name": [1], "method": 2},
    ],
)
def test_what_is_unknown_is_ignored(unknown: dict[str, Any]) -> None:
    device = IotThings()
    device.handle([unknown])
    assert (device.calls, device.faults, device.settings) == ([], [], ThingSettings())


@pytest.mark.parametrize(
    ("value", "volume", "fault"),
    [
        (300, 44, "300: taken for 44"),
        (-1, 255, "-1: taken for 255"),
        ("30", 0, "'30': taken for 0"),
        (30.9, 30, "30.9: taken for 30"),
        (True, 0, "True: taken for 0"),
        (False, 0, "False: taken for 0"),
    ],
)
def test_numbers_are_taken_as_firmware_does(value: object, volume: int, fault: str) -> None:
    device = IotThings()
    device.handle([command("Speaker", "SetVolume", {"volume": value})])
    assert device.settings.volume == volume
    assert device.faults == [f"Speaker.SetVolume with volume {fault}"]


@pytest.mark.parametrize("parameters", [{}, None, {"theme_name": 1}])
def test_what_would_crash_a_device_is_noted(parameters: object) -> None:
    device = IotThings()
    device.handle([{"name": "Screen", "method": "SetTheme", "parameters": parameters}])
    assert device.faults == ["Screen.SetTheme without theme_name: firmware crashes"]
    assert device.calls == []
