"""How a turn is told to programs: what became of it, by few and fixed words."""

from __future__ import annotations

import enum
from collections.abc import Sequence

from mynah.dialogue.record import SessionObserver, TurnRecord
from mynah.wire.messages import ListenMode

UNPROMPTED = "unprompted"
"""The mode of a turn that no user began: a reminder, an announcement, a farewell."""


MODES = (*(mode.value for mode in ListenMode), "text", UNPROMPTED)
"""All there are."""


class Outcome(enum.StrEnum):
    """What became of a turn."""

    DONE = "done"
    INTERRUPTED = "interrupted"
    FAILED = "failed"
    """It ended with a spoken error."""
    SILENT = "silent"
    """It ended without a sound, a text or an error; there should be none."""


def outcome_of(record: TurnRecord) -> Outcome:
    """Return what became of a turn. One that failed and was then interrupted has failed."""
    if record.error:
        return Outcome.FAILED
    if record.interrupted:
        return Outcome.INTERRUPTED
    return Outcome.SILENT if record.silent else Outcome.DONE


def mode_of(record: TurnRecord) -> str:
    """Return how the user spoke: ``auto``, ``manual``, ``realtime``, ``text`` or `UNPROMPTED`."""
    return record.mode or UNPROMPTED


class Observers:
    """Several observers in place of one, told in this order. Implements `mynah.dialogue.record.SessionObserver`."""

    def __init__(self, observers: Sequence[SessionObserver]) -> None:
        self._observers = tuple(observers)

    def on_session_opened(self, device_id: str, session_id: str) -> None:
        """A conversation begins."""
        for observer in self._observers:
            observer.on_session_opened(device_id, session_id)

    def on_turn(self, record: TurnRecord) -> None:
        """A reply has ended, played or interrupted."""
        for observer in self._observers:
            observer.on_turn(record)

    def on_session_closed(self, device_id: str, session_id: str) -> None:
        """The conversation is over."""
        for observer in self._observers:
            observer.on_session_closed(device_id, session_id)
