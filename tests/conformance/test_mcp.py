"""Points 68 to 77 of the device contract: the device serves tools, the server is their client.

The language model is a small HTTP server in the test: it calls the tool that the user names, and keeps what it was
shown and told.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from mynah.tools import device_mcp
from tests.conformance.device import Device, device, silence, speech
from tests.servers import app
from tests.standins.openai_scenarios import Reply

Payload = dict[str, Any]
Answer = Callable[[Payload], "Payload | str | None"]

CAMERA = {
    "name": "self.camera.take_photo",
    "description": "Take a picture.",
    "inputSchema": {
        "type": "object",
        "properties": {"question": {"type": "string"}},
        "required": ["question"],
    },
}
VOLUME = {
    "name": "self.audio_speaker.set_volume",
    "description": "Set the volume.",
    "inputSchema": {
        "type": "object",
        "properties": {
            "volume": {"type": "integer", "minimum": 0, "maximum": 100},
            "fade": {"type": "boolean"},
        },
        "required": ["volume"],
    },
}
REBOOT = {
    "name": "self.reboot",
    "description": "Reboot.",
    "inputSchema": {"type": "object", "properties": {}},
    "annotations": {"audience": ["user"]},
}


class Model:
    """Speaks the chat-completions interface. "NAME {…}" from the user makes it call NAME with exactly that text."""

    def __init__(self) -> None:
        self.shown: list[dict[str, Any]] = []
        """The functions of the last request."""
        self.told: list[str] = []
        """What tools have answered."""

    async def complete(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.shown = [tool["function"] for tool in body.get("tools", [])]
        reply, last = Reply(request, body, 0, 1), body["messages"][-1]
        await reply.open()
        if last["role"] == "tool":
            self.told.append(last["content"])
            await reply.say(["That ", "is ", "done."])
            return await reply.close()
        words = last["content"].rpartition("\n\n")[2]  # behind the note of the time
        name, _, arguments = words.partition(" ")
        call = {"name": name, "arguments": arguments}
        await reply.delta({"tool_calls": [{"index": 0, "id": "c1", "type": "function", "function": call}]})
        return await reply.close("tool_calls")


@contextlib.asynccontextmanager
async def model() -> AsyncIterator[tuple[Model, str]]:
    """Run the model; the second value is its base URL."""
    found = Model()
    application = web.Application()
    application.router.add_post("/v1/chat/completions", found.complete)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield found, f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    finally:
        await runner.cleanup()


@dataclass
class Scene:
    """A device with MCP in front of a server with a model."""

    one: Device
    model: Model

    @property
    def asked(self) -> list[Payload]:
        """All that the server has asked the device."""
        return [message["payload"] for message in self.one.messages("mcp")]

    def of(self, method: str) -> list[dict[str, Any]]:
        return [payload["params"] for payload in self.asked if payload["method"] == method]

    async def use(self, name: str, arguments: str = "{}") -> str:
        """Have the model call a tool, hear the reply out, and return what the model was told."""
        stops, told = len(self.one.messages("tts", "stop")), len(self.model.told)
        await self.one.listen("detect", text=f"{name} {arguments}")
        await self.one.until("tts", "stop", count=stops + 1)
        assert len(self.model.told) == told + 1
        return self.model.told[-1]

    async def answer_all(self, answer: Answer, delay_s: Callable[[Payload], float]) -> None:
        for count in itertools.count(1):
            payload = (await self.one.until("mcp", count=count, timeout_s=60))["payload"]
            await asyncio.sleep(delay_s(payload))
            found = answer(payload)
            if isinstance(found, str):
                await self.one.raw(found)
            elif found is not None:
                await self.one.say(type="mcp", payload=found)


def result(payload: Payload, value: Any) -> Payload:
    return {"jsonrpc": "2.0", "id": payload["id"], "result": value}


def text(payload: Payload, words: str = "true") -> Payload:
    return result(payload, {"content": [{"type": "text", "text": words}], "isError": False})


def offering(*tools: dict[str, Any], call: Answer = text) -> Answer:
    """A device with these tools on one page; ``call`` answers ``tools/call``."""

    def answer(payload: Payload) -> Payload | str | None:
        if payload["method"] == "initialize":
            return result(payload, {"protocolVersion": "2024-11-05", "capabilities": {"tools": {}}})
        return result(payload, {"tools": list(tools)}) if payload["method"] == "tools/list" else call(payload)

    return answer


@contextlib.asynccontextmanager
async def scene(
    folder: Path, answer: Answer, *overrides: str, delay_s: Callable[[Payload], float] = lambda _: 0.0
) -> AsyncIterator[Scene]:
    async with model() as (found, url):
        settings = (
            "selected_module.Intent=function_call", "selected_module.LLM=TheModel", "LLM.TheModel.type=openai",
            f"LLM.TheModel.base_url={url}", "LLM.TheModel.model_name=any", "LLM.TheModel.api_key=sk-test",
            "TTS.FakeTTS.seconds=0.2", *overrides,
        )  # fmt: skip
        async with app(folder, *settings) as (_, at), device(at.ws) as one:
            played = Scene(one, found)
            answering = asyncio.create_task(played.answer_all(answer, delay_s))
            try:
                await one.hello({"mcp": True})
                yield played
                # The one who answers must not have failed unseen.
                assert not answering.done() or answering.result() is None
            finally:
                answering.cancel()
                await asyncio.gather(answering, return_exceptions=True)


async def known(found: Scene, count: int) -> list[str]:
    """Wait until the tools have been listed; return what the model is shown of the device's, after ``count`` lists."""
    await found.one.wait(lambda: len(found.of("tools/list")) >= count)
    await found.use("get_time")
    return [function["name"] for function in found.model.shown]


