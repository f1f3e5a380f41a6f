"""``python -m tests.badlink``: what ``make badlink`` runs. Exit code 1 when a bar is missed."""

from __future__ import annotations

import argparse
import platform
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from statistics import mean

import msgspec

from tests.badlink.campaign import SEED_ONLY, Campaign, Kind, Outcome
from tests.badlink.proxy import Link

END_TO_END_S = 4.0
TEXT_S = 3.0
CONNECTED = 0.95
FILES = 3
"""A log file and the like may have been opened since."""
GROWTH_MB = 5.0
"""Of the mean of the last third over that of the second, where there are enough samples (one every 30 s)."""


def share(values: list[float], part: float) -> float:
    """Return the value that ``part`` of them do not exceed; 0 when there are none."""
    ordered = sorted(values)
    return ordered[min(int(part * len(ordered)), len(ordered) - 1)] if ordered else 0.0


def misses(outcome: Outcome) -> list[str]:
    """Return which bars were missed."""
    kinds = outcome.kinds
    heard = [value for kind in kinds.values() for value in kind.first_audio_s]
    texts = [value for kind in kinds.values() for value in kind.text_s]
    found = []
    if silent := sum(kind.silent for kind in kinds.values()):
        found.append(f"{silent} turns were neither answered nor reported")
    for name, kind in kinds.items():
        if name != SEED_ONLY and kind.exact_down != kind.answered:
            found.append(f"{name}: {kind.answered - kind.exact_down} answers were not byte-exact")
        if name != SEED_ONLY and kind.exact_up < kind.answered:
            found.append(f"{name}: {kind.answered - kind.exact_up} recordings were not byte-exact")
    if share(heard, 0.95) > END_TO_END_S:
        found.append(f"p95 of the first audio is {share(heard, 0.95):.2f} s")
    if share(texts, 0.95) > TEXT_S:
        found.append(f"p95 of the text is {share(texts, 0.95):.2f} s")
    if outcome.connections_made < CONNECTED * outcome.connections_tried:
        found.append("too few connections came about")
    memory, files = outcome.server_memory_mb, outcome.server_files
    if files[-1] > files[0] + FILES:
        found.append(f"the server has {files[-1] - files[0]} files more open than at the beginning")
    third = len(memory) // 3
    if third >= 3 and (growth := mean(memory[-third:]) - mean(memory[third : 2 * third])) > GROWTH_MB:
        found.append(f"the server's memory grew by {growth:.1f} MB in the last third")
    return found


def line(name: str, kind: Kind) -> str:
    """Return a row of the table."""
    heard, text = kind.first_audio_s, kind.text_s
    return (
        f"{name:26} {kind.turns:5} {kind.answered:8} {kind.exact_up:8} {kind.exact_down:8} {kind.resumed:7}  "
        f"{share(text, 0.5):.2f} / {share(text, 0.95):.2f}   {share(heard, 0.5):.2f} / {share(heard, 0.95):.2f} / "
        f"{max(heard, default=0):.2f}   {kind.reported or ''}"
    )


def show(outcome: Outcome) -> None:
    """Print what happened."""
    print(
        f"{'form':26} turns answered exact up and down resumed  text p50/95   first audio p50/95/max   reported"
    )
    for name, kind in outcome.kinds.items():
        print(line(name, kind))
    made, tried = outcome.connections_made, outcome.connections_tried
    print(
        f"connections: {tried} tried, {made} made ({made / max(tried, 1):.1%}), {outcome.connections_lost} lost"
    )
    print(f"proxy: {outcome.proxy}\nfaults: { {k: v for k, v in outcome.faults.items() if v} }")
    print(f"server: {outcome.server_memory_mb} MB, {outcome.server_files} files, {outcome.seconds} s")


def main() -> int:
    """Run one campaign."""
    parser = argparse.ArgumentParser(prog="python -m tests.badlink", description="4G devices over a bad link")
    parser.add_argument("--devices", type=int, default=100)
    parser.add_argument("--turns", type=int, default=1000, help="of all devices together")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--speech-s", type=float, default=1.0, help="of each of an answer's three sentences")
    parser.add_argument("--json", type=Path, help="write the figures into this file")
    for field in msgspec.structs.fields(Link):
        parser.add_argument("--" + field.name.replace("_", "-"), type=float, default=field.default)
    chosen = parser.parse_args()
    link = Link(**{field.name: getattr(chosen, field.name) for field in msgspec.structs.fields(Link)})
    with tempfile.TemporaryDirectory() as folder:
        campaign = Campaign(chosen.devices, chosen.turns, link, chosen.seed)
        outcome = campaign.run(Path(folder), (f"TTS.FakeTTS.seconds={chosen.speech_s}",))
    show(outcome)
    found = misses(outcome)
    for miss in found:
        print(f"missed: {miss}", file=sys.stderr)
    if chosen.json:
        record = {
            "command": "python -m tests.badlink " + " ".join(sys.argv[1:]),
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "python": platform.python_version(),
            "missed": found,
            **msgspec.to_builtins(outcome),
        }
        chosen.json.write_bytes(msgspec.json.format(msgspec.json.encode(record), indent=1) + b"\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
