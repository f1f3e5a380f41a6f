import msgspec
import pytest

from mynah.sim.load.derived import (
    best_step,
    cpu_per_talker_minute,
    first_audio_limit_ms,
    first_audio_reference,
    memory_per_device,
    summed,
    thresholds,
)
from mynah.sim.load.record import Distribution, LoadReport, Stage, Step, Usage
from mynah.sim.load.scenario import Thresholds
from tests.sim.load.reports import idle, mixed


def test_the_best_step_is_the_largest_that_passed() -> None:
    report = mixed()
    best = best_step(report)
    assert best is not None
    assert best.devices == 2000
    assert best_step(LoadReport()) is None


def test_memory_per_device_is_growth() -> None:
    step = Step(number=1, devices=10, connected=10, server=Usage(resident=3_000_000))
    assert memory_per_device(step, Usage(resident=1_000_000)) == 200_000
    assert memory_per_device(step, Usage(resident=9_000_000)) == 0
    assert memory_per_device(step, None) is None
    assert memory_per_device(msgspec.structs.replace(step, connected=0), Usage()) is None
    assert memory_per_device(msgspec.structs.replace(step, server=None), Usage()) is None


def test_cpu_per_talker_minute() -> None:
    step = Step(number=1, devices=400, talkers=400, connected=400, server=Usage(cpu=0.8))
    assert cpu_per_talker_minute(step) == pytest.approx(0.12)
    assert cpu_per_talker_minute(msgspec.structs.replace(step, talkers=0)) is None


def test_cpu_is_shared_among_the_talkers_that_were_there() -> None:
    step = Step(number=1, devices=400, talkers=400, connected=200, server=Usage(cpu=0.8), busy=20)
    assert cpu_per_talker_minute(step) == pytest.approx(0.24)
    assert cpu_per_talker_minute(msgspec.structs.replace(step, lost=1)) is None, "beyond 5 %"
    assert cpu_per_talker_minute(msgspec.structs.replace(step, connected=0)) is None


def test_the_first_audio_is_compared_with_a_step_that_has_measured_enough() -> None:
    def step(number: int, count: int, talkers: int = 1) -> Step:
        times = {Stage.FIRST_AUDIO: Distribution(count=count, p95=100.0 * number)}
        return Step(number=number, devices=10, talkers=talkers, times=times)

    idle_step = step(1, 0, 0)
    few, enough = step(2, 4), step(3, 5)
    assert first_audio_reference([idle_step, few, enough, step(4, 50)]) is enough
    assert first_audio_reference([idle_step, few]) is few
    assert first_audio_reference([idle_step]) is None
    assert first_audio_limit_ms(LoadReport(steps=[few, enough], scenario=mixed().scenario)) == 600


def test_thresholds_of_a_scenario_that_is_not_understood_ask_for_nothing() -> None:
    assert thresholds(mixed()) == Thresholds()
    asked = thresholds(LoadReport(scenario={"thresholds": {"from_the_future": 1}}))
    assert asked.success == 0
    assert asked.late_share is None


def test_the_limit_of_the_first_audio_is_the_stricter_one() -> None:
    report = mixed()
    first = report.steps[0].times["first_audio"].p95
    assert first_audio_limit_ms(report) == pytest.approx(2 * first)
    scenario = report.scenario | {"thresholds": {"first_audio_p95_ms": 500.0}}
    assert first_audio_limit_ms(msgspec.structs.replace(report, scenario=scenario)) == 500
    assert first_audio_limit_ms(idle()) is None


def test_counts_are_summed_up_the_most_frequent_first() -> None:
    assert list(summed([{"b": 1, "a": 1}, {"c": 5}, {"b": 1}]).items()) == [("c", 5), ("b", 2), ("a", 1)]
