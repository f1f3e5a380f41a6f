"""A bad mobile link as a TCP proxy, a process of its own: ``python -m tests.badlink.proxy PORT [--seed N] …``.

It prints the port that it listens on, runs until its standard input is closed, and then prints what it did as JSON.
What it does to each connection, all by chance but repeatable with ``--seed``:

* half of ``--rtt-ms`` in each direction, and up to ``--jitter-ms`` more, never out of order;
* pieces of 730 bytes at most, as modems send and deliver them;
* ``--stall`` of the seconds begin a stall of 0.5 to 2.5 s in which nothing moves in either direction;
* it is cut with a reset, and what is on its way is lost, after a number of bytes that is spread exponentially around
  ``--cut-bytes``;
* ``--refuse`` of the connections are reset at once.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import socket
import struct
import sys
from collections import deque
from typing import Any, cast

import msgspec
import uvloop

PIECE = 730
"""What a modem takes in one ``AT+MIPSEND``."""
TICK_S = 0.01
MAX_UNREAD = 256 * 1024
"""Bytes on their way in one direction; beyond, the sender has to wait, as with a real link."""


class Link(msgspec.Struct, frozen=True):
    """How bad it is."""

    rtt_ms: float = 300.0
    jitter_ms: float = 100.0
    stall: float = 0.02
    cut_bytes: float = 1_500_000.0
    refuse: float = 0.01


class Seen(msgspec.Struct):
    """What happened."""

    connections: int = 0
    refused: int = 0
    cut: int = 0
    cut_in_transfer: int = 0
    """Of these: while bytes were on their way."""
    stalls: int = 0
    bytes_up: int = 0
    bytes_down: int = 0


class Way:
    """One direction of a connection."""

    def __init__(self) -> None:
        self.to: asyncio.Transport | None = None
        self.source: asyncio.Transport | None = None
        self.pieces: deque[tuple[float, bytes]] = deque()
        self.waiting = 0
        self.last_at = 0.0
        self.ends_at: float | None = None
        self.held = False


class Side(asyncio.Protocol):
    """What comes in at one end goes onto its way to the other."""

    def __init__(self, pair: Pair, way: Way) -> None:
        self.pair, self.way = pair, way

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.way.source = cast(asyncio.Transport, transport)
        self.pair.joined()

    def data_received(self, data: bytes) -> None:
        self.pair.carry(self.way, data)

    def eof_received(self) -> bool:
        self.way.ends_at = self.pair.due(self.way)
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None:
            self.pair.cut()
        elif self.way.ends_at is None:
            self.way.ends_at = self.pair.due(self.way)


class Pair:
    """A device's connection and ours to the server."""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy, self.chance = proxy, random.Random(proxy.chance.random())
        self.up, self.down = Way(), Way()
        self.left = (
            self.chance.expovariate(1 / proxy.link.cut_bytes) if proxy.link.cut_bytes else float("inf")
        )
        self.stalled_until = 0.0
        self.over = False

    def joined(self) -> None:
        """Either end is there; the other end of a way is whence the other way comes."""
        self.up.to, self.down.to = self.down.source, self.up.source

    def due(self, way: Way) -> float:
        """When what is put onto its way now comes out."""
        link = self.proxy.link
        now = self.proxy.loop.time()
        delay = (link.rtt_ms / 2 + self.chance.random() * link.jitter_ms) / 1000
        way.last_at = max(way.last_at, now + delay)
        return way.last_at

    def carry(self, way: Way, data: bytes) -> None:
        seen = self.proxy.seen
        if way is self.up:
            seen.bytes_up += len(data)
        else:
            seen.bytes_down += len(data)
        due = self.due(way)
        for at in range(0, len(data), PIECE):
            way.pieces.append((due, data[at : at + PIECE]))
        way.waiting += len(data)
        if way.waiting > MAX_UNREAD and not way.held and way.source is not None:
            way.held = True
            way.source.pause_reading()

    def tick(self, now: float) -> None:
        if now < self.stalled_until:
            return
        if (self.up.pieces or self.down.pieces) and self.chance.random() < self.proxy.link.stall * TICK_S:
            self.stalled_until = now + self.chance.uniform(0.5, 2.5)
            self.proxy.seen.stalls += 1
            return
        for way in (self.up, self.down):
            self._move(way, now)
            if self.over:
                return

    def _move(self, way: Way, now: float) -> None:
        if way.to is None:
            return
        while way.pieces and way.pieces[0][0] <= now:
            _, piece = way.pieces.popleft()
            way.waiting -= len(piece)
            self.left -= len(piece)
            if self.left <= 0:
                self.proxy.seen.cut += 1
                self.proxy.seen.cut_in_transfer += 1
                self.cut()
                return
            way.to.write(piece)
        if way.held and way.waiting < MAX_UNREAD // 2 and way.source is not None:
            way.held = False
            if not way.source.is_closing():
                way.source.resume_reading()
        if way.ends_at is not None and not way.pieces and way.ends_at <= now:
            self.end()

    def end(self) -> None:
        """Close both ends in peace."""
        self.over = True
        self.proxy.pairs.pop(self, None)
        for way in (self.up, self.down):
            if way.source is not None:
                way.source.close()

    def cut(self) -> None:
        """Reset both ends."""
        if self.over:
            return
        self.over = True
        self.proxy.pairs.pop(self, None)
        for way in (self.up, self.down):
            if way.source is not None:
                reset(way.source)


