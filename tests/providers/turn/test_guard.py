"""A turn detector may do what it wants: the turn goes on in time."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from mynah.errors import (
    MynahError,
    ProviderProtocolError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    ToolError,
)
from mynah.providers import registry
from mynah.providers.base import Kind, TurnDetectorOptions, TurnDetectorProvider
from mynah.providers.turn import guard
from mynah.providers.turn.guard import REPORT_PAUSE_S, TIMEOUT_S, GuardedTurnDetector
from tests.virtual_time import virtual


class Foreign(TurnDetectorProvider[TurnDetectorOptions]):
    """Does with a question what ``act`` does."""

    def __init__(self, act: Callable[[], Awaitable[Any]]) -> None:
        super().__init__("odd", TurnDetectorOptions(type="foreign"))
        self.act = act

    async def probability(self, pcm: bytes) -> float:
        result: float = await self.act()
        return result


def fake(**options: Any) -> Any:
    return registry.create(Kind.TURN_DETECTOR, "Fake", {"type": "fake", **options})


def guarded(inner: TurnDetectorProvider[Any]) -> tuple[GuardedTurnDetector, list[MynahError]]:
    reports: list[MynahError] = []
    return GuardedTurnDetector(inner, reports.append), reports


@virtual
async def test_a_good_detector_is_passed_through() -> None:
    detector, reports = guarded(fake(probability=0.8, threshold=0.6, delay_ms=40))
    clock = asyncio.get_running_loop().time
    await detector.start()
    started = clock()
    assert await detector.judge(bytes(640)) == 0.8
    assert clock() - started == pytest.approx(0.04)
    assert (detector.name, detector.threshold) == ("Fake", 0.6)
    assert reports == []
    await detector.stop()


@pytest.mark.parametrize("options", [{"hang": True}, {"delay_ms": 151}])
@virtual
async def test_a_slow_one_is_not_waited_for(options: dict[str, Any]) -> None:
    detector, reports = guarded(fake(**options))
    clock = asyncio.get_running_loop().time
    started = clock()
    assert await detector.judge(b"") is None
    assert clock() - started == pytest.approx(TIMEOUT_S)
    assert [type(error) for error in reports] == [ProviderTimeoutError]


async def raises(error: BaseException) -> Any:
    raise error


async def gives(value: Any) -> Any:
    return value


@pytest.mark.parametrize(
    ("act", "told"),
    [
        (lambda: raises(KeyError("a plug-in's bug")), "KeyError"),
        (lambda: raises(ProviderUnavailableError("too many")), "too many"),
        (lambda: raises(ToolError("of another room")), "of another room"),
        (lambda: raises(asyncio.CancelledError()), "gave up"),
        (lambda: raises(TimeoutError()), "150 ms"),
        (lambda: gives(1.5), "1.5"),
        (lambda: gives(-0.1), "-0.1"),
        (lambda: gives(math.nan), "nan"),
        (lambda: gives(math.inf), "inf"),
        (lambda: gives(None), "TypeError"),
        (lambda: gives("often"), "ValueError"),
    ],
)
async def test_whatever_goes_wrong_is_no_answer(act: Callable[[], Awaitable[Any]], told: str) -> None:
    detector, reports = guarded(Foreign(act))
    assert await detector.judge(bytes(640)) is None
    assert len(reports) == 1
    assert told in str(reports[0])


async def test_what_is_no_probability_names_the_detector() -> None:
    detector, reports = guarded(Foreign(lambda: gives(2)))
    await detector.judge(b"")
    (error,) = reports
    assert isinstance(error, ProviderProtocolError)
    assert error.provider == "odd"


@pytest.mark.parametrize("edge", [0, 1, 0.0, 1.0])
async def test_the_extremes_are_answers(edge: float) -> None:
    detector, reports = guarded(Foreign(lambda: gives(edge)))
    assert await detector.judge(b"") == edge
    assert not reports


@virtual
async def test_a_turn_that_ends_takes_its_question_along() -> None:
    detector, reports = guarded(fake(hang=True))
    task = asyncio.create_task(detector.judge(b""))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert reports == []


async def test_faults_are_reported_once_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 500.0
    monkeypatch.setattr(guard.time, "monotonic", lambda: now)
    detector, reports = guarded(fake(error_rate=1, delay_ms=0))
    for _ in range(10):
        assert await detector.judge(b"") is None
    assert len(reports) == 1
    now += REPORT_PAUSE_S
    await detector.judge(b"")
    assert len(reports) == 2


@virtual
async def test_the_fake_fails_as_often_as_it_was_told() -> None:
    detector = fake(error_rate=0.5, seed=1, delay_ms=10)
    outcomes = await asyncio.gather(*(detector.probability(b"") for _ in range(100)), return_exceptions=True)
    failed = sum(isinstance(outcome, ProviderUnavailableError) for outcome in outcomes)
    assert 30 < failed < 70
    assert outcomes.count(0.9) == 100 - failed
