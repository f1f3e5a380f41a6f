"""Which charts the page of a load test has, and what each shows in words."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

from mynah.sim.load.charts import (
    MAX_CATEGORIES,
    MAX_ROWS,
    Band,
    Bars,
    Limit,
    Mark,
    Series,
    row_chart,
    step_chart,
    time_chart,
)
from mynah.sim.load.derived import first_audio_limit_ms, memory_per_device, summed, thresholds
from mynah.sim.load.markup import figure, heading, label_id, paragraph
from mynah.sim.load.record import LoadReport, Sample, Stage, Step
from mynah.sim.load.units import Unit, show
from mynah.sim.load.words import Words, words

_SUCCESS_FLOORS: Final = (0.99, 0.95, 0.9, 0.5, 0.0)
"""Where the axis of the success may begin: the differences that matter are near 100 %."""


def charts(report: LoadReport) -> Iterator[str]:
    """Yield the parts of the page with all charts that there is data for."""
    number = 0
    for title, drawn in (("charts_steps", _by_step(report)), ("charts_time", _over_time(report))):
        figures = []
        for draw in drawn:
            number += 1
            figures.append(draw(number))
        if not figures:
            continue
        yield heading(words(title))
        if title == "charts_time":
            yield paragraph(words("charts_time_about"), "soft")
        yield '<div class="charts">'
        yield from figures
        yield "</div>"


_Figure = Callable[[int], str]
"""From its number on the page to a figure."""


# ---------------------------------------------------------------- by step


def _by_step(report: LoadReport) -> Iterator[_Figure]:
    steps = report.steps[:MAX_CATEGORIES]
    if not steps:
        return
    yield _success(report, steps)
    for stage in Stage:
        if any(stage in step.times and step.times[stage].count for step in steps):
            yield _times(report, steps, stage)
    if any(step.frames.received for step in steps):
        yield _frames(report, steps)
    if any(memory_per_device(step, report.at_rest) is not None for step in steps):
        each = [memory_per_device(step, report.at_rest) for step in steps]
        yield _steps_figure(
            steps,
            "memory_per_device",
            [Bars(words("memory_per_device"), each)],
            Unit.BYTES,
            words("memory"),
            bars=True,
        )
    rates = [step.connects_per_s or None for step in steps]
    if any(rates):
        series = [Bars(words("connects_per_s"), rates)]
        yield _steps_figure(steps, "connects_per_s", series, Unit.PER_S, words("connects"), bars=True)
    errors = summed([step.errors for step in steps])
    if any(errors.values()):
        yield _error_rows(errors)


def _steps_figure(
    steps: Sequence[Step],
    key: str,
    series: Sequence[Bars],
    unit: Unit,
    y_title: Words,
    *,
    bars: bool = False,
    low: float = 0.0,
    log: bool | None = False,
    limits: Sequence[Limit] = (),
) -> _Figure:
    def draw(number: int) -> str:
        svg = step_chart(
            [short(step.devices) for step in steps],
            series,
            unit,
            y_title,
            words("axis_devices"),
            bars=bars,
            low=low,
            log=log,
            limits=limits,
            label_id=label_id(number),
        )
        text = all_told([(one.name, one.values) for one in series], unit, [step.devices for step in steps])
        return figure(number, words(f"chart_{key}"), words(f"chart_{key}_about"), text, svg)

    return draw


def _success(report: LoadReport, steps: Sequence[Step]) -> _Figure:
    shares = [
        Bars(
            words("connections"),
            [step.connections.share if step.connections.attempted else None for step in steps],
        ),
        Bars(words("turns"), [step.turns.share if step.turns.attempted else None for step in steps]),
    ]
    shares = [one for one in shares if any(value is not None for value in one.values)]
    wanted = thresholds(report).success
    limits = [Limit(words("threshold"), wanted)] if wanted else []
    least = min([1.0, wanted or 1.0, *(value for one in shares for value in one.values if value is not None)])
    low = next(floor for floor in _SUCCESS_FLOORS if floor < least or floor == 0.0)
    return _steps_figure(steps, "success", shares, Unit.SHARE, words("axis_success"), low=low, limits=limits)


def _times(report: LoadReport, steps: Sequence[Step], stage: Stage) -> _Figure:
    def values(name: str) -> list[float | None]:
        return [
            getattr(step.times[stage], name) if stage in step.times and step.times[stage].count else None
            for step in steps
        ]

    asked = thresholds(report)
    limit = {
        Stage.CONNECT: asked.connect_p95_ms,
        Stage.HELLO: asked.hello_p95_ms,
        Stage.FIRST_AUDIO: first_audio_limit_ms(report),
    }.get(stage)
    series = [Bars(Words(name, name), values(name)) for name in ("p50", "p95", "p99")]
    known = [value for one in series for value in one.values if value]
    # A limit far above everything would flatten the lines that are to be seen.
    near = limit is not None and known and limit <= 3 * max(known)
    limits = [Limit(words("threshold_p95"), limit)] if limit is not None and near else []
    key = f"stage_{stage.name.lower()}"
    return _steps_figure(steps, key, series, Unit.MS, words("time"), log=None, limits=limits)


def _frames(report: LoadReport, steps: Sequence[Step]) -> _Figure:
    def share(count: int, step: Step) -> float | None:
        return count / step.frames.received if step.frames.received else None

    series = [
        Bars(words("late"), [share(step.frames.late, step) for step in steps]),
        Bars(words("dry"), [share(step.frames.dry, step) for step in steps]),
    ]
    asked = thresholds(report)
    highest = max((value or 0.0 for one in series for value in one.values), default=0.0)
    limits = []
    if asked.late_share and (asked.late_share <= 3 * highest or not highest):
        limits = [Limit(words("threshold_late"), asked.late_share)]
    return _steps_figure(steps, "frames", series, Unit.SHARE, words("of_packets"), bars=True, limits=limits)


def _error_rows(errors: dict[str, int]) -> _Figure:
    rows = [(kind, float(count)) for kind, count in errors.items()]
    if len(rows) > MAX_ROWS:
        rest = sum(count for _, count in rows[MAX_ROWS - 1 :])
        rows = [*rows[: MAX_ROWS - 1], ("…", rest)]

    def draw(number: int) -> str:
        text = "; ".join(f"{kind[:200]}: {show(count, Unit.COUNT)}" for kind, count in rows)
        svg = row_chart(rows, Unit.COUNT, label_id=label_id(number))
        return figure(number, words("chart_errors"), None, Words(text, text), svg)

    return draw


# ---------------------------------------------------------------- over time


class _OverTime(NamedTuple):
    """A chart of what samples hold: its words, unit, title of the axis, and its lines."""

    key: str
    unit: Unit
    axis: str
    lines: tuple[tuple[str, Callable[[Sample], float | None]], ...]


def _server(name: str) -> Callable[[Sample], float | None]:
    return lambda sample: getattr(sample.server, name) if sample.server else None


def _generator(name: str) -> Callable[[Sample], float | None]:
    return lambda sample: float(getattr(sample.generator, name))


def _both(name: str) -> tuple[tuple[str, Callable[[Sample], float | None]], ...]:
    return ("server", _server(name)), ("generator", _generator(name))


_OVER_TIME: Final = (
    _OverTime(
        "devices",
        Unit.COUNT,
        "axis_devices",
        (("connected", lambda one: one.connected), ("talking", lambda one: one.talking)),
    ),
    _OverTime(
        "cpu", Unit.CORES, "cores_in_use", (*_both("cpu"), ("whole_machine", lambda one: one.machine_cpu))
    ),
    _OverTime(
        "main_thread",
        Unit.CORES,
        "cores_in_use",
        (
            ("server", lambda one: (one.server and one.server.main) or None),  # 0: not known
            ("generator", lambda one: one.generator.main or None),
        ),
    ),
    _OverTime("memory", Unit.BYTES, "memory", _both("resident")),
    _OverTime("memory_available", Unit.BYTES, "memory", (("available", lambda one: one.memory_available),)),
    _OverTime(
        "network",
        Unit.BYTES_PER_S,
        "network",
        (("received", lambda one: one.received_per_s), ("sent", lambda one: one.sent_per_s)),
    ),
    _OverTime("descriptors", Unit.COUNT, "axis_descriptors", _both("descriptors")),
    _OverTime(
        "threads",
        Unit.COUNT,
        "axis_number",
        (
            ("server", _server("threads")),
            ("server_processes", _server("processes")),
            ("generator", _generator("threads")),
            ("generator_processes", _generator("processes")),
        ),
    ),
    _OverTime("lag", Unit.MS, "late_by", (("lag", lambda one: one.lag_ms),)),
)


def _over_time(report: LoadReport) -> Iterator[_Figure]:
    if not report.samples:
        return
    cores = report.machine.cores
    near = cores and any(sample.machine_cpu > cores / 4 for sample in report.samples)
    for chart in _OVER_TIME:
        series = [
            Series(words(name), [(sample.at_s, value_of(sample)) for sample in report.samples])
            for name, value_of in chart.lines
        ]
        if chart.key == "main_thread" and all(value is None for one in series for _, value in one.points):
            continue  # a report of an older Mynah, or of another system than Linux
        limits = [Limit(words("all_cores"), cores)] if chart.key == "cpu" and near else []
        yield _time_figure(report, chart.key, series, chart.unit, words(chart.axis), limits)


def _time_figure(
    report: LoadReport,
    key: str,
    series: Sequence[Series],
    unit: Unit,
    y_title: Words,
    limits: Sequence[Limit] = (),
) -> _Figure:
    series = [one for one in series if any(value is not None for _, value in one.points)]
    bands = [Band(step.began_s, step.ended_s, str(step.number)) for step in report.steps]
    marks = [Mark(warned.at_s, f"▾{number}") for number, warned in enumerate(report.warnings, 1)]

    def draw(number: int) -> str:
        svg = time_chart(
            series,
            unit,
            y_title,
            words("axis_time"),
            limits=limits,
            bands=bands,
            marks=marks,
            label_id=label_id(number),
        )
        text = all_told([(one.name, [value for _, value in one.points]) for one in series], unit, None)
        return figure(number, words(f"chart_{key}"), words(f"chart_{key}_about"), text, svg)

    return draw


# ---------------------------------------------------------------- in words


def all_told(
    lines: Sequence[tuple[Words, Sequence[float | None]]], unit: Unit, at: Sequence[int] | None
) -> Words:
    """Return what lines show, for who cannot see them: each value, or how far they go. ``at``: devices of each step."""
    told = [_one_told(name, values, unit, at) for name, values in lines]
    return Words(" ".join(one.en for one in told), "".join(one.zh for one in told))


def _one_told(name: Words, values: Sequence[float | None], unit: Unit, at: Sequence[int] | None) -> Words:
    known = [value for value in values if value is not None and math.isfinite(value)]
    if not known:
        return words("alt_none", name=name)
    if at is not None and len(values) <= MAX_ROWS:
        each = ", ".join(
            f"{devices:,}: {show(value, unit)}" for devices, value in zip(at, values, strict=False)
        )
        return words("alt_steps", name=name, each=each)
    low, high, last = (show(value, unit) for value in (min(known), max(known), known[-1]))
    return words("alt_range", name=name, low=low, high=high, last=last)


def short(devices: int) -> str:
    """Write a number of devices for an axis: 500, 20k."""
    return f"{devices / 1000:g}k" if devices >= 1000 and devices % 100 == 0 else str(devices)
