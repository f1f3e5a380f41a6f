"""A server that does exactly what a test tells it to, sound or not."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import numpy as np
from aiohttp import WSMsgType, web

from mynah.audio.opus import OpusEncoder
from mynah.wire.frames import encode_audio
from mynah.wire.hello import protocol_version

HELLO = {
    "type": "hello",
    "transport": "websocket",
    "session_id": "s1",
    "audio_params": {"format": "opus", "sample_rate": 16000, "channels": 1, "frame_duration": 60},
}


def tone(seconds: float, rate: int = 16000) -> bytes:
    """A loud tone, which the simulator takes for speech."""
    t = np.arange(round(seconds * rate)) / rate
    return (8000 * np.sin(2 * np.pi * 300 * t)).astype("<i2").tobytes()


def packets(count: int, rate: int = 16000, frame_ms: int = 60) -> list[bytes]:
    encoder = OpusEncoder(rate, frame_ms)
    frame = tone(frame_ms / 1000, rate)
    return [encoder.encode(frame) for _ in range(count)]


class Connection:
    """The server's end of one WebSocket."""

    def __init__(self, socket: web.WebSocketResponse, request: web.Request) -> None:
        self.socket = socket
        self.headers = request.headers
        self.protocol = protocol_version(request.headers.get("Protocol-Version"))
        self.audio: list[bytes] = []
        self.received: list[dict[str, Any]] = []

    async def send(self, kind: str, **fields: Any) -> None:
        await self.socket.send_str(json.dumps({"type": kind, "session_id": "s1", **fields}))

    async def send_audio(self, packet: bytes) -> None:
        await self.socket.send_bytes(encode_audio(self.protocol, packet))

    async def hello(self, **changed: Any) -> dict[str, Any]:
        """Take the device's hello and answer it."""
        message = await self.until("hello")
        await self.socket.send_str(json.dumps({**HELLO, **changed}))
        return message

    async def next(self) -> dict[str, Any]:
        """The next JSON message; audio on the way is kept in `audio`."""
        while True:
            frame = await self.socket.receive()
            if frame.type is WSMsgType.TEXT:
                message: dict[str, Any] = json.loads(frame.data)
                self.received.append(message)
                return message
            if frame.type is WSMsgType.BINARY:
                self.audio.append(frame.data)
            else:
                raise ConnectionError(frame.type)

    async def until(self, kind: str, **fields: Any) -> dict[str, Any]:
        while True:
            message = await self.next()
            if message["type"] == kind and all(message.get(k) == v for k, v in fields.items()):
                return message

    async def audio_frames(self, count: int) -> None:
        """Wait until so many more audio frames have come."""
        target = len(self.audio) + count
        while len(self.audio) < target:
            frame = await self.socket.receive()
            if frame.type is WSMsgType.BINARY:
                self.audio.append(frame.data)
            elif frame.type is WSMsgType.TEXT:
                self.received.append(json.loads(frame.data))
            else:
                raise ConnectionError(frame.type)

    async def answer(self, text: str, count: int = 5, *, stt: str | None = "what was said") -> None:
        """Say something, the way a sound server does: a lead of three packets, then in real time."""
        if stt is not None:
            await self.send("stt", text=stt)
        await self.send("llm", emotion="happy", text="🙂")
        await self.send("tts", state="start")
        await asyncio.sleep(0.04)
        await self.send("tts", state="sentence_start", text=text)
        loop = asyncio.get_running_loop()
        started = loop.time()
        for number, packet in enumerate(packets(count)):
            await asyncio.sleep(started + max(0, number - 3) * 0.06 - loop.time())
            await self.send_audio(packet)
        await asyncio.sleep(started + count * 0.06 - loop.time())
        await self.send("tts", state="stop")

    async def drain(self) -> None:
        """Read until the device hangs up."""
        with contextlib.suppress(ConnectionError):
            while True:
                await self.next()


Script = Callable[[Connection], Awaitable[None]]


class ScriptedServer:
    """OTA and WebSocket on one free port."""

    def __init__(self, script: Script, *, token: str = "", ota: dict[str, Any] | None = None) -> None:
        self._script, self._token, self._ota = script, token, ota
        self.ota_requests: list[tuple[dict[str, str], dict[str, Any]]] = []
        self.connections: list[Connection] = []
        self.failures: list[BaseException] = []
        self.ws_url = self.ota_url = ""

    async def _on_ota(self, request: web.Request) -> web.Response:
        self.ota_requests.append((dict(request.headers), await request.json()))
        reply = self._ota
        if reply is None:
            reply = {"websocket": {"url": self.ws_url, "token": self._token, "version": 1}}
        return web.json_response(reply)

    async def _on_websocket(self, request: web.Request) -> web.StreamResponse:
        if self._token and request.headers.get("Authorization") != f"Bearer {self._token}":
            return web.Response(status=401, text="presented no token\nor a wrong one")
        socket = web.WebSocketResponse(autoclose=False, compress=False, timeout=0.1)
        await socket.prepare(request)
        connection = Connection(socket, request)
        self.connections.append(connection)
        try:
            await self._script(connection)
        except ConnectionError:
            pass
        except BaseException as error:
            self.failures.append(error)
            raise
        finally:
            await socket.close()
        return socket

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[ScriptedServer]:
        app = web.Application()
        app.router.add_post("/ota/", self._on_ota)
        app.router.add_get("/ws", self._on_websocket)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        self.ws_url, self.ota_url = f"ws://127.0.0.1:{port}/ws", f"http://127.0.0.1:{port}/ota/"
        try:
            yield self
        finally:
            await runner.cleanup()
        assert not self.failures

    @contextlib.contextmanager
    def in_thread(self) -> Iterator[ScriptedServer]:
        """Run on a loop of its own, for code that brings its own loop too."""
        ready, stop = threading.Event(), asyncio.Event()
        loop = asyncio.new_event_loop()

        async def main() -> None:
            async with self.running():
                ready.set()
                await stop.wait()

        thread = threading.Thread(target=lambda: loop.run_until_complete(main()))
        thread.start()
        assert ready.wait(5)
        try:
            yield self
        finally:
            loop.call_soon_threadsafe(stop.set)
            thread.join(5)
            loop.close()


async def silent(connection: Connection) -> None:
    """Say hello and nothing else."""
    await connection.hello()
    await connection.drain()
