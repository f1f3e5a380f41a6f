"""What the tests of the ingest share: an engine and a sink that note what they get, and packets of noise."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mynah.audio.ingest import Decision, Ingest, IngestStream, VadEngine
from mynah.audio.opus import OpusDecoder, OpusEncoder


class LevelEngine:
    """An engine whose probability is the chunk's mean absolute level; notes how it is used."""

    chunk_samples = 512

    def __init__(self) -> None:
        self.taken: set[int] = set()
        self.calls: list[int] = []
        self.threads: set[int] = set()
        self.gate: threading.Event | None = None
        self.error: Exception | None = None
        self.seen: dict[int, list[NDArray[np.float32]]] = {}

    def open(self) -> int:
        self.threads.add(threading.get_ident())
        slot = next(n for n in range(10**6) if n not in self.taken)
        self.taken.add(slot)
        self.seen[slot] = []
        return slot

    def close(self, slot: int) -> None:
        self.threads.add(threading.get_ident())
        self.taken.remove(slot)

    def process(self, slots: NDArray[np.intp], chunks: NDArray[np.float32]) -> NDArray[np.float32]:
        if self.gate is not None:
            self.gate.wait(5)
        if self.error is not None:
            raise self.error
        assert len(set(slots.tolist())) == len(slots), "a slot twice in a call"
        assert chunks.shape == (len(slots), 512)
        assert chunks.dtype == np.float32
        assert np.max(np.abs(chunks)) <= 1
        self.threads.add(threading.get_ident())
        self.calls.append(len(slots))
        for slot, chunk in zip(slots.tolist(), chunks, strict=True):
            assert slot in self.taken
            self.seen[slot].append(chunk.copy())
        result: NDArray[np.float32] = np.mean(np.abs(chunks), axis=1)
        return result


class SequenceEngine(LevelEngine):
    """Takes a stream's chunks that follow each other in one call."""

    sequences = True

    def process(self, slots: NDArray[np.intp], chunks: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.concatenate(
            [
                super(SequenceEngine, self).process(slots[at : at + 1], chunks[at : at + 1])
                for at in range(len(slots))
            ]
        )


class Sink:
    def __init__(self) -> None:
        self.log: list[tuple[str, Any]] = []
        self.pcm = b""
        self.probabilities: list[float] = []
        self.levels: list[float] = []
        self.flushed: list[Any] = []
        self.threads: set[int] = set()
        self.done = asyncio.Event()

    def on_pcm(self, pcm: bytes, decisions: tuple[Decision, ...]) -> None:
        self.threads.add(threading.get_ident())
        assert pcm
        self.log.append(("pcm", len(pcm)))
        self.pcm += pcm
        self.probabilities += [decision.probability for decision in decisions]
        self.levels += [decision.level_db for decision in decisions]

    def on_flushed(self, token: Any) -> None:
        self.log.append(("flushed", token))
        self.flushed.append(token)
        self.done.set()


@asynccontextmanager
async def running(engine: VadEngine, interval_s: float | None = 0.02) -> AsyncIterator[Ingest]:
    ingest = Ingest(engine, interval_s=interval_s)
    ingest.start()
    try:
        yield ingest
    finally:
        if isinstance(engine, LevelEngine) and engine.gate is not None:
            engine.gate.set()
        ingest.stop()


def speech(count: int, frame_ms: int = 60, level: float = 8000, seed: int = 0) -> list[bytes]:
    encoder = OpusEncoder(16000, frame_ms, complexity=0)
    rng = np.random.default_rng(seed)
    return [
        encoder.encode(
            (rng.standard_normal(encoder.frame_samples) * level).clip(-32768, 32767).astype("<i2").tobytes()
        )
        for _ in range(count)
    ]


def decoded(packets: list[bytes]) -> bytes:
    decoder = OpusDecoder(16000)
    return b"".join(decoder.decode(packet) for packet in packets)


async def until(condition: Callable[[], bool], seconds: float = 5) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.001)


async def flushed(stream: IngestStream, sink: Sink, token: Any = "end") -> None:
    sink.done.clear()
    stream.flush(token)
    await asyncio.wait_for(sink.done.wait(), 5)
