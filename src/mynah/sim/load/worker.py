"""One process of a load test: takes orders on its standard input, and says twice a second what its devices saw.

It ends with the director, in whatever way that ends: then its orders are over. Both directions carry messages of
msgpack, each after its length as 32 bits.
"""

from __future__ import annotations

import asyncio
import os
import signal
import struct
import sys
from typing import Final

import msgspec
import uvloop

from mynah.errors import WireError
from mynah.resources import raise_descriptor_limit
from mynah.sim.load.crowd import Crowd
from mynah.sim.load.dial import Dialer, Plan
from mynah.sim.load.stock import Recording
from mynah.sim.load.tally import Tally

REPORT_S: Final = 0.5
"""How often it says what its devices saw."""

MAX_MESSAGE_BYTES: Final = 64 * 1024 * 1024
"""Of one message: a stock of recordings has some hundred kB. More than this is no message of ours."""

MAX_UNREAD_BYTES: Final = 1024 * 1024
"""Reports that the director has not read. Overflow policy: those in between are left out, as the next says it all."""

PROGRAM: Final = "import sys; from mynah.sim.load import worker; worker.main(int(sys.argv[1]))"
"""For ``python -c``, with the number of the pipe for reports."""

_LENGTH: Final = struct.Struct(">I")


class Begin(msgspec.Struct, frozen=True, tag=True):
    """First order."""

    plan: Plan
    stock: list[Recording]


class Ramp(msgspec.Struct, frozen=True, tag=True):
    """A step begins: so many devices of this process in all, so many of whom talk."""

    step: int
    devices: int
    talkers: int


class Hold(msgspec.Struct, frozen=True, tag=True):
    """The measurement proper begins."""


class Settle(msgspec.Struct, frozen=True, tag=True):
    """The step is over: say once more what was seen."""


class Leave(msgspec.Struct, frozen=True, tag=True):
    """Hang up everywhere and end."""


Order = Begin | Ramp | Hold | Settle | Leave


class Report(msgspec.Struct, frozen=True):
    """What the devices of a process saw. The first one says that it is ready."""

    tally: Tally
    settled: bool = False
    """Answers `Settle`."""


def encode(message: Order | Report) -> bytes:
    """Return a message as it goes through the pipe."""
    body = msgspec.msgpack.encode(message)
    return _LENGTH.pack(len(body)) + body


async def read_message(stream: asyncio.StreamReader) -> bytes | None:
    """Return the body of the next message, None at the end. Raises WireError for what is no message of ours."""
    try:
        (length,) = _LENGTH.unpack(await stream.readexactly(_LENGTH.size))
        if length > MAX_MESSAGE_BYTES:
            raise WireError(f"a message of {length} bytes is none of ours")
        return await stream.readexactly(length)
    except (asyncio.IncompleteReadError, ConnectionError):
        return None


class _Reports:
    """The way back to the director."""

    def __init__(self, transport: asyncio.WriteTransport) -> None:
        self._transport = transport

    def send(self, report: Report) -> None:
        """Send a report; one that only says how it goes is left out when the director does not read."""
        if report.settled or self._transport.get_write_buffer_size() < MAX_UNREAD_BYTES:
            self._transport.write(encode(report))


async def _reader(descriptor: int) -> asyncio.StreamReader:
    stream = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(stream), os.fdopen(descriptor, "rb", buffering=0)
    )
    return stream


async def _run(report_descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    orders = await _reader(0)
    transport, _ = await loop.connect_write_pipe(
        asyncio.BaseProtocol, os.fdopen(report_descriptor, "wb", buffering=0)
    )
    reports = _Reports(transport)
    decoder = msgspec.msgpack.Decoder(Order)
    crowd: Crowd | None = None
    reporting: asyncio.TimerHandle | None = None

    def report() -> None:
        nonlocal reporting
        if crowd is not None:
            reports.send(Report(crowd.look()))
            crowd.tally.worst_lag_ms = 0.0
        reporting = loop.call_later(REPORT_S, report)

    try:
        while (body := await read_message(orders)) is not None:
            order = decoder.decode(body)
            if isinstance(order, Begin):
                crowd = Crowd(order.plan, order.stock, Dialer(order.plan))
                report()
            elif crowd is None or isinstance(order, Leave):
                return
            else:
                _obey(order, crowd, reports)
    finally:
        if reporting is not None:
            reporting.cancel()
        if crowd is not None:
            await crowd.close()
        transport.close()


def _obey(order: Ramp | Hold | Settle, crowd: Crowd, reports: _Reports) -> None:
    match order:
        case Ramp():
            crowd.ramp(order.step, order.devices, order.talkers)
        case Hold():
            crowd.hold()
        case Settle():
            reports.send(Report(crowd.settle(), settled=True))


def main(report_descriptor: int) -> None:
    """Be the process. It takes as many file descriptors as the system lets it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the director, which then tells us
    raise_descriptor_limit()
    try:
        uvloop.run(_run(report_descriptor))
    except (WireError, msgspec.DecodeError) as error:
        sys.exit(f"orders cannot be read: {error}")
