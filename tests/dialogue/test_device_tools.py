"""What a device offers becomes tools, and its things are told what to do, on virtual time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from loguru import logger

from mynah.providers.base import Role, ToolCall
from mynah.sim.mcp_server import DeviceMcpServer
from mynah.wire.messages import Hello, Iot, IotCommands, Listen, Mcp
from tests.dialogue.test_session import play
from tests.fakes import Script, Stage

SPEAKER = {
    "name": "Speaker",
    "description": "The loudspeaker",
    "properties": {"volume": {"description": "Volume now", "type": "number"}},
    "methods": {
        "SetVolume": {
            "description": "Set the volume",
            "parameters": {"volume": {"description": "0 to 100", "type": "number"}},
        }
    },
}


def test_iot_things_are_offered_and_obey() -> None:
    async def act(stage: Stage) -> None:
        stage.session.on_message(Hello())
        stage.session.on_message(Iot(descriptors=[SPEAKER]))
        stage.session.on_message(Iot(states=[{"name": "Speaker", "state": {"volume": 70}}]))
        stage.session.on_message(Listen("detect", text="make it quieter"))
        await stage.settle()

    script = Script(replies=[[ToolCall("1", "Speaker_SetVolume", '{"volume": 30}')], ["Done."]])
    stage = play(script, act)
    (sent,) = stage.link.of(IotCommands)
    assert sent.commands == [{"name": "Speaker", "method": "SetVolume", "parameters": {"volume": 30}}]
    assert "Speaker_SetVolume" in {tool.name for tool in stage.llm.requests[0].tools}
    assert any(message.role is Role.TOOL for message in stage.llm.requests[1].messages)


def test_mcp_is_asked_only_of_devices_that_speak_it_and_once() -> None:
    async def act(stage: Stage) -> None:
        stage.session.on_message(Hello(features={"mcp": False}))
        await stage.settle(1)

    assert not play(None, act).link.of(Mcp)

    async def act_mcp(stage: Stage) -> None:
        stage.session.on_message(Hello(features={"mcp": True}))
        stage.session.on_message(Hello(features={"mcp": True}))
        await stage.settle(1)

    payloads = [message.payload for message in play(None, act_mcp).link.of(Mcp)]
    assert [payload["method"] for payload in payloads] == ["initialize"]
    assert set(payloads[0]["params"]["capabilities"]["vision"]) == {"url", "token"}


def test_first_words_wait_only_a_moment_for_a_device_that_does_not_tell_its_tools() -> None:
    async def act(stage: Stage) -> None:
        stage.session.on_message(Hello(features={"mcp": True}))
        stage.session.on_message(Listen("detect", text="hi"))
        await stage.settle(2)
        assert "say:Hi!" in stage.link.story

    play(None, act)


@pytest.fixture
def log() -> Iterator[list[str]]:
    lines: list[str] = []
    sink = logger.add(
        lambda line: lines.append(str(line).rstrip("\n")),
        level="DEBUG",
        format="{level} {message}",
        filter=lambda record: record["name"] == "mynah.dialogue.device_tools",
    )
    yield lines
    logger.remove(sink)


def device_side(
    stage: Stage, answer: Callable[[dict[str, Any]], dict[str, Any] | None]
) -> Callable[[], None]:
    """Answer the requests that have come since the last time."""
    seen = 0

    def answer_all() -> None:
        nonlocal seen
        requests = stage.link.of(Mcp)[seen:]
        seen += len(requests)
        for request in requests:
            if (reply := answer(request.payload)) is not None:
                stage.session.on_message(Mcp(reply, ""))

    return answer_all


def test_what_a_device_offers_and_every_message_about_it_is_logged(log: list[str]) -> None:
    server = DeviceMcpServer()

    def answer(payload: dict[str, Any]) -> dict[str, Any] | None:
        reply = server.handle(payload)
        if payload["method"] == "tools/list" and reply is not None:
            reply["result"]["tools"].append({"name": "x" * 129})
        return reply

    async def act(stage: Stage) -> None:
        stage.session.on_message(Hello(features={"mcp": True}))
        answer_all = device_side(stage, answer)
        for _ in range(6):
            await stage.settle(0.1)
            answer_all()

    play(None, act)
    (told,) = [line for line in log if line.startswith("INFO")]
    assert " tools over MCP, " in told
    assert told.endswith("1 left out: name too long")
    assert (
        sum("← mcp tools/list, id" in line for line in log)
        == sum("→ mcp answer, id" in line for line in log) - 1
    )
    assert any("tools: self_get_device_status" in line for line in log)
    # What is said stays out of the log: the handshake holds a token.
    assert not [line for line in log if "token" in line or "vision" in line]


def test_a_device_that_does_not_tell_its_tools_is_noted_with_the_reason(log: list[str]) -> None:
    async def act(stage: Stage) -> None:
        stage.session.on_message(Hello(features={"mcp": True}))
        await stage.settle(40)

    play(None, act)
    (told,) = [line for line in log if line.startswith("INFO")]
    assert " offers 0 tools over MCP (tools/list: the device did not answer within 10 seconds)" in told


def test_iot_messages_are_logged_by_what_they_are_about(log: list[str]) -> None:
    async def act(stage: Stage) -> None:
        stage.session.on_message(Hello())
        stage.session.on_message(Iot(descriptors=[SPEAKER]))
        stage.session.on_message(Iot(states=[{"name": "Speaker", "state": {"volume": 70}}]))
        stage.session.on_message(Listen("detect", text="make it quieter"))
        await stage.settle()

    play(Script(replies=[[ToolCall("1", "Speaker_SetVolume", '{"volume": 30}')], ["Done."]]), act)
    assert [line.partition(" ")[2].partition(" ")[2] for line in log] == [
        "→ iot with 1 descriptions, 0 states; its things: Speaker",
        "→ iot with 0 descriptions, 1 states; its things: Speaker",
        "← iot Speaker.SetVolume",
    ]


@pytest.mark.parametrize(
    "payload",
    [{}, {"id": 10**5000}, {"method": 3}, {"method": "tools/call", "params": 1}, {"method": "a\nb" * 1000}],
)
def test_odd_payloads_are_logged_in_one_short_line(log: list[str], payload: dict[str, Any]) -> None:
    async def act(stage: Stage) -> None:
        stage.session.on_message(Hello(features={"mcp": True}))
        stage.session.on_message(Mcp(payload, ""))
        await stage.settle(1)

    play(None, act)
    (line,) = [line for line in log if "→" in line]
    assert line.isprintable()
    assert len(line) < 400
