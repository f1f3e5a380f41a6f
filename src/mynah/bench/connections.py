"""What thousands of connections cost the server: memory, coming, waiting, going, and whoever talks meanwhile.

The server is a process of its own, the devices are another one on the same machine, see `mynah.bench.idlers`.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from mynah.bench.idlers import Idlers, Order, Outcome
from mynah.bench.report import Result, distribution
from mynah.bench.server import ServerUnderTest
from mynah.errors import MynahError
from mynah.net.descriptors import room

BENCH: Final = "connections"
LIMITS: Final = ("server.limits.max_connections=25000", "close_connection_no_voice_time=3600")
"""Nobody is refused, and nobody is sent away because he says nothing."""
_RESERVE: Final = 0.97
"""Of the connections that fit: the server keeps two in a hundred for telling others that it is full."""
_PINGS: Final = 100.0
"""A second, over one connection."""
_ASK_S: Final = 1.0
"""Within so long all talkers ask: people do not begin in the same instant."""
_SETTLE_S: Final = 1.5
"""After many have come or gone: replaced connections are cut after a second."""


class Sizes(msgspec.Struct, frozen=True):
    """How much is measured."""

    idle: int = 20_000
    rate: float = 1000.0
    """Connections a second where a rate is kept."""
    rest_s: float = 10.0
    rounds: int = 10
    """How often ``returning`` devices come back."""
    returning: int = 1000
    talkers: int = 40
    storm_s: float = 5.0
    """With the time for asking as long as an answer."""
    some: int = 1000
    """Devices with tools, or with a large message."""


class Usage(msgspec.Struct, frozen=True):
    """What a process has used."""

    cpu_s: float
    resident_kb: float


def connections(sizes: Sizes = Sizes()) -> Iterator[Result]:  # noqa: B008 - frozen
    """Measure with idle devices, with talkers while others come, with devices that come back, and with tools."""
    with ServerUnderTest(*LIMITS) as server, Idlers(server.url()) as devices:
        yield from _idle(server.pid, devices, sizes)
    with ServerUnderTest(*LIMITS) as server, Idlers(server.url()) as devices:
        yield from _coming_back(server.pid, devices, sizes)
    yield from _talking(False, sizes)
    yield from _talking(True, sizes)
    with ServerUnderTest(*LIMITS) as server:
        yield from _carrying(server, sizes)


def fitting(wanted: int) -> int:
    """Return how many of ``wanted`` devices the limit of open files lets the server have here."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return wanted if hard == resource.RLIM_INFINITY else min(wanted, int(room(hard) * _RESERVE))


