"""What a load test's figures say: did a step pass, where does the server stop being good, and what holds it back.

Pure functions of the report's data. They claim no more than the data show: too few measurements are no sign, and what
cannot be told apart is `Bottleneck.UNKNOWN`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from mynah.sim.load.derived import ENOUGH, first_audio_reference
from mynah.sim.load.record import Bottleneck, Distribution, Knee, Machine, Sample, Stage, Step, Usage
from mynah.sim.load.scenario import Thresholds

ENOUGH_FRAMES: Final = 200
"""Packets of a step below which a share of them is no sign: 12 s of speech."""

GROWTH: Final = 2.0
"""How far the first audio may grow until the knee, where the thresholds do not say."""
QUICK_MS: Final = 75.0
"""First audio within this time grows from here: twice as much of less is nothing that anybody hears."""
SLOWER: Final = 3.0
"""How many times slower than in the first step connections are made beyond the knee."""
SLOW_MS: Final = 200.0
"""A connection that takes less is fast, however much faster the first ones were."""
LATE_JUMP: Final = 0.005
"""Share of late packets, above that of the first step, beyond the knee."""

FULL: Final = 0.9
"""Of the cores, or of one: nothing much is left. The rest goes to what no process is charged for."""

IDLE_CORES: Final = 0.25
"""That many cores have to be free before it may be said that there was room."""

LAG_MS: Final = 20.0
"""p95 of the generators' lateness from which on their times are their own."""

MEMORY_SHARE: Final = 0.1
"""Of the memory: less than this available means that it is exhausted."""

BUSY_SHARE: Final = 0.01
"""Of the attempts to connect: more than this told to come back later means that the server refuses on purpose."""

CROWDED: Final = 0.97
"""Of the cores, in a sample: all of them were in use, and whoever wanted one had to wait."""
CROWDED_SHARE: Final = 0.25
"""Of the samples: so many crowded ones explain late answers and packets, whatever the average is."""

OTHERS_CORES: Final = 0.25
"""Cores that somebody else uses, worth a word."""
FAILED_SHARE: Final = 0.5
"""Of all failures: what makes up so many is what was wrong."""

PORT_ERRORS: Final = frozenset({"no local port left"})
DESCRIPTOR_ERRORS: Final = frozenset({"no file descriptor left"})
ANSWER_ERRORS: Final = frozenset({
    "no answer", "answer without audio", "answer without stt", "answer without end",
    "no answer by the end of the step",
})  # fmt: skip
"""Kinds of failure as `mynah.sim.load.device`, ``dial`` and ``talker`` name them."""

EARLY_ERRORS: Final = frozenset({"answered before the end of the question"})
"""No failure of a connection or service: also what a server does that has no time and says so aloud."""

STOPPED: Final = "stopped before its end"
"""Reason of a step in which somebody ended the test."""

SERVER_FILES: Final = "open files of the server"
"""Name of the check of `mynah.sim.load.machine` that found the server's limit."""


# ---------------------------------------------------------------- did it pass


def judge(
    step: Step, before: Sequence[Step], thresholds: Thresholds, *, churn: bool = False, stopped: bool = False
) -> Step:
    """Return ``step`` with ``passed`` and ``reasons`` filled in.

    ``before`` are the steps before it, for the growth of the first audio. Connections and turns have to succeed each
    for themselves, so that many of one kind do not hide failures of the other. Besides the thresholds a step fails
    when it shows nothing (no connection, or no turn though devices talk), when more connections were lost than may
    fail, when more devices than that were told to come back later, and when more than that were missing at its end:
    not with ``churn``, where devices come and go. A step that somebody ended (``stopped``) never passes; that it shows
    little is not held against the server.
    """
    reasons = [
        *([STOPPED] if stopped else [*_measured(step), *_present(step, thresholds.success, churn=churn)]),
        *_served(step, thresholds.success),
        *_timely(step, before, thresholds),
        *_heard(step, thresholds),
    ]
    return msgspec.structs.replace(step, passed=not reasons, reasons=reasons)


def _measured(step: Step) -> Iterable[str]:
    if not step.connections.attempted and not step.connected and not step.busy:
        yield "connections: nothing was measured, no device tried to connect"
    if step.talkers and step.connected and not step.turns.attempted:
        yield "turns: none came to its end; the step is held too short (hold_s), or nothing answers"


