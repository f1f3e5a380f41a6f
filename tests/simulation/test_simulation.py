"""Whole conversations by the hundred, scripted and by chance, on virtual time. `make simulate` plays many more."""

from __future__ import annotations

from collections import Counter

import msgspec
import pytest

from mynah.wire.messages import TtsStop
from tests.simulation.campaign import play_seeds, smallest
from tests.simulation.case import ask
from tests.simulation.generate import MUST_REACH, generate
from tests.simulation.invariants import Reader, check
from tests.simulation.scenario import Interrupt, Llm, Scenario, Until, Wait, dump, load, shrink
from tests.simulation.scripted import CASES, faults_of
from tests.simulation.world import run

GROUPS = 20
"""Tests the scenarios are divided between: enough that all cores have something to do to the end."""
RANDOM = 2000
NAMES = list(CASES)


@pytest.mark.parametrize("group", range(GROUPS))
def test_scripted_conversations_go_as_they_should(group: int) -> None:
    found = {name: faults for name in NAMES[group::GROUPS] if (faults := faults_of(CASES[name]))}
    assert not found


def test_there_are_enough_scripted_conversations() -> None:
    assert len(CASES) >= 200


@pytest.mark.parametrize("group", range(GROUPS))
def test_random_conversations_keep_the_rules(group: int) -> None:
    each = RANDOM // GROUPS
    part = play_seeds(range(group * each, (group + 1) * each))
    assert part.played == each
    # A finding is told by its seed: `python -m tests.simulation --show SEED`.
    assert not [(finding.name, finding.faults) for finding in part.findings]


def test_random_conversations_reach_what_is_to_be_proved() -> None:
    """Counted over part of what the tests above play: all rare situations come up more than once in the whole."""
    counts: Counter[str] = Counter()
    seed = 0
    while not counts.keys() >= MUST_REACH and seed < RANDOM:
        counts.update(play_seeds(range(seed, seed + 50)).reached)
        seed += 50
    assert not MUST_REACH - counts.keys()


# ---------------------------------------------------------------- the simulation itself


def question(**settings: object) -> Scenario:
    return Scenario(steps=(*ask("auto"), Until("rest")), **settings)  # type: ignore[arg-type]


def test_a_scenario_can_be_written_down_and_played_again() -> None:
    scenario = generate(12)
    assert load(dump(scenario)) == scenario
    first, second = run(scenario), run(scenario)
    assert [(e.at, e.kind, e.session) for e in first.log] == [(e.at, e.kind, e.session) for e in second.log]


def test_a_failing_scenario_is_made_smaller() -> None:
    scenario = Scenario(steps=(Wait(1.0), Interrupt(), Wait(2.0)), llm=(Llm(), Llm()), lag_s=0.04)
    small = shrink(scenario, lambda s: any(isinstance(step, Interrupt) for step in s.steps))
    assert small == Scenario(steps=(Interrupt(),))


def test_the_smallest_scenario_has_the_same_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "tests.simulation.campaign.check", lambda outcome: ["1.5: 'q1' is wrong"] * bool(outcome.records)
    )
    small = smallest(question(lag_s=0.04), "7.2: 'q9' is wrong")
    assert small.lag_s == Scenario().lag_s
    assert len(small.steps) <= 1


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda log: [e for e in log if not isinstance(e.what, TtsStop)], "tts start within a reply"),
        (lambda log: [x for e in log for x in ([e, e] if isinstance(e.what, TtsStop) else [e])], "tts stop without"),
        (lambda log: [x for e in log for x in ([e, e] if e.kind == "frame" else [e])], "stamp"),
        (lambda log: [e for i, e in enumerate(log) if e.kind != "frame" or i % 7], "frame"),
        (lambda log: [msgspec.structs.replace(e, at=e.at - 1.0) if e.kind == "frame" else e for e in log], "too soon"),
        (lambda log: [e for e in log if e.kind != "send" or type(e.what).__name__ != "Stt"], "history"),
        (lambda log: [msgspec.structs.replace(e, what="q9") if e.kind == "word" else e for e in log], "not understood"),
        (lambda log: [e for e in log if e.kind != "frame"], "only 0 of"),
    ],
)  # fmt: skip
def test_faults_are_noticed(damage, told: str) -> None:  # type: ignore[no-untyped-def]
    outcome = run(question())
    assert not check(outcome)
    outcome.log = damage(outcome.log)
    assert any(told in fault for fault in check(outcome)), check(outcome)


def test_a_wrong_history_is_noticed() -> None:
    outcome = run(question())
    outcome.history.pop()
    assert any("history" in fault for fault in check(outcome))


def test_sound_of_another_sentence_with_the_same_words_is_noticed() -> None:
    twice = Scenario(
        steps=(*ask("auto"), Until("rest"), *ask("auto", "q3"), Until("rest")),
        llm=(Llm(tool="direct"),) * 2,
        speculation=False,
    )
    outcome = run(twice)
    assert not check(outcome)
    second = next(call.number for call in outcome.tts.calls[1:] if call.text == outcome.tts.calls[0].text)
    outcome.log = [
        msgspec.structs.replace(e, what=(0, e.what[1])) if e.kind == "frame" and e.what[0] == second else e
        for e in outcome.log
    ]
    assert any("a frame of" in fault for fault in check(outcome))


def test_a_word_may_be_answered_as_often_as_recordings_have_part_of_it() -> None:
    outcome = run(CASES["found: the button is released and pressed again within a word"].scenario)
    assert outcome.divided == {"q2": 2}
    assert not check(outcome)
    outcome.divided = {}
    assert check(outcome) == ["['q2'] were answered twice"]


def test_a_word_that_is_said_between_two_recordings_is_in_one() -> None:
    whole = run(
        Scenario(steps=(*ask("manual"), Wait(0.01), *ask("manual", "q3"), Until("rest")), mode="manual")
    )
    assert not check(whole)
    assert not whole.divided


def test_an_interrupted_answer_is_remembered_as_far_as_it_was_heard() -> None:
    outcome = run(
        Scenario(
            steps=(*ask("auto"), Until("frame"), Wait(0.2), Interrupt(), Wait(0.5)), llm=(Llm(words=(20,)),)
        )
    )
    assert not check(outcome)
    assert outcome.history[1].content == "R1S1 and some…"
    assert Reader(outcome).read().story[0] == "q1 q2 -> answer cut"
