import asyncio
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
from mynah.wire.frames import decode_audio
from mynah.wire.messages import ListenMode

from .scripted import Connection, ScriptedServer, packets, silent


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
