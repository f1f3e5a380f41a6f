"""What a load test does: how many devices in which steps, what they do, and when the result counts as good."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec

from mynah.wire.messages import ListenMode


class Behaviour(StrEnum):
    """What devices do once they have said hello."""

    IDLE = "idle"
    """Nothing: the connection stays open."""
    TALK = "talk"
    """Turn after turn: speak in real time, hear the whole answer, wait a moment."""
    MIXED = "mixed"
    """A share of them talk, the others are idle."""
    CHURN = "churn"
    """Connect, say hello, stay a moment, hang up, come back."""


class Thresholds(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every step must keep; None: not asked for."""

    success: float = 0.99
    """Share of connections and turns that succeed."""
    connect_p95_ms: float | None = 1000.0
    hello_p95_ms: float | None = 1000.0
    first_audio_p95_ms: float | None = None
    """Absolute; it depends on the AI services behind the server."""
    first_audio_growth: float | None = 2.0
    """p95 of the first audio, as a multiple of that of the first step with talkers."""
    late_share: float | None = 0.01
    """Of the packets, more than 5 ms late."""
    dry_share: float | None = 0.01
    """Of the packets, after an audible gap."""
    overflow: int | None = 0
    """Packets lost in full devices."""


class Scenario(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A load test. The file format is this, as YAML."""

    name: str = "custom"
    steps: tuple[int, ...] = (100, 500)
    """Devices connected in each step, never fewer than in the step before."""
    behaviour: Behaviour = Behaviour.IDLE
    talkers_share: float = 0.1
    """Of the devices, with behaviour ``mixed``."""
    max_talkers: int | None = None
    """Never more than so many talk, with behaviour ``mixed``."""
    hold_s: float = 20.0
    """How long a step is held after its devices have connected."""
    connects_per_s: float = 200.0
    """How fast devices connect while a step ramps up; with ``churn`` also while it is held."""
    stay_s: float = 1.0
    """How long a connection lasts with ``churn``."""
    mode: ListenMode = ListenMode.AUTO
    protocol: int = 1
    """Framing version, 1 to 3."""
    language: str = "en"
    """Of what the devices say: ``en`` or ``zh``."""
    say: tuple[str, ...] = ()
    """What they say; empty: built-in questions."""
    pause_s: tuple[float, float] = (0.5, 2.0)
    """Between an answer and the next question, at random."""
    answer_timeout_s: float = 15.0
    """A turn without an answer for so long has failed."""
    interrupt_share: float = 0.0
    """Of the answers, cut off by the user after a second."""
    stop_when_failed: bool = True
    """Do not go on to larger steps when one did not pass."""
    thresholds: Thresholds = Thresholds()


_RAMP: Final = (100, 500, 1000, 2000, 5000, 10_000, 20_000)


def _up_to(devices: int) -> tuple[int, ...]:
    return (*(step for step in _RAMP if step < devices), devices)


BUILT_IN: Final = {
    "quick": Scenario(name="quick", steps=_up_to(500), hold_s=10.0, connects_per_s=200.0),
    "standard": Scenario(name="standard", steps=_up_to(2000), hold_s=20.0, connects_per_s=300.0),
    "stress": Scenario(name="stress", steps=_up_to(10_000), hold_s=30.0, connects_per_s=500.0),
    "extreme": Scenario(name="extreme", steps=_up_to(20_000), hold_s=30.0, connects_per_s=1000.0),
}
"""Scenarios by name."""
