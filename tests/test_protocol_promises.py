"""What docs/protocol.md promises to people who write devices, against a running server: statuses, codes, order."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest

from mynah.audio.opus import OpusEncoder, packet_duration_ms
from mynah.net import websocket
from mynah.sim.voice import speak
from mynah.wire import json_dialect
from tests.servers import ROOT, Client, app, connect

PAGE = (ROOT / "docs" / "protocol.md").read_text("utf-8")
FRAME_BYTES = 16000 * 60 // 1000 * 2
AUTH = "server.auth.enabled=true"
SHORT = "TTS.FakeTTS.seconds=0.3"


def documented(heading: str) -> set[str]:
    """Return the numbers in code style that begin the rows of a section's tables."""
    text = PAGE.partition(f"# {heading}\n")[2]
    return set(
        re.findall(r"^\| `(\d+)` \|", re.split(r"^#", text, maxsplit=1, flags=re.MULTILINE)[0], re.MULTILINE)
    )


async def status(http: aiohttp.ClientSession, url: str, **headers: str) -> str:
    try:
        async with http.ws_connect(url, headers=headers):
            return "101"
    except aiohttp.WSServerHandshakeError as error:
        return str(error.status)


async def raw_status(url: str, target: str) -> str:
    place = urlsplit(url)
    reader, writer = await asyncio.open_connection(place.hostname, place.port)
    writer.write(
        f"GET {target} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n".encode()
    )
    line = await reader.readline()
    writer.close()
    return line.split()[1].decode()


async def test_refusals_are_those_documented(tmp_path: Path) -> None:
    seen = set()
    async with (
        app(tmp_path / "open", "server.limits.max_connections=1") as (_, place),
        connect(place.ws, "02:00:00:00:00:09"),
        aiohttp.ClientSession() as http,
    ):
        seen.add(await status(http, place.ws, **{"Device-Id": "02:00:00:00:00:08"}))
        assert seen == {"503"}
        seen.add(await status(http, place.ws.replace("/v1/", "/v9/")))
        async with http.get(place.ws.replace("ws:", "http:")) as answer:
            assert await answer.text() == "Server is running\n"
            seen.add(str(answer.status))
        seen.add(await raw_status(place.ws, "//["))
    async with app(tmp_path / "locked", AUTH) as (_, place), aiohttp.ClientSession() as http:
        seen.add(await status(http, place.ws))
    assert seen == documented("Refusals")


@pytest.mark.parametrize("by", ["header", "query", "bare"])
async def test_a_token_of_the_ota_address_opens_the_door(tmp_path: Path, by: str) -> None:
    ids = {"Device-Id": "02:00:00:00:00:07", "Client-Id": "c7"}
    async with app(tmp_path, AUTH) as (_, place), aiohttp.ClientSession() as http:
        async with http.post(place.ota, headers=ids) as answer:
            told = (await answer.json())["websocket"]
        assert set(told) == {"url", "token", "version"}
        # By the handed-out address, as a device does.
        if by == "query":
            url = f"{told['url']}?device-id={ids['Device-Id']}&client-id=c7&token={told['token']}"
            assert await status(http, url) == "101"
        else:
            prefix = "Bearer " if by == "header" else ""
            assert await status(http, told["url"], **ids, Authorization=prefix + told["token"]) == "101"
        stranger = ids | {"Device-Id": "02:00:00:00:00:08"}
        assert await status(http, told["url"], **stranger, Authorization=f"Bearer {told['token']}") == "401"


# ---------------------------------------------------------------- ends


async def goodbye(device: Client, _url: str) -> None:
    await device.say(type="goodbye")


async def newer_connection(device: Client, url: str) -> None:
    async with connect(url) as newer:
        await newer.hello()
        await device.until("close")


async def flood(device: Client, _url: str) -> None:
    try:
        for _ in range(websocket.FLOOD_UNITS + 1):
            await device.socket.send_bytes(b"\xf8\xff\xfe")
    except ConnectionError:
        pass  # the server has had enough


async def huge_message(device: Client, _url: str) -> None:
    await device.socket.send_str("x" * (2 << 20))


