"""Voice detection and the up-link worker, each by itself."""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Iterator

import numpy as np

from mynah.audio.ingest import Decision, Ingest
from mynah.audio.opus import OpusEncoder
from mynah.audio.pcm import resample
from mynah.bench.report import Result, distribution, repeat
from mynah.providers.tts.fake import babble
from mynah.providers.vad.silero import CHUNK, SileroEngine, limit_blas_threads

_SPEAKERS = (1, 10, 50, 200, 400)
_SPOKEN_S = 3.0
"""How long each of them speaks, after half a second that is not counted."""
_PACKET_S = 0.06
_PACKET_BYTES = 1920
_SECONDS = 4.0
"""Length of the test sound: the fakes' babble, which is the same on every machine."""


def _frames(rate: int, frame_bytes: int) -> list[bytes]:
    pcm = resample(babble(_SECONDS), 16000, rate)
    return [pcm[at : at + frame_bytes] for at in range(0, len(pcm) - frame_bytes + 1, frame_bytes)]


def vad() -> Iterator[Result]:
    """Silero over 1 to 128 streams at once: cost of 32 ms of one stream."""
    limit_blas_threads()
    engine = SileroEngine()
    sound = np.frombuffer(babble(_SECONDS), "<i2").astype(np.float32) / 32768
    chunks = sound[: len(sound) // CHUNK * CHUNK].reshape(-1, CHUNK)
    slots = np.array([engine.open() for _ in range(128)])
    for streams in (1, 8, 32, 128):
        batch = np.resize(chunks, (streams, CHUNK))
        samples = repeat(lambda s=slots[:streams], b=batch: engine.process(s, b))  # type: ignore[misc]
        case = "alone" if streams == 1 else f"{streams} streams at once"
        yield distribution("vad", case, "µs/chunk", [sample / streams for sample in samples])


class _Counter:
    """A sink that only waits for its flush, and looks at the clock."""

    def __init__(self) -> None:
        self._done = asyncio.Event()
        self.delays_ms: list[float] = []
        self.pushed: deque[float] = deque()
        """When the packets on their way were pushed, by `time.monotonic`; empty where nobody wants to know."""

    async def flushed(self) -> None:
        """Wait for the next flush."""
        await self._done.wait()
        self._done.clear()

    def on_pcm(self, pcm: bytes, decisions: tuple[Decision, ...]) -> None:  # noqa: ARG002
        """Audio came back."""
        now = time.monotonic()
        for _ in range(min(len(self.pushed), len(pcm) // _PACKET_BYTES)):
            self.delays_ms.append((now - self.pushed.popleft()) * 1000)

    def on_flushed(self, token: object) -> None:  # noqa: ARG002
        """All of it."""
        self._done.set()


def ingest() -> Iterator[Result]:
    """From packets in to decoded audio and decisions out, over threads: cost of one 60 ms packet."""
    limit_blas_threads()
    encoder = OpusEncoder(16000, 60, 0)
    packets = [encoder.encode(frame) for frame in _frames(16000, encoder.frame_bytes)]
    for streams in (1, 32, 128):
        samples = [asyncio.run(_ingest_pass(packets, streams)) for _ in range(5)]
        worker, loop = ([sample[index] for sample in samples] for index in (0, 1))
        case = f"{streams} streams" if streams > 1 else "1 stream"
        yield distribution("ingest", f"{case}, all threads", "µs/packet", worker)
        yield distribution("ingest", f"{case}, the loop's share", "µs/packet", loop)
    for streams in _SPEAKERS:
        yield from asyncio.run(_ingest_in_real_time(packets, streams))


async def _ingest_pass(packets: list[bytes], streams: int) -> tuple[float, float]:
    """Push every packet once to each stream; return CPU µs per packet of the process and of the loop's thread."""
    worker = Ingest(SileroEngine())
    worker.start()
    sinks = [_Counter() for _ in range(streams)]
    opened = [worker.open(sink) for sink in sinks]
    process, thread = time.process_time(), time.thread_time()
    for at in range(0, len(packets), 8):  # as fast as it can, but below the bound where packets are dropped
        for stream, sink in zip(opened, sinks, strict=True):
            for packet in packets[at : at + 8]:
                stream.push(packet)
            stream.flush(sink)
        await asyncio.gather(*(sink.flushed() for sink in sinks))
    count = len(packets) * streams
    result = (time.process_time() - process) / count * 1e6, (time.thread_time() - thread) / count * 1e6
    assert worker.stats.packets == count
    worker.stop()
    return result


async def _ingest_in_real_time(packets: list[bytes], streams: int) -> list[Result]:
    """Let everybody speak, each on a clock of his own: what a second of speech costs, and how long it is on its way."""
    worker = Ingest(SileroEngine())
    worker.start()
    sinks = [_Counter() for _ in range(streams)]
    speakers = [(worker.open(sink), sink) for sink in sinks]
    dice = random.Random(1)
    phases = sorted((dice.random() * _PACKET_S, number) for number in range(streams))

    async def speak(seconds: float) -> None:
        begin = time.monotonic()
        for turn in range(round(seconds / _PACKET_S)):
            for phase, number in phases:
                wait = begin + turn * _PACKET_S + phase - time.monotonic()
                if wait > 0.001:
                    await asyncio.sleep(wait)
                stream, sink = speakers[number]
                sink.pushed.append(time.monotonic())
                stream.push(packets[(turn + number) % len(packets)])
        for stream, sink in speakers:
            stream.flush(sink)
        await asyncio.gather(*(sink.flushed() for sink in sinks))

    await speak(0.5)
    for sink in sinks:
        sink.delays_ms.clear()
    process, thread, before = time.process_time(), time.thread_time(), worker.stats.packets
    await speak(_SPOKEN_S)
    spoken_s = (worker.stats.packets - before) * _PACKET_S
    loop_ms = (time.thread_time() - thread) / spoken_s * 1000
    worker_ms = (time.process_time() - process) / spoken_s * 1000 - loop_ms
    worker.stop()
    case = f"{streams} in real time" if streams > 1 else "1 in real time"
    note = "ingest in real time: CPU of the worker thread per second of speech; delay from a packet to its decisions"
    results = [distribution("ingest", f"{case}, worker", "ms/s", [worker_ms], note)]
    if not worker.stats.dropped_packets:  # else the machine is too busy, and no delay is known
        delays = [delay for sink in sinks for delay in sink.delays_ms]
        results.append(distribution("ingest", f"{case}, delay", "ms", delays))
    return results
