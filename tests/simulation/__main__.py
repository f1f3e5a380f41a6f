"""``python -m tests.simulation``: what ``make simulate`` runs. Exit code 1 when something was wrong."""

from __future__ import annotations

import argparse
import os
import secrets
import sys
from pathlib import Path

import msgspec

from tests.simulation.campaign import campaign
from tests.simulation.generate import generate
from tests.simulation.invariants import Reader
from tests.simulation.record import Moved
from tests.simulation.scenario import Scenario, dump, load
from tests.simulation.scripted import CASES
from tests.simulation.world import run


def main() -> int:
    parser = argparse.ArgumentParser(prog="make simulate", description="Play conversations on virtual time.")
    parser.add_argument("--scenarios", type=int, default=10_000, help="random ones (default: %(default)s)")
    parser.add_argument("--seed", type=int, help="of an earlier run, to repeat it (default: a new one)")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", type=Path, help="write the result here as well")
    parser.add_argument("--show", metavar="WHICH", help="tell one: a seed, a name, or the text of a scenario")
    given = parser.parse_args()
    if given.show is not None:
        return show(given.show)
    seed = secrets.randbelow(10**6) if given.seed is None else given.seed

    def progress(line: str) -> None:
        if sys.stderr.isatty():
            sys.stderr.write(f"\r{line:70}")

    command = f'make simulate ARGS="--scenarios {given.scenarios} --seed {seed}"'
    report = campaign(given.scenarios, seed, given.processes, progress, command)
    sys.stderr.write("\n")
    for finding in report.findings:
        print(f"{finding.name}: {finding.faults[0]}\n    {finding.scenario}")
    for name in report.never_reached:
        print(f"never reached: {name}")
    print(
        f"{report.scripted} scripted and {report.random} random scenarios (seed {seed}) in {report.seconds} s: "
        f"{len(report.findings)} with faults"
    )
    if given.json is not None:
        given.json.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
    return 1 if report.findings or report.never_reached else 0


def show(which: str) -> int:
    """Tell everything that happens in one scenario."""
    scenario = generate(int(which)) if which.isdecimal() else named(which)
    print(dump(scenario))
    outcome = run(scenario)
    for entry in outcome.log:
        what = entry.what
        if isinstance(what, Moved):
            told = f"{what.before.value} · {what.event} → {what.after.value}: {', '.join(map(str, what.commands))}"
            print(f"{entry.at - 1000:8.3f}  {entry.session}  {told}")
        elif entry.kind != "frame":
            print(f"{entry.at - 1000:8.3f}  {entry.session}  {entry.kind} {what}")
    reader = Reader(outcome).read()
    print("\n".join(reader.story))
    for fault in reader.faults:
        print(f"FAULT {fault}")
    return 1 if reader.faults else 0


def named(which: str) -> Scenario:
    """Return a scripted scenario, or the one that is written there."""
    return CASES[which].scenario if which in CASES else load(which)


if __name__ == "__main__":
    sys.exit(main())
