from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mynah.audio import ingest_stream as module
from mynah.audio.ingest import MAX_PENDING_PER_STREAM, MAX_REST_S, REST_FACTOR, Decision, Ingest
from mynah.errors import ProviderError
from tests.audio.uplink import LevelEngine, SequenceEngine, Sink, decoded, flushed, running, speech, until


@pytest.mark.parametrize("frame_ms", [20, 40, 60])
async def test_audio_arrives_whole_with_a_decision_per_chunk(frame_ms: int) -> None:
    engine, sink = LevelEngine(), Sink()
    packets = speech(17, frame_ms)
    async with running(engine) as ingest:
        stream = ingest.open(sink)
        for packet in packets:
            stream.push(packet)
            await asyncio.sleep(0.0005)
        await flushed(stream, sink)
    expected = decoded(packets)
    assert sink.pcm == expected
    assert len(sink.probabilities) == len(expected) // 1024
    whole = np.frombuffer(expected, "<i2").astype(np.float32) / 32768
    for index, chunk in enumerate(engine.seen[0]):
        assert np.array_equal(chunk, whole[index * 512 : (index + 1) * 512])
        assert sink.probabilities[index] == pytest.approx(np.mean(np.abs(chunk)))
        assert sink.levels[index] == pytest.approx(
            10 * np.log10(np.mean(chunk.astype(float) ** 2) + 1e-12), abs=0.1
        )
    assert sink.threads == {threading.get_ident()}
    assert threading.get_ident() not in engine.threads
    assert len(engine.threads) == 1


async def test_streams_are_batched_into_one_call_per_round() -> None:
    engine = LevelEngine()
    sinks = [Sink() for _ in range(40)]
    async with running(engine, interval_s=0.2) as ingest:
        streams = [ingest.open(sink) for sink in sinks]
        streams[0].push(speech(1)[0])  # at once; the rest then waits for the interval
        await until(lambda: bool(sinks[0].pcm))
        engine.calls.clear()
        batches = ingest.stats.batches
        for index, stream in enumerate(streams):
            for packet in speech(2, seed=index):
                stream.push(packet)
        await until(lambda: all(len(sink.probabilities) >= 3 for sink in sinks))
        assert ingest.stats.batches == batches + 1
    assert engine.calls[:3] == [40, 40, 40]
    for index, sink in enumerate(sinks[1:], 1):
        assert sink.pcm == decoded(speech(2, seed=index))


async def test_an_idle_worker_hands_over_at_once_and_a_busy_one_at_the_interval() -> None:
    engine, sink = LevelEngine(), Sink()
    packets = speech(3)
    async with running(engine, interval_s=0.6) as ingest:
        stream = ingest.open(sink)
        begin = time.monotonic()
        stream.push(packets[0])
        await until(lambda: len(sink.log) == 1)
        assert time.monotonic() - begin < 0.5
        stream.push(packets[1])
        await until(lambda: len(sink.log) == 2)
        assert time.monotonic() - begin > 0.55
        begin = time.monotonic()
        stream.push(packets[2])
        await flushed(stream, sink)
        assert time.monotonic() - begin < 0.5, "a flush does not wait for the interval"
        assert [kind for kind, _ in sink.log] == ["pcm", "pcm", "pcm", "flushed"]


def test_the_worker_rests_for_a_multiple_of_what_a_batch_cost_but_not_for_long() -> None:
    ingest = Ingest(LevelEngine())
    assert ingest._rest(0.0005) == pytest.approx(0.0005 * REST_FACTOR)
    assert ingest._rest(1.0) == MAX_REST_S
    assert Ingest(LevelEngine(), interval_s=0.02)._rest(1.0) == 0.02


async def test_audio_arrives_whole_when_the_worker_chooses_its_rests() -> None:
    sinks = [Sink() for _ in range(20)]
    packets = [speech(12, seed=index) for index in range(20)]
    async with running(LevelEngine(), interval_s=None) as ingest:
        streams = [ingest.open(sink) for sink in sinks]
        for round_ in zip(*packets, strict=True):
            for stream, packet in zip(streams, round_, strict=True):
                stream.push(packet)
            await asyncio.sleep(0.003)
        for stream, sink in zip(streams, sinks, strict=True):
            await flushed(stream, sink)
    for sink, mine in zip(sinks, packets, strict=True):
        assert sink.pcm == decoded(mine)
        assert len(sink.probabilities) == 12 * 960 // 512


