"""One whole connection in memory: bytes of a device in, what the conversation is told out.

The real protocol of `net/websocket.py` with picows' parser (C) underneath. What the server writes goes down a real pair
of sockets and is thrown away.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, cast

from mynah.dialogue.turn import Phase
from mynah.net.gate import Refusal
from mynah.net.peer import Peer
from mynah.net.websocket import DeviceSocket, WebsocketServer
from mynah.wire import messages

MAX_MESSAGE_BYTES = 65_536


class Conversation:
    """Stands for `Session`: notes what it is told."""

    phase = Phase.IDLE

    def __init__(self, told: list[object]) -> None:
        self._told = told

    def on_message(self, message: messages.DeviceMessage) -> None:
        self._told.append(message)

    def on_audio(self, packet: bytes) -> None:
        self._told.append(packet)

    def on_pcm(self, pcm: bytes, rate: int) -> None:
        self._told.append((pcm, rate))

    def on_closed(self) -> None:
        self._told.append("closed")


class Gate:
    """Lets everybody in."""

    session_config = messages.SessionConfig(0.5, 30_000)

    def __init__(self, told: list[object]) -> None:
        self._told = told

    def admit(self, peer: Peer) -> Refusal | None:
        return None

    def open(self, link: DeviceSocket, peer: Peer) -> Any:
        self._told.append((peer.device_id, peer.client_id))
        return Conversation(self._told)

    def identify(self, link: DeviceSocket, device_id: str, client_id: str) -> bool:
        return len(device_id) < 20

    def closed(self, link: DeviceSocket) -> None:
        """Nothing is kept."""


class Transport(asyncio.Transport):
    """Our end of a connection; the other end is read by nobody and emptied now and then."""

    def __init__(self) -> None:
        super().__init__()
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen(1)
            self.near = socket.create_connection(listener.getsockname())
            self._far, _ = listener.accept()
        self.near.setblocking(False)
        self._far.setblocking(False)
        self.closed = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        known = {"socket": self.near, "peername": ("127.0.0.1", 9), "sockname": ("127.0.0.1", 8000)}
        return known.get(name, default)

    def empty(self) -> int:
        """Throw away what was sent; return how much it was."""
        size = 0
        with suppress(BlockingIOError):
            while sent := self._far.recv(1 << 20):
                size += len(sent)
        return size

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """The socket is full: whoever answers that much is a finding of its own, counted by `empty`."""

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    abort = close


class Connections:
    """Feeds whole connections, one after the other, on one loop."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._transport = Transport()

    def told(self, pieces: Iterable[bytes]) -> tuple[list[object], int]:
        """Return what the conversation was told, and how many bytes were answered."""
        return self._loop.run_until_complete(self._feed(pieces))

    async def _feed(self, pieces: Iterable[bytes]) -> tuple[list[object], int]:
        told: list[object] = []
        server = WebsocketServer(cast(Any, Gate(told)), max_message_bytes=MAX_MESSAGE_BYTES)
        protocol = server._protocol()
        transport = self._transport
        transport.closed = False
        protocol.connection_made(transport)
        for piece in pieces:
            rest = memoryview(piece)
            while rest and not transport.closed:
                room = protocol.get_buffer(-1)
                size = min(len(room), len(rest))
                room[:size] = rest[:size]
                protocol.buffer_updated(size)
                rest = rest[size:]
        protocol.connection_lost(None)
        await asyncio.sleep(0)
        return told, transport.empty()
