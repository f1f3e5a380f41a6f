"""The firmware folder and downloads from it, over real sockets."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loguru import logger

from mynah import config
from mynah.net import download_slots, firmware
from mynah.net.firmware import FirmwareDownloads, FirmwareFolder, OpenImage
from mynah.net.http import DeviceHttp
from mynah.net.ota import OtaService
from mynah.security.tokens import Authenticator, TokenIssuer
from tests.conformance.raw_http import Answer, ask

IMAGE = b"\xe9" + os.urandom(700_000)
OLD = time.time() - 3600


@pytest.fixture
def warnings() -> Iterator[list[str]]:
    said: list[str] = []
    sink = logger.add(lambda message: said.append(str(message)), level="WARNING", format="{message}")
    yield said
    logger.remove(sink)


def put(folder: Path, name: str, content: bytes = b"\xe9image", modified: float = OLD) -> Path:
    path = folder / name
    path.write_bytes(content)
    os.utime(path, (modified, modified))
    return path


async def offered(folder: FirmwareFolder, board: str) -> str:
    await folder.refresh()
    image = folder.newest(board)
    return image.name if image else ""


@pytest.fixture
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at the folder whenever asked."""
    monkeypatch.setattr(firmware, "LOOK_S", 0.0)


async def test_the_newest_for_exactly_this_board_is_offered(tmp_path: Path) -> None:
    for name in (
        "bread-compact-wifi_2.9.0.bin",
        "bread-compact-wifi_2.10.0.bin",
        "bread-compact-wifi_2.10.bin",
        "bread-compact-wifi-lcd_9.0.bin",
        "my_own_board_1.0.bin",
        "esp32-s3-touch-lcd-1.46_1.0.bin",
    ):
        put(tmp_path, name)
    folder = FirmwareFolder(tmp_path)
    assert await offered(folder, "bread-compact-wifi") == "bread-compact-wifi_2.10.0.bin"
    assert await offered(folder, "my_own_board") == "my_own_board_1.0.bin"
    assert await offered(folder, "esp32-s3-touch-lcd-1.46") == "esp32-s3-touch-lcd-1.46_1.0.bin"
    for board in ("bread-compact", "own_board", "BREAD-COMPACT-WIFI", "", "bread-compact-wifi_2.9.0"):
        assert await offered(folder, board) == ""
    assert len(folder) == 6


async def test_what_is_not_offered_is_said_once(tmp_path: Path, warnings: list[str], no_pause: None) -> None:
    outside = put(tmp_path, "outside")
    images = tmp_path / "firmware"
    images.mkdir()
    put(images, "empty_1.0.bin", b"")
    put(images, "no-version.bin")
    put(images, "board_v1.0.bin")
    put(images, "bo ard_1.0.bin")
    put(images, os.fsdecode(b"not-text-\xff_1.0.bin"))
    put(images, ".board_1.0.bin.x7f3")
    put(images, "notes.txt")
    (images / "link_1.0.bin").symlink_to(outside)
    (images / "folder_1.0.bin").mkdir()
    os.mkfifo(images / "pipe_1.0.bin")
    folder = FirmwareFolder(images)
    for _ in range(3):
        await folder.refresh()
    assert len(folder) == 0
    assert len(warnings) == 8
    for name in ("empty", "no-version", "board_v1", "bo ard", "not-text-?", "link", "folder", "pipe"):
        assert sum(f"/firmware/{name}" in warning for warning in warnings) == 1


async def test_an_image_that_says_another_version_would_be_installed_for_ever(
    tmp_path: Path, warnings: list[str]
) -> None:
    def image(version: bytes) -> bytes:
        return b"\xe9" + bytes(31) + b"\x32\x54\xcd\xab" + bytes(12) + version.ljust(32, b"\0") + bytes(200)

    put(tmp_path, "honest_2.0.1.bin", image(b"2.0.1"))
    put(tmp_path, "misnamed_2.0.1.bin", image(b"2.0.0"))
    folder = FirmwareFolder(tmp_path)
    assert await offered(folder, "honest")
    assert not await offered(folder, "misnamed")
    (warning,) = warnings
    assert "misnamed_2.0.1.bin is not offered: the image says of itself that it is version 2.0.0" in warning


async def test_only_images_for_an_esp32_are_offered(
    tmp_path: Path, warnings: list[str], no_pause: None
) -> None:
    put(tmp_path, "noise_1.0.bin", b"\x00" + os.urandom(500))
    put(tmp_path, "program_1.0.bin", b"\x7fELF" + bytes(500))
    put(tmp_path, "image_1.0.bin")
    folder = FirmwareFolder(tmp_path)
    for _ in range(3):
        assert await offered(folder, "image") == "image_1.0.bin"
    assert len(folder) == 1
    assert len(warnings) == 2, "once for each file"
    assert all("is no image for an ESP32" in warning for warning in warnings)


