"""How exactly frames leave, what that costs, and what the whole down-link costs from the voice's audio to the frame."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import msgspec
import uvloop

from mynah.audio.codec_pool import CodecThreads
from mynah.audio.encode import EncoderPool, SpeechEncoder
from mynah.audio.pacer import Pacer
from mynah.bench.report import Result, distribution
from mynah.dialogue.speak import Speech, Spoken, Voice
from mynah.engine import CODEC_THREADS
from mynah.providers.base import TtsRequest
from mynah.providers.tts.fake import FakeTts, FakeTtsOptions

_FRAMES = 60
_FRAME_S = 0.06
_TALKERS = (1, 50, 200, 400)
_SENTENCES = 3
_SENTENCE_S = 2.0
_ARRIVE_S = 6.0
"""Within this time all replies begin, one after the other."""
_CUT_AFTER_S = 2.0
_GAP_MS = 25
"""Pause between the start of a reply and its first frame, which is none of the down-link's doing."""


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

    def on_sentence(self, sentence: Spoken) -> None:
        """Nobody looks."""

    def on_played(self) -> None:
        """The end."""
        self.played.set_result(None)

    on_spoken = on_played

    def jitter_ms(self, lead: int) -> list[float]:
        """Return how much later (or earlier, below 0) than due each frame after the lead came."""
        base = self.times[0]
        return [(at - base - index * _FRAME_S) * 1000 for index, at in enumerate(self.times[lead:], start=1)]


def pacer() -> Iterator[Result]:
    """Let many devices play 3.6 s each; then let many have whole replies synthesised, encoded and paced."""
    for devices in (1, 100, 400, 1000):
        jitter, cost, late = uvloop.run(_play(devices))
        case = f"{devices} devices" if devices > 1 else "1 device"
        note = "pacer jitter: ms after (below 0: before) a frame's time; up to 5 ms early is by design"
        yield distribution("pacer jitter", case, "ms", jitter, note)
        yield distribution("pacer cost", case, "µs/frame", [cost])
        yield distribution(
            "pacer late frames", case, "%", [late], "late frames: more than 5 ms after their time"
        )
    for talkers in _TALKERS:
        for cut in (False, True):
            yield from _downlink(talkers, cut)


async def _play(devices: int) -> tuple[list[float], float, float]:
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
    late = 100 * pacer.stats.late_frames / pacer.stats.frames
    return [late for sink in sinks for late in sink.jitter_ms(pacer.lead_frames)], cost, late


class _Talk(msgspec.Struct):
    """What many replies together cost."""

    frames: int
    process_us: float
    """Processor time per frame, all threads."""
    loop_us: float
    """That of the event loop alone."""
    encoding_us: float
    first_ms: list[float]
    """From the beginning of each reply to its first frame, beyond the pause that there must be."""
    late_percent: float


def _downlink(talkers: int, cut: bool) -> Iterator[Result]:
    found = uvloop.run(_talk(talkers, cut))
    case = f"{talkers} talkers" if talkers > 1 else "1 talker"
    if cut:
        case += f", interrupted after {_CUT_AFTER_S:g} s"
    note = (
        f"down-link: replies of {_SENTENCES} sentences of {_SENTENCE_S:g} s, per frame of 60 ms that leaves"
    )
    yield distribution("down-link, all threads", case, "µs/frame", [found.process_us], note)
    yield distribution("down-link, encoding", case, "µs/frame", [found.encoding_us], note)
    yield distribution("down-link, event loop", case, "µs/frame", [found.loop_us], note)
    yield distribution("down-link, first audio", case, "ms", found.first_ms, note)
    yield distribution("down-link, late frames", case, "%", [found.late_percent], note)


async def _talk(talkers: int, cut: bool) -> _Talk:
    tts = FakeTts("fake", FakeTtsOptions(type="fake", delay_ms=0, seconds=_SENTENCE_S))
    async for _ in tts.synthesize(TtsRequest("The sound is made once.", "en")):
        break
    pacer, codec, encoders = Pacer(), CodecThreads(CODEC_THREADS), EncoderPool()
    codec.start()
    rate = tts.capabilities.sample_rate
    voice = Voice(tts, pacer, lambda _: SpeechEncoder(codec, rate, rate, encoders=encoders))
    first_ms: list[float] = []
    process, loop = time.process_time(), time.thread_time()
    counts = await asyncio.gather(
        *(_reply(voice, index * _ARRIVE_S / talkers, cut, first_ms) for index in range(talkers))
    )
    process, loop = time.process_time() - process, time.thread_time() - loop
    codec.stop()
    frames = sum(counts)
    return _Talk(
        frames=frames,
        process_us=process / frames * 1e6,
        loop_us=loop / frames * 1e6,
        encoding_us=codec.stats.busy_s / frames * 1e6,
        first_ms=first_ms,
        late_percent=100 * pacer.stats.late_frames / max(pacer.stats.frames, 1),
    )


async def _reply(voice: Voice, after_s: float, cut: bool, first_ms: list[float]) -> int:
    """Speak one reply; return how many frames left."""
    await asyncio.sleep(after_s)
    sink, speech = _Clocked(), voice.open()
    begin = time.perf_counter()
    speech.begin(sink)
    saying = asyncio.ensure_future(_say(speech))
    if cut:
        await asyncio.sleep(_CUT_AFTER_S)
        saying.cancel()
        speech.cancel()
    else:
        await sink.played
    if sink.times:
        first_ms.append((sink.times[0] - begin) * 1000 - _GAP_MS)
    return len(sink.times)


async def _say(speech: Speech) -> None:
    for number in range(_SENTENCES):
        await speech.say(Spoken(f"This is sentence number {number}."), "en")
    speech.finish()
