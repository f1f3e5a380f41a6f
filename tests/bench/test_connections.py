"""The benchmark of connections, small."""

from __future__ import annotations

import os
import resource
import sys

import pytest

from mynah.bench import connections as module
from mynah.bench.connections import LIMITS, Sizes, _carrying, _coming_back, _idle, _talking, fitting, usage
from mynah.bench.idlers import Idlers, Order
from mynah.bench.server import ServerUnderTest
from mynah.errors import MynahError

SMALL = Sizes(
    idle=40, rate=200.0, rest_s=0.3, rounds=2, returning=20, talkers=2, storm_s=1.0, some=10
)  # fmt: skip


@pytest.mark.e2e
@pytest.mark.skipif(sys.platform != "linux", reason="memory and CPU of a process are read from /proc")
def test_everything_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SETTLE_S", 0.2)
    monkeypatch.setattr(module, "_ASK_S", 0.2)
    with ServerUnderTest(*LIMITS) as server:
        measured = list(_carrying(server, SMALL))
        with Idlers(server.url()) as devices:
            measured += _idle(server.pid, devices, SMALL)
        with Idlers(server.url()) as devices:
            measured += _coming_back(server.pid, devices, SMALL)
    measured += _talking(True, SMALL)
    results = {result.case: result for result in measured}
    assert len(results) == len(measured) == 13
    assert results["at rest, round trip of a ping"].count > 5
    assert results["from connecting to the hello, at that rate"].count == 200
    assert results["connect and hello, server's CPU"].best >= 0
    assert "2 answers of" in results["frames late, 200 others connect a second"].note
    assert results["latest frame, 200 others connect a second"].best >= 0


def test_a_process_that_is_not_there_is_told() -> None:
    with pytest.raises(MynahError, match="cannot be read"):
        usage(2**22 + 1)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_usage_is_that_of_the_process() -> None:
    before = usage(os.getpid())
    assert before.cpu_s > 0
    assert 10_000 < before.resident_kb < 10_000_000
    block = bytearray(64 << 20)
    block[::4096] = bytes(len(block[::4096]))
    assert usage(os.getpid()).resident_kb - before.resident_kb > 50_000


def test_no_more_than_the_limit_of_files_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.resource, "getrlimit", lambda _: (1024, 4096))
    assert fitting(100) == 100
    assert 2500 < fitting(20_000) < 4096
    monkeypatch.setattr(module.resource, "getrlimit", lambda _: (1024, resource.RLIM_INFINITY))
    assert fitting(20_000) == 20_000


def test_devices_without_a_server_are_counted_as_failed() -> None:
    with Idlers("ws://127.0.0.1:9/xiaozhi/v1/") as devices:
        outcome = devices.tell(Order("connect", count=3))
    assert outcome.failed == 3
    assert outcome.ms == []
