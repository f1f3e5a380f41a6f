"""A device that hears itself, through the real worker thread: events as the simulated device makes them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import numpy as np
import pytest

from mynah.audio.echo import EchoCanceller, EchoControl, WebrtcCanceller
from mynah.audio.echo_gate import EchoGate
from mynah.audio.ingest import Ingest
from mynah.bench.echo_device import DeviceTiming, Heard, Sent, converse, reply
from mynah.bench.echo_room import Floats, Room, floats
from tests.audio.test_echo import Recorder
from tests.audio.test_echo_references import hiss, packets
from tests.audio.uplink import LevelEngine, Sink, decoded, flushed, running, speech, until

ROOM = Room(delay_ms=40, echo_dbfs=-26, drive=0)


def talk(timing: DeviceTiming) -> list[Sent | Heard]:
    """Two replies of 4 s to a device whose user is silent."""
    first = reply(hiss(4), 200)
    second = reply(hiss(4, 1), first[-1].at_ms + 1300, first[-1].stamp)
    return converse([first, second], ROOM, np.zeros(16 * 10_500, np.float32), timing)


async def hear(ingest: Ingest, events: list[Sent | Heard], echo: EchoControl) -> tuple[Floats, Floats]:
    """Give the worker what happened, and return what was recorded and what is left of it."""
    sink = Sink()
    stream = ingest.open(sink, echo)
    recorded: list[bytes] = []
    for event in events:
        if isinstance(event, Sent):
            echo.sent(event.stamp, event.packet)
            continue
        recorded.append(event.packet)
        stream._settled_at = 0.0  # the credit counts real time, and this goes faster
        stream.push(event.packet, event.stamp)
        await until(lambda: stream.pending == 0)
    await flushed(stream, sink)
    stream.close()
    return floats(decoded(recorded)), floats(sink.pcm)


@pytest.mark.parametrize("make", [WebrtcCanceller, EchoGate])
@pytest.mark.parametrize(
    "timing",
    [
        DeviceTiming(),
        DeviceTiming(frame_ms=20, phase_ms=7),
        DeviceTiming(down_ms=lambda n: 15 + n * 37 % 60, up_ms=lambda n: 15 + n * 53 % 80),
        DeviceTiming(lost=frozenset({40, 41, 90, 130})),
        DeviceTiming(silent_from_ms=0),
    ],
    ids=["plain", "20 ms", "uneven network", "lost frames", "no stamps"],
)
async def test_the_echo_of_a_simulated_device_is_cancelled(
    make: Callable[[], EchoCanceller], timing: DeviceTiming
) -> None:
    async with running(LevelEngine(), interval_s=0) as ingest:
        recorded, left = await hear(ingest, talk(timing), EchoControl(make()))
    assert len(left) == len(recorded)
    for begin, end in ((2.0, 4.0), (7.6, 9.0)):  # 1.5 s into each reply
        span = slice(round(begin * 16000), round(end * 16000))
        before, after = (float(np.mean(np.square(sound[span]))) + 1e-9 for sound in (recorded, left))
        assert before > 1e-4
        assert 10 * np.log10(before / after) > 10


async def test_a_stream_without_echo_takes_stamps_and_changes_nothing() -> None:
    sink, sent = Sink(), speech(5)
    async with running(LevelEngine()) as ingest:
        stream = ingest.open(sink)
        for number, packet in enumerate(sent):
            stream.push(packet, number)
            assert not stream._queue or stream._queue[-1] is packet, "nothing is wrapped"
        await flushed(stream, sink)
    assert sink.pcm == decoded(sent)


async def test_cancelling_is_done_in_the_worker_and_ends_with_the_stream() -> None:
    threads: set[int] = set()

    class Watched(Recorder):
        def process(self, near: np.ndarray, far: np.ndarray) -> np.ndarray:
            threads.add(threading.get_ident())
            return super().process(near, far)

        def release(self) -> None:
            threads.add(threading.get_ident())
            super().release()

    sink, sent, canceller = Sink(), speech(6), Watched()
    echo = EchoControl(canceller)
    async with running(LevelEngine()) as ingest:
        stream = ingest.open(sink, echo)
        for stamp, packet in packets(6):
            echo.sent(stamp, packet)
        for number, packet in enumerate(sent):
            stream.push(packet, 60 * number)
        await flushed(stream, sink)
        stream.close()
        await until(lambda: canceller.releases == 1)
    assert sink.pcm == decoded(sent)
    assert len(sink.probabilities) == len(sink.pcm) // 1024
    assert any(far.any() for far in canceller.far)
    assert len(threads) == 1
    assert threading.get_ident() not in threads


async def test_bad_packets_and_pcm_pass_by_the_canceller() -> None:
    sink, canceller = Sink(), Recorder()
    async with running(LevelEngine()) as ingest:
        stream = ingest.open(sink, EchoControl(canceller))
        stream.push(b"\xff", 60)
        stream.push(b"", 120)
        stream.push_pcm(bytes(3200), 16000)
        await flushed(stream, sink)
        assert ingest.stats.bad_packets == 2
    assert sink.pcm == bytes(3200)
    assert all(not near.size for near in canceller.near)


async def test_the_bounds_hold_for_stamped_packets() -> None:
    sink = Sink()
    async with running(LevelEngine()) as ingest:
        stream = ingest.open(sink, EchoControl(Recorder()))
        for packet in speech(200):  # 12 s at once
            stream.push(packet, 1)
        assert 95 <= 200 - ingest.stats.dropped_packets <= 105
        await flushed(stream, sink)
        assert stream._bytes_in == stream._bytes_out
        stream.push(speech(1)[0], 1)
        stream.close()
        await until(lambda: ingest._bytes_in == ingest._bytes_out)


async def test_two_devices_share_a_worker() -> None:
    async with running(LevelEngine(), interval_s=0) as ingest:
        controls = [EchoControl(EchoGate()), EchoControl(EchoGate())]
        events = talk(DeviceTiming())
        silent = [event for event in events if isinstance(event, Heard)]
        (_, left), (recorded, untouched) = await asyncio.gather(
            hear(ingest, events, controls[0]), hear(ingest, silent, controls[1])
        )
    assert np.mean(np.square(left)) < 0.2 * np.mean(np.square(recorded))
    assert np.array_equal(untouched, recorded), "nothing was sent to this one"
