"""The page of a load test, from its record: what a person wants to know, the most important first."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec
import yaml

from mynah.sim.load.derived import best_step, cpu_per_talker_minute, memory_per_device, summed
from mynah.sim.load.markup import (
    Cell,
    code,
    document,
    facts,
    folded,
    heading,
    listed,
    paragraph,
    row,
    table,
    tiles,
    told,
    why,
)
from mynah.sim.load.page_charts import charts
from mynah.sim.load.record import Bottleneck, Distribution, LoadReport, Machine, Outcomes, Stage, Step, Usage
from mynah.sim.load.scenario import CHANGED
from mynah.sim.load.units import NOTHING, Unit, show
from mynah.sim.load.words import Words, counted, same, words

MAX_STEPS: Final = 500
"""Rows of a table; a report of more steps is shown up to here, and its data has all."""

MAX_KINDS: Final = 50
"""Kinds of errors in the table; the rest are summed up in its last row."""

MAX_WARNINGS: Final = 200
"""Rows of the table of warnings."""


def render(report: LoadReport) -> str:
    """Return the page as HTML: one file, without script, network or outside parts."""
    title = f"{words('title').en} · {report.target or NOTHING}"
    return document(title, _parts(report))


def _parts(report: LoadReport) -> Iterator[str]:
    yield heading(words("title"), 1)
    yield facts(
        (words(name), value)
        for name, value in (
            ("target", report.target),
            ("started", report.started),
            ("scenario", _scenario(report)),
            ("version", report.version),
        )
        if value
    )
    yield from _verdict(report)
    yield heading(words("capacity"))
    for one in capacity(report):
        yield paragraph(one, "answer")
    yield from bottleneck(report)
    yield tiles(_key_figures(report))
    if report.steps:
        yield heading(words("steps"))
        yield paragraph(words("steps_about"), "soft")
        yield _steps(report.steps)
    yield from charts(report)
    if report.steps:
        yield from _errors(report.steps)
    if report.steps or report.warnings:
        yield from _warnings(report)
    yield from _resources(report)
    yield from _machine(report)
    yield from _details(report.steps)
    yield from _again(report)


# ---------------------------------------------------------------- the answer


def verdict(report: LoadReport) -> tuple[str, Words]:
    """Return ``good``, ``bad`` or ``hint`` (neither), and the verdict in words."""
    if not report.steps:
        return "hint", words("nothing_measured")
    if report.interrupted:
        good = all(step.passed for step in report.steps)
        return ("hint", words("interrupted_good")) if good else ("bad", words("interrupted_bad"))
    return ("good", words("passed")) if report.passed else ("bad", words("failed"))


def capacity(report: LoadReport) -> list[Words]:
    """Return the answer to "how many devices can it hold", in sentences."""
    best, knee = best_step(report), report.knee
    if not report.steps:
        return [words("capacity_none")]
    found = []
    if knee is not None:
        size = _crowd(knee.devices, knee.talkers)
        found.append(words("capacity_knee", crowd=size) if knee.devices else words("capacity_knee_at_once"))
        found.append(words("capacity_sign", step=str(knee.step), sign=knee.sign))
    elif best is not None and all(step.passed for step in report.steps):
        found.append(words("capacity_at_least", crowd=_crowd(best.devices, best.talkers)))
    if best is None:
        found.append(words("capacity_no_step"))
    elif knee is not None or not all(step.passed for step in report.steps):
        found.append(words("capacity_best", crowd=_crowd(best.devices, best.talkers), step=str(best.number)))
    return found


def bottleneck(report: LoadReport) -> Iterator[str]:
    """Yield what keeps the server from more, and why that is thought."""
    if not report.steps:
        return
    name = words(f"bottleneck_{report.bottleneck.name.lower()}")
    inside = told(words("bottleneck", name=name))
    yield f"<p><strong>{inside}</strong> {told(_sentence(report.evidence))}</p>"
    if report.bottleneck is Bottleneck.GENERATOR:
        yield paragraph(words("lower_bound"), "hint")


def _crowd(devices: int, talkers: int) -> Words:
    size = counted("n_devices", devices)
    return words("crowd_talking", crowd=size, talkers=f"{talkers:,}") if talkers else size


def _scenario(report: LoadReport) -> Words | str:
    """Return the name of what was run; one that the command line has changed is told with what was changed."""
    if not report.scenario:
        return ""
    name = str(report.scenario.get("name") or "")
    if not report.changed:
        return name or words("scenario_custom")
    # The page says that it was changed in its reader's language, and what.
    known = name.removesuffix(CHANGED)
    base = same(known) if known else words("scenario_custom")
    return words("scenario_changed", name=base, keys=", ".join(list(report.changed)[:MAX_KINDS]))


def _verdict(report: LoadReport) -> Iterator[str]:
    style, text = verdict(report)
    sign = {"good": "✔", "bad": "✘", "hint": "■"}[style]
    yield f'<div class="verdict {style}"><strong><span aria-hidden="true">{sign}</span> {told(text)}</strong>'
    yield listed(report.reasons[:MAX_KINDS])
    yield "</div>"
    fatal = [check for check in report.machine.checks if check.fatal and not check.ok]
    if fatal:
        yield '<div class="verdict hint">' + told(words("fatal_checks"))
        yield listed(f"{check.name}: {check.found}" for check in fatal[:MAX_KINDS]) + "</div>"


def _key_figures(report: LoadReport) -> list[tuple[Words, str]]:
    step = best_step(report) or (report.steps[-1] if report.steps else None)
    if step is None:
        return []
    found: list[tuple[Words, str | None]] = [
        (words("of_step"), str(step.number)),
        (words("connected"), show(step.connected, Unit.COUNT)),
        (words("talkers"), show(step.talkers, Unit.COUNT) if step.talkers else None),
        (words("success"), show(step.success, Unit.SHARE)),
        (words("connects_per_s"), show(step.connects_per_s, Unit.PER_S)),
        (words("hello_p95"), _time(step, Stage.HELLO, "p95")),
        (words("first_audio_p50"), _time(step, Stage.FIRST_AUDIO, "p50")),
        (words("first_audio_p95"), _time(step, Stage.FIRST_AUDIO, "p95")),
        (words("late"), show(step.frames.late_share, Unit.SHARE) if step.frames.received else None),
        (words("server_cpu"), show(step.server.cpu, Unit.CORES) if step.server else None),
        (words("memory_per_device"), show(memory_per_device(step, report.at_rest), Unit.BYTES)),
        (words("cpu_talker"), _seconds(cpu_per_talker_minute(step))),
    ]
    return [(name, value) for name, value in found if value and value != NOTHING]


# ---------------------------------------------------------------- tables


def _steps(steps: list[Step]) -> str:
    talked = any(step.talkers or step.turns.attempted for step in steps)
    timed = any(_has(step, Stage.FIRST_AUDIO) for step in steps)
    head = [
        "step",
        "result",
        "devices",
        "talkers",
        "connected",
        "success",
        "connections",
        "turns",
        "connects_per_s",
    ]
    head += [
        "connect_p95",
        "hello_p95",
        "first_audio_p50",
        "first_audio_p95",
        "late",
        "dry",
        "unanswered",
        "pending",
        "lost",
        "busy",
        "hung_up",
    ]
    if not talked:
        head = [name for name in head if name not in {"talkers", "turns", "late", "dry"}]
    rare = {"unanswered", "pending", "busy", "hung_up"}
    head = [name for name in head if name not in rare or any(getattr(step, name) for step in steps)]
    if not timed:
        head = [name for name in head if not name.startswith("first_audio")]
    rows = []
    for step in steps[:MAX_STEPS]:
        cells = _step_cells(step)
        rows.append(row([cells[name] for name in head], 2, "told" if step.reasons else ""))
        if step.reasons:
            rows.append(why(" · ".join(step.reasons[:MAX_KINDS]), len(head)))
    return table(words("steps_caption"), [words(name) for name in head], rows, 2)


def _step_cells(step: Step) -> dict[str, Words | str]:
    def packets(number: int, share: float) -> str:
        return f"{show(share, Unit.SHARE)} ({number:,})" if step.frames.received else NOTHING

    frames = step.frames
    return {
        "step": str(step.number),
        "result": _ok(step.passed, "step_passed", "step_failed"),
        "devices": show(step.devices, Unit.COUNT),
        "talkers": show(step.talkers, Unit.COUNT),
        "connected": show(step.connected, Unit.COUNT),
        "success": show(step.success, Unit.SHARE),
        "connections": _outcomes(step.connections),
        "turns": _outcomes(step.turns),
        "connects_per_s": show(step.connects_per_s, Unit.PER_S),
        "connect_p95": _time(step, Stage.CONNECT, "p95"),
        "hello_p95": _time(step, Stage.HELLO, "p95"),
        "first_audio_p50": _time(step, Stage.FIRST_AUDIO, "p50"),
        "first_audio_p95": _time(step, Stage.FIRST_AUDIO, "p95"),
        "late": packets(frames.late, frames.late_share),
        "dry": packets(frames.dry, frames.dry / frames.received if frames.received else 0.0),
        "unanswered": show(step.unanswered, Unit.COUNT),
        "pending": show(step.pending, Unit.COUNT),
        "lost": show(step.lost, Unit.COUNT),
        "busy": show(step.busy, Unit.COUNT),
        "hung_up": show(step.hung_up, Unit.COUNT),
    }


def _errors(steps: list[Step]) -> Iterator[str]:
    for key, of in (
        ("errors", {step.number: step.errors for step in steps}),
        ("faults", {step.number: step.faults for step in steps}),
    ):
        total = {kind: number for kind, number in summed(list(of.values())).items() if number}
        yield heading(words(key))
        if not total:
            yield paragraph(words(f"{key}_none"))
            continue
        kinds = list(total)[:MAX_KINDS]
        rows = [
            row(
                [kind.replace("_", " ") if key == "faults" else kind, _where(of, kind), f"{total[kind]:,}"], 2
            )
            for kind in kinds
        ]
        if len(total) > MAX_KINDS:
            rest = sum(list(total.values())[MAX_KINDS:])
            rows.append(row([words("others"), same(""), f"{rest:,}"], 2))
        yield table(words(f"{key}_caption"), [words("kind"), words("in_steps"), words("number")], rows, 2)


def _where(of: dict[int, dict[str, int]], kind: str) -> str:
    found = [f"{step}: {counts[kind]:,}" for step, counts in of.items() if counts.get(kind)]
    return ", ".join(found[:MAX_KINDS]) + (" …" if len(found) > MAX_KINDS else "")


def _warnings(report: LoadReport) -> Iterator[str]:
    yield heading(words("warnings"))
    if not report.warnings:
        yield paragraph(words("warnings_none"))
        return
    rows = [
        row([str(number), show(warned.at_s, Unit.SECONDS), warned.text], 3)
        for number, warned in enumerate(report.warnings[:MAX_WARNINGS], 1)
    ]
    if len(report.warnings) > MAX_WARNINGS:
        rows.append(row(["…", same(""), words("more", n=f"{len(report.warnings) - MAX_WARNINGS:,}")], 3))
    yield table(words("warnings_caption"), [same("#"), words("when"), words("what")], rows, 3)


def _resources(report: LoadReport) -> Iterator[str]:
    rows = []
    if report.at_rest:
        rows.append(_usage(words("at_rest"), report.at_rest, None, ""))
    for step in report.steps[:MAX_STEPS]:
        each = show(memory_per_device(step, report.at_rest), Unit.BYTES)
        label = words("step_n", n=str(step.number), devices=f"{step.devices:,}")
        rows.append(_usage(label, step.server, step, each))
    if report.afterwards:
        rows.append(_usage(words("afterwards"), report.afterwards, None, ""))
    if not rows:
        return
    yield heading(words("resources"))
    if not any(step.server for step in report.steps):
        yield paragraph(words("server_unseen"))
    head = [
        "moment",
        "processes",
        "cpu",
        "main_thread",
        "machine_memory",
        "memory_per_device",
        "cpu_talker",
        "descriptors",
        "threads",
    ]
    head += [
        "generator_processes",
        "generator_cpu",
        "generator_main_thread",
        "generator_memory",
        "generator_descriptors",
        "generator_threads",
    ]
    head += ["lag_p50", "lag_p95", "lag_max"]
    yield table(words("resources_caption"), [words(name) for name in head], rows, 1)


def _usage(name: Words, server: Usage | None, step: Step | None, each: str) -> str:
    return row(
        [
            name,
            *_used(server)[:4],
            each,
            _seconds(cpu_per_talker_minute(step)) if step else "",
            *_used(server)[4:],
            *(_used(step.generator) if step else [""] * 6),
            *(
                [show(value, Unit.MS) for value in (step.lag.p50, step.lag.p95, step.lag.max)]
                if step
                else [""] * 3
            ),
        ],
        1,
    )


def _used(usage: Usage | None) -> list[str]:
    if usage is None:
        return [NOTHING] * 6
    return [
        show(usage.processes, Unit.COUNT),
        show(usage.cpu, Unit.CORES),
        show(usage.main, Unit.CORES) if usage.main else NOTHING,
        show(usage.resident, Unit.BYTES),
        show(usage.descriptors, Unit.COUNT),
        show(usage.threads, Unit.COUNT),
    ]


def _machine(report: LoadReport) -> Iterator[str]:
    machine = report.machine
    if machine == Machine():
        return
    yield heading(words("machine"))
    yield paragraph(words("machine_about"), "soft")
    yield facts(
        (words(name), value)
        for name, value in (
            ("processor", machine.cpu),
            ("cores", show(machine.cores, Unit.COUNT) if machine.cores else ""),
            ("machine_memory", show(machine.memory, Unit.BYTES) if machine.memory else ""),
            ("system", machine.system),
            ("python", machine.python),
        )
        if value
    )
    if not machine.checks:
        return
    rows = []
    for check in machine.checks[:MAX_KINDS]:
        state = _ok(check.ok, "check_good", "check_fatal" if check.fatal else "check_bad")
        remedy = Cell(f"<code>{told(check.remedy)}</code>" if check.remedy else "")
        rows.append(row([check.name, state, check.found, check.wanted, remedy], 5))
    head = [words(name) for name in ("check", "result", "found", "wanted", "remedy")]
    yield table(words("checks_caption"), head, rows, 5)


def _details(steps: list[Step]) -> Iterator[str]:
    if not steps:
        return
    yield heading(words("details"))
    rows = []
    for step in steps[:MAX_STEPS]:
        timed = [
            (words(f"stage_{stage.name.lower()}"), step.times[stage]) for stage in Stage if _has(step, stage)
        ]
        timed += [
            (words(name), one) for name, one in (("jitter", step.jitter), ("lag", step.lag)) if one.count
        ]
        rows += [_distribution(step, name, times) for name, times in timed]
    head = [words("step"), words("devices"), words("time_of"), words("count"), words("mean")]
    head += [same(name) for name in ("p50", "p95", "p99")]
    yield folded(words("all_times"), table(words("times_caption"), [*head, words("max")], rows, 3))
    names = ("step", "devices", "sent", "received", "late_number", "dry_number", "worst_gap", "overflow")
    head = [words(name) for name in (*names, "began", "ramp", "held")]
    yield folded(words("all_audio"), table(words("audio_caption"), head, map(_audio, steps[:MAX_STEPS]), 1))


def _distribution(step: Step, name: Words, times: Distribution) -> str:
    figures = [show(value, Unit.MS) for value in (times.mean, times.p50, times.p95, times.p99, times.max)]
    return row([str(step.number), f"{step.devices:,}", name, f"{times.count:,}", *figures], 3)


def _audio(step: Step) -> str:
    frames = step.frames
    counts = [
        f"{number:,}" for number in (step.devices, frames.sent, frames.received, frames.late, frames.dry)
    ]
    gap = show(frames.worst_gap_ms, Unit.MS)
    times = (step.began_s, step.ramped_s - step.began_s, step.ended_s - step.ramped_s)
    shown = [show(seconds, Unit.SECONDS) for seconds in times]
    return row([str(step.number), *counts, gap, f"{frames.overflow:,}", *shown], 1)


def _again(report: LoadReport) -> Iterator[str]:
    if report.command or report.scenario:
        yield heading(words("again"))
    if report.command:
        yield code(report.command)
    if report.scenario:
        yield paragraph(words("scenario_about"))
        plain = msgspec.to_builtins(report.scenario)
        yield code(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True))
    yield heading(words("terms"))
    terms = ["first_audio", "talker", "unanswered", "pending", "late", "dry", "overflow"]
    terms += ["busy", "hung_up", "jitter", "lag", "memory"]
    yield facts((words(f"term_{name}"), words(f"term_{name}_is")) for name in terms)
    yield paragraph(words("data_format", n=str(report.format)), "soft")


# ---------------------------------------------------------------- small things


def _ok(good: bool, yes: str, no: str) -> Cell:
    style, sign = ("good", "✔") if good else ("bad", "✘")
    text = told(words(yes if good else no))
    return Cell(f'<span class="state {style}"><span aria-hidden="true">{sign}</span> {text}</span>')


def _outcomes(outcomes: Outcomes) -> str:
    return f"{outcomes.succeeded:,} / {outcomes.attempted:,}" if outcomes.attempted else NOTHING


def _sentence(text: str) -> str:
    """Return what was found as a sentence."""
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?", "。")) or not text else ".")


def _has(step: Step, stage: Stage) -> bool:
    return stage in step.times and step.times[stage].count > 0


def _time(step: Step, stage: Stage, figure: str) -> str:
    return show(getattr(step.times[stage], figure), Unit.MS) if _has(step, stage) else NOTHING


def _seconds(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.2f} s" if value < 9.995 else f"{value:.1f} s"
