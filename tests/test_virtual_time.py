from __future__ import annotations

import asyncio
import time

import pytest

from tests.virtual_time import (
    START,
    DeadlockError,
    InlineExecutor,
    VirtualRunner,
    elapsed,
    run,
    settle,
    virtual,
)


def test_an_hour_takes_no_time() -> None:
    begin = time.monotonic()
    assert run(elapsed(asyncio.sleep(3600))) == pytest.approx(3600)
    assert time.monotonic() - begin < 60


@virtual
async def test_handles_run_in_order_of_their_time() -> None:
    loop = asyncio.get_running_loop()
    assert loop.time() == START
    seen: list[tuple[str, float]] = []
    loop.call_later(0.2, lambda: seen.append(("late", loop.time() - START)))
    loop.call_later(0.1, lambda: seen.append(("early", loop.time() - START)))
    await asyncio.sleep(0.3)
    assert seen == [("early", pytest.approx(0.1)), ("late", pytest.approx(0.2))]


@virtual
async def test_timeouts_and_task_groups_work() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(5):
            await asyncio.sleep(10)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(elapsed(asyncio.sleep(n))) for n in range(3)]
    assert [task.result() for task in tasks] == [pytest.approx(n) for n in range(3)]


def test_a_deadlock_is_reported_with_the_waiting_task() -> None:
    async def waits_for_ever() -> None:
        await asyncio.Event().wait()

    with pytest.raises(DeadlockError, match="waits_for_ever"):
        run(waits_for_ever())


def test_several_runs_share_one_clock() -> None:
    with VirtualRunner() as runner:
        runner.run(asyncio.sleep(1))
        runner.run(asyncio.sleep(1))
        assert runner.loop.time() == pytest.approx(START + 2)


@virtual
async def test_inline_executor_serves_run_in_executor() -> None:
    executor = InlineExecutor()
    loop = asyncio.get_running_loop()
    assert await loop.run_in_executor(executor, sum, (1, 2)) == 3
    with pytest.raises(ZeroDivisionError):
        await loop.run_in_executor(executor, lambda: 1 / 0)
    assert executor.submitted == 2


@virtual
async def test_settle_does_not_move_the_clock() -> None:
    loop = asyncio.get_running_loop()
    hops: list[int] = []

    async def hop(n: int) -> None:
        hops.append(n)
        if n:
            await asyncio.create_task(hop(n - 1))

    task = asyncio.create_task(hop(10))
    await settle()
    assert task.done()
    assert len(hops) == 11
    assert loop.time() == START
