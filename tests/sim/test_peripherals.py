import json
from typing import Any

import pytest

from mynah.errors import WireError
from mynah.sim.discovery import DeviceIdentity
from mynah.sim.peripherals import Peripherals
from mynah.wire.messages import DeviceMessage, Iot, Mcp, decode


class Wire:
    """Keeps what is sent."""

    def __init__(self, **options: Any) -> None:
        self.frames: list[bytes] = []
        self.messages: list[DeviceMessage] = []
        self.device = Peripherals(DeviceIdentity(), self.send, **options)
        self.device.opened("s1")

    def send(self, frame: bytes, message: DeviceMessage) -> None:
        self.frames.append(frame)
        self.messages.append(message)


def test_tools() -> None:
    wire = Wire()
    assert wire.device.features == {"mcp": True, "glyph_push": False}
    assert wire.frames == []
    wire.device.on_mcp({"jsonrpc": "2.0", "id": 3, "method": "tools/list"})
    wire.device.on_iot([{"name": "Speaker", "method": "SetVolume", "parameters": {"volume": 1}}])
    (frame,) = wire.frames
    assert list(json.loads(frame)) == ["session_id", "type", "payload"]
    assert decode(frame) == wire.messages[0]


def test_errors_are_not_escaped() -> None:
    wire = Wire()
    wire.device.on_mcp({"jsonrpc": "2.0", "id": 3, "method": "no"})
    assert json.loads(wire.frames[0])["payload"]["error"] == {"message": "Method not implemented: no"}
    wire.device.on_mcp({"jsonrpc": "2.0", "id": 4, "method": 'a "quoted" one'})
    with pytest.raises(json.JSONDecodeError):
        json.loads(wire.frames[1])
    try:
        saved = decode(wire.frames[1])
    except WireError:
        return
    assert isinstance(saved, Mcp)  # a server may save the id
    assert saved.payload["id"] == 4


def test_things() -> None:
    wire = Wire(iot=True)
    assert wire.device.features == {}
    reports = [json.loads(frame) for frame in wire.frames]
    assert all(report["type"] == "iot" and report["update"] is True for report in reports)
    assert all(report["session_id"] == "s1" for report in reports)
    assert [report["descriptors"][0]["name"] for report in reports[:-1]] == [
        "Speaker",
        "Screen",
        "Lamp",
        "Battery",
    ]
    assert {state["name"] for state in reports[-1]["states"]} == {"Speaker", "Screen", "Lamp", "Battery"}
    assert all("descriptors" not in report or "states" not in report for report in reports)
    wire.frames.clear()
    wire.messages.clear()
    wire.device.on_mcp({"jsonrpc": "2.0", "id": 3, "method": "tools/list"})
    assert wire.frames == []
    wire.device.on_iot([{"name": "Speaker", "method": "SetVolume", "parameters": {"volume": 30}}])
    assert wire.messages == [Iot(states=[{"name": "Speaker", "state": {"volume": 30}}])]
    wire.device.on_iot([{"name": "Speaker", "method": "SetVolume", "parameters": {"volume": 30}}])
    wire.device.report_changes()
    assert len(wire.frames) == 1  # nothing has changed since
