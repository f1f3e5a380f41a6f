"""Firmware images: which version is newer, and how a device fetches one."""

from __future__ import annotations

import re
import struct

import aiohttp

from mynah.errors import WireError
from mynah.sim.link import ConnectError

MAX_IMAGE_BYTES = 4_128_768
"""Size of the partition that an image goes into."""

DOWNLOAD_TIMEOUT_S = 300.0
"""4 MB at the slowest rate that is still worth waiting for, 14 kB/s."""

_PAGE_BYTES = 4096
_LEADING_INT = re.compile(r"[ \t\n\v\f\r]*([+-]?[0-9]+)")
_INT_LIMIT = 2**31
_DESCRIPTION_AT, _DESCRIPTION_MAGIC = 32, 0xABCD5432
_DESCRIPTION = struct.Struct("<II8s32s")
"""Magic, secure version, reserved, version text: how ESP-IDF describes an image, behind its header."""


def numbers(version: str) -> list[int]:
    """Read a version as firmware does: `std::stoi` on every dot segment. Raises WireError where that would abort."""
    segments = version.split(".")
    if not segments[-1]:  # what follows the last dot is no segment when it is empty
        segments.pop()
    read = [_LEADING_INT.match(segment) for segment in segments]
    values = [int(match[1]) for match in read if match is not None]
    if len(values) < len(segments) or any(not -_INT_LIMIT <= value < _INT_LIMIT for value in values):
        raise WireError("a segment of the firmware version is not a number")
    return values


def is_newer(candidate: str, current: str) -> bool:
    """Compare number by number; on a tie the longer version is newer. Raises WireError as `numbers`."""
    return numbers(candidate) > numbers(current)


def image_version(image: bytes) -> str:
    """Return the version that an image itself claims; empty when it describes itself not."""
    if len(image) < _DESCRIPTION_AT + _DESCRIPTION.size:
        return ""
    magic, _, _, text = _DESCRIPTION.unpack_from(image, _DESCRIPTION_AT)
    if magic != _DESCRIPTION_MAGIC:
        return ""
    version: bytes = text
    return version.split(b"\0", 1)[0].decode("ascii", "replace")


async def download(url: str, *, verify_tls: bool = True) -> bytes:
    """Fetch an image. Raises ConnectError for what a device refuses.

    It sends no header that says who it is, takes only 200, and wants to know the length beforehand.
    """
    timeout = aiohttp.ClientTimeout(total=DOWNLOAD_TIMEOUT_S)
    try:
        async with (
            aiohttp.ClientSession(
                timeout=timeout, skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding")
            ) as session,
            session.get(
                url, headers={"Connection": "close"}, allow_redirects=False, ssl=verify_tls
            ) as response,
        ):
            if response.status != 200:
                raise ConnectError(f"{url} answered {response.status}, and devices take only 200")
            length = response.content_length or 0
            if not length or "Transfer-Encoding" in response.headers:
                raise ConnectError(f"{url} does not say how long the firmware is (Content-Length)")
            if length > MAX_IMAGE_BYTES:
                raise ConnectError(f"{url}: {length} bytes do not fit into {MAX_IMAGE_BYTES}")
            image = bytearray()
            while page := await response.content.read(_PAGE_BYTES):
                image += page
    except (aiohttp.ClientError, OSError, ValueError) as error:  # a time-out is an OSError
        raise ConnectError(f"cannot fetch {url}: {error or type(error).__name__}") from error
    if len(image) != length:
        raise ConnectError(f"{url} sent {len(image)} bytes instead of {length}")
    return bytes(image)
