"""One recording: what reaches the recogniser, when it ends, what is given back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mynah.audio.ingest import Ingest
from mynah.dialogue.listen import MAX_UTTERANCE_BYTES, PREROLL_BYTES, Ear
from mynah.errors import AudioError
from mynah.providers.base import AsrRequest, VadCapabilities
from tests.fakes import HUSH, VOICE, FakeIngest, FakeIngestStream, Script, ScriptedAsr
from tests.virtual_time import run


class Heard:
    def __init__(self) -> None:
        self.edges: list[str] = []

    def on_speech_started(self) -> None:
        self.edges.append("started")

    def on_speech_ended(self) -> None:
        self.edges.append("ended")


class Setting:
    def __init__(
        self, *, manual: bool = False, interrupting: bool = False, ingest: FakeIngest | None = None
    ) -> None:
        self.ingest, self.heard, self.asr = ingest or FakeIngest(), Heard(), ScriptedAsr(Script())
        self.ear = Ear(
            self.ingest,  # type: ignore[arg-type]
            self.asr,
            VadCapabilities(min_silence_ms=200),
            AsrRequest(),
            self.heard,
            manual=manual,
            interrupting=interrupting,
        )

    def push(self, packet: bytes, count: int) -> None:
        for _ in range(count):
            self.ear.push(packet)


def scene(act: Callable[[Setting], Awaitable[None]], **options: Any) -> Setting:
    async def main() -> Setting:
        setting = Setting(**options)
        await act(setting)
        setting.ear.close()
        setting.ear.close()
        assert setting.ingest.open_streams == 0
        return setting

    return run(main())


def test_silence_before_speech_is_cut_to_the_preroll() -> None:
    async def act(s: Setting) -> None:
        s.push(HUSH, 100)
        s.push(VOICE, 10)
        s.push(HUSH, 5)
        assert (await s.ear.finish())[0].text == "hello there"

    s = scene(act)
    assert s.heard.edges == ["started", "ended"]
    assert s.asr.audio[0].count(VOICE) == 10
    before = s.asr.audio[0].index(VOICE)
    assert 0.5 * PREROLL_BYTES < before <= PREROLL_BYTES


def test_manual_keeps_everything_and_never_ends_by_itself() -> None:
    async def act(s: Setting) -> None:
        s.push(HUSH, 10)
        s.push(VOICE, 5)
        s.push(HUSH, 100)
        transcript, voiced = await s.ear.finish()
        assert (transcript.text, voiced) == ("hello there", True)

    s = scene(act, manual=True)
    assert s.heard.edges == ["started"]
    assert len(s.asr.audio[0]) == 115 * 1920


@pytest.mark.parametrize(("packet", "count"), [(HUSH, 50), (HUSH, 0), (VOICE, 2)])
def test_manual_without_voice_or_too_short_is_not_recognised(packet: bytes, count: int) -> None:
    async def act(s: Setting) -> None:
        s.push(packet, count)
        transcript, voiced = await s.ear.finish()
        assert transcript.text == ""
        assert voiced is (packet == VOICE)

    assert scene(act, manual=True).asr.audio == []


def test_a_very_long_utterance_is_ended_and_bounded() -> None:
    async def act(s: Setting) -> None:
        s.push(VOICE, 1200)
        await s.ear.finish()

    s = scene(act)
    assert s.heard.edges[:2] == ["started", "ended"]
    assert len(s.asr.audio[0]) == MAX_UTTERANCE_BYTES


def test_interrupting_needs_more_speech_until_relaxed() -> None:
    async def act(s: Setting) -> None:
        s.push(VOICE, 4)
        assert s.heard.edges == []
        s.ear.relax()
        s.push(VOICE, 1)
        assert s.heard.edges == ["started"]
        assert s.ear.hearing

    scene(act, interrupting=True)


def test_what_waits_when_the_device_ends_the_recording_counts_in_every_mode() -> None:
    class Late(FakeIngestStream):
        """Delivers only when it is asked to, as a busy worker does."""

        def __init__(self, ingest: FakeIngest, sink: Any) -> None:
            super().__init__(ingest, sink)
            self._waiting: list[bytes] = []

        def push(self, packet: bytes) -> None:
            self._waiting.append(packet)

        def flush(self, token: Any) -> None:
            for packet in self._waiting:
                super().push(packet)
            super().flush(token)

    class LateIngest(FakeIngest):
        def open(self, sink: Any) -> FakeIngestStream:
            self.open_streams += 1
            return Late(self, sink)

    async def act(s: Setting) -> None:
        s.push(HUSH, 3)
        s.push(VOICE, 10)
        s.push(HUSH, 20)
        transcript, voiced = await s.ear.finish()
        assert (transcript.text, voiced) == ("hello there", True)

    for manual in (False, True):
        s = scene(act, ingest=LateIngest(), manual=manual)
        assert s.asr.audio[0].count(VOICE) == 10
        assert s.heard.edges == [], "the recording is over already: edges are no news any more"


def test_no_flush_is_asked_for_when_the_ear_found_the_end() -> None:
    class Deaf(FakeIngestStream):
        def flush(self, token: Any) -> None:
            raise AssertionError("nothing is missing")

    class DeafIngest(FakeIngest):
        def open(self, sink: Any) -> FakeIngestStream:
            self.open_streams += 1
            return Deaf(self, sink)

    async def act(s: Setting) -> None:
        s.push(VOICE, 10)
        s.push(HUSH, 5)
        assert s.heard.edges == ["started", "ended"]
        assert (await s.ear.finish())[0].text == "hello there"

    scene(act, ingest=DeafIngest())


def test_speech_that_goes_on_after_an_end_nobody_took_is_flushed_again() -> None:
    async def act(s: Setting) -> None:
        s.push(VOICE, 10)
        s.push(HUSH, 5)
        s.push(VOICE, 10)
        assert s.heard.edges == ["started", "ended", "started"]
        finishing = asyncio.ensure_future(s.ear.finish())
        await asyncio.sleep(0)
        s.push(VOICE, 1)  # still before the flush is answered
        await finishing

    assert scene(act).asr.audio[0].count(VOICE) == 21


async def test_pcm_is_heard_through_the_real_worker() -> None:
    class Engine:
        """Loud is speech."""

        chunk_samples = 512

        def open(self) -> int:
            return 0

        def close(self, slot: int) -> None:
            return

        def process(self, slots: NDArray[np.intp], chunks: NDArray[np.float32]) -> NDArray[np.float32]:
            loud: NDArray[np.float32] = (np.abs(chunks).max(axis=1) > 0.1).astype(np.float32)
            return loud

    ingest = Ingest(Engine())
    ingest.start()
    heard, asr = Heard(), ScriptedAsr(Script())
    ear = Ear(ingest, asr, VadCapabilities(), AsrRequest(), heard, manual=False)
    tone = (9000 * np.sin(np.arange(24000) / 10)).astype("<i2").tobytes()
    for at in range(0, len(tone), 1001):
        ear.push_pcm(tone[at : at + 1001], 24000)
    with pytest.raises(AudioError):
        ear.push_pcm(tone, 96000)
    transcript, voiced = await asyncio.wait_for(ear.finish(), 10)
    ear.push_pcm(tone, 24000)
    ear.close()
    ingest.stop()
    assert (transcript.text, voiced) == ("hello there", True)
    assert len(asr.audio[0]) == pytest.approx(32000, abs=4)


def test_closing_while_waiting_for_the_ring_ends_the_wait() -> None:
    async def act(s: Setting) -> None:
        s.push(VOICE, 10)
        finishing = asyncio.ensure_future(s.ear.finish())
        await asyncio.sleep(0)
        s.ear.close()
        with pytest.raises(asyncio.CancelledError):
            await finishing

    assert scene(act, manual=True).asr.cancelled == 1
