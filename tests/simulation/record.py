"""What is written down of a simulated conversation."""

from __future__ import annotations

from typing import Any

import msgspec

from mynah.dialogue import commands, events
from mynah.dialogue.record import TurnRecord
from mynah.dialogue.turn import Phase
from mynah.providers.base import ChatMessage
from tests.simulation.scenario import Scenario
from tests.simulation.services import SimTts


class Entry(msgspec.Struct, frozen=True):
    """Something that happened: ``kind`` says what ``what`` is."""

    at: float
    kind: str
    session: int
    what: Any
    more: Any = None


class Moved(msgspec.Struct, frozen=True):
    """A step of the turn machine."""

    before: Phase
    event: events.Event
    commands: tuple[commands.Command, ...]
    after: Phase


class Told(msgspec.Struct):
    """An announcement, and what its sender was told of it."""

    words: str
    session: int
    answers: list[bool]


class Outcome(msgspec.Struct):
    """All that happened in a scenario."""

    scenario: Scenario
    log: list[Entry]
    faults: list[str]
    """What was wrong at the moment it happened."""
    history: list[ChatMessage]
    tts: SimTts
    records: list[TurnRecord]
    told: list[Told]
    hits: int = 0
    misses: int = 0
    divided: dict[str, int] = {}
    """Words that somebody said while the button was released and pressed again, and how many recordings have a part."""
