"""A real browser holds a conversation through examples/web-client.html: text in, speech out, speech in."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from aiohttp import web

from mynah.sim.voice import speak
from tests.servers import serve

ROOT = Path(__file__).parent.parent.parent
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
QUIET = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--mute-audio",
    "--autoplay-policy=no-user-gesture-required", "--disable-dev-shm-usage",
)  # fmt: skip
PATIENCE_S = 90

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.speech,
    pytest.mark.skipif(BROWSER is None, reason="no Chromium here (Debian package chromium)"),
]


@asynccontextmanager
async def pages(speech: bytes) -> AsyncIterator[tuple[str, asyncio.Future[dict[str, Any]]]]:
    """Serve the page and its driver; give the address and what the driver will report."""
    reported: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()

    async def page(_request: web.Request) -> web.FileResponse:
        return web.FileResponse(ROOT / "examples" / "web-client.html")

    async def driver(_request: web.Request) -> web.FileResponse:
        return web.FileResponse(ROOT / "tests" / "data" / "web_client_driver.html")

    async def pcm(_request: web.Request) -> web.Response:
        return web.Response(body=speech)

    async def result(request: web.Request) -> web.Response:
        reported.set_result(json.loads(await request.text()))
        return web.Response()

    app = web.Application()
    app.add_routes([web.get("/web-client.html", page), web.get("/driver.html", driver)])
    app.add_routes([web.get("/speech", pcm), web.post("/result", result)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        port = runner.addresses[0][1]
        # localhost, not an address: only there may a page without TLS use the codecs.
        yield f"http://localhost:{port}/driver.html", reported
    finally:
        await runner.cleanup()


@asynccontextmanager
async def browser(url: str, profile: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    assert BROWSER is not None
    process = await asyncio.create_subprocess_exec(
        BROWSER, *QUIET, f"--user-data-dir={profile}", url,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def test_the_web_client_converses(tmp_path: Path) -> None:
    speech = await asyncio.to_thread(speak, "what is twelve times seven")
    with serve(tmp_path) as server:
        async with pages(speech) as (url, reported):
            address = f"{url}?server={quote(server.ready['ws'], safe='')}"
            async with browser(address, tmp_path / "profile") as process:
                ended = asyncio.ensure_future(process.wait())
                await asyncio.wait({reported, ended}, timeout=PATIENCE_S, return_when=asyncio.FIRST_COMPLETED)
                assert not ended.done(), "the browser ended by itself"
                assert reported.done(), "the page reported nothing"
                ended.cancel()
    result = reported.result()
    assert "error" not in result, result
    typed, spoken = result["typed"], result["spoken"]
    assert typed["you"] == ["what is twelve times seven"]
    assert "84" in " ".join(typed["mynah"])
    heard = typed["heard"]
    assert heard["packets"] > 5
    assert heard["seconds"] > 0.5
    assert heard["loudest"] > 0.05, "what was decoded is silence"
    assert heard["rate"] == 48000, "browsers decode Opus at its own rate"
    assert spoken["sent"] >= len(speech) // 2
    assert spoken["you"][1:] == ["what is twelve times seven"], "the browser's own Opus is understood"
    assert "84" in " ".join(spoken["mynah"][len(typed["mynah"]) :])
    assert result["faces"]
    assert all("is not a WebSocket address; it looks like ws://" in text for text in result["addresses"])
    assert len(result["addresses"]) == 2
    assert result["refused"].startswith("closed (1006) nobody there, or refused")
    assert "token?" in result["refused"]
    assert result["able"] == ""
    assert "there is no AudioDecoder (WebCodecs)" in result["unable"]
