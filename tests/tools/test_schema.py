"""Signatures become plain JSON schemas, and arguments come back as Python values."""

from __future__ import annotations

import enum
from typing import Annotated, Any, Literal, Optional

import pytest
from pydantic import Field

from mynah.errors import ToolError
from mynah.tools.schema import Signature, read_docstring


class Hidden:
    pass


class Colour(enum.Enum):
    """Colours that exist."""

    RED = "red"
    BLUE = "blue"


def plain(city: str, days: int = 1, factor: float = 1.5, loud: bool = False) -> None:
    """Say something.

    In two paragraphs,
    one of two lines.

    Args:
        city: name of the city,
            in the user's words
        days (int): how many
    Returns:
        nothing: at all
    """


def rich(
    colour: Colour,
    mode: Literal["fast", "slow"] = "fast",
    size: Optional[int] = None,  # noqa: UP045 - the old spelling has to work, too
    tags: list[str] = [],  # noqa: B006
    shade: Colour | None = None,
    level: Annotated[int, Field(ge=0, le=100)] = 50,
    anything: Any = None,
) -> None:
    """Rich."""


def test_plain_types() -> None:
    signature = Signature(plain, hidden=Hidden)
    assert signature.description == "Say something.\nIn two paragraphs, one of two lines."
    assert signature.parameters == {
        "type": "object",
        "properties": {
            "city": {"type": "string", "description": "name of the city, in the user's words"},
            "days": {"type": "integer", "default": 1, "description": "how many"},
            "factor": {"type": "number", "default": 1.5},
            "loud": {"type": "boolean", "default": False},
        },
        "required": ["city"],
    }


def test_rich_types_have_no_references_titles_or_unions() -> None:
    parameters = Signature(rich, hidden=Hidden).parameters
    assert parameters["properties"] == {
        "colour": {"type": "string", "enum": ["red", "blue"]},
        "mode": {"type": "string", "enum": ["fast", "slow"], "default": "fast"},
        "size": {"type": ["integer", "null"]},
        "tags": {"type": "array", "items": {"type": "string"}, "default": []},
        "shade": {"type": "string", "enum": ["red", "blue"]},
        "level": {"type": "integer", "minimum": 0, "maximum": 100, "default": 50},
        "anything": {},
    }
    assert parameters["required"] == ["colour"]


def test_bind_gives_python_values_and_defaults() -> None:
    signature = Signature(rich, hidden=Hidden)
    assert signature.bind({"colour": "red", "tags": ["a"]}) == {
        "colour": Colour.RED,
        "mode": "fast",
        "size": None,
        "tags": ["a"],
        "shade": None,
        "level": 50,
        "anything": None,
    }
    with pytest.raises(ToolError, match="'level'"):
        signature.bind({"colour": "red", "level": 101})


def test_mutable_defaults_are_not_shared() -> None:
    signature = Signature(rich, hidden=Hidden)
    signature.bind({"colour": "red"})["tags"].append("x")
    assert signature.bind({"colour": "red"})["tags"] == []


def test_hidden_parameters_are_found_anywhere_and_not_shown() -> None:
    def function(first: str, context: Hidden, last: int = 0) -> None: ...

    signature = Signature(function, hidden=Hidden)
    assert signature.hidden_names == ("context",)
    assert set(signature.parameters["properties"]) == {"first", "last"}


def test_a_parameter_without_type_is_text() -> None:
    def function(what) -> None: ...  # type: ignore[no-untyped-def]

    assert Signature(function, hidden=Hidden).parameters["properties"] == {"what": {"type": "string"}}


def test_no_parameters() -> None:
    def function() -> None: ...

    assert Signature(function, hidden=Hidden).parameters == {"type": "object", "properties": {}}


def test_what_cannot_be_described_is_refused() -> None:
    def variadic(*items: str) -> None: ...

    def positional(item: str, /) -> None: ...

    def foreign(item: object()) -> None: ...  # type: ignore[valid-type]

    for function in (variadic, positional, foreign):
        with pytest.raises(TypeError):
            Signature(function, hidden=Hidden)


def test_docstring_without_arguments() -> None:
    assert read_docstring("") == ("", {})
    assert read_docstring("One\nline.") == ("One line.", {})
    assert read_docstring("Short.\n\nRaises:\n    E: when") == ("Short.", {})
