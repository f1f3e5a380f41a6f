"""Points 78 to 81 of the device contract: the vision service of a whole server, as cameras use it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mynah.config import defaults
from mynah.net.vision import ANSWER_S
from mynah.security.tokens import TokenIssuer, load_or_create_secret
from mynah.security.vision_tokens import VisionTokens
from mynah.texts import text
from tests.servers import app, connect

MAC = "02:00:00:00:00:78"
BOUNDARY = "----ESP32_CAMERA_BOUNDARY"
JPEG = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01" + bytes(range(256)) * 150
QUESTION = b'Content-Disposition: form-data; name="question"\r\n\r\nWhat is this?\r\n'
FILE = (
    b'Content-Disposition: form-data; name="file"; filename="camera.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
    + JPEG
    + b"\r\n"
)


class Camera:
    """A device that posts pictures as firmware does: one connection each, chunked, everything before it listens."""

    def __init__(self, address: str, tokens: VisionTokens) -> None:
        parts = urlsplit(address)
        self._host, self._port = parts.hostname or "", parts.port or 0
        self.token = tokens.issue(MAC, "c")

    async def post(self, *parts: bytes, segment: int = 1460, **headers: str | None) -> tuple[int, Any]:
        sent: dict[str, str | None] = {
            "Device-Id": MAC,
            "Client-Id": "c",
            "Authorization": f"Bearer {self.token}",
            "Content-Type": f"multipart/form-data; boundary={BOUNDARY}",
            "Transfer-Encoding": "chunked",
        } | {name.replace("_", "-"): value for name, value in headers.items()}
        lines = "".join(f"{name}: {value}\r\n" for name, value in sent.items() if value is not None)
        mark = f"--{BOUNDARY}".encode()
        form = b"".join(mark + b"\r\n" + part for part in parts) + mark + b"--\r\n"
        chunks = [form[i : i + 1024] for i in range(0, len(form), 1024)]
        body = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in [*chunks, b""])
        raw = f"POST /mcp/vision/explain HTTP/1.1\r\nHost: x\r\n{lines}\r\n".encode() + body
        reader, writer = await asyncio.open_connection(self._host, self._port)
        try:
            for start in range(0, len(raw), segment):
                writer.write(raw[start : start + segment])
                await writer.drain()
            async with asyncio.timeout(30):
                head, _, answer = (await reader.read()).partition(b"\r\n\r\n")
        finally:
            writer.close()
        assert f"Content-Length: {len(answer)}".encode() in head
        return int(head.split()[1]), json.loads(answer)


@asynccontextmanager
async def camera(folder: Path, *overrides: str, eyes: str = "{type: fake}") -> AsyncIterator[Camera]:
    """Run a server, with this vision model or (empty) none, and give a camera that it knows."""
    selected = (f"VLLM.Eyes={eyes}", "selected_module.VLLM=Eyes") if eyes else ()
    async with app(folder, *selected, *overrides) as (_, at):
        yield Camera(at.ota, VisionTokens(load_or_create_secret(folder / "auth.key")))


async def test_point_78_chunked_forms_with_the_parts_in_either_order(tmp_path: Path) -> None:
    async with camera(tmp_path) as device:
        for parts in ((QUESTION, FILE), (FILE, QUESTION)):
            for segment in (730, 1460, 1 << 20):
                status, answer = await device.post(*parts, segment=segment)
                assert status == 200
                assert answer["success"] is True
                assert answer["action"] == "RESPONSE"
                assert "red cup" in answer["response"]


async def test_point_79_what_the_user_should_hear_is_a_200(tmp_path: Path) -> None:
    def spoken(key: str) -> tuple[int, dict[str, Any]]:
        return 200, {"success": False, "message": text(key, "en")}

    async with camera(tmp_path, eyes="") as device:
        assert await device.post(QUESTION, FILE) == spoken("vision_no_model")
    async with camera(
        tmp_path, "server.limits.vision_bytes=65536", eyes="{type: fake, error_rate: 1}"
    ) as device:
        assert await device.post(QUESTION, FILE) == spoken("error_provider")
        assert await device.post(QUESTION) == spoken("vision_no_picture")
        assert await device.post(QUESTION, FILE.replace(JPEG, b"no picture")) == spoken("vision_unreadable")
        assert await device.post(QUESTION, FILE.replace(JPEG, JPEG * 3)) == spoken("vision_too_large")
        # Hard failures are no answers.
        assert (await device.post(QUESTION, FILE, Content_Type="application/json"))[0] == 400
        assert (await device.post(QUESTION, FILE, Authorization=None))[0] == 401


async def test_point_80_the_token_is_verified_and_is_the_devices_own(tmp_path: Path) -> None:
    async with camera(tmp_path) as device:
        assert (await device.post(QUESTION, FILE, Device_Id=None, Client_Id=None))[
            0
        ] == 200  # as the SDK does
        assert (await device.post(QUESTION, FILE, Device_Id=MAC.upper()))[0] == 200
        assert (await device.post(QUESTION, FILE, Device_Id="02:00:00:00:00:79"))[0] == 401
        secret = load_or_create_secret(tmp_path / "auth.key")
        for token in (
            "",
            "x.y.z",
            device.token + "x",
            VisionTokens(b"another server").issue(MAC, "c"),
            VisionTokens(secret).issue(MAC, "c", time.time() - 90000),
            TokenIssuer(secret).issue(MAC, "c"),
        ):
            assert (await device.post(QUESTION, FILE, Authorization=f"Bearer {token}"))[0] == 401, token


async def test_point_81_an_answer_comes_in_time(tmp_path: Path) -> None:
    assert max(defaults().timeouts.vllm_s, ANSWER_S) < 30
    async with camera(tmp_path, "timeouts.vllm_s=0.4", eyes="{type: fake, hang: true}") as device:
        began = time.monotonic()
        assert await device.post(QUESTION, FILE) == (
            200,
            {"success": False, "message": text("error_timeout", "en")},
        )
        assert time.monotonic() - began < 8
    async with camera(tmp_path) as device:
        began = time.monotonic()
        assert (await device.post(QUESTION, FILE))[1]["success"] is True
        assert time.monotonic() - began < 8


async def test_pictures_of_devices_without_an_owner_are_refused_unless_a_fixed_token_let_them_in(
    tmp_path: Path,
) -> None:
    overrides = (
        "VLLM.Eyes={type: fake}",
        "selected_module.VLLM=Eyes",
        "server.binding=code",
        "server.auth.tokens=[{token: a-fixed-token-of-mine, name: lab}]",
    )
    async with app(tmp_path, *overrides) as (server, at):
        assert server.bindings is not None
        device = Camera(at.ota, VisionTokens(load_or_create_secret(tmp_path / "auth.key")))
        assert (await device.post(QUESTION, FILE))[0] == 401
        server.bindings.bind(server.bindings.offer(MAC, "c").code)
        assert (await device.post(QUESTION, FILE))[0] == 200
        server.bindings.unbind(MAC)
        assert (await device.post(QUESTION, FILE))[0] == 401, (
            "the token of its last conversation is still valid"
        )
        async with connect(at.ws, MAC, Authorization="Bearer a-fixed-token-of-mine") as socket:
            await socket.hello()
            assert (await device.post(QUESTION, FILE))[0] == 200
