import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mynah.wire import mcp
from mynah.wire.mcp import DeviceTool, McpFailure, McpResult, McpSession, ToolPage


def test_initialize_always_carries_both_vision_texts() -> None:
    payload = McpSession().initialize("http://x/mcp/vision/explain", "secret")
    assert payload["jsonrpc"] == "2.0"
    assert payload["method"] == "initialize"
    assert payload["params"]["protocolVersion"] == "2024-11-05"
    assert payload["params"]["capabilities"] == {
        "vision": {"url": "http://x/mcp/vision/explain", "token": "secret"}
    }
    assert McpSession().initialize("", "")["params"]["capabilities"] == {"vision": {"url": "", "token": ""}}


def test_requests() -> None:
    session = McpSession()
    listing = session.list_tools()
    assert (listing["method"], listing["params"]) == ("tools/list", {"cursor": "", "withUserTools": False})
    assert session.list_tools("self.x", with_user_tools=True)["params"] == {
        "cursor": "self.x",
        "withUserTools": True,
    }
    call = session.call("self.audio_speaker.set_volume", {"volume": 40})
    assert call["method"] == "tools/call"
    assert call["params"] == {"name": "self.audio_speaker.set_volume", "arguments": {"volume": 40}}


def test_ids_are_fresh_and_stay_within_int32() -> None:
    session = McpSession()
    ids = [session.initialize("", "")["id"], session.list_tools()["id"], session.call("x", {})["id"]]
    assert ids == [1, 2, 3]
    session = McpSession(first_id=mcp.MAX_ID)
    assert [session.list_tools()["id"] for _ in range(2)] == [2**31 - 1, 1]
    for bad in (0, 2**31):
        with pytest.raises(ValueError, match="request ids"):
            McpSession(bad)


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        ({"jsonrpc": "2.0", "id": 1, "result": {"tools": []}}, McpResult(1, {"tools": []})),
        ({"id": 2, "result": None}, McpResult(2, None)),
        ({"id": 3, "error": {"message": "Unknown tool: x"}}, McpFailure(3, "Unknown tool: x")),
        ({"id": 3, "error": {"code": -32601, "message": " no "}}, McpFailure(3, "no")),
        ({"id": 3, "error": "busy"}, McpFailure(3, "busy")),
        ({"id": 3, "error": None}, McpFailure(3, "the device gave no reason")),
        ({"id": 3, "error": {"message": "x" * 900}}, McpFailure(3, "x" * mcp.MAX_FAILURE_CHARS)),
        ({"jsonrpc": "2.0", "method": "notifications/state_changed", "params": {}}, None),
        ({"id": 4, "method": "ping"}, None),
        ({"id": 4}, None),
        ({"id": True, "result": {}}, None),
        ({"id": "1", "result": {}}, None),
        ({"id": 0, "result": {}}, None),
        ({"id": 2**31, "result": {}}, None),
        ({"id": 1.0, "result": {}}, None),
        ({}, None),
    ],
)
def test_receive(payload: dict[str, Any], expected: object) -> None:
    assert McpSession().receive(payload) == expected


def spoilt(message: str, request_id: object = 7) -> str:
    """An error as firmware writes it: with whatever the message holds."""
    error = f'{{"jsonrpc":"2.0","id":{request_id},"error":{{"message":"{message}"}}}}'
    return f'{{"session_id":"x","type":"mcp","payload":{error}}}'


@pytest.mark.parametrize(
    ("frame", "failure"),
    [
        (spoilt('Unknown tool: "x"'), McpFailure(7, 'Unknown tool: "x"')),
        (spoilt('Unknown tool: "x"').encode(), McpFailure(7, 'Unknown tool: "x"')),
        (spoilt("two\nlines"), McpFailure(7, "two\nlines")),
        (spoilt(""), McpFailure(7, "its answer cannot be read")),
        (spoilt("x" * 5000), McpFailure(7, "x" * mcp.MAX_FAILURE_CHARS)),
        ('{"type":"mcp","payload":{"id":7,"result":{"content":[', McpFailure(7, "its answer cannot be read")),
        (spoilt("no", 0), None),
        (spoilt("no", '"7"'), None),
        ('{"type":"listen","id":7,', None),
        ("", None),
    ],
)
def test_a_spoilt_answer_still_ends_its_call(frame: str | bytes, failure: McpFailure | None) -> None:
    found = mcp.salvage(frame)
    assert (McpSession.receive(found) if found is not None else None) == failure


SET_VOLUME = {
    "name": "self.audio_speaker.set_volume",
    "description": "Set the volume.",
    "inputSchema": {
        "type": "object",
        "properties": {"volume": {"type": "integer", "minimum": 0, "maximum": 100}},
        "required": ["volume"],
    },
}


def test_parse_tools() -> None:
    reboot = {
        "name": "self.reboot",
        "description": "Reboot.",
        "inputSchema": {"type": "object", "properties": {}},
    }
    page = mcp.parse_tools(
        {
            "tools": [SET_VOLUME, {**reboot, "annotations": {"audience": ["user"]}}],
            "nextCursor": "self.screen.set_theme",
        }
    )
    assert page == ToolPage(
        (
            DeviceTool("self.audio_speaker.set_volume", "Set the volume.", SET_VOLUME["inputSchema"], False),  # type: ignore[arg-type]
            DeviceTool("self.reboot", "Reboot.", {"type": "object", "properties": {}}, True),
        ),
        "self.screen.set_theme",
    )


