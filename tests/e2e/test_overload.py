"""A real server that has more to do than it can: who talks goes on, who comes hears so, and it recovers by itself."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from mynah.app import App
from mynah.console.terminal import Terminal
from mynah.dialogue.admission import Level
from mynah.texts import text
from tests.servers import Client, app, connect

pytestmark = pytest.mark.e2e

QUICK = (
    'TTS.FakeTTS={"type": "fake", "delay_ms": 10, "seconds": 0.3}',
    "server.overload.always=0",
    "language=en",
)


class Backlog:
    """Stands in for a queue whose workers do not keep up."""

    queue_age_s = 2.0


@contextlib.asynccontextmanager
async def blocked_loop() -> AsyncIterator[None]:
    """Let the event loop be late all the time."""

    async def block() -> None:
        while True:
            time.sleep(0.2)
            await asyncio.sleep(0.01)

    blocking = asyncio.create_task(block())
    try:
        yield
    finally:
        blocking.cancel()
        await asyncio.gather(blocking, return_exceptions=True)


async def until_level(server: App, level: Level) -> None:
    assert server.watch is not None
    async with asyncio.timeout(30):
        while server.watch.level is not level:
            await asyncio.sleep(0.02)


async def until_ready(server: App) -> None:
    """Wait until the phrases are prepared."""
    assert server._warming is not None
    await asyncio.wait_for(asyncio.shield(server._warming), 30)


def hasten(server: App) -> None:
    """Leave a level sooner than is good for people."""
    for relay in (server._engine.admission._full, server._engine.admission._tense):
        relay._calm_s = 0.5


async def asks(device: Client, words: str = "hi") -> list[str]:
    """Ask and return the sentences of the answer."""
    before = len(device.messages)
    await device.say(type="listen", state="detect", text=words)
    await device.until("tts", "stop", timeout_s=30)
    return [m["text"] for m in device.messages[before:] if m.get("state") == "sentence_start"]


async def hears_busy(device: Client) -> None:
    """Begin to talk, and be told that there is no room: in order, with sound, once."""
    before = len(device.messages)
    await device.say(type="listen", state="start", mode="auto")
    await device.until("close", timeout_s=30)
    assert device.close_code == 1013
    assert device.audio
    told = [(m["type"], m.get("state", ""), m.get("text", "")) for m in device.messages[before:]]
    words = text("busy", "en")
    assert [kind for kind, _, _ in told] == ["tts", "llm", "tts", "tts", "tts"]
    assert [item[1:] for item in told if item[0] == "tts"] == [
        ("start", ""),
        ("sentence_start", words),
        ("sentence_end", words),
        ("stop", ""),
    ]


async def test_a_late_event_loop(tmp_path: Path) -> None:
    async with app(tmp_path, *QUICK) as (server, at), connect(at.ws) as talking:
        assert server.devices is not None
        assert server.watch is not None
        hasten(server)
        await until_ready(server)
        await talking.hello()
        assert await asks(talking)
        async with blocked_loop():
            await until_level(server, Level.FULL)
            status = Terminal(server.devices, lambda: None, report=server.report).run("status")
            assert "load full (event loop)" in status
            async with connect(at.ws, "02:00:00:00:00:02") as newcomer:
                await newcomer.hello()
                await hears_busy(newcomer)
            assert text("busy", "en") not in await asks(talking)
            assert server._engine.admission.busy_total == 1
            assert server._engine._speculation.paused
        await until_level(server, Level.NORMAL)
        assert not server._engine._speculation.paused
        async with connect(at.ws, "02:00:00:00:00:02") as newcomer:
            await newcomer.hello()
            assert text("busy", "en") not in await asks(newcomer)


async def test_audio_that_is_not_encoded_in_time(tmp_path: Path) -> None:
    async with app(tmp_path, *QUICK) as (server, at), connect(at.ws) as newcomer:
        assert server.watch is not None
        await until_ready(server)
        await newcomer.hello()
        server.watch._encoding = Backlog()
        await until_level(server, Level.FULL)
        await hears_busy(newcomer)


async def test_switched_off_everybody_is_served(tmp_path: Path) -> None:
    off = "server.overload.enabled=false"
    async with app(tmp_path, *QUICK, off) as (server, at), connect(at.ws) as newcomer:
        assert server.watch is not None
        await newcomer.hello()
        server.watch._encoding = Backlog()
        await asyncio.sleep(1.0)
        assert server.watch.signals.encoding_s == 2.0
        assert text("busy", "en") not in await asks(newcomer)


async def test_more_connections_than_allowed(tmp_path: Path) -> None:
    bounds = ("server.limits.max_connections=2", "server.overload.reserve=1")
    async with (
        app(tmp_path, *QUICK, *bounds) as (server, at),
        connect(at.ws) as first,
        connect(at.ws, "02:00:00:00:00:02") as second,
    ):
        await until_ready(server)
        await first.hello()
        await second.hello()
        async with connect(at.ws, "02:00:00:00:00:03") as guest:
            await guest.hello()
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                async with connect(at.ws, "02:00:00:00:00:04"):
                    pass
            assert refused.value.status == 503
            await hears_busy(guest)
        assert text("busy", "en") not in await asks(first)
        assert server._engine.admission.busy_total == server._engine.admission.refused_total == 1


async def test_phrases_are_prepared_later_while_people_talk(tmp_path: Path) -> None:
    async with app(tmp_path, *QUICK) as (server, _):
        assert server.devices is not None
        services = server.devices._services
        await until_ready(server)
        server._engine.adjust(Level.TENSE)
        again = asyncio.create_task(server._engine.warm(services))
        await asyncio.sleep(0.2)
        assert not again.done()
        server._engine.adjust(Level.NORMAL)
        await asyncio.wait_for(again, 10)
