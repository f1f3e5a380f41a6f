"""The thread with a process beside it: the same results, and what happens when the process is lost."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
import pytest
from loguru import logger

from mynah.audio import ingest_remote
from mynah.audio.echo import EchoControl, choose
from mynah.audio.ingest import Ingest, VadEngine
from mynah.audio.ingest_remote import RemoteIngest, ScalingIngest
from mynah.audio.ingest_stream import MAX_PENDING_PER_STREAM, IngestStream
from mynah.audio.ingest_wire import EngineSource
from mynah.providers.vad.energy import EnergyEngine
from mynah.providers.vad.silero import ready_engine
from tests.audio.test_ingest_process import alive
from tests.audio.uplink import LevelEngine, Sink, decoded, running, speech, until

ENERGY = EngineSource("mynah.providers.vad.energy:engine_of", "10.0")
SILERO = EngineSource("mynah.providers.vad.silero:ready_engine")


@asynccontextmanager
async def beside(
    source: EngineSource = ENERGY, engine: VadEngine | None = None
) -> AsyncIterator[ScalingIngest]:
    """An ingest whose process is ready: the next stream goes there."""
    ingest = ScalingIngest(engine or EnergyEngine(10.0), source, start_at=1)
    ingest.start()
    try:
        ingest.open(Sink()).close()
        await ready(ingest)
        yield ingest
    finally:
        ingest.stop()


async def ready(ingest: ScalingIngest) -> RemoteIngest:
    await until(lambda: ingest.remote is not None and ingest.remote.usable, 30)
    assert ingest.remote is not None
    return ingest.remote


async def flushed(stream: IngestStream, sink: Sink, token: object = "end") -> None:
    sink.done.clear()
    stream.flush(token)
    await asyncio.wait_for(sink.done.wait(), 30)


def pid_of(ingest: ScalingIngest) -> int:
    assert ingest.remote is not None
    assert ingest.remote.pid is not None
    return ingest.remote.pid


async def hear(ingest: Ingest, sinks: list[Sink]) -> None:
    """Let all sinks hear the same, whoever works."""
    streams = [ingest.open(sink) for sink in sinks]
    tone = (8000 * np.sin(np.arange(14400) / 20)).astype("<i2").tobytes()
    for number, stream in enumerate(streams):
        for packet in speech(7, seed=number, frame_ms=(20, 60)[number % 2]):
            stream.push(packet)
        stream.push(b"\xff")
        stream.flush("middle")
        stream.push_pcm(tone, 48000)
        for packet in speech(9, seed=number + 10):
            stream.push(packet)
    for stream, sink in zip(streams, sinks, strict=True):
        await until(lambda sink=sink: sink.flushed == ["middle"], 30)  # type: ignore[misc]
        await flushed(stream, sink)
        stream.close()


async def test_the_process_hears_what_the_thread_hears() -> None:
    here, there = [Sink() for _ in range(6)], [Sink() for _ in range(6)]
    async with running(ready_engine()) as ingest:
        await hear(ingest, here)
        wanted = ingest.totals()
    async with beside(SILERO, ready_engine()) as scaling:
        await hear(scaling, there)
        assert scaling.stats.packets == 0, "the thread had nothing to do"
        totals = scaling.totals()
    for one, other in zip(here, there, strict=True):
        assert one.pcm == other.pcm
        assert one.flushed == other.flushed
        # A product over other rows rounds in another way.
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-4)
        assert one.levels == other.levels
    assert (totals.packets, totals.bad_packets) == (wanted.packets, wanted.bad_packets)
    assert totals.batches > 0
    assert 0 < totals.process_s < 60


async def test_the_same_decisions_to_the_last_bit() -> None:
    """With a detector that does not care what else is in a batch."""
    here, there = [Sink(), Sink()], [Sink(), Sink()]
    async with running(EnergyEngine(10.0)) as ingest:
        await hear(ingest, here)
    async with beside() as scaling:
        await hear(scaling, there)
    for one, other in zip(here, there, strict=True):
        assert (one.pcm, one.probabilities, one.levels) == (other.pcm, other.probabilities, other.levels)
        assert {kind for kind, _ in other.log} == {"pcm", "flushed"}


async def test_few_streams_start_no_process() -> None:
    ingest = ScalingIngest(EnergyEngine(10.0), ENERGY, start_at=4)
    ingest.start()
    try:
        for _ in range(20):
            streams = [ingest.open(Sink()) for _ in range(3)]
            for stream in streams:
                stream.close()
                stream.close()
        assert ingest.open_streams == 0
        assert ingest.remote is None
        streams = [ingest.open(Sink()) for _ in range(4)]
        assert ingest.remote is not None
        assert ingest.open_streams == 4, "who is here stays here"
    finally:
        ingest.stop()


async def test_without_a_source_there_is_never_a_process() -> None:
    ingest = ScalingIngest(EnergyEngine(10.0), None, start_at=1)
    ingest.start()
    for _ in range(10):
        ingest.open(Sink())
    assert ingest.remote is None
    ingest.stop()


async def test_echo_is_cancelled_in_the_thread() -> None:
    make = choose("gate")
    assert make is not None
    async with beside() as ingest:
        sink = Sink()
        stream = ingest.open(sink, EchoControl(make()))
        packets = speech(3)
        for packet in packets:
            stream.push(packet, 0)
        await flushed(stream, sink)
        assert ingest.stats.packets == 3
        assert ingest.remote is not None
        assert ingest.remote.stats.packets == 0


async def test_a_killed_process_costs_what_was_on_its_way_and_no_session() -> None:
    lines: list[str] = []
    handler = logger.add(lines.append, level="WARNING", format="{message}")
    try:
        async with beside() as ingest:
            sinks = [Sink() for _ in range(8)]
            streams = [ingest.open(sink) for sink in sinks]
            packets = [speech(12, seed=number) for number in range(8)]
            for stream, some in zip(streams, packets, strict=True):
                for packet in some[:6]:
                    stream.push(packet)
            await until(lambda: all(len(sink.pcm) == 6 * 1920 for sink in sinks), 30)
            pid = pid_of(ingest)
            os.kill(pid, signal.SIGSTOP)
            for stream in streams[:4]:  # on its way, and so are these flushes
                stream.push(speech(1)[0])
                stream.flush("on its way")
            await until(lambda: all(not stream.pending for stream in streams), 30)
            streams[7].close()
            os.kill(pid, signal.SIGKILL)
            await until(lambda: ingest.remote is None, 30)
            assert (ingest.open_streams, len(lines)) == (7, 1)
            for stream, some in zip(streams, packets, strict=True):
                for packet in some[6:]:
                    stream.push(packet)
            for stream, sink in zip(streams[:7], sinks, strict=False):
                await flushed(stream, sink)
            assert [sink.flushed for sink in sinks] == [["on its way", "end"]] * 4 + [["end"]] * 3 + [[]]
            for sink, some in zip(sinks[:7], packets, strict=False):
                # A fresh decoder, as if the rest were all there is.
                assert sink.pcm == decoded(some[:6]) + decoded(some[6:])
            assert len(sinks[7].pcm) == 6 * 1920
            assert ingest.totals().packets == 8 * 6 + 7 * 6
            assert not alive(pid)
            assert ingest._bytes_in == ingest._bytes_out
    finally:
        logger.remove(handler)
    assert "next attempt in 1 s" in lines[0]


async def test_who_had_not_spoken_yet_when_the_process_was_lost_is_heard() -> None:
    async with beside() as ingest:
        sink = Sink()
        stream = ingest.open(sink)
        os.kill(pid_of(ingest), signal.SIGKILL)
        await until(lambda: ingest.remote is None, 30)
        packets = speech(5)
        for packet in packets:
            stream.push(packet)
        await flushed(stream, sink)
        assert sink.pcm == decoded(packets)
        stream.close()
        assert ingest.open_streams == 0


async def test_the_next_process_comes_after_a_pause_that_grows() -> None:
    async with beside() as ingest:
        now = ingest._now()
        ingest._now = lambda: now
        for pause_s in (1, 2, 4):
            os.kill(pid_of(ingest), signal.SIGKILL)
            await until(lambda: ingest.remote is None, 30)
            now += pause_s - 0.01
            ingest.open(Sink())
            assert ingest.remote is None
            now += 0.02
            ingest.open(Sink())
            await ready(ingest)
        now += ingest_remote.RETRY_S[1] + 1
        os.kill(pid_of(ingest), signal.SIGKILL)
        await until(lambda: ingest.remote is None, 30)
        assert ingest._retry_at == now + 1, "this one has lasted"


async def test_what_waits_for_a_process_that_stands_still(monkeypatch: pytest.MonkeyPatch) -> None:
    """It ages, is bounded, and after some time the thread takes over."""
    monkeypatch.setattr(ingest_remote, "STALLED_S", 2.0)
    monkeypatch.setattr(ingest_remote, "SLOW_S", 0.05)
    async with beside() as ingest:
        sink, other = Sink(), Sink()
        stream = ingest.open(sink)
        assert ingest.queue_age_s == 0
        os.kill(pid_of(ingest), signal.SIGSTOP)
        packets = speech(MAX_PENDING_PER_STREAM + 60, frame_ms=10)
        stream.push(packets[0])
        await until(lambda: not stream.pending, 30)
        await asyncio.sleep(0.1)
        assert 0.09 < ingest.queue_age_s < 30
        assert ingest.open(other)._ingest is ingest, "no new streams for one that does not answer"
        for packet in packets[1:]:
            stream.push(packet)
            if stream.pending % 20 == 0:
                await asyncio.sleep(0)
        totals = ingest.totals()
        sent = len(packets) - stream.pending - totals.dropped_packets
        assert sent <= 1 + ingest_remote.WINDOW * ingest_remote.SHARE_ITEMS
        assert stream.pending == MAX_PENDING_PER_STREAM
        assert totals.dropped_packets == totals.dropped_stream > 0
        await flushed(stream, sink)
        assert ingest.remote is None
        assert len(sink.pcm) == MAX_PENDING_PER_STREAM * 320
        assert ingest.queue_age_s == 0


async def test_the_memory_of_all_streams_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mynah.audio.ingest_stream.MAX_PENDING_BYTES", 4000)
    async with beside() as ingest:
        os.kill(pid_of(ingest), signal.SIGSTOP)
        streams = [ingest.open(Sink()) for _ in range(4)]
        for stream in streams:
            for packet in speech(10):
                stream.push(packet)
        assert sum(stream.pending for stream in streams) < 40
        assert ingest.totals().dropped_overload == 40 - sum(stream.pending for stream in streams)


async def test_a_lone_packet_does_not_wait_for_a_beat_and_many_share_one() -> None:
    async with beside() as ingest:
        remote = await ready(ingest)
        sinks = [Sink() for _ in range(50)]
        streams = [ingest.open(sink) for sink in sinks]
        packet = speech(1)[0]
        for stream in streams:
            stream.push(packet)
        assert remote._timer is not None
        await until(lambda: all(sink.pcm for sink in sinks), 30)
        assert remote.stats.batches == 1


async def test_closed_while_it_is_on_its_way() -> None:
    async with beside() as ingest:
        remote = await ready(ingest)
        sink, other = Sink(), Sink()
        stream, witness = ingest.open(sink), ingest.open(other)
        for packet in speech(4):
            stream.push(packet)
        await until(lambda: not stream.pending, 30)
        stream.flush("never")
        stream.close()
        stream.push(speech(1)[0])
        await flushed(witness, other)
        await flushed(witness, other)
        assert sink.flushed == []
        assert list(remote._by_number.values()) == [remote._far[witness]]
        never = ingest.open(Sink())
        never.close()  # before it had anything to say
        await flushed(witness, other)
        assert ingest.open_streams == 0
        assert remote.open_streams == 1
        assert remote._bytes_in == remote._bytes_out


async def test_a_sink_that_raises_holds_up_nobody() -> None:
    class Broken(Sink):
        def on_pcm(self, pcm: bytes, decisions: object) -> None:
            raise RuntimeError("on purpose")

    raised: list[str] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: raised.append(str(context.get("exception"))))
    try:
        async with beside() as ingest:
            broken, sink = ingest.open(Broken()), Sink()
            stream = ingest.open(sink)
            packets = speech(6)
            for packet in packets:
                broken.push(packet)
                stream.push(packet)
            await flushed(stream, sink)
            assert sink.pcm == decoded(packets)
    finally:
        loop.set_exception_handler(None)
    assert set(raised) == {"on purpose"}


async def test_stopping_ends_the_process_at_once_and_is_safe_again() -> None:
    async with beside() as ingest:
        sink = Sink()
        stream = ingest.open(sink)
        for packet in speech(20):
            stream.push(packet)
        pid = pid_of(ingest)
        ingest.stop()
        assert not alive(pid)
        ingest.stop()
        stream.push(speech(1)[0])
        stream.close()
        await asyncio.sleep(0.02)
        assert sink.pcm == b""


async def test_stopping_while_the_process_starts() -> None:
    ingest = ScalingIngest(EnergyEngine(10.0), ENERGY, start_at=1)
    ingest.start()
    ingest.open(Sink())
    await asyncio.sleep(0)
    ingest.stop()  # a process that nobody waited for would be a warning


async def test_a_detector_that_cannot_be_made_elsewhere() -> None:
    ingest = ScalingIngest(LevelEngine(), EngineSource("mynah.nothing:at_all"), start_at=1)
    ingest.start()
    try:
        sink = Sink()
        stream = ingest.open(sink)
        await until(lambda: ingest._retry_at > 0, 30)
        packets = speech(2)
        for packet in packets:
            stream.push(packet)
        await flushed(stream, sink)
        assert sink.pcm == decoded(packets)
    finally:
        ingest.stop()


async def test_no_more_open_files(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("mynah.audio.ingest_channel.socket.socketpair", none)
    ingest = ScalingIngest(LevelEngine(), ENERGY, start_at=1)
    ingest.start()
    ingest.open(Sink())
    assert ingest.remote is None
    assert ingest._retry_at > ingest._now()
    ingest.stop()
