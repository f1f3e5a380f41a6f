"""Targets that read what devices and servers send in a conversation: frames, messages, MCP, whole connections."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

import msgspec

from mynah.errors import ToolError, WireError
from mynah.sim.mcp_server import DeviceMcpServer
from mynah.tools import arguments
from mynah.wire import frames, hello, iot, json_dialect, mcp, messages
from tests.fuzz import samples
from tests.fuzz.connection import Connections
from tests.fuzz.mutations import Shape
from tests.fuzz.target import KILO, MEGA, loaded, pieces, target, written

# ---------------------------------------------------------------- messages and frames


@target("messages.decode", samples.DEVICE_MESSAGES, Shape.JSON, MEGA)
def _device_message(data: bytes) -> bool:
    try:
        message = messages.decode(data)
    except WireError as error:
        assert str(error).startswith("not a message: ") and len(str(error)) < 300
        return False
    again = messages.encode_device(message)
    assert messages.decode(again) == message
    if isinstance(message, messages.Hello):
        assert hello.answer(message, "s", 24000).version in hello.VERSIONS
    return True


@target("messages.decode_server", samples.SERVER_MESSAGES, Shape.JSON, MEGA)
def _server_message(data: bytes) -> bool:
    try:
        message = messages.decode_server(data)
    except WireError as error:
        assert str(error).startswith("not a message: ") and len(str(error)) < 300
        return False
    assert messages.decode_server(msgspec.json.encode(message)) == message
    return True


def _frame(version: int) -> Callable[[bytes], bool]:
    def feed(data: bytes) -> bool:
        try:
            frame = frames.decode_audio(version, data)
        except WireError:
            return False
        assert 0 < len(frame.packet) <= frames.MAX_PACKET_BYTES
        assert 0 <= frame.timestamp < 2**32
        assert data.endswith(frame.packet)
        assert (
            frames.decode_audio(version, frames.encode_audio(version, frame.packet, frame.timestamp)) == frame
        )
        return True

    return feed


for _version in hello.VERSIONS:
    target(
        f"frames.decode_audio v{_version}", partial(samples.frame_samples, _version), Shape.BINARY, 128 * KILO
    )(_frame(_version))


@target("hello.protocol_version", samples.as_text("1", "2", "3", " 3 ", "x"), Shape.TEXT, 8 * KILO)
def _protocol_version(data: bytes) -> bool:
    version = hello.protocol_version(written(data))
    assert version in hello.VERSIONS
    return version != 1


@target("json_dialect.decode_data", samples.audio_messages, Shape.JSON, MEGA)
def _json_audio(data: bytes) -> bool:
    try:
        message = messages.decode(data)
        if not isinstance(message, messages.AudioData):
            message = messages.AudioData(written(data), "pcm" if len(data) % 2 else "opus")
        audio = json_dialect.decode_data(message)
    except WireError:
        return False
    assert len(audio) <= (frames.MAX_PACKET_BYTES if message.format == "opus" else json_dialect.MAX_PCM_BYTES)
    assert message.format == "opus" or len(audio) % 2 == 0
    return True


# ---------------------------------------------------------------- MCP


@target("mcp.receive", samples.device_replies, Shape.JSON, MEGA)
def _mcp(data: bytes) -> bool:
    try:
        payload = loaded(data)
    except ValueError:
        salvaged = mcp.salvage(data)
        assert salvaged is None or isinstance(mcp.McpSession.receive(salvaged), mcp.McpFailure | None)
        return False
    answer = mcp.McpSession.receive(payload) if isinstance(payload, dict) else None
    if isinstance(answer, mcp.McpFailure):
        assert 0 < len(answer.message) <= mcp.MAX_FAILURE_CHARS
    result = answer.result if isinstance(answer, mcp.McpResult) else payload
    page = mcp.parse_tools(result)
    assert len(page.tools) <= mcp.MAX_TOOLS and len(page.next_cursor) <= mcp.MAX_NAME_CHARS
    for tool in page.tools:
        assert 0 < len(tool.name) <= mcp.MAX_NAME_CHARS and len(tool.description) <= mcp.MAX_DESCRIPTION_CHARS
        assert len(msgspec.json.encode(tool)) < 64 * KILO
        assert tool.input_schema["type"] == "object"
        for said in ({}, {"volume": "30", "theme": 1, "points": [None], "more": 5, "on": "x"}):
            try:
                arguments.fit(said, tool.input_schema)
            except ToolError:
                pass
    answered = mcp.result_text(result)
    assert len(answered) <= mcp.MAX_TEXT_CHARS
    answered.encode()
    mcp.is_error(result)
    return answer is not None


@target("sim.mcp_server.handle", samples.MCP_REQUESTS, Shape.JSON, MEGA)
def _device_server(data: bytes) -> bool:
    try:
        payload = loaded(data)
    except ValueError:
        return False
    answer = DeviceMcpServer().handle(payload) if isinstance(payload, dict) else None
    if answer is not None:
        msgspec.json.encode(answer)
    return answer is not None and "error" not in answer


@target("iot.parse", samples.THINGS, Shape.JSON, MEGA)
def _things(data: bytes) -> bool:
    try:
        told = loaded(data)
    except ValueError:
        return False
    entries = told if isinstance(told, list) else [told]
    things = iot.parse_descriptors(entries)
    assert len(things) <= iot.MAX_THINGS
    for thing in things:
        assert 0 < len(thing.name) <= iot.MAX_NAME_CHARS
        assert len(thing.description) <= iot.MAX_DESCRIPTION_CHARS
        assert len(thing.properties) <= iot.MAX_MEMBERS and len(thing.methods) <= iot.MAX_MEMBERS
        msgspec.json.encode(thing)
    states = iot.parse_states(entries)
    assert len(states) <= iot.MAX_THINGS
    for values in states.values():
        assert all(len(msgspec.json.encode(value)) <= iot.MAX_VALUE_BYTES for value in values.values())
    return bool(things or states)


# ---------------------------------------------------------------- whole connections


@cache
def _connections() -> Connections:
    return Connections()


@target("websocket (connections)", samples.connections, Shape.BINARY, 128 * KILO)
def _connection(data: bytes) -> bool:
    whole, answered = _connections().told([data])
    assert answered <= 4 * KILO + 2 * len(data), "far more is answered than was asked"
    cut, _ = _connections().told(pieces(data, len(data)))
    # What comes behind a violation of the protocol is lost, and with it what came in the same piece.
    assert _alike(whole, cut), "what is understood depends on how the bytes are cut"
    return len(whole) > 2


def _alike(whole: list[object], cut: list[object]) -> bool:
    """Whether the two differ by their ends only."""
    left, right = ([told for told in side if told != "closed"] for side in (whole, cut))
    return left[: len(right)] == right[: len(left)]
