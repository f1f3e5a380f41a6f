"""Longer stories: interruptions that are judged, announcements, wake words, farewells, reconnections, allowances."""

from __future__ import annotations

from typing import Final

from tests.simulation.case import Case, ask, story
from tests.simulation.scenario import (
    Announce,
    Begin,
    Connect,
    Drop,
    Interrupt,
    Leave,
    Llm,
    Mode,
    Release,
    Restart,
    Scenario,
    Speak,
    Step,
    Tts,
    Type,
    Until,
    Wait,
    Wake,
)

REST: Final[tuple[Step, ...]] = (Wait(0.5), Until("said"), Until("rest", 60.0))
LONG: Final = Llm(words=(20, 20))


def over(*voices: str, **settings: object) -> Scenario:
    """Return a reply in realtime mode, and voices during it."""
    steps: list[Step] = [*ask("realtime"), Until("frame"), Wait(0.3)]
    for voice in voices:
        steps += [Speak(voice), Until("said"), Wait(1.2)]
    return Scenario(steps=(*steps, *REST), mode="realtime", llm=(LONG, LONG), speculation=False, **settings)  # type: ignore[arg-type]


HOLD, RESUME, CUT = "hold", "hold, then resume", "hold, then barge in"
INTERRUPTIONS: Final[dict[str, tuple[Scenario, str, set[str]]]] = {
    "a cough": (over("*240"), "q1 q2 -> answer", {HOLD, RESUME}),
    "two coughs": (over("*240", "*360"), "q1 q2 -> answer", {HOLD, RESUME}),
    "a click": (over("*60"), "q1 q2 -> answer", set()),
    "uh-huh": (over("uh-huh"), "q1 q2 -> answer", {HOLD, RESUME}),
    "yeah, twice": (over("yeah", "yeah"), "q1 q2 -> answer", {HOLD}),
    "what is being said comes back": (over("some more words"), "q1 q2 -> answer", {HOLD, RESUME}),
    "one word": (over("q7"), "q1 q2 -> answer cut | q7 -> answer", {HOLD, CUT}),
    "a sentence": (over("q7 q8 q9"), "q1 q2 -> answer cut | q7 q8 q9 -> answer", {HOLD, CUT}),
    "a cough, then a sentence": (
        over("*240", "q7 q8 q9"), "q1 q2 -> answer cut | q7 q8 q9 -> answer", {HOLD, RESUME, CUT}
    ),
    "a pause in the interruption": (
        over("q7 _180 q8"), "q1 q2 -> answer cut | q7 q8 -> answer", {HOLD, CUT}
    ),
    "an exit": (over("goodbye"), "q1 q2 -> answer cut | goodbye -> bye | closed", {HOLD, CUT, "exit command"}),
    "a sentence, not judged": (
        over("q7 q8 q9", judge=False), "q1 q2 -> answer cut | q7 q8 q9 -> answer", set()
    ),
    "a cough, not judged": (over("*180", judge=False), "q1 q2 -> answer", set()),
    "a long noise": (over("*1800"), "q1 q2 -> answer cut", {HOLD, CUT}),
}  # fmt: skip


