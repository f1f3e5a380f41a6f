"""Makes a speech grammar small: expanded JSGF → the minimal deterministic automaton with the same sentences.

PocketSphinx expands every use of a rule, so numbers and units appear dozens of times and no two commands share their
first words. On the English commands 64 000 transitions shrink to 5 300, which makes the search fifteen times faster.
Runs in the recogniser's worker process: standard library only.
"""

from __future__ import annotations

from collections.abc import Iterable

Arc = tuple[int, int, str]
"""From state, to state, word; the empty word is an epsilon transition."""


class Automaton:
    """An acyclic word automaton. Commands have no recursive rules, so every grammar is one."""

    def __init__(self, arcs: Iterable[Arc], start: int, finals: frozenset[int]) -> None:
        self.arcs = list(arcs)
        self.start = start
        self.finals = finals

    @property
    def states(self) -> int:
        """One more than the highest state number."""
        return 1 + max((max(source, target) for source, target, _ in self.arcs), default=self.start)


def read_fsg(text: str) -> Automaton:
    """Read the text format that PocketSphinx writes grammars in. Raises ValueError when it is incomplete."""
    arcs: list[Arc] = []
    start = final = None
    for line in text.splitlines():
        match line.split():
            case ["START_STATE", state]:
                start = int(state)
            case ["FINAL_STATE", state]:
                final = int(state)
            case ["TRANSITION", source, target, _]:
                arcs.append((int(source), int(target), ""))
            case ["TRANSITION", source, target, _, word]:
                arcs.append((int(source), int(target), word))
    if start is None or final is None:
        raise ValueError("the grammar names no start or final state")
    return Automaton(arcs, start, frozenset({final}))


def minimise(automaton: Automaton) -> Automaton:
    """Return the smallest deterministic automaton with the same sentences."""
    return _merge_equal_states(_determinise(automaton))


def _determinise(automaton: Automaton) -> Automaton:
    """Subset construction; state 0 is the start."""
    silent: dict[int, list[int]] = {}
    spoken: dict[int, list[tuple[str, int]]] = {}
    for source, target, word in automaton.arcs:
        if word:
            spoken.setdefault(source, []).append((word, target))
        else:
            silent.setdefault(source, []).append(target)
    closures: dict[int, frozenset[int]] = {}

    def closure(state: int) -> frozenset[int]:
        if state not in closures:
            seen, pending = {state}, [state]
            while pending:
                new = [target for target in silent.get(pending.pop(), ()) if target not in seen]
                seen.update(new)
                pending += new
            closures[state] = frozenset(one for one in seen if one in spoken or one in automaton.finals)
        return closures[state]

    numbers = {closure(automaton.start): 0}
    pending = list(numbers)
    arcs: list[Arc] = []
    while pending:
        subset = pending.pop()
        moves: dict[str, set[int]] = {}
        for state in subset:
            for word, target in spoken.get(state, ()):
                moves.setdefault(word, set()).update(closure(target))
        for word, reached in moves.items():
            key = frozenset(reached)
            if key not in numbers:
                numbers[key] = len(numbers)
                pending.append(key)
            arcs.append((numbers[subset], numbers[key], word))
    finals = frozenset(number for subset, number in numbers.items() if subset & automaton.finals)
    return Automaton(arcs, 0, finals)


def _merge_equal_states(automaton: Automaton) -> Automaton:
    """Merge states with the same future, from the ends of the sentences backwards."""
    outgoing: dict[int, list[tuple[str, int]]] = {}
    for source, target, word in automaton.arcs:
        outgoing.setdefault(source, []).append((word, target))
    merged: dict[int, int] = {}
    futures: dict[tuple[bool, tuple[tuple[str, int], ...]], int] = {}

    def visit(state: int) -> int:
        # The depth is the length of the longest sentence, some twenty words.
        if state not in merged:
            future = tuple(sorted((word, visit(target)) for word, target in outgoing.get(state, ())))
            merged[state] = futures.setdefault((state in automaton.finals, future), len(futures))
        return merged[state]

    start = visit(automaton.start)
    arcs = [(number, target, word) for (_, future), number in futures.items() for word, target in future]
    return Automaton(arcs, start, frozenset(number for (final, _), number in futures.items() if final))
