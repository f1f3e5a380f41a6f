"""All scripted scenarios, by name."""

from __future__ import annotations

from typing import Final

from tests.simulation import (
    scripted_faults,
    scripted_found,
    scripted_interruptions,
    scripted_life,
    scripted_listening,
)
from tests.simulation.case import Case
from tests.simulation.generate import reached
from tests.simulation.invariants import Reader
from tests.simulation.world import run

CASES: Final[dict[str, Case]] = {
    **scripted_interruptions.CASES,
    **scripted_faults.CASES,
    **scripted_listening.CASES,
    **scripted_life.CASES,
    **scripted_found.CASES,
}


def faults_of(case: Case) -> list[str]:
    """Play a scripted scenario; return what was wrong, a story other than the expected one included."""
    outcome = run(case.scenario)
    reader = Reader(outcome).read()
    found = list(reader.faults)
    told = reader.story
    told = told[: told.index("last")] if "last" in told else told
    if tuple(told) != case.story:
        found.append(f"the story is {told} and should be {list(case.story)}")
    if missing := case.reaches - reached(outcome):
        found.append(f"did not come up: {sorted(missing)}")
    return found
