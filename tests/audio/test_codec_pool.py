"""The threads that encode: order, batches, effort, and their end."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable

import pytest

from mynah import resources
from mynah.audio.codec_pool import (
    BACKLOG,
    BEAT_S,
    CALM_WINDOWS,
    FULL_BELOW,
    LIGHT_ABOVE,
    LIGHT_WAIT_S,
    URGENT_S,
    CodecThreads,
    _Load,
)
from mynah.audio.opus import Effort


class Job:
    def __init__(self, name: str, log: list[str], work: Callable[[], object] = lambda: None) -> None:
        self.name, self._log, self._work = name, log, work
        self.finished = asyncio.get_running_loop().create_future()

    def work(self) -> None:
        self._log.append(self.name)
        self._work()

    def done(self) -> None:
        self.finished.set_result(None)


async def _blocked(pool: CodecThreads, log: list[str]) -> threading.Event:
    """Keep the only thread busy until the event is set."""
    gate, begun = threading.Event(), threading.Event()

    def block() -> None:
        begun.set()
        gate.wait(10)

    pool.submit(Job("block", log, block), asyncio.get_running_loop().time())
    await asyncio.to_thread(begun.wait, 10)
    return gate


async def test_the_most_urgent_goes_first_and_equals_in_order() -> None:
    pool, log = CodecThreads(1), []
    pool.start()
    now = asyncio.get_running_loop().time()
    gate = await _blocked(pool, log)
    jobs = [
        Job(name, log)
        for name in ("much later", "later", "soon", "first of one", "first of another", "missed")
    ]
    for job, due in zip(jobs, (now + 9, now + 5, now + 0.05, now - 1, now - 1, now - 3), strict=True):
        pool.submit(job, due)
    await asyncio.sleep(2 * BEAT_S)  # those that have time are handed over by then
    gate.set()
    await asyncio.gather(*(job.finished for job in jobs))
    pool.stop()
    assert log == ["block", "missed", "first of one", "first of another", "soon", "later", "much later"]
    assert pool.stats.jobs == 7


async def test_results_come_together_when_the_loop_is_busy() -> None:
    pool, log = CodecThreads(2), []
    pool.start()
    now = asyncio.get_running_loop().time()
    jobs = [Job(str(number), log) for number in range(10)]
    for job in jobs:
        pool.submit(job, now)
    deadline = time.monotonic() + 10
    while len(log) < 10 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    await asyncio.gather(*(job.finished for job in jobs))
    pool.stop()
    assert pool.stats.batches == 1


async def test_what_has_time_is_done_at_the_beat() -> None:
    pool, log = CodecThreads(2), []
    pool.start()
    loop = asyncio.get_running_loop()
    jobs = [Job(str(number), log) for number in range(20)]
    for job in jobs:
        pool.submit(job, loop.time() + URGENT_S + 1)
    assert log == []
    begin = loop.time()
    await asyncio.gather(*(job.finished for job in jobs))
    assert loop.time() - begin > BEAT_S
    again = Job("again", log)
    pool.submit(again, loop.time() + 5)
    await asyncio.wait_for(again.finished, 10)
    pool.stop()
    assert pool.stats.batches <= 10


async def test_the_age_of_the_queue_is_that_of_what_is_late() -> None:
    pool, log = CodecThreads(1), []
    pool.start()
    now = asyncio.get_running_loop().time()
    gate = await _blocked(pool, log)
    assert pool.queue_age_s == 0
    early = Job("early", log)
    pool.submit(early, now + 60)
    await asyncio.sleep(0.1)
    assert pool.queue_age_s == 0, "it may wait"
    first = Job("first", log)
    pool.submit(first, now - 1)
    await asyncio.sleep(0.1)
    assert 0.05 <= pool.queue_age_s < 10
    assert pool.waiting == 2
    gate.set()
    await asyncio.gather(early.finished, first.finished)
    assert pool.queue_age_s == 0
    assert pool.stats.late_jobs >= 1
    assert pool.stats.worst_wait_s >= 0.05
    pool.stop()


async def test_stopping_drops_what_waits_and_ends_the_threads() -> None:
    before = threading.active_count()
    pool, log = CodecThreads(2), []
    pool.stop()
    pool = CodecThreads(2)
    pool.start()
    assert threading.active_count() == before + 2
    later = Job("later", log)
    pool.submit(later, asyncio.get_running_loop().time() + 60)
    pool.stop()
    pool.stop()
    pool.submit(later, 0)
    await asyncio.sleep(3 * BEAT_S)
    assert log == []
    assert threading.active_count() == before


async def test_a_job_that_breaks_its_thread_harms_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[object] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: told.append(args.exc_type))

    def broken() -> None:
        raise ZeroDivisionError

    pool, log = CodecThreads(1), []
    pool.start()
    for number in range(3):
        (thread,) = pool._workers
        bad, good = Job(f"bad {number}", log, broken), Job(f"good {number}", log)
        for job in (bad, good):
            pool.submit(job, 0)
        await asyncio.wait_for(asyncio.gather(bad.finished, good.finished), 10)
        await asyncio.to_thread(thread.join, 10)
    pool.stop()
    assert told == [ZeroDivisionError] * 3


async def test_it_hurries_while_much_is_waiting() -> None:
    pool, log = CodecThreads(1), []
    pool.start()
    gate = await _blocked(pool, log)
    jobs = [Job(str(number), log) for number in range(BACKLOG + 1)]
    for job in jobs[1:]:
        pool.submit(job, 0)
    assert not pool.hurried
    pool.submit(jobs[0], 0)
    assert pool.hurried
    gate.set()
    await asyncio.gather(*(job.finished for job in jobs))
    assert not pool.hurried
    pool.stop()


def test_there_must_be_a_thread() -> None:
    with pytest.raises(ValueError, match="thread"):
        CodecThreads(0)


def _windows(load: _Load, shares: list[float], cores: int) -> list[Effort]:
    """Return the effort after each second with so much of the machine's time spent."""
    busy, efforts = 0.0, []
    load.effort(100.0, busy)
    for second, share in enumerate(shares, start=1):
        busy += share * cores
        efforts.append(load.effort(100.0 + second, busy))
    return efforts


