"""Watches server, generator and machine while a load test runs: one sample per second, and warnings.

A sample costs some hundred µs, also when the server has 20 000 sockets; looking for new child processes, some ms, is
done every few seconds.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
import psutil

from mynah import resources
from mynah.sim.load import machine, processes
from mynah.sim.load.processes import find_server
from mynah.sim.load.record import Sample, Usage, Warned

__all__ = ["Monitor", "find_server"]

FAMILY_S: Final = 5.0
"""How often new child processes, a new server and the swap are looked for."""

SHORTEST_S: Final = 0.25
"""CPU is counted in steps of 10 ms, so it is averaged over this time at least, whatever the distance of samples."""

COUNT_SHARE: Final = 0.005
"""Of the time: most that counting descriptors may take. Where that is slow it is done less often."""

MAX_WARNINGS: Final = 200
"""Bound of the list: a test that runs for days in a bad place has said it all by then; later ones are left out."""

MAX_POINTS: Final = 100_000
"""Bound of what `Monitor.usage_between` can look back on: a day of samples, 20 MB; the oldest go first."""

SWAP_BYTES: Final = 64 << 20
"""Written to swap since the test began: less may be the system tidying up."""


class Alarm:
    """Something that is said once when a value has been too high for some samples, and again only after it was low."""

    def __init__(self, on: float, off: float, samples: int = 2) -> None:
        self._on, self._off, self._samples = on, off, samples
        self._over = 0
        self._raised = False

    def look(self, value: float) -> bool:
        """Take the value of a sample; return whether to warn now."""
        if value <= self._off:
            self._raised, self._over = False, 0
        elif value > self._on:
            self._over += 1
        else:
            self._over = 0
        if self._raised or self._over < self._samples:
            return False
        self._raised = True
        return True


class _Point(msgspec.Struct, frozen=True):
    """What had been used until a moment, in s of CPU time, and what was there."""

    at_s: float
    machine_s: float
    server_s: float
    server_main_s: float
    """Of the busiest main thread."""
    generator_s: float
    generator_main_s: float
    received: int
    sent: int
    server: Usage | None
    generator: Usage


class _Group:
    """Some processes whose use is added up. What those have used that are gone stays counted."""

    def __init__(self) -> None:
        self.used_s = 0.0
        self.main_s = 0.0
        """The same of the main thread that was busiest from one look to the next."""
        self.gone: set[int] = set()
        """Those that had ended when `update` looked last."""
        self.busiest = 0.0
        """Cores that the busiest main thread used since the update before: 1 when it never rested."""
        self._last: dict[int, processes.Counters] = {}
        self._counted: dict[int, tuple[int, float]] = {}
        """How many descriptors a process had, and when to count again."""
        self._updated = 0.0

    def update(self, pids: set[int], now: float) -> Usage:
        """Look at these processes. Returns what they hold; the CPU time since then goes to `used_s` and `main_s`."""
        previous, self._last = self._last, {}
        passed_s, self._updated = now - self._updated, now
        busiest_s = 0.0
        for pid in pids:
            counters = processes.read(pid)
            if counters is None:
                continue
            before = previous.get(pid)
            if before is not None and before.started == counters.started:
                self.used_s += max(0.0, counters.cpu_s - before.cpu_s)
                busiest_s = max(busiest_s, counters.main_s - before.main_s)
            self._last[pid] = counters
        self.main_s += busiest_s
        self.gone = set(pids - self._last.keys())
        self._counted = {pid: known for pid, known in self._counted.items() if pid in self._last}
        if passed_s >= SHORTEST_S:
            self.busiest = busiest_s / passed_s
        return Usage(
            processes=len(self._last),
            resident=sum(counters.resident for counters in self._last.values()),
            descriptors=sum(self._descriptors(pid, now) for pid in self._last),
            threads=sum(counters.threads for counters in self._last.values()),
        )

    def descriptors_of(self, pid: int) -> int:
        """Return what was counted last."""
        return self._counted.get(pid, (0, 0.0))[0]

    def _descriptors(self, pid: int, now: float) -> int:
        number, due = self._counted.get(pid, (0, 0.0))
        if now >= due:
            began = time.perf_counter()
            number = processes.descriptors(pid) or 0
            self._counted[pid] = (number, now + (time.perf_counter() - began) / COUNT_SHARE)
        return number


class Monitor:
    """Takes samples and says what is wrong. Robust: whatever ends or may not be seen is left out.

    ``server_pid`` None: there is no server to be seen. ``generator_pids`` returns the processes that make the load; the
    children of the server belong to it, unless they are among those. ``find`` looks for the server again when it has
    ended.
    """

    def __init__(
        self,
        server_pid: int | None,
        generator_pids: Callable[[], list[int]],
        find: Callable[[], int | None] | None = None,
    ) -> None:
        self.server_pid = server_pid
        self.warnings: list[Warned] = []
        self._generator_pids = generator_pids
        self._find = find
        self._limits = resources.limits()
        self.cores = resources.whole_cores(self._limits)
        self._memory = resources.memory_limit(self._limits)
        self._server, self._generator = _Group(), _Group()
        self._children: set[int] = set()
        self._family_due = 0.0
        self._points: deque[_Point] = deque(maxlen=MAX_POINTS)
        self._swapped = self._swapped_first = _swapped()
        self._overflows = self._overflows_first = _overflows()
        self._alarms = {
            "machine": Alarm(0.9, 0.8),
            "server core": Alarm(0.95, 0.85),
            "generator core": Alarm(0.9, 0.8),
            "generator lag": Alarm(20.0, 10.0, 3),
            "memory": Alarm(0.9, 0.88),
            "descriptors": Alarm(0.8, 0.75),
            "gone": Alarm(0.5, 0.5, 1),
            "swap": Alarm(SWAP_BYTES, 0, 1),
            "overflow": Alarm(0, 0, 1),
        }

    def sample(self, at_s: float, connected: int, talking: int, lag_ms: float) -> Sample:
        """Look at everything. ``lag_ms`` is how late a generator's event loop was at worst since the last sample."""
        now = time.monotonic()
        if now >= self._family_due:
            self._family_due = now + FAMILY_S
            self._look_for_others(at_s)
        generators = set(self._generator_pids())
        generator = self._generator.update(generators, now)
        server = None
        if self.server_pid is not None:
            server = self._server.update({self.server_pid, *self._children} - generators, now)
            server = server if server.processes else None
        network = psutil.net_io_counters(nowrap=False)
        point = _Point(
            at_s=at_s,
            machine_s=self._machine_s(),
            server_s=self._server.used_s,
            server_main_s=self._server.main_s,
            generator_s=self._generator.used_s,
            generator_main_s=self._generator.main_s,
            received=network.bytes_recv if network else 0,
            sent=network.bytes_sent if network else 0,
            server=server,
            generator=generator,
        )
        sample = self._sample(point, connected, talking, lag_ms)
        self._points.append(point)
        self._warn(sample)
        return sample

    def usage_between(self, begin_s: float, end_s: float) -> tuple[Usage | None, Usage]:
        """Return what server and generator used between two moments: CPU exactly, the rest on average over samples.

        The server's is None when it was not seen in that time.
        """
        points = [point for point in self._points if begin_s <= point.at_s <= end_s]
        if not points:
            points = sorted(self._points, key=lambda point: abs(point.at_s - end_s))[:1]
        passed_s = max(0.0, end_s - begin_s)
        first, last = self._used_until(begin_s), self._used_until(end_s)
        used = [
            (late - early) / passed_s if passed_s else 0.0 for early, late in zip(first, last, strict=True)
        ]
        seen = [point.server for point in points if point.server is not None]
        server = _average(seen, used[0], used[1]) if seen else None
        return server, _average([point.generator for point in points], used[2], used[3])

    # ------------------------------------------------------------ samples

    def _sample(self, point: _Point, connected: int, talking: int, lag_ms: float) -> Sample:
        before = next((old for old in reversed(self._points) if point.at_s - old.at_s >= SHORTEST_S), None)
        before = before or (self._points[0] if self._points else point)
        passed_s = point.at_s - before.at_s

        def rate(now: float, then: float) -> float:
            return max(0.0, (now - then) / passed_s) if passed_s > 0 else 0.0

        server = point.server
        if server is not None:
            server = msgspec.structs.replace(
                server,
                cpu=rate(point.server_s, before.server_s),
                main=rate(point.server_main_s, before.server_main_s),
            )
        return Sample(
            at_s=point.at_s,
            connected=connected,
            talking=talking,
            server=server,
            generator=msgspec.structs.replace(
                point.generator,
                cpu=rate(point.generator_s, before.generator_s),
                main=rate(point.generator_main_s, before.generator_main_s),
            ),
            lag_ms=lag_ms,
            machine_cpu=rate(point.machine_s, before.machine_s),
            memory_available=self._memory_available(),
            received_per_s=rate(point.received, before.received),
            sent_per_s=rate(point.sent, before.sent),
        )

    def _used_until(self, at_s: float) -> tuple[float, ...]:
        """Return the CPU times at a moment, as `_cpu_times` orders them, between two samples in proportion."""
        earlier: _Point | None = None
        for point in self._points:
            if point.at_s >= at_s:
                if earlier is None or point.at_s == at_s:
                    return _cpu_times(point)
                part = (at_s - earlier.at_s) / (point.at_s - earlier.at_s)
                pairs = zip(_cpu_times(earlier), _cpu_times(point), strict=True)
                return tuple(before + part * (after - before) for before, after in pairs)
            earlier = point
        return _cpu_times(earlier) if earlier is not None else (0.0,) * 4

    def _machine_s(self) -> float:
        """A container with a quota is a machine of its own: what goes on beside it is not seen."""
        used_s = resources.cpu_used_s(self._limits)
        return machine.busy_seconds() if used_s is None else used_s

    def _memory_available(self) -> int:
        available, left = int(psutil.virtual_memory().available), resources.memory_left(self._limits)
        return available if left is None else min(available, left)

    def _look_for_others(self, at_s: float) -> None:
        """Do what takes too long for every sample."""
        self._swapped, self._overflows = _swapped(), _overflows()
        if self.server_pid is None:
            return
        if processes.read(self.server_pid) is None and self._find is not None:
            found = self._find()
            if found is not None and found != self.server_pid:
                self._say(at_s, f"the server has begun anew, as process {found}")
                self.server_pid = found
        self._children = set(processes.children(self.server_pid)) - {os.getpid()}

    # ------------------------------------------------------------ warnings

    def _warn(self, sample: Sample) -> None:
        raised = {name for name, value in self._values(sample).items() if self._alarms[name].look(value)}
        for name in sorted(raised):
            self._say(sample.at_s, self._text(name, sample))
        if "overflow" in raised:
            self._overflows_first = self._overflows

    def _values(self, sample: Sample) -> dict[str, float]:
        seen = sample.server is not None
        main = self.server_pid if seen else None
        limit = processes.descriptor_limit(main) if main is not None else None
        return {
            "machine": sample.machine_cpu / self.cores,
            "server core": self._server.busiest if seen and self.cores > 1 else 0.0,
            "generator core": self._generator.busiest,
            "generator lag": sample.lag_ms,
            "memory": 1 - sample.memory_available / self._memory if self._memory else 0.0,
            "descriptors": self._server.descriptors_of(main) / limit if main is not None and limit else 0.0,
            "gone": float(self.server_pid is not None and self.server_pid in self._server.gone),
            "swap": self._swapped - self._swapped_first,
            "overflow": self._overflows - self._overflows_first if self.server_pid is not None else 0,
        }

    def _text(self, name: str, sample: Sample) -> str:
        match name:
            case "machine":
                return _crowd(sample, self.cores)
            case "server core":
                return "the server's main thread uses a whole core: whatever has to pass through it waits"
            case "generator core":
                return (
                    "a process of the load test uses a whole core: its times are too long, not the server's. "
                    "Give it more processes (--processes) or another machine"
                )
            case "generator lag":
                return (
                    f"the load test itself was {sample.lag_ms:.0f} ms late: its times are too long by up to that. "
                    "Stop other programs, or give it more cores or another machine"
                )
            case "memory":
                left = sample.memory_available / 2**20
                return f"less than a tenth of the memory is left: {left:.0f} MiB"
            case "descriptors":
                pid = self.server_pid or 0
                number, limit = self._server.descriptors_of(pid), processes.descriptor_limit(pid)
                return f"the server has {number} files and sockets open, and may have {limit}"
            case "gone":
                return f"the server, process {self.server_pid}, has ended"
            case "swap":
                moved = (self._swapped - self._swapped_first) / 2**20
                return f"the machine swaps: {moved:.0f} MiB since the test began. Times mean little like this"
            case _:
                return (
                    f"the kernel has dropped {self._overflows - self._overflows_first} new connections because the "
                    "queue of a listening socket was full: the server accepts too slowly, or its queue is short"
                )

    def _say(self, at_s: float, text: str) -> None:
        if len(self.warnings) < MAX_WARNINGS:
            self.warnings.append(Warned(at_s=at_s, text=text))


