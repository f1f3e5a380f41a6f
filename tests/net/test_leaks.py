"""Nothing is left of a thousand sessions, however they ended."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from pathlib import Path

from mynah.dialogue.device_tools import DeviceTools
from mynah.dialogue.listen import Ear
from mynah.dialogue.reply import Reply
from mynah.dialogue.session import Session
from mynah.net.websocket import DeviceSocket
from mynah.tools.device_mcp import DeviceMcp
from tests.conformance.device import speech
from tests.conformance.test_lifecycle import masked, open_raw
from tests.servers import app

SESSIONS, AT_ONCE = 1000, 20
KINDS = (Session, DeviceSocket, Ear, Reply, DeviceTools, DeviceMcp)
ENDS = ("at once", "hello", "listening", "heard", "speaking", "goodbye", "mid-frame", "unknown")


async def live(url: str, end: str) -> None:
    """Be a device until some moment, then drop the connection."""
    _, writer = await open_raw(url)
    if end != "at once":
        writer.write(masked(0x81, b'{"type":"hello","features":{"mcp":true}}'))
    if end in {"listening", "heard"}:
        writer.write(masked(0x81, b'{"type":"listen","state":"start","mode":"manual"}'))
        for packet in speech():
            writer.write(masked(0x82, packet))
    if end == "heard":
        writer.write(masked(0x81, b'{"type":"listen","state":"stop"}'))
    if end == "speaking":
        writer.write(masked(0x81, b'{"type":"listen","state":"detect","text":"tell me something"}'))
    if end == "goodbye":
        writer.write(masked(0x81, b'{"type":"goodbye"}'))
    if end == "mid-frame":
        writer.write(masked(0x81, b'{"type":"ping"}' * 5)[:20])
    if end == "unknown":
        writer.write(b"\xff" * 50)
    await asyncio.sleep(0.15 if end in {"heard", "speaking"} else 0.005)
    writer.transport.abort()


def alive() -> Counter[str]:
    gc.collect()
    return Counter(type(thing).__name__ for thing in gc.get_objects() if isinstance(thing, KINDS))


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_nothing_is_left_of_a_thousand_sessions(tmp_path: Path) -> None:
    async with app(tmp_path, "TTS.FakeTTS.seconds=0.5") as (server, at):
        assert server.devices is not None
        before, open_before = alive(), descriptors()
        tasks = len(asyncio.all_tasks())
        for start in range(0, SESSIONS, AT_ONCE):
            ends = [ENDS[number % len(ENDS)] for number in range(start, start + AT_ONCE)]
            await asyncio.gather(*(live(at.ws, end) for end in ends))
        async with asyncio.timeout(10):
            while len(server.devices) or len(asyncio.all_tasks()) > tasks:
                await asyncio.sleep(0.05)
        await asyncio.sleep(1.2)  # the close grace of those that said goodbye: its timer still knows them
        assert alive() == before
        assert descriptors() <= open_before + 2  # the loop's own