def _present(step: Step, least: float, *, churn: bool) -> Iterable[str]:
    """See whether the devices are there that the step is about."""
    # Who was told to come back has a line of its own, and to hang up idle connections is a server's right.
    excused = step.connected + step.busy + step.hung_up
    tried = step.connections.attempted or step.connected or step.busy
    if tried and not churn and step.devices - excused > step.devices * (1 - least) + 1e-9:
        yield f"connections: only {step.connected} of {step.devices} devices were connected at the end"


def _served(step: Step, least: float) -> Iterable[str]:
    for name, outcomes in (("connections", step.connections), ("turns", step.turns)):
        if outcomes.attempted and outcomes.share < least:
            yield (
                f"{name}: {_share(outcomes.share)} of {outcomes.attempted} succeeded, wanted {_share(least)}"
                f"{_why(step, outcomes.attempted - outcomes.succeeded)}"
            )
    known = max(step.devices, step.connections.attempted)
    if step.lost > known * (1 - least) + 1e-9:
        yield f"connections: {step.lost} of {known} were lost while they were needed"
    if step.busy > known * (1 - least) + 1e-9:
        yield f"connections: {_number(step.busy, 'time')} a device was told to come back later"


def _timely(step: Step, before: Sequence[Step], thresholds: Thresholds) -> Iterable[str]:
    limits = (
        (Stage.CONNECT, "connecting", thresholds.connect_p95_ms),
        (Stage.HELLO, "hello", thresholds.hello_p95_ms),
        (Stage.FIRST_AUDIO, "first audio", thresholds.first_audio_p95_ms),
    )
    for stage, name, limit in limits:
        times = _times(step, stage)
        if limit is not None and times.count and times.p95 > limit:
            yield f"{name}: p95 {times.p95:.0f} ms, wanted {limit:.0f} ms or less"
    growth = thresholds.first_audio_growth
    times = _times(step, Stage.FIRST_AUDIO)
    first = first_audio_reference([*before, step])
    if (
        growth is not None
        and first is not None
        and times.p95 > growth * max(_times(first, Stage.FIRST_AUDIO).p95, QUICK_MS)
    ):
        yield (
            f"first audio: p95 {times.p95:.0f} ms, wanted at most {growth:g} times the "
            f"{_times(first, Stage.FIRST_AUDIO).p95:.0f} ms with {_number(first.talkers, 'talker')}"
        )


def _heard(step: Step, thresholds: Thresholds) -> Iterable[str]:
    frames = step.frames
    if thresholds.late_share is not None and frames.late_share > thresholds.late_share:
        yield f"packets: {_share(frames.late_share)} late, wanted {_share(thresholds.late_share)} or less"
    dry = frames.dry / frames.received if frames.received else 0.0
    if thresholds.dry_share is not None and dry > thresholds.dry_share:
        yield (
            f"packets: {_share(dry)} after an audible gap, wanted {_share(thresholds.dry_share)} or less; "
            f"the longest was {frames.worst_gap_ms:.0f} ms"
        )
    if thresholds.overflow is not None and frames.overflow > thresholds.overflow:
        yield f"packets: {frames.overflow} lost in full devices, wanted {thresholds.overflow} or less"


def _why(step: Step, failed: int) -> str:
    """Name the most frequent failure, if there is one, in parentheses."""
    if not step.errors or not failed:
        return ""
    kind, number = max(step.errors.items(), key=lambda item: (item[1], item[0]))
    return f" (mostly: {kind}, {number} times)" if len(step.errors) > 1 else f" ({kind})"


# ---------------------------------------------------------------- the knee


def find_knee(steps: Sequence[Step], thresholds: Thresholds, *, churn: bool = False) -> Knee | None:
    """Return where the server stops being as good as with few devices; None when no step shows that.

    The knee is before the first step in which one of these is seen, compared with the first step that measured the
    same: connections or turns fail, or are lost or refused, or devices are missing at the end (not with ``churn``),
    more than the threshold allows; the p95 of the first audio has grown by the factor of the threshold, twice without
    one; connecting or hello has become three times slower and takes more than 200 ms; the share of late packets has
    risen above the threshold, or by half a percent without one. Figures of few measurements (5 times, 200 packets) are
    no sign. When the first step is bad itself, ``devices`` is 0. A step that somebody ended is not looked at.
    """
    good: Step | None = None
    for index, step in enumerate(steps):
        if STOPPED in step.reasons:
            continue
        sign = _sign(step, steps[:index], thresholds, churn=churn)
        if sign:
            devices, talkers = (good.devices, good.talkers) if good is not None else (0, 0)
            return Knee(step=step.number, devices=devices, talkers=talkers, sign=sign)
        good = step
    return None


