"""The process that decodes and detects for `mynah.audio.ingest_remote`.

It has no thread and no queue of its own: it reads a batch, does it with the code of `mynah.audio.ingest`, and
answers. The socket is its standard input. It ends when that does, so it outlives the server by no more than a batch.
"""

from __future__ import annotations

import importlib
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Final

import msgspec

from mynah.audio.ingest import Ingest, VadEngine
from mynah.audio.ingest_stream import Decision, IngestStream, Pcm
from mynah.audio.ingest_wire import CLOSE, FLUSH, OPUS, Answer, Batch, EngineSource, Frames, Heard, frame

READ_BYTES: Final = 65_536


class Hearing:
    """Decodes and detects what batches bring."""

    def __init__(self, engine: VadEngine) -> None:
        self._ingest = Ingest(engine)  # never started: `answer` does its work
        self._streams: dict[int, IngestStream] = {}  # bounded by the server, which opens and closes them
        self._numbers: dict[IngestStream, int] = {}
        self._told_s = 0.0  # of the processor time

    @property
    def open_streams(self) -> int:
        """Streams that have begun and have not ended."""
        return len(self._streams)

    def answer(self, batch: Batch) -> Answer:
        """Return what is heard in the batch."""
        for piece in batch.pieces:
            self._take(piece.stream, piece.kind, piece.data)
        heard = [
            Heard(self._numbers[stream], pcm, decisions, flush is not None)
            for stream, pcm, decisions, flush in self._ingest.work()
        ]
        stats, used_s = self._ingest.stats, time.process_time()
        answer = Answer(heard, stats.packets, stats.bad_packets, stats.vad_errors, used_s - self._told_s)
        stats.packets = stats.bad_packets = stats.vad_errors = 0
        self._told_s = used_s
        return answer

    def _take(self, number: int, kind: int, data: bytes) -> None:
        stream = self._streams.get(number)
        if kind == CLOSE:
            if stream is not None:
                stream.close()
                del self._streams[number], self._numbers[stream]
            return
        if stream is None:
            stream = self._streams[number] = self._ingest.open(_NOBODY)
            self._numbers[stream] = number
        if kind == FLUSH:
            stream.flush(None)
        else:
            stream.accept(data if kind == OPUS else Pcm(data, kind))


class _Nobody:
    """The sink of all streams here: what they bring is read from the work itself."""

    def on_pcm(self, pcm: bytes, decisions: tuple[Decision, ...]) -> None:
        """Is not called."""

    def on_flushed(self, token: object) -> None:
        """Is not called."""


_NOBODY: Final = _Nobody()


def make_engine(source: EngineSource) -> VadEngine:
    """Return the voice detector. Raises whatever its factory raises."""
    module, _, name = source.factory.partition(":")
    factory: Callable[[str], VadEngine] = getattr(importlib.import_module(module), name)
    return factory(source.argument)


def serve(channel: socket.socket) -> None:
    """Answer until the other end is closed."""
    frames = Frames()
    hearing: Hearing | None = None
    batches = msgspec.msgpack.Decoder(Batch)
    while data := channel.recv(READ_BYTES):
        for body in frames.feed(data):
            if hearing is None:
                hearing = Hearing(make_engine(msgspec.msgpack.decode(body, type=EngineSource)))
                channel.sendall(frame(Answer()))
            else:
                channel.sendall(frame(hearing.answer(batches.decode(body))))


def main() -> int:
    """Serve standard input. Returns the exit code."""
    for number in (signal.SIGINT, signal.SIGTERM):
        # They reach the whole group; running replies go on for a while, and the server decides when.
        signal.signal(number, signal.SIG_IGN)
    try:
        with socket.socket(fileno=sys.stdin.fileno()) as channel:
            serve(channel)
    except ConnectionError:  # the server died
        pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
