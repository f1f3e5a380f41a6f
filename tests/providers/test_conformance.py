"""What every provider owes its callers, whoever wrote it. Run over everything that is registered."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
from pydantic import SecretStr, ValidationError

from mynah.providers import registry
from mynah.providers.base import (
    AsrProvider,
    AsrRequest,
    ChatMessage,
    Finish,
    IntentProvider,
    Kind,
    LlmProvider,
    LlmRequest,
    MemoryProvider,
    Provider,
    ProviderOptions,
    Role,
    TextDelta,
    ToolCall,
    Transcript,
    TtsProvider,
    TtsRequest,
    TurnDetectorProvider,
    VadProvider,
    VisionRequest,
    VllmProvider,
)
from tests.providers.turn import tiny_network
from tests.standins.process import stand_in

# Every registered type, with the options that let it work on this machine alone.
ENTRIES: dict[str, dict[str, Any]] = {
    "VAD.silero": {},
    "VAD.energy": {},
    "ASR.pocketsphinx": {},
    "ASR.fake": {"delay_ms": 5},
    "LLM.builtin": {},
    "LLM.openai": {"model_name": "normal", "api_key": "sk-conformance"},
    "LLM.fake": {"delay_ms": 5, "token_ms": 1},
    "VLLM.openai": {"model_name": "not-streamed", "api_key": "sk-conformance"},
    "VLLM.fake": {"delay_ms": 5},
    "TTS.espeak": {},
    "TTS.fake": {"delay_ms": 5},
    "Memory.nomem": {},
    "Intent.function_call": {},
    "Intent.nointent": {},
    "TurnDetector.smart_turn": {},
    "TurnDetector.fake": {"delay_ms": 5},
}
SENTENCES = {"en": "Good morning, how are you today?", "zh": "早上好，今天过得怎么样？"}


def of(kind: Kind) -> list[str]:
    return [name for name in ENTRIES if name.startswith(f"{kind}.")]


@pytest.fixture(scope="module")
def service() -> Iterator[str]:
    with stand_in("openai_server") as port:
        yield f"http://127.0.0.1:{port}/v1"


@pytest.fixture(scope="module", autouse=True)
def network(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Give the turn detector a model file; the real one is not part of the package."""
    path = tiny_network.write(tmp_path_factory.mktemp("turn") / "tiny.onnx")
    ENTRIES["TurnDetector.smart_turn"]["model"] = str(path)


def make(name: str, service: str) -> Provider[Any]:
    kind, _, type_ = name.partition(".")
    if type_ == "pocketsphinx" and find_spec("mynah.providers.asr.pocketsphinx") is None:
        pytest.skip("the recogniser is not built yet")
    entry = {"type": type_, **ENTRIES[name]}
    if type_ == "openai":
        entry["base_url"] = service
    return registry.create(Kind(kind), "Entry", entry)


@contextlib.asynccontextmanager
async def started(name: str, service: str) -> AsyncIterator[Any]:
    provider = make(name, service)
    await provider.start()
    try:
        yield provider
    finally:
        await provider.stop()


# ---------------------------------------------------------------- all


def test_nothing_registered_is_left_out() -> None:
    assert set(ENTRIES) == {f"{row.kind}.{row.type}" for row in registry.available()}


@pytest.mark.parametrize("name", ENTRIES)
def test_describes_itself_and_its_options(name: str, service: str) -> None:
    provider = make(name, service)
    assert provider.name == "Entry"
    assert 10 <= len(type(provider).summary) <= 90
    options = type(provider).Options
    assert issubclass(options, ProviderOptions)
    for key, field in options.model_fields.items():
        assert field.description, f"{name}: {key} is not described"
        assert not field.description.endswith("."), f"{name}: {key}"
    with pytest.raises(ValidationError):
        provider.options.type = "other"
    for key in options.model_fields:
        if key.endswith(("key", "token", "secret", "password")):
            assert options.model_fields[key].annotation in {SecretStr, SecretStr | None}, (
                f"{name}: {key} is not a secret"
            )


@pytest.mark.parametrize("name", ENTRIES)
async def test_starts_and_stops_any_number_of_times(name: str, service: str) -> None:
    provider = make(name, service)
    await provider.stop()
    for _ in range(2):
        await provider.start()
        await provider.stop()
    await provider.stop()


@pytest.mark.parametrize("name", ENTRIES)
async def test_starting_does_not_hold_up_the_event_loop(name: str, service: str) -> None:
    provider = make(name, service)
    longest = 0.0

    async def watch() -> None:
        nonlocal longest
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0.005)
            longest = max(longest, time.perf_counter() - before)

    watcher = asyncio.create_task(watch())
    await asyncio.sleep(0.02)
    await provider.start()
    await asyncio.sleep(0.02)
    watcher.cancel()
    await provider.stop()
    assert longest < 1.0  # imports the first time; a model that loads on the loop takes longer