async def test_an_engine_of_sequences_gets_a_streams_chunks_in_one_call_and_in_order() -> None:
    engines = LevelEngine(), SequenceEngine()
    heard = []
    for engine in engines:
        sinks = [Sink() for _ in range(3)]
        async with running(engine, interval_s=0.1) as ingest:
            streams = [ingest.open(sink) for sink in sinks]
            for index, stream in enumerate(streams):
                for packet in speech(4, seed=index):
                    stream.push(packet)
                stream.flush("middle")
                stream.push(speech(1, seed=9)[0])
            for stream, sink in zip(streams, sinks, strict=True):
                await flushed(stream, sink)
        heard.append([(sink.pcm, sink.probabilities, sink.levels, sink.flushed) for sink in sinks])
    assert heard[0] == heard[1]
    first, second = (
        [np.concatenate(chunks).tolist() for chunks in engine.seen.values()] for engine in engines
    )
    assert first == second


async def test_the_age_of_what_waits_is_known() -> None:
    engine, sink = LevelEngine(), Sink()
    async with running(engine) as ingest:
        assert ingest.queue_age_s == 0
        engine.gate = threading.Event()
        stream, other = ingest.open(sink), ingest.open(Sink())
        stream.push(speech(1)[0])
        await until(lambda: stream.pending == 0)  # in the worker's hands, but not done
        await asyncio.sleep(0.03)
        other.push(speech(1)[0])
        assert 0.029 <= ingest.queue_age_s < 5  # a timer may fire a clock tick early
        await asyncio.sleep(0.03)
        assert 0.058 <= ingest.queue_age_s < 5
        engine.gate.set()
        await until(lambda: bool(sink.pcm))
        await until(lambda: ingest.queue_age_s == 0)


async def test_streams_that_are_behind_by_turns_do_not_add_up_to_one_that_waits_for_ever() -> None:
    now = 100.0
    ingest = Ingest(LevelEngine(), asyncio.get_running_loop())
    ingest._now = lambda: now
    behind = ingest.open(Sink())
    for _ in range(20):
        stream, behind = behind, ingest.open(Sink())
        for packet in speech(8):  # twice its share
            behind.push(packet)
        ingest._process(ingest._take_streams())
        assert set(ingest._behind) == {behind}, "the one before has caught up"
        assert ingest.queue_age_s == 0
        stream.close()
        now += 0.1
    assert ingest.queue_age_s == pytest.approx(0.1)
    ingest.stop()


async def test_the_age_of_what_waits_in_the_ring_counts_from_its_oldest() -> None:
    ingest = Ingest(LevelEngine(), asyncio.get_running_loop())  # not started: nothing is taken
    first, second = ingest.open(Sink()), ingest.open(Sink())
    first.push(speech(1)[0])
    await asyncio.sleep(0.03)
    first.push(speech(1)[0])
    second.push(speech(1)[0])
    # A timer may fire a clock tick early.
    assert 0.029 <= ingest.queue_age_s < 5
    ingest.stop()
    assert ingest.queue_age_s == 0


async def test_audio_before_and_after_a_flush_in_one_batch() -> None:
    engine, sink = LevelEngine(), Sink()
    packets = speech(6)
    async with running(engine) as ingest:
        stream = ingest.open(sink)
        for packet in packets[:4]:
            stream.push(packet)
        stream.flush(1)
        stream.flush(2)
        for packet in packets[4:]:
            stream.push(packet)
        await flushed(stream, sink, 3)
    kinds = [(kind, value) for kind, value in sink.log if kind == "flushed"]
    assert kinds == [("flushed", 1), ("flushed", 2), ("flushed", 3)]
    before = sum(value for kind, value in sink.log[: sink.log.index(("flushed", 1))] if kind == "pcm")
    assert before == 4 * 1920
    assert sink.pcm == decoded(packets)
    assert len(sink.probabilities) == 6 * 960 // 512


