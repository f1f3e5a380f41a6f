"""What follows from a load test's record: pure functions, for page, comparison and terminal."""

from __future__ import annotations

import msgspec

from mynah.sim.load.record import LoadReport, Stage, Step, Usage
from mynah.sim.load.scenario import Thresholds


def best_step(report: LoadReport) -> Step | None:
    """Return the largest step that passed, the later one of two; None when none did."""
    passed = [step for step in report.steps if step.passed]
    return max(passed, key=lambda step: (step.devices, step.number), default=None)


def memory_per_device(step: Step, at_rest: Usage | None) -> float | None:
    """Return how many bytes the server grew for each connected device; None when it could not be seen.

    The growth since the server was at rest, so code and models are not in it, but all that talkers need is.
    """
    if step.server is None or at_rest is None or step.connected <= 0:
        return None
    return max(step.server.resident - at_rest.resident, 0) / step.connected


def cpu_per_talker_minute(step: Step) -> float | None:
    """Return the CPU in s that the server used for a minute of one talker, other devices included; None without."""
    if step.server is None or step.talkers <= 0:
        return None
    return step.server.cpu * 60 / step.talkers


def thresholds(report: LoadReport) -> Thresholds:
    """Return what steps had to keep; where the report does not say it in today's words, nothing had to be kept."""
    given = report.scenario.get("thresholds")
    try:
        return msgspec.convert(given, Thresholds)
    except msgspec.ValidationError:
        return Thresholds(
            success=0.0,
            connect_p95_ms=None,
            hello_p95_ms=None,
            first_audio_growth=None,
            late_share=None,
            dry_share=None,
            overflow=None,
        )


def first_audio_limit_ms(report: LoadReport) -> float | None:
    """Return the longest p95 of the first audio that a step could have and pass; None when any was good."""
    asked = thresholds(report)
    firsts = [
        step.times[Stage.FIRST_AUDIO].p95
        for step in report.steps
        if Stage.FIRST_AUDIO in step.times and step.times[Stage.FIRST_AUDIO].count
    ]
    grown = asked.first_audio_growth * firsts[0] if asked.first_audio_growth and firsts else None
    found = [limit for limit in (asked.first_audio_p95_ms, grown) if limit is not None]
    return min(found) if found else None


def summed(counts: list[dict[str, int]]) -> dict[str, int]:
    """Return the sums by name, most frequent first."""
    total: dict[str, int] = {}
    for one in counts:
        for name, number in one.items():
            total[name] = total.get(name, 0) + number
    return dict(sorted(total.items(), key=lambda item: (-item[1], item[0])))
