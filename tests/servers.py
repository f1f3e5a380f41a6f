"""Servers for tests: a whole `App` in this process, or `mynah serve` as a process of its own. Both on free ports."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from mynah.app import Addresses, App
from mynah.config import load

ROOT = Path(__file__).parent.parent
FAKES = ROOT / "benchmarks" / "fakes.yaml"
LOOPBACK = (
    "server.ip=127.0.0.1",
    "server.port=0",
    "server.http_port=0",
    "server.pull4g_port=0",
    "log.log_file=",
)


@asynccontextmanager
async def app(
    data_dir: Path, *overrides: str, config: Path | None = FAKES
) -> AsyncIterator[tuple[App, Addresses]]:
    """Run a server inside the test."""
    settings = load(config, [*LOOPBACK, f"log.data_dir={data_dir}", *overrides], environ={})
    server = App(settings)
    try:
        yield server, await server.start()
    finally:
        await server.stop(drain_s=0.2)


@dataclass
class Process:
    """A running `mynah serve`."""

    popen: subprocess.Popen[str]
    ready: dict[str, str]
    started_s: float

    def stop(self, number: signal.Signals = signal.SIGTERM, timeout_s: float = 20) -> tuple[int, str]:
        """Ask it to end; return exit code and what it logged."""
        self.popen.send_signal(number)
        _, errors = self.popen.communicate(timeout=timeout_s)
        return self.popen.returncode, errors


@contextmanager
def serve(folder: Path, *overrides: str, config: Path | None = None) -> Iterator[Process]:
    """Start `mynah serve` in ``folder`` and wait for its READY line."""
    command = [sys.executable, "-m", "mynah.cli", "serve"]
    if config is not None:
        command += ["-c", str(config)]
    for override in (*LOOPBACK, *overrides):
        command += ["-s", override]
    environ = {**os.environ, "PYTHONUNBUFFERED": "1"}
    began = time.perf_counter()
    popen = subprocess.Popen(
        command, cwd=folder, env=environ, text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert popen.stdout is not None
        line = popen.stdout.readline()
        if not line.startswith("READY "):
            popen.kill()
            raise AssertionError(f"no READY line: {line!r} {popen.communicate()[1]}")
        ready = dict(part.split("=", 1) for part in line.split()[1:])
        yield Process(popen, ready, time.perf_counter() - began)
    finally:
        if popen.poll() is None:
            popen.kill()
        popen.communicate()


class Client:
    """A bare WebSocket client: sends what a test tells it to, keeps what comes back."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.messages: list[dict[str, Any]] = []
        self.audio: list[bytes] = []
        self.close_code: int | None = None

    async def say(self, **message: Any) -> None:
        await self.socket.send_str(json.dumps(message))

    async def hello(self, **more: Any) -> dict[str, Any]:
        await self.say(type="hello", version=1, transport="websocket", features={"mcp": False}, **more)
        return await self.until("hello")

    async def until(self, kind: str, state: str | None = None, timeout_s: float = 10) -> dict[str, Any]:
        """Read on until a message of this type (and state) comes; return it. ``close``: until the connection ends."""
        async with asyncio.timeout(timeout_s):
            while True:
                received = await self.socket.receive()
                if received.type is aiohttp.WSMsgType.BINARY:
                    self.audio.append(received.data)
                    continue
                if received.type is not aiohttp.WSMsgType.TEXT:
                    self.close_code = self.socket.close_code
                    if kind == "close":
                        return {}
                    raise AssertionError(f"connection ended ({received.type.name}) while waiting for {kind}")
                message = json.loads(received.data)
                self.messages.append(message)
                if message["type"] == kind and (state is None or message.get("state") == state):
                    return message


@asynccontextmanager
async def connect(url: str, device_id: str = "02:00:00:00:00:01", **headers: str) -> AsyncIterator[Client]:
    """Connect to a server as a device does. Header names are given with underscores."""
    named = {"Device-Id": device_id, "Client-Id": "test"} | {
        k.replace("_", "-"): v for k, v in headers.items()
    }
    async with (
        aiohttp.ClientSession() as http,
        http.ws_connect(url, headers={k: v for k, v in named.items() if v}, autoclose=True) as socket,
    ):
        yield Client(socket)