async def test_a_folder_that_somebody_has_named_is_missed_once(
    tmp_path: Path, warnings: list[str], no_pause: None
) -> None:
    folder = FirmwareFolder(tmp_path / "images", expected=True)
    for _ in range(3):
        await folder.refresh()
    (warning,) = warnings
    assert warning == f"{tmp_path}/images is not there: no firmware is offered\n"


async def test_without_a_folder_nothing_is_offered(tmp_path: Path, warnings: list[str]) -> None:
    assert await offered(FirmwareFolder(tmp_path / "none"), "board") == ""
    assert not warnings
    file = put(tmp_path, "file")
    assert await offered(FirmwareFolder(file), "board") == ""
    assert "cannot be read" in warnings[0]


async def test_a_file_is_offered_once_it_has_settled(tmp_path: Path, no_pause: None) -> None:
    folder = FirmwareFolder(tmp_path)
    assert await offered(folder, "board") == ""
    path = put(tmp_path, "board_1.0.bin", b"\xe9half", modified=time.time())
    assert await offered(folder, "board") == "", "it may still be growing"
    os.utime(path, (OLD, OLD))
    assert await offered(folder, "board") == "board_1.0.bin"
    path.unlink()
    assert await offered(folder, "board") == ""
    put(tmp_path, "board_1.1.bin", modified=time.time() + 3600)
    assert await offered(folder, "board") == "board_1.1.bin", (
        "a clock that is ahead does not hide it for ever"
    )


async def test_what_was_there_before_the_start_has_settled(tmp_path: Path) -> None:
    put(tmp_path, "board_1.0.bin", modified=time.time())
    assert await offered(FirmwareFolder(tmp_path), "board") == "board_1.0.bin"


async def test_the_folder_is_not_read_at_every_question(tmp_path: Path) -> None:
    folder = FirmwareFolder(tmp_path)
    await folder.refresh()
    put(tmp_path, "board_1.0.bin")
    assert await offered(folder, "board") == ""


async def test_a_folder_that_hangs_holds_no_device_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = threading.Event()
    monkeypatch.setattr(firmware, "PATIENCE_S", 0.05)
    monkeypatch.setattr(firmware, "_scan", lambda folder, known: (released.wait(30), ({}, {}))[1])
    folder = FirmwareFolder(tmp_path)
    before = threading.active_count()
    for _ in range(20):
        await folder.refresh()
    assert threading.active_count() <= before + 1, "one look at a time"
    released.set()
    assert folder._looking is not None
    await folder._looking


async def test_a_folder_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warnings: list[str]
) -> None:
    monkeypatch.setattr(firmware, "MAX_FILES", 5)
    for number in range(10):
        put(tmp_path, f"board{number}_1.0.bin")
    folder = FirmwareFolder(tmp_path)
    await folder.refresh()
    assert len(folder) == 5
    assert "more than 5 files" in warnings[0]


# ---------------------------------------------------------------- download


