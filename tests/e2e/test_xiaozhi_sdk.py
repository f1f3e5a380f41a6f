"""A client that we did not write, xiaozhi-sdk from PyPI, holds a conversation with the default server."""

from __future__ import annotations

import asyncio
import warnings
from pathlib import Path
from typing import Any

import pytest

from mynah.sim.voice import speak
from tests.servers import serve

pytestmark = [pytest.mark.e2e, pytest.mark.speech]

FRAME_BYTES = 16000 * 60 // 1000 * 2


async def send(client: Any, pcm: bytes) -> None:
    """Stream audio in real time, as a microphone would."""
    for start in range(0, len(pcm), FRAME_BYTES):
        await client.send_audio(pcm[start : start + FRAME_BYTES].ljust(FRAME_BYTES, b"\0"))
        await asyncio.sleep(0.06)


async def reply(heard: list[dict[str, Any]], client: Any) -> list[dict[str, Any]]:
    """Keep the microphone open until the reply is over; return its messages."""
    async with asyncio.timeout(30):
        while not any(m.get("type") == "tts" and m.get("state") == "stop" for m in heard):
            await send(client, bytes(FRAME_BYTES))
    messages = list(heard)
    heard.clear()
    return messages


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
async def test_conversation(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from xiaozhi_sdk import XiaoZhiWebsocket

    heard: list[dict[str, Any]] = []

    async def on_message(message: dict[str, Any]) -> None:
        heard.append(message)

    with serve(tmp_path, "server.auth.enabled=true") as server:
        client = XiaoZhiWebsocket(on_message, ota_url=server.ready["ota"], audio_sample_rate=16000)
        assert await client.init_connection("02:00:00:00:00:77")
        assert client.session_id

        await send(client, speak("what is twelve times seven"))
        messages = await reply(heard, client)
        assert [m["text"] for m in messages if m["type"] == "stt"] == ["what is twelve times seven"]
        assert any(m["type"] == "llm" and m["emotion"] for m in messages)
        states = [m["state"] for m in messages if m["type"] == "tts"]
        assert states[0] == "start" and states[-1] == "stop" and "sentence_start" in states
        assert len(client.output_audio_queue) > 5

        await client.send_text("tell me a joke")
        messages = await reply(heard, client)
        assert any(m.get("state") == "sentence_start" for m in messages)

        await client.send_text("how many feet are in a mile")
        async with asyncio.timeout(10):
            while not any(m.get("state") == "sentence_start" for m in heard):
                await asyncio.sleep(0.02)
        await client.send_abort()
        await reply(heard, client)
        await client.close()
