"""Watches how the process is doing: lateness of the event loop, waiting audio, memory. One timer, ten looks a second.

What it finds goes to `mynah.dialogue.admission`, which decides; the log is told of changes and what to do.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

from loguru import logger

from mynah import resources
from mynah.dialogue.admission import Admission, Level, Signal, Signals

SAMPLE_S: Final = 0.1
LAGS: Final = 10
"""Samples of which `Watch.lag_s` is the worst: about a second."""
MEMORY_EVERY: Final = 10
"""Samples between two looks at the memory, which changes slowly."""
UPKEEP_EVERY: Final = 600
"""Samples between two calls of ``upkeep``: about a minute."""
LOG_S: Final = 10.0
"""Between two lines about the load; what changes meanwhile is told with the next."""
TRIM_S: Final = 30.0
"""Between two attempts to give freed memory back to the system."""
_STATM: Final = Path("/proc/self/statm")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096

_ADVICE: Final = {
    Signal.LOOP: "the core that the event loop runs on is used up; let several servers share the devices",
    Signal.ENCODING: "encoding takes too long; give the server another core, or let several servers share the devices",
    Signal.HEARING: "hearing takes too long; give the server another core, or let several servers share the devices",
    Signal.MEMORY: "memory is nearly used up; give the server more, or lower server.limits.max_connections",
}
_MEANING: Final = {
    Level.NORMAL: "everybody is served in full",
    Level.TENSE: "guesses and fillers are left out",
    Level.FULL: "no new conversation is taken, those going on are served as before",
}

log = logger.bind(tag="load")


class Aging(Protocol):
    """A queue that knows how long its oldest entry has waited."""

    @property
    def queue_age_s(self) -> float:
        """Seconds; 0 when nothing waits. Cheap, and safe to read from the event loop."""


class Watch:
    """The one timer that looks at the process."""

    def __init__(
        self,
        admission: Admission,
        *,
        encoding: Aging | None = None,
        hearing: Aging | None = None,
        memory_limit: int = 0,
        on_level: Callable[[Level], None] = lambda _: None,
        upkeep: Callable[[], None] = lambda: None,
        on_lag: Callable[[float], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``encoding`` and ``hearing`` are the queues that are looked at.

        ``memory_limit`` in bytes, 0: what `mynah.resources.memory_limit` finds out. ``on_level`` is told of each
        change; ``upkeep`` is called once a minute. ``on_lag`` gets each lateness of the event loop in s. ``clock``
        gives seconds that never go back, and moves within a call-back.
        """
        self._admission = admission
        self._encoding, self._hearing = encoding, hearing
        self._on_level, self._upkeep, self._on_lag, self._clock = on_level, upkeep, on_lag, clock
        self.memory_limit = memory_limit or resources.memory_limit()
        """Bytes; 0 when nobody knows, then memory does not count."""
        self.memory = 0
        """Resident bytes of the process, a second ago at most; 0 when nobody knows."""
        self.signals = Signals()
        """The last look."""
        self._lags: deque[float] = deque(maxlen=LAGS)
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._looks = 0
        self._told = Level.NORMAL
        self._told_at = self._trimmed_at = float("-inf")
        self._told_busy = 0

    @property
    def level(self) -> Level:
        """How much the server has to do."""
        return self._admission.level

    @property
    def lag_s(self) -> float:
        """How late the event loop was at worst in the last second."""
        return max(self._lags, default=0.0)

    def start(self) -> None:
        """Begin to look; on the event loop that is watched."""
        self._plan()

    def stop(self) -> None:
        """Look no more. Safe more than once."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def describe(self) -> str:
        """Return how the process is doing, in a line."""
        seen, admission = self.signals, self._admission
        memory = f"{self.memory >> 20} of {self.memory_limit >> 20} MB" if self.memory_limit else "unknown"
        cause = f" ({admission.cause.value})" if admission.cause is not None else ""
        return (
            f"load {admission.level.name.lower()}{cause}: event loop {self.lag_s * 1000:.0f} ms late, encoding waits "
            f"{seen.encoding_s * 1000:.0f} ms, hearing {seen.hearing_s * 1000:.0f} ms, memory {memory}; "
            f"{admission.talking} talking, {admission.busy_total} turned away, {admission.refused_total} refused"
        )

    def _plan(self) -> None:
        self._due = self._clock() + SAMPLE_S
        self._timer = asyncio.get_running_loop().call_later(SAMPLE_S, self._look)

    def _look(self) -> None:
        now = self._clock()
        lag = max(0.0, now - self._due)
        self._plan()  # first, so that nothing below ends the looking
        self._lags.append(lag)
        if self._on_lag is not None:
            self._on_lag(lag)
        if self._looks % MEMORY_EVERY == 0:
            self.memory = resident_bytes()
        self._looks += 1
        self.signals = Signals(
            lag,
            self._encoding.queue_age_s if self._encoding is not None else 0.0,
            self._hearing.queue_age_s if self._hearing is not None else 0.0,
            self.memory / self.memory_limit if self.memory_limit else 0.0,
        )
        before = self._admission.level
        level = self._admission.sample(now, self.signals)
        if level is not before:
            self._on_level(level)
        if self._admission.cause is Signal.MEMORY and now - self._trimmed_at >= TRIM_S:
            self._trimmed_at = now
            asyncio.get_running_loop().run_in_executor(None, give_memory_back)
        if now - self._told_at >= LOG_S:
            self._tell(now, level)
        if self._looks % UPKEEP_EVERY == 0:
            self._upkeep()

    def _tell(self, now: float, level: Level) -> None:
        """Log a change of level and those who were turned away, if there is something new."""
        busy = self._admission.busy_total - self._told_busy
        if level is self._told and not busy:
            return
        cause = self._admission.cause
        line = f"{busy} users were told to try again later; " if busy else ""
        line += f"{self.describe()}. {_MEANING[level].capitalize()}"
        if cause is not None:
            line += f". What to do: {_ADVICE[cause]}, see docs/overload.md"
        log.log("INFO" if level is Level.NORMAL and not busy else "WARNING", "{}", line)
        self._told, self._told_at, self._told_busy = level, now, self._admission.busy_total


def resident_bytes() -> int:
    """Return what the process has in memory, in bytes; 0 when the system does not tell."""
    try:
        return int(_STATM.read_bytes().split()[1]) * _PAGE
    except (OSError, ValueError, IndexError):
        return 0


def give_memory_back() -> None:
    """Return memory that was freed to the system: glibc keeps it, and a limit on resident memory counts it.

    Takes up to some 100 ms and holds no lock of the interpreter; runs on a thread.
    """
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):  # not glibc
        return
    trim(ctypes.c_size_t(0))
