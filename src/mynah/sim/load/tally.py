"""What the devices of one process went through, counted: the running sum of a step, and how several become one."""

from __future__ import annotations

from typing import Final

import msgspec

from mynah.sim.load.histogram import Histogram
from mynah.sim.load.record import Frames, Outcomes, Stage, Step
from mynah.sim.load.talker import TURN_ERRORS, UNANSWERED

MAX_KINDS: Final = 50
"""Kinds of errors that are told apart: a server may close with 64 k different codes. What is beyond is ``other``."""

OVERDUE: Final = 2.0
"""How many times longer than 95 % of the answers took to begin one is waited for until it counts as unanswered: where
answers take 4 s, a wait of 5 s is none."""

OVERDUE_LEAST_MS: Final = 2000.0
"""No shorter wait is unanswered, however fast the other answers were: a hiccup is not."""

_CONNECTING: Final = (Stage.OTA, Stage.CONNECT, Stage.HELLO)


class Tally(msgspec.Struct, kw_only=True):
    """Counts since a step began; those of turns and audio since it is held (see `hold`)."""

    step: int = 0
    """Number of the step; 0 before the first."""
    held: bool = False
    connected: int = 0
    """Devices that have said hello and were answered, now."""
    talking: int = 0
    """Devices in the middle of a turn, now."""
    untried: int = 0
    """Devices that have not tried to connect, or are at it for the first time, now."""
    ramp_s: float = 0.0
    """From the beginning of the step until all its devices had tried to connect; 0 while they have not."""
    attempted: int = 0
    """Connections, with their hello; those that were told to come back later do not count."""
    succeeded: int = 0
    turns: int = 0
    answered: int = 0
    lost: int = 0
    hung_up: int = 0
    busy: int = 0
    sent: int = 0
    received: int = 0
    late: int = 0
    dry: int = 0
    worst_gap_ms: float = 0.0
    overflow: int = 0
    times: dict[Stage, Histogram] = {}
    """In ms."""
    waits: list[float] = []
    """How long talkers have been waiting for the first audio of an answer, in ms, when the step was settled: one for
    each at most."""
    silences: list[float] = []
    """How long devices had had nothing more to play of an answer that has not ended, in ms, when the step was settled:
    one for each talker at most."""
    jitter: Histogram = msgspec.field(default_factory=Histogram)
    """In ms."""
    lag: Histogram = msgspec.field(default_factory=Histogram)
    """Of the process's event loop, in ms."""
    worst_lag_ms: float = 0.0
    """Since the last look."""
    errors: dict[str, int] = {}
    faults: dict[str, int] = {}

    def hold(self) -> None:
        """The ramp is over: turns and audio, and what goes wrong with them, are counted from here."""
        fresh = Tally()
        for name in ("turns", "answered", "sent", "received", "late", "dry", "worst_gap_ms", "overflow"):
            setattr(self, name, getattr(fresh, name))
        self.jitter, self.lag = Histogram(), Histogram()
        self.times = {stage: times for stage, times in self.times.items() if stage in _CONNECTING}
        self.waits, self.silences = [], []
        self.errors = {kind: count for kind, count in self.errors.items() if kind not in TURN_ERRORS}
        self.faults = {}
        self.held = True

    def time(self, stage: Stage, ms: float) -> None:
        """Note how long something took."""
        known = self.times.get(stage)
        if known is None:
            known = self.times[stage] = Histogram()
        known.add(ms)

    def error(self, kind: str, count: int = 1) -> None:
        """Count a failure."""
        _count(self.errors, kind, count)

    def unerror(self, kind: str) -> None:
        """Take back one failure; one that is not known by its kind was counted as ``other``, and stays."""
        left = self.errors.get(kind, 0) - 1
        if left > 0:
            self.errors[kind] = left
        else:
            self.errors.pop(kind, None)

    def fault(self, name: str, count: int = 1) -> None:
        """Count something that a device suffered, by its name in `mynah.sim.counters.Counters`."""
        _count(self.faults, name, count)

    def merge(self, other: Tally) -> None:
        """Add what another process has counted in the same step."""
        for name in _SUMS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.step, self.held = max(self.step, other.step), self.held or other.held
        self.ramp_s = max(self.ramp_s, other.ramp_s)
        self.worst_gap_ms = max(self.worst_gap_ms, other.worst_gap_ms)
        self.worst_lag_ms = max(self.worst_lag_ms, other.worst_lag_ms)
        for stage, times in other.times.items():
            self.times.setdefault(stage, Histogram()).merge(times)
        self.waits += other.waits
        self.silences += other.silences
        self.jitter.merge(other.jitter)
        self.lag.merge(other.lag)
        for kind, count in other.errors.items():
            self.error(kind, count)
        for name, count in other.faults.items():
            self.fault(name, count)

    def step_record(self, step: Step) -> Step:
        """Return the step with what was counted filled in.

        Of the first audio that talkers were still waiting for, the waits longer than the p95 of those that came count
        as well, each as long as it was: they are among the slowest, however long they would have become. Shorter ones
        say nothing. So answers that hang until after the end of the step are not left out of its figures.

        Turns that have waited too long in the light of the others have failed (`Step.unanswered`): a step that is held
        for less than an answer may take would not see that they do. The others who wait for an answer are pending.
        """
        overdue_ms = self._overdue_ms()
        unanswered = sum(wait > overdue_ms for wait in (*self.waits, *self.silences))
        errors = {**self.errors, UNANSWERED: unanswered} if unanswered else self.errors
        return msgspec.structs.replace(
            step,
            connected=self.connected,
            connections=Outcomes(attempted=self.attempted, succeeded=self.succeeded),
            turns=Outcomes(attempted=self.turns + unanswered, succeeded=self.answered),
            unanswered=unanswered,
            pending=sum(wait <= overdue_ms for wait in self.waits),
            lost=self.lost,
            hung_up=self.hung_up,
            busy=self.busy,
            times={stage: self._timed(stage).distribution() for stage in self.times},
            frames=Frames(
                sent=self.sent,
                received=self.received,
                late=self.late,
                dry=self.dry,
                worst_gap_ms=self.worst_gap_ms,
                overflow=self.overflow,
            ),
            jitter=self.jitter.distribution(),
            lag=self.lag.distribution(),
            errors=dict(sorted(errors.items(), key=lambda item: (-item[1], item[0]))),
            faults=dict(sorted(self.faults.items())),
        )

    def _overdue_ms(self) -> float:
        """Return how long a turn may have waited at the end of a step without being unanswered."""
        known = self.times.get(Stage.FIRST_AUDIO)
        return max(OVERDUE_LEAST_MS, OVERDUE * known.distribution().p95 if known is not None else 0.0)

    def _timed(self, stage: Stage) -> Histogram:
        """Return the times of a stage, with the waits that belong to them."""
        known = self.times[stage]
        if stage is not Stage.FIRST_AUDIO or not self.waits:
            return known
        limit = known.distribution().p95
        both = Histogram()
        both.merge(known)
        for wait in self.waits:
            if wait > limit:
                both.add(wait)
        return both


_SUMS: Final = (
    "connected", "talking", "untried", "attempted", "succeeded", "turns", "answered", "lost", "hung_up", "busy",
    "sent", "received", "late", "dry", "overflow",
)  # fmt: skip


def merged(tallies: list[Tally]) -> Tally:
    """Return the sum of what several processes have counted."""
    total = Tally()
    for tally in tallies:
        total.merge(tally)
    return total


def _count(counts: dict[str, int], name: str, count: int) -> None:
    if name not in counts and len(counts) >= MAX_KINDS:
        name = "other"
    counts[name] = counts.get(name, 0) + count
