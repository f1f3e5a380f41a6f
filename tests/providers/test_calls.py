"""What is told of requests to providers, through the guards. On virtual time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from mynah.errors import ProviderError, ProviderTimeoutError, ProviderUnavailableError
from mynah.providers import calls
from mynah.providers.base import (
    AsrProvider,
    AsrRequest,
    Kind,
    LlmRequest,
    ProviderOptions,
    TtsRequest,
    VisionRequest,
    VllmProvider,
)
from mynah.providers.calls import CANCELLED, ProviderCall
from mynah.providers.wrap import GuardedAsr, GuardedLlm, GuardedTts, GuardedVllm, watch_calls
from tests.fakes import Script, ScriptedAsr, ScriptedLlm, ScriptedTts
from tests.virtual_time import virtual

DOWN = ProviderUnavailableError("down")
ASK = LlmRequest(messages=())


@pytest.fixture(autouse=True)
def _virtual_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Times are those of the loop, which is virtual."""

    class Clock:
        @staticmethod
        def monotonic() -> float:
            return asyncio.get_running_loop().time()

    monkeypatch.setattr(calls, "time", Clock)


def told(seen: list[ProviderCall]) -> list[tuple[str, str, float, str]]:
    return [(call.kind.value, call.name, round(call.seconds, 3), call.error) for call in seen]


async def read(stream: AsyncGenerator[Any, None], pieces: int = 1000) -> int:
    count = 0
    async with contextlib.aclosing(stream) as items:
        async for _ in items:
            count += 1
            if count == pieces:
                break
    return count


@virtual
async def test_a_stream_is_told_at_its_end_with_the_time_of_its_beginning() -> None:
    seen: list[ProviderCall] = []
    llm = GuardedLlm(ScriptedLlm(Script(replies=[[0.2, "One. ", 3.0, "Two."]])))
    watch_calls([llm, None], seen.append)
    assert await read(llm.generate(ASK)) == 3
    assert told(seen) == [("LLM", "llm", 0.2, "")]


@virtual
async def test_who_stops_reading_has_cancelled_only_before_the_first_piece() -> None:
    seen: list[ProviderCall] = []
    llm = GuardedLlm(ScriptedLlm(Script(replies=[[0.2, "One. ", 3.0, "Two."]])))
    watch_calls([llm], seen.append)
    assert await read(llm.generate(ASK), pieces=1) == 1
    waiting = asyncio.create_task(read(llm.generate(ASK)))
    await asyncio.sleep(0.1)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert told(seen) == [("LLM", "llm", 0.2, ""), ("LLM", "llm", 0.1, CANCELLED)]


@virtual
async def test_a_retry_is_a_request_of_its_own() -> None:
    seen: list[ProviderCall] = []
    llm = GuardedLlm(ScriptedLlm(Script(replies=[[DOWN], [0.1, "One."]])))
    watch_calls([llm], seen.append)
    assert await read(llm.generate(ASK)) == 2
    assert told(seen) == [("LLM", "llm", 0.0, "provider_unavailable"), ("LLM", "llm", 0.1, "")]


@virtual
async def test_a_stream_that_breaks_off_has_failed() -> None:
    seen: list[ProviderCall] = []
    llm = GuardedLlm(ScriptedLlm(Script(replies=[[0.1, "One. ", DOWN]])))
    watch_calls([llm], seen.append)
    with pytest.raises(ProviderUnavailableError):
        await read(llm.generate(ASK))
    assert told(seen) == [("LLM", "llm", 0.1, "provider_unavailable")]


@virtual
async def test_a_voice_that_does_not_answer() -> None:
    seen: list[ProviderCall] = []
    tts = GuardedTts(ScriptedTts(Script(tts_s=9.0)), first_timeout_s=2.0)
    watch_calls([tts], seen.append)
    with pytest.raises(ProviderTimeoutError):
        await read(tts.synthesize(TtsRequest("hello", "en")))
    assert told(seen)[0] == ("TTS", "tts", 2.0, "provider_timeout")


@virtual
async def test_recognisers() -> None:
    seen: list[ProviderCall] = []
    script = Script(heard=["so", "so far", DOWN, "so far"], asr_s=0.3)
    asr = GuardedAsr(ScriptedAsr(script))
    watch_calls([asr], seen.append)
    stream = asr.open_stream(AsrRequest())
    stream.feed(bytes(640))
    await stream.interim()
    await stream.finish()
    again = asr.open_stream(AsrRequest())
    again.feed(bytes(640))
    await again.finish()
    ok = ("ASR", "asr", 0.3, "")
    assert told(seen) == [ok, ok, ("ASR", "asr", 0.3, "provider_unavailable"), ok]


@virtual
async def test_a_recogniser_that_failed_while_it_was_fed_is_told_when_its_text_is_wanted() -> None:
    class Deaf(ScriptedAsr):
        def open_stream(self, request: AsrRequest) -> Any:
            raise ProviderError("no more streams", provider="asr")

    seen: list[ProviderCall] = []
    asr: AsrProvider[Any] = GuardedAsr(Deaf(Script()))
    watch_calls([asr], seen.append)
    stream = asr.open_stream(AsrRequest())
    assert not seen
    with pytest.raises(ProviderError):
        await stream.finish()
    assert told(seen) == [("ASR", "asr", 0.0, "provider")]


@virtual
async def test_vision_models() -> None:
    class Eye(VllmProvider[ProviderOptions]):
        async def describe(self, request: VisionRequest) -> str:
            await asyncio.sleep(1.5)
            return "a cat"

    seen: list[ProviderCall] = []
    eye = GuardedVllm(Eye("Eye", ProviderOptions(type="scripted")))
    watch_calls([eye], seen.append)
    assert await eye.describe(VisionRequest("what?", b"\xff\xd8", "image/jpeg")) == "a cat"
    assert told(seen) == [("VLLM", "Eye", 1.5, "")]


@virtual
async def test_nobody_need_watch() -> None:
    llm = GuardedLlm(ScriptedLlm(Script(replies=[["One."]])))
    assert await read(llm.generate(ASK)) == 2


async def test_providers_without_a_guard_are_left_alone() -> None:
    watch_calls([ScriptedTts(Script())], lambda call: pytest.fail(str(call)))


def test_kinds() -> None:
    kinds = {guard.kind for guard in (GuardedAsr, GuardedLlm, GuardedTts, GuardedVllm)}
    assert kinds == {Kind.ASR, Kind.LLM, Kind.TTS, Kind.VLLM}
