"""The gate and the links of all transports: what one of them can be asked, the others can as well."""

from __future__ import annotations

import inspect
from http import HTTPStatus

import pytest

from mynah.net.devices import Devices
from mynah.net.gate import Cause, DeviceLink, Gate, Refusal
from mynah.net.pull_device import PullDevice
from mynah.net.websocket import DeviceSocket
from mynah.wire.messages import Stt
from tests.net.pull_world import DEVICE, Modem, World, peer, soon
from tests.virtual_time import virtual


def signature(kind: type, name: str) -> list[str]:
    return list(inspect.signature(getattr(kind, name)).parameters)


def asked(protocol: type) -> list[str]:
    return [name for name, _ in inspect.getmembers(protocol, inspect.isfunction) if not name.startswith("_")]


@pytest.mark.parametrize("transport", [DeviceSocket, PullDevice])
def test_links_have_what_a_gate_asks_for(transport: type) -> None:
    names = asked(DeviceLink)
    assert {"send", "send_audio", "close", "equip", "abort"} <= set(names)
    assert [signature(transport, name) for name in names] == [signature(DeviceLink, name) for name in names]


def test_the_gate_is_that_of_all_transports() -> None:
    names = asked(Gate)
    assert [signature(Devices, name) for name in names] == [signature(Gate, name) for name in names]


def test_a_refusal_without_a_cause_is_counted_as_another() -> None:
    assert Refusal(HTTPStatus.FORBIDDEN, "no").cause is Cause.OTHER
    assert len({cause.value for cause in Cause}) == len(Cause)


@virtual
async def test_a_link_is_told_everything_and_says_what_it_can() -> None:
    """Messages without a form on this wire are dropped; ending it twice, or after its end, does no harm."""
    world = World()
    modem = Modem(world)
    modem.poll()
    (link,) = world.server._devices.values()
    before = modem.socket.raw
    link.send(Stt("hello", "id"))
    assert modem.socket.raw == before, "this device wants no text"
    assert link.peer.device_id == peer(DEVICE).device_id
    link.close()
    link.close(1001, "server is shutting down")
    link.abort()
    link.abort()
    await soon()
    link.send(Stt("late", "id"))
    link.send_audio(b"late", 60)
    assert not modem.socket.is_closing(), "without a reason the connection stays"
    assert len(world.devices) == 0
    assert world.kept() == 0
    await world.end()
