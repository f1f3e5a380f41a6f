import asyncio
import base64
from typing import Any

import pytest

from mynah.sim.device import Counters, DeviceState
from mynah.sim.discovery import DeviceIdentity
from mynah.sim.json_device import JsonDevice
from mynah.sim.link import ConnectError
from mynah.wire.json_dialect import SILENCE
from mynah.wire.messages import ListenMode

from .scripted import Connection, ScriptedServer, packets, tone
from .test_device import until

READY = {"session_id": "s1", "config": {"vad_threshold": 0.5, "max_audio_length": 30000}}


def coded(packet: bytes) -> str:
    return base64.b64encode(packet).decode()


async def greet(connection: Connection) -> dict[str, Any]:
    info = await connection.until("device_info")
    await connection.send("session_ready", **READY)
    return info


async def answer(connection: Connection, count: int = 3, *, final: bool = True) -> None:
    await connection.send("stt", text="what was said")
    await connection.send("tts", state="start")
    await asyncio.sleep(0.04)
    await connection.send("tts", state="sentence_start", text="Hello.")
    for packet in packets(count):
        await connection.send("tts_audio", data=coded(packet), format="opus", sample_rate=16000)
    if final:
        await connection.send(
            "tts_audio", data=coded(SILENCE), format="opus", sample_rate=16000, is_final=True
        )
    await connection.send("tts", state="stop")


async def audio(connection: Connection, count: int) -> list[dict[str, Any]]:
    return [await connection.until("audio") for _ in range(count)]


@pytest.mark.parametrize("audio_format", ["opus", "pcm"])
@pytest.mark.parametrize("mode", [ListenMode.AUTO, ListenMode.MANUAL])
async def test_a_turn(audio_format: Any, mode: ListenMode) -> None:
    heard: list[dict[str, Any]] = []

    async def script(connection: Connection) -> None:
        assert await greet(connection) == {
            "type": "device_info",
            "device_id": "02:aa:00:00:00:01",
            "client_id": device.identity.client,
            "version": "2.4.2",
        }
        heard.extend(await audio(connection, 2))
        if mode is ListenMode.MANUAL:
            heard.extend(await audio(connection, 1))
        await answer(connection)
        await connection.drain()

    frame = tone(0.06) if audio_format == "pcm" else packets(1)[0]
    device = JsonDevice(DeviceIdentity("02:aa:00:00:00:01"), audio_format=audio_format)
    async with ScriptedServer(script).running() as server:
        hello = await device.open(server.ws_url)
        assert hello.session_id == device.session_id == "s1"
        device.listen(mode)
        assert device.send_audio(frame)
        assert device.send_audio(frame)
        if mode is ListenMode.MANUAL:
            device.stop_listening()
        await until(device, lambda: device.state is DeviceState.SPEAKING)
        assert not device.mic_open
        if mode is ListenMode.MANUAL:
            await until(device, lambda: device.state is DeviceState.IDLE)
        else:
            await until(device, lambda: device.mic_open)
        await asyncio.sleep(0.3)
        await device.close()
    assert [base64.b64decode(message["data"]) for message in heard[:2]] == [frame, frame]
    assert {message["format"] for message in heard} == {audio_format}
    assert [message["is_final"] for message in heard] == [False, False, True][: len(heard)]
    assert device.speaker.played == packets(3)
    assert device.sample_rate == 16000
    assert device.counters == Counters()
    assert not [m for m in server.connections[0].received if m["type"] == "listen"]


async def test_the_last_message_may_carry_sound() -> None:
    async def script(connection: Connection) -> None:
        await greet(connection)
        await connection.send("tts", state="start")
        await asyncio.sleep(0.04)
        for number, packet in enumerate(packets(2)):
            await connection.send("tts_audio", data=coded(packet), is_final=number == 1)
        await connection.send("tts", state="stop")
        await connection.drain()

    async with ScriptedServer(script).running() as server:
        device = JsonDevice()
        await device.open(server.ws_url)
        await until(device, lambda: device.state is DeviceState.SPEAKING)
        await until(device, lambda: device.mic_open)  # it has been played
        await device.close()
    assert device.speaker.played == packets(2)
    assert device.counters == Counters()


