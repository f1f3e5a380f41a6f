"""The fakes keep their times exactly, because every latency figure is measured against them."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from mynah import config
from mynah.errors import ProviderUnavailableError
from mynah.providers import registry
from mynah.providers.base import (
    AsrProvider,
    AsrRequest,
    Finish,
    Kind,
    LlmProvider,
    LlmRequest,
    Provider,
    TextDelta,
    TtsProvider,
    TtsRequest,
)
from mynah.providers.tts.fake import babble
from tests.virtual_time import virtual

FAKES_YAML = Path(__file__).parents[2] / "benchmarks" / "fakes.yaml"


def fake(kind: Kind, **options: Any) -> Any:
    return registry.create(kind, "Fake", {"type": "fake", **options})


async def collect(llm: LlmProvider[Any], language: str = "en") -> list[tuple[float, Any]]:
    clock = asyncio.get_running_loop().time
    started = clock()
    return [
        (round((clock() - started) * 1000, 3), chunk)
        async for chunk in llm.generate(LlmRequest(messages=(), language=language))
    ]


@pytest.mark.parametrize("language", ["en", "zh"])
@virtual
async def test_llm_says_twenty_tokens_in_two_or_three_sentences_on_schedule(language: str) -> None:
    chunks = await collect(fake(Kind.LLM), language)
    assert [at for at, _ in chunks] == [50.0 + 10 * n for n in range(20)] + [240.0]
    text = "".join(chunk.text for _, chunk in chunks if isinstance(chunk, TextDelta))
    assert 2 <= sum(text.count(mark) for mark in ".。") <= 3
    assert chunks[-1][1] == Finish(prompt_tokens=0, completion_tokens=20)


@pytest.mark.parametrize(
    "text", ["Hello, world!  Two spaces.", "你好，世界！OK?", " lead and trail ", "一", ""]
)
@virtual
async def test_llm_says_exactly_its_text(text: str) -> None:
    chunks = await collect(fake(Kind.LLM, text=text, delay_ms=0, token_ms=1))
    assert "".join(chunk.text for _, chunk in chunks if isinstance(chunk, TextDelta)) == text


@virtual
async def test_asr_answers_after_its_delay_and_hears_nothing_in_nothing() -> None:
    asr: AsrProvider[Any] = fake(Kind.ASR, text="hello")
    clock = asyncio.get_running_loop().time
    stream = asr.open_stream(AsrRequest(language="en"))
    stream.feed(b"\0\0" * 960)
    await asyncio.sleep(1)
    finished = clock()
    assert (await stream.finish()).text == "hello"
    assert clock() - finished == pytest.approx(0.05)
    assert (await asr.open_stream(AsrRequest()).finish()).text == ""


@virtual
async def test_asr_without_a_text_asks_in_the_language_of_the_request() -> None:
    stream = fake(Kind.ASR).open_stream(AsrRequest(language="zh"))
    stream.feed(b"\0\0")
    assert (await stream.finish()).text == "现在几点了？"


@virtual
async def test_tts_babbles_two_seconds_after_its_delay() -> None:
    tts: TtsProvider[Any] = fake(Kind.TTS)
    clock = asyncio.get_running_loop().time
    started = clock()
    times, pieces = [], []
    async for piece in tts.synthesize(TtsRequest(text="anything")):
        times.append(clock() - started)
        pieces.append(piece)
    assert times[0] == times[-1] == pytest.approx(0.05)
    assert {len(piece) for piece in pieces} == {3200}
    pcm = b"".join(pieces)
    assert len(pcm) == 2 * 16000 * tts.capabilities.sample_rate // 8000
    level = np.sqrt(np.mean((np.frombuffer(pcm, "<i2") / 32768) ** 2))
    assert 0.05 < level < 0.4


@virtual
async def test_tts_says_nothing_for_an_empty_sentence() -> None:
    assert [piece async for piece in fake(Kind.TTS).synthesize(TtsRequest(text="  "))] == []


async def test_babble_sounds_like_speech_to_the_real_detector() -> None:
    vad: Any = registry.create(Kind.VAD, "SileroVAD", {"type": "silero"})
    await vad.start()
    try:
        engine = vad.engine()
        sound = np.frombuffer(babble(2.0), "<i2").astype(np.float32) / 32768
        slot = np.array([engine.open()])
        size = engine.chunk_samples
        chunks = sound[: len(sound) // size * size].reshape(-1, 1, size)
        heard = [float(engine.process(slot, chunk)[0]) for chunk in chunks]
    finally:
        await vad.stop()
    assert sum(one > 0.5 for one in heard) > 0.5 * len(heard)


async def use_once(provider: Provider[Any]) -> None:
    if isinstance(provider, LlmProvider):
        await collect(provider)
    elif isinstance(provider, TtsProvider):
        async for _ in provider.synthesize(TtsRequest(text="x")):
            pass
    elif isinstance(provider, AsrProvider):
        await provider.open_stream(AsrRequest()).finish()


@pytest.mark.parametrize("kind", [Kind.ASR, Kind.LLM, Kind.TTS])
@virtual
async def test_error_rate_and_seed(kind: Kind) -> None:
    async def failures(seed: int) -> list[bool]:
        provider = fake(kind, error_rate=0.5, seed=seed, delay_ms=1)
        outcome = []
        for _ in range(40):
            try:
                await use_once(provider)
                outcome.append(False)
            except ProviderUnavailableError:
                outcome.append(True)
        return outcome

    first = await failures(7)
    assert 8 < sum(first) < 32
    assert first == await failures(7)
    assert first != await failures(8)


@pytest.mark.parametrize("kind", [Kind.ASR, Kind.LLM, Kind.TTS])
@virtual
async def test_hang_outlasts_every_time_out_and_can_be_cancelled(kind: Kind) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(3600):
            await use_once(fake(kind, hang=True))


def test_benchmark_configuration_loads() -> None:
    settings = config.load(FAKES_YAML, environ={})
    assert settings.server.auth.enabled is False
    made: dict[Kind, Any] = {}
    for section in ("VAD", "ASR", "LLM", "TTS", "Memory", "Intent"):
        name = getattr(settings.selected_module, section)
        made[Kind(section)] = registry.create(Kind(section), name, getattr(settings, section)[name])
    assert made[Kind.VAD].capabilities.min_silence_ms == 200
    assert not made[Kind.INTENT].offers_tools
    assert [made[kind].options.type for kind in (Kind.ASR, Kind.LLM, Kind.TTS)] == ["fake"] * 3


def test_benchmark_delays_are_the_published_ones() -> None:
    raw = yaml.safe_load(FAKES_YAML.read_text(encoding="utf-8"))
    asr = registry.create(Kind.ASR, "FakeASR", raw["ASR"]["FakeASR"]).options
    llm = registry.create(Kind.LLM, "FakeLLM", raw["LLM"]["FakeLLM"]).options
    tts = registry.create(Kind.TTS, "FakeTTS", raw["TTS"]["FakeTTS"]).options
    assert (asr.delay_ms, llm.delay_ms, llm.token_ms, tts.delay_ms, tts.seconds) == (50, 50, 10, 50, 2.0)


def test_listing_does_not_import_vendors() -> None:
    program = (
        "import sys; from mynah.providers import registry; registry.available();"
        "print({*sys.modules} & {'pocketsphinx', 'espeakng_loader', 'onnxruntime', 'av', 'aiohttp'})"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
