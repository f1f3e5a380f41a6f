"""The page of two load tests side by side."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

from mynah.sim.load.charts import Bars, step_chart
from mynah.sim.load.compare_data import Caution, Compared, Comparison, Figure, Pair, Side
from mynah.sim.load.markup import (
    Cell,
    document,
    figure,
    heading,
    label_id,
    listed,
    paragraph,
    row,
    table,
    told,
)
from mynah.sim.load.noise import Change
from mynah.sim.load.page_charts import all_told, short
from mynah.sim.load.units import NOTHING, Unit, show
from mynah.sim.load.words import Words, counted, same, words

MAX_LARGEST: Final = 8
"""Figures named at the top; the tables have all."""

MAX_CAUTIONS: Final = 50
"""Rows of the table of cautions."""

_DRAWN: Final = (
    (Figure.FIRST_AUDIO_P95, "stage_first_audio", "time"),
    (Figure.CONNECT_P95, "stage_connect", "time"),
    (Figure.HELLO_P95, "stage_hello", "time"),
    (Figure.LATE, "frames", "of_packets"),
    (Figure.SERVER_CPU, "cpu", "cores_in_use"),
    (Figure.MEMORY_PER_DEVICE, "memory_per_device", "memory"),
)
"""Figures that have a chart, its words, and those of its axis."""


def render(found: Comparison) -> str:
    """Return the page as HTML: one file, without script, network or outside parts."""
    title = f"{words('compare').en} · {found.before.target or NOTHING} · {found.after.target or NOTHING}"
    return document(title, _parts(found))


def _parts(found: Comparison) -> Iterator[str]:
    yield heading(words("compare"), 1)
    yield _result(found)
    yield _sides(found.before, found.after)
    yield from _cautions(found.cautions)
    yield heading(words("steps"))
    if not found.pairs:
        yield paragraph(words("compare_no_pairs"))
    for key, only in (("only_before", found.only_before), ("only_after", found.only_after)):
        if only:
            yield paragraph(
                words(key, devices=", ".join(f"{devices:,}" for devices in only[:MAX_CAUTIONS])), "soft"
            )
    if found.pairs:
        yield from _charts(found)
        yield heading(words("compare_figures"))
        yield from (_pair(pair) for pair in found.pairs)
    yield heading(words("compare_noise"))
    yield paragraph(words("compare_noise_is"))


def _result(found: Comparison) -> str:
    worse, better = found.changes(Change.WORSE), found.changes(Change.BETTER)
    style = "hint" if not found.pairs or (worse and better) else "bad" if worse else "good"
    if not found.pairs:
        text = words("compare_no_pairs")
    elif not worse and not better:
        text = words("compare_same")
    else:
        text = words("compare_result", better=counted("n_figures", better), worse=counted("n_figures", worse))
    sign = {"good": "✔", "bad": "✘", "hint": "■"}[style]
    head = (
        f'<div class="verdict {style}"><strong><span aria-hidden="true">{sign}</span> {told(text)}</strong>'
    )
    return f"{head}{listed(_largest(found))}</div>"


def _largest(found: Comparison) -> list[Words]:
    """Return the figures that changed most, a figure once: where its ratio is farthest from 1."""
    changed: dict[Figure, tuple[float, Words]] = {}
    for pair in found.pairs:
        for one in pair.figures:
            if one.change not in {Change.BETTER, Change.WORSE}:
                continue
            how_far = abs(math.log(one.ratio)) if one.ratio else math.inf
            if one.figure not in changed or how_far > changed[one.figure][0]:
                changed[one.figure] = (how_far, _told(pair, one))
    return [text for _, text in sorted(changed.values(), key=lambda entry: -entry[0])[:MAX_LARGEST]]


def _told(pair: Pair, one: Compared) -> Words:
    return words(
        "compare_one",
        change=words(f"change_{one.change}"),
        figure=words(f"figure_{one.figure}"),
        devices=f"{pair.devices:,}",
        before=_shown(one.before, one),
        after=_shown(one.after, one),
        ratio=_ratio(one),
    )


def _sides(before: Side, after: Side) -> str:
    def limit(side: Side) -> Words:
        if side.knee_devices is not None:
            return same(f"{side.knee_devices:,}")
        if side.most_passed is None:
            return same(NOTHING)
        return words("at_least", n=f"{side.most_passed:,}") if side.passed else words("unclear")

    def verdict(side: Side) -> Words:
        if not side.steps:
            return words("nothing_measured")
        return words("stopped") if side.interrupted else words("passed" if side.passed else "failed")

    def most(side: Side) -> str:
        return NOTHING if side.most_passed is None else f"{side.most_passed:,}"

    rows: list[tuple[Words, Words | str, Words | str]] = [
        (words("target"), before.target, after.target),
        (words("started"), before.started, after.started),
        (words("version"), before.version, after.version),
        (words("result"), verdict(before), verdict(after)),
        (words("served_well"), limit(before), limit(after)),
        (words("most_passed"), most(before), most(after)),
        (words("bottleneck_name"), _bottleneck(before), _bottleneck(after)),
        (words("evidence"), before.evidence, after.evidence),
    ]
    head = [same(""), words("before"), words("after")]
    return table(words("compare_sides"), head, [row(one, 3) for one in rows], 3)


def _bottleneck(side: Side) -> Words:
    return words(f"bottleneck_{side.bottleneck.name.lower()}")


def _cautions(cautions: list[Caution]) -> Iterator[str]:
    yield heading(words("cautions"))
    if not cautions:
        yield paragraph(words("cautions_none"))
        return
    rows = [
        row([words(f"differs_{one.about.name.lower()}"), one.name, one.before, one.after], 4)
        for one in cautions[:MAX_CAUTIONS]
    ]
    if len(cautions) > MAX_CAUTIONS:
        rows.append(row([words("others"), str(len(cautions) - MAX_CAUTIONS), "", ""], 4))
    head = [words("kind"), words("what"), words("before"), words("after")]
    yield table(words("cautions_caption"), head, rows, 4)


def _charts(found: Comparison) -> Iterator[str]:
    yield '<div class="charts">'
    categories = [short(pair.devices) for pair in found.pairs]
    for number, (name, key, axis) in enumerate(_DRAWN, 1):
        compared = [_figure(pair, name) for pair in found.pairs]
        series = [
            Bars(words("before"), [one.before if one else None for one in compared]),
            Bars(words("after"), [one.after if one else None for one in compared]),
        ]
        unit = next((one.unit for one in compared if one), None)
        if unit is None:
            continue
        svg = step_chart(
            categories, series, unit, words(axis), words("axis_devices"), bars=True, label_id=label_id(number)
        )
        text = all_told(
            [(one.name, one.values) for one in series], unit, [pair.devices for pair in found.pairs]
        )
        yield figure(number, words(f"figure_{name}"), words(f"chart_{key}_about"), text, svg)
    yield "</div>"


def _figure(pair: Pair, figure: Figure) -> Compared | None:
    return next((one for one in pair.figures if one.figure is figure), None)


def _pair(pair: Pair) -> str:
    rows = []
    for one in pair.figures:
        cells = [_shown(one.before, one), _shown(one.after, one), _ratio(one)]
        rows.append(row([words(f"figure_{one.figure}"), _change(one.change), *cells], 2))
    talkers = f"{pair.talkers_before:,}" + (
        "" if pair.talkers_before == pair.talkers_after else f" → {pair.talkers_after:,}"
    )
    state = (
        words("passed_both")
        if pair.passed_before and pair.passed_after
        else words(f"passed_{_state(pair.passed_before)}_{_state(pair.passed_after)}")
    )
    title = words(
        "pair",
        devices=f"{pair.devices:,}",
        talkers=talkers,
        state=state,
        before=str(pair.before),
        after=str(pair.after),
    )
    head = [words(name) for name in ("figure", "change", "before", "after", "ratio")]
    return table(title, head, rows, 2)


def _ratio(one: Compared) -> str:
    if one.ratio is None:
        return NOTHING
    return f"× {one.ratio:.2f}" if one.ratio < 99.95 else f"× {one.ratio:,.0f}"


def _state(passed: bool) -> str:
    return "yes" if passed else "no"


def _shown(value: float | None, one: Compared) -> str:
    if one.unit is Unit.SECONDS and value is not None:
        return f"{value:.2f} s"
    return show(value, one.unit)


def _change(change: Change) -> Cell:
    style = {Change.BETTER: "good", Change.WORSE: "bad"}.get(change, "soft")
    sign = {Change.BETTER: "▲", Change.WORSE: "▼", Change.SAME: "=", Change.UNKNOWN: "?"}[change]
    text = told(words(f"change_{change}"))
    return Cell(f'<span class="state {style}"><span aria-hidden="true">{sign}</span> {text}</span>')
