"""The process that decodes and detects: what it does with batches, and when it ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import msgspec
import numpy as np
import pytest

from mynah.audio.ingest_process import Hearing, make_engine, serve
from mynah.audio.ingest_wire import CLOSE, FLUSH, OPUS, Answer, Batch, EngineSource, Frames, Piece, frame
from mynah.providers.vad.energy import EnergyEngine
from mynah.providers.vad.silero import SileroEngine
from tests.audio.uplink import LevelEngine, decoded, speech

ENERGY = EngineSource("mynah.providers.vad.energy:engine_of", "10.0")


def pcm_of(answer: Answer, number: int) -> bytes:
    return b"".join(heard.pcm for heard in answer.heard if heard.stream == number)


def test_two_streams_are_kept_apart_and_in_order() -> None:
    engine = LevelEngine()
    hearing = Hearing(engine)
    one, two = speech(5, seed=1), speech(5, seed=2)
    got = {1: b"", 2: b""}
    for a, b in zip(one, two, strict=True):
        answer = hearing.answer(Batch([Piece(1, OPUS, a), Piece(2, OPUS, b)]))
        assert answer.packets == 2
        for number in got:
            got[number] += pcm_of(answer, number)
    assert got == {1: decoded(one), 2: decoded(two)}
    hearing.answer(Batch([Piece(1, CLOSE), Piece(2, CLOSE), Piece(7, CLOSE)]))
    assert hearing.open_streams == 0
    assert not engine.taken, "the slots were given back"


def test_a_share_is_no_bound_here() -> None:
    packets = speech(30)
    answer = Hearing(LevelEngine()).answer(Batch([Piece(1, OPUS, packet) for packet in packets]))
    assert pcm_of(answer, 1) == decoded(packets)
    assert sum(len(heard.decisions) for heard in answer.heard) == 30 * 960 // 512


def test_flushes_stand_where_they_were_put() -> None:
    packets = speech(3)
    batch = [
        Piece(1, FLUSH),
        Piece(1, OPUS, packets[0]),
        Piece(1, FLUSH),
        Piece(1, FLUSH),
        Piece(1, OPUS, packets[1]),
    ]
    answer = Hearing(LevelEngine()).answer(Batch(batch))
    assert [(bool(heard.pcm), heard.flushed) for heard in answer.heard] == [
        (False, True), (True, True), (False, True), (True, False),
    ]  # fmt: skip


def test_pcm_and_what_is_no_audio() -> None:
    hearing = Hearing(LevelEngine())
    tone = (8000 * np.sin(np.arange(4800) / 20)).astype("<i2").tobytes()
    answer = hearing.answer(Batch([Piece(1, OPUS, b"\xff"), Piece(1, 48000, tone), Piece(1, FLUSH)]))
    assert (answer.packets, answer.bad_packets) == (2, 1)
    assert len(pcm_of(answer, 1)) == pytest.approx(1600 * 2, abs=8)
    answer = hearing.answer(Batch([Piece(1, OPUS, speech(1)[0])]))
    assert (answer.packets, answer.bad_packets) == (1, 0), "counted in this batch"


def test_the_detectors_that_have_a_source() -> None:
    assert isinstance(make_engine(ENERGY), EnergyEngine)
    assert isinstance(make_engine(EngineSource("mynah.providers.vad.silero:ready_engine")), SileroEngine)
    with pytest.raises(ModuleNotFoundError):
        make_engine(EngineSource("mynah.nothing:at_all"))


def answers(channel: socket.socket) -> Iterator[Answer]:
    frames = Frames()
    while data := channel.recv(65536):
        for body in frames.feed(data):
            yield msgspec.msgpack.decode(body, type=Answer)


def test_serving_ends_with_the_socket() -> None:
    near, far = socket.socketpair()
    near.settimeout(20)
    thread = threading.Thread(target=serve, args=(far,))
    thread.start()
    with far:
        with near:
            packets = speech(2)
            near.sendall(frame(ENERGY) + b"".join(frame(Batch([Piece(3, OPUS, one)])) for one in packets))
            coming = answers(near)
            assert next(coming) == Answer(), "ready"
            assert pcm_of(next(coming), 3) + pcm_of(next(coming), 3) == decoded(packets)
        thread.join(20)
        assert not thread.is_alive()


def test_the_process_outlives_signals_of_the_group_and_not_the_server() -> None:
    near, far = socket.socketpair()
    near.settimeout(30)
    with near, far:
        process = subprocess.Popen([sys.executable, "-m", "mynah.audio.ingest_process"], stdin=far.fileno())
        try:
            far.close()
            near.sendall(frame(ENERGY))
            coming = answers(near)
            assert next(coming) == Answer()
            process.send_signal(signal.SIGINT)
            process.send_signal(signal.SIGTERM)
            packets = speech(1)
            near.sendall(frame(Batch([Piece(1, OPUS, packets[0])])))
            assert pcm_of(next(coming), 1) == decoded(packets)
            near.close()
            assert process.wait(20) == 0
        finally:
            process.kill()
            process.wait()


SERVER = """
import asyncio, sys, time
from mynah.audio.ingest_remote import ScalingIngest
from mynah.audio.ingest_wire import EngineSource
from mynah.providers.vad.energy import EnergyEngine

async def main():
    ingest = ScalingIngest(EnergyEngine(10.0), EngineSource("mynah.providers.vad.energy:engine_of", "10.0"), start_at=1)
    ingest.start()
    ingest.open(None)
    while not ingest.remote.ready:
        await asyncio.sleep(0.01)
    print(ingest.remote.pid, flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


def test_a_server_that_is_killed_leaves_no_process_behind() -> None:
    server = subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        pid = int(server.stdout.readline())
        os.kill(pid, 0)
    finally:
        server.kill()
        server.communicate()
    deadline = time.monotonic() + 20
    while alive(pid):
        assert time.monotonic() < deadline, "the process is still there"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    """Whether the process runs; one that has ended and that nobody has asked about does not."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as stat:  # noqa: PTH123
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
