import asyncio
import itertools
from typing import Any

import msgspec
import pytest

from mynah.audio.pcm import level_dbfs
from mynah.sim.boot import BootPolicy
from mynah.sim.conversation import Conversation, Said, Target, Turn, converse, converse_live
from mynah.sim.device import Counters, Observer
from mynah.sim.discovery import DeviceIdentity
from mynah.sim.link import ConnectError
from mynah.wire.messages import ListenMode

from .scripted import Connection, ScriptedServer, packets, silent, tone
from .test_boot import OFFER, Codes, OtaServer

SPEECH = tone(0.3)


def listening_server(mode: str, answers: int = 1) -> Any:
    """Hears for a while (or until the button is released), then answers."""

    async def script(connection: Connection) -> None:
        await connection.hello()
        await connection.until("listen", state="start", mode=mode)
        for number in range(answers):
            if mode == "manual":
                if number:
                    await connection.until("listen", state="start", mode=mode)
                await connection.until("listen", state="stop")
            else:
                await connection.audio_frames(14)  # 0.24 s of room, 0.3 s of speech, 0.3 s of room
            await connection.answer(f"Answer {number}.", 4, stt=f"question {number}")
            if mode == "auto":
                await connection.until("listen", state="start", mode=mode)
        await connection.drain()

    return script


@pytest.mark.parametrize("mode", list(ListenMode))
@pytest.mark.parametrize("protocol", [1, 2, 3])
async def test_a_turn(mode: ListenMode, protocol: int) -> None:
    async with ScriptedServer(listening_server(mode.value), token="t").running() as server:
        target = Target(ota_url=server.ota_url, mode=mode, protocol=protocol, timeout_s=3)
        conversation = await converse(target, [Said("hello", SPEECH)])
    assert conversation.ok
    (turn,) = conversation.turns
    assert (turn.said, turn.stt, turn.answer, turn.emotion, turn.error) == (
        "hello",
        "question 0",
        "Answer 0.",
        "happy",
        "",
    )
    assert turn.audio_seconds == pytest.approx(0.24)
    assert conversation.counters == Counters()
    assert len(conversation.audio()) == 4 * 960 * 2
    assert level_dbfs(conversation.audio()) > -25
    stages = turn.stages
    assert list(stages) == ["stt", "tts_start", "first_audio", "complete"]
    assert stages["stt"] <= stages["tts_start"] < stages["first_audio"] < stages["complete"]
    assert turn.first_audio_ms == stages["first_audio"]
    silence_ms = 0 if mode is ListenMode.MANUAL else 300
    assert turn.first_audio_ms == pytest.approx(silence_ms + 40, abs=120)
    assert set(conversation.stages) == {"discover", "connect", "hello"}


async def test_several_turns_in_one_conversation() -> None:
    async with ScriptedServer(listening_server("auto", 2)).running() as server:
        target = Target(ws_url=server.ws_url, timeout_s=3)
        conversation = await converse(target, [Said("one", SPEECH), Said("two", SPEECH)])
    assert [(turn.said, turn.stt, turn.answer) for turn in conversation.turns] == [
        ("one", "question 0", "Answer 0."),
        ("two", "question 1", "Answer 1."),
    ]
    assert conversation.ok
    assert set(conversation.stages) == {"connect", "hello"}
    assert len(server.connections) == 1


async def test_messages_are_taken_down() -> None:
    async with ScriptedServer(listening_server("manual")).running() as server:
        target = Target(ws_url=server.ws_url, mode=ListenMode.MANUAL, timeout_s=3)
        conversation = await converse(target, [Said("hello", SPEECH)])
    seen = [msgspec.to_builtins(message) for message in conversation.messages]
    assert [(m["direction"], m["type"], m.get("state")) for m in seen] == [
        ("up", "hello", None),
        ("down", "hello", None),
        ("up", "listen", "start"),
        ("up", "listen", "stop"),
        ("down", "stt", None),
        ("down", "llm", None),
        ("down", "tts", "start"),
        ("down", "tts", "sentence_start"),
        ("down", "tts", "stop"),
    ]
    assert seen[2]["mode"] == "manual"
    assert seen[4]["text"] == "question 0"
    assert seen[5]["emotion"] == "happy"
    assert [m["at_ms"] for m in seen] == sorted(m["at_ms"] for m in seen)


async def test_typed_text() -> None:
    async def script(connection: Connection) -> None:
        await connection.hello()
        message = await connection.until("listen", state="detect")
        await connection.answer(f"You typed {message['text']}", 2, stt=None)
        message = await connection.until("listen", state="detect")
        await connection.answer("再见。", 2, stt=None)
        await connection.drain()

    async with ScriptedServer(script).running() as server:
        conversation = await converse(Target(ws_url=server.ws_url, timeout_s=3), [Said("one"), Said("two")])
    assert [turn.answer for turn in conversation.turns] == ["You typed one", "再见。"]
    assert server.connections[0].audio == []


async def test_sentences_are_joined_as_their_script_wants() -> None:
    async def script(connection: Connection) -> None:
        await connection.hello()
        await connection.until("listen")
        await connection.send("tts", state="start")
        await asyncio.sleep(0.03)
        for text in ("Hello.", "There.", "你好。", "再见。"):
            await connection.send("tts", state="sentence_start", text=text)
        await connection.send("tts", state="stop")
        await connection.drain()

    async with ScriptedServer(script).running() as server:
        conversation = await converse(Target(ws_url=server.ws_url, timeout_s=3), [Said("x")])
    assert conversation.turns[0].answer == "Hello. There.你好。再见。"


