"""What each button does in each state, against the table of the firmware."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from mynah.sim.device import Counters, DeviceState, SimulatedDevice
from mynah.sim.user import User
from mynah.wire.messages import ListenMode

from .scripted import ScriptedServer, packets, silent

START = b'{"type":"tts","state":"start"}'
STOP = b'{"type":"tts","state":"stop"}'


@asynccontextmanager
async def somebody(**options: Any) -> AsyncIterator[tuple[SimulatedDevice, User, ScriptedServer]]:
    """Give a device that is not connected yet, and who uses it."""
    async with ScriptedServer(silent).running() as server:
        device = SimulatedDevice(switch_delay_s=0, **options)
        yield device, User(device, lambda: device.open(server.ws_url)), server
        await asyncio.sleep(0.05)
        await device.close()


def said(server: ScriptedServer, connection: int = 0) -> list[tuple[str, str | None]]:
    received = server.connections[connection].received[1:]
    return [(m["type"], m.get("state") or m.get("reason")) for m in received]


async def test_click_to_talk_interrupt_and_hang_up() -> None:
    async with somebody() as (device, user, server):
        await user.toggle()
        assert (device.state, device.mode) == (DeviceState.LISTENING, ListenMode.AUTO)
        device.on_text(START)
        await user.toggle()
        assert device.state is DeviceState.SPEAKING  # until the server says stop
        device.on_text(STOP)
        await asyncio.sleep(0.05)
        assert device.state is DeviceState.LISTENING
        await user.toggle()
        assert (device.state, device.connected) == (DeviceState.IDLE, False)
    assert said(server) == [("listen", "start"), ("abort", ""), ("listen", "start")]
    assert device.counters == Counters()


async def test_a_device_with_echo_cancelling_listens_all_the_time() -> None:
    async with somebody(protocol=2, aec=True) as (device, user, _):
        await user.toggle()
        assert device.mode is ListenMode.REALTIME


async def test_push_to_talk() -> None:
    async with somebody() as (device, user, server):
        await user.press()
        assert (device.state, device.mode, device.mic_open) == (
            DeviceState.LISTENING,
            ListenMode.MANUAL,
            True,
        )
        user.release()
        assert (device.state, device.connected) == (DeviceState.IDLE, True)
        device.on_text(START)
        assert device.state is DeviceState.SPEAKING
        await user.press()  # while speaking
        assert (device.state, device.mic_open) == (DeviceState.LISTENING, True)
        device.on_text(STOP)
        assert device.state is DeviceState.LISTENING
        user.release()
        device.on_text(START)
        device.on_text(STOP)
        assert device.state is DeviceState.IDLE
    assert said(server) == [
        ("listen", "start"),
        ("listen", "stop"),
        ("abort", ""),
        ("listen", "start"),
        ("listen", "stop"),
    ]
    assert len(server.connections) == 1
    assert device.counters == Counters()


async def test_a_button_released_while_connecting_is_remembered() -> None:
    async with somebody() as (device, user, server):
        pressing = asyncio.create_task(user.press())
        while device.state is not DeviceState.CONNECTING:
            await device.changed()
        await user.press()  # nothing happens
        await user.toggle()
        user.release()
        await pressing
        assert device.state is DeviceState.IDLE
    assert said(server) == [("listen", "start"), ("listen", "stop")]


async def test_wake_word_with_and_without_its_sound() -> None:
    async with somebody() as (device, user, server):
        await user.call("hey mynah", packets(3))
        assert device.state is DeviceState.LISTENING
        await device.close()
        await user.call("hey mynah")
        assert device.state is DeviceState.LISTENING
        device.on_text(START)
        await user.call("hey mynah")
        assert device.state is DeviceState.LISTENING
    assert said(server) == [("listen", "detect"), ("listen", "start")]
    assert len(server.connections[0].audio) == 3
    assert said(server, 1) == [
        ("listen", "start"),
        ("abort", "wake_word_detected"),
        ("listen", "start"),
    ]


async def test_a_connection_that_was_silent_for_too_long_is_replaced_and_the_device_stumbles() -> None:
    async with somebody(dead_after_s=0.1) as (device, user, server):
        await user.press()
        user.release()
        await asyncio.sleep(0.12)
        assert device.connected  # nobody has looked yet
        await user.press()
        assert (device.state, device.mic_open, device.connected) == (DeviceState.IDLE, False, True)
        await user.press()  # the second time it works
        assert device.mic_open
    assert len(server.connections) == 2
    assert said(server, 1) == [("listen", "start"), ("listen", "start")]
    assert (device.counters.dead_channel, device.counters.long_silence) == (1, 1)
