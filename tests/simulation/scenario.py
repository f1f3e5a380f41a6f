"""A simulated conversation as data: what people and devices do when, and how the services behave meanwhile.

A scenario is a plain struct, so that one that fails can be printed, kept, made smaller and run again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec

Mode = Literal["auto", "manual", "realtime"]

# ---------------------------------------------------------------- steps


class Wait(msgspec.Struct, frozen=True, tag=True, omit_defaults=True):
    """Nothing happens for so many seconds."""

    s: float


class Until(msgspec.Struct, frozen=True, tag=True, omit_defaults=True):
    """Wait until something is so (`tests.simulation.world.CONDITIONS`), or for ``s`` seconds."""

    what: str
    s: float = 15.0


class Speak(msgspec.Struct, frozen=True, tag=True, omit_defaults=True):
    """Somebody begins to speak; the next step does not wait for the end.

    ``words``: ``_700`` is a pause of 700 ms, ``*300`` is a noise that a detector takes for a voice. Each word takes
    four packets. Packets are counted from the first; they are lost, come twice, or after the one that follows.
    """

    words: str
    lost: tuple[int, ...] = ()
    twice: tuple[int, ...] = ()
    late: tuple[int, ...] = ()


class Begin(msgspec.Struct, frozen=True, tag=True, omit_defaults=True):
    """The device starts to listen, as it does when its button is clicked; manual: when it is pressed."""


class Release(msgspec.Struct, frozen=True, tag=True, omit_defaults=True):
    """The button of push-to-talk is let go; in other modes a client ends the recording itself."""


class Restart(msgspec.Struct, frozen=True, tag=True, omit_defaults=True):
    """A ``listen start`` in whatever state, as some clients send it twice; empty: in the device's own mode."""

    mode: Mode | Literal[""] = ""


class Wake(msgspec.Struct, frozen=True, tag=True, omit_defaults=True):
    """The device hears its wake word."""


class Type(msgspec.Struct, frozen=True, tag=True, omit_defaults=True):
    """Somebody types."""

    words: str


class Interrupt(msgspec.Struct, frozen=True, tag=True, omit_defaults=True):
    """The button is pressed during a reply: ``abort``."""


class Drop(msgspec.Struct, frozen=True, tag=True, omit_defaults=True):
    """The connection is lost. ``late_s``: the server notices so much later."""

    late_s: float = 0.0


class Connect(msgspec.Struct, frozen=True, tag=True, omit_defaults=True):
    """The device connects again; an older connection that is still open is replaced."""


class Leave(msgspec.Struct, frozen=True, tag=True, omit_defaults=True):
    """The device says goodbye."""


class Announce(msgspec.Struct, frozen=True, tag=True, omit_defaults=True):
    """The server has something to say by itself."""

    words: str
    wait_s: float = 600.0


class Notify(msgspec.Struct, frozen=True, tag=True, omit_defaults=True):
    """The server shows an alert."""


Step = (
    Wait
    | Until
    | Speak
    | Begin
    | Release
    | Restart
    | Wake
    | Type
    | Interrupt
    | Drop
    | Connect
    | Leave
    | Announce
    | Notify
)

# ---------------------------------------------------------------- how services behave


class Asr(msgspec.Struct, frozen=True, omit_defaults=True):
    """One request to the recogniser. ``down`` may be tried again, ``fail`` not, ``hang`` never answers."""

    s: float = 0.05
    fault: Literal["", "fail", "down", "hang", "empty"] = ""


class Llm(msgspec.Struct, frozen=True, omit_defaults=True):
    """One request to the language model: ``words`` are the lengths of the sentences it answers with."""

    s: float = 0.2
    pace_s: float = 0.0
    """Between two words."""
    words: tuple[int, ...] = (6, 8)
    tool: Literal["", "quick", "slow", "leave", "direct", "broken", "missing"] = ""
    fault: Literal["", "fail", "down", "hang", "broken", "stall", "empty", "endless"] = ""
    """``broken`` and ``stall`` come after the first sentence."""


class Tts(msgspec.Struct, frozen=True, omit_defaults=True):
    """One request to the voice; its rate is two frames a word."""

    s: float = 0.05
    pace_s: float = 0.0
    """Between two chunks."""
    chunk: int = 50
    """Bytes; a frame has 16."""
    fault: Literal["", "fail", "down", "hang", "broken", "stall"] = ""


class Scenario(msgspec.Struct, frozen=True, omit_defaults=True):
    """Everything that happens in one simulated conversation.

    Of each list of requests one item is used up by each request, also by one that is only a guess; then all goes well.
    """

    steps: tuple[Step, ...] = ()
    mode: Mode = "auto"
    asr: tuple[Asr, ...] = ()
    llm: tuple[Llm, ...] = ()
    tts: tuple[Tts, ...] = ()
    streaming: bool = False
    """The recogniser works while it listens."""
    speculation: bool = True
    judge: bool = True
    """Voices during a reply are judged before they end it."""
    greeting: bool = True
    detector: Literal["", "sure", "doubt", "late", "broken"] = ""
    slow_model: bool = False
    """It is known to be slow, and there are phrases to bridge that."""
    allowance: int = 0
    asked_farewell: bool = False
    """The language model is asked for the farewell after a long silence."""
    lag_s: float = 0.005
    """From a packet to its decoded audio, twenty times that now and then."""
    rtt_s: float = 0.03
    seed: int = 0
    """For what is left to chance: lags, pauses before retries, which apology is said."""


def dump(scenario: Scenario) -> str:
    """Return the scenario as one line of text."""
    return msgspec.json.encode(scenario).decode()


def load(line: str) -> Scenario:
    """Return the scenario of such a line."""
    return msgspec.json.decode(line, type=Scenario)


def shrink(scenario: Scenario, fails: Callable[[Scenario], bool], tries: int = 400) -> Scenario:
    """Return a smaller scenario that fails as well: without steps, requests and settings that do not matter."""
    left = tries
    changed = True
    while changed and left > 0:
        changed = False
        for smaller in _smaller(scenario):
            left -= 1
            if fails(smaller):
                scenario, changed = smaller, True
                break
            if left <= 0:
                break
    return scenario


def _smaller(scenario: Scenario) -> list[Scenario]:
    replace = msgspec.structs.replace
    found = []
    for name in ("steps", "asr", "llm", "tts"):
        items = getattr(scenario, name)
        found += [replace(scenario, **{name: items[:at] + items[at + 1 :]}) for at in range(len(items))]
    for name, default in _DEFAULTS.items():
        if getattr(scenario, name) != default:
            found.append(replace(scenario, **{name: default}))
    for name, plain in (("asr", Asr()), ("llm", Llm()), ("tts", Tts())):
        items = getattr(scenario, name)
        found += [
            replace(scenario, **{name: (*items[:at], plain, *items[at + 1 :])})
            for at in range(len(items))
            if items[at] != plain
        ]
    for at, step in enumerate(scenario.steps):
        if isinstance(step, Speak):
            words = step.words.split()
            fewer = (
                [replace(step, words=" ".join(words[:i] + words[i + 1 :])) for i in range(len(words))]
                if len(words) > 1
                else []
            )
            if step.lost or step.twice or step.late:
                fewer.insert(0, Speak(step.words))
            found += [
                replace(scenario, steps=(*scenario.steps[:at], small, *scenario.steps[at + 1 :]))
                for small in fewer
            ]
    return found


_DEFAULTS = {
    field.name: field.default
    for field in msgspec.structs.fields(Scenario)
    if field.name not in ("steps", "asr", "llm", "tts", "mode", "seed")
}