async def test_an_abort_is_answered_with_an_end() -> None:
    async def script(connection: Connection) -> None:
        await greet(connection)
        await connection.until("abort")
        await connection.send("tts_audio", data=coded(SILENCE), is_final=True)
        await connection.send("tts", state="stop")
        await connection.send("pong")
        await connection.drain()

    async with ScriptedServer(script).running() as server:
        device = JsonDevice()
        await device.open(server.ws_url)
        device.abort()
        await asyncio.sleep(0.1)
        await device.close()
    assert device.counters == Counters()


async def bad(script: Any) -> Counters:
    async def whole(connection: Connection) -> None:
        await greet(connection)
        await script(connection)
        await connection.send("goodbye")

    async with ScriptedServer(whole).running() as server:
        device = JsonDevice()
        await device.open(server.ws_url)
        while device.connected:
            await device.changed()
        await device.close()
    return device.counters


async def test_a_reply_without_a_last_audio_message_is_counted() -> None:
    assert await bad(lambda connection: answer(connection, final=False)) == Counters(missing_final=1)


async def test_audio_after_the_last_is_counted() -> None:
    async def script(connection: Connection) -> None:
        await answer(connection)
        await connection.send("tts_audio", data=coded(packets(1)[0]))

    assert await bad(script) == Counters(stray_audio=1)


async def test_an_end_without_a_reply_is_counted() -> None:
    async def script(connection: Connection) -> None:
        await connection.send("tts_audio", data=coded(SILENCE), is_final=True)
        await connection.send("tts", state="stop")

    assert await bad(script) == Counters(stop_without_start=1)


async def test_bad_audio_is_counted() -> None:
    async def script(connection: Connection) -> None:
        await connection.send("tts", state="start")
        await asyncio.sleep(0.04)
        await connection.send("tts_audio", data="?")
        await connection.send("tts_audio", data=coded(packets(1)[0]), format="mp3")
        await connection.socket.send_bytes(packets(1)[0])
        await connection.send("tts_audio", data=coded(SILENCE), is_final=True)
        await connection.send("tts", state="stop")

    assert await bad(script) == Counters(bad_payload=3)


async def test_heartbeats() -> None:
    beats: list[int] = []

    async def script(connection: Connection) -> None:
        await greet(connection)
        for number in range(4):
            beats.append((await connection.until("heartbeat"))["timestamp"])
            if number < 2:
                await connection.send("heartbeat_ack", timestamp=beats[-1])
            elif number == 2:
                await connection.send("heartbeat_ack", timestamp=1)
        await connection.drain()

    async with ScriptedServer(script).running() as server:
        device = JsonDevice(heartbeat_s=0.1)
        await device.open(server.ws_url)
        await until(device, lambda: device.counters.missed_heartbeats)
        await device.close()
    assert beats == sorted(set(beats))
    assert device.counters == Counters(missed_heartbeats=1)


async def test_no_answer_to_the_introduction() -> None:
    async def script(connection: Connection) -> None:
        await connection.until("device_info")

    async with ScriptedServer(script).running() as server:
        with pytest.raises(ConnectError, match="closed the connection instead"):
            await JsonDevice().open(server.ws_url)


async def test_things_of_old_firmware() -> None:
    reports: list[dict[str, Any]] = []

    async def script(connection: Connection) -> None:
        await greet(connection)
        reports.extend([await connection.until("iot") for _ in range(5)])
        commands = [{"name": "Speaker", "method": "SetVolume", "parameters": {"volume": 30}}]
        await connection.send("iot", commands=commands)
        reports.append(await connection.until("iot"))
        await connection.drain()

    async with ScriptedServer(script).running() as server:
        device = JsonDevice(iot=True)
        await device.open(server.ws_url)
        await until(device, lambda: device.peripherals.things.settings.volume == 30)
        while len(reports) < 6:
            await asyncio.sleep(0.01)
        await device.close()
    assert [report["descriptors"][0]["name"] for report in reports[:4]] == [
        "Speaker",
        "Screen",
        "Lamp",
        "Battery",
    ]
    assert len(reports[4]["states"]) == 4
    assert reports[5]["states"] == [{"name": "Speaker", "state": {"volume": 30}}]
