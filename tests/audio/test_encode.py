from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mynah.audio.encode import EncoderPool, SpeechEncoder
from mynah.audio.opus import OpusDecoder, packet_duration_ms
from mynah.errors import AudioError
from tests.virtual_time import InlineExecutor, run, virtual


def tone(rate: int, seconds: float, hz: float = 440.0) -> bytes:
    t = np.arange(int(rate * seconds)) / rate
    return (9000 * np.sin(2 * np.pi * hz * t)).astype("<i2").tobytes()


def heard(frames: list[bytes]) -> np.ndarray:
    decoder = OpusDecoder(16000)
    return np.frombuffer(b"".join(decoder.decode(frame) for frame in frames), "<i2").astype(float)


@virtual
async def test_speech_comes_out_in_frames_with_one_hop_per_push() -> None:
    executor, pool = InlineExecutor(), EncoderPool()
    encoder = SpeechEncoder(executor, 22050, 24000, pool=pool)
    pcm = tone(22050, 2.0)
    frames = await encoder.push(pcm)
    assert executor.submitted == 1
    frames += await encoder.flush()
    assert executor.submitted == 2
    assert len(frames) == 34  # 2 s are 33⅓ frames
    assert {packet_duration_ms(frame) for frame in frames} == {60.0}
    samples = heard(frames)
    spectrum = np.abs(np.fft.rfft(samples[:30000]))
    assert np.argmax(spectrum) * 16000 / 30000 == pytest.approx(440, abs=2)
    assert np.max(np.abs(samples[-300:])) < 300, "filled up with silence"


@virtual
async def test_no_hop_while_less_than_a_frame_is_pending() -> None:
    executor = InlineExecutor()
    encoder = SpeechEncoder(executor, 16000, 16000)
    piece = tone(16000, 0.02)
    assert await encoder.push(piece) == []
    assert await encoder.push(piece) == []
    assert executor.submitted == 0
    assert len(await encoder.push(piece)) == 1
    assert executor.submitted == 1
    assert await encoder.push(piece) == []
    assert len(await encoder.flush()) == 1


@virtual
async def test_flush_of_nothing_is_nothing() -> None:
    executor = InlineExecutor()
    assert await SpeechEncoder(executor, 16000, 16000).flush() == []
    assert executor.submitted == 0


@virtual
async def test_an_idle_encoder_owns_no_codec() -> None:
    pool = EncoderPool()
    first = SpeechEncoder(InlineExecutor(), 16000, 16000, pool=pool)
    one = await first.push(tone(16000, 0.3)) + await first.flush()
    assert pool.idle == 1
    second = SpeechEncoder(InlineExecutor(), 16000, 16000, pool=pool)
    two = await second.push(tone(16000, 0.3))
    assert pool.idle == 0, "taken from the pool"
    two += await second.flush()
    assert one == two, "a used encoder starts like a new one"
    assert await first.push(tone(16000, 0.3)) + await first.flush() == one, "and so does a new answer"


@virtual
async def test_close_gives_the_codec_back() -> None:
    pool = EncoderPool()
    encoder = SpeechEncoder(InlineExecutor(), 16000, 16000, pool=pool)
    await encoder.push(tone(16000, 0.3))
    encoder.close()
    encoder.close()
    assert pool.idle == 1
    with pytest.raises(RuntimeError, match="closed"):
        await encoder.push(b"")


def test_the_pool_is_bounded() -> None:
    pool = EncoderPool(idle_per_kind=2)
    for encoder in [pool.take(16000, 60, 5) for _ in range(5)]:
        pool.give_back(encoder)
    assert pool.idle == 2
    assert pool.take(24000, 60, 5).sample_rate == 24000


@virtual
async def test_bad_settings_are_named() -> None:
    with pytest.raises(AudioError):
        SpeechEncoder(InlineExecutor(), 0, 16000)
    with pytest.raises(AudioError, match="44100"):
        await SpeechEncoder(InlineExecutor(), 16000, 44100).push(tone(16000, 1))


async def test_interrupted_while_a_thread_encodes() -> None:
    gate, pool = threading.Event(), EncoderPool()
    with ThreadPoolExecutor(1) as executor:
        executor.submit(gate.wait)
        encoder = SpeechEncoder(executor, 16000, 16000, pool=pool)
        pushing = asyncio.create_task(encoder.push(tone(16000, 1)))
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="has not returned"):
            await encoder.push(b"")
        pushing.cancel()
        encoder.close()
        with pytest.raises(asyncio.CancelledError):
            await pushing
        gate.set()
    assert pool.idle == 0


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 6000), max_size=12), st.sampled_from([8000, 16000, 22050]))
def test_pieces_of_any_length_make_the_same_number_of_frames(sizes: list[int], rate: int) -> None:
    async def main() -> int:
        encoder = SpeechEncoder(InlineExecutor(), rate, 16000, complexity=0)
        count = 0
        for size in sizes:
            count += len(await encoder.push(bytes(size)))
        return count + len(await encoder.flush())

    samples = sum(sizes) // 2 * 16000 / rate
    assert abs(run(main()) - samples / 960) < 1 + 2 / 960
