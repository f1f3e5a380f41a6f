"""The server under test: its configuration's delays, its start and its end."""

from __future__ import annotations

import pytest

from mynah.bench.server import FakeDelays, ServerUnderTest, fakes_file, known_delays
from mynah.config import load
from mynah.errors import ConfigError, MynahError


async def test_the_known_delays_follow_from_the_fakes() -> None:
    settings = load(fakes_file(), environ={})
    # 50 ms recogniser, 50 ms to the first token, whose comma ends the first clause, 50 ms voice.
    assert await known_delays(settings) == FakeDelays(asr=50, first_audio=150, silence=200)
    one_sentence = load(
        fakes_file(),
        [
            "LLM.FakeLLM.text=one two three four. And more.",
            "TTS.FakeTTS.delay_ms=0",
            "VAD.SileroVAD.min_silence_duration_ms=300",
        ],
        environ={},
    )
    # A full stop ends a sentence only when the next token begins with a space: the fifth token.
    assert await known_delays(one_sentence) == FakeDelays(asr=50, first_audio=50 + 50 + 4 * 10, silence=300)


async def test_only_fakes_have_known_delays() -> None:
    settings = load(fakes_file(), ["selected_module.TTS=EspeakTTS"], environ={})
    with pytest.raises(ConfigError, match="fake"):
        await known_delays(settings)


@pytest.mark.e2e
def test_it_starts_and_says_what_it_used() -> None:
    with ServerUnderTest("conversation.speculation=false") as server:
        url = server.url()
        assert url.startswith("ws://127.0.0.1:")
        assert url == server.url()
        report = server.stop()
    assert 0 < report.cpu_s < 5
    assert report.summary.startswith("0 turns")


@pytest.mark.e2e
def test_a_server_that_cannot_start_is_an_error() -> None:
    with ServerUnderTest("selected_module.LLM=NoSuchLLM") as server, pytest.raises(MynahError, match="start"):
        server.url()
