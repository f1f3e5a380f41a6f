"""PCM on the way up: any rate, cut anywhere, mixed with Opus."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mynah.audio.credit import BURST_S, PCM_PART
from mynah.audio.ingest import PCM_RATES, Ingest
from mynah.audio.pcm import resample
from mynah.errors import AudioError
from tests.audio.uplink import LevelEngine, Sink, decoded, flushed, running, speech, until


def tone(rate: int, seconds: float, hz: float = 300.0) -> bytes:
    t = np.arange(int(rate * seconds)) / rate
    return (9000 * np.sin(2 * np.pi * hz * t)).astype("<i2").tobytes()


def same(a: bytes, b: bytes) -> bool:
    """Equal but for the dither that soxr adds when it rounds to 16 bits."""
    one, two = np.frombuffer(a, "<i2").astype(int), np.frombuffer(b, "<i2").astype(int)
    return len(one) == len(two) and bool(np.all(np.abs(one - two) <= 2))


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 44100, 48000])
@pytest.mark.parametrize("size", [333, 1920, 100_000])
async def test_pcm_arrives_whole_at_16_khz_however_it_is_cut(rate: int, size: int) -> None:
    engine, sink = LevelEngine(), Sink()
    pcm = tone(rate, 0.9)
    async with running(engine) as ingest:
        stream = ingest.open(sink)
        for at in range(0, len(pcm), size):
            stream.push_pcm(pcm[at : at + size], rate)
        await flushed(stream, sink)
        assert ingest.stats.dropped_packets == 0
    assert same(sink.pcm, resample(pcm, rate, 16000))
    assert len(sink.probabilities) == len(sink.pcm) // 1024
    assert sink.probabilities[5] == pytest.approx(9000 / 32768 * 2 / np.pi, rel=0.02)


async def test_pcm_after_a_flush_goes_on() -> None:
    engine, sink = LevelEngine(), Sink()
    pcm = tone(48000, 0.3)
    async with running(engine) as ingest:
        stream = ingest.open(sink)
        for _ in range(2):
            stream.push_pcm(pcm, 48000)
            await flushed(stream, sink)
    assert same(sink.pcm, 2 * resample(pcm, 48000, 16000))


async def test_kinds_and_rates_follow_each_other_without_a_gap() -> None:
    engine, sink = LevelEngine(), Sink()
    packets, high, low = speech(3), tone(44100, 0.2), tone(8000, 0.2)
    async with running(engine) as ingest:
        stream = ingest.open(sink)
        stream.push(packets[0])
        stream.push_pcm(high, 44100)
        stream.push_pcm(low + b"\x7f", 8000)  # half a sample, whose rest never comes
        stream.push(packets[1])
        stream.push_pcm(low, 8000)
        stream.push_pcm(b"\x7f", 8000)
        stream.push_pcm(high, 44100)
        stream.push(packets[2])
        await flushed(stream, sink)
    opus = decoded(packets)
    one, two, three = opus[:1920], opus[1920:3840], opus[3840:]
    up, down = resample(high, 44100, 16000), resample(low, 8000, 16000)
    assert same(sink.pcm, one + up + down + two + down + up + three)


@given(st.lists(st.integers(0, 400), max_size=30))
@settings(max_examples=50)
def test_cuts_within_samples_lose_nothing(sizes: list[int]) -> None:
    ingest = Ingest(LevelEngine())
    stream = ingest.open(Sink())
    pcm = tone(16000, 0.3)
    at = 0
    for size in sizes:
        stream.push_pcm(pcm[at : at + size], 16000)
        at += size
    queued = b""
    while stream.pending:  # what the worker does, share by share
        queued += b"".join(audio for _, audio, _ in ingest._take(stream))
    assert queued == pcm[: at & ~1]


async def test_a_call_cannot_bring_more_than_the_credit() -> None:
    engine, sink = LevelEngine(), Sink()
    pcm = tone(16000, BURST_S / PCM_PART + 2)
    async with running(engine) as ingest:
        stream = ingest.open(sink)
        stream.push_pcm(pcm + bytes(1), 16000)
        await flushed(stream, sink)
        assert ingest.stats.dropped_packets == pytest.approx(20, abs=1)
    assert len(sink.pcm) == pytest.approx(BURST_S / PCM_PART * 32000, abs=3200)
    assert sink.pcm == pcm[: len(sink.pcm)]


async def test_rates_outside_the_range_are_refused() -> None:
    stream = Ingest(LevelEngine()).open(Sink())
    for rate in (PCM_RATES[0] - 1, PCM_RATES[1] + 1, 0, -16000):
        with pytest.raises(AudioError, match=r"8000 to 48000 Hz"):
            stream.push_pcm(bytes(100), rate)
    assert stream.pending == 0


async def test_a_closed_stream_takes_no_pcm() -> None:
    engine = LevelEngine()
    async with running(engine) as ingest:
        stream = ingest.open(Sink())
        stream.push_pcm(tone(16000, 0.1), 16000)
        await until(lambda: bool(engine.taken))
        stream.close()
        stream.push_pcm(tone(16000, 0.1), 16000)
        assert stream.pending == 0
        await until(lambda: not engine.taken)