async def test_point_68_ids_are_positive_int32_and_unique(tmp_path: Path) -> None:
    async with scene(tmp_path, offering(VOLUME)) as found:
        for volume in range(5):
            assert await found.use("self_audio_speaker_set_volume", f'{{"volume": {volume}}}') == "true"
        ids = [payload["id"] for payload in found.asked]
        assert len(ids) == 7  # initialize, one list, five calls
        assert all(type(number) is int and 0 < number < 2**31 for number in ids)
        assert len(set(ids)) == len(ids)
        assert {payload["jsonrpc"] for payload in found.asked} == {"2.0"}


@pytest.mark.parametrize(
    ("spoilt", "told"),
    [
        (False, "no lens"),
        (True, 'Unknown tool: "lens"'),
    ],
)
async def test_point_69_errors_without_code_and_with_unescaped_text(
    tmp_path: Path, spoilt: bool, told: str
) -> None:
    def fail(payload: Payload) -> Payload | str:
        error = {"jsonrpc": "2.0", "id": payload["id"], "error": {"message": told}}
        whole = json.dumps({"session_id": "", "type": "mcp", "payload": error}, separators=(",", ":"))
        return whole.replace('\\"', '"') if spoilt else error

    async with scene(tmp_path, offering(CAMERA, call=fail)) as found:
        answer = await found.use("self_camera_take_photo", '{"question": "what is it"}')
        assert answer.startswith("Error: ")
        assert told in answer
        await found.one.alive()


async def test_point_70_pages_are_followed_to_the_last(tmp_path: Path) -> None:
    def answer(payload: Payload) -> Payload:
        cursor = payload["params"].get("cursor", "")
        page = int(cursor.removeprefix("self.t") or 0)
        more = {"nextCursor": f"self.t{page + 1}"} if page < 2 else {}
        return result(payload, {"tools": [{"name": f"self.t{page}", "description": "x"}], **more})

    async with scene(tmp_path, answer) as found:
        names = await known(found, 3)
        assert [params["cursor"] for params in found.of("tools/list")] == ["", "self.t1", "self.t2"]
        assert {"self_t0", "self_t1", "self_t2"} <= set(names)


