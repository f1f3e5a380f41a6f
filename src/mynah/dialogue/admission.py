"""Whether there is room for another conversation: decided from how late the server is with what it does already.

No clock, no async, no logger. `mynah.watch` measures ten times a second and gives the figures to `Admission.sample`;
sessions ask `Admission.admits` before a conversation begins. There are three levels. At *tense* the server leaves out
what nobody misses. At *full* it takes no new conversation, so that those going on stay as good as they are.

One late moment means nothing: a collection of garbage, a pause of the whole machine. What counts is the third (for
*tense*) or fifth (for *full*) worst of the last ten samples, each signal for itself. A level is left only after the
signals have been well below it for a while, so it does not flap.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable
from typing import Final

import msgspec

WINDOW: Final = 10
"""Samples that are looked at: the last second, longer when the event loop is late."""
TENSE_RANK: Final = 3
"""Two bad samples of ten are a hiccup, three are a load."""
FULL_RANK: Final = 5
"""People are turned away only when half of the samples are bad."""
CALM: Final = 0.5
"""Pressure below which it is calm."""
TENSE_CALM_S: Final = 10.0
FULL_CALM_S: Final = 5.0
"""How long it has to be calm before a level is left: a few turns, so that what was let in since has its effect."""
GOING_ON_S: Final = 60.0
"""A conversation goes on this long after its last turn; its user is not turned away in the middle of it."""
TRY_AGAIN_LATER: Final = 1013
"""Close code for whoever comes when there is no room."""
MAX_TOLD: Final = 100
"""Users who are told at the same time, aloud, that the server is busy: 1700 packets a second, a few percent of a core.
Were there no bound, thousands who come in the same second would take it from those who talk. Overflow policy: shown
only."""
TENSE_PER_S: Final = 10.0
"""New conversations let in per second while tense; fewer the nearer it is to full. Load shows a second after it came;
so many cannot overrun a server in that time, and when a full server recovers, those who wait do not all come back at
once. Overflow policy: turned away."""
TENSE_AT_ONCE: Final = 10.0
"""Of these, how many may come in the same moment; half of them from one address."""
MAX_SOURCES: Final = 64
"""Addresses whose places are remembered; twenty ask for all there are. Overflow policy: the one that has fewest places
is forgotten, and may have as many as anybody."""


class Level(enum.IntEnum):
    """How much the server has to do."""

    NORMAL = 0
    TENSE = 1
    """Nothing is done that nobody would miss: no guesses, no fillers, no preparing of phrases, few newcomers."""
    FULL = 2
    """No new conversations."""


class Signal(enum.Enum):
    """What is measured."""

    LOOP = "event loop"
    ENCODING = "encoding"
    HEARING = "hearing"
    MEMORY = "memory"


class Signals(msgspec.Struct, frozen=True):
    """One look at the server."""

    lag_s: float = 0.0
    """How late the event loop was."""
    encoding_s: float = 0.0
    """How late the most urgent audio is at being encoded."""
    hearing_s: float = 0.0
    """How long the oldest packet has waited to be decoded and heard."""
    memory: float = 0.0
    """Share of the limit that is resident."""


class Bounds(msgspec.Struct, frozen=True):
    """Where a signal makes the server tense, and where full; ``0 < tense < full``."""

    tense: float
    full: float

    calm: float = 0.0
    """Where it is calm again; 0: at half of ``tense``."""

    def pressure(self, value: float) -> float:
        """Return how bad a value is on one scale for all signals: to `CALM` calm, from 1 on tense, from 2 on full."""
        calm = self.calm or self.tense * CALM
        if value <= calm:
            return CALM * max(value, 0.0) / calm
        if value < self.tense:
            return CALM + (1 - CALM) * (value - calm) / (self.tense - calm)
        return 1.0 + (value - self.tense) / (self.full - self.tense)


class Thresholds(msgspec.Struct, frozen=True):
    """What the levels depend on. Times in seconds, memory as a share of its limit."""

    lag_s: Bounds = Bounds(0.03, 0.1)
    queue_s: Bounds = Bounds(0.1, 0.3)
    """For encoding and for hearing."""
    memory: Bounds = Bounds(0.85, 0.95, 0.8)
    """Calm again soon below: what a process has had once it keeps in good part."""
    always: int = 8
    """Conversations that are always taken: a server that is slow with so few is slow for another reason."""


class Relay:
    """Switches on at a pressure, and off when it has been below a lower one for a while."""

    __slots__ = ("_calm_s", "_calm_since", "_off", "_on", "on")

    def __init__(self, on: float, off: float, calm_s: float) -> None:
        self._on, self._off, self._calm_s = on, off, calm_s
        self._calm_since: float | None = None
        self.on = False

    def step(self, now: float, pressure: float) -> bool:
        """Take in a pressure and return whether it is on. ``now`` in seconds, never going back."""
        if pressure >= self._off:
            self._calm_since = None
        elif self._calm_since is None:
            self._calm_since = now
        if pressure >= self._on:
            self.on = True
        elif self._calm_since is not None and now - self._calm_since >= self._calm_s:
            self.on = False
        return self.on


class Places:
    """The places of a tense server, shared out among the addresses that ask for them.

    A place that was taken is free again as time goes by, one after the other, in turn for each address that has any.
    An address may take as many as it leaves free for others. So one that asks all the time has all of them while
    nobody else does, and never keeps anybody out. A fixed number for each would slow down every site whose devices
    share one address.
    """

    __slots__ = ("_at", "_taken")

    def __init__(self) -> None:
        self._taken: dict[str, float] = {}
        self._at = 0.0

    def take(self, now: float, per_s: float, source: str) -> bool:
        """Take a place for ``source``; False when there is none. ``now`` in seconds, never going back.

        ``per_s``: how many have become free in a second since the last call.
        """
        self._give_back((now - self._at) * per_s)
        self._at = now
        taken = self._taken.get(source, 0.0) + 1.0
        if taken > TENSE_AT_ONCE - sum(self._taken.values()):
            return False
        if source not in self._taken and len(self._taken) >= MAX_SOURCES:
            del self._taken[min(self._taken, key=self._taken.__getitem__)]
        self._taken[source] = taken
        return True

    def _give_back(self, places: float) -> None:
        while self._taken and places > 0:
            fewest, share = min(self._taken.values()), places / len(self._taken)
            if share < fewest:
                self._taken = {source: taken - share for source, taken in self._taken.items()}
                return
            places -= fewest * len(self._taken)
            self._taken = {source: taken - fewest for source, taken in self._taken.items() if taken > fewest}


class Admission:
    """The level of a server, and who may begin a conversation. Used on the event loop only."""

    def __init__(self, thresholds: Thresholds | None = None, *, enabled: bool = True) -> None:
        """Not ``enabled``: it is `Level.NORMAL` whatever happens."""
        self._thresholds = thresholds or Thresholds()
        self.enabled = enabled
        self.level = Level.NORMAL
        self.cause: Signal | None = None
        """What the level is for; None at `Level.NORMAL`."""
        self.talking = 0
        """Conversations in which somebody listens or speaks now; sessions count themselves."""
        self.busy_total = 0
        """How many users were told that the server is busy."""
        self.refused_total = 0
        """How many connections were refused because the server was full."""
        self.telling = 0
        """How many are being told so aloud at this moment."""
        self._traces = {signal: deque([0.0] * WINDOW, WINDOW) for signal in Signal}
        self._tense = Relay(1.0, CALM, TENSE_CALM_S)
        self._full = Relay(2.0, 1.5, FULL_CALM_S)
        self._no_memory = Relay(2.0, 1.5, FULL_CALM_S)
        self._pressure = 0.0
        self._places = Places()

    @property
    def tense(self) -> bool:
        """Whether to leave out what nobody misses."""
        return self.level is not Level.NORMAL

    @property
    def memory_full(self) -> bool:
        """Whether there is no memory for devices that only stay connected either."""
        return self._no_memory.on

    def sample(self, now: float, signals: Signals) -> Level:
        """Take in one look at the server and return the level. ``now`` in seconds, never going back."""
        if not self.enabled:
            return self.level
        bounds = self._thresholds
        values = (
            (Signal.LOOP, bounds.lag_s, signals.lag_s),
            (Signal.ENCODING, bounds.queue_s, signals.encoding_s),
            (Signal.HEARING, bounds.queue_s, signals.hearing_s),
            (Signal.MEMORY, bounds.memory, signals.memory),
        )
        few = self.talking < bounds.always
        for signal, limits, value in values:
            # With few conversations it is not they that make the server late.
            counts = signal is Signal.MEMORY or not few
            self._traces[signal].append(limits.pressure(value) if counts else 0.0)
        ranked = {signal: sorted(trace, reverse=True) for signal, trace in self._traces.items()}
        worst = max(Signal, key=lambda signal: ranked[signal][TENSE_RANK - 1])
        self._pressure = ranked[worst][TENSE_RANK - 1]
        tense = self._tense.step(now, self._pressure)
        full = self._full.step(now, max(trace[FULL_RANK - 1] for trace in ranked.values()))
        self._no_memory.step(now, ranked[Signal.MEMORY][FULL_RANK - 1])
        before, self.level = self.level, Level.FULL if full else Level.TENSE if tense else Level.NORMAL
        if self.level is Level.NORMAL:
            self.cause = None
        elif self.level > before or self._pressure >= 1.0:
            self.cause = worst
        return self.level

    def tell(self) -> bool:
        """A user is being told that the server is busy. Return whether aloud; then call `told` when it is over."""
        self.busy_total += 1
        aloud = self.telling < MAX_TOLD
        self.telling += aloud
        return aloud

    def told(self) -> None:
        """It is over, heard or not."""
        self.telling -= 1

    def count(self, before: bool, now: bool) -> bool:
        """A conversation that was being talked in, or not, ``before``, is so ``now``; return ``now``."""
        self.talking += now - before
        return now

    def admits(self, now: float, talked_at: float, source: Callable[[], str] = lambda: "") -> bool:
        """Return whether a user may begin to talk.

        ``now``: seconds of the sessions' clock; ``talked_at``: when somebody was last heard or answered in this
        conversation, 0 for never. ``source`` returns the address it counts for; asked only where places are few.
        """
        going_on = talked_at > 0 and now - talked_at < GOING_ON_S
        if going_on or self.level is Level.NORMAL or self.talking < self._thresholds.always:
            return True
        if self.level is Level.FULL:
            return False
        rate = TENSE_PER_S * min(max(2.0 - self._pressure, 0.0), 1.0)
        return self._places.take(now, rate, source())
