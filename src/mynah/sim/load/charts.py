"""Line and bar charts as SVG: functions from data to text.

Own code rather than a charting library: a page that holds one is 3 MB before its first number, runs a script in
whoever's browser opens it, and cannot be tested without one. What is drawn here is a dozen lines and bars. The
pictures have no colours of their own: the page that holds them brings ``page.css``, so that they follow its theme.

What is drawn may come from somebody else's report: texts are escaped and cut, numbers that are none are left out, and
every picture has a bound on its size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

from mynah.sim.load.axes import Axis, log_ticks, nice_step, thin, tick_text, ticks
from mynah.sim.load.units import Unit, scale, show
from mynah.sim.load.words import Words, words
from mynah.sim.waterfall_svg import cut, escaped, line, num, text_element, width_of

WIDTH: Final = 440
"""Px of every chart: one column of a telephone, three on a desk, so that texts stay nearly as large as drawn."""

LEFT, RIGHT = 50, 430
"""Of the plot, in px."""

PLOT: Final = 150
"""Height of the plot, in px."""

BELOW: Final = 36
"""Px below the plot, for the x axis."""

MAX_POINTS: Final = 360
"""Of one line: about one for each px. More are thinned out, keeping peaks; a day of samples stays a few KB."""

MAX_SERIES: Final = 6
"""Lines or bars side by side; there are no more colours that can be told apart. Further ones are left out."""

MAX_CATEGORIES: Final = 200
"""Of a chart by steps; later ones are left out, and the table on the page has them all."""

MAX_DOTS: Final = 40
"""Categories whose points have a dot each; more would be one thick line."""

MAX_ROWS: Final = 12
"""Of a chart of rows; the caller sums up the rest."""

MAX_MARKS: Final = 60
"""On the time axis; marks closer than 3 px are drawn as one anyway."""

_Place = Callable[[float], float]
"""From a value of the x axis to px."""

_LEGEND_ROW: Final = 16
_LOG_FROM: Final = 30.0
"""Largest to smallest value: from here on a logarithmic axis shows more."""


class Series(NamedTuple):
    """One line: x and y, in the order of x. None is a gap."""

    name: Words
    points: Sequence[tuple[float, float | None]]


class Bars(NamedTuple):
    """One value for each category. None draws nothing."""

    name: Words
    values: Sequence[float | None]


class Limit(NamedTuple):
    """A level to compare with, drawn across the chart."""

    name: Words
    at: float


class Band(NamedTuple):
    """A stretch of the x axis with a label, such as a step of the ramp."""

    start: float
    end: float
    label: str


class Mark(NamedTuple):
    """A moment on the x axis with a label, such as a warning."""

    at: float
    label: str


def time_chart(
    series: Sequence[Series],
    unit: Unit,
    y_title: Words,
    x_title: Words,
    *,
    limits: Sequence[Limit] = (),
    bands: Sequence[Band] = (),
    marks: Sequence[Mark] = (),
    label_id: str = "",
) -> str:
    """Return lines over time in s. ``label_id``: ids of the elements that hold title and text alternative."""
    shown = [Series(one.name, thin(one.points, MAX_POINTS)) for one in series[:MAX_SERIES]]
    xs = [x for one in shown for x, _ in one.points] + [edge for band in bands for edge in band[:2]]
    xs = [x for x in xs if math.isfinite(x)] or [0.0]
    axis = Axis.linear([0.0, *_values(shown), *_levels(limits)])
    room = 12 if marks else 0
    legend, top = _legend([one.name for one in shown], limits, extra=room, always=True)
    frame = _Frame(axis, top, unit, y_title, room)
    span = (min(xs), max(*xs, min(xs) + 1.0))
    x_scale = scale(max(map(abs, span)), Unit.SECONDS)

    def x_of(at: float) -> float:
        return LEFT + (min(max(at, span[0]), span[1]) - span[0]) / (span[1] - span[0]) * (RIGHT - LEFT)

    parts = [*_bands(bands, x_of, top), *frame.grid(), *_limits(limits, frame)]
    for place in ticks(span[0] * x_scale.factor, span[1] * x_scale.factor, 6):
        label = tick_text(place, nice_step((span[1] - span[0]) * x_scale.factor, 6))
        parts.append(_x_label(x_of(place / x_scale.factor), top, label))
    parts += _marks(marks, x_of, top)
    for number, one in enumerate(shown):
        parts += _line(number, [(x_of(x), frame.y(y) if y is not None else None) for x, y in one.points])
    parts += frame.x_title(_with_unit(x_title, x_scale.suffix))
    return _svg([*legend, *parts], top, label_id, empty=not _values(shown))


def step_chart(
    categories: Sequence[str],
    series: Sequence[Bars],
    unit: Unit,
    y_title: Words,
    x_title: Words,
    *,
    bars: bool = False,
    low: float = 0.0,
    log: bool | None = False,
    limits: Sequence[Limit] = (),
    label_id: str = "",
) -> str:
    """Return one place per category, with bars or with points that a line joins.

    Args:
        categories: what stands below each place
        series: their values, in the order of the categories
        unit: of the values
        y_title: of the axis; its unit is added
        x_title: of the categories
        bars: draws bars instead of points; these always begin at 0
        low: where the axis begins
        log: logarithmic axis; None: where the values need it
        limits: levels to compare with
        label_id: ids of the elements that hold title and text alternative
    """
    categories, shown = categories[:MAX_CATEGORIES], series[:MAX_SERIES]
    lines = [Series(one.name, list(enumerate(one.values[: len(categories)]))) for one in shown]
    found = [*_values(lines), *_levels(limits)]
    positive = [value for value in found if value > 0]
    logged = bool(positive) and (max(positive) / min(positive) >= _LOG_FROM if log is None else log)
    axis = Axis.log(positive) if logged and not bars else Axis.linear([0.0 if bars else low, *found])
    legend, top = _legend([one.name for one in shown], limits)
    frame = _Frame(axis, top, unit, y_title)
    width = (RIGHT - LEFT) / max(len(categories), 1)
    parts = [*frame.grid(), *_limits(limits, frame)]
    parts += _category_labels(categories, width, top)
    for number, one in enumerate(lines):
        if bars:
            parts += _bars((number, len(lines)), one, categories, width, frame)
            continue
        places = [(LEFT + (x + 0.5) * width, frame.y(y) if y is not None else None) for x, y in one.points]
        parts += _line(number, places, alone=len(places) > MAX_DOTS)
        parts += [
            _marker(number, x, y, f"{categories[at]}: {one.name.en} {show(one.points[at][1], unit)}")
            for at, (x, y) in enumerate(places)
            if y is not None and len(places) <= MAX_DOTS
        ]
    parts += frame.x_title(x_title)
    return _svg([*legend, *parts], top, label_id, empty=not _values(lines))


def row_chart(rows: Sequence[tuple[str, float]], unit: Unit, *, label_id: str = "") -> str:
    """Return one bar to the right per row, with its name above it and its value beside it."""
    rows = [(name, value) for name, value in rows[:MAX_ROWS] if math.isfinite(value)]
    largest = max((value for _, value in rows), default=0.0) or 1.0
    parts = []
    y = 4.0
    for name, value in rows:
        told = show(value, unit)
        room = RIGHT - width_of(told, 12) - 20
        parts.append(text_element(8, y + 12, name, "", room))
        parts.append(f'<text class="end strong" x="{RIGHT}" y="{num(y + 12)}">{escaped(told)}</text>')
        length = max(min(value / largest, 1.0), 0.0) * (RIGHT - 8)
        parts.append(_rect("track", 8, y + 18, RIGHT - 8, 8))
        parts.append(_rect("s0 bar", 8, y + 18, length, 8))
        y += 38
    return _svg(parts, y - PLOT - BELOW, label_id, empty=not rows)


class _Frame:
    """The y axis of a plot."""

    def __init__(self, axis: Axis, top: float, unit: Unit, title: Words, above: float = 0) -> None:
        """``above``: px that are kept free between the title and the plot."""
        self._above = above
        self.axis, self.unit, self.top, self.bottom = axis, unit, top, top + PLOT
        self._scale = scale(axis.high, unit)
        self._title = _with_unit(title, self._scale.suffix)

    def y(self, value: float) -> float:
        """Return where a value stands."""
        return self.bottom - self.axis.place(value) * PLOT

    def grid(self) -> list[str]:
        """Return lines, their labels and the title of the axis."""
        factor, axis = self._scale.factor, self.axis
        low, high = axis.low * factor, axis.high * factor
        places = log_ticks(low, high) if axis.logarithmic else ticks(low, high, 5)
        parts = _both(8, self.top - 14 - self._above, self._title, "muted")
        for place in places:
            y = self.y(place / factor)
            step = place if axis.logarithmic else nice_step(high - low, 5)
            parts.append(line("grid", LEFT, y, RIGHT, y))
            label = tick_text(place, step)
            parts.append(text_element(LEFT - 6, y + 4, label, "small muted end", LEFT, 11))
        parts.append(line("rule", LEFT, self.bottom, RIGHT, self.bottom))
        return parts

    def x_title(self, title: Words) -> list[str]:
        """Return the title of the x axis."""
        return _both(RIGHT, self.bottom + 31, title, "muted end")


def _svg(parts: Iterable[str], top: float, label_id: str, *, empty: bool) -> str:
    height = top + PLOT + BELOW
    if empty:
        height = max(height, 40)
        parts = [*parts, *_both(WIDTH / 2, height / 2, words("no_data"), "muted middle")]
    labelled = f' aria-labelledby="{escaped(label_id)}"' if label_id else ""
    box = f'viewBox="0 0 {WIDTH} {num(height)}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" class="chart" {box} role="img"{labelled}>'
    return "\n".join((head, *parts, "</svg>"))


def _values(series: Iterable[Series]) -> list[float]:
    return [y for one in series for _, y in one.points if y is not None and math.isfinite(y)]


def _levels(limits: Iterable[Limit]) -> list[float]:
    return [limit.at for limit in limits if math.isfinite(limit.at)]


def _with_unit(title: Words, suffix: str) -> Words:
    return Words(f"{title.en}, {suffix}", f"{title.zh}（{suffix}）") if suffix else title


def _both(x: float, y: float, told: Words, style: str, room: float = WIDTH - 16) -> list[str]:
    if told.en == told.zh:
        return [text_element(x, y, told.en, style, room)]
    return [
        text_element(x, y, told.en, f"{style} en", room),
        text_element(x, y, told.zh, f"{style} zh", room),
    ]


def _legend(
    names: Sequence[Words], limits: Sequence[Limit], extra: float = 0, *, always: bool = False
) -> tuple[list[str], float]:
    """Return the legend and where the plot begins. Both languages have the same room."""
    entries = [(name, _swatch(number)) for number, name in enumerate(names)]
    entries += [(limit.name, '<path class="limit" d="M0 0H20"/>') for limit in limits]
    if len(entries) <= 1 and not always:
        entries = []  # the title of the chart says what it is
    drawn = [_legend_in(entries, language) for language in ("en", "zh")]
    rows = max(count for _, count in drawn)
    parts = [part for found, _ in drawn for part in found]
    return parts, 32 + rows * _LEGEND_ROW + extra


def _legend_in(entries: Sequence[tuple[Words, str]], language: str) -> tuple[list[str], int]:
    parts, x, row = [], 8.0, 0
    for name, swatch in entries:
        told = cut(getattr(name, language), WIDTH - 50, 12)
        width = 26 + width_of(told, 12) + 14
        if x > 8 and x + width - 14 > WIDTH:
            x, row = 8.0, row + 1
        y = 12 + row * _LEGEND_ROW
        parts.append(f'<g class="{language}" transform="translate({num(x)} {y - 4})">{swatch}</g>')
        parts.append(text_element(x + 26, y, told, language, WIDTH))
        x += width
    return parts, row + 1 if entries else 0


def _swatch(number: int) -> str:
    return f'<path class="s{number}" d="M0 0H20"/>{_marker(number, 10, 0, "")}'


def _line(number: int, points: Sequence[tuple[float, float | None]], *, alone: bool = True) -> list[str]:
    """Return a path; a point between two gaps becomes a dot (``alone``), as a line of one point is invisible."""
    pieces: list[list[tuple[float, float]]] = [[]]
    for x, y in points:
        if y is None or not math.isfinite(y):
            pieces.append([])
        else:
            pieces[-1].append((x, y))
    path = "".join(
        "M" + "L".join(f"{num(x)} {num(y)}" for x, y in piece) for piece in pieces if len(piece) > 1
    )
    parts = [f'<path class="s{number}" d="{path}"/>'] if path else []
    if alone:
        parts += [_marker(number, *piece[0], "") for piece in pieces if len(piece) == 1]
    return parts


def _marker(number: int, x: float, y: float, told: str) -> str:
    """Return a dot whose shape tells its series as well: circle, square, triangle, diamond."""
    shapes = (
        "m-3.5 0a3.5 3.5 0 1 0 7 0a3.5 3.5 0 1 0 -7 0",
        "m-3 -3h6v6h-6",
        "m0 -4l4 7h-8",
        "m0 -4.5l4.5 4.5l-4.5 4.5l-4.5 -4.5",
    )
    path = f'<path class="s{number} dot" d="M{num(x)} {num(y)}{shapes[number % len(shapes)]}z"'
    return f"{path}>{_title(told)}</path>" if told else f"{path}/>"


def _title(told: str) -> str:
    """Return what a browser shows where the mouse is."""
    return f"<title>{escaped(cut(told, 600, 12))}</title>"


def _bars(
    which: tuple[int, int], one: Series, categories: Sequence[str], width: float, frame: _Frame
) -> list[str]:
    number, of = which
    each = min(width * 0.8 / of, 28)
    start = LEFT + width / 2 - each * of / 2 + each * number
    parts = []
    for at, (_, value) in enumerate(one.points):
        if value is None or not math.isfinite(value):
            continue
        y, zero = frame.y(value), frame.y(0.0)
        told = _title(f"{categories[at]}: {one.name.en} {show(value, frame.unit)}")
        parts.append(
            _rect(f"s{number} bar", start + at * width, min(y, zero), each * 0.92, abs(zero - y), told)
        )
    return parts


def _category_labels(categories: Sequence[str], width: float, top: float) -> list[str]:
    """Return as many labels as have room, the last one among them."""
    widest = max((width_of(label, 11) for label in categories), default=0.0) + 6
    every = max(math.ceil(widest / width), 1)
    last = len(categories) - 1
    return [
        _x_label(LEFT + (at + 0.5) * width, top, label)
        for at, label in enumerate(categories)
        if (last - at) % every == 0
    ]


def _x_label(x: float, top: float, label: str) -> str:
    half = width_of(label, 11) / 2
    return text_element(min(x, WIDTH - half - 1), top + PLOT + 15, label, "small muted middle", 80, 11)


def _limits(limits: Iterable[Limit], frame: _Frame) -> list[str]:
    return [
        line("limit", LEFT, frame.y(limit.at), RIGHT, frame.y(limit.at))
        for limit in limits
        if math.isfinite(limit.at)
    ]


def _bands(bands: Sequence[Band], x_of: _Place, top: float) -> list[str]:
    parts = []
    free = float(LEFT)
    for number, band in enumerate(bands[:MAX_CATEGORIES]):
        x0, x1 = x_of(band.start), x_of(band.end)
        parts.append(_rect("band odd" if number % 2 else "band", x0, top, max(x1 - x0, 0), PLOT))
        half = width_of(band.label, 11) / 2
        middle = (x0 + x1) / 2
        if middle - half >= free and x1 - x0 >= half:
            parts.append(text_element(middle, top + 12, band.label, "small muted middle", 60, 11))
            free = middle + half + 4
    return parts


def _marks(marks: Sequence[Mark], x_of: _Place, top: float) -> list[str]:
    parts = []
    drawn, free = -10.0, float(LEFT)
    for mark in sorted(marks)[:MAX_MARKS]:
        x = x_of(mark.at)
        if x - drawn < 3:
            continue
        drawn = x
        parts.append(line("mark", x, top, x, top + PLOT))
        half = width_of(mark.label, 11) / 2
        if x - half >= free - 6:
            parts.append(text_element(x, top - 3, mark.label, "small warned middle", 40, 11))
            free = x + half + 10
    return parts


def _rect(style: str, x: float, y: float, width: float, height: float, inside: str = "") -> str:
    size = f'width="{num(width)}" height="{num(height)}"'
    return f'<rect class="{style}" x="{num(x)}" y="{num(y)}" {size}>{inside}</rect>'