@pytest.mark.parametrize(
    ("end", "code"), [(goodbye, 1000), (newer_connection, 1000), (flood, 1008), (huge_message, 1009)]
)
async def test_close_codes_are_those_documented(tmp_path: Path, end: Any, code: int) -> None:
    async with app(tmp_path) as (_, place), connect(place.ws) as device:
        await device.hello()
        await end(device, place.ws)
        if device.close_code is None:
            await device.until("close")
        assert device.close_code == code
    assert str(code) in documented("Errors and close codes")


async def test_the_close_code_of_a_shutdown(tmp_path: Path) -> None:
    async with app(tmp_path) as (server, place), connect(place.ws) as device:
        await device.hello()
        stopping = asyncio.ensure_future(server.stop(drain_s=0.2))
        await device.until("close")
        await stopping
        assert device.close_code == 1001
    assert documented("Errors and close codes") == {"1000", "1001", "1008", "1009", "1013"}


JUNK: list[str | bytes] = [
    "", "{", "[]", "null", "7", '"hello"', '{"type":"unknown"}', '{"kind":"hello"}', '{"type":"listen"}',
    '{"type":"listen","state":"paused"}', '{"type":"listen","state":"start","mode":"loud"}',
    '{"type":"listen","state":"stop"}', '{"type":"mcp","payload":{"id":5,"result":{}}}', '{"type":"mcp"}',
    '{"type":"hello"}', "\ud7ff\x00", b"", b"\x00", b"\xff" * 9000, b"\xf8\xff\xfe",
]  # fmt: skip


@pytest.mark.parametrize("version", ["1", "2", "3"])
async def test_what_is_ignored_ends_nothing(tmp_path: Path, version: str) -> None:
    async with app(tmp_path) as (_, place), connect(place.ws, Protocol_Version=version) as device:
        await device.hello()
        for junk in JUNK:
            await (
                device.socket.send_bytes(junk) if isinstance(junk, bytes) else device.socket.send_str(junk)
            )
        await device.say(type="ping")
        await device.until("pong")
        assert [message["type"] for message in device.messages] == ["hello", "pong"]


# ---------------------------------------------------------------- replies


async def test_a_reply_keeps_its_promises(tmp_path: Path) -> None:
    """Points 2, 3 and 5 of "What a device may rely on"."""
    events: list[tuple[str, float]] = []
    async with app(tmp_path, SHORT) as (_, place), connect(place.ws, Protocol_Version="2") as device:
        answer = await device.hello()
        await device.say(type="listen", state="detect", text="tell me something")
        stamps = []
        while events[-1:] == [] or events[-1][0] != "stop":
            received = await device.socket.receive(10)
            if received.type is aiohttp.WSMsgType.BINARY:
                frame = received.data
                stamps.append(int.from_bytes(frame[8:12], "big"))
                assert packet_duration_ms(frame[16:]) == answer["audio_params"]["frame_duration"] == 60
                events.append(("audio", time.monotonic()))
            else:
                message = json.loads(received.data)
                events.append((message.get("state", message["type"]), time.monotonic()))
    kinds = [kind for kind, _ in events]
    assert kinds[:4] == ["stt", "start", "llm", "sentence_start"]
    assert (kinds.count("start"), kinds.count("stop"), kinds.count("llm")) == (1, 1, 1)
    assert kinds.count("sentence_start") == kinds.count("sentence_end") >= 2
    assert kinds[-2:] == ["sentence_end", "stop"]
    inside = False
    for kind in kinds[3:-1]:
        assert kind in ("audio", "sentence_start", "sentence_end")
        assert inside == (kind != "sentence_start")
        inside = kind != "sentence_end"
    assert stamps == [60 * (i + 1) for i in range(len(stamps))]
    times = [at for kind, at in events if kind == "audio"]
    # A late reader may find several packets at once, but none before its time.
    assert all(i * 0.06 - (at - times[0]) <= 8 * 0.06 for i, at in enumerate(times))
    assert events[-1][1] - times[0] >= (len(times) - 1) * 0.06