async def test_point_70_endless_pages_end(tmp_path: Path) -> None:
    def answer(payload: Payload) -> Payload:
        page = int(payload["params"].get("cursor") or 0)
        return result(payload, {"tools": [{"name": f"self.t{page}"}], "nextCursor": str(page + 1)})

    async with scene(tmp_path, answer) as found:
        names = await known(found, 32)
        assert len(found.of("tools/list")) == 32
        assert "self_t31" in names


async def test_point_71_initialize_says_where_pictures_go(tmp_path: Path) -> None:
    async with scene(tmp_path, offering(CAMERA)) as found:
        await found.one.until("mcp")
        vision = found.of("initialize")[0]["capabilities"]["vision"]
        assert isinstance(vision["url"], str)
        assert vision["url"].startswith("http")
        assert isinstance(vision["token"], str)
        assert vision["token"]


async def test_point_72_calls_that_are_not_answered_time_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert device_mcp.CALL_TIMEOUT_S >= 35  # a camera waits up to 30 s for the answer to its picture
    monkeypatch.setattr(device_mcp, "CALL_TIMEOUT_S", 0.3)
    async with scene(tmp_path, offering(VOLUME, call=lambda _: None)) as found:
        told = await found.use("self_audio_speaker_set_volume", '{"volume": 3}')
        assert told == "Error: the device did not answer within 0.3 seconds"
        late = found.asked[-1]
        await found.one.say(type="mcp", payload=text(late, "too late"))
        await found.one.alive()


async def test_point_72_a_device_may_take_longer_than_a_plugin(tmp_path: Path) -> None:
    slow = offering(CAMERA, call=lambda payload: text(payload, "a cat"))

    def delay_s(payload: Payload) -> float:
        return 1.0 if payload["method"] == "tools/call" else 0.0

    async with scene(tmp_path, slow, "timeouts.tool_s=0.5", delay_s=delay_s) as found:
        assert await found.use("self_camera_take_photo", '{"question": "x"}') == "a cat"


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ('{"volume": "30"}', {"volume": 30}),
        ('{"volume": 30.0, "fade": "true"}', {"volume": 30, "fade": True}),
        ('{"Volume": 30, "unknown": 1, "fade": null}', {"volume": 30}),
        ('"{\\"volume\\": 30}"', {"volume": 30}),
    ],
)
async def test_point_73_arguments_have_the_exact_types_of_the_schema(
    tmp_path: Path, written: str, sent: dict[str, Any]
) -> None:
    async with scene(tmp_path, offering(VOLUME)) as found:
        assert await found.use("self_audio_speaker_set_volume", written) == "true"
        arguments = found.of("tools/call")[0]["arguments"]
        assert arguments == sent
        # In Python 30 == 30.0 and 1 == True; to a device they differ.
        assert {name: type(value) for name, value in arguments.items()} == {
            name: type(value) for name, value in sent.items()
        }


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ('{"volume": 300}', "integer from 0 to 100, not 300"),
        ('{"volume": "loud"}', "must be integer"),
        ('{"volume": 30.5}', "must be integer"),
        ("{}", "'volume' is missing"),
        ('{"volume": 3, "fade": "maybe"}', "'fade' must be boolean"),
    ],
)
async def test_point_73_what_does_not_fit_is_refused_before_the_device_is_asked(
    tmp_path: Path, written: str, told: str
) -> None:
    async with scene(tmp_path, offering(VOLUME)) as found:
        assert told in await found.use("self_audio_speaker_set_volume", written)
        assert found.of("tools/call") == []


