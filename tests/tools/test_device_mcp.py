"""The device's tools: found page by page, called with exact types, and never waited for in vain."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loguru import logger

from mynah.errors import ToolError
from mynah.sim.mcp_server import DeviceMcpServer
from mynah.tools import device_mcp
from mynah.tools.base import ToolContext
from mynah.tools.device_mcp import MAX_PENDING, DeviceMcp
from mynah.wire.mcp import MAX_PAGES, MAX_TOOLS

Contexts = Callable[..., ToolContext]
Payload = dict[str, Any]


def connect(answer: Callable[[Payload], Mapping[str, Any] | None]) -> DeviceMcp:
    """A client whose requests are answered by ``answer``, one turn of the loop later."""

    def send(payload: Payload) -> None:
        reply = answer(payload)
        if reply is not None:
            asyncio.get_running_loop().call_soon(mcp.receive, reply)

    mcp = DeviceMcp(send)
    return mcp


def result(payload: Payload, value: Any) -> Payload:
    return {"jsonrpc": "2.0", "id": payload["id"], "result": value}


async def test_discovery_against_a_simulated_device(context: Contexts) -> None:
    server = DeviceMcpServer()
    mcp = connect(server.handle)
    assert await mcp.discover("http://host/vision", "token") == ""
    assert server.vision == {"url": "http://host/vision", "token": "token"}
    tools = {tool.spec.name: tool for tool in mcp.tools}
    assert "self_get_device_status" in tools
    assert "self_reboot" not in tools
    volume = tools["self_audio_speaker_set_volume"]
    assert (await volume.call(context(), {"volume": "30"})).content == "true"
    assert server.settings.volume == 30
    with pytest.raises(ToolError, match="from 0 to 100"):
        await volume.call(context(), {"volume": 130})
    with pytest.raises(ToolError, match="Unknown tool"):
        await mcp.call("self.nothing", {})


async def test_pages_are_followed_until_the_last() -> None:
    def answer(payload: Payload) -> Payload:
        if payload["method"] == "initialize":
            return result(payload, {})
        page = int(payload["params"]["cursor"] or 0)
        more = {"nextCursor": str(page + 1)} if page < 2 else {}
        return result(payload, {"tools": [{"name": f"t{page}"}], **more})

    mcp = connect(answer)
    assert await mcp.discover() == ""
    assert [tool.spec.name for tool in mcp.tools] == ["t0", "t1", "t2"]


@pytest.mark.parametrize("circle", [True, False])
async def test_endless_lists_end(circle: bool) -> None:
    asked: list[str] = []

    def answer(payload: Payload) -> Payload:
        cursor = payload["params"].get("cursor", "")
        asked.append(cursor)
        following = "again" if circle else f"page{len(asked)}"
        return result(payload, {"tools": [{"name": "t"}], "nextCursor": following})

    await connect(answer).discover()
    assert len(asked) == (3 if circle else MAX_PAGES + 1)  # The first request is initialize.


async def test_a_tool_on_two_pages_is_offered_once() -> None:
    def answer(payload: Payload) -> Payload:
        page = int(payload["params"].get("cursor") or 0)
        more = {"nextCursor": str(page + 1)} if page < 2 else {}
        return result(payload, {"tools": [{"name": "same"}, {"name": f"t{page}"}], **more})

    mcp = connect(answer)
    await mcp.discover()
    assert [tool.spec.name for tool in mcp.tools] == ["same", "t0", "t1", "t2"]


@pytest.mark.parametrize(
    ("kind", "given", "sent"),
    [
        ("integer", "30", 30),
        ("integer", 30.0, 30),
        ("boolean", "true", True),
        ("boolean", 1, True),
        ("string", 5, "5"),
        ("number", "1.5", 1.5),
    ],
)
async def test_arguments_have_the_exact_types_of_the_schema(
    context: Contexts, kind: str, given: object, sent: object
) -> None:
    calls: list[Payload] = []

    def answer(payload: Payload) -> Payload:
        if payload["method"] == "tools/call":
            calls.append(payload["params"])
        schema = {"type": "object", "properties": {"p": {"type": kind}}, "required": ["p"]}
        return result(payload, {"tools": [{"name": "self.t", "inputSchema": schema}]})

    mcp = connect(answer)
    await mcp.discover()
    await mcp.tools[0].call(context(), {"p": given, "unknown": 1})
    assert calls == [{"name": "self.t", "arguments": {"p": sent}}]
    assert type(calls[0]["arguments"]["p"]) is type(sent)
    with pytest.raises(ToolError, match="'p'"):
        await mcp.tools[0].call(context(), {"p": []})
    assert len(calls) == 1


async def test_odd_schemas_neither_hide_a_tool_nor_break_its_call(context: Contexts) -> None:
    schema = {"type": "object", "properties": ["a"], "required": 3}
    mcp = connect(lambda payload: result(payload, {"tools": [{"name": "t", "inputSchema": schema}]}))
    await mcp.discover()
    assert mcp.tools[0].spec.parameters == {"type": "object", "properties": {}, "required": []}
    assert await mcp.tools[0].call(context(), {"a": 1})


async def test_too_many_tools_are_cut() -> None:
    def answer(payload: Payload) -> Payload:
        cursor = payload["params"].get("cursor") or "0"
        tools = [{"name": f"t{cursor}_{n}"} for n in range(200)]
        return result(payload, {"tools": tools, "nextCursor": str(int(cursor) + 1)})

    mcp = connect(answer)
    await mcp.discover()
    assert len(mcp.tools) == MAX_TOOLS


async def test_a_device_that_does_not_answer_has_no_tools(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_mcp, "DISCOVERY_TIMEOUT_S", 0.01)
    mcp = connect(lambda payload: None)
    assert await mcp.discover() == "tools/list: the device did not answer within 0.01 seconds"
    assert mcp.tools == ()


async def test_the_list_is_read_even_without_a_handshake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_mcp, "DISCOVERY_TIMEOUT_S", 0.01)
    server = DeviceMcpServer()
    mcp = connect(lambda payload: None if payload["method"] == "initialize" else server.handle(payload))
    assert await mcp.discover() == "initialize: the device did not answer within 0.01 seconds"
    assert mcp.tools


async def test_a_call_that_is_not_answered_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_mcp, "CALL_TIMEOUT_S", 0.01)
    with pytest.raises(ToolError, match=r"did not answer within 0\.01 seconds"):
        await connect(lambda payload: None).call("self.x", {})


async def test_what_is_left_out_is_counted_by_reason() -> None:
    tools: list[Any] = [{"name": f"t{n}"} for n in range(MAX_TOOLS - 1)]
    people = {"name": "reboot", "annotations": {"audience": ["user"]}}

    def answer(payload: Payload) -> Payload:
        if payload["params"].get("cursor"):
            return result(payload, {"tools": [people, {"name": "t"}, {"name": "u"}]})
        return result(payload, {"tools": [*tools, {"name": "x" * 129}], "nextCursor": "more"})

    mcp = connect(answer)
    await mcp.discover()
    assert mcp.left_out == {"for people only": 1, "name too long": 1, f"more than {MAX_TOOLS}": 2}
    assert len(mcp.tools) == MAX_TOOLS - 1


@pytest.fixture
def log() -> Iterator[list[str]]:
    lines: list[str] = []
    sink = logger.add(
        lambda line: lines.append(str(line).rstrip("\n")), level="WARNING", format="{level} {message}"
    )
    yield lines
    logger.remove(sink)


async def test_a_failed_call_is_logged_with_the_devices_reason(log: list[str]) -> None:
    told = "the lens is\n\x1b[31mdirty" + "y" * 1000
    device = connect(lambda payload: {"id": payload["id"], "error": {"message": told}})
    with pytest.raises(ToolError):
        await device.call("self.camera.\ntake_photo", {"question": "is this my password"})
    (line,) = log
    assert line.startswith("WARNING a device: tool self.camera. take_photo failed: ")
    assert "the lens is  [31mdirty" in line
    assert line.isprintable()
    assert len(line) < 400
    assert "password" not in line


async def test_a_call_that_succeeds_is_not_logged_as_a_warning(log: list[str]) -> None:
    device = connect(DeviceMcpServer().handle)
    await device.discover()
    await device.call("self.get_device_status", {})
    assert not log


async def test_an_error_without_code_and_a_reported_error() -> None:
    failing = connect(lambda payload: {"id": payload["id"], "error": {"message": "no lens"}})
    with pytest.raises(ToolError, match="the device says: no lens"):
        await failing.call("x", {})
    reported = connect(
        lambda payload: result(payload, {"content": [{"type": "text", "text": "hot"}], "isError": True})
    )
    with pytest.raises(ToolError, match="hot"):
        await reported.call("x", {})


async def test_closing_ends_waiting_calls_and_later_ones() -> None:
    mcp = connect(lambda payload: None)
    waiting = asyncio.create_task(mcp.call("x", {}))
    await asyncio.sleep(0)
    mcp.close()
    mcp.close()
    with pytest.raises(ToolError, match="disconnected"):
        await waiting
    with pytest.raises(ToolError, match="disconnected"):
        await mcp.call("x", {})


async def test_the_number_of_waiting_calls_is_bounded() -> None:
    mcp = connect(lambda payload: None)
    waiting = [asyncio.create_task(mcp.call("x", {})) for _ in range(MAX_PENDING)]
    await asyncio.sleep(0)
    with pytest.raises(ToolError, match="busy"):
        await mcp.call("x", {})
    mcp.close()
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_answers_in_any_order_reach_their_calls() -> None:
    sent: list[Payload] = []
    mcp = DeviceMcp(sent.append)
    calls = [asyncio.create_task(mcp.call(name, {})) for name in ("a", "b")]
    await asyncio.sleep(0)
    for payload in reversed(sent):
        answer = result(payload, {"content": [{"type": "text", "text": payload["params"]["name"]}]})
        mcp.receive(answer)
        mcp.receive(answer)  # Twice is once.
    assert await asyncio.gather(*calls) == ["a", "b"]


async def test_nothing_is_held_while_idle() -> None:
    mcp = connect(DeviceMcpServer().handle)
    await mcp.discover()
    await mcp.call("self.get_device_status", {})
    gc.collect()
    assert mcp._pending == {}
    assert asyncio.all_tasks() == {asyncio.current_task()}


SCALARS = st.none() | st.booleans() | st.integers() | st.text(max_size=8)
VALUES = SCALARS | st.lists(SCALARS, max_size=3) | st.dictionaries(st.text(max_size=8), SCALARS, max_size=3)
KEYS = st.sampled_from(["jsonrpc", "id", "method", "result", "error", "params"])


@given(st.dictionaries(KEYS, VALUES))
def test_any_payload_is_survived(payload: dict[str, Any]) -> None:
    DeviceMcp(lambda _: None).receive(payload)