@pytest.mark.parametrize("mode", ["auto", "realtime", "manual"])
async def test_tts_start_waits_until_there_is_something_to_say(tmp_path: Path, mode: str) -> None:
    """Point 2: in auto and realtime mode; who has closed the microphone is told at once."""
    encoder = OpusEncoder(16000, 60)
    speech = await asyncio.to_thread(speak, "what is twelve times seven")
    pcm = speech + bytes(2 * FRAME_BYTES) if mode == "manual" else speech + bytes(25 * FRAME_BYTES)
    async with app(tmp_path, SHORT, "LLM.FakeLLM.delay_ms=1500") as (_, place), connect(place.ws) as device:
        await device.hello()
        await device.say(type="listen", state="start", mode=mode)
        for start in range(0, len(pcm) - FRAME_BYTES, FRAME_BYTES):
            await device.socket.send_bytes(encoder.encode(pcm[start : start + FRAME_BYTES]))
        if mode == "manual":
            await device.say(type="listen", state="stop")
        await device.until("stt")
        heard = time.monotonic()
        await device.until("tts", "start")
        waited = time.monotonic() - heard
        assert not device.audio
        await device.until("tts", "stop")
    assert device.audio
    assert (waited > 0.5) == (mode != "manual")


async def test_a_user_who_goes_on_is_answered_once_and_shown_all_of_it(tmp_path: Path) -> None:
    """Until `tts start` an utterance may go on; then there is another `stt` and one reply."""
    encoder = OpusEncoder(16000, 60)
    speech = await asyncio.to_thread(speak, "set a timer for five minutes")
    async with app(tmp_path, SHORT, "LLM.FakeLLM.delay_ms=1500") as (_, place), connect(place.ws) as device:
        await device.hello()
        await device.say(type="listen", state="start", mode="auto")
        for _ in range(2):
            pcm = speech + bytes(25 * FRAME_BYTES)
            for start in range(0, len(pcm) - FRAME_BYTES, FRAME_BYTES):
                await device.socket.send_bytes(encoder.encode(pcm[start : start + FRAME_BYTES]))
            await device.until("stt")
        await device.until("tts", "stop")
    kinds = [f"{m['type']} {m.get('state', '')}".strip() for m in device.messages]
    assert kinds[1:4] == ["stt", "stt", "tts start"]
    assert kinds.count("tts start") == 1
    first, second = (m["text"] for m in device.messages if m["type"] == "stt")
    assert second == f"{first} {first}"


@pytest.mark.parametrize("playing", [True, False])
async def test_abort_is_answered_by_a_stop_and_silence(tmp_path: Path, playing: bool) -> None:
    async with app(tmp_path) as (_, place), connect(place.ws) as device:
        await device.hello()
        if playing:
            await device.say(type="listen", state="detect", text="tell me something")
            await device.until("tts", "sentence_start")
        await device.say(type="abort")
        await device.until("tts", "stop")
        device.audio.clear()
        await device.say(type="ping")
        await device.until("pong")
        assert not device.audio
        assert device.messages[-1]["type"] == "pong"


async def test_a_wake_word_is_greeted_and_listening_follows(tmp_path: Path) -> None:
    encoder = OpusEncoder(16000, 60)
    async with app(tmp_path, SHORT) as (_, place), connect(place.ws) as device:
        await device.hello()
        for _ in range(33):
            await device.socket.send_bytes(encoder.encode(bytes(FRAME_BYTES)))
        await device.say(type="listen", state="detect", text="Hello, Mynah!")
        await device.say(type="listen", state="start", mode="auto")
        await device.until("tts", "stop")
        sentences = [m["text"] for m in device.messages if m.get("state") == "sentence_start"]
        assert sentences, "the listen start has not cut the greeting short"
        assert device.audio


# ---------------------------------------------------------------- the JSON dialect


