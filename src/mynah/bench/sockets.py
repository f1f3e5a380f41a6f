"""A WebSocket echo over real sockets on the loopback: the floor under everything a connection costs.

The server is a process of its own, so that its CPU time is not the client's.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator

import picows
import uvloop

from mynah.bench.report import Result, distribution
from mynah.errors import MynahError

_PAYLOAD = bytes(120)
"""A typical Opus packet."""
_ROUND_TRIPS = 5000
_WINDOW = 32
"""Frames on their way at once in the throughput measurement; TCP carries several per segment then."""
_FRAMES = 100_000


class _Echo(picows.WSListener):
    """Returns binary frames; answers text with the CPU time this process has used, in s."""

    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        if frame.msg_type is picows.WSMsgType.BINARY:
            transport.send(picows.WSMsgType.BINARY, frame.get_payload_as_bytes())
        elif frame.msg_type is picows.WSMsgType.TEXT:
            transport.send(picows.WSMsgType.TEXT, str(time.process_time()).encode())


class _Client(picows.WSListener):
    """Keeps a window of frames in flight and notes when they come back."""

    def __init__(self) -> None:
        self._transport: picows.WSTransport | None = None
        self._waiting: asyncio.Future[bytes] | None = None
        self._left = 0
        self._drained = asyncio.Event()

    def on_ws_connected(self, transport: picows.WSTransport) -> None:
        self._transport = transport

    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        if self._left > 0:
            self._left -= 1
            transport.send(picows.WSMsgType.BINARY, _PAYLOAD)
            if not self._left:
                self._drained.set()
        elif self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(frame.get_payload_as_bytes())

    async def ask(self, kind: picows.WSMsgType, payload: bytes) -> bytes:
        """Send one frame and return the answer."""
        assert self._transport is not None
        self._waiting = asyncio.get_running_loop().create_future()
        self._transport.send(kind, payload)
        return await self._waiting

    async def flood(self, frames: int) -> None:
        """Echo ``frames`` frames with a full window; returns when the last is on its way."""
        assert self._transport is not None
        self._left, self._drained = frames - _WINDOW, asyncio.Event()
        for _ in range(_WINDOW):
            self._transport.send(picows.WSMsgType.BINARY, _PAYLOAD)
        await self._drained.wait()

    def close(self) -> None:
        """Drop the connection."""
        assert self._transport is not None
        self._transport.disconnect()


def websocket() -> Iterator[Result]:
    """Round trips one by one, and the server's CPU time per frame under load."""
    command = [sys.executable, "-c", "from mynah.bench import sockets; sockets.serve()"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:  # noqa: S603 - ourselves
        try:
            assert server.stdout is not None
            port = server.stdout.readline().strip()
            if not port:
                raise MynahError("the echo server did not start")
            trips, cost = uvloop.run(_measure(int(port)))
        finally:
            server.terminate()
    yield distribution("websocket", "round trip, one at a time", "µs", trips)
    yield distribution("websocket", "echo, server's CPU", "µs/frame", [cost])


async def _measure(port: int) -> tuple[list[float], float]:
    _, client = await picows.ws_connect(_Client, f"ws://127.0.0.1:{port}/", read_buffer_init_size=2048)
    assert isinstance(client, _Client)
    trips: list[float] = []
    for _ in range(_ROUND_TRIPS):
        begin = time.perf_counter_ns()
        await client.ask(picows.WSMsgType.BINARY, _PAYLOAD)
        trips.append((time.perf_counter_ns() - begin) / 1000)
    before = float(await client.ask(picows.WSMsgType.TEXT, b""))
    await client.flood(_FRAMES)
    await asyncio.sleep(0.1)  # the last window
    after = float(await client.ask(picows.WSMsgType.TEXT, b""))
    client.close()
    return trips, (after - before) / _FRAMES * 1e6


async def _serve() -> None:
    server = await picows.ws_create_server(
        lambda _request: _Echo(), "127.0.0.1", 0, read_buffer_init_size=2048, enable_auto_pong=True
    )
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


def serve() -> None:
    """Be the echo server; the port is the only line on standard output."""
    uvloop.run(_serve())