def test_a_tool_for_user_and_assistant_is_not_user_only() -> None:
    page = mcp.parse_tools({"tools": [{"name": "x", "annotations": {"audience": ["user", "assistant"]}}]})
    assert page.tools == (DeviceTool("x", "", {"type": "object", "properties": {}}, False),)


def deep(depth: int) -> dict[str, Any]:
    inner: dict[str, Any] = {}
    for _ in range(depth):
        inner = {"a": inner}
    return inner


LONG = {"type": "object", "properties": {"a": {"description": "x" * 9000}}}


@pytest.mark.parametrize(
    ("tool", "reason"),
    [
        (None, "not an object"),
        ("x", "not an object"),
        ({}, "no name"),
        ({"name": ""}, "no name"),
        ({"name": 7}, "no name"),
        ({"name": "x" * 129}, "name too long"),
        ({"name": "x", "inputSchema": LONG}, "schema too long"),
        ({"name": "x", "inputSchema": {"type": "object", "properties": deep(100_000)}}, "schema too long"),
    ],
)
def test_what_is_no_tool_is_left_out_and_the_reason_told(tool: object, reason: str) -> None:
    page = mcp.parse_tools({"tools": [tool, SET_VOLUME]})
    assert [t.name for t in page.tools] == [SET_VOLUME["name"]]
    assert page.left_out == (reason,)


def test_schemas_are_left_as_they_are_or_made_sound() -> None:
    sound = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "title": "x"}
    odd = {"type": "object", "properties": {"a": {}, "b": True}, "required": ["a", "b", "c", 4, ["a"]]}
    tools = [{"name": "t", "inputSchema": schema} for schema in (sound, odd, {"type": "object"})]
    assert [tool.input_schema for tool in mcp.parse_tools({"tools": tools}).tools] == [
        sound,
        {"type": "object", "properties": {"a": {}}, "required": ["a"]},
        {"type": "object", "properties": {}},
    ]


def test_tool_lists_are_bounded() -> None:
    tools = [{"name": f"t{i}", "description": "d" * 9000} for i in range(1000)]
    page = mcp.parse_tools({"tools": tools, "nextCursor": "c" * 1000})
    assert len(page.tools) == mcp.MAX_TOOLS
    assert len(page.tools[0].description) == mcp.MAX_DESCRIPTION_CHARS
    assert page.next_cursor == ""


@pytest.mark.parametrize("result", [None, [], "x", {}, {"tools": None}, {"tools": [], "nextCursor": 3}])
def test_junk_is_an_empty_list(result: object) -> None:
    assert mcp.parse_tools(result) == ToolPage(())


def wrapped(*texts: str, **extra: object) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": text} for text in texts], "isError": False, **extra}


@pytest.mark.parametrize(
    ("result", "text"),
    [
        (wrapped("true"), "true"),
        (wrapped("It is warm."), "It is warm."),
        (wrapped('{"audio_speaker":{"volume":70}}'), '{"audio_speaker":{"volume":70}}'),
        (wrapped(json.dumps("It is warm.")), "It is warm."),
        (wrapped(json.dumps(json.dumps({"a": 1}))), '{"a": 1}'),
        (wrapped('"unescaped "quotes""'), '"unescaped "quotes""'),
        (wrapped('"'), '"'),
        (wrapped("one", "two"), "one\ntwo"),
        (wrapped("failed", isError=True), "failed"),
        (
            {"content": [{"type": "image", "image": '{"answer":"a cat"}'}, None, {"type": "x"}]},
            '{"answer":"a cat"}',
        ),
        ({"content": [{"type": "image", "image": "a cat"}]}, "a cat"),
        (
            {"content": [{"type": "image", "image": '{"mimeType":"image/jpeg","data":"/9j/4AAQ"}'}]},
            "(image/jpeg: not text, so it is left out)",
        ),
        (
            {"content": [{"type": "text", "text": "see"}, {"type": "audio", "data": "AAAA"}]},
            "see\n(audio: not text, so it is left out)",
        ),
        ("plain", "plain"),
        ('"quoted"', "quoted"),
        ({"level": 5}, '{"level":5}'),
        (True, "true"),
        (None, "null"),
        (deep(100_000), ""),
        (wrapped("x" * 20_000), "x" * mcp.MAX_TEXT_CHARS),
    ],
)
def test_result_text(result: object, text: str) -> None:
    assert mcp.result_text(result) == text


def test_is_error() -> None:
    assert mcp.is_error(wrapped("x", isError=True))
    assert not mcp.is_error(wrapped("x"))
    assert not mcp.is_error("x")


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "id",
                    "result",
                    "error",
                    "message",
                    "content",
                    "text",
                    "tools",
                    "name",
                    "inputSchema",
                    "annotations",
                ]
            )
            | st.text(max_size=4),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(json_values)
def test_nothing_a_device_sends_raises(value: object) -> None:
    if isinstance(value, dict):
        answer = McpSession().receive(value)
        assert answer is None or 1 <= answer.id <= mcp.MAX_ID
    for tool in mcp.parse_tools(value).tools:
        assert msgspec.json.encode(tool.input_schema)
    assert isinstance(mcp.result_text(value), str)
    assert mcp.is_error(value) in {True, False}
