"""How people speak: pauses, second thoughts, noises, packets that are lost; and what is guessed meanwhile."""

from __future__ import annotations

from typing import Final

from tests.simulation.case import Case, ask, story
from tests.simulation.scenario import (
    Asr,
    Begin,
    Llm,
    Mode,
    Release,
    Scenario,
    Speak,
    Step,
    Until,
    Wait,
)

REST: Final[tuple[Step, ...]] = (Wait(0.5), Until("said"), Until("rest", 30.0))


def said(mode: Mode, words: str, *then: Step, **settings: object) -> Scenario:
    """Return a question and what follows it."""
    return Scenario(steps=(*ask(mode, words), *then, *REST), mode=mode, **settings)  # type: ignore[arg-type]


PAUSES: Final = {
    "no pause": "q1 q2 q3",
    "a pause of 120 ms": "q1 _120 q2 q3",
    "a pause of 180 ms": "q1 q2 _180 q3",
    "two pauses": "q1 _180 q2 _180 q3",
    "five pauses": "q1 _180 q2 _180 q3 _180 q4 _180 q5 _180 q6",
    "a late start": "_1200 q1 q2",
    "one word": "q1",
    "thirty words": " ".join(f"q{n}" for n in range(1, 31)),
    "a noise before": "*240 _180 q1 q2",
    "a noise behind": "q1 q2 _120 *240",
    "words that ask for more": "q1 and _600 q2",
}
GOING_ON: Final[dict[str, tuple[str, float]]] = {
    "recognising": ("recognising", 0.2),
    "thinking": ("thinking", 0.2),
}


def _cases() -> dict[str, Case]:  # noqa: C901 - a table, written as loops
    cases: dict[str, Case] = {}
    for mode in ("auto", "manual", "realtime"):
        for streaming in (False, True):
            kind = "streaming" if streaming else "batch"
            for name, words in PAUSES.items():
                heard = " ".join(word for word in words.split() if word[0] not in "_*")
                made = said(mode, words, streaming=streaming)  # type: ignore[arg-type]
                cases[f"{mode}, {kind}: {name}"] = Case(made, (f"{heard} -> answer",))
    for mode in ("auto", "realtime"):
        for state, (until, wait) in GOING_ON.items():
            for parts in (1, 2, 3):
                steps: list[Step] = [*ask(mode)]  # type: ignore[arg-type]
                for part in range(parts):
                    steps += [Until(until), Wait(wait), Speak(f"q{10 + part}"), Until("said")]
                words = " ".join(["q1 q2", *(f"q{10 + part}" for part in range(parts))])
                slow = Scenario(
                    steps=(*steps, *REST), mode=mode, asr=(Asr(0.6),) * 4 if state == "recognising" else (),  # type: ignore[arg-type]
                    llm=(Llm(2.0),) * 4, speculation=False,
                )  # fmt: skip
                cases[f"{mode}: goes on {parts} times while {state}"] = Case(
                    slow, (f"{words} -> answer",), frozenset({f"goes on while {state}"})
                )
        for name, pause in (("holds", 0), ("does not hold", 180)):
            words = "q1 q2" if not pause else f"q1 _{pause} q2"
            cases[f"{mode}: a guess that {name}"] = Case(
                said(mode, words), (f"{words.replace(f'_{pause} ', '')} -> answer",),  # type: ignore[arg-type]
                frozenset({"guess hit"} if not pause else {"guess hit", "guess miss"}),
            )  # fmt: skip
        cases[f"{mode}: a guess is not paid for twice, nor heard"] = Case(
            said(mode, "q1 _180 q2 _180 q3", llm=(Llm(0.0), Llm(0.0))),  # type: ignore[arg-type]
            ("q1 q2 q3 -> answer",), frozenset({"guess miss"}),
        )  # fmt: skip
        cases[f"{mode}: a guess does not use tools"] = Case(
            said(mode, "q1 _180 q2", llm=(Llm(0.0, tool="quick"), Llm(0.0, tool="quick"))),  # type: ignore[arg-type]
            ("q1 q2 -> answer",), frozenset({"guess miss", "tool quick"}),
        )  # fmt: skip
        for detector in ("sure", "doubt", "late", "broken"):
            cases[f"{mode}: a turn detector that is {detector}"] = Case(
                said(mode, "q1 _180 q2", detector=detector),
                ("q1 q2 -> answer",),  # type: ignore[arg-type]
            )
        cases[f"{mode}: the recogniser lags"] = Case(
            said(mode, "q1 _180 q2", lag_s=0.05), ("q1 q2 -> answer",)
        )  # type: ignore[arg-type]
    lossy: dict[str, dict[str, tuple[int, ...]]] = {
        "one packet is lost": {"lost": (1,)},
        "the first packet is lost": {"lost": (0,)},
        "every third packet is lost": {"lost": (2, 5, 8, 11)},
        "a whole word is lost": {"lost": (4, 5, 6, 7)},
        "a packet comes twice": {"twice": (3,)},
        "all packets come twice": {"twice": tuple(range(12))},
        "a packet comes late": {"late": (2,)},
        "many packets come late": {"late": (1, 4, 7)},
    }
    for name, loss in lossy.items():
        heard = "q1 q3" if name == "a whole word is lost" else "q1 q2 q3"
        for mode in ("auto", "manual", "realtime"):
            steps = [Begin(), Until("mic", 4.0), Wait(0.1), Speak("q1 q2 q3", **loss), Until("said")]
            if mode == "manual":
                steps += [Wait(0.05), Release()]
            made = Scenario(steps=(*steps, *REST), mode=mode)  # type: ignore[arg-type]
            cases[f"{mode}: {name}"] = Case(made, story(f"{heard} -> answer"))
    cases["manual: nothing is said"] = Case(
        Scenario(steps=(Begin(), Until("mic"), Wait(1.0), Release(), *REST), mode="manual"), ()
    )
    cases["manual: only a noise"] = Case(said("manual", "*360"), ("- -> again",), frozenset({"asked again"}))
    cases["manual: a slip of the finger"] = Case(
        Scenario(steps=(Begin(), Release(), Begin(), Release(), *REST), mode="manual"), ()
    )
    cases["auto: only a noise"] = Case(said("auto", "*360"), ())
    cases["realtime: only a noise"] = Case(said("realtime", "*360"), ())
    cases["auto: a click"] = Case(said("auto", "*60"), ())
    cases["auto: the recogniser understands nothing"] = Case(
        said("auto", "q1 q2", asr=(Asr(fault="empty"),), speculation=False), ()
    )
    cases["manual: the recogniser understands nothing"] = Case(
        said("manual", "q1 q2", asr=(Asr(fault="empty"),)), ("- -> again",)
    )
    return cases


CASES: Final = _cases()
