import pytest

from mynah.sim.counters import Counters
from mynah.sim.reply_bracket import ReplyBracket


@pytest.mark.parametrize(
    ("events", "counters"),
    [
        ("start stop start stop", Counters()),
        ("stop", Counters(stop_without_start=1)),
        ("start start stop stop", Counters(second_start=1, stop_without_start=1)),
        ("asked stop", Counters()),
        ("asked stop stop", Counters(stop_without_start=1)),
        ("start asked stop", Counters()),
        # The reply ended by itself while the abort was on its way: its answer is a stop more.
        ("start asked stop stop", Counters()),
        ("start asked stop stop stop", Counters(stop_without_start=1)),
        # What an abort allowed does not excuse a stop after the next reply.
        ("asked start stop stop", Counters(stop_without_start=1)),
        ("start lost stop", Counters(stop_without_start=1)),
        ("start lost start stop", Counters()),
    ],
)
def test_pairs(events: str, counters: Counters) -> None:
    bracket = ReplyBracket(Counters())
    for event in events.split():
        getattr(bracket, event)()
    assert bracket._counters == counters
    assert not bracket.open


def test_who_asked_for_an_end_has_no_loss() -> None:
    bracket = ReplyBracket(Counters())
    bracket.start()
    assert (bracket.open, bracket.interrupted) == (True, False)
    bracket.asked()
    assert bracket.interrupted
