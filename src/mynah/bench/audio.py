"""Codec, voice detection and the up-link worker, each by itself."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Iterator

import numpy as np

from mynah.audio.ingest import Decision, Ingest
from mynah.audio.opus import OpusDecoder, OpusEncoder
from mynah.audio.pcm import resample
from mynah.bench.report import Result, distribution, repeat
from mynah.providers.tts.fake import babble
from mynah.providers.vad.silero import CHUNK, SileroEngine, limit_blas_threads

_SECONDS = 4.0
"""Length of the test sound: the fakes' babble, which is the same on every machine."""


def _frames(rate: int, frame_bytes: int) -> list[bytes]:
    pcm = resample(babble(_SECONDS), 16000, rate)
    return [pcm[at : at + frame_bytes] for at in range(0, len(pcm) - frame_bytes + 1, frame_bytes)]


def opus() -> Iterator[Result]:
    """Encode and decode 60 ms frames of speech-like sound."""
    packets: list[bytes] = []
    for rate in (16000, 24000):
        for complexity in (0, 5, 10):
            encoder = OpusEncoder(rate, 60, complexity)
            frames = _frames(rate, encoder.frame_bytes)
            if not packets:
                packets = [encoder.encode(frame) for frame in frames]
            endless = itertools.cycle(frames)
            samples = repeat(lambda e=encoder, f=endless: e.encode(next(f)))  # type: ignore[misc]
            yield distribution("opus encode", f"{rate // 1000} kHz, complexity {complexity}", "µs", samples)
    decoder = OpusDecoder(16000)
    stream = itertools.cycle(packets)
    yield distribution("opus decode", "16 kHz", "µs", repeat(lambda: decoder.decode(next(stream))))


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
    """A sink that only waits for its flush."""

    def __init__(self) -> None:
        self._done = asyncio.Event()

    async def flushed(self) -> None:
        """Wait for the next flush."""
        await self._done.wait()
        self._done.clear()

    def on_pcm(self, pcm: bytes, decisions: tuple[Decision, ...]) -> None:
        """Audio came back."""

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
