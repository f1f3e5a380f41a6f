"""HTTP as bytes: what a modem sends and what it sees, letter by letter."""

from __future__ import annotations

import asyncio
import json
import socket
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

MAC = "aa:bb:cc:dd:ee:ff"
CLIENT = "0c1f4f3e-0000-4000-8000-000000000000"
BODY: dict[str, Any] = {
    "version": 2,
    "language": "en-US",
    "mac_address": MAC,
    "uuid": CLIENT,
    "application": {"name": "xiaozhi", "version": "2.4.2", "elf_sha256": "0" * 64},
    "board": {"type": "bread-compact-wifi", "name": "bread-compact-wifi", "ssid": "home", "mac": MAC},
}


@dataclass(frozen=True)
class Answer:
    """``head`` is all in front of the body, as it came; ``headers`` keep their letters."""

    status: int
    head: bytes
    headers: dict[str, str]
    body: bytes

    def json(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found


async def ask(
    url: str,
    body: object = None,
    *,
    method: str = "POST",
    headers: dict[str, str] | None = None,
    segment: int = 0,
    source: str = "",
) -> Answer:
    """Send one request and read to the end of the connection.

    ``segment`` bytes go into each TCP segment; ``source`` is the address to send from.
    """
    place = urlsplit(url)
    content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    lines = {"Host": place.netloc, "Connection": "close", **(headers or {})}
    if method == "POST":
        lines["Content-Length"] = str(len(content))
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    request = f"{method} {place.path} HTTP/1.1\r\n{head}\r\n".encode() + content
    reader, writer = await asyncio.open_connection(
        place.hostname, place.port, local_addr=(source, 0) if source else None
    )
    writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        for start in range(0, len(request), segment or len(request)):
            writer.write(request[start : start + (segment or len(request))])
            await writer.drain()
            if segment:
                await asyncio.sleep(0.002)  # else the kernel puts segments together again
        async with asyncio.timeout(30):
            received = await reader.read()
    finally:
        writer.close()
    return parse(received)


def parse(received: bytes) -> Answer:
    head, _, body = received.partition(b"\r\n\r\n")
    status, *lines = head.decode("ascii").split("\r\n")
    return Answer(int(status.split()[1]), head, dict(line.split(": ", 1) for line in lines), body)


async def boot(
    ota: str, *, device_id: str = MAC, version: str = "2.4.2", language: str = "en-US", **board: str
) -> dict[str, Any]:
    """Ask the OTA address as firmware does and return its answer."""
    body = BODY | {"application": {"version": version}, "board": BODY["board"] | board}
    headers = named(device_id, language=language) | {"User-Agent": f"bread-compact-wifi/{version}"}
    answer = await ask(ota, body, headers=headers)
    assert answer.status == 200
    return answer.json()


def named(device_id: str = MAC, client_id: str = CLIENT, language: str = "en-US") -> dict[str, str]:
    """Return the headers of firmware."""
    return {
        "Activation-Version": "1",
        "Device-Id": device_id,
        "Client-Id": client_id,
        "User-Agent": "bread-compact-wifi/2.4.2",
        "Accept-Language": language,
        "Content-Type": "application/json",
    }
