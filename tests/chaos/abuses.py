"""What hostile, broken and unlucky clients do. Each abuse is a coroutine that takes an `Attacker`.

``scale`` 1 is what the test suite can afford; `make abuse` uses more.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from random import Random
from urllib.parse import urlsplit

from tests.fuzz.mutations import Shape, mutate
from tests.fuzz.samples import (
    BINARY,
    CLOSE,
    CONTINUATION,
    DEVICE_MESSAGES,
    OTA_REQUESTS,
    PING,
    TEXT,
    connections,
    handshake,
    opus_packets,
    websocket_frame,
)

HELLO = websocket_frame(TEXT, b'{"type":"hello","version":1,"transport":"websocket"}')
PACKET = opus_packets()[10]
POLICY_VIOLATION = 1008


class Connection:
    """One TCP connection of an attacker."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._loop = asyncio.get_running_loop()

    async def send(self, data: bytes) -> bool:
        """Send; False when the server has hung up."""
        try:
            await self._loop.sock_sendall(self.sock, data)
        except OSError:
            return False
        return True

    async def receive(self, timeout_s: float = 2.0) -> bytes:
        """Return what comes next; empty at the end of the connection, or when nothing comes in time."""
        try:
            async with asyncio.timeout(timeout_s):
                return await self._loop.sock_recv(self.sock, 1 << 16)
        except OSError:  # a time-out is one
            return b""

    async def close_code(self, timeout_s: float = 5.0) -> int | None:
        """Read on to the close frame, and return its code; None when there was none."""
        read = b""
        while piece := await self.receive(timeout_s):
            read = (read + piece)[-4096:]
        at = read.rfind(bytes((CLOSE,)))
        return int.from_bytes(read[at + 2 : at + 4], "big") if 0 <= at <= len(read) - 4 else None

    async def ended(self, timeout_s: float) -> bool:
        """Whether the server hangs up within this time."""
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout_s
        while (left := until - loop.time()) > 0:
            if not await self.receive(left):
                return loop.time() < until
        return False


class Attacker:
    """Where to and how much."""

    def __init__(self, ws_url: str, ota_url: str, scale: float = 1.0, seed: int = 0) -> None:
        self._ws, self._ota = urlsplit(ws_url), urlsplit(ota_url)
        self.scale = scale
        self.random = Random(seed)
        self.notes: list[str] = []
        """What the server should have done and did not."""
        self._next_id = 0

    def times(self, number: int) -> int:
        return max(1, round(number * self.scale))

    def expect(self, truth: bool, what: str) -> None:
        if not truth:
            self.notes.append(what)

    @contextlib.asynccontextmanager
    async def tcp(self, *, http: bool = False, receive_buffer: int = 0) -> AsyncIterator[Connection]:
        """Open a TCP connection; it is reset at the end, so that nothing lingers."""
        address = self._ota if http else self._ws
        with socket.socket() as sock:
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
            if receive_buffer:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            await asyncio.get_running_loop().sock_connect(sock, (address.hostname, address.port))
            yield Connection(sock)

    @contextlib.asynccontextmanager
    async def device(
        self, device_id: str = "", *, hello: bool = True, receive_buffer: int = 0
    ) -> AsyncIterator[Connection]:
        """Open a WebSocket and, if wanted, say hello. Every device has its own id."""
        self._next_id += 1
        told = device_id or f"06:00:00:00:{self._next_id >> 8 & 255:02x}:{self._next_id & 255:02x}"
        async with self.tcp(receive_buffer=receive_buffer) as connection:
            await connection.send(handshake(more=f"Device-Id: {told}\r\n"))
            answer = await connection.receive(10)
            self.expect(answer.startswith(b"HTTP/1.1 101"), f"a good handshake was answered {answer[:40]!r}")
            if hello:
                await connection.send(HELLO)
                await connection.receive(10)
            yield connection


Abuse = Callable[[Attacker], Awaitable[None]]
ABUSES: dict[str, Abuse] = {}


def abuse(function: Abuse) -> Abuse:
    ABUSES[function.__name__] = function
    return function


