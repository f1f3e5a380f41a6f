"""Scenarios by chance, each from its seed; and what a run of them has reached."""

from __future__ import annotations

import random
from collections import Counter
from typing import Final

from mynah.dialogue import commands, events
from mynah.dialogue.turn import Phase
from mynah.wire.messages import Stt, TtsSentence
from tests.simulation.invariants import ENOUGH, FILLERS
from tests.simulation.record import Moved, Outcome
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
from tests.simulation.world import EXIT

STATES: Final = (
    "listening",
    "hearing",
    "recognising",
    "thinking",
    "replying",
    "frame",
    "second",
    "asked",
    "held",
    "tool",
)
"""What a random conversation waits for before something else happens."""
MEANWHILE: Final = tuple(
    "noise noise yes speak speak speak interrupt wake type drop begin restart announce announce alert release connect "  # noqa: SIM905
    "leave".split()
)
"""What happens then; the frequent ones more often."""


class _Maker:
    """Makes one scenario."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.seed = seed
        self.count = 0

    def word(self) -> str:
        self.count += 1
        return f"q{self.count}"

    def odds(self, share: float) -> bool:
        return self.chance.random() < share

    def scenario(self) -> Scenario:
        chance = self.chance
        mode: Mode = chance.choice(("auto", "auto", "realtime", "realtime", "manual"))
        steps: list[Step] = []
        for _ in range(chance.choice((1, 1, 2, 2, 3))):
            steps += self.turn(mode)
            if self.odds(0.55):
                steps += self.meanwhile(mode)
            if self.odds(0.12):
                steps += self.meanwhile(mode)
        if self.odds(0.015):
            steps += [Until("rest"), Wait(115.0)]
        faulty = self.odds(0.35)
        return Scenario(
            steps=tuple(steps),
            mode=mode,
            asr=tuple(self.asr(faulty) for _ in range(chance.choice((0, 2, 4)))),
            llm=tuple(self.llm(faulty) for _ in range(chance.choice((0, 2, 4)))),
            tts=tuple(self.tts(faulty) for _ in range(chance.choice((0, 2, 5)))),
            streaming=self.odds(0.3),
            speculation=self.odds(0.7),
            judge=self.odds(0.85),
            greeting=self.odds(0.8),
            detector=chance.choice(("", "", "", "sure", "doubt", "late", "broken")),  # type: ignore[arg-type]
            slow_model=self.odds(0.08),
            allowance=chance.choice((30, 80)) if self.odds(0.05) else 0,
            asked_farewell=self.odds(0.3),
            lag_s=chance.choice((0.002, 0.01, 0.04)),
            rtt_s=chance.choice((0.002, 0.03, 0.15)),
            seed=self.seed,
        )

    def words(self, most: int = 4) -> str:
        chance = self.chance
        items = []
        for at in range(chance.randint(1, most)):
            if at and self.odds(0.3):
                items.append(f"_{chance.choice((120, 180, 300, 420, 600, 900, 1300))}")
            items.append(self.word())
        if self.odds(0.08):
            items.append("and")
        return " ".join(items)

    def speak(self) -> Speak:
        words = self.words()
        if self.odds(0.03):
            return Speak(EXIT)
        if self.odds(0.75):
            return Speak(words)
        length = 12
        lost = tuple(at for at in range(length) if self.odds(0.1))
        return Speak(words, lost, tuple(at for at in range(length) if self.odds(0.05)),
                     tuple(at for at in range(length) if self.odds(0.05)))  # fmt: skip

    def turn(self, mode: Mode) -> list[Step]:
        """Somebody asks something."""
        if self.odds(0.08):
            return [Type(self.chance.choice((self.words(), self.words(), EXIT)))]
        if self.odds(0.06):
            return [Wake(), Until("mic", 4.0), self.speak(), Until("said")]
        steps: list[Step] = [Begin(), Until("mic", 4.0), self.speak()]
        if mode == "manual":
            steps += [Until("said"), Release()] if self.odds(0.9) else [Wait(0.3), Release()]
        elif self.odds(0.6):
            steps.append(Until("said"))
        if self.odds(0.3):
            steps.append(Wait(self.chance.choice((0.1, 0.3, 0.6, 1.5))))
        if self.odds(0.2):
            # Goes on when the answer is being prepared, or talks against it.
            steps += [Until(self.chance.choice(("recognising", "thinking", "frame")), 4.0), self.speak()]
        return steps

    def meanwhile(self, mode: Mode) -> list[Step]:  # noqa: C901, PLR0912 - one line for each
        """Something comes in between."""
        chance = self.chance
        steps: list[Step] = [Until(chance.choice(STATES), 4.0)]
        if self.odds(0.4):
            steps.append(Wait(chance.choice((0.01, 0.05, 0.2, 0.5))))
        match chance.choice(MEANWHILE):
            case "noise":
                steps += [Speak(f"*{chance.choice((60, 180, 240, 360))}"), Wait(chance.choice((0.2, 1.2)))]
            case "yes":
                steps += [Speak("yeah"), Wait(chance.choice((0.2, 1.2)))]
            case "speak":
                steps += [self.speak(), Until("said")]
            case "interrupt":
                steps += [Interrupt()] * chance.choice((1, 1, 2))
            case "wake":
                steps += [Wake()]
            case "type":
                steps += [Type(self.words())]
            case "drop":
                late = chance.choice((0.0, 0.0, 0.5, 3.0))
                steps += [Drop(late), Wait(chance.choice((0.01, 0.5, 4.0))), Connect()]
            case "begin":
                steps += [Begin()]
            case "restart":
                steps += [Restart(chance.choice((mode, mode, "auto", "realtime", "manual")))]  # type: ignore[arg-type]
                if self.odds(0.5):
                    steps += [Restart(mode)]
            case "announce":
                steps += [
                    Announce(f"News {self.word()} for you.") for _ in range(chance.choice((1, 1, 2, 10)))
                ]
            case "alert":
                steps += [Notify()]
            case "release":
                steps += [Release()]
            case "connect":
                steps += [Connect()]
            case "leave":
                steps += [Leave()] if self.odds(0.3) else [Drop()]
        return steps

    # -- services

    def asr(self, faulty: bool) -> Asr:
        chance = self.chance
        s = chance.choice((0.0, 0.02, 0.1, 0.4, 1.2))
        return Asr(s, chance.choice(("fail", "down", "hang", "empty")) if faulty and self.odds(0.3) else "")  # type: ignore[arg-type]

    def llm(self, faulty: bool) -> Llm:
        chance = self.chance
        fault = (
            chance.choice(("fail", "down", "hang", "broken", "stall", "empty"))
            if faulty and self.odds(0.3)
            else ""
        )
        if faulty and self.odds(0.01):
            fault = "endless"
        return Llm(
            s=chance.choice((0.0, 0.05, 0.3, 0.8, 2.5)),
            pace_s=chance.choice((0.0, 0.0, 0.03, 0.2)),
            words=tuple(chance.choice((3, 6, 10)) for _ in range(chance.choice((1, 2, 3)))),
            tool=chance.choice(("quick", "slow", "leave", "direct", "broken", "missing"))
            if self.odds(0.2)
            else "",  # type: ignore[arg-type]
            fault=fault,  # type: ignore[arg-type]
        )

    def tts(self, faulty: bool) -> Tts:
        chance = self.chance
        return Tts(
            s=chance.choice((0.0, 0.03, 0.1, 0.6)),
            pace_s=chance.choice((0.0, 0.0, 0.05, 0.4)),
            chunk=chance.choice((16, 50, 200)),
            fault=chance.choice(("fail", "down", "hang", "broken", "stall"))
            if faulty and self.odds(0.25)
            else "",  # type: ignore[arg-type]
        )


def generate(seed: int) -> Scenario:
    """Return the scenario of this seed."""
    return _Maker(seed).scenario()


# ---------------------------------------------------------------- what was reached


def reached(outcome: Outcome) -> set[str]:  # noqa: C901, PLR0912 - one line for each
    """Return the names of the situations that came up."""
    found: set[str] = set()
    users: set[str] = set()
    first = True
    for entry in outcome.log:
        match entry.kind:
            case "step":
                _reached_step(entry.what, found)
            case "opened":
                found.add("connect" if first else "reconnect")
                first = False
            case "llm":
                past = [m.content for m in entry.what.request.messages[:-1]]
                if entry.session > 1 and any(text in users for text in past):
                    found.add("history after reconnect")
                users.add(entry.what.user)
            case "tool":
                found.add(f"tool {entry.what}")
            case "send":
                if isinstance(entry.what, TtsSentence) and entry.what.text in FILLERS:
                    found.add("filler")
                if isinstance(entry.what, TtsSentence) and entry.what.text in ENOUGH:
                    found.add("allowance used up")
                if isinstance(entry.what, Stt) and not first and " " in entry.what.text:
                    found.add("several words")
    for record in outcome.records:
        if record.tts_failures:
            found.add("voice failed")
        if record.parts > 1:
            found.add("several parts")
    if outcome.hits:
        found.add("guess hit")
    if outcome.misses:
        found.add("guess miss")
    return found


def _reached_step(moved: Moved, found: set[str]) -> None:  # noqa: C901, PLR0912 - one line for each
    before, event = moved.before.value, moved.event
    match event:
        case events.Aborted():
            found.add(f"abort while {before}")
        case events.TextGiven():
            found.add(f"text while {before}")
        case events.Closed() if moved.before is not Phase.CLOSED:
            found.add(f"connection lost while {before}")
        case events.ListenStarted():
            found.add(f"listen start while {before}")
        case events.Failed() if moved.commands:
            found.add(
                {"recognising": "recogniser failed", "thinking": "model failed"}.get(
                    before, "model failed late"
                )
            )
        case events.Fell(farewell) if moved.commands:
            found.add("farewell" if farewell else "hang up")
        case events.Judged(_, _, real) if moved.commands:
            found.add("hold, then barge in" if real else "hold, then resume")
        case events.SayRequested():
            found.add(f"announcement while {before}")
        case _:
            pass
    for command in moved.commands:
        match command:
            case commands.HoldReply():
                found.add("hold")
            case commands.GoOn():
                found.add(f"goes on while {before}")
            case commands.Leave():
                found.add("exit command")
            case commands.Greet():
                found.add("greeting")
            case commands.AskAgain():
                found.add("asked again")
            case commands.Unsaid():
                found.add("too many announcements")
            case _:
                pass


MUST_REACH: Final = frozenset(
    {
        "hold", "hold, then resume", "hold, then barge in", "goes on while recognising", "goes on while thinking",
        "guess hit", "guess miss", "filler", "recogniser failed", "model failed", "model failed late", "voice failed",
        "farewell", "exit command", "reconnect", "history after reconnect", "allowance used up", "greeting",
        "asked again", "several parts", "too many announcements", "tool quick", "tool slow", "tool leave",
        *(f"{what} while {phase}" for what in ("abort", "text", "connection lost", "announcement")
          for phase in ("listening", "recognising", "thinking", "replying")),
    }
)  # fmt: skip
"""What every large run of random scenarios has to come across: else it proves less than it seems to."""


def count(outcomes: Counter[str], outcome: Outcome) -> None:
    """Add what was reached in one scenario."""
    outcomes.update(reached(outcome))