# ---------------------------------------------------------------- voice detection


@pytest.mark.parametrize("name", of(Kind.VAD))
async def test_detector_tells_streams_apart(name: str, service: str) -> None:
    async with started(name, service) as provider:
        assert isinstance(provider, VadProvider)
        capabilities = provider.capabilities
        assert 0 < capabilities.threshold_low <= capabilities.threshold < 1
        assert capabilities.min_silence_ms > 0
        engine = provider.engine()
        slots = np.array([engine.open() for _ in range(40)])
        assert len(set(slots.tolist())) == 40
        quiet = np.zeros((40, engine.chunk_samples), np.float32)
        for _ in range(20):
            heard = engine.process(slots, quiet)
        assert heard.shape == (40,)
        assert np.all((heard >= 0) & (heard < capabilities.threshold_low))
        assert engine.process(slots[:0], quiet[:0]).shape == (0,)
        for slot in slots.tolist():
            engine.close(slot)
        assert engine.open() in slots


# ---------------------------------------------------------------- recognition


@pytest.mark.parametrize("name", of(Kind.ASR))
async def test_recogniser_hears_nothing_in_nothing(name: str, service: str) -> None:
    async with started(name, service) as provider:
        assert isinstance(provider, AsrProvider)
        assert provider.capabilities.languages
        transcript = await provider.open_stream(AsrRequest()).finish()
        assert isinstance(transcript, Transcript)
        assert transcript.text == ""