def _cases() -> dict[str, Case]:
    cases = {
        f"realtime, during a reply: {name}": Case(made, story(told), frozenset(reaches))
        for name, (made, told, reaches) in INTERRUPTIONS.items()
    }
    for mode in ("auto", "manual", "realtime"):
        cases |= _in_mode(mode)  # type: ignore[arg-type]
    cases["auto: silence, and a farewell"] = Case(
        Scenario(steps=(Begin(), Until("mic"), Wait(120.0))), ("- -> bye", "closed"), frozenset({"farewell"})
    )
    cases["auto: silence, and a farewell that the model says"] = Case(
        Scenario(steps=(Begin(), Until("mic"), Wait(125.0)), asked_farewell=True), ("- -> answer", "closed"),
        frozenset({"farewell"}),
    )  # fmt: skip
    cases["auto: silence, and the model cannot say farewell"] = Case(
        Scenario(steps=(Begin(), Until("mic"), Wait(125.0)), asked_farewell=True, llm=(Llm(fault="fail"),)),
        ("- -> bye", "closed"),
    )
    cases["auto: somebody speaks during the farewell"] = Case(
        Scenario(
            steps=(Begin(), Until("mic"), Until("frame", 130.0), Interrupt(), Wait(1.0), *ask("auto"), *REST)
        ),
        ("- -> bye cut", "q1 q2 -> answer"),
    )
    cases["manual: silence, and no farewell"] = Case(
        Scenario(steps=(Wait(120.0),), mode="manual"), ("closed",), frozenset({"hang up"})
    )
    cases["auto: a wake word, then a question"] = Case(
        Scenario(steps=(Wake(), Until("frame"), Until("mic"), Wait(0.1), Speak("q1 q2"), Until("said"), *REST)),
        ("hey mynah -> hello", "q1 q2 -> answer"), frozenset({"greeting"}),
    )  # fmt: skip
    cases["auto: a wake word without a greeting, then a question"] = Case(
        Scenario(
            steps=(Wake(), Until("mic"), Wait(0.1), Speak("q1 q2"), Until("said"), *REST), greeting=False
        ),
        ("hey mynah -> nothing", "q1 q2 -> answer"),
    )
    cases["realtime: a wake word during the answer"] = Case(
        Scenario(steps=(*ask("realtime"), Until("frame"), Wake(), Wait(0.2), Speak("q3"), Until("said"), *REST),
                 mode="realtime"),
        ("q1 q2 -> answer cut", "q3 -> answer"),
    )  # fmt: skip
    cases["auto: the client starts to listen twice"] = Case(
        Scenario(steps=(*ask("auto"), Until("frame"), Interrupt(), Restart(), Wait(0.1), Restart(),
                        Wait(0.5), Speak("q3"), Until("said"), *REST)),
        ("q1 q2 -> answer cut", "q3 -> answer"),
    )  # fmt: skip
    cases["auto: allowance used up"] = Case(
        Scenario(steps=(*ask("auto"), *REST, *ask("auto", "q3"), *REST), allowance=30),
        ("q1 q2 -> answer", "q3 -> enough", "closed"), frozenset({"allowance used up"}),
    )  # fmt: skip
    cases["auto: ten announcements at once"] = Case(
        Scenario(steps=(*ask("auto"), Until("frame"), *(Announce(f"News q{n} now.") for n in range(20, 30)),
                        Wait(30.0), *REST)),
        ("q1 q2 -> answer", *("- -> news",) * 10), frozenset({"too many announcements"}),
    )  # fmt: skip
    cases["auto: an announcement waits for a device that is away"] = Case(
        Scenario(steps=(Drop(), Announce("News q20 now."), Wait(2.0), Connect(), Wait(12.0), *REST)),
        ("closed", "- -> news"),
    )
    cases["auto: an announcement that is not waited for"] = Case(
        Scenario(steps=(Drop(), Announce("News q20 now.", 0.0), Wait(2.0), Connect(), Wait(12.0), *REST)),
        ("closed",),
    )
    cases["auto: the connection is lost during an announcement"] = Case(
        Scenario(
            steps=(Announce("News q20 now."), Until("frame"), Drop(), Wait(1.0), Connect(), Wait(12.0), *REST)
        ),
        ("- -> news cut", "closed"),
    )
    cases["auto: the connection is lost before an announcement is heard"] = Case(
        Scenario(steps=(Announce("News q20 now."), Drop(), Wait(1.0), Connect(), Wait(12.0), *REST)),
        ("- -> nothing cut", "closed", "- -> news"),
    )
    for name, slow in (("model", Llm(3.0)), ("tool", Llm(0.1, tool="slow"))):
        cases[f"auto: a phrase bridges the wait for a slow {name}"] = Case(
            Scenario(steps=(*ask("auto"), *REST), llm=(slow,), slow_model=True, speculation=False),
            ("q1 q2 -> filler answer",), frozenset({"filler"}),
        )  # fmt: skip
        cases[f"auto: interrupted while a phrase bridges the wait for a slow {name}"] = Case(
            Scenario(steps=(*ask("auto"), Until("frame"), Interrupt(), *REST), llm=(slow,), slow_model=True,
                     speculation=False),
            ("q1 q2 -> filler cut",),
        )  # fmt: skip
    return cases