def _sign(step: Step, before: Sequence[Step], thresholds: Thresholds, *, churn: bool) -> str:
    """Return what shows that a step is beyond the knee; empty: nothing does."""
    signs = (
        # That nothing was measured is the test's own fault, unless it has measured something before.
        *(_measured(step) if any(old.turns.attempted for old in before) else ()),
        *_served(step, thresholds.success),
        *_present(step, thresholds.success, churn=churn),
        *_slower_answers(step, before, thresholds.first_audio_growth or GROWTH),
        *_slower_connections(step, before),
        *_later_packets(step, before, thresholds.late_share),
    )
    return next(iter(signs), "")


def _slower_answers(step: Step, before: Sequence[Step], growth: float) -> Iterable[str]:
    first = first_audio_reference([*before, step]) or step
    times, reference = _times(step, Stage.FIRST_AUDIO), _times(first, Stage.FIRST_AUDIO)
    if times.count >= ENOUGH and times.p95 > growth * max(reference.p95, QUICK_MS):
        yield (
            f"first audio: p95 {times.p95:.0f} ms, {times.p95 / max(reference.p95, 1e-3):.1f} times the "
            f"{reference.p95:.0f} ms of before"
        )


def _slower_connections(step: Step, before: Sequence[Step]) -> Iterable[str]:
    for stage, name in ((Stage.CONNECT, "connecting"), (Stage.HELLO, "hello")):
        times, reference = _times(step, stage), _reference(before, stage)
        if times.count >= ENOUGH and reference.count and times.p95 > max(SLOW_MS, SLOWER * reference.p95):
            yield f"{name}: p95 {times.p95:.0f} ms instead of {reference.p95:.0f} ms"


def _later_packets(step: Step, before: Sequence[Step], limit: float | None) -> Iterable[str]:
    if step.frames.received < ENOUGH_FRAMES:
        return
    usual = next((old.frames.late_share for old in before if old.frames.received >= ENOUGH_FRAMES), 0.0)
    most = max(limit, usual) if limit is not None else usual + LATE_JUMP
    if step.frames.late_share > most:
        yield f"late packets: {_share(step.frames.late_share)} instead of {_share(usual)}"


def _reference(before: Sequence[Step], stage: Stage) -> Distribution:
    return next((_times(old, stage) for old in before if _times(old, stage).count), Distribution())


# ---------------------------------------------------------------- the bottleneck


class _View(msgspec.Struct, frozen=True, kw_only=True):
    """What was used in the time that is looked at, on average, in cores."""

    when: str
    machine: float
    cores: int
    server: Usage | None
    generator: Usage
    lag_ms: float
    samples: int
    crowded: int
    """Of the samples."""

    @property
    def idle(self) -> float:
        return max(0.0, self.cores - self.machine)

    @property
    def others(self) -> float:
        server = self.server.cpu if self.server is not None else 0.0
        return max(0.0, self.machine - server - self.generator.cpu)

    @property
    def others_said(self) -> str:
        """What somebody else used, if it is worth a word, to follow what the load test used."""
        return f", other programs {self.others:.2f}" if self.others >= OTHERS_CORES else ""

    @property
    def generator_full(self) -> bool:
        """Each of its processes has one thread that does the work."""
        return bool(self.generator.processes) and self.generator.cpu >= FULL * self.generator.processes


def find_bottleneck(
    steps: Sequence[Step], samples: Sequence[Sample], machine: Machine
) -> tuple[Bottleneck, str]:
    """Return what keeps the server from more, and why that is thought, in a sentence for people.

    The first step that did not pass is looked at, or else the last one, while it was held; if nothing was exhausted
    then and it failed, the time in which its devices connected as well, and moments that the average hides. In this
    order: what the errors say themselves (ports, descriptors, refused on purpose), memory, CPU (one core of the
    server, the machine, the generator), and last, with nothing exhausted and the server in sight, the services behind
    it. When all steps passed and nothing is exhausted there is none. A server that cannot be seen is never blamed.
    """
    steps = [step for step in steps if step.reasons != [STOPPED]]  # it shows nothing
    if not steps:
        return Bottleneck.UNKNOWN, "no step was finished"
    step = next((one for one in steps if not one.passed), steps[-1])
    hold = _view(step, samples, machine, ramp=False)
    found = _told_by_errors(step, machine) or _memory(step, samples, machine) or _cpu(hold)
    if found is None and not step.passed:
        found = _cpu(_view(step, samples, machine, ramp=True)) or _crowded(hold)
    if found is None and step.passed:
        return Bottleneck.NONE, _nothing(step, hold)
    return found or _waiting(step, hold)


