"""The child process and the socket to it."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import msgspec
import pytest

from mynah.audio.ingest_channel import Channel
from mynah.audio.ingest_wire import FLUSH, OPUS, Answer, Batch, EngineSource, Piece, frame
from tests.audio.uplink import speech, until

ENERGY = frame(EngineSource("mynah.providers.vad.energy:engine_of", "10.0"))


class Ends:
    """What a channel told."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.lost: list[str] = []
        self.channel = Channel(asyncio.get_running_loop(), self.on_frame, self.lost.append)

    def on_frame(self, body: bytes) -> None:
        self.answers.append(msgspec.msgpack.decode(body, type=Answer))


async def test_a_frame_that_the_socket_has_no_room_for_goes_on_later() -> None:
    ends = Ends()
    try:
        await ends.channel.start()
        ends.channel.send(ENERGY)
        await until(lambda: len(ends.answers) == 1, 30)
        noise = b"\xff" * 3_000_000  # no audio, but long
        ends.channel.send(
            frame(Batch([Piece(1, OPUS, noise), Piece(1, OPUS, speech(1)[0]), Piece(1, FLUSH)]))
        )
        assert ends.channel.blocked
        await until(lambda: len(ends.answers) == 2, 30)
        assert not ends.channel.blocked
        assert (ends.answers[1].packets, ends.answers[1].bad_packets) == (2, 1)
        assert not ends.lost
    finally:
        ends.channel.close(wait=True)


async def test_an_end_is_told_once() -> None:
    ends = Ends()
    await ends.channel.start()
    ends.channel.send(frame(EngineSource("mynah.nothing:at_all")))
    await until(lambda: bool(ends.lost), 30)
    ends.channel.close()
    assert ends.lost == ["it has ended"]
    assert ends.channel.pid is None


async def test_nonsense_is_an_end() -> None:
    ends = Ends()
    ends.channel._far.send(b"\xff" * 8)
    await until(lambda: bool(ends.lost))
    assert "4294967295 bytes" in ends.lost[0]
    ends.channel._far.close()


async def test_writing_to_a_process_that_is_gone_is_an_end() -> None:
    ends = Ends()
    ends.channel._far.close()
    ends.channel.send(ENERGY)
    assert not ends.lost, "not while the sender is at work"
    await until(lambda: bool(ends.lost))
    await asyncio.sleep(0.01)
    assert len(ends.lost) == 1


async def test_a_program_that_cannot_be_started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "nothing"))
    ends = Ends()
    with pytest.raises(OSError, match="nothing"):
        await ends.channel.start()
    ends.channel.close()


async def test_closed_while_it_starts() -> None:
    ends = Ends()
    starting = asyncio.ensure_future(ends.channel.start())
    await asyncio.sleep(0)
    ends.channel.close(wait=True)
    await asyncio.wait_for(starting, 30)  # a process that nobody waited for would be a warning
    assert ends.channel.pid is None
    assert not ends.lost
