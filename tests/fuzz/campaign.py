"""Runs targets: input after input, in several processes, and says what was found.

A worker is told (target, first input, number of inputs) and makes the inputs itself, from the seed. It writes the
number of the input at hand into shared memory, so that an input that kills or stalls the process can be made again and
kept.
"""

from __future__ import annotations

import gc
import logging
import math
import multiprocessing as mp
import os
import platform
import signal
import sys
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from ctypes import Array, c_int64
from datetime import UTC, datetime
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import msgspec
from loguru import logger

from tests.fuzz.targets import TARGETS, Target

BATCH = 5000
"""Inputs given to a worker at once: a second or so, after which the progress is shown."""

STALL_S = 20.0
"""Wall-clock time after which an input counts as one that never ends."""

GROWTH_BLOCKS_PER_INPUT = 0.5
"""Python objects that may be left over for each input of a batch: caches fill up at first, a leak goes on."""

GROWTH_MB = 64.0
"""Growth of a worker's resident memory over a whole run: fragmentation, and the caches of ``re`` and ``urllib``."""

FINDINGS_KEPT = 20
"""Findings of one kind that are saved for one target: the same mistake is found thousands of times."""

FINDINGS = Path(__file__).parent / "findings"


class Finding(msgspec.Struct, frozen=True):
    """One input that a decoder does not handle as its documentation says."""

    target: str
    kind: str
    """Exception and line; ``slow``, ``killed`` or ``stalled``."""
    index: int
    detail: str = ""


class Batch(msgspec.Struct):
    """What came of a stretch of inputs."""

    target: str
    inputs: int = 0
    accepted: int = 0
    refused: int = 0
    seconds: float = 0.0
    slowest_ms: float = 0.0
    blocks: float = 0.0
    """Python memory blocks left over per input."""
    findings: list[Finding] = []
    memory_mb: float = 0.0
    """Resident memory of the worker afterwards."""


class Row(msgspec.Struct):
    """The sum over a target's batches."""

    target: str
    inputs: int = 0
    accepted: int = 0
    refused: int = 0
    findings: int = 0
    kinds: dict[str, int] = {}
    inputs_per_s: int = 0
    """Of one process."""
    slowest_ms: float = 0.0
    blocks_per_input: float = 0.0
    """Python memory blocks left over, in the leanest batch after the first."""
    seconds: float = 0.0


class Report(msgspec.Struct):
    """One run."""

    command: str
    date: str
    seed: int
    machine: str
    python: str
    processes: int
    complete: bool
    inputs: int
    findings: int
    seconds: float
    memory_growth_mb: float
    """Of the worker that grew most, from its first batch to its last."""
    slow_ms: float
    targets: list[Row]


# ---------------------------------------------------------------- in a worker


def run_batch(
    target: Target, seed: int, first: int, count: int, at: Callable[[int], None] = lambda _: None
) -> Batch:
    """Feed inputs ``first`` … ``first + count - 1``; ``at`` is told the number of each before it is fed."""
    batch = Batch(target.name)
    gc.collect()
    blocks = sys.getallocatedblocks()
    began = time.perf_counter()
    for index in range(first, first + count):
        data = target.input(seed, index)
        at(index)
        _feed(target, data, index, batch)
    batch.seconds = time.perf_counter() - began
    gc.collect()
    batch.blocks = max(0.0, (sys.getallocatedblocks() - blocks - 20 * len(batch.findings)) / max(count, 1))
    batch.memory_mb = _resident_mb()
    return batch


def _feed(target: Target, data: bytes, index: int, batch: Batch) -> None:
    batch.inputs += 1
    began = time.thread_time()
    try:
        accepted = target.feed(data)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
        batch.findings.append(_fault(target.name, index, error))
        return
    taken_ms = (time.thread_time() - began) * 1000
    if accepted:
        batch.accepted += 1
    else:
        batch.refused += 1
    if taken_ms > target.slow_ms:
        taken_ms = min(
            taken_ms, *(_again_ms(target, data) for _ in range(2))
        )  # the first time may have been a cache's
        if taken_ms > target.slow_ms:
            batch.findings.append(
                Finding(target.name, "slow", index, f"{taken_ms:.0f} ms for {len(data)} bytes")
            )
    batch.slowest_ms = max(batch.slowest_ms, taken_ms)


def _again_ms(target: Target, data: bytes) -> float:
    began = time.thread_time()
    target.feed(data)
    return (time.thread_time() - began) * 1000


