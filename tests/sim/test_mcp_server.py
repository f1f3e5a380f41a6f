import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from mynah.sim import mcp_server
from mynah.sim.mcp_server import DeviceMcpServer
from mynah.sim.mcp_tool import Refusal, Tool
from mynah.wire.mcp import McpFailure, McpResult, McpSession, parse_tools, result_text


def ask(server: DeviceMcpServer, payload: dict[str, Any]) -> McpResult | McpFailure:
    answer = server.handle(payload)
    assert answer is not None
    assert answer["id"] == payload["id"]
    received = McpSession().receive(answer)
    assert received is not None
    return received


def test_initialize() -> None:
    server = DeviceMcpServer("board", "1.2.3")
    answer = ask(server, McpSession().initialize("http://x", "t"))
    assert isinstance(answer, McpResult)
    assert answer.result["protocolVersion"] == "2024-11-05"
    assert answer.result["serverInfo"] == {"name": "board", "version": "1.2.3"}
    assert server.vision == {"url": "http://x", "token": "t"}


def list_all(server: DeviceMcpServer, with_user_tools: bool = False) -> list[str]:
    session, names, cursor, pages = McpSession(), [], "", 0
    while True:
        answer = ask(server, session.list_tools(cursor, with_user_tools=with_user_tools))
        assert isinstance(answer, McpResult)
        page = parse_tools(answer.result)
        names += [tool.name for tool in page.tools]
        cursor, pages = page.next_cursor, pages + 1
        if not cursor:
            return names
        assert pages < 10


VISIBLE = [
    "self.get_device_status",
    "self.audio_speaker.set_volume",
    "self.screen.set_brightness",
    "self.screen.set_theme",
]


@pytest.mark.parametrize("page_bytes", [8000, 300, 1])
def test_tools_come_in_pages(page_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mcp_server, "PAGE_BYTES", page_bytes)
    assert list_all(DeviceMcpServer()) == VISIBLE
    assert list_all(DeviceMcpServer(), with_user_tools=True) == [*VISIBLE, "self.reboot"]


def test_tools_change_the_state() -> None:
    server, session = DeviceMcpServer(), McpSession()
    for name, arguments in (
        ("self.audio_speaker.set_volume", {"volume": 12}),
        ("self.screen.set_brightness", {"brightness": 34.9, "extra": 1}),
        ("self.screen.set_theme", {"theme": "dark"}),
        ("self.reboot", {}),
    ):
        answer = ask(server, session.call(name, arguments))
        assert isinstance(answer, McpResult)
        assert result_text(answer.result) == "true"
    assert server.settings == mcp_server.DeviceSettings(volume=12, brightness=34, theme="dark", reboots=1)
    answer = ask(server, session.call("self.get_device_status", {}))
    assert isinstance(answer, McpResult)
    status = msgspec.json.decode(result_text(answer.result))
    assert status["audio_speaker"] == {"volume": 12}
    assert status["screen"] == {"brightness": 34, "theme": "dark"}
    assert server.calls[0] == "self.audio_speaker.set_volume"


def test_an_unknown_theme_is_refused_politely() -> None:
    server = DeviceMcpServer()
    answer = ask(server, McpSession().call("self.screen.set_theme", {"theme": "pink"}))
    assert isinstance(answer, McpResult)
    assert result_text(answer.result) == "false"
    assert server.settings.theme == "light"


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("self.nothing", {}, "Unknown tool: self.nothing"),
        ("self.audio_speaker.set_volume", {}, "Missing valid argument: volume"),
        ("self.audio_speaker.set_volume", {"volume": "40"}, "Missing valid argument: volume"),
        ("self.audio_speaker.set_volume", {"volume": True}, "Missing valid argument: volume"),
        ("self.audio_speaker.set_volume", {"volume": 101}, "Value of volume is out of range"),
        ("self.screen.set_theme", {"theme": 1}, "Missing valid argument: theme"),
    ],
)
def test_refusals_have_no_code(name: str, arguments: dict[str, Any], message: str) -> None:
    server = DeviceMcpServer()
    payload = McpSession().call(name, arguments)
    assert server.handle(payload) == {"jsonrpc": "2.0", "id": 1, "error": {"message": message}}
    assert server.calls == []


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        ({"method": "ping"}, "Method not implemented: ping"),
        ({"method": "tools/list", "params": {"cursor": "x"}}, "Unknown cursor: x"),
        ({"method": "tools/call"}, "Unknown tool: None"),
        ({"method": "tools/call", "params": {"name": [1]}}, "Unknown tool: [1]"),
    ],
)
def test_other_refusals(payload: dict[str, Any], message: str) -> None:
    assert ask(DeviceMcpServer(), {"jsonrpc": "2.0", "id": 9, **payload}) == McpFailure(9, message)