def _told_by_errors(step: Step, machine: Machine) -> tuple[Bottleneck, str] | None:
    failed = sum(count for kind, count in step.errors.items() if kind not in EARLY_ERRORS)

    def most(kinds: frozenset[str]) -> int:
        number = sum(step.errors.get(kind, 0) for kind in kinds)
        return number if number and number >= FAILED_SHARE * failed else 0

    if number := most(PORT_ERRORS):
        return Bottleneck.PORTS, (
            f"{number} connections found no free local port on the machine of the load test: "
            "this is no limit of the server"
        )
    if number := most(DESCRIPTOR_ERRORS):
        return Bottleneck.DESCRIPTORS, (
            f"{number} connections found no free file descriptor in the load test itself: "
            "this is no limit of the server"
        )
    attempted = max(step.devices, step.connections.attempted)
    if step.busy > BUSY_SHARE * attempted and step.busy >= failed:
        return Bottleneck.ADMISSION, (
            f"the server told devices to come back later {_number(step.busy, 'time')}: it refuses more on purpose, "
            "by its settings or because it notices that it is full"
        )
    limit = next((_whole(check.found) for check in machine.checks if check.name == SERVER_FILES), 0)
    held = step.server.descriptors if step.server is not None else 0
    if limit and held >= 0.97 * limit and not step.passed:
        return Bottleneck.DESCRIPTORS, f"the server had {held} files and sockets open, and may have {limit}"
    return None


def _memory(step: Step, samples: Sequence[Sample], machine: Machine) -> tuple[Bottleneck, str] | None:
    left = [sample.memory_available for sample in samples if step.began_s <= sample.at_s <= step.ended_s]
    if not left or not machine.memory or min(left) >= MEMORY_SHARE * machine.memory:
        return None
    said = f"only {min(left) / 2**20:.0f} of {machine.memory / 2**20:.0f} MiB of memory were left"
    if step.server is None:
        return Bottleneck.MEMORY, f"{said} on the machine of the load test; the server itself is not in sight"
    return Bottleneck.MEMORY, (
        f"{said}; the server held {step.server.resident / 2**20:.0f} MiB, "
        f"the load test {step.generator.resident / 2**20:.0f}"
    )


def _cpu(view: _View) -> tuple[Bottleneck, str] | None:
    if view.server is None:
        return _cpu_without_server(view)
    server, full = view.server.cpu, view.machine >= FULL * view.cores
    used = f"{view.when} the server used {server:.2f} cores"
    doubt = (
        f" The load test was at its own limit as well ({view.generator.cpu:.2f} cores): its times are too long."
        if view.generator_full
        else ""
    )
    if view.cores > 1 and view.idle >= IDLE_CORES and (one := _one_core(view.server)):
        return Bottleneck.SERVER_CORE, (
            f"{used}, {one}, while {view.idle:.1f} of the machine's {view.cores} cores were "
            f"idle: another process or machine would help, more cores would not.{doubt}"
        )
    if server >= FULL * view.cores:
        return Bottleneck.SERVER_CPU, f"{used} of {view.cores}: more or faster cores would help.{doubt}"
    if full:
        return Bottleneck.MACHINE_CPU, (
            f"{used}, the load test {view.generator.cpu:.2f}{view.others_said}, together all of {view.cores}: "
            "with the load test on another machine the server could do more"
        )
    return _generator(view)


def _one_core(server: Usage) -> str:
    """Say why one core is all that the server can use; empty: it is not, or is not full."""
    if server.main >= FULL:
        return f"its main thread {server.main:.2f}, as much as one thread can"
    if not server.main and FULL <= server.cpu <= 1 + (1 - FULL):
        return (
            "which is one core full if one of its threads does the work (how busy each one was is not known)"
        )
    return ""


def _cpu_without_server(view: _View) -> tuple[Bottleneck, str] | None:
    if view.machine >= FULL * view.cores:
        return Bottleneck.GENERATOR, (
            f"{view.when} all of the {view.cores} cores of the load test's machine were in use: the load test used "
            f"{view.generator.cpu:.2f}{view.others_said}. The server, which is not in sight, can do this and "
            "perhaps more"
        )
    return _generator(view)


def _generator(view: _View) -> tuple[Bottleneck, str] | None:
    if view.generator_full:
        return Bottleneck.GENERATOR, (
            f"{view.when} the {_number(view.generator.processes, 'process')} of the load test used "
            f"{view.generator.cpu:.2f} cores, one each: give it more processes. The server can do this and perhaps more"
        )
    if view.lag_ms > LAG_MS:
        return Bottleneck.GENERATOR, (
            f"the load test itself was late by {view.lag_ms:.0f} ms (p95): its times are its own, "
            "and the server can do this and perhaps more"
        )
    return None