def _fault(name: str, index: int, error: Exception) -> Finding:
    frames = traceback.extract_tb(error.__traceback__)
    # The innermost line of ours says more than one inside a library.
    ours = [frame for frame in frames if "/mynah/" in frame.filename or "/fuzz/" in frame.filename] or list(
        frames
    )
    where = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}"
    return Finding(name, f"{type(error).__name__} at {where}", index, str(error)[:200])


def _resident_mb() -> float:
    try:
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    except OSError:  # not Linux
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def _work(pipe: Connection, seed: int, position: Array[c_int64]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when to stop
    os.nice(5)
    logger.remove()  # what is refused is logged, a million times over
    logging.disable()

    def at(index: int) -> None:
        position[0] = index

    while (order := pipe.recv()) is not None:
        name, first, count = order
        position[0] = -1
        pipe.send(run_batch(TARGETS[name], seed, first, count, at))


# ---------------------------------------------------------------- in the parent


class _Worker:
    """A process and what it is doing."""

    def __init__(self, seed: int) -> None:
        context: Any = mp.get_context("fork" if "fork" in mp.get_all_start_methods() else "spawn")
        self.position: Array[c_int64] = context.Array("q", [-1], lock=False)
        self.pipe, theirs = context.Pipe()
        self._process: Any = context.Process(target=_work, args=(theirs, seed, self.position), daemon=True)
        self._process.start()
        theirs.close()
        self.order: tuple[str, int, int] | None = None
        self.memory_mb: list[float] = []
        self._seen, self._seen_at = -1, time.monotonic()

    def give(self, order: tuple[str, int, int] | None) -> None:
        self.order = order
        self._seen_at = time.monotonic()
        self.pipe.send(order)

    @property
    def stalled(self) -> bool:
        """Whether it has been at the same input for too long."""
        if self.position[0] != self._seen:
            self._seen, self._seen_at = self.position[0], time.monotonic()
        return self.order is not None and time.monotonic() - self._seen_at > STALL_S

    def end(self) -> int | None:
        """Kill it; return what it died of."""
        self._process.kill()
        self._process.join()
        self.pipe.close()
        code: int | None = self._process.exitcode
        return code


class Campaign:
    """One run over several targets. Call `run`; `report` is right at any time."""

    def __init__(
        self, names: Sequence[str], seed: int, inputs: int, processes: int, show: Callable[[str], None]
    ) -> None:
        """``inputs`` is the number for each target."""
        self._seed, self._inputs, self._processes, self._show = seed, inputs, processes, show
        self._rows = {name: Row(name, kinds={}, blocks_per_input=math.inf) for name in names}
        self._orders = deque(_orders(names, inputs))
        self._workers: list[_Worker] = []
        self._kept: Counter[tuple[str, str]] = Counter()
        self._growth_mb = 0.0
        self._began = time.monotonic()
        self._seconds = 0.0
        self._complete = False
        self.findings: list[Finding] = []

    def run(self) -> None:
        """Work through everything, or until KeyboardInterrupt, which is swallowed."""
        total = len(self._orders)
        for name in self._rows:
            TARGETS[name].corpus()  # made once, before the processes split
        try:
            self._workers = [_Worker(self._seed) for _ in range(min(self._processes, total))]
            for worker in self._workers:
                worker.give(self._orders.popleft())
            while any(worker.order for worker in self._workers):
                ready = wait([worker.pipe for worker in self._workers if worker.order], timeout=1.0)
                for worker in list(self._workers):
                    if worker.pipe in ready or worker.stalled:
                        self._take(worker)
                done = sum(row.inputs for row in self._rows.values())
                self._show(
                    f"{done:,} of {self._inputs * len(self._rows):,} inputs, {len(self.findings)} findings"
                )
            self._complete = True
        except KeyboardInterrupt:
            self._show("stopped")
        finally:
            self._seconds = time.monotonic() - self._began
            for worker in self._workers:
                worker.end()

    def _take(self, worker: _Worker) -> None:
        """Take a worker's result and give it more; replace it if it is dead or stalled."""
        assert worker.order is not None
        try:
            if worker.stalled and not worker.pipe.poll():
                raise TimeoutError
            batch: Batch = worker.pipe.recv()
        except (EOFError, ConnectionError, TimeoutError) as error:
            self._lost(worker, "stalled" if isinstance(error, TimeoutError) else "killed")
            return
        self._add(batch)
        worker.memory_mb.append(batch.memory_mb)
        self._growth_mb = max(self._growth_mb, worker.memory_mb[-1] - worker.memory_mb[0])
        self._next(worker)

    def _next(self, worker: _Worker) -> None:
        if self._orders:
            worker.give(self._orders.popleft())
        else:
            worker.order = None

    def _lost(self, worker: _Worker, kind: str) -> None:
        """An input has killed or stalled its process: note it, and go on behind it with a new one."""
        assert worker.order is not None
        name, first, count = worker.order
        index = max(worker.position[0], first)
        code = worker.end()
        self._add(Batch(name, findings=[Finding(name, kind, index, f"exit code {code}")]))
        left = first + count - index - 1
        if left > 0:
            self._orders.append((name, index + 1, left))
        fresh = _Worker(self._seed)
        self._workers[self._workers.index(worker)] = fresh
        self._next(fresh)

    def _add(self, batch: Batch) -> None:
        row = self._rows[batch.target]
        row.inputs += batch.inputs
        row.accepted += batch.accepted
        row.refused += batch.refused
        row.seconds += batch.seconds
        row.slowest_ms = max(row.slowest_ms, batch.slowest_ms)
        if (
            batch.inputs == BATCH
        ):  # a short one says nothing of growth, and nor does the first: it fills caches
            row.blocks_per_input = min(row.blocks_per_input, batch.blocks)
        for finding in batch.findings:
            row.findings += 1
            row.kinds[finding.kind] = row.kinds.get(finding.kind, 0) + 1
            self.findings.append(finding)
            self._kept[batch.target, finding.kind] += 1
            if self._kept[batch.target, finding.kind] <= FINDINGS_KEPT:
                keep(finding, self._seed)

    def report(self, command: str) -> Report:
        """Return the figures so far."""
        rows = list(self._rows.values())
        for row in rows:
            row.inputs_per_s = round(row.inputs / row.seconds) if row.seconds else 0
            row.blocks_per_input = round(row.blocks_per_input, 3) if row.inputs >= 4 * BATCH else 0.0
            if row.blocks_per_input > GROWTH_BLOCKS_PER_INPUT and "growth" not in row.kinds:
                row.findings += 1
                row.kinds["growth"] = 1
            row.slowest_ms, row.seconds = round(row.slowest_ms, 2), round(row.seconds, 1)
        return Report(
            command=command,
            date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            seed=self._seed,
            machine=f"{platform.machine()}, {os.cpu_count()} cores",
            python=platform.python_version(),
            processes=self._processes,
            complete=self._complete,
            inputs=sum(row.inputs for row in rows),
            findings=sum(row.findings for row in rows) + (self._growth_mb > GROWTH_MB),
            seconds=round(self._seconds, 1),
            memory_growth_mb=round(self._growth_mb, 1),
            slow_ms=max(TARGETS[row.target].slow_ms for row in rows),
            targets=rows,
        )


def _orders(names: Sequence[str], inputs: int) -> Iterator[tuple[str, int, int]]:
    """Yield (target, first, count), all targets in turn: a run that is stopped has seen something of each."""
    for first in range(0, inputs, BATCH):
        for name in names:
            yield name, first, min(BATCH, inputs - first)


def folder_name(target: str) -> str:
    """Return the name of the folder for a target's findings."""
    return "".join(char if char.isalnum() or char in "._-" else "_" for char in target)


def keep(finding: Finding, seed: int) -> Path:
    """Save the input of a finding, to be fed again by the test suite until it is mended."""
    folder = FINDINGS / folder_name(finding.target)
    folder.mkdir(parents=True, exist_ok=True)
    kind = "".join(char if char.isalnum() else "_" for char in finding.kind)
    path = folder / f"{kind}-seed{seed}-{finding.index}"
    path.write_bytes(TARGETS[finding.target].input(seed, finding.index))
    return path


def table(report: Report) -> Iterator[str]:
    """Yield the report as lines of text."""
    titles = ("inputs", "accepted", "refused", "findings", "inputs/s", "slowest ms")
    yield f"{'target':28}" + "".join(f" {title:>10}" for title in titles)
    for row in report.targets:
        yield (
            f"{row.target:28} {row.inputs:10,} {row.accepted:10,} {row.refused:10,} {row.findings:10,}"
            f" {row.inputs_per_s:10,} {row.slowest_ms:10.2f}"
        )
        for kind, times in sorted(row.kinds.items(), key=lambda item: -item[1]):
            yield f"    {times:6} × {kind}"
    yield (
        f"{report.inputs:,} inputs in {report.seconds:g} s, {report.findings} findings, memory grew by "
        f"{report.memory_growth_mb:g} MB, seed {report.seed}{'' if report.complete else ' (stopped early)'}"
    )
