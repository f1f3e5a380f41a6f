"""How audio arrives at devices over real sockets, from a server in a process of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from mynah.sim.speaker import Speaker
from tests.conformance.device import Device, device
from tests.servers import FAKES, Process, serve

FRAME_S = 0.06
WAKE = "wakeup_words=[mynah]"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    folder: Path = tmp_path_factory.mktemp("pacing")
    with serve(folder, WAKE, "TTS.FakeTTS.seconds=1.0", config=FAKES) as process:
        yield process


async def whole_reply(server: Process, number: int) -> Device:
    async with device(server.ready["ws"], f"02:00:00:00:01:{number:02x}") as one:
        await one.hello()
        await asyncio.sleep(number * 0.037)  # as devices that know nothing of each other
        await one.listen("detect", text="tell me something")
        await one.until("tts", "stop", timeout_s=20)
        return one


async def test_a_reply_is_neither_early_nor_late_nor_cut(server: Process) -> None:
    for one in await asyncio.gather(*(whole_reply(server, number) for number in range(8))):
        times = [at for at, _ in one.frames()]
        assert len(times) > 30
        assert max(index + 1 - (at - times[0]) / FRAME_S for index, at in enumerate(times)) <= 8
        speaker = Speaker(record=False)
        speaker.begin(times[0])
        for at in times:
            speaker.push(b"", FRAME_S, at)
        assert speaker.overflow == 0
        # A busy machine delays a frame now and then, but nothing that the device waits for is missing.
        assert speaker.late_frames <= 2, f"{speaker.late_frames} frames late"
        assert speaker.worst_gap_s < 0.25, f"a gap of {speaker.worst_gap_s * 1000:.0f} ms"
        stopped_at = one.timed("tts", "stop")[0][0]
        # Frames and message are stamped when they are read, which a busy machine does late.
        assert -0.1 <= stopped_at - speaker.silent_at(stopped_at) < 0.5


async def test_a_greeting_from_the_cache_leaves_the_device_time_to_switch(server: Process) -> None:
    gaps: list[float] = []
    async with device(server.ready["ws"]) as one:
        await one.hello()
        for turn in range(8):
            frames = len(one.frames())
            await one.listen("detect", text="mynah")
            await one.wait(lambda: len(one.frames()) > frames)  # noqa: B023
            gaps.append(one.frames()[frames][0] - one.timed("tts", "start")[turn][0])
            await one.say(type="abort")
            await one.until("tts", "stop", count=turn + 1)
    assert min(gaps) >= 0.018
    assert sorted(gaps)[4] <= 0.1


async def test_an_interrupted_reply_falls_silent_at_once(server: Process) -> None:
    """The median of ten: a frame may be under way, and the machine may be busy now and then."""
    silences: list[float] = []
    async with device(server.ready["ws"]) as one:
        await one.hello()
        for turn in range(10):
            before = len(one.frames())
            await one.listen("detect", text="tell me something")
            await one.wait(lambda: len(one.frames()) > before + 5 + turn)  # noqa: B023
            asked = asyncio.get_running_loop().time()
            await one.say(type="abort")
            await one.until("tts", "stop", count=turn + 1)
            await one.quiet(0.1)
            silences.append(one.frames()[-1][0] - asked)
            kinds = [w if isinstance(w, bytes) else w.get("state") for _, w in one.seen]
            assert kinds[-1] == "stop"
    assert sorted(silences)[5] <= FRAME_S
