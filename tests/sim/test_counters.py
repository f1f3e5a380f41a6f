"""Every fault a server can have trips its counter, and nothing else does."""

import asyncio
from typing import Any

import pytest

from mynah.sim.device import Counters, DeviceState, Direction, Observer, SimulatedDevice
from mynah.sim.stall import StallDetector
from mynah.wire.frames import encode_audio
from mynah.wire.messages import ListenMode

from .scripted import HELLO, Connection, ScriptedServer, packets
from .test_device import until


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
        await connection.send("tts", state="stop")

    device = await conversation_of(script)
    assert device.counters == Counters()
    assert device.state is DeviceState.IDLE


async def test_starts_and_stops_that_do_not_pair_up_are_counted() -> None:
    async def script(connection: Connection) -> None:
        await connection.send("tts", state="start")
        await connection.send("tts", state="start")
        await connection.send("tts", state="stop")
        await connection.send("tts", state="stop")
        await connection.send("tts", state="stop")

    assert (await conversation_of(script)).counters == Counters(second_start=1, stop_without_start=2)


async def test_an_alert_during_a_reply_is_counted() -> None:
    alert = {"status": "Weather", "message": "Rain.", "emotion": "sad"}

    async def script(connection: Connection) -> None:
        await connection.send("alert", **alert)
        await connection.send("tts", state="start")
        await connection.send("alert", **alert)
        await connection.send("tts", state="stop")
        await connection.send("alert", **alert)

    assert (await conversation_of(script)).counters == Counters(alert_during_tts=1)


async def test_speaking_while_connecting_is_refused_and_counted() -> None:
    async def script(connection: Connection) -> None:
        await connection.until("hello")
        await connection.send("tts", state="start")
        await connection.send("tts", state="stop")
        await connection.socket.send_json(HELLO)
        await connection.drain()

    states: list[DeviceState] = []

    class Watch(Observer):
        def on_state(self, state: DeviceState, at_s: float) -> None:
            states.append(state)

    async with ScriptedServer(script).running() as server:
        device = SimulatedDevice(observer=Watch())
        await device.open(server.ws_url)
        assert states == [DeviceState.CONNECTING, DeviceState.IDLE]
        await device.close()
    assert device.counters == Counters(refused_start=1)


@pytest.mark.parametrize(("stamps", "bad"), [((60, 120, 180), 0), ((60, 60, 0), 2)])
async def test_stamps_that_do_not_grow_are_counted(stamps: tuple[int, ...], bad: int) -> None:
    async def script(connection: Connection) -> None:
        await connection.send("tts", state="start")
        await asyncio.sleep(0.03)
        for stamp in stamps:
            await connection.socket.send_bytes(encode_audio(2, packets(1)[0], stamp))
        await connection.send("tts", state="stop")

    assert (await conversation_of(script, protocol=2, aec=True)).counters == Counters(bad_stamps=bad)


async def test_silence_on_an_open_connection_is_counted() -> None:
    async def script(connection: Connection) -> None:
        await asyncio.sleep(0.35)
        await connection.answer("At last.", 1)

    counters = (await conversation_of(script, dead_after_s=0.3)).counters
    assert counters == Counters(long_silence=1)  # the first message was no tts start


async def test_an_answer_on_a_connection_taken_for_dead_is_counted() -> None:
    async def script(connection: Connection) -> None:
        await asyncio.sleep(0.35)
        await connection.send("tts", state="start")
        await connection.send("tts", state="stop")

    counters = (await conversation_of(script, dead_after_s=0.3)).counters
    assert counters == Counters(long_silence=1, dead_channel=1)


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
