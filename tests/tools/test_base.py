"""Functions become tools: sync in a thread, async on the loop, results of any kind as text."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from mynah.errors import ToolError
from mynah.tools import base
from mynah.tools.base import (
    MAX_CONTENT_CHARS,
    FunctionTool,
    ToolContext,
    ToolResult,
    register_function,
    registered_tool,
)

Contexts = Callable[..., ToolContext]


@register_function("get_weather")
def get_weather_plugin(location: str) -> str:
    """Say what the weather is."""
    return f"{location} is sunny on {threading.current_thread().name}"


@register_function(description="Greets.")
async def greet(name: str, context: ToolContext, times: int = 1) -> str:
    return f"{context.language} {name} " * times


def tool(function: Any) -> FunctionTool:
    found = registered_tool(function)
    assert found is not None
    return found


def test_the_function_stays_callable_and_carries_its_tool() -> None:
    assert get_weather_plugin("Rome").startswith("Rome is sunny on MainThread")
    spec = tool(get_weather_plugin).spec
    assert (spec.name, spec.description) == ("get_weather", "Say what the weather is.")
    assert tool(greet).spec.name == "greet"
    assert tool(greet).spec.description == "Greets."
    assert registered_tool(len) is None
    assert registered_tool("text") is None


async def test_sync_functions_run_in_a_thread(context: Contexts) -> None:
    result = await tool(get_weather_plugin).call(context(), {"location": "Rome"})
    assert result == ToolResult("Rome is sunny on mynah-tool")


async def test_async_functions_get_the_context(context: Contexts) -> None:
    assert (await tool(greet).call(context("zh"), {"name": "A", "times": "2"})).content == "zh A zh A "


@pytest.mark.parametrize(
    ("returned", "content"),
    [
        ("text", "text"),
        (None, "done"),
        (7, "7"),
        ({"a": [1, None]}, '{"a":[1,null]}'),
        (ToolResult("x", direct=True, end_session=True), "x"),
        ("y" * (MAX_CONTENT_CHARS + 1), "y" * MAX_CONTENT_CHARS + "…"),
    ],
)
async def test_results(context: Contexts, returned: Any, content: str) -> None:
    @register_function()
    async def answer() -> Any:
        return returned

    result = await tool(answer).call(context(), {})
    assert result.content == content
    assert result.end_session == isinstance(returned, ToolResult)


@pytest.mark.parametrize("error", [ValueError("x"), ToolError("y")])
async def test_errors_of_a_thread_arrive(context: Contexts, error: Exception) -> None:
    @register_function()
    def fail() -> str:
        raise error

    with pytest.raises(type(error), match=str(error)):
        await tool(fail).call(context(), {})


@pytest.mark.parametrize("error", [SystemExit(3), StopIteration("s")])
async def test_exits_of_a_thread_become_ordinary_errors(context: Contexts, error: BaseException) -> None:
    @register_function()
    def leave() -> str:
        raise error

    with pytest.raises(RuntimeError, match=type(error).__name__):
        await tool(leave).call(context(), {})


async def test_threads_are_daemons_and_bounded(context: Contexts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "_threads", threading.BoundedSemaphore(1))
    release = threading.Event()
    daemons: list[bool] = []

    @register_function()
    def hang() -> str:
        daemons.append(threading.current_thread().daemon)
        release.wait(5)
        return "free"

    first = asyncio.create_task(tool(hang).call(context(), {}))
    while not daemons:
        await asyncio.sleep(0.001)
    with pytest.raises(ToolError, match="too many"):
        await tool(hang).call(context(), {})
    release.set()
    assert (await first).content == "free"
    assert daemons == [True]
    # The thread's place is free again.
    assert (await tool(hang).call(context(), {})).content == "free"


async def test_a_late_result_of_a_cancelled_call_is_dropped(context: Contexts) -> None:
    finished = threading.Event()

    @register_function()
    def slow() -> str:
        time.sleep(0.05)
        finished.set()
        return "late"

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(tool(slow).call(context(), {}), 0.01)
    await asyncio.to_thread(finished.wait, 5)
    await asyncio.sleep(0.01)  # An exception in the callback would fail this test as an unhandled warning.


def test_wrong_use_is_refused_at_once() -> None:
    with pytest.raises(TypeError, match="parentheses"):
        register_function(get_weather_plugin)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="no name"):
        register_function("no spaces")(get_weather_plugin)
