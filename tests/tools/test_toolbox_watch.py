"""What is told of calls of tools: few names, whatever devices and models call theirs."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mynah.providers.base import ToolCall
from mynah.tools.base import FunctionTool, Tool, ToolContext
from mynah.tools.toolbox import DEVICE_TOOL, UNKNOWN_TOOL, Toolbox

Contexts = Callable[..., ToolContext]


async def fine() -> str:
    """Do it."""
    return "done"


async def broken() -> str:
    """Fail."""
    raise RuntimeError


class Lamp:
    """A device's own tools."""

    tools: tuple[Tool, ...] = (FunctionTool(fine, "self_lamp_on"), FunctionTool(broken, "fine"))


@pytest.mark.parametrize(
    ("name", "known_as", "failed"),
    [
        ("fine", "fine", False),
        ("broken", "broken", True),
        ("self_lamp_on", DEVICE_TOOL, False),
        ("fine_device", DEVICE_TOOL, True),
        ("made_up_by_a_model", UNKNOWN_TOOL, True),
    ],
)
async def test_calls_are_told(context: Contexts, name: str, known_as: str, failed: bool) -> None:
    told: list[tuple[str, float, bool]] = []
    toolbox = Toolbox([FunctionTool(fine, "fine"), FunctionTool(broken, "broken")])
    toolbox.watch = lambda *call: told.append(call)
    await toolbox.for_session(Lamp()).call(context(), ToolCall("1", name, "{}"))
    ((tool, seconds, went_wrong),) = told
    assert (tool, went_wrong) == (known_as, failed)
    assert 0 <= seconds < 60
