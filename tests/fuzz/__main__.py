"""``python -m tests.fuzz``: what ``make fuzz`` runs. Exit code 1 when something was found."""

from __future__ import annotations

import argparse
import os
import secrets
import shlex
import sys
from pathlib import Path

import msgspec

from tests.fuzz.campaign import FINDINGS, Campaign, table
from tests.fuzz.targets import TARGETS

AT_LEAST = 50_000
"""Inputs for each target, however many targets share the total."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="make fuzz", description="Feed damaged input to every decoder.")
    parser.add_argument(
        "--inputs", type=int, default=1_500_000, help="inputs in total (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, help="of an earlier run, to repeat it (default: a new one)")
    parser.add_argument(
        "--only", action="append", metavar="NAME", help="targets whose name contains this; repeatable"
    )
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--least", type=int, default=AT_LEAST, help="inputs for each target at least")
    parser.add_argument("--json", type=Path, help="write the result here as well")
    given = parser.parse_args()
    names = [name for name in TARGETS if not given.only or any(part in name for part in given.only)]
    if not names:
        parser.error("no such target; there are: " + ", ".join(TARGETS))
    seed = secrets.randbelow(10**6) if given.seed is None else given.seed
    each = max(given.least, -(-given.inputs // len(names)))

    def show(line: str) -> None:
        sys.stderr.write(f"\r{line:60}" if sys.stderr.isatty() else f"{line}\n")

    campaign = Campaign(names, seed, each, given.processes, show)
    campaign.run()
    only = "".join(f" --only {shlex.quote(part)}" for part in given.only or ())
    report = campaign.report(
        f'make fuzz ARGS="--inputs {given.inputs} --least {given.least} --seed {seed}{only}"'
    )
    sys.stderr.write("\n")
    print("\n".join(table(report)))
    if report.findings:
        print(f"the inputs are in {FINDINGS}")
    if given.json is not None:
        given.json.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
    return 1 if report.findings else 0


if __name__ == "__main__":
    sys.exit(main())
