"""Events and commands are values: equal when they say the same, never changed, all of them known to the machine."""

from __future__ import annotations

from typing import get_args

import msgspec
import pytest

from mynah.dialogue import commands, events
from mynah.dialogue.turn import TurnMachine, TurnPolicy
from mynah.wire.messages import ListenMode

EXAMPLES: list[events.Event] = [
    events.ListenStarted(ListenMode.AUTO),
    events.ListenStopped(),
    events.TextGiven("hi"),
    events.Aborted(),
    events.SpeechStarted(),
    events.SpeechEnded(),
    events.Recognised(9, "hi"),
    events.Ready(9),
    events.Judged(9, 1, real=True),
    events.Failed(9, "sorry"),
    events.Played(9),
    events.SayRequested("tea"),
    events.Lull(),
    events.Fell("bye"),
    events.Closed(),
]


def structs(module: object) -> set[type]:
    return {
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, msgspec.Struct) and value is not msgspec.Struct
    }


def test_the_unions_name_everything() -> None:
    assert set(get_args(events.Event)) == structs(events)
    assert set(get_args(commands.Command)) == structs(commands)


def test_there_is_an_example_of_every_event_and_a_new_machine_takes_each() -> None:
    assert {type(example) for example in EXAMPLES} == structs(events)
    for example in EXAMPLES:
        answer = TurnMachine(TurnPolicy()).step(example)
        assert all(isinstance(command, get_args(commands.Command)) for command in answer)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: type(example).__name__)
def test_events_are_values(example: events.Event) -> None:
    assert example == msgspec.structs.replace(example)
    assert hash(example) == hash(msgspec.structs.replace(example))
    for name in example.__struct_fields__:
        with pytest.raises(AttributeError):
            setattr(example, name, None)


@pytest.mark.parametrize("late", [e for e in EXAMPLES if getattr(e, "turn", None) == 9])
def test_results_of_other_turns_are_dropped(late: events.Event) -> None:
    machine = TurnMachine(TurnPolicy())
    assert machine.step(late) == []
    assert machine.turn == 0