def _in_mode(mode: Mode) -> dict[str, Case]:
    """Return what is the same in every mode."""
    found: dict[str, Case] = {}
    twice = (*ask(mode), *REST, *ask(mode, "q3 q4"), *REST)
    found[f"{mode}: two questions"] = Case(
        Scenario(steps=twice, mode=mode), ("q1 q2 -> answer", "q3 q4 -> answer")
    )
    ten: list[Step] = []
    for number in range(10):
        ten += [*ask(mode, f"q{2 * number + 1} q{2 * number + 2}"), *REST]
    found[f"{mode}: ten questions"] = Case(
        Scenario(steps=tuple(ten), mode=mode),
        tuple(f"q{2 * n + 1} q{2 * n + 2} -> answer" for n in range(10)),
    )
    found[f"{mode}: reconnects and goes on"] = Case(
        Scenario(steps=(*ask(mode), *REST, Drop(), Wait(5.0), Connect(), *ask(mode, "q3"), *REST), mode=mode),
        ("q1 q2 -> answer", "closed", "q3 -> answer"), frozenset({"history after reconnect"}),
    )  # fmt: skip
    found[f"{mode}: reconnects in the midst of an answer"] = Case(
        Scenario(steps=(*ask(mode), Until("frame"), Wait(0.4), Connect(), *ask(mode, "q3"), *REST), mode=mode),
        ("q1 q2 -> answer cut", "closed", "q3 -> answer"), frozenset({"history after reconnect"}),
    )  # fmt: skip
    found[f"{mode}: reconnects many times"] = Case(
        Scenario(steps=(*(Connect(),) * 6, *ask(mode), *REST), mode=mode),
        (*("closed",) * 6, "q1 q2 -> answer"),
    )
    found[f"{mode}: says goodbye"] = Case(
        Scenario(steps=(*ask(mode, "goodbye"), *REST), mode=mode), ("goodbye -> bye", "closed"),
        frozenset({"exit command"}),
    )  # fmt: skip
    found[f"{mode}: hangs up"] = Case(
        Scenario(steps=(*ask(mode), *REST, Leave(), Wait(0.5)), mode=mode), ("q1 q2 -> answer", "closed")
    )
    found[f"{mode}: types twice in a row"] = Case(
        Scenario(steps=(Type("q1 q2"), Until("frame"), Wait(0.3), Type("q3"), *REST), mode=mode),
        ("q1 q2 -> answer cut", "q3 -> answer"),
    )
    found[f"{mode}: types nothing"] = Case(Scenario(steps=(Type("  "), *REST), mode=mode), ("- -> hello",))
    found[f"{mode}: interrupts again and again"] = Case(
        Scenario(
            steps=(*ask(mode), Until("frame"), Interrupt(), Wait(1.0), *ask(mode, "q3"), Until("frame"), Interrupt(),
                   Wait(1.0), *ask(mode, "q4"), *REST),
            mode=mode,
        ),
        ("q1 q2 -> answer cut", "q3 -> answer cut", "q4 -> answer"),
    )  # fmt: skip
    found[f"{mode}: an interrupted announcement"] = Case(
        Scenario(steps=(Announce("News q20 now."), Until("frame"), Wait(0.2), Interrupt(), *REST), mode=mode),
        ("- -> news cut",),
    )
    found[f"{mode}: an answer before an announcement"] = Case(
        Scenario(steps=(*ask(mode), Until("frame"), Announce("News q20 now."), Announce("News q21 now."), *REST),
                 mode=mode),
        ("q1 q2 -> answer", "- -> news", "- -> news"),
    )  # fmt: skip
    press: tuple[Step, ...] = (Wait(0.3), Release()) if mode == "manual" else ()
    found[f"{mode}: a very quick second question"] = Case(
        Scenario(steps=(*ask(mode), Until("replying"), Wait(0.1), Begin(), Wait(0.1), Until("mic"), Speak("q3"),
                        Until("said"), *press, *REST), mode=mode, tts=(Tts(1.0),)),
        ("q1 q2 -> nothing cut", "q3 -> answer"),
    )  # fmt: skip
    return found


CASES: Final = _cases()
