"""What a scripted scenario is: a name, what happens, and the story that has to come of it."""

from __future__ import annotations

import msgspec

from tests.simulation.scenario import Begin, Mode, Release, Scenario, Speak, Step, Until, Wait


class Case(msgspec.Struct, frozen=True):
    """One scripted scenario. ``story`` is in the words of `tests.simulation.invariants.story`."""

    scenario: Scenario
    story: tuple[str, ...]
    reaches: frozenset[str] = frozenset()
    """Situations (`tests.simulation.generate.reached`) that have to come up."""


def ask(mode: Mode, words: str = "q1 q2") -> list[Step]:
    """Return the steps of a question, from the click to the last word, or the release of the button."""
    steps: list[Step] = [Begin(), Until("mic", 4.0), Wait(0.1), Speak(words), Until("said")]
    return [*steps, Wait(0.05), Release()] if mode == "manual" else steps


def story(text: str) -> tuple[str, ...]:
    """Take a story apart that is written on one line."""
    return tuple(part.strip() for part in text.split("|") if part.strip())
