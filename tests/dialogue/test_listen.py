"""One recording: what reaches the recogniser, when it ends, what is given back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mynah.audio.ingest import Ingest
from mynah.dialogue.listen import MAX_UTTERANCE_BYTES, PREROLL_BYTES, TAIL_BYTES, Ear
from mynah.errors import AudioError
from mynah.providers.base import AsrRequest, VadCapabilities
from tests.fakes import HUSH, VOICE, FakeIngest, FakeIngestStream, Script, ScriptedAsr
from tests.virtual_time import run


class Heard:
    def __init__(self) -> None:
        self.edges: list[str] = []

    def on_speech_started(self) -> None:
        self.edges.append("started")

    def on_speech_paused(self) -> None:
        self.edges.append("paused")

    def on_speech_resumed(self) -> None:
        self.edges.append("resumed")

    def on_speech_ended(self) -> None:
        self.edges.append("ended")


class Setting:
    def __init__(
        self, *, manual: bool = False, keep_tail: bool = False, ingest: FakeIngest | None = None
    ) -> None:
        self.ingest, self.heard, self.asr = ingest or FakeIngest(), Heard(), ScriptedAsr(Script())
        self.ear = Ear(
            self.ingest,  # type: ignore[arg-type]
            self.asr,
            VadCapabilities(min_silence_ms=200),
            AsrRequest(),
            self.heard,
            manual=manual,
            keep_tail=keep_tail,
        )

    def push(self, packet: bytes, count: int) -> None:
        for _ in range(count):
            self.ear.push(packet)

    async def finish(self) -> tuple[str, bool]:
        """Close the ear and return the text and whether there was a voice."""
        recording = await self.ear.close_after_flush()
        transcript = await recording.finish()
        return transcript.text, recording.voiced


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
        assert s.heard.edges == ["started", "paused", "ended"]
        assert (await s.finish())[0] == "hello there"

    s = scene(act)
    assert s.asr.audio[0].count(VOICE) == 10
    before = s.asr.audio[0].index(VOICE)
    assert 0.5 * PREROLL_BYTES < before <= PREROLL_BYTES


def test_manual_keeps_everything_and_never_ends_by_itself() -> None:
    async def act(s: Setting) -> None:
        s.push(HUSH, 10)
        s.push(VOICE, 5)
        s.push(HUSH, 100)
        assert await s.finish() == ("hello there", True)

    s = scene(act, manual=True)
    assert s.heard.edges == ["started", "paused"]
    assert len(s.asr.audio[0]) == 115 * 1920


@pytest.mark.parametrize(("packet", "count"), [(HUSH, 50), (HUSH, 0), (VOICE, 2)])
def test_manual_without_voice_or_too_short_is_not_recognised(packet: bytes, count: int) -> None:
    async def act(s: Setting) -> None:
        s.push(packet, count)
        assert await s.finish() == ("", packet == VOICE)

    assert scene(act, manual=True).asr.audio == []


def test_a_very_long_utterance_is_ended_and_bounded() -> None:
    async def act(s: Setting) -> None:
        s.push(VOICE, 1200)
        await s.finish()

    s = scene(act)
    assert s.heard.edges[:2] == ["started", "ended"]
    assert len(s.asr.audio[0]) == MAX_UTTERANCE_BYTES


def test_more_speech_may_be_required_and_less_again() -> None:
    async def act(s: Setting) -> None:
        s.ear.endpointer.require_speech(320)
        s.push(VOICE, 4)
        assert s.heard.edges == []
        s.ear.endpointer.require_speech(VadCapabilities().min_speech_ms)
        s.push(VOICE, 1)
        assert s.heard.edges == ["started"]
        assert s.ear.hearing
        assert s.ear.voiced_ms >= 4 * 60

    scene(act)


def test_a_pause_is_told_and_its_end() -> None:
    async def act(s: Setting) -> None:
        s.push(VOICE, 10)
        s.push(HUSH, 2)
        assert s.heard.edges == ["started", "paused"]
        assert s.ear.hearing
        assert s.ear.silence_ms == pytest.approx(120, abs=40)
        s.push(VOICE, 5)
        assert s.heard.edges == ["started", "paused", "resumed"]
        assert s.ear.endpointer.pause_ms == pytest.approx(120, abs=40)

    scene(act)


@pytest.mark.parametrize(("keep_tail", "packets"), [(False, 1), (True, 2)])
def test_what_judges_by_the_sound_gets_more_silence(keep_tail: bool, packets: int) -> None:
    async def act(s: Setting) -> None:
        s.push(VOICE, 10)
        s.push(HUSH, packets - 1)
        assert s.heard.edges == ["started"]
        s.push(HUSH, 1)
        assert s.heard.edges == ["started", "paused"]

    scene(act, keep_tail=keep_tail)


def test_silence_may_be_made_longer_for_good_and_for_once() -> None:
    async def act(s: Setting) -> None:
        s.ear.endpointer.require_silence(600)
        s.push(VOICE, 10)
        s.push(HUSH, 8)
        assert "ended" not in s.heard.edges
        s.ear.endpointer.wait(900)
        s.push(HUSH, 5)
        assert "ended" not in s.heard.edges
        s.push(HUSH, 3)
        assert s.heard.edges == ["started", "paused", "ended"]
        s.push(VOICE, 10)
        s.push(HUSH, 11)
        assert s.heard.edges[3:] == ["started", "paused", "ended"], "the longer silence was for once"

    scene(act)


def test_the_text_so_far_leaves_the_utterance_open() -> None:
    async def act(s: Setting) -> None:
        assert (await s.ear.interim()).text == ""
        s.push(VOICE, 10)
        s.push(HUSH, 3)
        assert (await s.ear.interim()).text == "hello there"
        s.push(VOICE, 5)
        assert await s.finish() == ("hello there", True)

    assert [audio.count(VOICE) for audio in scene(act).asr.audio] == [10, 15]


def test_one_ear_hears_several_utterances_apart() -> None:
    async def act(s: Setting) -> None:
        s.push(VOICE, 10)
        s.push(HUSH, 5)
        first = s.ear.take()
        assert s.ear.utterance is None
        s.push(HUSH, 5)
        s.push(VOICE, 7)
        s.push(HUSH, 5)
        second = s.ear.take()
        assert (first.voiced, second.voiced) == (True, True)
        assert (await second.finish()).text == (await first.finish()).text == "hello there"
        s.push(HUSH, 20)
        assert not s.ear.take().voiced, "an earlier voice does not count"

    s = scene(act)
    assert [audio.count(VOICE) for audio in s.asr.audio] == [7, 10]
    assert s.heard.edges == ["started", "paused", "ended"] * 2
    assert s.asr.cancelled == 0


def test_an_utterance_taken_in_its_midst_leaves_an_ear_that_finds_the_next_beginning() -> None:
    async def act(s: Setting) -> None:
        s.ear.endpointer.require_speech(160)
        s.push(VOICE, 10)
        s.ear.take().cancel()
        assert not s.ear.hearing
        s.push(VOICE, 2)
        assert s.heard.edges == ["started"], "what was required before is required still"
        s.push(VOICE, 2)
        assert s.heard.edges == ["started", "started"]
        assert await s.finish() == ("hello there", True)

    s = scene(act)
    assert [audio.count(VOICE) for audio in s.asr.audio] == [4]
    assert s.asr.cancelled == 1


def test_what_was_none_is_forgotten() -> None:
    async def act(s: Setting) -> None:
        s.push(VOICE, 10)
        s.ear.forget()
        s.push(HUSH, 10)
        assert await s.finish() == ("", False)

    s = scene(act)
    assert s.asr.audio == []
    assert s.asr.cancelled == 1


def test_a_recording_is_cancelled_once_however_it_ends() -> None:
    async def act(s: Setting) -> None:
        s.push(VOICE, 10)
        recording = s.ear.take()
        working = asyncio.ensure_future(recording.finish())
        await asyncio.sleep(0)
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        recording.cancel()
        recording.cancel()
        s.push(VOICE, 10)
        recording = s.ear.take()
        recording.cancel()
        assert (await recording.finish()).text == ""

    assert scene(act).asr.cancelled == 2


@pytest.mark.parametrize("seconds", [3, 20])
def test_the_tail_is_kept_where_somebody_wants_it(seconds: int) -> None:
    async def act(s: Setting) -> None:
        s.push(VOICE, round(seconds / 0.06))
        tail = s.ear.tail()
        assert len(tail) == min(TAIL_BYTES, round(seconds / 0.06) * 1920)
        s.ear.push(b"last")
        assert s.ear.tail().rstrip(b"\0").endswith(b"last")
        s.ear.take().cancel()
        assert s.ear.tail() == b""

    scene(act, keep_tail=True)

    async def without(s: Setting) -> None:
        s.push(VOICE, 50)
        assert s.ear.tail() == b""

    scene(without)


@pytest.mark.parametrize("silence", [2, 20])
def test_speech_in_the_last_packets_voids_what_was_guessed_from_less(silence: int) -> None:
    class Late(FakeIngestStream):
        def push(self, packet: bytes, stamp: int = 0) -> None:
            if packet == VOICE:
                self._waiting = [*getattr(self, "_waiting", []), packet]
            else:
                super().push(packet, stamp)

        def flush(self, token: Any) -> None:
            for packet in self._waiting:
                super().push(packet)
            super().flush(token)

    class LateIngest(FakeIngest):
        def open(self, sink: Any, *more: Any) -> FakeIngestStream:
            self.open_streams += 1
            return Late(self, sink)

    async def act(s: Setting) -> None:
        for _ in range(10):
            FakeIngestStream.push(s.ear._stream, VOICE)  # type: ignore[arg-type]
        s.push(HUSH, silence)
        assert s.heard.edges == ["started", "paused"]
        s.push(VOICE, 5)
        assert await s.finish() == ("hello there", True)
        assert s.heard.edges == ["started", "paused", "resumed"]

    assert scene(act, ingest=LateIngest(), manual=True).asr.audio[0].count(VOICE) == 15


def test_what_waits_when_the_device_ends_the_recording_counts_in_every_mode() -> None:
    class Late(FakeIngestStream):
        """Delivers only when it is asked to, as a busy worker does."""

        def __init__(self, ingest: FakeIngest, sink: Any) -> None:
            super().__init__(ingest, sink)
            self._waiting: list[bytes] = []

        def push(self, packet: bytes, stamp: int = 0) -> None:
            self._waiting.append(packet)

        def flush(self, token: Any) -> None:
            for packet in self._waiting:
                super().push(packet)
            super().flush(token)

    class LateIngest(FakeIngest):
        def open(self, sink: Any, *more: Any) -> FakeIngestStream:
            self.open_streams += 1
            return Late(self, sink)

    async def act(s: Setting) -> None:
        s.push(HUSH, 3)
        s.push(VOICE, 10)
        s.push(HUSH, 20)
        assert await s.finish() == ("hello there", True)

    for manual in (False, True):
        s = scene(act, ingest=LateIngest(), manual=manual)
        assert s.asr.audio[0].count(VOICE) == 10
        assert set(s.heard.edges) <= {"resumed"}, (
            "the recording is over: edges are no news, but no guess holds"
        )


def test_no_flush_is_asked_for_when_the_ear_found_the_end() -> None:
    class Deaf(FakeIngestStream):
        def flush(self, token: Any) -> None:
            raise AssertionError("nothing is missing")

    class DeafIngest(FakeIngest):
        def open(self, sink: Any, *more: Any) -> FakeIngestStream:
            self.open_streams += 1
            return Deaf(self, sink)

    async def act(s: Setting) -> None:
        s.push(VOICE, 10)
        s.push(HUSH, 5)
        assert s.heard.edges == ["started", "paused", "ended"]
        assert await s.finish() == ("hello there", True)

    scene(act, ingest=DeafIngest())


def test_speech_that_goes_on_after_an_end_nobody_took_is_flushed_again() -> None:
    async def act(s: Setting) -> None:
        s.push(VOICE, 10)
        s.push(HUSH, 5)
        s.push(VOICE, 10)
        assert s.heard.edges == ["started", "paused", "ended", "started"]
        finishing = asyncio.ensure_future(s.finish())
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
    recording = await asyncio.wait_for(ear.close_after_flush(), 10)
    transcript = await recording.finish()
    ear.push_pcm(tone, 24000)
    ear.close()
    ingest.stop()
    assert (transcript.text, recording.voiced) == ("hello there", True)
    assert len(asr.audio[0]) == pytest.approx(32000, abs=4)


def test_closing_while_waiting_for_the_ring_ends_the_wait() -> None:
    async def act(s: Setting) -> None:
        s.push(VOICE, 10)
        finishing = asyncio.ensure_future(s.ear.close_after_flush())
        await asyncio.sleep(0)
        s.ear.close()
        with pytest.raises(asyncio.CancelledError):
            await finishing

    assert scene(act, manual=True).asr.cancelled == 1
