"""The sending side of one connection of a device that fetches: what was written, and how much of it has arrived."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Callable
from typing import Final

from loguru import logger

from mynah.wire import pull4g

HIGH_WATER: Final = 16 * 1024
"""Unsent bytes from which on a connection takes no more audio: half a second of PCM. What has been handed to the kernel
cannot be taken back when the device interrupts."""
MAX_QUEUED_BYTES: Final = 512 * 1024
"""Unsent bytes after which a connection is taken for dead: audio stops at `HIGH_WATER`, so these are answers to
commands whose sender reads none of them. Overflow policy: disconnect."""
_BYTES_ACKED: Final = struct.Struct("120xQ")
"""Of Linux' ``tcp_info``: ``tcpi_bytes_acked``."""
_TLS_TICKETS: Final = 1024
_TLS_RECORD: Final = 64
"""What TLS adds at most: behind the handshake, and to each record. So what is called arrived has arrived."""

log = logger.bind(tag="pull4g")


class PullLine:
    """Implements `mynah.net.pull_download.Line`."""

    __slots__ = ("_added", "_full", "_pieces", "_secure", "_written", "framed", "free", "transport")

    def __init__(self, transport: asyncio.Transport, free: Callable[[], None]) -> None:
        """``free`` is called when the conversation that it carries is over."""
        self.transport = transport
        self.free = free
        self.framed = False
        """Whether we send frames."""
        self._full = False
        self._written = 0
        self._secure = transport.get_extra_info("sslcontext") is not None
        # Bytes that TLS has added, at most.
        self._added = (_acknowledged(transport) or 0) + _TLS_TICKETS if self._secure else 0
        # Where on the connection, and where in the reply, each piece of audio ends: an entry for each frame of it.
        self._pieces: deque[tuple[int, int]] | None = None
        transport.set_write_buffer_limits(high=HIGH_WATER)

    @property
    def full(self) -> bool:
        """Whether it takes no more audio at the moment. Set by the connection. One that ends takes none at all."""
        return self._full or self.transport.is_closing()

    @full.setter
    def full(self, full: bool) -> None:
        self._full = full

    def write(self, data: bytes) -> None:
        """Send."""
        transport = self.transport
        if transport.is_closing():
            return
        self._written += len(data)
        if self._secure:
            self._added += _TLS_RECORD * (1 + len(data) // 16384)
        transport.write(data)
        if transport.get_write_buffer_size() > MAX_QUEUED_BYTES:
            peer = transport.get_extra_info("peername")
            log.warning("{} reads nothing any more, closing its connection", peer)
            transport.abort()

    def write_audio(self, data: bytes, end: int) -> None:
        """Send a piece of the current reply that ends at offset ``end``."""
        self.write(pull4g.audio(data, self.framed))
        if self._pieces is None:
            self._pieces = deque()
        self._pieces.append((self._written, end))

    def begin_reply(self) -> None:
        """Offsets from now on are those of another reply."""
        self._pieces = None

    def arrived(self) -> int:
        """Return up to which offset of the current reply everything has reached the other end's kernel.

        A proxy in between is such an other end: then less may have reached the device, and only it can tell.
        """
        pieces = self._pieces
        if not pieces:
            return 0
        # Not by what is unsent: of a connection that broke off, no transport tells that any more.
        count = _acknowledged(self.transport)
        if count is None:
            count = self._written - self.transport.get_write_buffer_size()
        there = count - self._added
        found = 0
        for at, end in pieces:
            if at > there:
                # Of a piece that is no frame the device has used what has come.
                return found if self.framed else max(found, end - (at - there))
            found = end
        return found

    def close(self) -> None:
        """End the connection once what was written has left."""
        self.transport.close()


def _acknowledged(transport: asyncio.BaseTransport) -> int | None:
    """Return how many bytes of a connection the other end's kernel has acknowledged; None where that is not told."""
    sock = transport.get_extra_info("socket")
    try:
        (count,) = _BYTES_ACKED.unpack(
            sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_ACKED.size)
        )
    except (OSError, AttributeError, struct.error):  # another system, or closed already
        return None
    return int(count)
