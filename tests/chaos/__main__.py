"""``python -m tests.chaos``: what ``make abuse`` runs. Exit code 1 when a good device suffered."""

from __future__ import annotations

import argparse
import os
import platform
import secrets
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np
import uvloop

from tests.chaos.abuses import ABUSES
from tests.chaos.arena import DESCRIPTORS, Arena, Outcome, arena
from tests.chaos.witnesses import DEVICES, Seen

QUIET_TURNS = 10
"""Of each device, before the first abuse."""
GROWTH_MB = 32.0
"""What one abuse may leave behind: the buffers of two thousand connections at once, which Python keeps for the next."""


class Figures(msgspec.Struct):
    """What the good devices noticed, and what became of the server."""

    name: str
    seconds: float
    turns: int
    failed: int
    frames: int
    late_frames: int
    first_audio_p50_ms: float
    first_audio_p95_ms: float
    setup_p95_ms: float
    """Connecting and the exchange of hellos."""
    p50_to_quiet: float = 1.0
    """Latency to the first audio, by that of the same run without abuse."""
    p95_to_quiet: float = 1.0
    witnesses_lag_ms: float = 0.0
    """By how much the measuring process itself was held up at worst."""
    memory_before_mb: float = 0.0
    memory_after_mb: float = 0.0
    memory_peak_mb: float = 0.0
    descriptors_before: int = 0
    descriptors_after: int = 0
    log_lines: int = 0
    not_as_expected: list[str] = []
    exceptions_logged: list[str] = []


class Report(msgspec.Struct):
    """One run."""

    command: str
    date: str
    machine: str
    python: str
    seed: int
    scale: float
    devices: int
    quiet: Figures
    abuses: list[Figures]


def figures(name: str, turns: list[Seen], seconds: float) -> Figures:
    good = [turn for turn in turns if turn.ok] or turns
    audio = [turn.first_audio_ms for turn in good]
    p50, p95 = (round(float(value), 1) for value in np.percentile(audio, (50, 95)))
    return Figures(
        name,
        round(seconds, 1),
        len(turns),
        sum(not turn.ok for turn in turns),
        sum(turn.frames for turn in turns),
        sum(turn.late_frames for turn in turns),
        p50,
        p95,
        round(float(np.percentile([turn.setup_ms for turn in good], 95)), 1),
        witnesses_lag_ms=round(max(turn.own_lag_ms for turn in turns), 1),
    )


def with_costs(made: Figures, quiet: Figures, outcome: Outcome) -> Figures:
    made.p50_to_quiet = round(made.first_audio_p50_ms / quiet.first_audio_p50_ms, 2)
    made.p95_to_quiet = round(made.first_audio_p95_ms / quiet.first_audio_p95_ms, 2)
    made.memory_before_mb, made.memory_after_mb = (
        round(outcome.before.memory_mb, 1),
        round(outcome.after.memory_mb, 1),
    )
    made.memory_peak_mb = round(outcome.peak_mb, 1)
    made.descriptors_before, made.descriptors_after = outcome.before.descriptors, outcome.after.descriptors
    made.log_lines = outcome.after.log_lines - outcome.before.log_lines
    made.not_as_expected, made.exceptions_logged = outcome.notes[:5], outcome.trouble[:5]
    return made


def line(made: Figures) -> str:
    return (
        f"{made.name:28} turns {made.turns:4} failed {made.failed:3} late {made.late_frames:4}/{made.frames:<6}"
        f" first audio p50 {made.first_audio_p50_ms:6.0f} (×{made.p50_to_quiet:.2f})"
        f" p95 {made.first_audio_p95_ms:6.0f} (×{made.p95_to_quiet:.2f}) ms, memory {made.memory_before_mb:.0f} →"
        f" {made.memory_after_mb:.0f} (peak {made.memory_peak_mb:.0f}) MB, files {made.descriptors_before} →"
        f" {made.descriptors_after}, {made.log_lines} log lines"
    )


def bad(made: Figures) -> bool:
    left_over = made.descriptors_after > made.descriptors_before + DESCRIPTORS
    grown = made.memory_after_mb - made.memory_before_mb > GROWTH_MB
    return bool(made.failed or made.not_as_expected or made.exceptions_logged or left_over or grown)


async def campaign(stage: Arena, given: argparse.Namespace) -> tuple[Figures, list[Figures]]:
    quiet = figures("quiet", await stage.quiet(QUIET_TURNS), 0.0)
    print(line(quiet))
    made: list[Figures] = []
    for name in ABUSES:
        if given.only and not any(part in name for part in given.only):
            continue
        outcome = await stage.suffer(name, given.scale, given.seed, given.seconds)
        made.append(with_costs(figures(name, outcome.turns, outcome.seconds), quiet, outcome))
        print(line(made[-1]), flush=True)
        for note in (*made[-1].not_as_expected, *made[-1].exceptions_logged):
            print(f"    {note}")
    return quiet, made


async def run(given: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory() as folder:
        async with arena(Path(folder)) as stage:
            quiet, made = await campaign(stage, given)
            alive = stage.alive
    report = Report(
        command=f'make abuse ARGS="--scale {given.scale:g} --seconds {given.seconds:g} --seed {given.seed}"',
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        machine=f"{platform.machine()}, {os.cpu_count()} cores, shared by server, devices and attackers",
        python=platform.python_version(),
        seed=given.seed,
        scale=given.scale,
        devices=DEVICES,
        quiet=quiet,
        abuses=made,
    )
    if given.json is not None:
        given.json.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
    return 0 if alive and not any(bad(figure) for figure in made) else 1


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="make abuse", description="Abuse a server while good devices talk to it."
    )
    parser.add_argument(
        "--scale", type=float, default=4.0, help="how much of everything; 1 is the test suite's"
    )
    parser.add_argument("--seconds", type=float, default=12.0, help="for how long each abuse is repeated")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6))
    parser.add_argument(
        "--only", action="append", metavar="NAME", help="abuses whose name contains this; repeatable"
    )
    parser.add_argument("--json", type=Path, help="write the result here as well")
    return uvloop.run(run(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
