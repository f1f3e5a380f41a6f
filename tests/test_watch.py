"""What the watch sees of the process, and what it says."""

from __future__ import annotations

import asyncio
import time

import pytest
from loguru import logger

from mynah import watch as module
from mynah.dialogue.admission import Admission, Level, Signal, Thresholds
from mynah.watch import LOG_S, UPKEEP_EVERY, Watch, give_memory_back, resident_bytes
from tests.virtual_time import virtual

GIB = 1 << 30


class Queue:
    """A queue of which the test says how old it is."""

    def __init__(self, age_s: float = 0.0) -> None:
        self.queue_age_s = age_s


def watching(admission: Admission | None = None, **options: object) -> Watch:
    made = admission or Admission(Thresholds(always=0))
    options.setdefault("clock", asyncio.get_running_loop().time)
    return Watch(made, **options)  # type: ignore[arg-type]


@pytest.fixture
def lines() -> object:
    kept: list[str] = []
    number = logger.add(lambda message: kept.append(message.record["message"]), level="INFO")
    yield kept
    logger.remove(number)


# ---------------------------------------------------------------- on virtual time


@virtual
async def test_old_entries_in_a_queue_make_it_full_and_it_recovers() -> None:
    encoding, hearing, levels = Queue(), Queue(), list[Level]()
    watch = watching(encoding=encoding, hearing=hearing, on_level=levels.append)
    watch.start()
    await asyncio.sleep(2)
    assert watch.level is Level.NORMAL
    hearing.queue_age_s = 1.0
    await asyncio.sleep(1)
    assert levels == [Level.TENSE, Level.FULL]
    assert watch.signals.hearing_s == 1.0
    hearing.queue_age_s = 0.0
    await asyncio.sleep(15)
    assert levels == [Level.TENSE, Level.FULL, Level.TENSE, Level.NORMAL]
    encoding.queue_age_s = 1.0
    await asyncio.sleep(1)
    assert watch.level is Level.FULL
    watch.stop()
    watch.stop()


@virtual
async def test_what_is_not_there_does_not_count() -> None:
    watch = watching()
    watch.start()
    await asyncio.sleep(1)
    assert (watch.signals.encoding_s, watch.signals.hearing_s) == (0.0, 0.0)
    watch.stop()


@virtual
async def test_memory_counts_against_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    used = resident_bytes()
    if not used:
        pytest.skip("this system does not tell")
    monkeypatch.setattr(asyncio.get_running_loop(), "run_in_executor", lambda *_: None)
    watch = watching(memory_limit=used // 2)
    watch.start()
    await asyncio.sleep(2)
    assert watch.level is Level.FULL
    assert watch.memory > used // 2
    assert f"of {used // 2 >> 20} MB" in watch.describe()
    watch.stop()


@virtual
async def test_the_log_follows_but_does_not_chatter(lines: list[str]) -> None:
    queue = Queue(1.0)
    watch = watching(encoding=queue)
    watch.start()
    await asyncio.sleep(1)
    assert [line.split(":")[0] for line in lines] == ["load tense (encoding)"]
    assert "What to do: encoding takes too long" in lines[0]
    await asyncio.sleep(LOG_S)
    assert lines[1].startswith("load full (encoding)")
    queue.queue_age_s = 0.0
    await asyncio.sleep(6 * LOG_S)
    assert lines[-1].startswith("load normal:")
    assert len(lines) <= 5
    watch.stop()


@virtual
async def test_those_turned_away_are_told_together(lines: list[str]) -> None:
    admission = Admission(Thresholds(always=0))
    watch = watching(admission)
    watch.start()
    for _ in range(100):
        admission.busy_total += 1
        await asyncio.sleep(0.2)
    assert 2 <= len(lines) <= 4
    await asyncio.sleep(2 * LOG_S)
    told = [int(line.split(" ")[0]) for line in lines]
    assert sum(told) == 100
    watch.stop()


@virtual
async def test_upkeep_comes_once_a_minute() -> None:
    calls: list[float] = []
    loop = asyncio.get_running_loop()
    watch = watching(upkeep=lambda: calls.append(loop.time()))
    watch.start()
    await asyncio.sleep(UPKEEP_EVERY * module.SAMPLE_S * 3 + 1)
    assert len(calls) == 3
    watch.stop()


@virtual
async def test_memory_is_given_back_while_there_is_too_little(monkeypatch: pytest.MonkeyPatch) -> None:
    used, calls = resident_bytes(), list[int]()
    if not used:
        pytest.skip("this system does not tell")
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(module, "give_memory_back", lambda: calls.append(1))
    monkeypatch.setattr(loop, "run_in_executor", lambda _, work: work())
    watch = watching(memory_limit=used // 2)
    watch.start()
    await asyncio.sleep(3 * module.TRIM_S - 1)
    assert watch._admission.cause is Signal.MEMORY
    assert len(calls) == 3
    watch.stop()


# ---------------------------------------------------------------- on real time


async def test_a_blocked_loop_is_seen_and_one_block_is_no_overload() -> None:
    watch = Watch(Admission(Thresholds(always=0)))
    watch.start()
    await asyncio.sleep(0.25)
    time.sleep(0.5)  # a long collection of garbage, or a plugin that blocks
    await asyncio.sleep(0.05)
    assert watch.lag_s > 0.3
    assert watch.level is not Level.FULL
    watch.stop()
    seen = watch.signals
    await asyncio.sleep(0.25)
    assert watch.signals is seen, "it was stopped"


async def test_a_loop_that_is_late_all_the_time_is_full() -> None:
    watch = Watch(Admission(Thresholds(always=0)))
    watch.start()
    async with asyncio.timeout(30):
        while watch.level is not Level.FULL:
            time.sleep(0.25)
            await asyncio.sleep(0)
    assert watch._admission.cause is Signal.LOOP
    watch.stop()


def test_giving_memory_back_harms_nobody() -> None:
    give_memory_back()
