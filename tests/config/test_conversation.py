"""Settings of the conversation."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from mynah.config.conversation import Conversation


@pytest.mark.parametrize(
    "written",
    [
        {"ESP32": "E S P thirty two", "7": "seven"},
        {"ESP32": "E S P thirty two", 7: "seven"},
        ["ESP32|E S P thirty two", " 7 | seven"],
    ],
)
def test_replacements_are_taken_as_people_write_them(written: Any) -> None:
    conversation = Conversation.model_validate({"replacements": written})
    assert dict(conversation.replacements) == {"ESP32": "E S P thirty two", "7": "seven"}


@pytest.mark.parametrize("wrong", [["ESP32"], {"": "x"}, {"  ": "x"}, "ESP32|x"])
def test_what_is_no_replacement_is_refused(wrong: Any) -> None:
    with pytest.raises(ValidationError):
        Conversation.model_validate({"replacements": wrong})


def test_speculation_is_a_word_or_a_truth_value() -> None:
    assert Conversation.model_validate({"speculation": "auto"}).speculation == "auto"
    assert Conversation.model_validate({"speculation": False}).speculation is False
    with pytest.raises(ValidationError):
        Conversation.model_validate({"speculation": "sometimes"})


@pytest.mark.parametrize(
    ("written", "meant"), [("off", "off"), (False, "off"), (True, "auto"), ("gate", "gate")]
)
def test_off_is_taken_as_yaml_reads_it(written: Any, meant: str) -> None:
    assert Conversation.model_validate({"echo_cancellation": written}).echo_cancellation == meant