class Proxy:
    """Listens, and connects each device to the server."""

    def __init__(self, link: Link, port: int, seed: int) -> None:
        self.link, self.port, self.chance = link, port, random.Random(seed)
        self.seen = Seen()
        self.pairs: dict[Pair, None] = {}
        self.loop = asyncio.get_running_loop()

    def accept(self) -> asyncio.Protocol:
        self.seen.connections += 1
        pair = Pair(self)
        if self.chance.random() < self.link.refuse:
            self.seen.refused += 1
            return Refused()
        self.pairs[pair] = None
        task = self.loop.create_task(self._reach(pair))
        task.add_done_callback(lambda done: done.exception())
        return Side(pair, pair.up)

    async def _reach(self, pair: Pair) -> None:
        try:
            await self.loop.create_connection(lambda: Side(pair, pair.down), "127.0.0.1", self.port)
        except OSError:
            pair.cut()
        if pair.over and pair.down.source is not None:
            reset(pair.down.source)

    def tick(self) -> None:
        self.loop.call_later(TICK_S, self.tick)
        now = self.loop.time()
        for pair in tuple(self.pairs):
            pair.tick(now)


class Refused(asyncio.Protocol):
    """Resets at once."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        reset(cast(asyncio.Transport, transport))


def reset(transport: asyncio.Transport) -> None:
    """Close with a reset: what is on its way is lost."""
    sock = transport.get_extra_info("socket")
    if sock is not None and not transport.is_closing():
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


async def _serve(link: Link, port: int, seed: int) -> None:
    proxy = Proxy(link, port, seed)
    server = await proxy.loop.create_server(proxy.accept, "127.0.0.1", 0, backlog=4096)
    proxy.tick()
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    server.close()
    for pair in tuple(proxy.pairs):
        pair.cut()
    print(json.dumps(msgspec.to_builtins(proxy.seen)), flush=True)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.badlink.proxy", description=__doc__.splitlines()[0]
    )
    parser.add_argument("port", type=int, help="of the server")
    parser.add_argument("--seed", type=int, default=1)
    for field in msgspec.structs.fields(Link):
        parser.add_argument("--" + field.name.replace("_", "-"), type=float, default=field.default)
    chosen: dict[str, Any] = vars(parser.parse_args(arguments))
    port, seed = chosen.pop("port"), chosen.pop("seed")
    uvloop.run(_serve(Link(**chosen), port, seed))


if __name__ == "__main__":
    main()