async def test_late_frames_are_counted() -> None:
    async def script(connection: Connection) -> None:
        await connection.hello()
        await connection.until("listen")
        await connection.send("tts", state="start")
        await asyncio.sleep(0.03)
        for packet in packets(3):
            await connection.send_audio(packet)
            await asyncio.sleep(0.1)
        await connection.send("tts", state="stop")
        await connection.drain()

    async with ScriptedServer(script).running() as server:
        conversation = await converse(Target(ws_url=server.ws_url, timeout_s=3), [Said("x")])
    assert conversation.turns[0].late_frames == 2


async def fails(script: Any, timeout_s: float = 0.2) -> Turn:
    async with ScriptedServer(script).running() as server:
        target = Target(ws_url=server.ws_url, mode=ListenMode.MANUAL, timeout_s=timeout_s)
        conversation = await converse(target, [Said("x"), Said("never said")])
    assert not conversation.ok
    (turn,) = conversation.turns
    return turn


async def test_no_answer() -> None:
    turn = await fails(silent)
    assert turn.error == "no answer came within 0.2 s"
    assert turn.first_audio_ms is None
    assert turn.stages == {}


async def test_an_answer_without_end() -> None:
    async def script(connection: Connection) -> None:
        await connection.hello()
        await connection.until("listen")
        await connection.send("tts", state="start")
        await connection.drain()

    assert (await fails(script)).error == "the answer did not end (no tts stop came) within 0.2 s"


async def test_an_empty_answer() -> None:
    async def script(connection: Connection) -> None:
        await connection.hello()
        await connection.until("listen")
        await connection.send("tts", state="start")
        await connection.send("tts", state="stop")
        await connection.drain()

    assert (await fails(script)).error == "the answer was empty"


async def test_the_server_hangs_up() -> None:
    async def script(connection: Connection) -> None:
        await connection.hello()
        await connection.until("listen")

    assert (await fails(script, 3)).error == "the server closed the connection before its answer was complete"


async def test_the_server_hangs_up_while_we_speak() -> None:
    async def script(connection: Connection) -> None:
        await connection.hello()
        await connection.audio_frames(2)

    async with ScriptedServer(script).running() as server:
        conversation = await converse(Target(ws_url=server.ws_url, timeout_s=3), [Said("x", tone(20))])
    assert "closed the connection" in conversation.turns[0].error


@pytest.mark.parametrize(
    ("ota", "reason"),
    [
        ({}, "names no WebSocket address"),
        ({"websocket": {"url": ""}}, "names no WebSocket address"),
        ({"mqtt": {"endpoint": "h"}, "websocket": {"url": "ws://h"}}, "devices prefer that to a WebSocket"),
        ({"activation": {"code": "123456", "message": "m", "challenge": "c"}}, "enter the code 123456"),
        ({"activation": {"challenge": "c"}}, "was not done within 0.3 s"),
    ],
)
async def test_no_address_from_discovery(ota: dict[str, Any], reason: str) -> None:
    async with ScriptedServer(silent, ota=ota).running() as server:
        with pytest.raises(ConnectError, match=reason):
            await converse(Target(ota_url=server.ota_url, timeout_s=0.3), [Said("x")])


@pytest.mark.parametrize(("announced", "wanted", "used"), [(3, None, "3"), (0, None, "1"), (3, 2, "2")])
async def test_the_framing_version_of_discovery(announced: int, wanted: int | None, used: str) -> None:
    server = ScriptedServer(silent, ota={})
    async with server.running():
        server._ota = {"websocket": {"url": server.ws_url, "token": "", "version": announced}}
        target = Target(
            ota_url=server.ota_url,
            protocol=wanted,
            timeout_s=0.1,
            identity=DeviceIdentity("02:00:00:00:00:09"),
        )
        await converse(target, [Said("x")])
    assert server.connections[0].headers["Protocol-Version"] == used
    assert server.connections[0].headers["Device-Id"] == "02:00:00:00:00:09"


async def test_live_conversation_until_the_server_hangs_up() -> None:
    async def script(connection: Connection) -> None:
        await connection.hello()
        await connection.until("listen", state="start", mode="auto")
        for number in range(2):
            await connection.audio_frames(2)
            await connection.answer(f"Answer {number}.", 2, stt=f"question {number}")
            await connection.until("listen", state="start", mode="auto")

    turns: list[Turn] = []
    async with ScriptedServer(script).running() as server:
        frames = itertools.cycle((tone(0.06), None))
        conversation = await asyncio.wait_for(
            converse_live(
                Target(ws_url=server.ws_url), lambda: next(frames), watcher=Observer(), on_turn=turns.append
            ),
            5,
        )
    assert [turn.answer for turn in turns] == ["Answer 0.", "Answer 1."]
    assert conversation.turns == turns


def test_no_turn_is_not_a_success() -> None:
    assert not Conversation().ok
    assert Conversation(turns=[Turn("x", ok=True)]).ok
    assert not Conversation(turns=[Turn("x", ok=True), Turn("y")]).ok


def test_what_cannot_be_decoded_is_silence() -> None:
    assert Conversation(played=[b"", *packets(1)], sample_rate=16000).audio() != b""


async def test_a_new_device_is_bound_while_it_waits() -> None:
    codes = Codes()
    async with ScriptedServer(listening_server("manual")).running() as server:
        ota = OtaServer(OFFER, {"websocket": {"url": server.ws_url}}, activations=(202, 200))
        async with ota.running() as url:
            policy = BootPolicy(attempts=1, unbound_s=0.01)
            target = Target(ota_url=url, mode=ListenMode.MANUAL, timeout_s=3, boot=policy)
            conversation = await converse(target, [Said("hello", SPEECH)], watcher=codes)
    assert conversation.ok
    assert codes.seen == [("123456", "Enter 123456")]
    assert len(ota.claims) == 2
