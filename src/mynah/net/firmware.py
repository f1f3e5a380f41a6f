"""Firmware images: a folder of files named ``<board type>_<version>.bin``, offered and handed to devices."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import stat
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, Final

import msgspec
from aiohttp import web
from loguru import logger

from mynah.net.download_slots import DownloadSlots, Slot
from mynah.net.source import SOURCE
from mynah.wire.ota import is_newer

DOWNLOAD_PATH: Final = "/xiaozhi/ota/download/"
LOOK_S: Final = 3.0
"""The folder is read again after this long at the earliest, and only when a device or a person asks."""
PATIENCE_S: Final = 1.0
"""How long an answer waits for the folder to be read. A network drive that hangs must not keep devices from booting."""
SETTLE_S: Final = 2.0
"""A file that was written to within this time may still be on its way in, so it is not offered yet."""
MAX_FILES: Final = 10_000
"""Directory entries looked at. Overflow policy: the rest is not offered, with a warning."""
FILE_THREADS: Final = 4
"""They read from the folder, and nothing else in the server waits for them when it is a network drive that hangs."""
MAX_DOWNLOADS: Final = 64
"""Images being sent at once: with `PIECE_BYTES` each that is 16 MB of memory. Overflow policy: the next ones wait, and
`DownloadSlots` says who makes room."""
WAIT_S: Final = 20.0
"""How long a download waits for its slot: firmware gives the answer's headers 30 s. Then 503."""
PIECE_BYTES: Final = 256 * 1024
"""Read from disk in one go."""
SEND_BYTES: Final = 16 * 1024
"""Handed to the connection in one go: what has to get through within `STALL_S`."""
STALL_S: Final = 30.0
"""A device that takes less than `SEND_BYTES` in this time has gone; firmware gives up after 30 s itself."""
DOWNLOAD_S: Final = 900.0
"""For a whole image: over weak 4G, 8 KB/s, 4 MB take 9 minutes."""
UNSENT_BYTES: Final = 64 * 1024
"""What the kernel may hold that is not on its way yet: with its megabytes the slowest would look fast for minutes."""

_NAME: Final = re.compile(
    r"(?P<board>[A-Za-z0-9][A-Za-z0-9._+-]{0,99})_(?P<version>[0-9]{1,9}(?:\.[0-9]{1,9}){0,7})\.bin"
)
_IMAGE_MAGIC: Final = b"\xe9"
"""The first byte of every image for a chip of Espressif's."""
_MISSING: Final = "is not there: no firmware is offered"

# Where ESP-IDF puts the application's description into an image: image header, segment header, then this.
_DESCRIPTION_AT: Final = 32
_DESCRIPTION_MAGIC: Final = b"\x32\x54\xcd\xab"
_VERSION_AT: Final = 16
_VERSION_BYTES: Final = 32

_log = logger.bind(tag="firmware")


class FirmwareImage(msgspec.Struct, frozen=True):
    """A file that may be offered. ``name`` is safe in a URL."""

    name: str
    board_type: str
    version: str
    size: int
    """Bytes, when the folder was read."""
    changed_ns: int


class OpenImage(msgspec.Struct, frozen=True):
    """An image that is about to be sent. ``size`` in bytes, ``modified_s`` in seconds since the epoch."""

    file: BinaryIO
    size: int
    modified_s: int


