import asyncio

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mynah.audio.opus import OpusDecoder, packet_duration_ms
from mynah.sim.device import SimulatedDevice
from mynah.sim.microphone import FRAME_BYTES, Microphone, Speech, audible_end, burst
from mynah.wire.messages import ListenMode

from .scripted import ScriptedServer, silent, tone


def test_audible_end() -> None:
    speech = tone(0.5)
    assert audible_end(speech + bytes(16000)) == pytest.approx(len(speech), abs=320)
    assert audible_end(bytes(3200)) == 3200  # nothing audible: all of it is "speech"
    assert audible_end(b"") == 0
    assert audible_end(b"\0\0") == 2


@given(st.binary(max_size=9000), st.integers(0, 300))
def test_speech_is_cut_into_whole_frames(pcm: bytes, lead_ms: int) -> None:
    speech = Speech(pcm, lead_ms)
    frames: list[bytes] = []
    lead = 0
    while not speech.finished.is_set() and lead < 10:
        frame = speech.next_frame()
        if frame is None:
            lead += 1
            speech.sent(None, 0.0)
        else:
            frames.append(frame)
            speech.sent(frame, float(len(frames)))
    assert b"".join(frames)[: len(pcm)] == pcm
    assert all(len(frame) == FRAME_BYTES for frame in frames)
    if pcm:
        assert lead == -(-lead_ms // 60)
        assert speech.ended_at is not None
        assert speech.ended_at <= len(frames)


async def listening(server: ScriptedServer) -> SimulatedDevice:
    device = SimulatedDevice()
    await device.open(server.ws_url)
    return device


async def test_streams_in_real_time_with_noise_around_the_speech() -> None:
    loop = asyncio.get_running_loop()
    async with ScriptedServer(silent).running() as server:
        device = await listening(server)
        microphone = Microphone(device)
        task = asyncio.create_task(microphone.run())
        speech = microphone.say(tone(0.24) + bytes(FRAME_BYTES), lead_ms=120)
        started = loop.time()
        device.listen(ListenMode.AUTO)
        await asyncio.wait_for(speech.finished.wait(), 3)
        assert loop.time() - started == pytest.approx(7 * 0.06, abs=0.3)
        assert speech.ended_at is not None
        assert speech.ended_at - started == pytest.approx(6 * 0.06, abs=0.3)
        await asyncio.sleep(0.3)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await device.close()
    frames = server.connections[0].audio
    assert 10 <= len(frames) <= 18
    decoder = OpusDecoder(16000)
    levels = [np.abs(np.frombuffer(decoder.decode(frame), "<i2")).max() for frame in frames]
    assert max(levels[:2]) < 100
    assert min(levels[3:6]) > 4000
    assert levels[-1] < 100


async def test_closing_the_microphone_cuts_the_speech() -> None:
    async with ScriptedServer(silent).running() as server:
        device = await listening(server)
        microphone = Microphone(device)
        task = asyncio.create_task(microphone.run())
        first = microphone.say(tone(10))
        speech = microphone.say(tone(10))
        assert first.finished.is_set()
        device.listen(ListenMode.MANUAL)
        await asyncio.sleep(0.15)
        device.stop_listening()
        await asyncio.wait_for(speech.finished.wait(), 1)
        assert speech.ended_at is not None
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await device.close()
    assert len(server.connections[0].audio) in {2, 3}


async def test_a_source_is_heard_only_while_the_microphone_is_open() -> None:
    old, new = tone(0.06), bytes(FRAME_BYTES)
    waiting = [old, old]
    async with ScriptedServer(silent).running() as server:
        device = await listening(server)
        microphone = Microphone(device, source=lambda: waiting.pop(0) if waiting else None)
        task = asyncio.create_task(microphone.run())
        await asyncio.sleep(0.1)
        device.listen(ListenMode.AUTO)
        await asyncio.sleep(0.02)
        waiting += [new, new, new]
        await asyncio.sleep(0.15)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await device.close()
    decoder = OpusDecoder(16000)
    heard = [decoder.decode(frame) for frame in server.connections[0].audio]
    assert len(heard) == 3
    assert all(np.abs(np.frombuffer(pcm, "<i2")).max() < 100 for pcm in heard)


def test_a_burst_is_whole_frames() -> None:
    pcm = tone(0.1)
    assert burst(pcm, "pcm") == [pcm[:FRAME_BYTES], pcm[FRAME_BYTES:].ljust(FRAME_BYTES, b"\0")]
    assert [packet_duration_ms(packet) for packet in burst(pcm)] == [60, 60]
    assert burst(b"") == []


async def test_what_is_said_while_the_microphone_is_closing_waits_for_the_next_time() -> None:
    async with ScriptedServer(silent).running() as server:
        device = SimulatedDevice()
        await device.open(server.ws_url)
        microphone = Microphone(device)
        running = asyncio.create_task(microphone.run())
        device.listen(ListenMode.MANUAL)
        await asyncio.sleep(0.03)  # the microphone now waits for its next frame
        device.stop_listening()
        speech = microphone.say(tone(0.06), lead_ms=0)
        await asyncio.sleep(0.1)
        assert not speech.finished.is_set()
        device.listen(ListenMode.MANUAL)
        async with asyncio.timeout(3):
            await speech.finished.wait()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await device.close()
