"""Points 94 and 95 of the device contract: what 4G modems need."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import socket
import struct
from pathlib import Path
from urllib.parse import urlsplit

from tests.conformance.raw_http import BODY, MAC, ask, boot, named
from tests.servers import app

SEGMENT = 730
"""Payload of one hex-coded AT command of an ML307."""


async def test_point_94_canonical_header_names_and_small_heads(tmp_path: Path) -> None:
    (tmp_path / "firmware").mkdir()
    (tmp_path / "firmware" / "bread-compact-wifi_2.5.0.bin").write_bytes(b"\xe9" + b"x" * 5000)
    async with app(tmp_path, "server.binding=code") as (_, at):
        image = (await boot(at.ota))["firmware"]["url"]
        answers = [
            await ask(at.ota, BODY, headers=named()),
            await ask(at.ota, method="GET"),
            await ask(f"{at.ota}activate", {}, headers=named()),
            await ask(image, method="GET"),
            await ask(image, method="GET", headers={"Range": "bytes=10-19"}),
            await ask(f"{at.ota}download/none.bin", method="GET"),
            await ask(f"{at.ota}nothing", method="GET"),
        ]
        assert [answer.status for answer in answers] == [200, 200, 202, 200, 206, 404, 404]
        for answer in answers:
            assert len(answer.head) < 1024
            assert "Content-Length" in answer.headers
            for name in answer.headers:
                assert re.fullmatch(r"[A-Z][a-z]*(-[A-Z][a-z]*)*", name)


def masked(opcode: int, payload: bytes) -> bytes:
    mask = os.urandom(4)
    length = struct.pack("!BH", 0xFE, len(payload)) if len(payload) > 125 else bytes([0x80 | len(payload)])
    return bytes([0x80 | opcode]) + length + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(payload))


async def frame(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    first, length = await reader.readexactly(2)
    if length == 126:
        (length,) = struct.unpack("!H", await reader.readexactly(2))
    return first & 15, await reader.readexactly(length)


async def test_point_95_frames_split_anywhere(tmp_path: Path) -> None:
    async with app(tmp_path, "TTS.FakeTTS.seconds=0.2") as (_, at):
        padded = BODY | {"partition_table": [{"label": "x" * 3000}]}
        for segment in (SEGMENT, 1):
            body = padded if segment > 1 else BODY
            answer = await ask(at.ota, body, headers=named(), segment=segment)
            assert answer.json()["websocket"]["url"] == at.ws

        place = urlsplit(at.ws)
        reader, writer = await asyncio.open_connection(place.hostname, place.port)
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        async def send(data: bytes, segment: int) -> None:
            for start in range(0, len(data), segment):
                writer.write(data[start : start + segment])
                await writer.drain()
                await asyncio.sleep(0.002)

        handshake = (
            f"GET {place.path} HTTP/1.1\r\nHost: {place.hostname}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}\r\nSec-WebSocket-Version: 13\r\n"
            f"Protocol-Version: 1\r\nDevice-Id: {MAC}\r\nClient-Id: c\r\n\r\n"
        )
        hello = {"type": "hello", "version": 1, "transport": "websocket", "features": {"pad": "x" * 2000}}
        async with asyncio.timeout(20):
            await send(handshake.encode(), 7)
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101")
            await send(masked(1, json.dumps(hello).encode()), SEGMENT)
            assert json.loads((await frame(reader))[1])["type"] == "hello"
            said = {"type": "listen", "state": "detect", "text": "tell me something"}
            await send(masked(1, json.dumps(said).encode()), 1)
            kinds = set()
            while "stop" not in kinds:
                opcode, payload = await frame(reader)
                kinds.add("audio" if opcode == 2 else json.loads(payload).get("state"))
            assert "audio" in kinds
        writer.close()
