"""Scenarios that chance found and that once went wrong, made small; each says what was wrong.

At the end there are those in which the conversation was right and the check of it was wrong.
"""

from __future__ import annotations

from typing import Final

from tests.simulation.case import Case, ask
from tests.simulation.scenario import (
    Begin,
    Interrupt,
    Leave,
    Llm,
    Notify,
    Release,
    Restart,
    Scenario,
    Speak,
    Tts,
    Type,
    Until,
    Wait,
)

CASES: Final = {
    "found: a word that begins in the batch of audio in which the utterance ends": Case(
        # Its beginning went to the part before, and its end to the next.
        Scenario(steps=(Begin(), Speak("q1 q2 _300 q3"), Until("rest")), lag_s=0.04, seed=7107),
        ("q1 q2 q3 -> answer",),
    ),
    "found: somebody types in the moment in which the utterance ends": Case(
        # The recogniser's stream was left open: the task that was to close it had not begun.
        Scenario(
            steps=(Begin(), Speak("q1 q2"), Until("recognising"), Type("q8 q9 q10 and"), Until("rest")),
            streaming=True, seed=5957,
        ),
        ("q8 q9 q10 and -> answer",),
    ),
    "found: a reply goes on because the device changes its mode, and is over before the voice was judged": Case(
        # The late judgement threw away what was said after the reply.
        Scenario(
            steps=(Begin(), Speak("q1"), Until("recognising"), Speak("q2 _900 q3 q4 q5"), Until("held"),
                   Restart("auto")),
            mode="realtime", llm=(Llm(), Llm(0.05, 0.03, (3,), tool="broken")), speculation=False,
            seed=20263164,
        ),
        ("q1 q2 -> answer", "q3 q4 q5 -> answer"),
    ),
    "found: an alert waits for the end of a reply that ends the conversation": Case(
        # It was sent after the connection had been closed.
        Scenario(steps=(Begin(), Speak("goodbye"), Until("frame"), Notify(), Until("closed")), seed=85),
        ("goodbye -> bye", "closed"),
    ),
    "found: an alert waits for the end of a reply, and the device says goodbye": Case(
        Scenario(steps=(Begin(), Speak("q4"), Until("second"), Notify(), Leave(), Until("closed"), Wait(1.0))),
        ("q4 -> answer cut", "closed"),
    ),
    "found: interrupted by button before the answer": Case(
        # The server did not listen any more, though the microphone was still open.
        Scenario(
            steps=(Begin(), Speak("q5"), Until("thinking"), Wait(0.1), Interrupt(), Wait(1.0), Speak("q6"),
                   Until("said"), Wait(1.0), Until("rest")),
            llm=(Llm(2.0),), speculation=False,
        ),
        ("q5 -> nothing", "q6 -> answer"),
    ),
    "found: the voice breaks off within a frame": Case(
        # The rest of that frame was heard at the beginning of the next sentence.
        Scenario(
            steps=(Begin(), Speak("q6 q7"), Until("frame"), Until("rest")),
            tts=(Tts(0.03, 0.4, 200, "broken"),), speculation=False,
        ),
        ("q6 q7 -> answer",),
    ),
    "found: the same words twice, and the second time the voice fails": Case(
        # The sound of the first was missed in the second.
        Scenario(steps=(*ask("auto"), Until("rest"), *ask("auto", "q3"), Until("rest")),
                 llm=(Llm(tool="direct"), Llm(tool="direct")), tts=(Tts(), Tts(fault="fail")), speculation=False),
        ("q1 q2 -> answer", "q3 -> answer unheard"),
    ),
    "found: the button is released and pressed again within a word": Case(
        # The word was said to be answered twice, but each recording has a part of it.
        Scenario(steps=(Begin(), Speak("q1 q2 q3"), Wait(0.3), Release(), Until("asked", 4.0), Begin(), Until("said"),
                        Release(), Until("rest")), mode="manual", rtt_s=0.002),
        ("q1 q2 -> nothing cut", "q2 q3 -> answer"),
    ),
}  # fmt: skip
