import asyncio
import time
from typing import Any

import pytest

from mynah.sim.device import (
    WAKE_WORD,
    Counters,
    DeviceState,
    Observer,
    SimulatedDevice,
)
from mynah.sim.discovery import DeviceIdentity
from mynah.sim.link import ConnectError
from mynah.wire.frames import decode_audio, encode_audio
from mynah.wire.mcp import McpSession
from mynah.wire.messages import ListenMode

from .scripted import Connection, ScriptedServer, packets, silent
from .test_camera import Vision


async def until(device: SimulatedDevice, predicate: Any, timeout: float = 3.0) -> None:
    async with asyncio.timeout(timeout):
        while not predicate():
            await device.changed()


@pytest.mark.parametrize("protocol", [1, 2, 3])
async def test_opening_as_firmware_does(protocol: int) -> None:
    async with ScriptedServer(silent, token="secret").running() as server:
        device = SimulatedDevice(DeviceIdentity("02:aa:00:00:00:01"), protocol=protocol)
        hello = await device.open(server.ws_url, "secret")
        assert (hello.session_id, device.session_id, device.sample_rate) == ("s1", "s1", 16000)
        assert (device.state, device.connected) == (DeviceState.IDLE, True)
        await device.close()
        assert not device.connected
    headers = server.connections[0].headers
    assert headers["Protocol-Version"] == str(protocol)
    assert headers["Device-Id"] == "02:aa:00:00:00:01"
    assert headers["Client-Id"] == device.identity.client
    assert headers["Authorization"] == "Bearer secret"
    assert headers["Host"] == "127.0.0.1"
    assert "Sec-WebSocket-Extensions" not in headers
    assert server.connections[0].received[0] == {
        "type": "hello",
        "version": protocol,
        "features": {"mcp": True, "glyph_push": False},
        "transport": "websocket",
        "audio_params": {"format": "opus", "sample_rate": 16000, "channels": 1, "frame_duration": 60},
    }
    assert device.counters == Counters()


async def test_a_hello_without_transport_is_counted_and_ends_it() -> None:
    async def script(connection: Connection) -> None:
        await connection.until("hello")
        await connection.send("hello", audio_params={"format": "opus", "sample_rate": 16000})
        await connection.drain()

    async with ScriptedServer(script).running() as server:
        device = SimulatedDevice()
        with pytest.raises(ConnectError, match="lacks `transport`"):
            await device.open(server.ws_url)
    assert device.counters == Counters(hello_without_transport=1)
    assert (device.state, device.connected) == (DeviceState.IDLE, False)


async def test_an_unreadable_hello_is_said_to_be_so() -> None:
    async def script(connection: Connection) -> None:
        await connection.until("hello")
        await connection.send("hello", transport="websocket")
        await connection.drain()

    async with ScriptedServer(script).running() as server:
        with pytest.raises(ConnectError, match="missing required field `audio_params`"):
            await SimulatedDevice().open(server.ws_url)


