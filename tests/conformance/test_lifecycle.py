"""Points 62 to 67 of the device contract: how connections end, and how they stay."""

from __future__ import annotations

import asyncio
import base64
import os
import struct
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from mynah.engine import MAX_NO_VOICE_S
from mynah.net import devices
from tests.conformance.device import device, speech
from tests.servers import app


async def gone(server: object, count: int = 0) -> None:
    """Wait until the server knows only so many connections."""
    async with asyncio.timeout(5):
        while len(server.devices) != count:  # type: ignore[attr-defined]
            await asyncio.sleep(0.01)


def masked(first: int, payload: bytes) -> bytes:
    """Return one client frame."""
    mask = os.urandom(4)
    size = bytes([0x80 | len(payload)]) if len(payload) < 126 else b"\xfe" + struct.pack(">H", len(payload))
    return bytes([first]) + size + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(payload))


async def open_raw(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a WebSocket by hand, as a device that never answers Close."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    key = base64.b64encode(os.urandom(16)).decode()
    writer.write(
        f"GET {parts.path}?{parts.query} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
    )
    await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    return reader, writer


async def test_point_62_abrupt_loss_is_a_normal_end(tmp_path: Path) -> None:
    async with app(tmp_path) as (server, at), device(at.ws, "02:00:00:00:00:02") as other:
        await other.hello()
        for moment in ("hello", "listening", "speaking"):
            async with device(at.ws) as one:
                await one.hello()
                if moment == "listening":
                    await one.listen(mode="auto")
                    await one.audio(speech()[:5], pace=0.01)
                if moment == "speaking":
                    await one.listen("detect", text="tell me something")
                    await one.until("tts", "sentence_start")
                one.drop()
                await gone(server, 1)
        await other.alive()


async def test_point_63_closing_does_not_wait_for_an_answer_and_goes_on_reading(tmp_path: Path) -> None:
    async with app(tmp_path) as (_, at):
        reader, writer = await open_raw(at.ws)
        writer.write(masked(0x81, b'{"type":"goodbye"}'))
        asked = time.monotonic()
        header = await asyncio.wait_for(reader.readexactly(2), 5)
        assert header[0] == 0x88  # the server's Close; we never answer it
        await reader.readexactly(header[1])

        async def stream() -> None:
            while True:
                writer.write(masked(0x82, bytes(120)))
                await writer.drain()
                await asyncio.sleep(0.005)

        streaming = asyncio.create_task(stream())
        try:
            assert await asyncio.wait_for(reader.read(1), 5) == b""
        except ConnectionResetError:
            pass  # what TCP makes of the frames that were still under way
        assert time.monotonic() - asked < 3
        streaming.cancel()
        await asyncio.gather(streaming, return_exceptions=True)
        writer.close()


async def test_point_64_idle_and_silent_connections_are_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert MAX_NO_VOICE_S + devices.SWEEP_S < 110
    monkeypatch.setattr(devices, "SWEEP_S", 0.1)
    short = ("close_connection_no_voice_time=0.5", "TTS.FakeTTS.seconds=0.2")
    async with app(tmp_path, *short) as (_, at):
        async with device(at.ws) as idle:
            await idle.hello()
            await idle.wait(lambda: idle.closed, 5)
        async with device(at.ws) as listening:
            await listening.hello()
            await listening.listen(mode="auto")
            await listening.wait(lambda: listening.closed, 10)
            assert listening.messages("tts", "sentence_start")  # a farewell


async def test_point_65_websocket_pings_are_answered(tmp_path: Path) -> None:
    async with app(tmp_path) as (_, at):
        reader, writer = await open_raw(at.ws)
        payload = os.urandom(125)
        writer.write(masked(0x89, payload))
        header = await asyncio.wait_for(reader.readexactly(2), 5)
        assert header == bytes([0x8A, 125])
        assert await reader.readexactly(125) == payload
        writer.close()


async def test_point_66_clients_may_ping_all_the_time(tmp_path: Path) -> None:
    short = "TTS.FakeTTS.seconds=0.5"
    async with app(tmp_path, short) as (_, at), device(at.ws, heartbeat=0.05) as one:
        await one.hello()
        await one.listen("detect", text="tell me something")
        await one.until("tts", "stop", timeout_s=30)
        await one.alive()


@pytest.mark.parametrize("stage", ["ASR.FakeASR", "LLM.FakeLLM", "TTS.FakeTTS"])
async def test_point_67_work_for_a_dead_connection_is_cancelled(tmp_path: Path, stage: str) -> None:
    slow = (f"{stage}.hang=true", "timeouts.asr_s=60", "timeouts.llm_s=60", "timeouts.tts_s=60")
    async with app(tmp_path, *slow) as (server, at):
        before = asyncio.all_tasks()
        async with device(at.ws) as one:
            await one.hello()
            await one.listen(mode="manual")
            await one.audio(speech(), pace=0.005)
            await one.listen("stop")
            if not stage.startswith("ASR"):
                await one.until("tts", "start")
            await one.quiet(0.3)
            working = {task for task in asyncio.all_tasks() - before if "_guard" in repr(task.get_coro())}
            assert working
            one.drop()
            await gone(server)
        async with asyncio.timeout(5):
            while any(not task.done() for task in working):
                await asyncio.sleep(0.01)
