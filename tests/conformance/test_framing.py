"""Points 33 to 42 of the device contract: framing, audio and its pace."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from mynah.audio.opus import OpusEncoder, packet_duration_ms
from mynah.sim.voice import speak
from tests.conformance.device import Device, device, silence, speech
from tests.servers import app

SHORT = "TTS.FakeTTS.seconds=0.3"


async def ask(one: Device) -> None:
    """Have one whole reply spoken."""
    await one.listen("detect", text="tell me something")
    await one.until("tts", "stop", count=len(one.messages("tts", "start")) + 1)


async def heard(one: Device, frames: list[bytes] | tuple[bytes, ...]) -> bool:
    """Say something in manual mode; return whether it was understood, and hear the answer out."""
    count = len(one.messages("stt"))
    replies = len(one.messages("tts", "start"))
    await one.listen(mode="manual")
    await one.audio(frames, pace=0.01)
    await one.listen("stop")
    await one.until("tts", "stop", count=replies + 1)
    return len(one.messages("stt")) == count + 1


async def test_point_33_integers_are_big_endian_and_the_size_is_right(tmp_path: Path) -> None:
    async with app(tmp_path, SHORT) as (_, at):
        async with device(at.ws, headers={"Protocol-Version": "2"}) as two:
            await two.hello()
            await ask(two)
        async with device(at.ws, headers={"Protocol-Version": "3"}) as three:
            await three.hello()
            await ask(three)
    assert two.frames() and three.frames()
    for _, frame in two.frames():
        version, kind, reserved, stamp, size = struct.unpack(">HHIII", frame[:16])
        assert (version, kind, reserved, size) == (2, 0, 0, len(frame) - 16)
        assert stamp > 0
    for _, frame in three.frames():
        kind, reserved, size = struct.unpack(">BBH", frame[:4])
        assert (kind, reserved, size) == (0, 0, len(frame) - 4)


async def test_point_34_every_binary_frame_is_one_opus_packet(tmp_path: Path) -> None:
    async with app(tmp_path, SHORT) as (_, at), device(at.ws, headers={"Protocol-Version": "2"}) as one:
        await one.hello({"mcp": True})
        await ask(one)
        await one.say(type="abort")
        await ask(one)
        assert one.messages("mcp")
        for _, frame in one.frames():
            assert frame[2:4] == b"\0\0"
            assert packet_duration_ms(frame[16:]) == 60


@pytest.mark.parametrize("version", [1, 2, 3])
async def test_point_35_broken_frames_are_ignored(tmp_path: Path, version: int) -> None:
    good = {1: b"", 2: struct.pack(">HHIII", 2, 0, 0, 0, 40), 3: struct.pack(">BBH", 0, 0, 40)}[version]
    async with (
        app(tmp_path, SHORT) as (_, at),
        device(at.ws, headers={"Protocol-Version": str(version)}) as one,
    ):
        await one.hello()
        await one.listen(mode="auto")
        for broken in (b"", b"\0", good[:3], good, good + b"x" * 39, good + b"x" * 41, b"\xff" * 60_000):
            await one.socket.send_bytes(broken)
        await one.alive()
        assert not one.closed


@pytest.mark.parametrize("duration", [20, 40, 60])
async def test_point_36_packets_are_decoded_by_their_own_length(tmp_path: Path, duration: int) -> None:
    encoder = OpusEncoder(16000, duration, complexity=0, dtx=True)
    size = duration * 32
    pcm = speak("What time is it?")
    pcm += bytes(-len(pcm) % size)
    frames = [encoder.encode(pcm[i : i + size]) for i in range(0, len(pcm), size)]
    async with app(tmp_path, SHORT) as (_, at), device(at.ws) as one:
        # The announced length is another one on purpose.
        await one.hello(audio_params={"format": "opus", "sample_rate": 16000, "frame_duration": 60})
        assert min(map(len, silence())) <= 3
        assert await heard(one, [*silence(), *frames, *silence()])


async def test_point_37_lost_frames_are_tolerated(tmp_path: Path) -> None:
    async with app(tmp_path, SHORT) as (_, at), device(at.ws) as one:
        await one.hello()
        assert await heard(one, [frame for i, frame in enumerate(speech()) if i % 5])


async def test_point_38_audio_is_mono(tmp_path: Path) -> None:
    async with app(tmp_path, SHORT) as (_, at), device(at.ws) as one:
        await one.hello()
        await ask(one)
        assert one.frames()
        assert not any(frame[0] & 0x04 for _, frame in one.frames())  # the stereo bit of an Opus packet


async def test_point_39_audio_is_paced(tmp_path: Path) -> None:
    async with app(tmp_path, "TTS.FakeTTS.seconds=1.5") as (_, at), device(at.ws) as one:
        await one.hello()
        await ask(one)
        times = [at for at, _ in one.frames()]
        assert len(times) >= 60
        ahead = [index + 1 - (at - times[0]) / 0.06 for index, at in enumerate(times)]
        assert max(ahead) <= 8


async def test_point_40_no_audio_outside_of_a_reply(tmp_path: Path) -> None:
    async with app(tmp_path, SHORT) as (_, at), device(at.ws) as one:
        await one.hello()
        await ask(one)
        await one.listen("detect", text="tell me more")
        await one.until("tts", "sentence_start", count=4)
        await one.say(type="abort")
        await one.until("tts", "stop", count=2)
        await ask(one)
        await one.quiet(0.3)
        speaking = False
        for _, what in one.seen:
            if isinstance(what, bytes):
                assert speaking
            elif what["type"] == "tts" and what["state"] in {"start", "stop"}:
                speaking = what["state"] == "start"


async def test_point_41_a_short_gap_before_the_first_packet(tmp_path: Path) -> None:
    gaps: list[float] = []
    async with app(tmp_path, "wakeup_words=[mynah]", SHORT) as (_, at), device(at.ws) as one:
        await one.hello()
        for turn in range(6):  # the greeting comes from the cache from the second time on
            frames = len(one.frames())
            await one.listen("detect", text="mynah")
            await one.until("tts", "stop", count=turn + 1)
            started = one.timed("tts", "start")[turn][0]
            gaps.append((one.frames()[frames][0] - started) * 1000)
    assert min(gaps) >= 20 - 2  # two clocks: the sender's and the reader's
    assert sorted(gaps[1:])[2] <= 100  # the median: a busy machine may hold up one of them


async def test_point_42_frames_have_60_ms(tmp_path: Path) -> None:
    async with app(tmp_path, SHORT) as (_, at), device(at.ws) as one:
        hello = await one.hello()
        assert hello["audio_params"]["frame_duration"] == 60
        await ask(one)
        assert {packet_duration_ms(frame) for _, frame in one.frames()} == {60}
