"""Who sends too much hurts nobody but himself: credit over time, and shares of a batch."""

from __future__ import annotations

import asyncio
import threading

import pytest

from mynah.audio.credit import BURST_S, FILL_RATE, PCM_PART
from mynah.audio.ingest import SHARE_MS, Ingest
from tests.audio.uplink import LevelEngine, Sink, decoded, flushed, running, speech, until
from tests.virtual_time import virtual


@virtual
async def test_what_exceeds_the_credit_is_dropped_and_the_credit_comes_back() -> None:
    # Not started: on virtual time there is no worker, and whatever was accepted stays pending.
    ingest = Ingest(LevelEngine(), asyncio.get_running_loop())
    stream, other = ingest.open(Sink()), ingest.open(Sink())
    packet = speech(1)[0]
    burst = int(BURST_S / 0.06)
    for _ in range(burst + 50):
        stream.push(packet)
    assert stream.pending == pytest.approx(burst, abs=1)
    assert ingest.stats.dropped_packets == ingest.stats.dropped_credit == burst + 50 - stream.pending
    other.push(packet)
    assert other.pending == 1, "each stream has its own credit"
    before = stream.pending
    await asyncio.sleep(1.2)
    for _ in range(burst):
        stream.push(packet)
    assert stream.pending - before == pytest.approx(1.2 * FILL_RATE / 0.06, abs=1)


@pytest.mark.parametrize("frame_ms", [20, 60])
@virtual
async def test_a_whole_burst_and_then_real_time_fit(frame_ms: int) -> None:
    ingest = Ingest(LevelEngine(), asyncio.get_running_loop())
    stream = ingest.open(Sink())
    packet = speech(1, frame_ms)[0]
    for _ in range(int(BURST_S * 1000 / frame_ms) - 1):
        stream.push(packet)
    for _ in range(1000):
        await asyncio.sleep(frame_ms / 1000)
        ingest._empty(stream)  # as the worker does
        stream.push(packet)
    assert ingest.stats.dropped_packets == 0


@virtual
async def test_the_credit_counts_pcm_by_its_length() -> None:
    ingest = Ingest(LevelEngine(), asyncio.get_running_loop())
    stream = ingest.open(Sink())
    second = bytes(2 * 24000)
    for _ in range(20):
        stream.push_pcm(second, 24000)
    assert stream.pending == pytest.approx(10 * BURST_S / PCM_PART, abs=1)
    assert stream.pending + ingest.stats.dropped_packets == 200
    assert ingest.stats.dropped_credit == ingest.stats.dropped_packets
    stream.push(speech(1)[0])
    assert ingest.stats.dropped_packets == pytest.approx(200 - 10 * BURST_S / PCM_PART + 1, abs=1), (
        "one credit for both"
    )


async def test_a_flooding_stream_takes_no_more_of_a_batch_than_its_share() -> None:
    engine, flooding, normal = LevelEngine(), Sink(), Sink()
    packets = speech(90)
    heard_before: list[int] = []
    async with running(engine) as ingest:
        engine.gate = threading.Event()
        blocker = ingest.open(Sink())
        blocker.push(packets[0])
        await until(lambda: blocker.pending == 0)
        flood, stream = ingest.open(flooding), ingest.open(normal)
        for packet in packets:
            flood.push(packet)
        flood.flush("all")
        stream.push(packets[0])
        normal.on_flushed = lambda token: heard_before.append(len(flooding.pcm))  # type: ignore[method-assign]
        stream.flush("mine")
        engine.gate.set()
        await asyncio.wait_for(flooding.done.wait(), 5)
    assert heard_before == [SHARE_MS * 32], "the other one's audio came with the first share of the flood"
    assert flooding.pcm == decoded(packets)
    assert flooding.flushed == ["all"]
    assert flooding.log[-1] == ("flushed", "all")
    assert {length for kind, length in flooding.log[:-1] if kind == "pcm"} <= {SHARE_MS * 32, 2 * 1920}
    assert max(engine.calls) <= 3


async def test_what_a_closed_stream_left_is_not_decoded() -> None:
    engine, sink = LevelEngine(), Sink()
    packets = speech(60)
    async with running(engine) as ingest:
        engine.gate = threading.Event()
        witness = ingest.open(sink)
        witness.push(packets[0])
        await until(lambda: witness.pending == 0)
        stream = ingest.open(Sink())
        for packet in packets:
            stream.push(packet)
        stream.close()
        engine.gate.set()
        await flushed(witness, sink)
        await until(lambda: stream.pending == 0)
        assert ingest.stats.packets == 1
        assert ingest._bytes_in == ingest._bytes_out
