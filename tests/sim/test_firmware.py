import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mynah.errors import WireError
from mynah.sim.firmware import download, image_version, is_newer, numbers
from mynah.sim.link import ConnectError


@pytest.mark.parametrize(
    ("candidate", "current", "newer"),
    [
        ("2.4.3", "2.4.2", True),
        ("2.4.2", "2.4.2", False),
        ("2.4.2.1", "2.4.2", True),
        ("2.4", "2.4.2", False),
        ("2.10", "2.9.9", True),
        ("10", "9.9", True),
        ("2.5rc1", "2.4.2", True),
        ("", "2.4.2", False),
        ("3.", "2.4.2", True),
        (" 3", "2.4.2", True),
    ],
)
def test_comparison(candidate: str, current: str, newer: bool) -> None:
    assert is_newer(candidate, current) is newer


@pytest.mark.parametrize("version", ["v1.2", "1..2", "1.x", "latest", "99999999999", "."])
def test_versions_that_abort(version: str) -> None:
    with pytest.raises(WireError):
        numbers(version)


@given(st.lists(st.integers(0, 2**31 - 1), max_size=5))
def test_every_list_of_numbers_is_a_version(values: list[int]) -> None:
    assert numbers(".".join(map(str, values))) == values


def image(version: bytes = b"2.9.1") -> bytes:
    return bytes(32) + struct.pack("<II8s32s", 0xABCD5432, 0, b"", version) + bytes(200)


def test_an_image_says_which_version_it_is() -> None:
    assert image_version(image()) == "2.9.1"
    assert image_version(bytes(500)) == ""
    assert image_version(b"short") == ""


@asynccontextmanager
async def answering(head: str, body: bytes) -> AsyncIterator[tuple[str, list[bytes]]]:
    requests: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(f"HTTP/1.1 {head}\r\n\r\n".encode() + body)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/firmware.bin", requests


async def test_download_says_nothing_about_the_device() -> None:
    data = image() * 40
    async with answering(f"200 OK\r\nContent-Length: {len(data)}", data) as (url, requests):
        assert await download(url) == data
    names = {line.split(b":")[0].lower() for line in requests[0].split(b"\r\n")[1:] if line}
    assert names == {b"host", b"connection"}


@pytest.mark.parametrize(
    ("head", "body", "reason"),
    [
        ("404 Not Found\r\nContent-Length: 1", b"x", "answered 404"),
        ("302 Found\r\nLocation: /x\r\nContent-Length: 1", b"x", "answered 302"),
        ("200 OK\r\nTransfer-Encoding: chunked", b"1\r\nx\r\n0\r\n\r\n", "does not say how long"),
        ("200 OK\r\nContent-Length: 0", b"", "does not say how long"),
        ("200 OK", b"x", "does not say how long"),
        ("200 OK\r\nContent-Length: 10", b"x", "cannot fetch"),
        ("200 OK\r\nContent-Length: 99999999", b"x", "do not fit"),
    ],
)
async def test_what_a_device_refuses(head: str, body: bytes, reason: str) -> None:
    async with answering(head, body) as (url, _):
        with pytest.raises(ConnectError, match=reason):
            await download(url)


async def test_nobody_answers() -> None:
    with pytest.raises(ConnectError, match="cannot fetch"):
        await download("http://127.0.0.1:1/x")