async def together(jobs: Iterable[Awaitable[None]], at_once: int = 50) -> None:
    """Run many, some at once."""
    gate = asyncio.Semaphore(at_once)

    async def run(job: Awaitable[None]) -> None:
        async with gate:
            await job

    await asyncio.gather(*(run(job) for job in jobs))


# ---------------------------------------------------------------- broken input


@abuse
async def truncated_frames(attacker: Attacker) -> None:
    """Connections that end in the middle of a frame, or of the handshake."""

    async def one() -> None:
        data = attacker.random.choice(connections()).data
        async with attacker.tcp() as connection:
            await connection.send(data[: attacker.random.randrange(len(data))])

    await together(one() for _ in range(attacker.times(300)))


@abuse
async def random_bytes_before_upgrade(attacker: Attacker) -> None:
    async def one(http: bool) -> None:
        async with attacker.tcp(http=http) as connection:
            for _ in range(3):
                await connection.send(
                    attacker.random.randbytes(attacker.random.choice((1, 10, 1000, 30_000)))
                )
            await connection.receive(0.05)

    await together(one(bool(i % 2)) for i in range(attacker.times(200)))


@abuse
async def random_bytes_after_upgrade(attacker: Attacker) -> None:
    async def one() -> None:
        async with attacker.device() as connection:
            for _ in range(5):
                if not await connection.send(
                    attacker.random.randbytes(attacker.random.choice((1, 10, 1000)))
                ):
                    break
            await connection.receive(0.05)

    await together(one() for _ in range(attacker.times(200)))


@abuse
async def damaged_handshakes(attacker: Attacker) -> None:
    async def one() -> None:
        data = mutate(attacker.random, connections(), Shape.TEXT, 16_384)
        async with attacker.tcp() as connection:
            await connection.send(data)
            await connection.receive(0.05)

    await together(one() for _ in range(attacker.times(300)))


@abuse
async def wrong_types(attacker: Attacker) -> None:
    """Damaged JSON in sound frames, 200 on each connection, which must all be ignored."""

    async def one() -> None:
        async with attacker.device() as connection:
            for _ in range(200):
                text = mutate(attacker.random, DEVICE_MESSAGES, Shape.JSON, 16_384)
                if b"goodbye" not in text and not await connection.send(websocket_frame(TEXT, text)):
                    attacker.expect(False, f"the connection was closed after {text[:200]!r}")
                    break

    await together((one() for _ in range(attacker.times(10))), at_once=5)


@abuse
async def oversize_messages(attacker: Attacker) -> None:
    """Frames that claim too much, that really are too long, and too long in fragments."""
    claims = (
        b"\x81\xff" + (1 << 62).to_bytes(8, "big") + b"\x01\x02\x03\x04",
        b"\x82\xff" + (1 << 30).to_bytes(8, "big") + b"\x01\x02\x03\x04" + bytes(100_000),
        websocket_frame(TEXT, b"x" * 3_000_000),
    )

    async def one(data: bytes) -> None:
        async with attacker.device() as connection:
            await connection.send(data)
            attacker.expect(
                await connection.ended(5), f"an oversize frame {data[:12]!r} did not end its connection"
            )

    async def fragments() -> None:
        async with attacker.device() as connection:
            await connection.send(websocket_frame(TEXT & 0x7F, b"x" * 60_000))
            for _ in range(20):
                await connection.send(websocket_frame(CONTINUATION & 0x7F, b"x" * 60_000))

    await together(one(data) for data in claims * attacker.times(3))
    await together(fragments() for _ in range(attacker.times(3)))