@asynccontextmanager
async def site(
    images: Path, slots: int = 8, wait_s: float = 10.0, stall_s: float = 10.0, whole_s: float = 60.0
) -> AsyncIterator[str]:
    """Serve a folder; yields the address of its downloads."""
    settings = config.defaults("server.auth.enabled=false")
    folder = FirmwareFolder(images)
    await folder.refresh()
    ota = OtaService(settings, 1, Authenticator(settings, TokenIssuer(b"0123456789abcdef")))
    downloads = FirmwareDownloads(folder, slots, wait_s, stall_s, whole_s)
    http = DeviceHttp(settings, ota, lambda: True, downloads.routes())
    port = await http.start("127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{port}{firmware.DOWNLOAD_PATH}"
    finally:
        await http.stop()


async def get(url: str, method: str = "GET", **headers: str) -> Answer:
    return await ask(url, method=method, headers={k.replace("_", "-"): v for k, v in headers.items()})


async def test_the_whole_image(tmp_path: Path) -> None:
    put(tmp_path, "board_1.0.bin", IMAGE)
    async with site(tmp_path) as at:
        answer = await get(f"{at}board_1.0.bin", Accept_Encoding="gzip")
        assert answer.status == 200
        assert answer.body == IMAGE
        assert answer.headers == {
            "Content-Type": "application/octet-stream",
            "Content-Length": str(len(IMAGE)),
            "Accept-Ranges": "bytes",
            "Last-Modified": answer.headers["Last-Modified"],
            "Connection": "close",
            "Date": answer.headers["Date"],
            "Server": "Mynah",
        }
        head = await get(f"{at}board_1.0.bin", "HEAD")
        assert (head.status, head.headers["Content-Length"], head.body) == (200, str(len(IMAGE)), b"")


@pytest.mark.parametrize(
    ("wanted", "start", "stop"),
    [
        ("bytes=0-", 0, None),
        ("bytes=0-0", 0, 1),
        ("bytes=300000-", 300_000, None),
        ("bytes=262143-262145", 262_143, 262_146),
        ("bytes=-5", -5, None),
        ("bytes=700000-900000", 700_000, None),
    ],
)
async def test_a_part_of_it(tmp_path: Path, wanted: str, start: int, stop: int | None) -> None:
    put(tmp_path, "board_1.0.bin", IMAGE)
    async with site(tmp_path) as at:
        answer = await get(f"{at}board_1.0.bin", Range=wanted)
        part = range(len(IMAGE))[start:stop]
        assert answer.status == 206
        assert answer.body == IMAGE[start:stop]
        assert answer.headers["Content-Range"] == f"bytes {part[0]}-{part[-1]}/{len(IMAGE)}"
        assert answer.headers["Content-Length"] == str(len(part))


async def test_parts_that_there_are_not_or_that_belong_to_another_image(tmp_path: Path) -> None:
    put(tmp_path, "board_1.0.bin", IMAGE)
    async with site(tmp_path) as at:
        beyond = await get(f"{at}board_1.0.bin", Range="bytes=700001-")
        assert (beyond.status, beyond.headers["Content-Range"]) == (416, f"bytes */{len(IMAGE)}")
        for odd in ("bytes=1-2,5-6", "lines=1-2", "bytes=x", "bytes=5-2"):
            answer = await get(f"{at}board_1.0.bin", Range=odd)
            assert (answer.status, answer.body) in ((200, IMAGE), (416, b""))
        modified = (await get(f"{at}board_1.0.bin", "HEAD")).headers["Last-Modified"]
        same = await get(f"{at}board_1.0.bin", Range="bytes=5-9", If_Range=modified)
        assert (same.status, same.body) == (206, IMAGE[5:10])
        older = await get(f"{at}board_1.0.bin", Range="bytes=5-9", If_Range="Mon, 01 Jan 2001 00:00:00 GMT")
        assert (older.status, older.body) == (200, IMAGE)


async def test_never_outside_the_folder_and_only_what_was_found(tmp_path: Path) -> None:
    secret = put(tmp_path, "secret_1.0.bin", b"\xe9secret")
    images = tmp_path / "firmware"
    images.mkdir()
    put(images, "board_1.0.bin")
    async with site(images) as at:
        put(images, "late_1.0.bin")
        for name in (
            "../secret_1.0.bin",
            "..%2fsecret_1.0.bin",
            "%2e%2e/secret_1.0.bin",
            "..%5csecret_1.0.bin",
            f"%2f{str(secret)[1:].replace('/', '%2f')}",
            "board_1.0.bin%00",
            "board_1.0.bin/",
            "./board_1.0.bin/../../secret_1.0.bin",
            "late_1.0.bin",
            "",
            ".",
        ):
            answer = await get(at + name)
            assert answer.status == 404, name
            assert b"secret" not in answer.body
        # What took an image's place since: a link, nothing at all, an empty file.
        (images / "board_1.0.bin").unlink()
        (images / "board_1.0.bin").symlink_to(secret)
        assert (await get(f"{at}board_1.0.bin")).status == 404
        (images / "board_1.0.bin").unlink()
        assert (await get(f"{at}board_1.0.bin")).status == 404
        put(images, "board_1.0.bin", b"")
        assert (await get(f"{at}board_1.0.bin")).status == 404


@given(st.text(max_size=40))
def test_no_name_opens_anything_but_an_image(name: str) -> None:
    assert FirmwareFolder(Path(__file__).parent).open(name) is None


async def test_many_devices_at_once(tmp_path: Path) -> None:
    put(tmp_path, "board_1.0.bin", IMAGE)
    async with site(tmp_path, slots=4) as at:
        answers = await asyncio.gather(*(get(f"{at}board_1.0.bin") for _ in range(30)))
        assert all(answer.status == 200 and answer.body == IMAGE for answer in answers)


@asynccontextmanager
async def stalled(at: str) -> AsyncIterator[socket.socket]:
    """A client that asks for an image larger than all buffers, and then reads nothing."""
    host, port = at.split("/")[2].split(":")
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(client, (host, int(port)))
        await loop.sock_sendall(
            client, b"GET %sbig_1.0.bin HTTP/1.1\r\nHost: x\r\n\r\n" % firmware.DOWNLOAD_PATH.encode()
        )
        assert (await loop.sock_recv(client, 15)).startswith(b"HTTP/1.1 200")
        yield client


async def part_of(client: socket.socket) -> int:
    """Return how many bytes have come; 0 when the connection has ended."""
    try:
        return len(await asyncio.get_running_loop().sock_recv(client, 4096))
    except ConnectionError:
        return 0


async def rest_of(client: socket.socket) -> int:
    received = 0
    async with asyncio.timeout(20):
        while more := await part_of(client):
            received += more
    return received


def put_big(images: Path) -> None:
    put(images, "big_1.0.bin", b"\xe9" + bytes(15_999_999))
    put(images, "board_1.0.bin", IMAGE)


async def test_no_more_at_once_than_there_are_turns(tmp_path: Path) -> None:
    put_big(tmp_path)
    async with site(tmp_path, slots=1, wait_s=0.2) as at:
        async with stalled(at):
            busy = await get(f"{at}board_1.0.bin")
            assert (busy.status, busy.headers["Retry-After"]) == (503, "30")
        async with asyncio.timeout(20):  # the stalled client has hung up, so its slot is over
            while (await get(f"{at}board_1.0.bin")).status != 200:
                await asyncio.sleep(0.05)


async def test_one_address_cannot_keep_the_others_out(tmp_path: Path) -> None:
    put_big(tmp_path)
    async with site(tmp_path, slots=2) as at, stalled(at) as first, stalled(at) as second:
        began = asyncio.get_running_loop().time()
        answer = await ask(f"{at}board_1.0.bin", method="GET", source="127.0.0.2")
        assert (answer.status, answer.body) == (200, IMAGE)
        assert asyncio.get_running_loop().time() - began < 5.0, "before they count as slow"
        assert await rest_of(second) < 16_000_000, "it made room"
        assert first.fileno() >= 0


async def test_the_slow_make_room_even_for_their_own_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download_slots, "WINDOW_S", 0.5)
    monkeypatch.setattr(download_slots, "REVIEW_S", 0.1)
    put_big(tmp_path)
    async with site(tmp_path, slots=1) as at, stalled(at) as slow:
        assert (await get(f"{at}board_1.0.bin")).body == IMAGE
        assert await rest_of(slow) < 1_000_000, "the kernel holds little that the client has not asked for"