def _cpu_times(point: _Point) -> tuple[float, ...]:
    """Return server, its busiest main thread, generator, its busiest main thread; in s."""
    return point.server_s, point.server_main_s, point.generator_s, point.generator_main_s


def _average(usages: list[Usage], cpu: float, main: float) -> Usage:
    number = len(usages)
    if not number:
        return Usage(cpu=cpu, main=main)
    return Usage(
        processes=max(usage.processes for usage in usages),
        cpu=cpu,
        main=main,
        resident=sum(usage.resident for usage in usages) // number,
        descriptors=sum(usage.descriptors for usage in usages) // number,
        threads=sum(usage.threads for usage in usages) // number,
    )


def _crowd(sample: Sample, cores: int) -> str:
    """Say who fills the machine: who is not the server can be sent away."""
    server = sample.server.cpu if sample.server is not None else 0.0
    others = max(0.0, sample.machine_cpu - server - sample.generator.cpu)
    parts = [f"the server {server:.2f}"] if sample.server is not None else []
    parts += [f"the load test {sample.generator.cpu:.2f}", f"other programs {others:.2f}"]
    return (
        f"{sample.machine_cpu / cores:.0%} of the machine's CPU is in use, in cores: {', '.join(parts)}. "
        "They take it from each other, so what is measured would be better on a machine of its own"
    )


def _swapped() -> int:
    """Return how many bytes were written to swap since the machine started; 0 where that is not told."""
    try:
        return int(psutil.swap_memory().sout)
    except (OSError, RuntimeError):
        return 0


def _overflows() -> int:
    """Return how many connections the kernel has dropped because a listening socket's queue was full."""
    try:
        lines = Path("/proc/net/netstat").read_text().splitlines()
        names, values = (line.split() for line in lines if line.startswith("TcpExt:"))
        return int(values[names.index("ListenOverflows")])
    except (OSError, ValueError, IndexError):
        return 0
