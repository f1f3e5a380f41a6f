import io
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import av
import pytest
from aiohttp import BodyPartReader, web

from mynah.sim.camera import JPEG, Camera, send_snapshot
from mynah.sim.discovery import DeviceIdentity
from mynah.sim.mcp_tool import Refusal
from tests.certificates import write_certificate

IDENTITY = DeviceIdentity("02:aa:00:00:00:01")


class Vision:
    """A vision service that keeps what it is sent."""

    def __init__(self, status: int = 200, body: str = '{"success":true}') -> None:
        self.status, self.body = status, body
        self.headers: dict[str, str] = {}
        self.parts: list[tuple[str | None, str | None, str | None, bytes]] = []

    async def _on_post(self, request: web.Request) -> web.Response:
        self.headers = dict(request.headers)
        async for part in await request.multipart():
            assert isinstance(part, BodyPartReader)
            kind = part.headers.get("Content-Type")
            self.parts.append((part.name, part.filename, kind, bytes(await part.read())))
        return web.Response(status=self.status, text=self.body)

    @asynccontextmanager
    async def running(self, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
        app = web.Application()
        app.router.add_post("/vision", self._on_post)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        try:
            yield f"{'https' if tls else 'http'}://127.0.0.1:{runner.addresses[0][1]}/vision"
        finally:
            await runner.cleanup()


def test_the_picture_is_a_picture() -> None:
    with av.open(io.BytesIO(JPEG)) as file:
        frame = next(file.decode(video=0))
        assert isinstance(frame, av.VideoFrame)
        pixels = frame.to_ndarray(format="gray")
    assert pixels.shape == (16, 16)
    assert (pixels == 128).all()


async def test_a_photo_is_posted_as_firmware_does() -> None:
    vision, camera = Vision(body="A grey wall."), Camera(IDENTITY)
    async with vision.running() as url:
        camera.explain_at({"url": url, "token": "secret"})
        assert await camera.take_photo('What is "this"?') == "A grey wall."
    assert vision.headers["Device-Id"] == "02:aa:00:00:00:01"
    assert vision.headers["Client-Id"] == IDENTITY.client
    assert vision.headers["Authorization"] == "Bearer secret"
    assert vision.headers["Transfer-Encoding"] == "chunked"
    assert "Content-Length" not in vision.headers
    assert vision.parts == [
        ("question", None, None, b'What is "this"?'),
        ("file", "camera.jpg", "image/jpeg", JPEG),
    ]


async def test_a_camera_that_sees_a_certain_picture() -> None:
    vision, camera = Vision(), Camera(IDENTITY, b"\xff\xd8\xff a cat")
    async with vision.running() as url:
        camera.explain_at({"url": url})
        await camera.take_photo("?")
    assert vision.parts[1][3] == b"\xff\xd8\xff a cat"


async def test_a_certificate_that_nobody_vouches_for(tmp_path: Path) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*write_certificate(tmp_path))
    vision, camera = Vision(body="A wall."), Camera(IDENTITY)
    async with vision.running(context) as url:
        camera.explain_at({"url": url})
        with pytest.raises(Refusal, match="Failed to connect"):
            await camera.take_photo("?")
        camera.verify_tls = False
        assert await camera.take_photo("?") == "A wall."


async def test_what_an_initialize_leaves_out_is_kept() -> None:
    vision, camera = Vision(), Camera(IDENTITY)
    async with vision.running() as url:
        camera.explain_at({"url": url})
        camera.explain_at({})
        await camera.take_photo("?")
    assert "Authorization" not in vision.headers


async def test_a_snapshot_does_not_say_whose_it_is() -> None:
    vision = Vision()
    async with vision.running() as url:
        assert await send_snapshot(url)
    assert not {"Device-Id", "Client-Id", "Authorization"} & set(vision.headers)
    assert [part[:3] for part in vision.parts] == [("file", "screenshot.jpg", "image/jpeg")]


async def test_refusals() -> None:
    camera = Camera(IDENTITY)
    with pytest.raises(Refusal, match="is not set"):
        await camera.take_photo("?")
    async with Vision(status=401).running() as url:
        camera.explain_at({"url": url})
        with pytest.raises(Refusal, match="status code: 401"):
            await camera.take_photo("?")
    with pytest.raises(Refusal, match="Failed to connect"):  # it is gone now
        await camera.take_photo("?")
