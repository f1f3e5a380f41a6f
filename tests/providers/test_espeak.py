"""The embedded voice as a provider: streaming, both languages, mistakes in its settings."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from mynah.audio.espeak import MAX_TEXT, SAMPLE_RATE
from mynah.errors import ConfigError, ProviderError, ProviderRejectedError
from mynah.providers import registry
from mynah.providers.base import Kind, TtsRequest
from mynah.providers.tts.espeak import EspeakTts


@contextlib.asynccontextmanager
async def voice(**options: Any) -> AsyncIterator[EspeakTts]:
    tts = registry.create(Kind.TTS, "Voice", {"type": "espeak", **options})
    assert isinstance(tts, EspeakTts)
    await tts.start()
    try:
        yield tts
    finally:
        await tts.stop()


async def say(tts: EspeakTts, text: str, language: str = "en", name: str = "") -> bytes:
    request = TtsRequest(text=text, language=language, voice=name)
    return b"".join([piece async for piece in tts.synthesize(request)])


def seconds(pcm: bytes) -> float:
    return len(pcm) / 2 / SAMPLE_RATE


async def test_both_languages_at_a_human_pace() -> None:
    async with voice() as tts:
        assert tts.capabilities.sample_rate == SAMPLE_RATE
        english = await say(tts, "The quick brown fox jumps over the lazy dog near the river bank today.")
        chinese = await say(tts, "今天天气很好，我们一起去公园散步吧。", "zh")
    assert 130 < 14 / seconds(english) * 60 < 240  # words a minute
    assert 3.5 < 16 / seconds(chinese) < 6.5  # characters a second


async def test_pieces_come_while_it_still_works() -> None:
    async with voice() as tts:
        pieces = [
            piece
            async for piece in tts.synthesize(TtsRequest(text="This is a sentence of some length. " * 5))
        ]
    assert len(pieces) > 5
    assert seconds(pieces[0]) < 0.2
    assert all(len(piece) % 2 == 0 for piece in pieces)


async def test_words_of_the_other_language_get_its_voice() -> None:
    async with voice() as tts:
        mixed = await say(tts, "播放 Taylor Swift 的歌。", "zh")
        spelled = await say(tts, "播放 Taylor Swift 的歌。", "zh", "cmn")
        assert mixed != spelled
        assert 0.8 < seconds(mixed) < 4


@pytest.mark.parametrize("text", ["", "   ", "…", "😀🎉", "***", "。！"])
async def test_nothing_to_say_is_no_audio(text: str) -> None:
    async with voice() as tts:
        assert await say(tts, text) == b""


async def test_gap_and_speed_and_gender() -> None:
    async with voice(gap_ms=0) as plain, voice(gap_ms=500) as gap, voice(gap_ms=0, speed=2) as fast:
        text = "Good morning to you all."
        base = await say(plain, text)
        assert seconds(await say(gap, text)) - seconds(base) == pytest.approx(0.5, abs=0.05)
        assert seconds(await say(fast, text)) < 0.75 * seconds(base)
    async with voice(gap_ms=0, gender="male") as man, voice(gap_ms=0, variant="f2") as other:
        assert len({base, await say(man, text), await say(other, text)}) == 3


async def test_any_other_language_of_the_library_works() -> None:
    async with voice() as tts:
        assert seconds(await say(tts, "Guten Morgen zusammen.", "de")) > 0.5
        with pytest.raises(ProviderRejectedError, match="tlh-none") as caught:
            await say(tts, "nuqneH", "tlh-none")
        assert caught.value.provider == "Voice"
        assert await say(tts, "Still alive.")


async def test_endless_text_is_refused() -> None:
    async with voice() as tts:
        with pytest.raises(ProviderRejectedError, match="too long"):
            await say(tts, "word " * MAX_TEXT)


async def test_stopping_early_lets_the_next_sentence_through() -> None:
    async with voice() as tts:
        for _ in range(20):
            async with contextlib.aclosing(
                tts.synthesize(TtsRequest(text="A long sentence. " * 100))
            ) as pieces:
                await anext(pieces)
        async with asyncio.timeout(2):
            assert await say(tts, "Next.")


async def test_many_sentences_at_once_stay_apart() -> None:
    texts = [f"This is {'really ' * number}a sentence." for number in range(12)]
    async with voice() as tts:
        alone = [seconds(await say(tts, text)) for text in texts]
        together = await asyncio.gather(*(say(tts, text) for text in texts))
    # The library varies the same sentence by some tens of milliseconds; one "really" takes more than 0.2 s.
    assert [seconds(pcm) for pcm in together] == pytest.approx(alone, abs=0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"voice_en": "en-usa"}, "voice_en.*en-usa.*en-us"),
        ({"voice_zh": "cn"}, "voice_zh.*'cn'"),
        ({"variant": "f99"}, "variant.*f99.*f3"),
    ],
)
async def test_unknown_voices_are_named_at_start(options: dict[str, Any], message: str) -> None:
    tts = registry.create(Kind.TTS, "Voice", {"type": "espeak", **options})
    try:
        with pytest.raises(ProviderRejectedError, match=message):
            await tts.start()
    finally:
        await tts.stop()


def test_options_out_of_range_are_named() -> None:
    with pytest.raises(ConfigError, match=r"TTS\.Voice\.speed"):
        registry.create(Kind.TTS, "Voice", {"type": "espeak", "speed": 9})


async def test_not_started_and_stopped_twice() -> None:
    tts = registry.create(Kind.TTS, "Voice", {"type": "espeak"})
    assert isinstance(tts, EspeakTts)
    with pytest.raises(ProviderError, match="not started"):
        await say(tts, "Hello.")
    await tts.start()
    await tts.stop()
    await tts.stop()
