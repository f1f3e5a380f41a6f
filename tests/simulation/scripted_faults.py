"""Services that are slow, fail, hang, break off or say nothing, one stage and one mode at a time."""

from __future__ import annotations

from typing import Final

from tests.simulation.case import Case, ask, story
from tests.simulation.scenario import Asr, Interrupt, Llm, Scenario, Speak, Step, Tts, Until, Wait
from tests.simulation.scripted_interruptions import MODES

REST: Final[tuple[Step, ...]] = (Wait(0.5), Until("rest", 60.0))

ASR: Final[dict[str, tuple[tuple[Asr, ...], str]]] = {
    "slow": ((Asr(2.5),), "q1 q2 -> answer"),
    "fails": ((Asr(fault="fail"),), "- -> sorry"),
    "down once": ((Asr(fault="down"),), "q1 q2 -> answer"),
    "down twice": ((Asr(fault="down"),) * 2, "q1 q2 -> answer"),
    "down for good": ((Asr(fault="down"),) * 3, "- -> sorry"),
    "hangs once": ((Asr(fault="hang"),), "q1 q2 -> answer"),
    "hangs for good": ((Asr(fault="hang"),) * 3, "- -> sorry"),
    "at once": ((Asr(0.0),), "q1 q2 -> answer"),
}
LLM: Final[dict[str, tuple[tuple[Llm, ...], str]]] = {
    "slow": ((Llm(8.0),), "q1 q2 -> answer"),
    "at once": ((Llm(0.0),), "q1 q2 -> answer"),
    "slow pace": ((Llm(pace_s=0.8),), "q1 q2 -> answer"),
    "fails": ((Llm(fault="fail"),), "q1 q2 -> sorry"),
    "down once": ((Llm(fault="down"),), "q1 q2 -> answer"),
    "down for good": ((Llm(fault="down"),) * 2, "q1 q2 -> sorry"),
    "hangs": ((Llm(fault="hang"),), "q1 q2 -> sorry"),
    "breaks off": ((Llm(fault="broken"),), "q1 q2 -> answer sorry"),
    "breaks off late": ((Llm(pace_s=0.3, fault="broken"),), "q1 q2 -> answer sorry"),
    "stalls": ((Llm(fault="stall", words=(5, 5)),), "q1 q2 -> answer sorry"),
    "says nothing": ((Llm(fault="empty"),), "q1 q2 -> sorry"),
    "one word": ((Llm(words=(2,)),), "q1 q2 -> answer"),
    "many sentences": ((Llm(words=(4,) * 12),), "q1 q2 -> answer"),
    "uses a tool": ((Llm(tool="quick"),), "q1 q2 -> answer"),
    "uses a slow tool": ((Llm(tool="slow"),), "q1 q2 -> answer"),
    "uses a broken tool": ((Llm(tool="broken"),), "q1 q2 -> answer"),
    "uses no tool that exists": ((Llm(tool="missing"),), "q1 q2 -> answer"),
    "lets a tool answer": ((Llm(tool="direct"),), "q1 q2 -> answer"),
    "leaves": ((Llm(tool="leave"),), "q1 q2 -> answer | closed"),
    "leaves without a word": ((Llm(tool="leave", fault="empty"),), "q1 q2 -> bye | closed"),
    "says nothing after a tool": ((Llm(tool="quick", fault="empty"),), "q1 q2 -> sorry"),
    "breaks off after a tool": ((Llm(tool="quick", pace_s=0.3, fault="broken"),), "q1 q2 -> answer sorry"),
}
TTS: Final[dict[str, tuple[tuple[Tts, ...], str]]] = {
    "slow": ((Tts(4.0),), "q1 q2 -> answer"),
    "slower than speech": ((Tts(pace_s=0.4, chunk=16),), "q1 q2 -> answer"),
    "in large chunks": ((Tts(chunk=4000),), "q1 q2 -> answer"),
    "in half frames": ((Tts(chunk=8),), "q1 q2 -> answer"),
    "fails once": ((Tts(fault="fail"),), "q1 q2 -> answer"),
    "fails for the second sentence": ((Tts(), Tts(fault="fail")), "q1 q2 -> answer"),
    "fails for all": ((Tts(fault="fail"),) * 2, "q1 q2 -> answer unheard"),
    "down once": ((Tts(fault="down"),), "q1 q2 -> answer"),
    "hangs": ((Tts(fault="hang"),), "q1 q2 -> answer"),
    "breaks off": ((Tts(fault="broken"),), "q1 q2 -> answer"),
    "breaks off in the second sentence": ((Tts(), Tts(fault="broken")), "q1 q2 -> answer"),
    "stalls": ((Tts(fault="stall"),), "q1 q2 -> answer"),
}
BOTH: Final[dict[str, tuple[Scenario, str]]] = {
    "recogniser and voice fail": (
        Scenario(asr=(Asr(fault="fail"),), tts=(Tts(fault="fail"),)), "- -> sorry unheard"
    ),
    "model and voice fail": (
        Scenario(llm=(Llm(fault="fail"),), tts=(Tts(fault="fail"),)), "q1 q2 -> sorry unheard"
    ),
    "everything is slow": (
        Scenario(asr=(Asr(2.0),), llm=(Llm(5.0, 0.3),), tts=(Tts(3.0, 0.3, 16),) * 2), "q1 q2 -> answer"
    ),
}  # fmt: skip