@abuse
async def wrong_order(attacker: Attacker) -> None:
    """Everything at the wrong time; each connection must still answer a ping afterwards."""
    audio = websocket_frame(BINARY, PACKET)

    def say(**message: object) -> bytes:
        return websocket_frame(TEXT, json.dumps(message).encode())

    stop, start = say(type="listen", state="stop"), say(type="listen", state="start", mode="manual")
    detect, abort = say(type="listen", state="detect", text="hi"), say(type="abort")
    stories = (
        audio * 100 + stop * 10 + detect,  # no hello at all
        HELLO + audio * 100 + stop * 20 + abort * 20,
        HELLO + (start + stop) * 40,
        HELLO + start * 80 + audio * 50,
        HELLO + abort * 80,
        HELLO + detect * 80,
        HELLO + (detect + abort) * 40,
        HELLO * 200,
        HELLO + say(type="goodbye") + audio * 10 + start,
    )

    async def one(story: bytes) -> None:
        async with attacker.device(hello=False) as connection:
            await connection.send(story + say(type="ping"))
            read = b""
            while b'"pong"' not in read and (piece := await connection.receive(5)):
                read = (read + piece)[-200_000:]
            attacker.expect(
                b'"pong"' in read or story is stories[-1] or story is stories[0],
                f"no pong after {story[:90]!r}",
            )

    await together(one(story) for story in stories * attacker.times(1))


# ---------------------------------------------------------------- too much