@pytest.mark.parametrize("name", of(Kind.ASR))
async def test_recogniser_takes_audio_without_blocking_and_several_at_once(name: str, service: str) -> None:
    async with started(name, service) as provider:
        rate = provider.capabilities.sample_rate
        frame = np.random.default_rng(1).integers(-300, 300, rate * 60 // 1000).astype("<i2").tobytes()

        async def utterance() -> tuple[Transcript, float]:
            stream = provider.open_stream(AsrRequest(language=provider.capabilities.languages[0]))
            slowest = 0.0
            for _ in range(20):
                before = time.perf_counter()
                stream.feed(frame)
                slowest = max(slowest, time.perf_counter() - before)
                await asyncio.sleep(0)
            return await stream.finish(), slowest

        async with asyncio.timeout(30):
            results = await asyncio.gather(*(utterance() for _ in range(3)))
        assert all(isinstance(transcript, Transcript) for transcript, _ in results)
        assert max(slowest for _, slowest in results) < 0.1


@pytest.mark.parametrize("name", of(Kind.ASR))
async def test_recogniser_can_be_cancelled_at_any_moment(name: str, service: str) -> None:
    async with started(name, service) as provider:
        unfed = provider.open_stream(AsrRequest())
        unfed.cancel()
        unfed.cancel()
        fed = provider.open_stream(AsrRequest())
        fed.feed(bytes(1920))
        fed.cancel()
        fed.feed(bytes(1920))
        fed.cancel()
        finishing = provider.open_stream(AsrRequest())
        finishing.feed(bytes(32000))
        task = asyncio.create_task(finishing.finish())
        await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        finishing.cancel()
        async with asyncio.timeout(30):
            assert (await provider.open_stream(AsrRequest()).finish()).text == ""


# ---------------------------------------------------------------- language models


def ask(language: str) -> LlmRequest:
    return LlmRequest(messages=(ChatMessage(role=Role.USER, content=SENTENCES[language]),), language=language)


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("name", of(Kind.LLM))
async def test_model_answers_and_finishes_once(name: str, language: str, service: str) -> None:
    async with started(name, service) as provider:
        assert isinstance(provider, LlmProvider)

        async def reply() -> list[Any]:
            return [chunk async for chunk in provider.generate(ask(language))]

        for chunks in await asyncio.gather(*(reply() for _ in range(4))):
            assert [type(chunk) for chunk in chunks].count(Finish) == 1
            assert isinstance(chunks[-1], Finish)
            assert all(isinstance(chunk, TextDelta | ToolCall) for chunk in chunks[:-1])
            assert all(chunk.text for chunk in chunks if isinstance(chunk, TextDelta))
            assert len(chunks) > 1


@pytest.mark.parametrize("name", of(Kind.LLM))
async def test_model_can_be_left_in_the_middle(name: str, service: str) -> None:
    async with started(name, service) as provider, asyncio.timeout(5):
        never_begun = provider.generate(ask("en"))
        await never_begun.aclose()
        async with contextlib.aclosing(provider.generate(ask("en"))) as reply:
            await anext(reply)
        task = asyncio.create_task(anext(provider.generate(ask("en"))))
        await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert [chunk async for chunk in provider.generate(ask("en"))]


# ---------------------------------------------------------------- vision models


def picture(language: str = "en") -> VisionRequest:
    question = {"en": "What is this?", "zh": "这是什么？"}[language]
    return VisionRequest(b"\xff\xd8\xff\xe0" + bytes(2000), "image/jpeg", question, language)


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("name", of(Kind.VLLM))
async def test_vision_model_answers_several_at_once(name: str, language: str, service: str) -> None:
    async with started(name, service) as provider:
        assert isinstance(provider, VllmProvider)
        assert "image/jpeg" in provider.capabilities.media_types
        answers = await asyncio.gather(*(provider.describe(picture(language)) for _ in range(4)))
        assert all(answer.strip() for answer in answers)


@pytest.mark.parametrize("name", of(Kind.VLLM))
async def test_vision_model_can_be_left_in_the_middle(name: str, service: str) -> None:
    async with started(name, service) as provider, asyncio.timeout(5):
        task = asyncio.create_task(provider.describe(picture()))
        await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert await provider.describe(picture())


# ---------------------------------------------------------------- voices


@pytest.mark.parametrize("name", of(Kind.TTS))
async def test_voice_speaks_every_language_it_claims(name: str, service: str) -> None:
    async with started(name, service) as provider:
        assert isinstance(provider, TtsProvider)
        for language in provider.capabilities.languages:
            request = TtsRequest(text=SENTENCES[language], language=language)
            pieces = [piece async for piece in provider.synthesize(request)]
            assert all(pieces)
            assert all(len(piece) % 2 == 0 for piece in pieces)
            sound = np.frombuffer(b"".join(pieces), "<i2").astype(float) / 32768
            assert 0.5 < len(sound) / provider.capabilities.sample_rate < 10
            assert 0.02 < np.sqrt(np.mean(sound**2)) < 0.5
            assert np.mean(np.abs(sound) > 0.999) < 0.001


@pytest.mark.parametrize("name", of(Kind.TTS))
async def test_voice_has_nothing_to_say_for_an_empty_sentence(name: str, service: str) -> None:
    async with started(name, service) as provider:
        for text in ("", " \n"):
            assert [piece async for piece in provider.synthesize(TtsRequest(text=text))] == []


@pytest.mark.parametrize("name", of(Kind.TTS))
async def test_voice_can_be_left_in_the_middle(name: str, service: str) -> None:
    async with started(name, service) as provider, asyncio.timeout(5):
        request = TtsRequest(text=SENTENCES["en"] * 10)
        await provider.synthesize(request).aclose()
        async with contextlib.aclosing(provider.synthesize(request)) as pieces:
            await anext(pieces)
        assert [piece async for piece in provider.synthesize(TtsRequest(text=SENTENCES["en"]))]


# ---------------------------------------------------------------- memory, intent


@pytest.mark.parametrize("name", of(Kind.MEMORY))
async def test_memory_takes_in_and_gives_text(name: str, service: str) -> None:
    async with started(name, service) as provider:
        assert isinstance(provider, MemoryProvider)
        await provider.remember("aa:bb", (ChatMessage(role=Role.USER, content="My name is Ann."),))
        assert isinstance(await provider.recall("aa:bb", "name"), str)


@pytest.mark.parametrize("name", of(Kind.INTENT))
async def test_intent_says_whether_tools_are_offered(name: str, service: str) -> None:
    async with started(name, service) as provider:
        assert isinstance(provider, IntentProvider)
        assert isinstance(provider.offers_tools, bool)


# ---------------------------------------------------------------- end of turn


@pytest.mark.parametrize("name", of(Kind.TURN_DETECTOR))
async def test_turn_detector_judges_any_sound_and_several_at_once(name: str, service: str) -> None:
    async with started(name, service) as provider:
        assert isinstance(provider, TurnDetectorProvider)
        assert 0 < provider.threshold < 1
        sound = np.random.default_rng(2).integers(-9000, 9000, 160000).astype("<i2").tobytes()
        for pcm in (b"", b"\0", sound[:640], sound):
            answers = await asyncio.gather(*(provider.probability(pcm) for _ in range(3)))
            assert all(0 <= answer <= 1 for answer in answers)
            assert len(set(answers)) == 1


@pytest.mark.parametrize("name", of(Kind.TURN_DETECTOR))
async def test_turn_detector_can_be_left_in_the_middle(name: str, service: str) -> None:
    async with started(name, service) as provider, asyncio.timeout(5):
        task = asyncio.create_task(provider.probability(bytes(64000)))
        await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert 0 <= await provider.probability(bytes(64000)) <= 1
