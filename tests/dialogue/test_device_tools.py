"""What a device offers becomes tools, and its things are told what to do, on virtual time."""

from __future__ import annotations

from mynah.providers.base import Role, ToolCall
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
