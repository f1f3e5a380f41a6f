import json
from typing import Any

import pytest

from mynah.sim.mcp_tool import Picture, Refusal, Result, Tool, content

TOOL = Tool(
    "self.x",
    "Does x",
    lambda _: True,
    {
        "on": {"type": "boolean"},
        "text": {"type": "string"},
        "many": {"type": "integer", "minimum": 1, "maximum": 9, "default": 3},
        "any": {"type": "integer"},
    },
)


def test_listing() -> None:
    schema = TOOL.as_json()["inputSchema"]
    assert schema["required"] == ["on", "text", "any"]
    assert "annotations" not in TOOL.as_json()
    assert Tool("y", "", lambda _: True, user_only=True).as_json() == {
        "name": "y",
        "description": "",
        "inputSchema": {"type": "object", "properties": {}},
        "annotations": {"audience": ["user"]},
    }


GIVEN = {"on": True, "text": "t", "any": -7}


def test_arguments() -> None:
    assert TOOL.arguments({**GIVEN, "extra": 1}) == {**GIVEN, "many": 3}
    assert TOOL.arguments({**GIVEN, "many": 8.9}) == {**GIVEN, "many": 8}
    assert TOOL.arguments({**GIVEN, "many": "8"}) == {**GIVEN, "many": 3}  # of another type: as if not there


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"on": 1}, "Missing valid argument: on"),
        ({"text": None}, "Missing valid argument: text"),
        ({"any": False}, "Missing valid argument: any"),
        ({"many": 0}, "out of range"),
        ({"many": 10}, "out of range"),
    ],
)
def test_refused_arguments(changed: dict[str, Any], reason: str) -> None:
    with pytest.raises(Refusal, match=reason):
        TOOL.arguments({**GIVEN, **changed})


@pytest.mark.parametrize(
    ("result", "text"),
    [(True, "true"), (False, "false"), (80, "80"), ("as it is", "as it is"), ({"a": [1]}, '{"a":[1]}')],
)
def test_results_are_text(result: Result, text: str) -> None:
    assert content(result) == {"type": "text", "text": text}


def test_an_image_has_a_form_of_its_own() -> None:
    written = content(Picture(b"abc"))
    assert written["type"] == "image"
    assert json.loads(written["image"]) == {"type": "image", "mimeType": "image/jpeg", "data": "YWJj"}