async def test_bad_packets_are_counted_and_the_stream_goes_on() -> None:
    engine, sink = LevelEngine(), Sink()
    packets = speech(4)
    async with running(engine) as ingest:
        stream = ingest.open(sink)
        for packet in (packets[0], b"", b"\xff", packets[1], b"\x03\x00", packets[2], packets[3]):
            stream.push(packet)
        await flushed(stream, sink)
        assert ingest.stats.bad_packets == 3
        assert ingest.stats.packets == 7
    assert sink.pcm == decoded(packets)


async def test_a_closed_stream_gets_nothing_and_returns_its_slot_and_decoder() -> None:
    engine, sink, other = LevelEngine(), Sink(), Sink()
    packets = speech(3)
    async with running(engine) as ingest:
        stream, witness = ingest.open(sink), ingest.open(other)
        stream.push(packets[0])
        await until(lambda: bool(sink.pcm))
        engine.gate = threading.Event()
        stream.push(packets[1])
        stream.flush("never")
        await asyncio.sleep(0.05)  # the worker is inside the engine with this stream's audio
        stream.close()
        stream.close()
        stream.push(packets[2])
        stream.flush("never")
        engine.gate.set()
        witness.push(packets[0])
        await flushed(witness, other)
        await until(lambda: len(engine.taken) == 1)
        assert len(sink.log) == 1
        again = ingest.open(sink)
        for packet in packets:
            again.push(packet)
        await flushed(again, sink)
        assert sink.pcm[1920:] == decoded(packets), "the reused decoder starts afresh"


async def test_the_newest_packet_is_dropped_when_too_many_are_pending() -> None:
    engine, sink, other = LevelEngine(), Sink(), Sink()
    packets = speech(MAX_PENDING_PER_STREAM + 10, frame_ms=10)  # 3 s: there is credit for it
    async with running(engine) as ingest:
        engine.gate = threading.Event()
        blocker = ingest.open(other)
        blocker.push(speech(1)[0])
        await until(lambda: blocker.pending == 0)
        stream = ingest.open(sink)
        for packet in packets:
            stream.push(packet)
        assert stream.pending == MAX_PENDING_PER_STREAM
        assert ingest.stats.dropped_packets == ingest.stats.dropped_stream == 10
        engine.gate.set()
        await flushed(stream, sink)
        assert sink.pcm == decoded(packets[:MAX_PENDING_PER_STREAM])


