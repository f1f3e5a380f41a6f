"""What became of all turns, in numbers: for the operator, and for whoever wants to know whether something is wrong."""

from __future__ import annotations

import msgspec
from loguru import logger

from mynah.dialogue.record import SessionObserver, TurnRecord
from mynah.dialogue.speculation import Speculation

log = logger.bind(tag="dialogue")


class TurnCounts(msgspec.Struct):
    """Counters since the start."""

    turns: int = 0
    interrupted: int = 0
    failed: int = 0
    """Ended with a spoken error."""
    silent: int = 0
    """Ended without a sound, a text or an error; there should be none."""
    continued: int = 0
    """The user went on after his utterance seemed to be over, before the answer had begun."""
    cut_in: int = 0
    """The answer began too early: the user stopped it in the middle of his sentence."""
    false_alarms: int = 0
    """Voices that held a reply and were nothing."""


class TurnTally:
    """Counts, and passes on. Implements `mynah.dialogue.record.SessionObserver`."""

    def __init__(self, observer: SessionObserver, speculation: Speculation) -> None:
        self._observer = observer
        self._speculation = speculation
        self.counts = TurnCounts()

    def on_session_opened(self, device_id: str, session_id: str) -> None:
        """A conversation begins."""
        self._observer.on_session_opened(device_id, session_id)

    def on_turn(self, record: TurnRecord) -> None:
        """A reply has ended, played or interrupted."""
        counts = self.counts
        counts.turns += 1
        counts.interrupted += record.interrupted
        counts.failed += bool(record.error)
        counts.continued += record.parts > 1
        counts.cut_in += record.cut_in
        counts.false_alarms += record.false_alarms
        if record.silent and not record.error:
            counts.silent += 1
            log.warning(
                "{}: a turn ended without a sound or a word ({} so far)", record.device_id, counts.silent
            )
        self._observer.on_turn(record)

    def on_session_closed(self, device_id: str, session_id: str) -> None:
        """The conversation is over."""
        self._observer.on_session_closed(device_id, session_id)

    def summary(self) -> str:
        """Return all of it in one line, for people."""
        counts, stats = self.counts, self._speculation.stats
        text = (
            f"{counts.turns} turns: {counts.interrupted} interrupted, {counts.failed} with a spoken error, "
            f"{counts.silent} silent; {counts.continued} continued by the user, {counts.cut_in} begun too early, "
            f"{counts.false_alarms} false alarms"
        )
        if stats.hits or stats.misses:
            text += (
                f"; {stats.hit_rate:.0%} of {stats.hits + stats.misses} answers guessed at a pause held, "
                f"{stats.wasted_tokens} tokens wasted"
            )
        return text
