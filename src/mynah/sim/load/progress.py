"""How a load test goes, while it goes: a table on a terminal, a line every few seconds anywhere else."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from rich.console import Console
from rich.live import Live
from rich.table import Table

from mynah.sim.load.director import Progress
from mynah.sim.load.record import Distribution, Stage, Step, Usage
from mynah.sim.load.tally import Tally

LINE_S: Final = 5.0
"""Between two lines of the same phase where there is no terminal."""

_PHASES: Final = {
    "rest": "looking at the server at rest",
    "ramp": "connecting",
    "hold": "measuring",
    "leave": "looking at the server afterwards",
}


@contextmanager
def shown(console: Console) -> Iterator[Callable[[Progress], None]]:
    """Return who is to be told of the progress, which then appears on the console."""
    if not console.is_terminal:
        yield _Lines(console).show
        return
    with Live(console=console, auto_refresh=False, transient=True) as live:
        yield lambda progress: live.update(table(progress), refresh=True)


class _Lines:
    """Progress as lines that can be kept in a file."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._shown_at = float("-inf")
        self._phase = ("", 0)
        self._finished = 0

    def show(self, progress: Progress) -> None:
        """Print what has finished, and now and then how it goes."""
        for step in progress.finished[self._finished :]:
            self._console.print(verdict_line(step))
        self._finished = len(progress.finished)
        phase = (progress.phase, progress.step)
        if phase != self._phase or time.monotonic() - self._shown_at >= LINE_S:
            self._phase, self._shown_at = phase, time.monotonic()
            self._console.print(line(progress))


def line(progress: Progress) -> str:
    """Say how it goes in a line."""
    doing = _PHASES[progress.phase]
    if not progress.step:
        return doing
    tally, sample = progress.tally, progress.sample
    parts = [f"{tally.connected} of {progress.devices} connected"]
    if progress.talkers:
        parts += [f"{tally.talking} of {progress.talkers} in a turn"]
    parts += [f"success {_percent(_success(tally))}"]
    first = _times(tally, Stage.FIRST_AUDIO)
    if first.count:
        parts += [f"first audio {_pair(first)} ms"]
    if tally.received:
        parts += [f"late {_percent(tally.late / tally.received)}"]
    parts += [f"CPU {_cores(sample.server, sample.generator)} cores (server + generator)"]
    if tally.busy:
        parts += [f"{tally.busy} told to come later"]
    parts += [f"{sum(tally.errors.values())} errors"]
    return f"step {progress.step} of {progress.steps}, {doing}: {', '.join(parts)}"


def verdict_line(step: Step) -> str:
    """Say in a line what became of a step."""
    who = f"{step.devices} devices" + (f", {step.talkers} talking" if step.talkers else "")
    return f"step {step.number} ({who}): {'passed' if step.passed else 'FAILED: ' + '; '.join(step.reasons)}"


def table(progress: Progress) -> Table:
    """Return all steps until now as a table, the current one last."""
    doing = _PHASES[progress.phase]
    drawn = steps_table(progress.finished)
    drawn.title = f"step {progress.step} of {progress.steps}: {doing}" if progress.step else doing
    if progress.step:
        tally, sample = progress.tally, progress.sample
        drawn.add_row(
            str(progress.step),
            f"{tally.connected} of {progress.devices}",
            str(tally.talking) if progress.talkers else "",
            _percent(_success(tally)),
            _pair(_times(tally, Stage.FIRST_AUDIO)),
            _percent(tally.late / tally.received) if tally.received else "",
            _cores(sample.server, sample.generator),
            str(sum(tally.errors.values())),
            "…",
        )
    return drawn


def steps_table(steps: tuple[Step, ...]) -> Table:
    """Return finished steps as a table; CPU in cores, of server and generator."""
    drawn = Table(box=None, pad_edge=False, padding=(0, 1), header_style="bold", title_justify="left")
    drawn.add_column("step")
    for name in ("connected", "talking", "success", "first audio", "late", "CPU", "errors"):
        drawn.add_column(name, justify="right", no_wrap=True)
    drawn.add_column("", no_wrap=True)
    for step in steps:
        drawn.add_row(
            str(step.number),
            f"{step.connected} of {step.devices}",
            str(step.talkers or ""),
            _percent(step.success),
            _pair(step.times.get(Stage.FIRST_AUDIO, Distribution())),
            _percent(step.frames.late_share) if step.frames.received else "",
            _cores(step.server, step.generator),
            str(sum(step.errors.values())),
            "[green]passed[/]" if step.passed else "[red]FAILED[/]",
        )
    return drawn


def _success(tally: Tally) -> float:
    attempted = tally.attempted + tally.turns
    return (tally.succeeded + tally.answered) / attempted if attempted else 1.0


def _times(tally: Tally, stage: Stage) -> Distribution:
    known = tally.times.get(stage)
    return known.distribution() if known is not None else Distribution()


def _pair(times: Distribution) -> str:
    """Write median and 95th percentile, in ms."""
    return f"{times.p50:.0f}/{times.p95:.0f}" if times.count else ""


def _percent(share: float) -> str:
    """Write a share so that what is not quite all, or not quite nothing, does not look like it."""
    if share in {0.0, 1.0}:
        return f"{share:.0%}"
    return f"{min(max(share, 0.0001), 0.9999):.2%}"


def _cores(server: Usage | None, generator: Usage) -> str:
    """Write what server and generator use; the server's may be unknown."""
    return f"{'?' if server is None else f'{server.cpu:.2f}'} + {generator.cpu:.2f}"