@pytest.mark.parametrize("kind", ["opus", "pcm"])
async def test_a_conversation_in_the_json_dialect(tmp_path: Path, kind: str) -> None:
    encoder = OpusEncoder(16000, 60)
    speech = await asyncio.to_thread(speak, "what is twelve times seven")
    async with app(tmp_path, SHORT) as (_, place), connect(place.ws, device_id="") as device:
        await device.say(type="device_info", device_id="02:00:00:00:00:06", client_id="c6", version="1.4.0")
        ready = await device.until("session_ready")
        assert set(ready) == {"type", "session_id", "config"}
        assert set(ready["config"]) == {"vad_threshold", "max_audio_length"}
        await device.say(type="heartbeat", timestamp="noon")
        assert await device.until("heartbeat_ack") == {"type": "heartbeat_ack", "timestamp": "noon"}
        for start in range(0, len(speech) - FRAME_BYTES, FRAME_BYTES):
            pcm = speech[start : start + FRAME_BYTES]
            data = base64.b64encode(pcm if kind == "pcm" else encoder.encode(pcm)).decode()
            await device.say(type="audio", format=kind, sample_rate=16000, data=data)
        await device.say(type="audio", is_final=True)
        await device.until("tts", "stop")
    kinds = [f"{m['type']} {m.get('state', '')}".strip() for m in device.messages[2:]]
    assert kinds[:4] == ["stt", "tts start", "llm", "tts sentence_start"]
    assert kinds[-3:] == ["tts sentence_end", "tts_audio", "tts stop"]
    audio = [m for m in device.messages if m["type"] == "tts_audio"]
    assert [m["is_final"] for m in audio] == [False] * (len(audio) - 1) + [True]
    assert base64.b64decode(audio[-1]["data"]) == json_dialect.SILENCE
    assert all(packet_duration_ms(base64.b64decode(m["data"])) == 60 for m in audio[:-1])
    assert not device.audio, "no binary message in this dialect"


async def test_audio_as_the_first_message_chooses_the_dialect(tmp_path: Path) -> None:
    async with app(tmp_path) as (_, place), connect(place.ws) as device:
        await device.say(
            type="audio", format="pcm", data=base64.b64encode(bytes(FRAME_BYTES)).decode(), is_final=True
        )
        await device.say(type="listen", state="detect", text="tell me something")
        await device.until("tts_audio")
        assert not device.audio


# ---------------------------------------------------------------- activation


async def test_activation_goes_as_described(tmp_path: Path) -> None:
    ids = {"Device-Id": "02:00:00:00:00:05", "Client-Id": "c5"}
    async with app(tmp_path, AUTH, "server.binding=code") as (server, place), aiohttp.ClientSession() as http:

        async def ask() -> dict[str, Any]:
            async with http.post(place.ota, headers=ids) as answer:
                return await answer.json()

        async def activate(**body: str) -> int:
            async with http.post(place.ota + "activate", headers=ids, json=body) as answer:
                return answer.status

        told = await ask()
        assert told["websocket"]["token"] == ""
        assert set(told["activation"]) == {"code", "message", "challenge", "timeout_ms"}
        assert await status(http, told["websocket"]["url"], **ids) == "401"
        assert await activate() == 202
        assert server.bindings is not None
        server.bindings.bind(told["activation"]["code"])
        assert await activate(challenge="wrong") == 202
        assert await activate(challenge=told["activation"]["challenge"]) == 200
        assert await activate() == 200
        told = await ask()
        assert "activation" not in told
        token = f"Bearer {told['websocket']['token']}"
        assert await status(http, told["websocket"]["url"], **ids, Authorization=token) == "101"


# ---------------------------------------------------------------- the program shown


async def test_the_text_client_runs(tmp_path: Path) -> None:
    async with app(tmp_path, AUTH, SHORT) as (_, place):
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(ROOT / "examples" / "text_client.py"), place.ota, "tell me something", "and more",
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, errors = await asyncio.wait_for(process.communicate(), 60)
    lines = out.decode().splitlines()
    assert not errors
    assert process.returncode == 0
    assert lines[0] == "> tell me something"
    assert lines[1].startswith("< ")
    heard = [int(count) for count in re.findall(r"\((\d+) packets", out.decode())]
    assert len(heard) == 2
    assert all(count > 5 for count in heard)