async def _flood(attacker: Attacker, frame: bytes, count: int, before: bytes = b"") -> None:
    """Send frames as fast as they are taken, ``before`` ahead of them. The server must hang up and say why."""

    async def one() -> None:
        async with attacker.device() as connection:
            await connection.send(before)
            batch = frame * 200
            taken = True
            for _ in range(attacker.times(count) // 200):
                taken = await connection.send(batch)
                if not taken:
                    break
            code = await connection.close_code()
            attacker.expect(
                not taken or code == POLICY_VIOLATION,
                f"a flood of {frame[:2]!r} frames was not ended (close code {code})",
            )

    await together(one() for _ in range(2))


@abuse
async def flood_of_audio(attacker: Attacker) -> None:
    """Into a recording, so that it is decoded, searched for speech and kept for the recogniser."""
    listen = websocket_frame(TEXT, b'{"type":"listen","state":"start","mode":"manual"}')
    await _flood(attacker, websocket_frame(BINARY, PACKET), 40_000, listen)


@abuse
async def flood_of_junk_audio(attacker: Attacker) -> None:
    listen = websocket_frame(TEXT, b'{"type":"listen","state":"start","mode":"auto"}')
    await _flood(attacker, websocket_frame(BINARY, b"\xff\xff" * 60), 40_000, listen)


@abuse
async def flood_of_text(attacker: Attacker) -> None:
    await _flood(attacker, websocket_frame(TEXT, b'{"type":"ping"}'), 40_000)


@abuse
async def flood_of_turns(attacker: Attacker) -> None:
    """Questions and interruptions, each of which begins or ends the work of a turn."""
    detect = websocket_frame(TEXT, b'{"type":"listen","state":"detect","text":"hi"}')
    abort = websocket_frame(TEXT, b'{"type":"abort"}')
    for frames in (detect, abort, detect + abort):
        await _flood(attacker, frames, 20_000)


@abuse
async def flood_of_malformed_text(attacker: Attacker) -> None:
    await _flood(attacker, websocket_frame(TEXT, b'{"type":"mcp","payload":'), 40_000)


@abuse
async def flood_of_pings(attacker: Attacker) -> None:
    await _flood(attacker, websocket_frame(PING, b"x" * 125), 40_000)


@abuse
async def flood_of_pings_unread(attacker: Attacker) -> None:
    """Pings whose pongs nobody reads: they must not pile up in the server."""

    async def one() -> None:
        async with attacker.device(receive_buffer=4096) as connection:
            batch = websocket_frame(PING, b"x" * 125) * 200
            for _ in range(attacker.times(80_000) // 200):
                try:
                    async with asyncio.timeout(2):
                        if not await connection.send(batch):
                            return
                except TimeoutError:
                    return

    await together(one() for _ in range(3))


@abuse
async def flood_of_fragments(attacker: Attacker) -> None:
    """A message in tiny fragments that never ends."""
    await _flood(attacker, websocket_frame(CONTINUATION & 0x7F, b"x"), 40_000)


@abuse
async def floods_that_come_back(attacker: Attacker) -> None:
    """Who is thrown out for flooding connects again at once and goes on: what comes before the cut costs as well."""
    audio = websocket_frame(BINARY, PACKET) * 5000
    listen = websocket_frame(TEXT, b'{"type":"listen","state":"start","mode":"manual"}')

    async def one() -> None:
        async with attacker.device() as connection:
            await connection.send(listen + audio)
            await connection.receive(1)

    await together((one() for _ in range(attacker.times(12))), at_once=4)


@abuse
async def flood_of_ota_requests(attacker: Attacker) -> None:
    """Every request is sound; there are only many."""
    sound = OTA_REQUESTS[0].data.split(b"\r\n\r\n", 1)[1]
    request = (
        b"POST /xiaozhi/ota/ HTTP/1.1\r\nHost: x\r\nDevice-Id: 06:00:00:00:00:00\r\nContent-Length: %d\r\n\r\n"
        % len(sound)
    )

    async def one() -> None:
        async with attacker.tcp(http=True) as connection:
            await connection.send(request + sound)
            attacker.expect(
                (await connection.receive(10)).startswith(b"HTTP/1.1 200"), "a sound OTA request failed"
            )

    await together(one() for _ in range(attacker.times(300)))


@abuse
async def reconnects_of_one_id(attacker: Attacker) -> None:
    """One device a thousand times, two or three at once; the last one must be served."""

    async def one(index: int) -> None:
        async with attacker.device("06:ff:ff:ff:ff:ff", hello=index % 3 != 0) as connection:
            if index % 4 == 0:
                await connection.receive(0.01)

    await together((one(i) for i in range(attacker.times(300))), at_once=3)
    async with attacker.device("06:ff:ff:ff:ff:ff") as connection:
        await connection.send(websocket_frame(TEXT, b'{"type":"ping"}'))
        attacker.expect(
            bool(await connection.receive(5)), "the last of many connections of one device is not served"
        )


# ---------------------------------------------------------------- too slow


@abuse
async def silent_connections(attacker: Attacker) -> None:
    """Connect and say nothing; begin a handshake and never finish it; begin a frame and never finish it."""
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(attacker.times(30)):
            await stack.enter_async_context(attacker.tcp())
            slow = await stack.enter_async_context(attacker.tcp())
            await slow.send(handshake()[:60])
            stuck = await stack.enter_async_context(attacker.device())
            await stuck.send(b"\x81\xfe")
        await asyncio.sleep(2)


@abuse
async def unfinished_handshakes(attacker: Attacker) -> None:
    """500 connections that send their handshake byte by byte and never come to its end."""
    async with contextlib.AsyncExitStack() as stack:
        slow = [
            await stack.enter_async_context(attacker.tcp()) for _ in range(min(attacker.times(500), 2000))
        ]
        for byte in handshake()[:20]:
            for connection in slow:
                await connection.send(bytes((byte,)))
            await asyncio.sleep(0.05)


@abuse
async def slow_loris_on_http(attacker: Attacker) -> None:
    """Requests to the OTA port that never end, in their headers or in their body."""
    head = b"POST /xiaozhi/ota/ HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n"
    async with contextlib.AsyncExitStack() as stack:
        slow = [
            await stack.enter_async_context(attacker.tcp(http=True))
            for _ in range(min(attacker.times(200), 900))
        ]
        for place, connection in enumerate(slow):
            await connection.send(head + (b"\r\n{" if place % 2 else b""))
        for _ in range(20):
            for connection in slow:
                await connection.send(b"X")
            await asyncio.sleep(0.1)


@abuse
async def slow_reader(attacker: Attacker) -> None:
    """Devices that ask and ask and never read what they are told."""
    detect = websocket_frame(TEXT, b'{"type":"listen","state":"detect","text":"tell me everything"}')

    async def one() -> None:
        async with attacker.device(receive_buffer=2048) as connection:
            for _ in range(30):
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(1):
                        await connection.send(detect)
                await asyncio.sleep(0.1)

    await together(one() for _ in range(attacker.times(5)))
