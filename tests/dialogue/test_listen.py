"""One recording: what reaches the recogniser, when it ends, what is given back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from mynah.dialogue.listen import MAX_UTTERANCE_BYTES, PREROLL_BYTES, Ear
from mynah.providers.base import AsrRequest, VadCapabilities
from tests.fakes import HUSH, VOICE, FakeIngest, Script, ScriptedAsr
from tests.virtual_time import run


class Heard:
    def __init__(self) -> None:
        self.edges: list[str] = []

    def on_speech_started(self) -> None:
        self.edges.append("started")

    def on_speech_ended(self) -> None:
        self.edges.append("ended")


class Setting:
    def __init__(self, *, manual: bool = False, interrupting: bool = False) -> None:
        self.ingest, self.heard, self.asr = FakeIngest(), Heard(), ScriptedAsr(Script())
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


def scene(act: Callable[[Setting], Awaitable[None]], **options: bool) -> Setting:
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


def test_closing_while_waiting_for_the_ring_ends_the_wait() -> None:
    async def act(s: Setting) -> None:
        s.push(VOICE, 10)
        finishing = asyncio.ensure_future(s.ear.finish())
        await asyncio.sleep(0)
        s.ear.close()
        with pytest.raises(asyncio.CancelledError):
            await finishing

    assert scene(act, manual=True).asr.cancelled == 1
