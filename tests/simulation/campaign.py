"""Many scenarios at once: all scripted ones and seeded ones, over several processes, and what came of them."""

from __future__ import annotations

import multiprocessing
import os
import platform
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import msgspec

from tests.simulation.generate import MUST_REACH, generate, reached
from tests.simulation.invariants import check
from tests.simulation.scenario import Scenario, dump, shrink
from tests.simulation.scripted import CASES, faults_of
from tests.simulation.world import run

CHUNK = 25
MAX_SHRUNK = 10
"""Findings that are made smaller; each takes seconds."""


class Finding(msgspec.Struct):
    """A scenario in which something was wrong."""

    name: str
    """Of a scripted scenario, or the seed."""
    faults: list[str]
    scenario: str = ""
    """The smallest one found with the same first fault, for `tests.simulation.scenario.load`."""


class Part(msgspec.Struct):
    """What one process has found."""

    played: int = 0
    findings: list[Finding] = []
    reached: dict[str, int] = {}


class Report(msgspec.Struct):
    """One run, as it is recorded."""

    command: str
    date: str
    seed: int
    machine: str
    python: str
    processes: int
    load: float
    """What else the machine had to do: its load average in the minute before."""
    scripted: int
    random: int
    seconds: float
    findings: list[Finding]
    never_reached: list[str]
    reached: dict[str, int]
    """In how many of the random scenarios each situation came up."""


def play_seeds(seeds: range) -> Part:
    """Play the scenarios of these seeds."""
    part = Part()
    counts: Counter[str] = Counter()
    for seed in seeds:
        outcome = run(generate(seed))
        counts.update(reached(outcome))
        part.played += 1
        if faults := check(outcome):
            part.findings.append(Finding(str(seed), faults[:5]))
    part.reached = dict(counts)
    return part


def play_scripted(names: list[str]) -> Part:
    """Play scripted scenarios."""
    part = Part(played=len(names))
    for name in names:
        if faults := faults_of(CASES[name]):
            part.findings.append(Finding(name, faults[:5], dump(CASES[name].scenario)))
    return part


def _work(job: range | list[str]) -> Part:
    return play_seeds(job) if isinstance(job, range) else play_scripted(job)


def campaign(scenarios: int, seed: int, processes: int, show: Callable[[str], None], command: str) -> Report:
    """Play all scripted scenarios and so many random ones; make smaller what fails."""
    begun, load = time.monotonic(), os.getloadavg()[0]
    names = list(CASES)
    jobs: list[range | list[str]] = [names[at : at + CHUNK] for at in range(0, len(names), CHUNK)]
    last = seed + scenarios
    jobs += [range(at, min(at + CHUNK, last)) for at in range(seed, last, CHUNK)]
    findings: list[Finding] = []
    counts: Counter[str] = Counter()
    played = 0
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        parts: Iterator[Part] = pool.imap_unordered(_work, jobs)
        for part in parts:
            played += part.played
            findings += part.findings
            counts.update(part.reached)
            show(f"{played} of {len(names) + scenarios} scenarios, {len(findings)} with faults")
    seconds = time.monotonic() - begun
    findings.sort(key=lambda finding: finding.name)
    for finding in findings[:MAX_SHRUNK]:
        if not finding.scenario:
            finding.scenario = dump(smallest(generate(int(finding.name)), finding.faults[0]))
    return Report(
        command=command,
        date=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        seed=seed,
        machine=f"{platform.machine()}, {multiprocessing.cpu_count()} cores",
        python=platform.python_version(),
        processes=processes,
        load=round(load, 2),
        scripted=len(names),
        random=scenarios,
        seconds=round(seconds, 1),
        findings=findings,
        never_reached=sorted(MUST_REACH - counts.keys()),
        reached=dict(sorted(counts.items())),
    )


def smallest(scenario: Scenario, fault: str) -> Scenario:
    """Return a smaller scenario with the same kind of fault."""
    kind = kind_of(fault)
    return shrink(scenario, lambda smaller: any(kind_of(found) == kind for found in check(run(smaller))))


def kind_of(fault: str) -> str:
    """Return a fault without times, words and numbers."""
    kept, quoted = [], False
    for char in fault:
        if char == "'":
            quoted = not quoted
        elif not quoted and not char.isdigit() and char != ".":
            kept.append(char)
    return "".join(kept)[:80]
