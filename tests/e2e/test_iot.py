"""Old firmware without MCP: its things are told in ``iot`` messages, and the assistant uses them."""

from __future__ import annotations

from pathlib import Path

import pytest

from mynah.sim.iot_things import IotThings
from tests.servers import Client, app, connect

pytestmark = pytest.mark.e2e

BUILTIN = (
    "selected_module.LLM=TheModel",
    "LLM.TheModel.type=builtin",
    "selected_module.Intent=function_call",
)
SETTINGS = (*BUILTIN, "TTS.FakeTTS.seconds=0.2")


async def ask(client: Client, things: IotThings, words: str) -> str:
    """Ask, do what the server commands, and report what has changed, as firmware does; return the answer."""
    client.messages.clear()
    await client.say(type="listen", state="detect", text=words)
    await client.until("tts", "stop")
    for message in client.messages:
        if message["type"] == "iot":
            things.handle(message["commands"])
    if changed := things.states(changed_only=True):
        await client.say(type="iot", update=True, states=changed)
    return " ".join(
        message["text"] for message in client.messages if message.get("state") == "sentence_start"
    )


@pytest.mark.parametrize("one_each", [False, True], ids=["together", "one message per thing"])
async def test_things_are_found_and_used(tmp_path: Path, one_each: bool) -> None:
    things = IotThings()
    descriptors = things.descriptors()
    async with app(tmp_path, *SETTINGS) as (_, at), connect(at.ws) as client:
        await client.hello()
        for part in [[thing] for thing in descriptors] if one_each else [descriptors]:
            await client.say(type="iot", update=True, descriptors=part)
        await client.say(type="iot", update=True, states=things.states())
        assert await ask(client, things, "how is your battery") == "The battery is at 80 percent."
        assert await ask(client, things, "turn the volume to 30") == "The volume is now 30 percent."
        assert things.settings.volume == 30
        assert await ask(client, things, "louder") == "The volume is now 40 percent."
        assert await ask(client, things, "mute") == "I am silent now."
        assert await ask(client, things, "make the screen brighter") == "The brightness is now 85 percent."
        assert things.calls == [*["Speaker.SetVolume"] * 3, "Screen.SetBrightness"]
        assert things.faults == []


async def test_junk_is_survived(tmp_path: Path) -> None:
    things = IotThings()
    async with app(tmp_path, *SETTINGS) as (_, at), connect(at.ws) as client:
        await client.hello()
        for junk in (
            {"descriptors": [{}, {"name": "x"}, {"name": "y", "methods": {"m": {"parameters": [1]}}}]},
            {"descriptors": "none", "states": 3},
            {"states": [{"name": "z", "state": []}, {"state": {}}]},
            {},
        ):
            await client.say(type="iot", **junk)
        await client.say(type="iot", update=True, descriptors=things.descriptors(), states=things.states())
        assert await ask(client, things, "what is the volume") == "The volume is at 70 percent."