async def test_a_whole_image_has_a_deadline(tmp_path: Path) -> None:
    put_big(tmp_path)
    async with site(tmp_path, whole_s=0.5) as at, stalled(at) as slow:
        began = asyncio.get_running_loop().time()
        async with asyncio.timeout(9):
            received = 0
            while received < 16_000_000 and (more := await part_of(slow)):
                received += more
                await asyncio.sleep(0.02)
        assert 0 < received < 16_000_000
        assert asyncio.get_running_loop().time() - began < 8.0  # before `stall_s`


async def test_files_that_hang_hold_up_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()
    opened = FirmwareFolder.open

    def hang(folder: FirmwareFolder, name: str) -> OpenImage | None:
        released.wait(30)
        return opened(folder, name)

    monkeypatch.setattr(FirmwareFolder, "open", hang)
    put(tmp_path, "board_1.0.bin", IMAGE)
    async with site(tmp_path, slots=64) as at:
        downloads = [asyncio.create_task(get(f"{at}board_1.0.bin")) for _ in range(50)]
        await asyncio.sleep(0.3)
        try:
            async with asyncio.timeout(10):  # others use the event loop's own threads, which are few
                assert await asyncio.to_thread(lambda: "resolved") == "resolved"
        finally:
            released.set()
        assert all(answer.body == IMAGE for answer in await asyncio.gather(*downloads))


async def test_a_client_that_stops_reading_is_cut_off(tmp_path: Path) -> None:
    put_big(tmp_path)
    async with site(tmp_path, slots=1, wait_s=20, stall_s=0.3) as at, stalled(at):
        assert (await get(f"{at}board_1.0.bin")).body == IMAGE, "it gets the slot of the one that stalled"


async def test_a_file_that_shrinks_does_not_look_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_big(tmp_path)
    async with site(tmp_path) as at, stalled(at) as client:
        os.truncate(tmp_path / "big_1.0.bin", 9_000_000)
        assert await rest_of(client) < 16_000_000
