"""How exactly the pacer's frames leave, and what that costs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import uvloop

from mynah.audio.pacer import Pacer
from mynah.bench.report import Result, distribution

_FRAMES = 60
_FRAME_S = 0.06


class _Clocked:
    """A sink that notes when its frames came."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.played = asyncio.get_running_loop().create_future()

    def on_frame(self, packet: bytes, timestamp_ms: int) -> None:  # noqa: ARG002
        """Note the time."""
        self.times.append(time.perf_counter())

    def on_marker(self, value: Any) -> None:
        """There is none."""

    def on_played(self) -> None:
        """The end."""
        self.played.set_result(None)

    def jitter_ms(self, lead: int) -> list[float]:
        """Return how much later (or earlier, below 0) than due each frame after the lead came."""
        base = self.times[0]
        return [(at - base - index * _FRAME_S) * 1000 for index, at in enumerate(self.times[lead:], start=1)]


def pacer() -> Iterator[Result]:
    """Let 1, 100 and 1000 devices play 3.6 s each and see how far from its time each frame leaves."""
    for devices in (1, 100, 1000):
        jitter, cost = uvloop.run(_play(devices))
        case = f"{devices} devices" if devices > 1 else "1 device"
        note = "pacer jitter: ms after (below 0: before) a frame's time; up to 5 ms early is by design"
        yield distribution("pacer jitter", case, "ms", jitter, note)
        yield distribution("pacer cost", case, "µs/frame", [cost])


async def _play(devices: int) -> tuple[list[float], float]:
    loop = asyncio.get_running_loop()
    pacer = Pacer()
    sinks = [_Clocked() for _ in range(devices)]
    start = loop.time() + 0.1
    # Spread over one frame, as devices that know nothing of each other are.
    for index, sink in enumerate(sinks):
        playback = pacer.play(sink, not_before=start + index * _FRAME_S / devices)
        playback.push([bytes(120)] * _FRAMES)
        playback.finish()
    await asyncio.sleep(0.09)
    begin = time.process_time()
    await asyncio.gather(*(sink.played for sink in sinks))
    cost = (time.process_time() - begin) / (devices * _FRAMES) * 1e6
    return [late for sink in sinks for late in sink.jitter_ms(pacer.lead_frames)], cost
