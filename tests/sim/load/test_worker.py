"""The process itself: what goes through its pipes, and when it ends."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import pytest

from mynah.errors import WireError
from mynah.sim.load import worker
from mynah.sim.load.tally import Tally
from mynah.sim.load.worker import (
    MAX_MESSAGE_BYTES,
    PROGRAM,
    Begin,
    Hold,
    Leave,
    Order,
    Ramp,
    Report,
    Settle,
    encode,
    read_message,
)

from .crowds import plan, stock


@pytest.mark.parametrize("order", [Begin(plan("ws://h/"), stock()), Ramp(1, 2, 3), Hold(), Settle(), Leave()])
async def test_orders_come_through(order: Order) -> None:
    stream = asyncio.StreamReader()
    for piece in encode(order):
        stream.feed_data(bytes([piece]))
    stream.feed_eof()
    body = await read_message(stream)
    assert body is not None
    assert msgspec.msgpack.decode(body, type=Order) == order
    assert await read_message(stream) is None


async def test_reports_come_through_and_half_ones_do_not() -> None:
    stream = asyncio.StreamReader()
    report = encode(Report(Tally(step=3, errors={"no hello": 2}), settled=True))
    stream.feed_data(report + report[:-1])
    stream.feed_eof()
    body = await read_message(stream)
    assert body is not None
    assert msgspec.msgpack.decode(body, type=Report).tally.errors == {"no hello": 2}
    assert await read_message(stream) is None


async def test_what_is_too_long_is_none_of_ours() -> None:
    stream = asyncio.StreamReader()
    stream.feed_data((MAX_MESSAGE_BYTES + 1).to_bytes(4, "big"))
    with pytest.raises(WireError, match="none of ours"):
        await read_message(stream)


@contextmanager
def process() -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A worker, and the end of its pipe for reports."""
    read_end, write_end = os.pipe()
    command = [sys.executable, "-c", PROGRAM, str(write_end)]
    popen = subprocess.Popen(command, pass_fds=(write_end,), stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    os.close(write_end)
    try:
        yield popen, read_end
    finally:
        popen.kill()
        popen.wait()
        for pipe in (popen.stdin, popen.stderr):
            assert pipe is not None
            pipe.close()
        os.close(read_end)


def test_it_ends_with_its_orders() -> None:
    with process() as (popen, reports):
        assert popen.stdin is not None
        popen.stdin.write(encode(Begin(plan("ws://127.0.0.1:9/"), [])) + encode(Ramp(1, 5, 0)))
        popen.stdin.flush()
        assert os.read(reports, 4), "it is ready"
        popen.stdin.close()  # as when its director was killed
        assert popen.wait(20) == 0
        while os.read(reports, 65_536):
            pass  # until the end of the pipe


def test_it_says_why_it_cannot_go_on() -> None:
    with process() as (popen, _):
        _, complaint = popen.communicate(b"\x00\x00\x00\x01\xc1", timeout=20)
        assert popen.returncode == 1
        assert complaint.startswith(b"orders cannot be read: ")
        assert complaint.count(b"\n") == 1


def test_it_takes_the_files_that_the_system_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise ValueError("not allowed to raise maximum limit")  # macOS, for more than it has

    async def nothing(_: int) -> None:
        pass

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr("resource.getrlimit", lambda _: (256, resource.RLIM_INFINITY))
    monkeypatch.setattr("resource.setrlimit", refuse)
    monkeypatch.setattr(worker, "_run", nothing)
    try:
        worker.main(0)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