class FirmwareFolder:
    """What is in the folder, as of a few seconds ago. Use from one event loop."""

    def __init__(self, folder: Path, *, expected: bool = False) -> None:
        """``expected``: somebody has named this folder, so it is a mistake if it is not there."""
        self._folder = folder
        self._expected = expected
        self._threads = ThreadPoolExecutor(FILE_THREADS, "firmware")
        self._images: dict[str, FirmwareImage] | None = None
        self._newest: dict[str, FirmwareImage] = {}
        self._complaints: dict[str, str] = {}
        self._looking: asyncio.Task[None] | None = None
        self._looked_at = -LOOK_S

    def __len__(self) -> int:
        return len(self._images or ())

    def newest(self, board_type: str) -> FirmwareImage | None:
        """Return the newest image for exactly this board type."""
        return self._newest.get(board_type)

    async def refresh(self) -> None:
        """Read the folder again if that was not done lately; wait for it, but not for long.

        Not only when the folder's own time has changed: that says nothing about files that still grow.
        """
        loop = asyncio.get_running_loop()
        if self._looking is None:
            if loop.time() - self._looked_at < LOOK_S:
                return
            self._looking = loop.create_task(self._look())
        await asyncio.wait({self._looking}, timeout=PATIENCE_S)

    def open(self, name: str) -> OpenImage | None:
        """Open an image; None when it is not one of ours, or gone by now. Blocks; the caller closes the file."""
        if name not in (self._images or ()):
            return None
        try:
            # The folder may have changed since: whatever has this name now must be a plain file in it.
            descriptor = os.open(self._folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            return None
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or not status.st_size:
            os.close(descriptor)
            return None
        return OpenImage(os.fdopen(descriptor, "rb"), status.st_size, int(status.st_mtime))

    async def opened(self, name: str) -> OpenImage | None:
        """`open`, without blocking."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self.open, name)

    async def read(self, image: OpenImage, size: int) -> bytes:
        """Return the next ``size`` bytes of an image; fewer at its end."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, image.file.read, size)

    async def _look(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            images, complaints = await loop.run_in_executor(self._threads, _scan, self._folder, self._images)
        finally:
            self._looking, self._looked_at = None, loop.time()
        for name, complaint in complaints.items():
            if self._complaints.get(name) != complaint and (self._expected or complaint != _MISSING):
                # Names on disk need not be text.
                _log.warning("{} {}", str(self._folder / name).encode("utf-8", "replace").decode(), complaint)
        for name in images.keys() - (self._images or {}).keys():
            _log.info("{} is offered to devices of type {}", name, images[name].board_type)
        self._complaints, self._images, self._newest = complaints, images, _newest_of(images.values())


def _newest_of(images: Iterable[FirmwareImage]) -> dict[str, FirmwareImage]:
    newest: dict[str, FirmwareImage] = {}
    for image in images:
        known = newest.get(image.board_type)
        if known is None or is_newer(image.version, known.version):
            newest[image.board_type] = image
    return newest


def _scan(
    folder: Path, known: Mapping[str, FirmwareImage] | None
) -> tuple[dict[str, FirmwareImage], dict[str, str]]:
    """Return the images of a folder by file name, and by file name why others are not offered.

    ``known`` are those of the last look. At the first look nobody waits for a file to settle: the server has just
    started, and what is in the folder was there before it.
    """
    images: dict[str, FirmwareImage] = {}
    complaints: dict[str, str] = {}
    try:
        with os.scandir(folder) as entries:
            for count, entry in enumerate(entries):
                if count >= MAX_FILES:
                    complaints[""] = f"holds more than {MAX_FILES} files: not all are offered"
                    break
                if entry.name.endswith(".bin") and not entry.name.startswith("."):
                    judged = _judge(entry, known)
                    if isinstance(judged, FirmwareImage):
                        images[judged.name] = judged
                    elif judged:
                        complaints[entry.name] = judged
    except FileNotFoundError:
        complaints[""] = _MISSING
    except OSError as error:
        complaints[""] = f"cannot be read ({error.strerror}): not all firmware is offered"
    return images, complaints


def _judge(entry: os.DirEntry[str], known: Mapping[str, FirmwareImage] | None) -> FirmwareImage | str:
    """Return the image, or why it is not offered; empty for one that may be offered at the next look."""
    match = _NAME.fullmatch(entry.name)
    if match is None:
        return "is not offered: the name is not like board-type_1.2.3.bin"
    if not entry.is_file(follow_symlinks=False):
        return "is not offered: it is not a file in this folder itself"
    try:
        status = entry.stat(follow_symlinks=False)
        head = _head_of(Path(entry.path))
    except OSError as error:
        return f"is not offered: it cannot be read ({error.strerror})"
    if not status.st_size:
        return "is not offered: it is empty"
    image = FirmwareImage(entry.name, match["board"], match["version"], status.st_size, status.st_mtime_ns)
    settling = 0 <= time.time() - status.st_mtime < SETTLE_S
    if settling and known is not None and known.get(entry.name) != image:
        return ""
    if not head.startswith(_IMAGE_MAGIC):
        return "is not offered: it is no image for an ESP32, which would begin with the byte 0xE9"
    declared = _declared_version(head)
    if declared not in {"", image.version}:
        # A device compares what it runs with what we say: it would install this at every boot, for ever.
        return f"is not offered: the image says of itself that it is version {declared}"
    return image


def _head_of(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_DESCRIPTION_AT + _VERSION_AT + _VERSION_BYTES)


def _declared_version(head: bytes) -> str:
    """Return the version that an ESP-IDF image carries in itself; empty when it carries none."""
    description = head[_DESCRIPTION_AT:]
    if not description.startswith(_DESCRIPTION_MAGIC):
        return ""
    text = description[_VERSION_AT:].partition(b"\0")[0].decode("ascii", "replace")
    return "".join(char for char in text if char.isprintable())


# ---------------------------------------------------------------- download


class FirmwareDownloads:
    """Sends images. Firmware sends no credentials with this request, takes nothing but 200, and does not resume."""

    def __init__(
        self,
        folder: FirmwareFolder,
        slots: int = MAX_DOWNLOADS,
        wait_s: float = WAIT_S,
        stall_s: float = STALL_S,
        whole_s: float = DOWNLOAD_S,
    ) -> None:
        """``slots`` is how many images are sent at once; ``wait_s``, ``stall_s`` and ``whole_s`` are in seconds."""
        self._folder = folder
        self._slots = DownloadSlots(slots, wait_s)
        self._stall_s = stall_s
        self._whole_s = whole_s

    def routes(self) -> Sequence[web.RouteDef]:
        """Return what to serve on the device HTTP port."""
        return [web.get(f"{DOWNLOAD_PATH}{{name}}", self._download)]

    async def _download(self, request: web.Request) -> web.StreamResponse:
        transport = request.transport
        slot = None if transport is None else await self._slots.take(request[SOURCE], transport.abort)
        if slot is None:
            text = "too many downloads, try again later\n"
            return web.Response(status=503, text=text, headers={"Retry-After": "30"})
        try:
            return await self._answer(request, slot)
        finally:
            self._slots.end(slot)

    async def _answer(self, request: web.Request, slot: Slot) -> web.StreamResponse:
        name = request.match_info["name"]
        image = await self._folder.opened(name)
        if image is None:
            return web.Response(status=404, text="there is no such firmware\n")
        with image.file:
            response, part = _head(request, image)
            response.force_close()
            await response.prepare(request)
            if request.method != "HEAD":
                sent = await self._send(request, response, image, part, slot)
                _log.info("{} got {} of {} bytes of {}", request.remote, sent, len(part), name)
        return response

    async def _send(
        self,
        request: web.Request,
        response: web.StreamResponse,
        image: OpenImage,
        part: range,
        slot: Slot,
    ) -> int:
        """Send a part of the file and return how many bytes the client took; it is cut off if not all of them."""
        transport = request.transport
        if transport is None:
            return 0
        _keep_nothing_back(transport)
        sent = 0
        image.file.seek(part.start)
        try:
            async with asyncio.timeout(self._whole_s):
                while sent < len(part):
                    piece = await self._folder.read(image, min(PIECE_BYTES, len(part) - sent))
                    if not piece:
                        raise ConnectionError  # the file has shrunk: a shorter answer must not look complete
                    for start in range(0, len(piece), SEND_BYTES):
                        data = piece[start : start + SEND_BYTES]
                        async with asyncio.timeout(self._stall_s):
                            await response.write(data)
                            await request.writer.drain()
                        sent += len(data)
                        self._slots.took(slot, len(data))
        except (ConnectionError, TimeoutError):
            transport.abort()
        return sent


def _keep_nothing_back(transport: asyncio.Transport) -> None:
    """Have `drain` return when the client has taken nearly all, so that stalling and slowness are seen at once."""
    # Not 0: a TLS transport compares with "at least" and would pause for ever.
    transport.set_write_buffer_limits(high=1, low=0)
    connected = transport.get_extra_info("socket")
    if connected is not None:
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)


def _head(request: web.Request, image: OpenImage) -> tuple[web.StreamResponse, range]:
    """Return the answer's head and which bytes follow it."""
    response = web.StreamResponse()
    response.last_modified = image.modified_s
    response.content_type = "application/octet-stream"
    response.headers["Accept-Ranges"] = "bytes"
    part = range(image.size)
    wanted = _wanted(request, response.headers["Last-Modified"])
    if wanted is not None:
        part = part[wanted]
        response.set_status(206 if part else 416)
        place = f"{part[0]}-{part[-1]}" if part else "*"
        response.headers["Content-Range"] = f"bytes {place}/{image.size}"
    response.content_length = len(part)
    return response, part


def _wanted(request: web.Request, modified: str) -> slice | None:
    """Return the part asked for; None for the whole, also when the client's part is of an older file (RFC 9110)."""
    if request.method != "GET" or request.headers.get("If-Range", modified) != modified:
        return None
    try:
        wanted = request.http_range
    except ValueError:  # several parts, or not in bytes: may be ignored
        return None
    return None if wanted.start is None and wanted.stop is None else wanted