def usage(pid: int) -> Usage:
    """Return what a process has used so far. Raises MynahError where the system does not tell."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    except OSError as error:
        raise MynahError(f"memory and CPU of a process cannot be read here: {error}") from None
    ticks = int(fields[11]) + int(fields[12])
    return Usage(ticks / os.sysconf("SC_CLK_TCK"), pages * os.sysconf("SC_PAGE_SIZE") / 1024)


def _idle(pid: int, devices: Idlers, sizes: Sizes) -> Iterator[Result]:
    count = fitting(sizes.idle)
    note = f"{count} devices have said hello and wait"
    devices.tell(Order("connect", first=count, count=50))  # what is made once is made for these
    before = usage(pid)
    came = _all(devices.tell(Order("connect", count=count)), count)
    _pause(devices)
    here = usage(pid)
    yield _one("memory, idle", "KB/device", (here.resident_kb - before.resident_kb) / count, note)
    yield _one("connect and hello, server's CPU", "µs", (here.cpu_s - before.cpu_s) / count * 1e6)
    yield _one("connect and hello, as fast as it goes", "1/s", count / came.seconds)
    before = usage(pid)
    rest = devices.tell(Order("rest", seconds=sizes.rest_s))
    used = usage(pid).cpu_s - before.cpu_s
    yield _one("at rest, server's CPU", "% of a core", used / rest.seconds * 100, note)
    rest = devices.tell(Order("rest", seconds=sizes.rest_s, rate=_PINGS))
    yield distribution(BENCH, "at rest, round trip of a ping", "ms", rest.ms)
    before = usage(pid)
    _all(devices.tell(Order("drop", count=count)), 0)
    gone = devices.tell(Order("rest", seconds=2 * _SETTLE_S, rate=_PINGS))
    yield _one("all go at once, server's CPU", "µs", (usage(pid).cpu_s - before.cpu_s) / count * 1e6)
    yield _one("all go at once, longest wait of the others", "ms", max(gone.ms))


def _talking(newcomers: bool, sizes: Sizes) -> Iterator[Result]:
    """How punctually the frames of answers leave, by the server's own count, while others connect or do not."""
    case = f"{sizes.rate:.0f} others connect a second" if newcomers else "nobody else"
    count = int(sizes.rate * sizes.storm_s)
    with ServerUnderTest(*LIMITS) as server, Idlers(server.url()) as devices:
        devices.tell(Order("connect", count=sizes.talkers))
        devices.tell(Order("ask", count=sizes.talkers, seconds=_ASK_S))
        if newcomers:
            came = devices.tell(Order("connect", first=sizes.talkers, count=count, rate=sizes.rate))
            yield distribution(
                BENCH, "from connecting to the hello, at that rate", "ms", _all(came, count).ms
            )
        else:
            devices.tell(Order("rest", seconds=sizes.storm_s))
        _pause(devices)
        report = server.stop()
    if not report.frames:
        raise MynahError("no answer was heard: try `mynah serve -c benchmarks/fakes.yaml`")
    note = f"{sizes.talkers} answers of {report.frames // sizes.talkers} frames"
    yield _one(f"frames late, {case}", "%", report.late_frames / report.frames * 100, note)
    yield _one(f"latest frame, {case}", "ms", report.worst_late_ms, note)


def _coming_back(pid: int, devices: Idlers, sizes: Sizes) -> Iterator[Result]:
    count = sizes.returning
    _all(devices.tell(Order("connect", count=count)), count)
    _pause(devices)
    before = usage(pid)
    for _ in range(sizes.rounds):
        _all(devices.tell(Order("connect", count=count, rate=sizes.rate)), count)
    _pause(devices)
    grown = usage(pid).resident_kb / before.resident_kb - 1
    yield _one(f"memory after {sizes.rounds * count} came back", "% more", grown * 100)


def _carrying(server: ServerUnderTest, sizes: Sizes) -> Iterator[Result]:
    """What devices leave that say more than hello. The second ones come while the first are there."""
    count = sizes.some
    with Idlers(server.url(), tools=True) as first, Idlers(server.url()) as second:
        first.tell(Order("connect", first=count, count=50))
        _pause(first)
        before = usage(server.pid).resident_kb
        _all(first.tell(Order("connect", count=count)), count)
        _pause(first)
        kept = (usage(server.pid).resident_kb - before) / count
        yield _one("memory, idle, with four tools of its own", "KB/device", kept)
        _all(second.tell(Order("connect", first=2 * count, count=count)), count)
        _pause(second)
        before = usage(server.pid).resident_kb
        second.tell(Order("send", count=count, size=8000))
        _pause(second)
        kept = (usage(server.pid).resident_kb - before) / count
        yield _one("memory, what a message of 8 KB leaves", "KB/device", kept)


def _pause(devices: Idlers) -> None:
    """Let what has begun come to its end; answers are read meanwhile."""
    devices.tell(Order("rest", seconds=_SETTLE_S))


def _all(outcome: Outcome, wanted: int) -> Outcome:
    """Return the outcome if all devices were served. Raises MynahError."""
    if outcome.failed or len(outcome.ms) < wanted:
        served = len(outcome.ms)
        raise MynahError(
            f"{outcome.failed} devices were cut off or refused, {served} of {wanted} were served"
        )
    return outcome


def _one(case: str, unit: str, value: float, note: str = "") -> Result:
    return distribution(BENCH, case, unit, [value], note)
