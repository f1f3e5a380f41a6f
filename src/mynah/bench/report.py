"""Figures and how they are shown and kept."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np

from mynah import __version__
from mynah.audio.opus import default_library
from mynah.resources import machine_memory, whole_cores

_WIDTH = 120
"""Columns of the table where there is no terminal to ask."""


class Result(msgspec.Struct, frozen=True, omit_defaults=True):
    """The distribution of one quantity."""

    bench: str
    case: str
    unit: str
    count: int
    """Samples behind the percentiles."""
    best: float
    p50: float
    p95: float
    p99: float
    worst: float
    note: str = ""

    def line(self) -> str:
        """Return the figure as one line of text."""
        return f"{self.bench} {self.case}: p50 {self.p50:g} p95 {self.p95:g} p99 {self.p99:g} {self.unit}"


class Machine(msgspec.Struct, frozen=True):
    """What was measured on."""

    cpu: str
    cores: int
    memory_gb: float
    system: str
    python: str
    numpy: str
    libopus: str
    load: float
    """Other work on the machine: processes ready to run, on average over the last minute."""


class Recording(msgspec.Struct, frozen=True):
    """One run of the benchmark."""

    command: str
    date: str
    machine: Machine
    results: list[Result]
    failed: dict[str, str] = {}
    """Measurements that could not be made, and why."""
    version: str = __version__


def distribution(bench: str, case: str, unit: str, samples: Sequence[float], note: str = "") -> Result:
    """Summarise samples; at least one."""
    p50, p95, p99 = (float(value) for value in np.percentile(samples, (50, 95, 99)))
    return Result(
        bench,
        case,
        unit,
        len(samples),
        best=round(min(samples), 2),
        p50=round(p50, 2),
        p95=round(p95, 2),
        p99=round(p99, 2),
        worst=round(max(samples), 2),
        note=note,
    )


def repeat(work: Callable[[], object], seconds: float = 0.5, least: int = 20) -> list[float]:
    """Call ``work`` for ``seconds``, at least ``least`` times after one for warmth; return µs of CPU per call.

    The thread's own CPU time: what else runs on the machine then counts little.
    """
    work()
    samples: list[float] = []
    end = time.perf_counter() + seconds
    while len(samples) < least or time.perf_counter() < end:
        begin = time.thread_time_ns()
        work()
        samples.append((time.thread_time_ns() - begin) / 1000)
    return samples


def now() -> str:
    """Return the date and time, ISO 8601 in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def machine() -> Machine:
    """Describe this machine."""
    return Machine(
        cpu=_cpu_name(),
        cores=whole_cores(),
        memory_gb=round(machine_memory() / 2**30, 1),
        system=platform.platform(),
        python=platform.python_version(),
        numpy=np.__version__,
        libopus=default_library().version().decode(),
        load=round(os.getloadavg()[0], 2),
    )


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def as_json(recording: Recording) -> str:
    """Return the recording as readable JSON."""
    return msgspec.json.format(msgspec.json.encode(recording), indent=1).decode()


def print_table(recording: Recording) -> None:
    """Print the recording for people."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"Mynah {recording.version}, {recording.date}", box=box.SIMPLE_HEAD)
    for heading in ("measurement", "case"):
        table.add_column(heading, no_wrap=True)
    for heading in ("unit", "best", "p50", "p95", "p99", "worst", "n"):
        table.add_column(heading, justify="right")
    previous = ""
    for result in recording.results:
        figures = (result.best, result.p50, result.p95, result.p99, result.worst)
        table.add_row(
            "" if result.bench == previous else result.bench,
            result.case,
            result.unit,
            *(f"{figure:.1f}" for figure in figures),
            str(result.count),
        )
        previous = result.bench
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH)
    console.print(table)
    for note in dict.fromkeys(result.note for result in recording.results if result.note):
        console.print(f"· {note}", highlight=False)
    for name, why in recording.failed.items():
        console.print(f"not measured: {name}: {why}", highlight=False)
    device = recording.machine
    versions = f"Python {device.python}, numpy {device.numpy}, {device.libopus}"
    console.print(f"{device.cpu}, {device.cores} cores, load {device.load}; {versions}", highlight=False)