async def test_point_74_tools_for_people_are_neither_shown_nor_called(tmp_path: Path) -> None:
    async with scene(tmp_path, offering(VOLUME, REBOOT)) as found:
        for name in ("self_reboot", "self.reboot"):
            assert "there is no tool named" in await found.use(name)
        assert found.of("tools/call") == []
        names = [function["name"] for function in found.model.shown]
        assert "self_audio_speaker_set_volume" in names
        assert not [name for name in names if "reboot" in name]
        assert found.of("tools/list")[0].get("withUserTools") is not True


async def test_point_75_names_with_dots_are_mapped_both_ways(tmp_path: Path) -> None:
    tools = ["self.a.b", "self.a_b", "灯.on", "x" * 100]
    answer = offering(
        *({"name": name, "description": "x"} for name in tools),
        call=lambda payload: text(payload, payload["params"]["name"]),
    )
    async with scene(tmp_path, answer) as found:
        names = (await known(found, 1))[-len(tools) :]  # after those of the server
        assert len(set(names)) == len(tools)
        assert all(re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name) for name in names)
        assert [await found.use(name) for name in names] == tools


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        ("It is warm.", "It is warm."),
        ('{"volume":70}', '{"volume":70}'),
        (json.dumps("It is warm."), "It is warm."),
        (json.dumps(json.dumps({"volume": 70})), '{"volume": 70}'),
        ("", ""),
    ],
)
async def test_point_76_texts_of_results_may_be_plain_or_json_once_or_twice(
    tmp_path: Path, sent: str, told: str
) -> None:
    async with scene(tmp_path, offering(CAMERA, call=lambda payload: text(payload, sent))) as found:
        assert await found.use("self_camera_take_photo", '{"question": "x"}') == told


async def test_point_76_a_picture_is_told_of_but_not_poured_into_the_model(tmp_path: Path) -> None:
    picture = json.dumps({"type": "image", "mimeType": "image/jpeg", "data": "/9j/" * 1000})
    content = {"content": [{"type": "image", "image": picture}], "isError": False}
    async with scene(tmp_path, offering(CAMERA, call=lambda payload: result(payload, content))) as found:
        told = await found.use("self_camera_take_photo", '{"question": "x"}')
        assert "image/jpeg" in told
        assert "/9j/" not in told


@pytest.mark.parametrize("mode", ["auto", "realtime"])
async def test_point_77_no_call_while_the_user_speaks(tmp_path: Path, mode: str) -> None:
    """A call holds up the device's microphone: it comes after the utterance, and the gap it makes ends nothing."""

    def delay_s(payload: Payload) -> float:
        return 0.8 if payload["method"] == "tools/call" else 0.0

    heard = 'ASR.FakeASR.text=self_audio_speaker_set_volume {"volume": 3}'
    async with scene(tmp_path, offering(VOLUME), heard, delay_s=delay_s) as found:
        one = found.one
        await one.listen(mode=mode)
        await one.audio(speech())
        await one.audio(silence(10))  # and then nothing: the device is busy with the call
        await one.until("tts", "stop")
        assert found.model.told == ["true"]
        kinds = [
            what["payload"]["method"] if what["type"] == "mcp" else what["type"]
            for _, what in one.seen
            if isinstance(what, dict)
        ]
        assert kinds.index("stt") < kinds.index("tools/call")
        assert kinds.count("tools/call") == 1
        assert len(one.messages("tts", "start")) == 1


async def test_messages_that_are_no_answers_are_ignored(tmp_path: Path) -> None:
    async with scene(tmp_path, offering(VOLUME)) as found:
        for payload in (
            {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"},
            {"jsonrpc": "2.0", "id": 1, "method": "sampling/createMessage", "params": {}},
            {"jsonrpc": "2.0", "id": 999, "result": {}},
            {"jsonrpc": "2.0", "id": "1", "result": {}},
            {},
        ):
            await found.one.say(type="mcp", payload=payload)
        await found.one.alive()
        assert await found.use("self_audio_speaker_set_volume", '{"volume": 3}') == "true"
