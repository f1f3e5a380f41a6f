"""Everything that can come in between, in every state of the conversation, in every mode."""

from __future__ import annotations

from typing import Final, get_args

from tests.simulation.case import Case, ask, story
from tests.simulation.scenario import (
    Announce,
    Asr,
    Begin,
    Connect,
    Drop,
    Interrupt,
    Leave,
    Llm,
    Mode,
    Notify,
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
from tests.simulation.scripted_interruptions_stories import EXPECTED

MODES: Final[tuple[Mode, ...]] = get_args(Mode)
STATES: Final = (
    "idle",
    "listening",
    "hearing",
    "guessing",
    "recognising",
    "thinking",
    "unheard",
    "speaking",
    "held",
)
ACTIONS: Final[dict[str, tuple[Step, ...]]] = {
    "button": (Interrupt(),),
    "button twice": (Interrupt(), Wait(0.02), Interrupt()),
    "wake word": (Wake(),),
    "typing": (Type("q50 q51"),),
    "exit typed": (Type("goodbye"),),
    "announcement": (Announce("News q60 for you."),),
    "alert": (Notify(),),
    "listen start": (Restart(),),
    "listen stop": (Release(),),
    "connection lost": (Drop(), Wait(0.5), Connect()),
    "noticed late": (Drop(2.0), Wait(0.5), Connect()),
    "second connection": (Connect(),),
    "goodbye": (Leave(),),
    "noise": (Speak("*240"), Wait(1.5)),
    "yes": (Speak("yeah"), Wait(1.5)),
    "speech": (Speak("q70 q71 q72"), Until("said")),
}


def steps_to(mode: Mode, state: str) -> list[Step] | None:
    """Return how to get into a state; None where there is no such state."""
    asked = ask(mode)
    match state:
        case "idle":
            return [Wait(0.3)]
        case "listening":
            return [Begin(), Until("mic"), Wait(0.2)]
        case "hearing":
            return [Begin(), Until("mic"), Speak("q1 q2 q3"), Until("hearing"), Wait(0.2)]
        case "guessing" if mode != "manual":
            return [Begin(), Until("mic"), Speak("q1 q2"), Until("asked"), Wait(0.02)]
        case "recognising":
            return [*asked, Until("recognising"), Wait(0.3)]
        case "thinking" if mode != "manual":
            return [*asked, Until("thinking"), Wait(0.4)]
        case "unheard":
            return [*asked, Until("replying"), Wait(0.3)]
        case "speaking":
            return [*asked, Until("frame"), Wait(0.5)]
        case "held" if mode == "realtime":
            return [*asked, Until("frame"), Wait(0.5), Speak("*180"), Until("held"), Wait(0.1)]
        case _:
            return None


def scenario(mode: Mode, state: str, action: str) -> Scenario | None:
    """Return what happens; None where that cannot be."""
    steps = steps_to(mode, state)
    if steps is None or (state == "held" and action in ("noise", "yes", "speech")):
        return None
    return Scenario(
        steps=(*steps, *ACTIONS[action], Wait(0.5), Until("said"), Until("rest", 20.0)),
        mode=mode,
        asr=(Asr(0.8),) if state == "recognising" else (),
        llm=(Llm(1.5),) if state == "thinking" else (),
        tts=(Tts(1.0),) if state == "unheard" else (),
        speculation=state == "guessing",
    )


CASES: Final[dict[str, Case]] = {
    f"{mode}: {action} while {state}": Case(made, story(EXPECTED[mode][state][action]))
    for mode in MODES
    for state in STATES
    for action in ACTIONS
    if (made := scenario(mode, state, action)) is not None
}
