"""Points 23 to 32 of the device contract: the WebSocket handshake and the hellos."""

from __future__ import annotations

import asyncio
import base64
import os
import time
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest

from mynah.audio.opus import packet_duration_ms
from mynah.wire.frames import decode_audio, encode_audio
from mynah.wire.hello import FRAME_DURATIONS, SAMPLE_RATES
from tests.conformance.device import device, speech
from tests.servers import app

SHORT = "TTS.FakeTTS.seconds=0.3"


async def upgrade(url: str, *lines: str, host: str = "mynah") -> str:
    """Send a handshake made by hand; return the head of the answer."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    key = base64.b64encode(os.urandom(16)).decode()
    head = [
        f"GET {parts.path} HTTP/1.1",
        f"Host: {host}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {key}",
        *lines,
    ]
    writer.write(("\r\n".join(head) + "\r\n\r\n").encode())
    answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    writer.close()
    return answer.decode()


async def test_point_23_authorization_is_needed_only_where_it_is_asked_for(tmp_path: Path) -> None:
    async with app(tmp_path / "open") as (_, at):
        assert (await upgrade(at.ws)).startswith("HTTP/1.1 101")
    token = 'server.auth.tokens=[{"token": "right-token", "name": "kitchen"}]'
    async with app(tmp_path / "closed", "server.auth.enabled=true", token) as (_, at):
        for wrong in ((), ("Authorization: Bearer wrong",), ("Authorization: Bearer ",)):
            assert (await upgrade(at.ws, *wrong)).startswith("HTTP/1.1 401"), wrong
        assert (await upgrade(at.ws, "Authorization: Bearer right-token")).startswith("HTTP/1.1 101")


async def test_point_24_host_may_lack_its_port(tmp_path: Path) -> None:
    async with app(tmp_path) as (_, at):
        assert (await upgrade(at.ws, host="192.168.1.7")).startswith("HTTP/1.1 101")


async def test_point_25_nothing_is_negotiated_that_was_not_offered_or_required(tmp_path: Path) -> None:
    async with app(tmp_path) as (_, at):
        bare = (await upgrade(at.ws)).lower()
        offered = (await upgrade(at.ws, "Sec-WebSocket-Extensions: permessage-deflate")).lower()
        for answer in (bare, offered):  # no Origin, no subprotocol asked for
            assert answer.startswith("http/1.1 101")
            assert "sec-websocket-extensions" not in answer
            assert "sec-websocket-protocol" not in answer


async def test_point_26_the_answer_says_101(tmp_path: Path) -> None:
    async with app(tmp_path) as (_, at):
        assert (await upgrade(at.ws)).split("\r\n")[0].startswith("HTTP/1.1 101 ")


async def test_point_27_one_hello_and_soon(tmp_path: Path) -> None:
    async with app(tmp_path) as (_, at), device(at.ws) as one:
        asked = time.monotonic()
        await one.hello()
        assert time.monotonic() - asked < 5
        await one.say(type="hello", version=1, transport="websocket")
        await one.alive()
        assert len(one.messages("hello")) == 1


async def test_point_28_the_hello_says_everything(tmp_path: Path) -> None:
    async with app(tmp_path) as (_, at), device(at.ws) as one:
        hello = await one.hello()
        assert hello["type"] == "hello"
        assert hello["transport"] == "websocket"
        assert isinstance(hello["session_id"], str) and hello["session_id"]
        audio = hello["audio_params"]
        assert audio["format"] == "opus"
        assert audio["channels"] == 1
        assert isinstance(audio["sample_rate"], int) and isinstance(audio["frame_duration"], int)


async def test_point_29_audio_is_as_announced(tmp_path: Path) -> None:
    async with app(tmp_path, SHORT) as (_, at), device(at.ws) as one:
        audio = (await one.hello(audio_params={"sample_rate": 16000, "frame_duration": 20}))["audio_params"]
        assert audio["frame_duration"] in FRAME_DURATIONS
        assert audio["sample_rate"] in SAMPLE_RATES
        await one.listen("detect", text="tell me something")
        await one.until("tts", "stop")
        assert one.frames()
        assert max(packet_duration_ms(frame) for _, frame in one.frames()) <= audio["frame_duration"]


@pytest.mark.parametrize("header", ["1", "2", "3", None])
async def test_point_30_framing_follows_the_header_both_ways(tmp_path: Path, header: str | None) -> None:
    version = int(header or 1)
    async with (
        app(tmp_path, SHORT) as (_, at),
        device(at.ws, headers={"Protocol-Version": header or ""}) as one,
    ):
        await one.hello()
        await one.listen(mode="manual")
        await one.audio((encode_audio(version, packet) for packet in speech()), pace=0.01)
        await one.listen("stop")
        assert (await one.until("stt"))["text"]
        await one.until("tts", "stop")
        assert one.frames()
        for _, frame in one.frames():
            assert packet_duration_ms(decode_audio(version, frame).packet) == 60


async def test_point_31_a_newer_connection_replaces_the_older_undisturbed(tmp_path: Path) -> None:
    async with app(tmp_path, "TTS.FakeTTS.seconds=0.6") as (server, at), device(at.ws) as older:
        await older.hello()
        await older.listen("detect", text="tell me something")
        await older.until("tts", "sentence_start")
        async with device(at.ws) as newer:
            await newer.hello()
            await newer.listen("detect", text="and now me")
            await older.wait(lambda: older.closed, 5)
            await newer.until("tts", "stop")
            assert [m["state"] for m in newer.messages("tts") if m["state"] in {"start", "stop"}] == [
                "start",
                "stop",
            ]
            said = " ".join(m["text"] for m in newer.messages("tts", "sentence_start"))
            assert said.startswith("Sure, here") and said.endswith("everything for now.")
            await newer.alive()
            assert server.devices is not None
            assert len(server.devices) == 1


async def test_point_32_unknown_and_missing_features_are_accepted(tmp_path: Path) -> None:
    hellos = (
        {"type": "hello"},
        {"type": "hello", "version": 3, "transport": "websocket", "text_font": {"bundle": "x", "size": 20}},
        {"type": "hello", "features": {"glyph_push": False, "telepathy": {"range": 7}}, "extra": [1, 2]},
    )
    async with app(tmp_path) as (_, at), aiohttp.ClientSession():
        for hello in hellos:
            async with device(at.ws) as one:
                await one.say(**hello)
                assert (await one.until("hello"))["transport"] == "websocket"
