"""What of a reply has arrived at the other end, whatever became of the connection: over real sockets."""

from __future__ import annotations

import asyncio
import itertools
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import pytest

from mynah.net.pull_line import HIGH_WATER, MAX_QUEUED_BYTES, PullLine
from mynah.wire.pull4g import Audio, DeviceStream
from tests.certificates import write_certificate

CHUNK = 1920


class Server(asyncio.Protocol):
    """A connection that does nothing by itself, and asks at its end what had arrived."""

    def __init__(self) -> None:
        self.arrived = -1
        self.pauses = 0
        self.lost = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.line = PullLine(cast(asyncio.Transport, transport), lambda: None)

    def pause_writing(self) -> None:
        self.pauses += 1
        self.line.full = True

    def resume_writing(self) -> None:
        self.line.full = False

    def connection_lost(self, exc: Exception | None) -> None:
        self.arrived = self.line.arrived()
        self.lost.set()


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def reply(count: int) -> list[bytes]:
    return [struct.pack("<H", number) * (CHUNK // 2) for number in range(count)]


@asynccontextmanager
async def connected(receive: int = 0) -> AsyncIterator[tuple[Server, socket.socket]]:
    """A connection whose other end takes ``receive`` bytes before it is full; 0: as usual."""
    loop = asyncio.get_running_loop()
    made: asyncio.Future[Server] = loop.create_future()

    def factory() -> Server:
        server = Server()
        loop.call_soon(made.set_result, server)
        return server

    listening = socket.create_server(("127.0.0.1", 0))
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, 16384)
    if receive:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
    server = await loop.create_server(factory, sock=listening)
    sock = socket.socket()
    if receive:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
    sock.setblocking(False)
    await loop.sock_connect(sock, listening.getsockname())
    try:
        yield await asyncio.wait_for(made, 5), sock
    finally:
        sock.close()
        server.close()


async def receive(sock: socket.socket, count: int) -> bytes:
    data = b""
    async with asyncio.timeout(5):
        while len(data) < count:
            data += await asyncio.get_running_loop().sock_recv(sock, count - len(data))
    return data


@pytest.mark.parametrize("end", ["reset", "fin", "abort"])
@pytest.mark.parametrize("framed", [False, True])
async def test_what_has_arrived_is_known_when_all_has(end: str, framed: bool) -> None:
    async with connected() as (server, sock):
        line = server.line
        line.framed = framed
        whole = b"".join(reply(10))
        for number, chunk in enumerate(reply(10), 1):
            line.write_audio(chunk, number * CHUNK)
        got = await receive(sock, len(whole) + (40 if framed else 0))
        if framed:
            assert [event.data for event in DeviceStream().feed(got) if isinstance(event, Audio)] == reply(10)
        else:
            assert got == whole
        await asyncio.sleep(0.1)  # its acknowledgement
        assert line.arrived() == len(whole)
        if end == "abort":
            line.transport.abort()
        elif end == "fin":
            sock.close()
        else:
            reset(sock)
        await asyncio.wait_for(server.lost.wait(), 5)
        assert server.arrived == len(whole)


@pytest.mark.parametrize("end", ["reset", "abort"])
@pytest.mark.parametrize("framed", [False, True])
async def test_what_waited_when_it_broke_off_has_not_arrived(end: str, framed: bool) -> None:
    """Also not what waited in this process: no transport tells that any more when its connection is gone."""
    async with connected(receive=4096) as (server, sock):
        line = server.line
        line.framed = framed
        for number, chunk in enumerate(reply(200), 1):
            line.write_audio(chunk, number * CHUNK)
        assert server.pauses == 1
        await receive(sock, 5000)
        await asyncio.sleep(0.2)  # until the other end's kernel is full again
        waits = line.transport.get_write_buffer_size()
        assert waits > 200_000
        if end == "reset":
            reset(sock)
        else:
            line.transport.abort()
        await asyncio.wait_for(server.lost.wait(), 5)
        assert 5000 - CHUNK <= server.arrived <= 200 * CHUNK - waits + 200 * 4
        if framed:
            assert server.arrived % CHUNK == 0, "half a frame is none"


async def test_the_other_end_has_read_exactly_what_counts_as_arrived() -> None:
    async with connected(receive=4096) as (server, sock):
        line = server.line
        chunks = itertools.cycle(reply(100))
        end = 0
        sent = b""
        while not line.full:
            chunk = next(chunks)
            end += len(chunk)
            sent += chunk
            line.write_audio(chunk, end)
        line.transport.abort()
        await asyncio.wait_for(server.lost.wait(), 5)
        got = b""
        while data := await asyncio.get_running_loop().sock_recv(sock, 65536):
            got += data
        assert sent.startswith(got)
        assert server.arrived <= len(got)


async def test_a_line_that_ends_takes_no_more_and_counts_nothing_as_sent() -> None:
    async with connected() as (server, sock):
        line = server.line
        line.write_audio(bytes(100), 100)
        await receive(sock, 100)
        await asyncio.sleep(0.1)
        assert not line.full
        line.close()
        assert line.full
        line.write(b"nothing")
        await asyncio.wait_for(server.lost.wait(), 5)
        assert server.arrived == 100


async def test_offsets_begin_anew_with_each_reply() -> None:
    async with connected() as (server, sock):
        line = server.line
        assert line.arrived() == 0
        line.write_audio(bytes(500), 500)
        await receive(sock, 500)
        line.begin_reply()
        assert line.arrived() == 0
        line.write(b"AUDIO_START\n")
        line.write_audio(bytes(300), 300)
        await receive(sock, 312)
        await asyncio.sleep(0.1)
        assert line.arrived() == 300
        assert line.arrived() == 300


async def test_who_reads_nothing_is_cut_off() -> None:
    async with connected(receive=4096) as (server, _):
        for _ in range(MAX_QUEUED_BYTES // 1000 + 200):
            server.line.write(bytes(1000))
        await asyncio.wait_for(server.lost.wait(), 5)
        assert server.pauses == 1
        assert HIGH_WATER < MAX_QUEUED_BYTES


async def test_with_tls_less_may_count_as_arrived_but_never_more(tmp_path: Path) -> None:
    cert, key = write_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    loop = asyncio.get_running_loop()
    made: asyncio.Future[Server] = loop.create_future()

    class Tls(Server):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            made.set_result(self)

    listening = await loop.create_server(Tls, "127.0.0.1", 0, ssl=context)
    port = listening.sockets[0].getsockname()[1]
    client = ssl.create_default_context(cafile=str(cert))
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client)
    server = await asyncio.wait_for(made, 5)
    count = 40
    for number, chunk in enumerate(reply(count), 1):
        server.line.write_audio(chunk, number * CHUNK)
    await asyncio.wait_for(reader.readexactly(count * CHUNK), 5)
    await asyncio.sleep(0.1)
    assert count * CHUNK * 0.85 <= server.line.arrived() <= count * CHUNK
    writer.transport.abort()
    await asyncio.wait_for(server.lost.wait(), 5)
    assert count * CHUNK * 0.85 <= server.arrived <= count * CHUNK
    listening.close()