def test_much_to_do_makes_the_effort_light_and_only_calm_makes_it_full_again() -> None:
    between = (LIGHT_ABOVE + FULL_BELOW) / 2
    shares = [0.01, between, LIGHT_ABOVE * 1.1, between, *[FULL_BELOW / 2] * CALM_WINDOWS]
    light, full = Effort.LIGHT, Effort.FULL
    expected = [full, full, light, light, *[light] * (CALM_WINDOWS - 1), full]
    assert _windows(_Load(4), shares, 4) == expected


def test_its_share_is_one_of_the_cores_that_a_quota_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    """So a container that may use one core of many goes light as soon as a machine of one."""
    monkeypatch.setattr(resources, "limits", lambda: resources.Limits(cores=1.0))
    assert _windows(CodecThreads(1)._load, [LIGHT_ABOVE * 1.1], 1) == [Effort.LIGHT]


def test_going_light_is_no_reason_to_go_back() -> None:
    """Light costs 0.4 of full, so what made it light leaves the share between the bounds."""
    assert LIGHT_ABOVE * 0.4 > FULL_BELOW


def test_a_wait_makes_it_light_at_once() -> None:
    load = _Load(2)
    assert load.effort(0.0, 0.0) is Effort.FULL
    load.waited(LIGHT_WAIT_S / 2)
    assert load.effort(0.1, 0.0) is Effort.FULL
    load.waited(LIGHT_WAIT_S * 2)
    assert load.effort(0.2, 0.0) is Effort.LIGHT
    assert [load.effort(1.2 + n, 0.0) for n in range(CALM_WINDOWS)] == [Effort.LIGHT] * CALM_WINDOWS
    assert load.effort(1.2 + CALM_WINDOWS, 0.0) is Effort.FULL


def test_silence_is_calm() -> None:
    load = _Load(2)
    load.effort(0.0, 0.0)
    assert load.effort(1.0, 1.0) is Effort.LIGHT
    assert load.effort(1.0 + CALM_WINDOWS, 1.0) is Effort.FULL