def _cases() -> dict[str, Case]:
    cases: dict[str, Case] = {}
    for mode in MODES:
        steps = (*ask(mode), *REST)
        plain = Scenario(steps=steps, mode=mode, speculation=False)
        replace = _replace(plain)
        for kind, table in (("asr", ASR), ("llm", LLM), ("tts", TTS)):
            for name, (acts, told) in table.items():  # type: ignore[attr-defined]
                cases[f"{mode}: {kind} {name}"] = Case(replace(**{kind: acts}), story(told))
        for name, (made, told) in BOTH.items():
            cases[f"{mode}: {name}"] = Case(replace(asr=made.asr, llm=made.llm, tts=made.tts), story(told))
        endless = replace(
            steps=(*ask(mode), Until("second", 20.0), Wait(2.0), Interrupt(), *REST),
            llm=(Llm(fault="endless"),),
        )
        cases[f"{mode}: endless answer, interrupted"] = Case(endless, ("q1 q2 -> answer cut",))
        twice = replace(steps=(*steps, *ask(mode, "q3 q4"), *REST), llm=(Llm(fault="fail"),))
        cases[f"{mode}: asked again after a failure"] = Case(twice, ("q1 q2 -> sorry", "q3 q4 -> answer"))
    for name, (acts, told) in LLM.items():
        # The same with an answer that was guessed and is taken while it is in the making.
        cases[f"auto, guessed: llm {name}"] = Case(
            Scenario(steps=(*ask("auto"), *REST), llm=acts), story(told)
        )
    for fault in ("fail", "empty"):
        # What failed before it was known to be wanted is asked once more.
        made = Scenario(steps=(*ask("auto"), *REST), llm=(Llm(0.0, fault=fault),))  # type: ignore[arg-type]
        cases[f"auto, guessed: llm fails early ({fault})"] = Case(made, ("q1 q2 -> answer",))
    interrupted = Scenario(
        steps=(*ask("realtime"), Until("frame"), Wait(0.2), Speak("q8 q9"), Until("said"), *REST),
        mode="realtime",
        asr=(Asr(), Asr(fault="fail")),
        speculation=False,
    )
    cases["realtime: the recogniser fails for an interruption"] = Case(
        interrupted, ("q1 q2 -> answer cut", "q8 q9 -> answer")
    )
    return cases


def _replace(plain: Scenario):  # type: ignore[no-untyped-def]
    from functools import partial

    import msgspec

    return partial(msgspec.structs.replace, plain)


CASES: Final = _cases()
