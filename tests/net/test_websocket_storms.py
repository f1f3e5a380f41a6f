"""Thousands of connections: what the kernel is told once for all, and what is left of them."""

from __future__ import annotations

import asyncio
import gc
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mynah.dialogue.session import Session
from mynah.net import websocket as module
from mynah.net.websocket import DeviceSocket, WebsocketServer
from tests.conformance.test_lifecycle import masked, open_raw
from tests.servers import app, connect

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="as Linux does it")


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def alive(*kinds: type) -> int:
    """Count them without looking for garbage."""
    return sum(isinstance(thing, kinds) for thing in gc.get_objects())


@LINUX
async def test_connections_inherit_keep_alive(tmp_path: Path) -> None:
    async with app(tmp_path) as (server, at), connect(at.ws) as device:
        await device.hello()
        assert server.devices is not None
        (link,) = server.devices._sessions
        assert link._transport is not None
        connected = link._transport.underlying_transport.get_extra_info("socket")
        assert connected.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 40
        assert connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@LINUX
async def test_the_kernel_holds_as_many_as_it_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listening: list[socket.socket] = []
    original = module.listening_socket

    def listen(host: str, port: int, key: str) -> socket.socket:
        listening.append(original(host, port, key))
        return listening[-1]

    monkeypatch.setattr(module, "listening_socket", listen)
    async with app(tmp_path):
        information = listening[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    allowed = int(Path("/proc/sys/net/core/somaxconn").read_text())
    (backlog,) = struct.unpack_from("I", information, 28)  # tcpi_sacked: of a listener, what its queue holds
    assert backlog == min(module.BACKLOG, allowed)


async def test_nothing_of_the_handshake_is_kept_but_what_is_asked_for(tmp_path: Path) -> None:
    async with app(tmp_path) as (server, at), connect(at.ws) as device:
        await device.hello()
        assert server.devices is not None
        (link,) = server.devices._sessions
        assert link._transport is not None
        assert not link._transport.request.headers
        assert set(link.peer.headers) == {"host"}
        assert link.peer.authorization is None


@pytest.mark.usefixtures("no_collector")
async def test_connections_are_freed_without_the_collector(tmp_path: Path) -> None:
    async with app(tmp_path) as (server, at):
        assert server.devices is not None
        before = alive(Session, DeviceSocket)
        for _ in range(10):
            reader, writer = await open_raw(at.ws)
            writer.write(masked(0x81, b'{"type":"hello"}'))
            await reader.readuntil(b'"hello"')
            writer.transport.abort()
        async with asyncio.timeout(10):
            while len(server.devices):
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        assert alive(Session, DeviceSocket) == before


@pytest.mark.usefixtures("no_collector")
async def test_so_are_conversations(tmp_path: Path) -> None:
    async with app(tmp_path, "TTS.FakeTTS.seconds=0.2") as (server, at):
        assert server.devices is not None
        before = alive(Session)
        for _ in range(2):
            async with connect(at.ws) as device:
                await device.hello()
                await device.say(type="listen", state="detect", text="tell me something")
                await device.until("tts", "stop")
        async with asyncio.timeout(10):
            while len(server.devices):
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        assert alive(Session) == before


async def test_many_that_go_at_once_are_all_gone_in_a_moment(tmp_path: Path) -> None:
    async with app(tmp_path) as (server, at):
        assert server.devices is not None
        writers = []
        for _ in range(150):
            reader, writer = await open_raw(at.ws)
            writer.write(masked(0x81, b'{"type":"hello"}'))
            await reader.readuntil(b'"hello"')
            writers.append(writer)
        assert isinstance(server._websocket, WebsocketServer)
        assert server._websocket.accepted == 150
        for writer in writers:
            writer.transport.abort()
        async with asyncio.timeout(10):
            while len(server.devices):
                await asyncio.sleep(0.01)
        assert not len(server._websocket._departures)