async def test_no_hello(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mynah.sim.device.HELLO_TIMEOUT_S", 0.05)

    async with ScriptedServer(lambda connection: connection.drain()).running() as server:
        with pytest.raises(ConnectError, match="sent no hello within"):
            await SimulatedDevice().open(server.ws_url)


async def test_closed_instead_of_hello() -> None:
    async def script(connection: Connection) -> None:
        await connection.until("hello")

    async with ScriptedServer(script).running() as server:
        with pytest.raises(ConnectError, match="closed the connection instead"):
            await SimulatedDevice().open(server.ws_url)


async def test_a_second_hello_is_counted() -> None:
    async def script(connection: Connection) -> None:
        await connection.hello()
        await connection.send("hello", transport="websocket", audio_params={"format": "opus"})
        await connection.drain()

    async with ScriptedServer(script).running() as server:
        device = SimulatedDevice()
        await device.open(server.ws_url)
        await until(device, lambda: device.counters.second_hello)
        await device.close()
    assert device.counters == Counters(second_hello=1)


@pytest.mark.parametrize("protocol", [1, 2, 3])
async def test_manual_turn(protocol: int) -> None:
    async def script(connection: Connection) -> None:
        await connection.hello()
        await connection.until("listen", state="start", mode="manual")
        await connection.audio_frames(3)
        await connection.until("listen", state="stop")
        await connection.answer("Hello.", 5)
        await connection.drain()

    sent = packets(3)
    async with ScriptedServer(script).running() as server:
        device = SimulatedDevice(protocol=protocol, switch_delay_s=0)
        await device.open(server.ws_url)
        assert not device.send_audio(sent[0])  # not listening yet
        device.listen(ListenMode.MANUAL)
        assert (device.state, device.mic_open) == (DeviceState.LISTENING, True)
        for packet in sent:
            assert device.send_audio(packet, 77)
        device.stop_listening()
        assert (device.state, device.mic_open) == (DeviceState.IDLE, False)
        await until(device, lambda: device.state is DeviceState.SPEAKING)
        assert not device.mic_open
        await until(device, lambda: device.state is DeviceState.IDLE)
        await device.close()
    assert [decode_audio(protocol, frame).packet for frame in server.connections[0].audio] == sent
    assert len(device.speaker.played) == 5
    assert device.counters == Counters()


async def test_auto_turn_plays_out_before_it_listens_again() -> None:
    relistened: list[float] = []
    stopped: list[float] = []
    loop = asyncio.get_running_loop()

    async def script(connection: Connection) -> None:
        await connection.hello()
        await connection.until("listen", state="start", mode="auto")
        await connection.send("tts", state="start")
        await asyncio.sleep(0.03)
        for packet in packets(8):  # all at once: 0.48 s are still to be played when `stop` comes
            await connection.send_audio(packet)
        await connection.send("tts", state="stop")
        stopped.append(loop.time())
        await connection.until("listen", state="start", mode="auto")
        relistened.append(loop.time())
        await connection.drain()

    async with ScriptedServer(script).running() as server:
        device = SimulatedDevice()
        await device.open(server.ws_url)
        device.listen(ListenMode.AUTO)
        await until(device, lambda: device.state is DeviceState.SPEAKING)
        await until(device, lambda: device.state is DeviceState.LISTENING)
        assert not device.mic_open
        await until(device, lambda: device.mic_open)
        await asyncio.sleep(0.05)
        await device.close()
    assert relistened[0] - stopped[0] >= 0.4
    assert len(device.speaker.played) == 8
    assert device.counters == Counters()


async def test_realtime_keeps_the_microphone_open() -> None:
    async def script(connection: Connection) -> None:
        await connection.hello()
        await connection.until("listen", state="start", mode="realtime")
        await connection.answer("Hello.", 3)
        await connection.drain()

    async with ScriptedServer(script).running() as server:
        device = SimulatedDevice()
        await device.open(server.ws_url)
        device.listen(ListenMode.REALTIME)
        await until(device, lambda: device.state is DeviceState.SPEAKING)
        assert device.mic_open
        await until(device, lambda: device.state is DeviceState.LISTENING)
        assert device.mic_open
        await device.close()
    assert [m["type"] for m in server.connections[0].received] == ["hello", "listen"]


async def test_abort_by_button_goes_on_speaking_until_stop() -> None:
    async def script(connection: Connection) -> None:
        await connection.hello()
        await connection.until("listen", state="start")
        await connection.send("tts", state="start")
        await connection.until("abort")
        await connection.send("tts", state="stop")
        await connection.until("listen", state="start")
        await connection.drain()

    async with ScriptedServer(script).running() as server:
        device = SimulatedDevice()
        await device.open(server.ws_url)
        device.listen(ListenMode.AUTO)
        await until(device, lambda: device.state is DeviceState.SPEAKING)
        device.abort()
        assert device.state is DeviceState.SPEAKING
        await until(device, lambda: device.mic_open)
        await device.close()
    assert server.connections[0].received[2] == {"type": "abort", "reason": "", "session_id": "s1"}


async def test_abort_by_wake_word_listens_at_once() -> None:
    async def script(connection: Connection) -> None:
        await connection.hello()
        await connection.until("listen", state="start")
        await connection.send("tts", state="start")
        await connection.until("abort", reason="wake_word_detected")
        await connection.until("listen", state="start")
        await connection.send_audio(packets(1)[0])  # in flight: discarded, and nobody's fault
        await connection.send("tts", state="stop")
        await connection.send("alert", status="x", message="y", emotion="sad")
        await connection.drain()

    async with ScriptedServer(script).running() as server:
        device = SimulatedDevice()
        await device.open(server.ws_url)
        device.listen(ListenMode.AUTO)
        await until(device, lambda: device.state is DeviceState.SPEAKING)
        device.abort(WAKE_WORD)
        assert (device.state, device.mic_open) == (DeviceState.LISTENING, True)
        await asyncio.sleep(0.1)
        assert device.state is DeviceState.LISTENING
        await device.close()
    assert device.counters == Counters()
    assert [m["type"] for m in server.connections[0].received] == ["hello", "listen", "abort", "listen"]


async def test_the_device_answers_mcp() -> None:
    async def script(connection: Connection) -> None:
        await connection.hello()
        await connection.send(
            "mcp",
            payload={
                "jsonrpc": "2.0",
                "id": 5,
                "method": "tools/call",
                "params": {"name": "self.audio_speaker.set_volume", "arguments": {"volume": 33}},
            },
        )
        await connection.send("mcp", payload={"jsonrpc": "2.0", "method": "notifications/x"})
        await connection.until("mcp")
        await connection.drain()

    async with ScriptedServer(script).running() as server:
        device = SimulatedDevice()
        await device.open(server.ws_url)
        await until(device, lambda: device.mcp.settings.volume == 33)
        await asyncio.sleep(0.05)
        await device.close()
    assert server.connections[0].received[1] == {
        "type": "mcp",
        "session_id": "s1",
        "payload": {
            "jsonrpc": "2.0",
            "id": 5,
            "result": {"content": [{"type": "text", "text": "true"}], "isError": False},
        },
    }


async def test_losing_the_connection_makes_it_idle() -> None:
    async def script(connection: Connection) -> None:
        await connection.hello()
        await connection.until("listen")
        await connection.send("tts", state="start")
        await asyncio.sleep(0.05)

    states: list[DeviceState] = []

    class Watch(Observer):
        def on_state(self, state: DeviceState, at_s: float) -> None:
            states.append(state)

    async with ScriptedServer(script).running() as server:
        device = SimulatedDevice(observer=Watch())
        await device.open(server.ws_url)
        device.listen(ListenMode.AUTO)
        await until(device, lambda: not device.connected)
        assert not device.mic_open
        device.abort()  # to nobody
        device.send_raw(b"x", text=True)
        await device.close()
    assert states == [
        DeviceState.CONNECTING,
        DeviceState.IDLE,
        DeviceState.LISTENING,
        DeviceState.SPEAKING,
        DeviceState.IDLE,
    ]


async def test_raw_frames_go_out_as_they_are() -> None:
    async with ScriptedServer(silent).running() as server:
        device = SimulatedDevice()
        await device.open(server.ws_url)
        device.send_raw(b"\x01\x02", text=False)
        device.send_raw(b'{"type":"x"}', text=True)
        await asyncio.sleep(0.1)
        await device.close()
    assert server.connections[0].audio == [b"\x01\x02"]
    assert server.connections[0].received[-1] == {"type": "x"}


async def test_wake_word_audio_goes_first() -> None:
    async def script(connection: Connection) -> None:
        await connection.hello()
        await connection.until("listen", state="start")
        await connection.drain()

    spoken = packets(40)
    async with ScriptedServer(script).running() as server:
        device = SimulatedDevice(protocol=2)
        await device.open(server.ws_url)
        device.wake("hey mynah", spoken)
        assert (device.state, device.mic_open) == (DeviceState.LISTENING, True)
        await asyncio.sleep(0.1)
        await device.close()
    connection = server.connections[0]
    frames = [decode_audio(2, frame) for frame in connection.audio]
    assert [frame.packet for frame in frames] == spoken[-33:]
    assert {frame.timestamp for frame in frames} == {0}
    assert connection.received[1:] == [
        {"type": "listen", "state": "detect", "mode": None, "text": "hey mynah", "session_id": "s1"},
        {"type": "listen", "state": "start", "mode": "auto", "text": "", "session_id": "s1"},
    ]


async def test_a_wake_word_while_listening_or_speaking_interrupts() -> None:
    async with ScriptedServer(silent).running() as server:
        device = SimulatedDevice(switch_delay_s=0)
        await device.open(server.ws_url)
        device.listen(ListenMode.AUTO)
        device.wake("hey", packets(1))
        device.on_text(b'{"type":"tts","state":"stop"}')  # the answer to that abort
        device.on_text(b'{"type":"tts","state":"start"}')
        assert device.state is DeviceState.SPEAKING
        for packet in packets(4):
            device.on_binary(packet)
        device.wake("hey", packets(1))
        assert device.state is DeviceState.LISTENING
        assert not device.mic_open  # not before everything buffered has been played
        await until(device, lambda: device.mic_open)
        await asyncio.sleep(0.05)
        await device.close()
    said = [(m["type"], m.get("state"), m.get("reason")) for m in server.connections[0].received[1:]]
    assert said == [
        ("listen", "start", None),
        ("abort", None, WAKE_WORD),
        ("listen", "start", None),
        ("abort", None, WAKE_WORD),
        ("listen", "start", None),
    ]
    assert server.connections[0].audio == []
    assert device.counters == Counters()


@pytest.mark.parametrize("mode", [ListenMode.AUTO, ListenMode.REALTIME])
async def test_a_stop_read_together_with_a_start_skips_listening(mode: ListenMode) -> None:
    async with ScriptedServer(silent).running() as server:
        device = SimulatedDevice()
        await device.open(server.ws_url)
        device.listen(mode)
        device.on_text(b'{"type":"tts","state":"start"}')
        await until(device, lambda: device.state is DeviceState.SPEAKING)
        device.on_text(b'{"type":"tts","state":"stop"}')
        device.on_text(b'{"type":"tts","state":"start"}')
        await until(device, lambda: device.state is DeviceState.SPEAKING)
        await asyncio.sleep(0.05)
        assert device.mic_open == (mode is ListenMode.REALTIME)
        await device.close()
    assert [m["type"] for m in server.connections[0].received] == ["hello", "listen"]


async def test_what_is_buffered_plays_on_when_the_connection_is_lost() -> None:
    async def script(connection: Connection) -> None:
        await connection.hello()
        await connection.until("listen")
        await connection.send("tts", state="start")
        await asyncio.sleep(0.05)
        for packet in packets(5):
            await connection.send_audio(packet)

    async with ScriptedServer(script).running() as server:
        device = SimulatedDevice()
        await device.open(server.ws_url)
        device.listen(ListenMode.AUTO)
        await until(device, lambda: not device.connected)
        assert (device.state, device.mic_open) == (DeviceState.IDLE, False)
        assert len(device.speaker.played) < 5
        await asyncio.sleep(0.35)
        await device.close()
    assert len(device.speaker.played) == 5


async def test_only_an_idle_device_opens_a_connection() -> None:
    async with ScriptedServer(silent).running() as server:
        device = SimulatedDevice()
        await device.open(server.ws_url)
        device.listen(ListenMode.AUTO)
        with pytest.raises(ConnectError, match="a device that is listening"):
            await device.open(server.ws_url)
        await device.close()


async def test_frames_carry_the_stamp_of_what_was_just_played() -> None:
    async def script(connection: Connection) -> None:
        hello = await connection.hello()
        assert hello["features"] == {"aec": True, "mcp": True, "glyph_push": False}
        await connection.until("listen", state="start", mode="realtime")
        await connection.send("tts", state="start")
        await asyncio.sleep(0.03)
        for number, packet in enumerate(packets(3)):
            await connection.socket.send_bytes(encode_audio(2, packet, 1000 + 60 * number))
        await connection.drain()

    sent = packets(1)[0]
    async with ScriptedServer(script).running() as server:
        device = SimulatedDevice(protocol=2, aec=True)
        await device.open(server.ws_url)
        assert device.default_mode is ListenMode.REALTIME
        device.listen(device.default_mode)
        await until(device, lambda: device.state is DeviceState.SPEAKING)
        assert device.send_audio(sent)  # nothing has been played yet
        while len(device.speaker.played) < 3 or device.speaker.silent_at(time.monotonic()) > time.monotonic():
            await asyncio.sleep(0.01)
        for _ in range(4):
            assert device.send_audio(sent)
        await asyncio.sleep(0.05)
        await device.close()
    stamps = [decode_audio(2, frame).timestamp for frame in server.connections[0].audio]
    assert stamps == [0, 1000, 1060, 1120, 0]
    assert device.counters == Counters()


async def test_an_iot_device_introduces_its_things_and_obeys() -> None:
    async def script(connection: Connection) -> None:
        hello = await connection.hello()
        assert hello["features"] == {}
        for _ in range(5):
            await connection.until("iot")
        command = {"name": "Lamp", "method": "TurnOn", "parameters": {}}
        await connection.send("iot", commands=[command])
        await connection.until("iot", states=[{"name": "Lamp", "state": {"power": True}}])
        await connection.send("mcp", payload={"jsonrpc": "2.0", "id": 1, "method": "tools/list"})
        await connection.drain()

    async with ScriptedServer(script).running() as server:
        device = SimulatedDevice(iot=True)
        await device.open(server.ws_url)
        things = device.peripherals.things
        assert things is not None
        await until(device, lambda: things.calls)
        await asyncio.sleep(0.05)
        await device.close()
    assert things.settings.power
    assert not [m for m in server.connections[0].received if m["type"] == "mcp"]


async def test_a_photo_is_taken_while_the_conversation_goes_on() -> None:
    vision = Vision(body="A cat.")

    async def script(connection: Connection) -> None:
        await connection.hello()
        initialize = McpSession().initialize(url, "t")
        await connection.send("mcp", payload=initialize)
        call = McpSession(5).call("self.camera.take_photo", {"question": "What is it?"})
        await connection.send("mcp", payload=call)
        answer = await connection.until("mcp")
        while answer["payload"]["id"] != 5:
            answer = await connection.until("mcp")
        assert answer["payload"]["result"]["content"] == [{"type": "text", "text": "A cat."}]
        await connection.send("tts", state="start")
        await connection.drain()

    async with vision.running() as url, ScriptedServer(script).running() as server:
        device = SimulatedDevice(full_tools=True)
        await device.open(server.ws_url)
        await until(device, lambda: device.state is DeviceState.SPEAKING)
        await device.close()
    assert vision.parts[0][3] == b"What is it?"