async def test_memory_of_what_waits_is_bounded_per_stream_and_in_all(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, sink = LevelEngine(), Sink()
    stuffed = b"\x03\x00" + bytes(8000)
    async with running(engine) as ingest:
        engine.gate = threading.Event()
        blocker = ingest.open(sink)
        blocker.push(speech(1)[0])
        await until(lambda: blocker.pending == 0)
        stream, other = ingest.open(Sink()), ingest.open(Sink())
        for _ in range(200):
            stream.push(stuffed)
        assert stream.pending == module.MAX_PENDING_BYTES_PER_STREAM // (len(stuffed) + 64)
        assert ingest.stats.dropped_packets == ingest.stats.dropped_stream == 200 - stream.pending
        monkeypatch.setattr(
            module, "MAX_PENDING_BYTES", module.MAX_PENDING_BYTES_PER_STREAM + 2 * len(stuffed)
        )
        for _ in range(5):
            other.push(stuffed)
        assert 1 <= other.pending <= 3
        assert ingest.stats.dropped_overload == 5 - other.pending
        engine.gate.set()
        await until(lambda: stream.pending == other.pending == 0)
        dropped = ingest.stats.dropped_packets
        for _ in range(5):
            other.push(stuffed)
        other.push(speech(1)[0])
        assert ingest.stats.dropped_packets == dropped, "what was taken makes room"


async def test_audio_is_delivered_without_decisions_when_the_engine_reports_an_error() -> None:
    engine, sink = LevelEngine(), Sink()
    packets = speech(4)
    async with running(engine) as ingest:
        stream = ingest.open(sink)
        engine.error = ProviderError("no voice today")
        stream.push(packets[0])
        await flushed(stream, sink)
        assert sink.pcm == decoded(packets[:1])
        assert sink.probabilities == []
        engine.error = None
        for packet in packets[1:]:
            stream.push(packet)
        await flushed(stream, sink)
        assert sink.pcm == decoded(packets)
        assert sink.probabilities
        assert ingest.stats.vad_errors == 1


async def test_one_stream_that_the_engine_cannot_stand_does_not_make_the_others_deaf() -> None:
    class Picky(LevelEngine):
        def process(self, slots: NDArray[np.intp], chunks: NDArray[np.float32]) -> NDArray[np.float32]:
            if np.max(np.abs(chunks)) > 0.5:
                raise ProviderError("too loud")
            return super().process(slots, chunks)

    sinks = [Sink() for _ in range(5)]
    packets = [speech(4, level=20000 if index == 2 else 300, seed=index) for index in range(5)]
    async with running(Picky(), interval_s=0.1) as ingest:
        streams = [ingest.open(sink) for sink in sinks]
        for stream, mine in zip(streams, packets, strict=True):
            for packet in mine:
                stream.push(packet)
        for stream, sink in zip(streams, sinks, strict=True):
            await flushed(stream, sink)
        assert ingest.stats.vad_errors > 0
    assert [len(sink.probabilities) for sink in sinks] == [7, 7, 0, 7, 7]
    assert [sink.pcm for sink in sinks] == [decoded(mine) for mine in packets]


async def test_a_dead_worker_is_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    reported: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: reported.append(args.exc_value))
    engine, sink = LevelEngine(), Sink()
    async with running(engine) as ingest:
        stream = ingest.open(sink)
        engine.error = ZeroDivisionError("a bug")
        stream.push(speech(1)[0])
        assert ingest.failed is not None
        with pytest.raises(ZeroDivisionError):
            await asyncio.wait_for(ingest.failed, 5)
    assert [type(error) for error in reported] == [ZeroDivisionError]


async def test_a_raising_sink_does_not_hurt_the_others() -> None:
    class Broken(Sink):
        def on_pcm(self, pcm: bytes, decisions: tuple[Decision, ...]) -> None:
            raise ZeroDivisionError

    errors: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context["exception"]))
    engine, good = LevelEngine(), Sink()
    async with running(engine) as ingest:
        broken, stream = ingest.open(Broken()), ingest.open(good)
        packets = speech(3)
        for packet in packets:
            broken.push(packet)
            stream.push(packet)
        await flushed(stream, good)
    assert good.pcm == decoded(packets)
    assert errors
    assert all(isinstance(error, ZeroDivisionError) for error in errors)


async def test_stop_is_safe_at_any_time() -> None:
    engine = LevelEngine()
    ingest = Ingest(engine)
    ingest.stop()
    ingest.start()
    stream = ingest.open(Sink())
    stream.push(speech(1)[0])
    ingest.stop()
    ingest.stop()
    assert ingest.failed is not None
    assert ingest.failed.cancelled()
    stream.push(speech(1)[0])
    stream.close()


async def test_a_stream_that_was_open_across_a_stop_is_heard_again() -> None:
    engine, sink = LevelEngine(), Sink()
    packets = speech(4)
    ingest = Ingest(engine)
    ingest.start()
    stream = ingest.open(sink)
    engine.gate = threading.Event()
    stream.push(packets[0])
    await until(lambda: stream.pending == 0)
    stream.push(packets[1])  # waits, and is lost
    ingest._stopping = True  # so that the worker ends after this batch
    engine.gate.set()
    ingest.stop()
    assert stream.pending == 0
    ingest.start()
    for packet in packets[2:]:
        stream.push(packet)
    await flushed(stream, sink)
    ingest.stop()
    assert len(sink.pcm) == 3 * 1920


async def test_push_is_cheap() -> None:
    """The loop's share per packet: a guard against work creeping onto it (measured 0.5 µs)."""
    engine = LevelEngine()
    async with running(engine) as ingest:
        streams = [ingest.open(Sink()) for _ in range(50)]
        packet = speech(1)[0]
        begin = time.thread_time()
        for _ in range(50):
            for stream in streams:
                stream.push(packet)
        assert (time.thread_time() - begin) / 2500 < 50e-6
