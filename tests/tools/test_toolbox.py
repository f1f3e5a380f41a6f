"""One door for all tools: it never raises, and it tells the model what went wrong."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from mynah.errors import ToolError
from mynah.providers.base import TOOL_FAILED, ToolCall
from mynah.tools.base import FunctionTool, ToolContext, ToolResult
from mynah.tools.device_mcp import DeviceMcp
from mynah.tools.iot import DeviceThings
from mynah.tools.toolbox import SessionTools, Toolbox, ToolSource

Contexts = Callable[..., ToolContext]


async def echo(context: ToolContext, what: str, times: int = 1) -> str:
    """Say it again.

    Args:
        what: the words
        times: how often
    """
    return f"{context.settings.get('prefix', '')}{what * times}"


async def hang() -> str:
    """Never answer."""
    await asyncio.Event().wait()
    return "never"


async def crash() -> str:
    """Fail."""
    raise RuntimeError("secret detail")


async def refuse() -> str:
    """Refuse."""
    raise ToolError("the door is locked")


async def leave() -> str:
    """Exit."""
    raise SystemExit(1)


async def impatient() -> str:
    """Run into a time-out of its own."""
    raise TimeoutError("inner")


async def cancel_itself() -> str:
    """Cancel itself."""
    raise asyncio.CancelledError


FUNCTIONS = [
    FunctionTool(function, function.__name__)
    for function in (echo, hang, crash, refuse, leave, impatient, cancel_itself)
]


def session(*sources: ToolSource, timeout_s: float = 5.0) -> SessionTools:
    return Toolbox(FUNCTIONS, {"echo": {"prefix": "> "}}, timeout_s).for_session(*sources)


def call(name: str, arguments: str = "{}") -> ToolCall:
    return ToolCall("1", name, arguments)


async def test_a_call_gets_its_own_settings(context: Contexts) -> None:
    result = await session().call(context(), call("echo", '{"what": "ho", "times": "2"}'))
    assert result == ToolResult("> hoho")


@pytest.mark.parametrize(
    ("name", "arguments", "told"),
    [
        ("unknown", "{}", "no tool named 'unknown'; there are: echo, hang"),
        ("echo", "{", "not valid JSON"),
        ("echo", "[]", "one JSON object"),
        ("echo", "{}", "'what' is missing; it is string"),
        ("echo", '{"what": "a", "times": "x"}', "'times' must be integer"),
        ("crash", "{}", "crash failed with RuntimeError"),
        ("refuse", "{}", "the door is locked"),
        ("leave", "{}", "leave failed with SystemExit"),
        ("impatient", "{}", "impatient failed with TimeoutError"),
        ("cancel_itself", "{}", "cancel_itself was cancelled"),
    ],
)
async def test_failures_are_told_and_never_raised(
    context: Contexts, name: str, arguments: str, told: str
) -> None:
    result = await session().call(context(), call(name, arguments))
    assert result.content.startswith(TOOL_FAILED)
    assert told in result.content
    assert "secret detail" not in result.content


async def test_time_out(context: Contexts) -> None:
    result = await session(timeout_s=0.01).call(context(), call("hang"))
    assert result.content == f"{TOOL_FAILED}hang did not finish within 0.01 seconds"


async def test_cancelling_passes(context: Contexts) -> None:
    task = asyncio.create_task(session().call(context(), call("hang")))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_the_later_function_of_a_name_counts() -> None:
    async def other() -> str:
        """Replacement."""
        return ""

    tools = Toolbox([*FUNCTIONS, FunctionTool(other, "echo")]).for_session()
    found = {spec.name: spec.description for spec in tools.specs()}
    assert found["echo"] == "Replacement."
    assert len(found) == len(tools.specs()) == len(FUNCTIONS)


class OneDevice:
    """A device that offers the given tools and answers every call with its own name for the tool."""

    def __init__(self, *names: str) -> None:
        self.mcp = DeviceMcp(self._send)
        self._names = names

    def _send(self, payload: dict[str, Any]) -> None:
        method = payload["method"]
        result: dict[str, Any] = {}
        if method == "tools/list":
            result = {"tools": [{"name": name, "description": f"device {name}"} for name in self._names]}
        elif method == "tools/call":
            result = {"content": [{"type": "text", "text": payload["params"]["name"]}]}
        asyncio.get_running_loop().call_soon(
            self.mcp.receive,
            json.loads(json.dumps({"jsonrpc": "2.0", "id": payload["id"], "result": result})),
        )


async def test_names_of_device_tools_never_clash(context: Contexts) -> None:
    device = OneDevice("echo", "self.a.b", "self.a_b", "self_a.b", "x" * 80, "x" * 70)
    tools = session(device.mcp)
    assert len(tools.specs()) == len(FUNCTIONS)  # Nothing is known yet.
    await device.mcp.discover()
    names = [spec.name for spec in tools.specs()][len(FUNCTIONS) :]
    assert names == [
        "echo_device", "self_a_b", "self_a_b_device", "self_a_b_device2", "x" * 64, "x" * 57 + "_device",
    ]  # fmt: skip
    answers = [(await tools.call(context(), call(name))).content for name in names]
    assert answers == ["echo", "self.a.b", "self.a_b", "self_a.b", "x" * 80, "x" * 70]
    assert (await tools.call(context(), call("echo", '{"what": "plugin"}'))).content == "> plugin"


async def test_sessions_do_not_see_each_others_devices() -> None:
    device = OneDevice("self.mine")
    toolbox = Toolbox(FUNCTIONS)
    with_device, without = toolbox.for_session(device.mcp), toolbox.for_session()
    await device.mcp.discover()
    assert len(with_device.specs()) == len(without.specs()) + 1


class Source:
    """A source whose tools are plain functions that take as long as they like."""

    def __init__(self, *functions: Callable[..., Any]) -> None:
        self.tools = tuple(FunctionTool(function, function.__name__) for function in functions)


async def test_all_sources_share_one_set_of_names_in_their_order(context: Contexts) -> None:
    sent: list[dict[str, Any]] = []
    device, things = OneDevice("echo", "Lamp.on"), DeviceThings(sent.extend)
    tools = session(device.mcp, things)
    await device.mcp.discover()
    things.describe([{"name": "Lamp", "methods": {"on": {}}}, {"name": "echo", "methods": {"device": {}}}])
    names = [spec.name for spec in tools.specs()][len(FUNCTIONS) :]
    assert names == ["echo_device", "Lamp_on", "Lamp_on_device", "echo_device_device"]
    assert (await tools.call(context(), call("Lamp_on"))).content == "Lamp.on"
    await tools.call(context(), call("Lamp_on_device"))
    await tools.call(context(), call("echo_device_device"))
    assert [(command["name"], command["method"]) for command in sent] == [("Lamp", "on"), ("echo", "device")]


async def test_sources_may_be_added_later_and_once() -> None:
    async def late() -> str:
        """Come later."""
        return ""

    tools, source = session(), Source(late)
    assert len(tools.specs()) == len(FUNCTIONS)
    tools.add(source)
    tools.add(source)
    assert [spec.name for spec in tools.specs()][len(FUNCTIONS) :] == ["late"]


def test_specs_are_made_once_per_change() -> None:
    things = DeviceThings(lambda commands: None)
    tools = session(things)
    before = tools.specs()
    assert tools.specs() is before
    lamp = {"name": "Lamp", "methods": {"on": {}}}
    things.describe([lamp])
    after = tools.specs()
    assert len(after) == len(before) + 1
    things.describe([lamp])
    assert tools.specs() is after


async def test_tools_of_sources_keep_their_own_time_out(context: Contexts) -> None:
    async def slow() -> str:
        """Take longer than a plugin may."""
        await asyncio.sleep(0.05)
        return "done"

    tools = session(Source(slow), timeout_s=0.01)
    assert (await tools.call(context(), call("slow"))).content == "done"
