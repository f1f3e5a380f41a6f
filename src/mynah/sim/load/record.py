"""What a load test writes down: the data of ``report.json``, from which page, comparison and exit code are made.

Times are ms, unless a name ends in ``_s`` (s since the run began); sizes are bytes; shares are 0 to 1. CPU is in cores:
1.0 is one core used all the time. Fields are only ever added; ``format`` grows when the meaning of one changes.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec

FORMAT = 1
"""Version of this data."""


class Distribution(msgspec.Struct, frozen=True, kw_only=True):
    """Many measurements, summed up; all 0 when there was none."""

    count: int = 0
    mean: float = 0.0
    p50: float = 0.0
    p95: float = 0.0
    p99: float = 0.0
    max: float = 0.0


class Stage(StrEnum):
    """What is timed. ``first_audio`` is what a user waits for."""

    OTA = "ota"
    """From the request at the OTA address to its answer."""
    CONNECT = "connect"
    """From the first packet of TCP to the end of the WebSocket handshake."""
    HELLO = "hello"
    """From the device's hello to the server's."""
    TRANSCRIPT = "transcript"
    """From the end of speech (auto, realtime: its last sound; manual: ``listen stop``) to ``stt``."""
    FIRST_AUDIO = "first_audio"
    """From the end of speech to the first audio of the answer, timed when it comes, whether the turn ends in the step
    or not. Answers still waited for when a step ends count with the wait until then, if that is longer than the p95 of
    those that came: they are among the slowest. Where none came, there is nothing to be told."""
    ANSWER = "answer"
    """From the end of speech to ``tts stop``: the whole answer."""
    TURN = "turn"
    """From the first word to ``tts stop``."""


class Outcomes(msgspec.Struct, frozen=True, kw_only=True):
    """Attempts at one kind of thing."""

    attempted: int = 0
    succeeded: int = 0

    @property
    def share(self) -> float:
        """Return the share that succeeded; 1 when nothing was attempted."""
        return self.succeeded / self.attempted if self.attempted else 1.0


class Frames(msgspec.Struct, frozen=True, kw_only=True):
    """Audio packets of all devices."""

    sent: int = 0
    received: int = 0
    late: int = 0
    """Received more than 5 ms after their place in the reply's own rhythm."""
    dry: int = 0
    """Received after the device had nothing left to play: an audible gap."""
    worst_gap_ms: float = 0.0
    """Longest such gap."""
    overflow: int = 0
    """Thrown away by a device whose buffer of 40 packets was full."""

    @property
    def late_share(self) -> float:
        """Return the share of received packets that were late."""
        return self.late / self.received if self.received else 0.0


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """What some processes used together, on average over a time or at a moment."""

    processes: int = 0
    cpu: float = 0.0
    main: float = 0.0
    """Cores that the busiest of their main threads used: near 1 it never rests, and what has to pass through it waits.
    0 where that is not known, as outside Linux."""
    resident: int = 0
    """Resident memory. Pages shared between the processes are counted once for each."""
    descriptors: int = 0
    threads: int = 0


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """The state of everything at one moment."""

    at_s: float
    connected: int = 0
    talking: int = 0
    """Devices in the middle of a turn."""
    server: Usage | None = None
    """None when the server is not on this machine or may not be looked at."""
    generator: Usage = Usage()
    lag_ms: float = 0.0
    """Worst lateness of a generator's event loop since the sample before."""
    machine_cpu: float = 0.0
    """Cores in use on the machine, by anybody."""
    memory_available: int = 0
    received_per_s: float = 0.0
    """Bytes per second that the machine's network interfaces received, loopback included."""
    sent_per_s: float = 0.0


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One stage of the ramp: so many devices, held for a while."""

    number: int
    devices: int
    """Wanted."""
    talkers: int = 0
    """How many of them talk."""
    began_s: float = 0.0
    ramped_s: float = 0.0
    """When all had connected, or had failed to. What follows is the measurement proper."""
    ended_s: float = 0.0
    connected: int = 0
    """At the end."""
    connections: Outcomes = Outcomes()
    """Connections with their hello, those of the ramp and reconnections."""
    turns: Outcomes = Outcomes()
    """Turns that ended while the step was held, and those `unanswered` at its end; one succeeds with ``stt``, audio and
    ``tts stop``."""
    unanswered: int = 0
    """Turns that had not ended with the step, and for which nothing had come for so long that it counts as a failure,
    though `answer_timeout_s` was not over: more than 2 s, and more than twice the time in which 95 % of the step's
    answers began. Before an answer that is the wait for its first audio; in its midst the silence after all that the
    device can have had to play."""
    pending: int = 0
    """Turns whose first audio had been waited for when the step ended, and not for as long as that: nobody knows what
    would have become of them, so they count neither way."""
    lost: int = 0
    """Connections that ended against the device's will."""
    hung_up: int = 0
    """Idle connections that the server closed after its own time-out, which is its right."""
    busy: int = 0
    """Devices that were told to come back later: refused with 503, or closed with 1013."""
    connects_per_s: float = 0.0
    """While the devices connected."""
    times: dict[Stage, Distribution] = {}
    frames: Frames = Frames()
    jitter: Distribution = Distribution()
    """How far packets of a reply came from their place in its rhythm, either way."""
    errors: dict[str, int] = {}
    """Failures by kind, such as ``connection refused``, ``no hello``, ``no answer``."""
    faults: dict[str, int] = {}
    """What devices suffered, by the names of `mynah.sim.counters.Counters`."""
    server: Usage | None = None
    """While the step was held."""
    generator: Usage = Usage()
    lag: Distribution = Distribution()
    """How late the generators' event loops were: what is below it cannot be told apart from the server's."""
    passed: bool = True
    reasons: list[str] = []
    """Which thresholds did not hold, for people."""

    @property
    def success(self) -> float:
        """Return the share of connections and turns that succeeded."""
        attempted = self.connections.attempted + self.turns.attempted
        return (self.connections.succeeded + self.turns.succeeded) / attempted if attempted else 1.0


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One look at the machine before the test."""

    name: str
    ok: bool
    found: str
    wanted: str
    remedy: str = ""
    """What to do, as a command where there is one."""
    fatal: bool = False
    """The test cannot give a meaningful result like this."""


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """Where the load came from; the server ran there too when it was asked for by a loopback address."""

    cpu: str = ""
    cores: int = 0
    memory: int = 0
    system: str = ""
    """Kernel and distribution."""
    python: str = ""
    checks: list[Check] = []


class Warned(msgspec.Struct, frozen=True, kw_only=True):
    """Something that was noticed while the test ran."""

    at_s: float
    text: str


class Knee(msgspec.Struct, frozen=True, kw_only=True):
    """Where the server stops being as good as with few devices."""

    step: int
    """Number of the first step beyond it."""
    devices: int
    """Most devices that were served as well as few."""
    talkers: int
    sign: str
    """What gave it away, for people."""


class Bottleneck(StrEnum):
    """What keeps the server from more, as far as can be told from outside."""

    NONE = "none"
    """Nothing was exhausted."""
    SERVER_CPU = "server CPU"
    SERVER_CORE = "one core"
    """The server does not use more than one core, and that one is full."""
    MACHINE_CPU = "machine CPU"
    """Server and generator together use up the machine."""
    GENERATOR = "generator"
    """The load test itself: its figures are a lower bound of what the server can do."""
    MEMORY = "memory"
    DESCRIPTORS = "file descriptors"
    PORTS = "local ports"
    ADMISSION = "admission"
    """The server refuses more on purpose."""
    SERVICES = "services behind the server"
    """Nothing is exhausted, and answers are slow."""
    UNKNOWN = "unknown"


class LoadReport(msgspec.Struct, frozen=True, kw_only=True):
    """A whole load test."""

    format: int = FORMAT
    version: str = ""
    """Of Mynah, which made the load."""
    started: str = ""
    """Local time with zone, ISO 8601."""
    command: str = ""
    """To do it again."""
    target: str = ""
    """Address, without credentials."""
    scenario: dict[str, Any] = {}
    """As it was run, all defaults filled in. Its name ends in ``, changed`` where the command line said otherwise."""
    changed: dict[str, Any] = {}
    """What the scenario of that name says instead, by key: the values in ``scenario`` are those of the command line,
    and what follows from them."""
    machine: Machine = Machine()
    steps: list[Step] = []
    samples: list[Sample] = []
    warnings: list[Warned] = []
    at_rest: Usage | None = None
    """The server before the first device came."""
    afterwards: Usage | None = None
    """The server when all had gone."""
    knee: Knee | None = None
    """None when it was not reached."""
    bottleneck: Bottleneck = Bottleneck.UNKNOWN
    evidence: str = ""
    """Why that is thought to be the bottleneck, for people."""
    interrupted: bool = False
    """Stopped with Ctrl-C: what follows is of the steps until then."""
    passed: bool = False
    reasons: list[str] = []
    """Why it did not pass."""
