import asyncio
from typing import Any

import pytest

from mynah.sim.device import (
    WAKE_WORD,
    Counters,
    DeviceState,
    Direction,
    Observer,
    SimulatedDevice,
)
from mynah.sim.discovery import DeviceIdentity
from mynah.sim.link import ConnectError
from mynah.sim.stall import StallDetector
from mynah.wire.frames import decode_audio, encode_audio
from mynah.wire.messages import ListenMode

from .scripted import Connection, ScriptedServer, packets, silent


async def until(device: SimulatedDevice, predicate: Any, timeout: float = 3.0) -> None:
    async with asyncio.timeout(timeout):
        while not predicate():
            await device.changed()


async def say_hello(connection: Connection) -> None:
    await connection.hello()


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


async def conversation_of(script: Any, **options: Any) -> SimulatedDevice:
    """Run a script that ends by sending ``system`` and return the device."""

    async def whole(connection: Connection) -> None:
        await connection.hello()
        await connection.until("listen", state="start")
        await script(connection)
        await connection.send("system", command="done")
        await connection.drain()

    class Watch(Observer):
        done = False

        def on_message(self, direction: Direction, message: Any, at_s: float) -> None:
            self.done = self.done or getattr(message, "command", "") == "done"

    watch = Watch()
    async with ScriptedServer(whole).running() as server:
        device = SimulatedDevice(observer=watch, **options)
        await device.open(server.ws_url)
        device.listen(ListenMode.MANUAL)
        device.stop_listening()
        device.listen(ListenMode.MANUAL)
        await until(device, lambda: watch.done)
        await device.close()
    return device


async def test_overflow_is_counted() -> None:
    async def script(connection: Connection) -> None:
        await connection.send("tts", state="start")
        await asyncio.sleep(0.03)
        for packet in packets(50):
            await connection.send_audio(packet)
        await connection.send("tts", state="stop")

    device = await conversation_of(script)
    assert device.counters.overflow in {6, 7}  # one more may have been played meanwhile
    assert device.counters == Counters(overflow=device.counters.overflow)


@pytest.mark.parametrize(("held_up", "lost"), [(False, 4), (True, 0)])
async def test_audio_that_beats_the_speaking_state_is_counted(
    held_up: bool, lost: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """... unless it was this process that read both late."""
    monkeypatch.setattr(StallDetector, "stalled", lambda _self, _now: held_up)

    async def script(connection: Connection) -> None:
        await connection.send("tts", state="start")
        for packet in packets(4):
            await connection.send_audio(packet)
        await asyncio.sleep(0.3)
        await connection.send("tts", state="stop")

    device = await conversation_of(script, switch_delay_s=0.1)
    assert device.counters == Counters(lost_before_speaking=lost)
    assert len(device.speaker.played) == 4 - lost


async def test_audio_outside_a_reply_is_counted() -> None:
    async def script(connection: Connection) -> None:
        await connection.send_audio(packets(1)[0])
        await connection.answer("Hi", 2)
        for packet in packets(2):
            await connection.send_audio(packet)

    assert (await conversation_of(script)).counters == Counters(stray_audio=3)


@pytest.mark.parametrize(
    "frame", [b"", bytes(10), encode_audio(3, b"abc")[:-1], encode_audio(1, b"abcdefgh")]
)
async def test_bad_frames_are_counted(frame: bytes) -> None:
    async def script(connection: Connection) -> None:
        await connection.send("tts", state="start")
        await asyncio.sleep(0.03)
        await connection.socket.send_bytes(frame)
        await connection.send("tts", state="stop")

    assert (await conversation_of(script, protocol=3)).counters == Counters(bad_payload=1)


async def test_packets_longer_than_announced_are_counted() -> None:
    async def script(connection: Connection) -> None:
        await connection.send("tts", state="start")
        await asyncio.sleep(0.03)
        await connection.send_audio(packets(1, frame_ms=120)[0])
        await connection.send("tts", state="stop")

    assert (await conversation_of(script)).counters == Counters(bad_payload=1)


async def test_a_device_cannot_play_an_unknown_frame_length() -> None:
    async def script(connection: Connection) -> None:
        await connection.hello(audio_params={"format": "opus", "sample_rate": 16000, "frame_duration": 30})
        await connection.answer("Hi", 2)
        await connection.drain()

    async with ScriptedServer(script).running() as server:
        device = SimulatedDevice()
        await device.open(server.ws_url)
        await until(device, lambda: device.counters.bad_payload == 2)
        await device.close()
    assert device.speaker.played == []


async def test_a_forgotten_stop_is_counted() -> None:
    async def script(connection: Connection) -> None:
        await connection.send("tts", state="start")
        await asyncio.sleep(0.03)
        for packet in packets(3):
            await connection.send_audio(packet)
        await asyncio.sleep(0.45)

    # 0.18 s of audio, then 0.15 s of nothing.
    assert (await conversation_of(script, stuck_after_s=0.15)).counters == Counters(stuck_speaking=1)


async def test_a_long_answer_is_not_a_forgotten_stop() -> None:
    async def script(connection: Connection) -> None:
        await connection.answer("A long one.", 8)

    assert (await conversation_of(script, stuck_after_s=0.1)).counters == Counters()


async def test_an_answer_cut_off_by_the_next_is_counted() -> None:
    async def script(connection: Connection) -> None:
        for _ in range(2):
            await connection.send("tts", state="start")
            await asyncio.sleep(0.03)
            for packet in packets(10):
                await connection.send_audio(packet)
            await connection.send("tts", state="stop")

    device = await conversation_of(script)
    assert 8 <= device.counters.cut_off <= 9
    assert device.counters == Counters(cut_off=device.counters.cut_off)


async def test_unreadable_messages_are_counted() -> None:
    async def script(connection: Connection) -> None:
        await connection.socket.send_str("not json")
        await connection.send("custom", payload={})

    assert (await conversation_of(script)).counters == Counters(unreadable_messages=2)


async def test_stop_right_behind_start() -> None:
    async def script(connection: Connection) -> None:
        await connection.send("tts", state="start")
        await connection.send("tts", state="start")
        await connection.send("tts", state="stop")
        await connection.send("tts", state="stop")

    device = await conversation_of(script)
    assert device.counters == Counters()
    assert device.state is DeviceState.IDLE


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


async def test_an_answer_that_begins_before_the_last_was_played_out() -> None:
    """The device starts speaking again and does not listen in between."""

    async def script(connection: Connection) -> None:
        await connection.hello()
        await connection.until("listen", state="start", mode="auto")
        for _ in range(2):
            await connection.send("tts", state="start")
            await asyncio.sleep(0.03)
            for packet in packets(5):
                await connection.send_audio(packet)
            await connection.send("tts", state="stop")
        await connection.until("listen", state="start", mode="auto")
        await connection.drain()

    async with ScriptedServer(script).running() as server:
        device = SimulatedDevice()
        await device.open(server.ws_url)
        device.listen(ListenMode.AUTO)
        await until(device, lambda: device.state is DeviceState.SPEAKING)
        await until(device, lambda: device.mic_open)
        await device.close()
    assert 3 <= device.counters.cut_off <= 4
    assert [m["type"] for m in server.connections[0].received] == ["hello", "listen", "listen"]


async def test_junk_before_the_hello() -> None:
    async def script(connection: Connection) -> None:
        await connection.socket.send_str("junk")
        await connection.hello()
        await connection.drain()

    async with ScriptedServer(script).running() as server:
        device = SimulatedDevice()
        await device.open(server.ws_url)
        await device.close()
    assert device.counters == Counters(unreadable_messages=1)
