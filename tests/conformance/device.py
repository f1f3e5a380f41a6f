"""A device played by hand: it sends what a test says and keeps everything that comes back, with the time."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import time
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from mynah.audio.opus import OpusEncoder
from mynah.sim.voice import speak

FRAME_S = 0.06
FRAME_BYTES = 1920


@functools.cache
def speech(text: str = "What time is it?") -> tuple[bytes, ...]:
    """Return real speech as firmware sends it: 60 ms Opus packets, 16 kHz, DTX on."""
    return packets(speak(text))


def packets(pcm: bytes) -> tuple[bytes, ...]:
    """Encode 16 kHz s16le PCM as firmware does."""
    encoder = OpusEncoder(16000, 60, complexity=0, dtx=True)
    pcm += bytes(-len(pcm) % FRAME_BYTES)
    return tuple(encoder.encode(pcm[i : i + FRAME_BYTES]) for i in range(0, len(pcm), FRAME_BYTES))


@functools.cache
def silence(count: int = 20) -> tuple[bytes, ...]:
    """Return packets of a silent room; with DTX most of them have one to three bytes."""
    return packets(bytes(FRAME_BYTES * count))


@dataclass
class Device:
    """One connection. ``seen`` is all that came: (time, message as dict, or packet as bytes)."""

    socket: aiohttp.ClientWebSocketResponse
    seen: list[tuple[float, Any]] = field(default_factory=list)
    closed: bool = False
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def say(self, **message: Any) -> None:
        await self.socket.send_str(json.dumps(message))

    async def raw(self, text: str) -> None:
        await self.socket.send_str(text)

    async def hello(self, features: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
        await self.say(type="hello", version=1, transport="websocket", features=features or {}, **more)
        return await self.until("hello")

    async def audio(self, frames: Iterable[bytes], *, pace: float = FRAME_S) -> None:
        """Send frames as they are, in real time."""
        due = time.monotonic()
        for frame in frames:
            await self.socket.send_bytes(frame)
            due += pace
            await asyncio.sleep(due - time.monotonic())

    async def listen(self, state: str = "start", mode: str | None = None, **more: Any) -> None:
        await self.say(type="listen", state=state, **({"mode": mode} if mode else {}), **more)

    # -- reading

    def messages(self, kind: str = "", state: str | None = None) -> list[dict[str, Any]]:
        return [message for _, message in self.timed(kind, state)]

    def timed(self, kind: str = "", state: str | None = None) -> list[tuple[float, dict[str, Any]]]:
        return [
            (at, message)
            for at, message in self.seen
            if isinstance(message, dict)
            and (not kind or message["type"] == kind)
            and (state is None or message.get("state") == state)
        ]

    def frames(self) -> list[tuple[float, bytes]]:
        return [(at, frame) for at, frame in self.seen if isinstance(frame, bytes)]

    async def wait(self, condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
        async with asyncio.timeout(timeout_s):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def until(
        self, kind: str, state: str | None = None, *, count: int = 1, timeout_s: float = 10.0
    ) -> dict[str, Any]:
        """Wait until ``count`` messages of this type (and state) have come; return the last of them."""
        try:
            await self.wait(lambda: len(self.messages(kind, state)) >= count, timeout_s)
        except TimeoutError:
            story = [m if isinstance(m, dict) else "audio" for _, m in self.seen][-20:]
            raise AssertionError(
                f"no {kind} {state or ''} within {timeout_s} s; last seen: {story}"
            ) from None
        return self.messages(kind, state)[count - 1]

    async def quiet(self, seconds: float) -> list[Any]:
        """Wait a while and return what came meanwhile."""
        before = len(self.seen)
        await asyncio.sleep(seconds)
        return [what for _, what in self.seen[before:]]

    async def alive(self) -> None:
        """Check that the connection still works."""
        count = len(self.messages("pong"))
        await self.say(type="ping")
        await self.until("pong", count=count + 1)

    def drop(self) -> None:
        """Lose the connection as devices do: no close frame, only TCP."""
        transport = self.socket._response.connection.transport  # type: ignore[union-attr]
        transport.abort()  # type: ignore[union-attr]

    async def _read(self) -> None:
        async for received in self.socket:
            now = time.monotonic()
            if received.type is aiohttp.WSMsgType.BINARY:
                self.seen.append((now, received.data))
            elif received.type is aiohttp.WSMsgType.TEXT:
                self.seen.append((now, json.loads(received.data)))
            self._changed.set()
        self.closed = True
        self._changed.set()


@contextlib.asynccontextmanager
async def device(
    url: str, device_id: str = "02:00:00:00:00:01", headers: dict[str, str] | None = None, **options: Any
) -> AsyncIterator[Device]:
    """Connect as firmware does. ``headers`` replace the usual ones; None as a value leaves one out."""
    sent = {
        "Device-Id": device_id,
        "Client-Id": "11111111-2222-4333-8444-555555555555",
        "Protocol-Version": "1",
    }
    sent |= headers or {}
    async with (
        aiohttp.ClientSession() as http,
        http.ws_connect(url, headers={k: v for k, v in sent.items() if v}, **options) as socket,
    ):
        played = Device(socket)
        reading = asyncio.create_task(played._read())
        try:
            yield played
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
