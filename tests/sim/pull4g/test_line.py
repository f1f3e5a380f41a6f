"""Addresses, and connections that do not come about."""

from __future__ import annotations

import asyncio
import socket

import pytest

from mynah.sim.link import ConnectError
from mynah.sim.pull4g.line import Address, address_of, open_line
from mynah.wire import pull4g
from mynah.wire.pull4g import ServerEvent


class Listener:
    def __init__(self) -> None:
        self.events: list[ServerEvent] = []
        self.lost: list[str] = []

    def on_events(self, events: list[ServerEvent]) -> None:
        self.events += events

    def on_lost(self, why: str) -> None:
        self.lost.append(why)


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("tcp://host:5", Address("host", 5)),
        ("tcp://host", Address("host", 10002)),
        ("tls://1.2.3.4:5/", Address("1.2.3.4", 5, tls=True)),
        ("tcp://[::1]:5", Address("::1", 5)),
    ],
)
def test_addresses(url: str, address: Address) -> None:
    assert address_of(url) == address
    assert address_of(address.url) == address


@pytest.mark.parametrize(
    "url", ["", "host:5", "ws://host/", "tcp://", "tcp://host:0", "tcp://host:x", "tcp://h/p", "tcp://[::1"]
)
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(ConnectError, match="is no address of the 4G pull protocol"):
        address_of(url)


async def test_a_connection() -> None:
    said: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        said.append(await reader.readline())
        writer.write(pull4g.audio_start(False) + b"ab" + pull4g.audio_end(False))
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        listener = Listener()
        line = await open_line(Address("127.0.0.1", server.sockets[0].getsockname()[1]), listener)
        line.write(b"hello\n")
        while not listener.lost:
            await asyncio.sleep(0.01)
        assert line.closed
        line.write(b"nobody hears this\n")
        line.abort()
    assert said == [b"hello\n"]
    assert listener.events == [pull4g.AudioStart(), pull4g.Audio(b"ab"), pull4g.AudioEnd(final=False)]
    assert listener.lost == ["the server closed the connection"]


async def test_nobody_there() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(ConnectError, match="nothing listens at tcp://127"):
            await open_line(Address("127.0.0.1", taken.getsockname()[1]), Listener())


async def test_no_tls_there() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"who are you?\n")
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(ConnectError, match="TLS handshake failed: is it tcp:// there"):
            await open_line(Address("127.0.0.1", port, tls=True), Listener())
