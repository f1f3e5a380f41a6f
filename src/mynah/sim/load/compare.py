"""Two load tests side by side: what got better, what got worse, and what cannot be compared.

The reports may be of one server before and after a change, or of two different servers.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from mynah.sim.load.compare_data import Caution, Compared, Comparison, Difference, Figure, Pair, Side
from mynah.sim.load.compare_page import render
from mynah.sim.load.derived import cpu_per_talker_minute, memory_per_device
from mynah.sim.load.markup import encoded, replace_file
from mynah.sim.load.noise import Reading, count, judge, level, percentile, share
from mynah.sim.load.record import Bottleneck, LoadReport, Stage, Step
from mynah.sim.load.units import NOTHING, Unit

HTML: Final = "compare.html"
JSON: Final = "compare.json"

MAX_STEPS: Final = 500
"""Pairs of steps; later ones are left out."""


def write(a: LoadReport, b: LoadReport, folder: Path) -> Path:
    """Compare two reports, write ``compare.html`` and ``compare.json``, and return the path of the page.

    ``a`` is the one before, ``b`` the one after. Raises ConfigError when the folder cannot be written.
    """
    found = compare(a, b)
    replace_file(folder / JSON, encoded(found) + b"\n")
    page = folder / HTML
    replace_file(page, render(found).encode("utf-8"))
    return page


def compare(a: LoadReport, b: LoadReport) -> Comparison:
    """Return two reports side by side: ``a`` is the one before, ``b`` the one after."""
    pairs, only_a, only_b = _match(a.steps, b.steps)
    return Comparison(
        before=_side(a),
        after=_side(b),
        cautions=_cautions(a, b, pairs),
        pairs=[_pair(a, one, b, other) for one, other in pairs[:MAX_STEPS]],
        only_before=[step.devices for step in only_a],
        only_after=[step.devices for step in only_b],
    )


def _match(a: list[Step], b: list[Step]) -> tuple[list[tuple[Step, Step]], list[Step], list[Step]]:
    """Pair steps of equal numbers of devices, the first with the first, the second with the second."""
    waiting: dict[int, list[Step]] = {}
    for step in b:
        waiting.setdefault(step.devices, []).append(step)
    pairs, only_a = [], []
    for step in a:
        if waiting.get(step.devices):
            pairs.append((step, waiting[step.devices].pop(0)))
        else:
            only_a.append(step)
    return pairs, only_a, [step for step in b if step in waiting[step.devices]]


def _side(report: LoadReport) -> Side:
    return Side(
        target=report.target,
        started=report.started,
        version=report.version,
        passed=report.passed,
        interrupted=report.interrupted,
        steps=len(report.steps),
        knee_devices=report.knee.devices if report.knee else None,
        most_passed=max((step.devices for step in report.steps if step.passed), default=None),
        bottleneck=report.bottleneck,
        evidence=report.evidence,
    )


# ---------------------------------------------------------------- figures

_Read = Callable[[LoadReport, Step], Reading | None]


def _pair(a: LoadReport, before: Step, b: LoadReport, after: Step) -> Pair:
    figures = []
    for figure, (unit, less_is_better, read) in _FIGURES.items():
        one, other = read(a, before), read(b, after)
        if one is None and other is None:
            continue
        figures.append(
            Compared(
                figure=figure,
                unit=unit,
                before=one.value if one else None,
                after=other.value if other else None,
                ratio=other.value / one.value if one and other and one.value else None,
                change=judge(one, other, less_is_better=less_is_better),
            )
        )
    return Pair(
        devices=before.devices,
        before=before.number,
        after=after.number,
        talkers_before=before.talkers,
        talkers_after=after.talkers,
        passed_before=before.passed,
        passed_after=after.passed,
        figures=figures,
    )


def _percentile(stage: Stage, rank: float) -> _Read:
    def read(_: LoadReport, step: Step) -> Reading | None:
        lag = {0.5: step.lag.p50, 0.95: step.lag.p95, 0.99: step.lag.p99}[rank]
        return percentile(step.times[stage], rank, lag) if stage in step.times else None

    return read


def _success(_: LoadReport, step: Step) -> Reading | None:
    return share(step.success, step.connections.attempted + step.turns.attempted)


def _packets(count_of: Callable[[Step], int]) -> _Read:
    """Packets of one answer are late together: answers are what is independent, and there are far fewer of them."""

    def read(_: LoadReport, step: Step) -> Reading | None:
        if not step.frames.received:
            return None
        return share(count_of(step) / step.frames.received, step.turns.attempted or step.frames.received)

    return read


_CPU_FLOOR: Final = 0.02
"""Cores that a server uses more or less from run to run, whatever it has to do."""

_MEMORY_FLOOR: Final = 1e6
"""Bytes that a process grows more or less from run to run, however many devices it has."""


def _level(
    value_of: Callable[[LoadReport, Step], float | None],
    floor: float,
    each: Callable[[Step], int] | None = None,
) -> _Read:
    """Read a value that was measured once; with ``each`` the floor is shared by so many."""

    def read(report: LoadReport, step: Step) -> Reading | None:
        value = value_of(report, step)
        return None if value is None else level(value, floor / max(each(step), 1) if each else floor)

    return read


_FIGURES: Final[dict[Figure, tuple[Unit, bool, _Read]]] = {
    Figure.SUCCESS: (Unit.SHARE, False, _success),
    Figure.CONNECT_P95: (Unit.MS, True, _percentile(Stage.CONNECT, 0.95)),
    Figure.HELLO_P95: (Unit.MS, True, _percentile(Stage.HELLO, 0.95)),
    Figure.TRANSCRIPT_P95: (Unit.MS, True, _percentile(Stage.TRANSCRIPT, 0.95)),
    Figure.FIRST_AUDIO_P50: (Unit.MS, True, _percentile(Stage.FIRST_AUDIO, 0.5)),
    Figure.FIRST_AUDIO_P95: (Unit.MS, True, _percentile(Stage.FIRST_AUDIO, 0.95)),
    Figure.FIRST_AUDIO_P99: (Unit.MS, True, _percentile(Stage.FIRST_AUDIO, 0.99)),
    Figure.LATE: (Unit.SHARE, True, _packets(lambda step: step.frames.late)),
    Figure.DRY: (Unit.SHARE, True, _packets(lambda step: step.frames.dry)),
    Figure.OVERFLOW: (
        Unit.COUNT,
        True,
        lambda _, step: count(step.frames.overflow) if step.talkers else None,
    ),
    Figure.LOST: (Unit.COUNT, True, lambda _, step: count(step.lost)),
    Figure.CONNECTS_PER_S: (Unit.PER_S, False, _level(lambda _, step: step.connects_per_s or None, 1.0)),
    Figure.SERVER_CPU: (
        Unit.CORES,
        True,
        _level(lambda _, step: step.server.cpu if step.server else None, _CPU_FLOOR),
    ),
    Figure.CPU_TALKER: (
        Unit.SECONDS,
        True,
        _level(lambda _, step: cpu_per_talker_minute(step), 60 * _CPU_FLOOR, lambda step: step.talkers),
    ),
    Figure.SERVER_MEMORY: (
        Unit.BYTES,
        True,
        _level(lambda _, step: step.server.resident if step.server else None, _MEMORY_FLOOR),
    ),
    Figure.MEMORY_PER_DEVICE: (
        Unit.BYTES,
        True,
        _level(
            lambda report, step: memory_per_device(step, report.at_rest),
            _MEMORY_FLOOR,
            lambda step: step.connected,
        ),
    ),
}
"""Unit, whether less is better, and how it is read."""


# ---------------------------------------------------------------- cautions


def _cautions(a: LoadReport, b: LoadReport, pairs: list[tuple[Step, Step]]) -> list[Caution]:
    found = []
    if a.format != b.format:
        found.append(Caution(about=Difference.FORMAT, before=str(a.format), after=str(b.format)))
    for name in ("cpu", "cores", "memory", "system", "python"):
        one, other = getattr(a.machine, name), getattr(b.machine, name)
        if not _alike(name, one, other):
            found.append(Caution(about=Difference.MACHINE, name=name, before=str(one), after=str(other)))
    found += _scenarios(a.scenario, b.scenario)
    if a.version != b.version:
        found.append(Caution(about=Difference.VERSION, before=a.version, after=b.version))
    found += [
        Caution(
            about=Difference.TALKERS,
            name=f"{one.devices:,}",
            before=str(one.talkers),
            after=str(other.talkers),
        )
        for one, other in pairs
        if one.talkers != other.talkers
    ]
    for about, doubtful in (
        (Difference.INTERRUPTED, lambda report: report.interrupted),
        (Difference.GENERATOR, lambda report: report.bottleneck is Bottleneck.GENERATOR),
        (Difference.CHECKS, lambda report: any(one.fatal and not one.ok for one in report.machine.checks)),
    ):
        if doubtful(a) or doubtful(b):
            found.append(Caution(about=about, before=_yes(doubtful(a)), after=_yes(doubtful(b))))
    return found


def _alike(name: str, one: str | int, other: str | int) -> bool:
    """Memory that differs by less than 5 % is the same machine with another kernel."""
    if name == "memory" and isinstance(one, int) and isinstance(other, int):
        return abs(one - other) <= 0.05 * max(one, other)
    return one == other


_OF_NO_MATTER: Final = frozenset({"name", "steps", "stop_when_failed"})
"""Of a scenario: steps are paired by their devices, whatever others there were."""


def _scenarios(a: dict[str, Any], b: dict[str, Any]) -> list[Caution]:
    one, other = _flat(a), _flat(b)
    return [
        Caution(about=Difference.SCENARIO, name=name, before=one.get(name, ""), after=other.get(name, ""))
        for name in sorted(one.keys() | other.keys())
        if one.get(name) != other.get(name) and name not in _OF_NO_MATTER
    ]


def _flat(scenario: dict[str, Any]) -> dict[str, str]:
    """Return the values as text, those of the thresholds as ``thresholds.success`` and the like."""
    found: dict[str, str] = {}
    for name, value in scenario.items():
        inside = value.items() if isinstance(value, dict) else ()
        found |= {f"{name}.{key}": _text(inner) for key, inner in inside} if inside else {name: _text(value)}
    return found


def _text(value: Any) -> str:
    """Write a value: lists and tuples alike, as what was read from a file has no tuples."""
    if isinstance(value, list | tuple):
        return ", ".join(_text(one) for one in value[:MAX_STEPS])
    return NOTHING if value is None else str(value)


def _yes(value: bool) -> str:
    return "yes" if value else "no"
