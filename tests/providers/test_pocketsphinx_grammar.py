"""Grammar reduction keeps the sentences and loses the states."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mynah.providers.asr.pocketsphinx_grammar import Automaton, minimise, read_fsg

words = st.lists(st.sampled_from(["set", "a", "timer", "for", "ten"]), min_size=1, max_size=5)


def sentences(automaton: Automaton) -> set[tuple[str, ...]]:
    found: set[tuple[str, ...]] = set()
    pending: list[tuple[int, tuple[str, ...]]] = [(automaton.start, ())]
    while pending:
        state, said = pending.pop()
        if state in automaton.finals:
            found.add(said)
        for source, target, word in automaton.arcs:
            if source == state:
                pending.append((target, (*said, word) if word else said))
    return found


def tree(phrases: list[list[str]]) -> Automaton:
    """One separate path for each phrase, joined by epsilon transitions as PocketSphinx does it."""
    arcs, state = [], 2
    for phrase in phrases:
        arcs.append((0, state, ""))
        for word in phrase:
            arcs.append((state, state + 1, word))
            state += 1
        arcs.append((state, 1, ""))
        state += 1
    return Automaton(arcs, 0, frozenset({1}))


@given(st.lists(words, min_size=1, max_size=8))
def test_same_sentences_and_deterministic(phrases: list[list[str]]) -> None:
    original = tree(phrases)
    small = minimise(original)
    assert sentences(small) == sentences(original)
    assert all(word for _, _, word in small.arcs)
    assert len({(source, word) for source, _, word in small.arcs}) == len(small.arcs)


def test_common_ends_are_shared() -> None:
    small = minimise(tree([["set", "a", "timer"], ["start", "a", "timer"]]))
    assert small.states == 4
    assert len(small.arcs) == 4


def test_reads_the_text_format() -> None:
    text = "FSG_BEGIN <x>\nNUM_STATES 3\nSTART_STATE 0\nFINAL_STATE 2\n"
    text += "TRANSITION 0 1 0.5 stop\nTRANSITION 1 2 1.0\nFSG_END\n"
    assert sentences(read_fsg(text)) == {("stop",)}


def test_incomplete_text_is_refused() -> None:
    with pytest.raises(ValueError, match="start or final"):
        read_fsg("FSG_BEGIN <x>\nSTART_STATE 0\n")
