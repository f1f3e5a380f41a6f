"""What follows from a load test's record: pure functions, for page, comparison and terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from mynah.sim.load.record import LoadReport, Stage, Step, Usage
from mynah.sim.load.scenario import Thresholds

ENOUGH: Final = 5
"""Measurements of a step below which its p95 is one device's bad luck and no sign."""

AWAY_SHARE: Final = 0.05
"""Of the talkers: when more were cut off or told to come back, nobody knows how many the server worked for."""


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
    """Return the CPU in s that the server used for a minute of one talker, other devices included; None without.

    The talkers that were connected count; when only a part of the devices was, it is taken that as large a part of
    the talkers was. None as well when connections were lost or refused in a number beyond 5 % of the talkers.
    """
    if step.server is None or step.talkers <= 0 or step.connected <= 0:
        return None
    if step.lost + step.busy > AWAY_SHARE * step.talkers:
        return None
    return step.server.cpu * 60 / (step.talkers * min(1.0, step.connected / step.devices))


def first_audio_reference(steps: Sequence[Step]) -> Step | None:
    """Return the step whose first audio that of others is compared with; None when nothing was measured.

    The first one with talkers and at least 5 measurements; where there is none, the first one with any.
    """
    known = [
        step
        for step in steps
        if step.talkers and Stage.FIRST_AUDIO in step.times and step.times[Stage.FIRST_AUDIO].count
    ]
    enough = (step for step in known if step.times[Stage.FIRST_AUDIO].count >= ENOUGH)
    return next(enough, known[0] if known else None)


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
    first = first_audio_reference(report.steps)
    growth = asked.first_audio_growth
    grown = growth * first.times[Stage.FIRST_AUDIO].p95 if growth and first is not None else None
    found = [limit for limit in (asked.first_audio_p95_ms, grown) if limit is not None]
    return min(found) if found else None


def summed(counts: list[dict[str, int]]) -> dict[str, int]:
    """Return the sums by name, most frequent first."""
    total: dict[str, int] = {}
    for one in counts:
        for name, number in one.items():
            total[name] = total.get(name, 0) + number
    return dict(sorted(total.items(), key=lambda item: (-item[1], item[0])))
