"""Who is connected: admission, silence, draining."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp
import pytest

from mynah.net import devices as module
from tests.conformance.test_lifecycle import masked, open_raw
from tests.servers import app, connect


async def test_a_full_server_refuses(tmp_path: Path) -> None:
    async with app(tmp_path, "server.limits.max_connections=1") as (_, at), connect(at.ws) as first:
        await first.hello()
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            async with connect(at.ws, "02:00:00:00:00:02"):
                pass
        assert refused.value.status == 503


async def test_silent_conversations_are_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SWEEP_S", 0.05)
    async with app(tmp_path, "close_connection_no_voice_time=0.2") as (server, at), connect(at.ws) as device:
        await device.hello()
        await device.until("close", timeout_s=3)
        assert device.close_code == 1000
        assert server.devices is not None
        async with asyncio.timeout(3):
            while len(server.devices):
                await asyncio.sleep(0.01)


async def test_draining_lets_a_reply_finish_and_admits_nobody(tmp_path: Path) -> None:
    short = 'TTS.FakeTTS={"type": "fake", "delay_ms": 10, "seconds": 0.2}'
    async with (
        app(tmp_path, short) as (server, at),
        connect(at.ws) as talking,
        connect(at.ws, "02:00:00:00:00:02") as idle,
    ):
        await talking.hello()
        await idle.hello()
        await talking.say(type="listen", state="detect", text="hi")
        await talking.until("tts", "start")
        assert server.devices is not None
        draining = asyncio.ensure_future(server.devices.drain(10))
        await idle.until("close", timeout_s=3)
        assert idle.close_code == 1001
        with pytest.raises(aiohttp.WSServerHandshakeError):
            async with connect(at.ws, "02:00:00:00:00:03"):
                pass
        await talking.until("tts", "stop")
        await talking.until("close", timeout_s=3)
        await asyncio.wait_for(draining, 3)


async def test_draining_does_not_wait_for_ever(tmp_path: Path) -> None:
    async with app(tmp_path) as (server, at), connect(at.ws) as talking:
        await talking.hello()
        await talking.say(type="listen", state="detect", text="hi")
        await talking.until("tts", "start")
        assert server.devices is not None
        await asyncio.wait_for(server.devices.drain(0.1), 4)
        await talking.until("close", timeout_s=3)


async def test_one_bad_session_does_not_end_the_sweeps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SWEEP_S", 0.05)
    async with app(tmp_path, "close_connection_no_voice_time=0.2") as (server, at):
        assert server.devices is not None
        async with connect(at.ws) as bad, connect(at.ws, "02:00:00:00:00:02") as good:
            await bad.hello()
            await good.hello()
            broken = next(iter(server.devices))
            loop = asyncio.get_running_loop()
            loop.set_exception_handler(lambda *_: None)
            with monkeypatch.context() as patch:
                patch.setattr(type(broken), "check_quiet", lambda self, now: 1 / 0)
                await asyncio.sleep(0.2)
            await good.until("close", timeout_s=3)
            await bad.until("close", timeout_s=3)
            loop.set_exception_handler(None)


async def test_a_full_server_lets_a_device_replace_itself(tmp_path: Path) -> None:
    async with app(tmp_path, "server.limits.max_connections=1") as (_, at), connect(at.ws) as older:
        await older.hello()
        async with connect(at.ws) as newer:
            await newer.hello()
            await older.until("close")


async def test_who_comes_back_all_the_time_does_not_pile_up_connections(tmp_path: Path) -> None:
    async with app(tmp_path, "server.limits.max_connections=5") as (server, at):
        assert server.devices is not None
        most = 0
        writers = []
        for _ in range(60):
            _, writer = await open_raw(at.ws + "?device-id=02:00:00:00:00:07")
            writers.append(writer)
            most = max(most, len(server.devices))
        assert most <= 4  # the new one, the one that is closing, and what TCP has not told yet
        for writer in writers:
            writer.close()


async def test_nobody_is_let_in_before_all_is_ready(tmp_path: Path) -> None:
    async with app(tmp_path) as (server, at):
        assert server.devices is not None
        server.devices._open = False
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            async with connect(at.ws):
                pass
        assert refused.value.status == 503


async def test_a_connection_that_is_being_closed_is_nobodys(tmp_path: Path) -> None:
    async with app(tmp_path) as (server, at):
        assert server.devices is not None
        reader, writer = await open_raw(at.ws + "?device-id=02:00:00:00:00:07")
        writer.write(masked(0x81, b'{"type":"hello"}'))
        await asyncio.wait_for(reader.readexactly(2), 5)
        assert server.devices.say("02:00:00:00:00:07", "tea")
        assert server.devices.disconnect("02:00:00:00:00:07")
        await asyncio.sleep(0.05)  # it never answers the close
        assert len(server.devices) == 1
        assert not list(server.devices)
        assert not server.devices.say("02:00:00:00:00:07", "tea")
        assert not server.devices.disconnect("02:00:00:00:00:07")
        writer.close()
