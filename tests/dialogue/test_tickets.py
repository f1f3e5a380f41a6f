"""Each ticket is told once what became of its announcement."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mynah.dialogue.tickets import Tickets


@given(st.integers(0, 8), st.lists(st.tuples(st.integers(-1, 10), st.booleans()), max_size=20))
def test_everybody_is_told_once_and_the_first_word_counts(
    issued: int, settled: list[tuple[int, bool]]
) -> None:
    told: list[tuple[int, bool]] = []
    tickets = Tickets()
    numbers = [tickets.issue(lambda said, n=n: told.append((n, said))) for n in range(1, issued + 1)]
    assert len({0, *numbers}) == issued + 1, "0 is no ticket"
    first: dict[int, bool] = {}
    for number, said in settled:
        tickets.settle(number, said)
        if number in numbers:
            first.setdefault(number, said)
    assert dict(told) == first
    tickets.close()
    tickets.close()
    assert dict(told) == {**dict.fromkeys(numbers, False), **first}
    assert len(told) == issued


def test_who_is_told_may_ask_for_another() -> None:
    told: list[bool] = []
    tickets = Tickets()
    again: list[int] = []

    def on_done(said: bool) -> None:
        told.append(said)
        again.append(tickets.issue(told.append))

    tickets.settle(tickets.issue(on_done), True)
    assert told == [True]
    tickets.settle(again[0], False)
    assert told == [True, False]
