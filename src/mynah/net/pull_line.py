"""The sending side of one connection of a device that fetches: what was written, and how much of it has arrived."""

from __future__ import annotations

import asyncio
import fcntl
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
_TIOCOUTQ: Final = 0x5411
"""Linux' SIOCOUTQ: bytes that the other end has not acknowledged."""

log = logger.bind(tag="pull4g")


class PullLine:
    """Implements `mynah.net.pull_download.Line`."""

    __slots__ = ("_pieces", "_written", "framed", "free", "full", "transport")

    def __init__(self, transport: asyncio.Transport, free: Callable[[], None]) -> None:
        """``free`` is called when the conversation that it carries is over."""
        self.transport = transport
        self.free = free
        self.framed = False
        """Whether we send frames."""
        self.full = False
        """Whether it takes no more audio at the moment. Set by the connection."""
        self._written = 0
        # Where on the connection, and where in the reply, each piece of audio ends. Bounded by what a reply keeps.
        self._pieces: deque[tuple[int, int]] | None = None
        transport.set_write_buffer_limits(high=HIGH_WATER)

    def write(self, data: bytes) -> None:
        """Send."""
        transport = self.transport
        if transport.is_closing():
            return
        self._written += len(data)
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
        there = self._written - self.transport.get_write_buffer_size() - _unacknowledged(self.transport)
        return max((end for at, end in pieces if at <= there), default=0)

    def close(self) -> None:
        """End the connection once what was written has left."""
        self.transport.close()


def _unacknowledged(transport: asyncio.BaseTransport) -> int:
    """Return how many bytes the other end has not acknowledged; 0 where that cannot be told."""
    sock = transport.get_extra_info("socket")
    try:
        (count,) = struct.unpack("i", fcntl.ioctl(sock.fileno(), _TIOCOUTQ, bytes(4)))
    except (OSError, AttributeError, ValueError):  # another system, or closed already
        return 0
    return int(count)