def _crowded(view: _View) -> tuple[Bottleneck, str] | None:
    """Explain a step that failed by moments in which nothing was free, though the average is not that high."""
    if not view.crowded or view.crowded < CROWDED_SHARE * view.samples:
        return None
    said = (
        f"all {view.cores} cores were in use in {view.crowded} of {_number(view.samples, 'sample')}; on average "
        f"the load test used {view.generator.cpu:.2f}"
    )
    if view.server is None:
        return (
            Bottleneck.GENERATOR,
            f"{said}{view.others_said}. The server is not in sight, and may do better",
        )
    return Bottleneck.MACHINE_CPU, f"{said}, the server {view.server.cpu:.2f}{view.others_said}"


def _waiting(step: Step, view: _View) -> tuple[Bottleneck, str]:
    """Explain a step that failed while nothing was exhausted."""
    failing = sum(step.errors.get(kind, 0) for kind in ANSWER_ERRORS)
    signs = ("first audio", "turns") if step.turns.attempted else ("first audio",)  # held too short
    slow = any(reason.startswith(signs) for reason in step.reasons)
    connects = any(reason.startswith(("connect", "hello")) for reason in step.reasons)
    if view.server is None:
        return Bottleneck.UNKNOWN, (
            "the server cannot be seen from here, and nothing on this machine was exhausted: run the load test on "
            "the server's machine, with --pid if it is not found, to see what the server uses"
        )
    if slow and not connects and (failing or _times(step, Stage.FIRST_AUDIO).count):
        return Bottleneck.SERVICES, (
            f"answers were slow or missing while the server used {view.server.cpu:.2f} cores and {view.idle:.1f} of "
            f"{view.cores} were idle: it was waiting, for the AI services behind it or for its own queues before them"
        )
    return Bottleneck.UNKNOWN, (
        f"the step failed ({'; '.join(step.reasons) or 'no reason noted'}) while the server used "
        f"{view.server.cpu:.2f} cores and {view.idle:.1f} of {view.cores} were idle: see the server's log"
    )


def _nothing(step: Step, view: _View) -> str:
    people = f"{_number(step.devices, 'device')}" + (
        f", {_number(step.talkers, 'talker')}" if step.talkers else ""
    )
    if view.server is None:
        return f"all steps passed, up to {people}: more of them would show where the limit is"
    return (
        f"all steps passed, up to {people}; {view.when} the server used {view.server.cpu:.2f} cores, "
        f"and {view.idle:.1f} of {view.cores} were idle: a larger step would show where the limit is"
    )


def _view(step: Step, samples: Sequence[Sample], machine: Machine, *, ramp: bool) -> _View:
    begin_s, end_s = (step.began_s, step.ramped_s) if ramp else (step.ramped_s, step.ended_s)
    within = [sample for sample in samples if begin_s < sample.at_s <= end_s]
    servers = [sample.server for sample in within if sample.server is not None]
    server, generator = (None, Usage()) if ramp else (step.server, step.generator)
    if ramp and servers:
        cpu, main = _mean([usage.cpu for usage in servers]), _mean([usage.main for usage in servers])
        server = msgspec.structs.replace(servers[-1], cpu=cpu, main=main)
    if ramp and within:
        cpu = _mean([sample.generator.cpu for sample in within])
        generator = msgspec.structs.replace(within[-1].generator, cpu=cpu)
    used = (server.cpu if server is not None else 0.0) + generator.cpu
    return _View(
        when="while the devices connected" if ramp else "while the step was held",
        # Without samples of the machine at least those two are known to be running.
        machine=max(used, _mean([sample.machine_cpu for sample in within])),
        cores=max(1, machine.cores),
        server=server,
        generator=generator,
        lag_ms=0.0 if ramp else step.lag.p95,
        samples=len(within),
        crowded=sum(sample.machine_cpu >= CROWDED * max(1, machine.cores) for sample in within),
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _times(step: Step, stage: Stage) -> Distribution:
    return step.times.get(stage, Distribution())


def _whole(text: str) -> int:
    return int(text) if text.isdecimal() else 0


def _number(count: int, noun: str) -> str:
    plural = {"process": "processes"}.get(noun, f"{noun}s")
    return f"{count} {noun if count == 1 else plural}"


def _share(share: float) -> str:
    return f"{100 * share:.4g} %"