@pytest.mark.parametrize(
    "payload",
    [
        {"jsonrpc": "2.0", "id": "1", "method": "initialize"},
        {"jsonrpc": "2.0", "id": True, "method": "initialize"},
        {"jsonrpc": "2.0", "id": 2**31, "method": "initialize"},
        {"jsonrpc": "2.0", "method": "initialize"},
        {"jsonrpc": "1.0", "id": 1, "method": "initialize"},
        {"id": 1, "method": "initialize"},
        {"jsonrpc": "2.0", "id": 1, "method": "notifications/initialized"},
        {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": []},
        {"jsonrpc": "2.0", "id": 1, "result": {}},
        {},
    ],
)
def test_silence_where_firmware_is_silent(payload: dict[str, Any]) -> None:
    assert DeviceMcpServer().handle(payload) is None


def test_a_full_board_needs_two_pages() -> None:
    server = DeviceMcpServer(full=True)
    first = ask(server, McpSession().list_tools(""))
    assert isinstance(first, McpResult)
    assert parse_tools(first.result).next_cursor
    names = list_all(server)
    assert len(names) > 25
    assert "self.camera.take_photo" in names
    assert "self.upgrade_firmware" not in names
    assert "self.upgrade_firmware" in list_all(server, with_user_tools=True)


def test_more_tools_on_top() -> None:
    server = DeviceMcpServer(tools=[Tool("self.count", "Counts", lambda _: 3)])
    answer = ask(server, McpSession().call("self.count", {}))
    assert isinstance(answer, McpResult)
    assert result_text(answer.result) == "3"


async def test_slow_tools_answer_later(monkeypatch: pytest.MonkeyPatch) -> None:
    go = asyncio.Event()

    async def look(arguments: Mapping[str, Any]) -> str:
        await go.wait()
        if not arguments["question"]:
            raise Refusal("No question")
        return "A cat."

    tool = Tool("self.look", "Looks", look, {"question": {"type": "string"}}, slow=True)
    server, session = DeviceMcpServer(tools=[tool]), McpSession()
    answers: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    busy = {"jsonrpc": "2.0", "id": 1, "error": {"message": "The device is busy"}}
    assert server.handle(session.call("self.look", {"question": "?"})) == busy  # nobody waits
    monkeypatch.setattr(mcp_server, "MAX_SLOW_CALLS", 2)
    for question in ("?", ""):
        call = session.call("self.look", {"question": question})
        assert server.handle(call, later=answers.put_nowait) is None
    third = server.handle(session.call("self.look", {"question": "?"}), later=answers.put_nowait)
    assert third == {**busy, "id": 4}
    go.set()
    assert (await answers.get())["result"]["content"] == [{"type": "text", "text": "A cat."}]
    assert await answers.get() == {"jsonrpc": "2.0", "id": 3, "error": {"message": "No question"}}


async def test_closing_gives_up_slow_calls() -> None:
    async def wait(_: Mapping[str, Any]) -> bool:
        await asyncio.Event().wait()
        return True

    server = DeviceMcpServer(tools=[Tool("self.wait", "Waits", wait, slow=True)])
    assert server.handle(McpSession().call("self.wait", {}), later=lambda _: None) is None
    (task,) = server._slow
    server.close()
    await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()
    assert not server._slow
