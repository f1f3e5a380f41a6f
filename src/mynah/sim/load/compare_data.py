"""The data of two load tests side by side, which ``compare.json`` holds."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from mynah.sim.load.noise import Change
from mynah.sim.load.record import Bottleneck
from mynah.sim.load.units import Unit


class Figure(StrEnum):
    """What is compared in each step."""

    SUCCESS = "success"
    CONNECT_P95 = "connect_p95"
    HELLO_P95 = "hello_p95"
    TRANSCRIPT_P95 = "transcript_p95"
    FIRST_AUDIO_P50 = "first_audio_p50"
    FIRST_AUDIO_P95 = "first_audio_p95"
    FIRST_AUDIO_P99 = "first_audio_p99"
    LATE = "late"
    DRY = "dry"
    OVERFLOW = "overflow"
    LOST = "lost"
    CONNECTS_PER_S = "connects_per_s"
    SERVER_CPU = "server_cpu"
    CPU_TALKER = "cpu_talker"
    SERVER_MEMORY = "server_memory"
    MEMORY_PER_DEVICE = "memory_per_device"


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """One figure of both reports. None: that report does not have it."""

    figure: Figure
    unit: Unit
    before: float | None
    after: float | None
    ratio: float | None
    """After by before; None where one is missing or before is 0."""
    change: Change


class Pair(msgspec.Struct, frozen=True, kw_only=True):
    """Two steps with the same number of devices."""

    devices: int
    before: int
    """Number of the step in the first report."""
    after: int
    talkers_before: int
    talkers_after: int
    passed_before: bool
    passed_after: bool
    figures: list[Compared]


class Difference(StrEnum):
    """What makes figures hard to compare."""

    MACHINE = "machine"
    SCENARIO = "scenario"
    FORMAT = "format"
    VERSION = "version"
    TALKERS = "talkers"
    INTERRUPTED = "interrupted"
    GENERATOR = "generator"
    CHECKS = "checks"


class Caution(msgspec.Struct, frozen=True, kw_only=True):
    """One reason to be careful."""

    about: Difference
    name: str = ""
    """What of it differs, such as ``cores``."""
    before: str = ""
    after: str = ""


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """Which report it was, and its answer."""

    target: str
    started: str
    version: str
    passed: bool
    interrupted: bool
    steps: int
    knee_devices: int | None
    """Most devices that were served as well as few; None when the limit was not reached."""
    most_passed: int | None
    """Devices of the largest step that passed."""
    bottleneck: Bottleneck
    evidence: str


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Two load tests side by side."""

    before: Side
    after: Side
    cautions: list[Caution]
    pairs: list[Pair]
    only_before: list[int]
    """Numbers of devices of steps that only the first report has."""
    only_after: list[int]

    def changes(self, change: Change) -> int:
        """Return how many figures of all steps changed like this."""
        return sum(one.change is change for pair in self.pairs for one in pair.figures)
