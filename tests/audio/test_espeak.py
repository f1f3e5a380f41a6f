"""eSpeak NG in-process: the text that reaches it, the audio that comes back."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mynah.audio import espeak
from mynah.audio.espeak import (
    MAX_TEXT,
    SAMPLE_RATE,
    Delivery,
    EspeakSynthesizer,
    Span,
    script_runs,
    speakable,
)
from mynah.errors import AudioError

ENGLISH = Span(text="Good morning! It is seven o'clock, and the weather is fine.", voice="en-us+f3")
CHINESE = Span(text="早上好！现在是七点钟，今天天气很好。", voice="cmn+f3", delivery=Delivery(rate_wpm=225))


@pytest.fixture(scope="module")
def synthesizer() -> Iterator[EspeakSynthesizer]:
    made = EspeakSynthesizer()
    yield made
    made.close()


def same(one: bytes, other: bytes) -> bool:
    """Whether two recordings are of the same sentence by the same voice; the library varies by some milliseconds."""
    return abs(len(one) - len(other)) / 2 / SAMPLE_RATE < 0.05


def samples(pcm: bytes) -> np.ndarray:
    return np.frombuffer(pcm, "<i2").astype(float) / 32768


# ---------------------------------------------------------------- audio


@pytest.mark.parametrize(("span", "shortest", "longest"), [(ENGLISH, 2.5, 5.0), (CHINESE, 2.5, 5.0)])
def test_speech_has_a_plausible_length_and_level(
    synthesizer: EspeakSynthesizer, span: Span, shortest: float, longest: float
) -> None:
    sound = samples(synthesizer.render([span]))
    assert shortest < len(sound) / SAMPLE_RATE < longest
    assert 0.04 < np.sqrt(np.mean(sound**2)) < 0.25
    assert 0.3 < np.max(np.abs(sound)) < 0.999


def test_silence_is_cut_and_the_gap_is_exact(synthesizer: EspeakSynthesizer) -> None:
    bare, spaced = (synthesizer.render([CHINESE], gap_s=gap) for gap in (0.0, 0.25))
    loud = np.flatnonzero(np.abs(samples(bare)) > 0.004)
    assert loud[0] / SAMPLE_RATE < 0.02
    assert (len(bare) // 2 - loud[-1]) / SAMPLE_RATE < 0.02
    gap = round(0.25 * SAMPLE_RATE) * 2
    assert not any(spaced[-gap:])
    assert np.max(np.abs(samples(spaced[-gap - 400 : -gap]))) > 0.003


def test_much_faster_than_real_time_and_the_first_piece_is_early(synthesizer: EspeakSynthesizer) -> None:
    synthesizer.render([ENGLISH])  # loads
    arrived: list[tuple[float, int]] = []
    started = time.perf_counter()

    def take(pcm: bytes) -> bool:
        arrived.append((time.perf_counter() - started, len(pcm)))
        return True

    synthesizer.submit([ENGLISH], take).result()
    seconds = sum(size for _, size in arrived) / 2 / SAMPLE_RATE
    assert len(arrived) > 3
    assert arrived[0][1] < 0.2 * SAMPLE_RATE * 2
    assert arrived[0][0] < arrived[-1][0]  # how much earlier is for a benchmark
    assert arrived[-1][0] < 0.5 * seconds  # 0.001 on an idle machine


def test_speed_and_voice_make_a_difference(synthesizer: EspeakSynthesizer) -> None:
    normal, fast, other = (
        synthesizer.render([Span(ENGLISH.text, voice, Delivery(rate_wpm=rate))])
        for voice, rate in (("en-us+f3", 165), ("en-us+f3", 330), ("de+m3", 165))
    )
    assert len(fast) < 0.7 * len(normal)
    assert not same(other, normal)


def test_spans_follow_one_another(synthesizer: EspeakSynthesizer) -> None:
    both = synthesizer.render([ENGLISH, CHINESE])
    alone = [synthesizer.render([span]) for span in (ENGLISH, CHINESE)]
    assert len(both) == pytest.approx(sum(map(len, alone)), rel=0.05)


def test_stopping_stops_and_leaves_the_library_usable(synthesizer: EspeakSynthesizer) -> None:
    taken: list[int] = []

    def take(pcm: bytes) -> bool:
        taken.append(len(pcm))
        return False

    whole = synthesizer.render([ENGLISH])
    synthesizer.submit([ENGLISH, CHINESE], take).result()
    assert len(taken) == 1
    assert same(synthesizer.render([ENGLISH]), whole)


def test_many_threads_do_not_mix_their_voices() -> None:
    spans = [ENGLISH, CHINESE, Span("One two three four five.", "de+m3"), Span("Hello.", "en-gb")]
    makers = [EspeakSynthesizer() for _ in spans]
    try:
        alone = [maker.render([span]) for maker, span in zip(makers, spans, strict=True)]
        with ThreadPoolExecutor(len(spans)) as pool:
            for _ in range(5):
                together = list(
                    pool.map(lambda pair: pair[0].render([pair[1]]), zip(makers, spans, strict=True))
                )
                assert all(map(same, together, alone))
    finally:
        for maker in makers:
            maker.close()


def test_unknown_voice_and_endless_text(synthesizer: EspeakSynthesizer) -> None:
    with pytest.raises(AudioError, match="xx-none"):
        synthesizer.render([Span("hi", "xx-none")])
    with pytest.raises(AudioError, match="too long"):
        synthesizer.render([Span("a" * (MAX_TEXT + 1), "en-us")])
    assert synthesizer.render([Span(" ", "en-us")]) == b""


def test_voices_and_variants(synthesizer: EspeakSynthesizer) -> None:
    names = {voice.name for voice in synthesizer.voices()}
    assert {"en-us", "en-gb", "cmn", "yue", "de", "fr"} <= names
    assert len(names) > 100
    assert {"f3", "m3"} <= set(synthesizer.variants())


def test_close_lets_the_thread_go() -> None:
    made = EspeakSynthesizer()
    made.render([ENGLISH])
    made.close()
    made.close()
    with pytest.raises(RuntimeError):
        made.render([ENGLISH])


def test_data_behind_a_long_path_gets_a_short_one(tmp_path: Path) -> None:
    data = tmp_path / ("x" * 150) / "espeak-ng-data"
    data.mkdir(parents=True)
    (data / "phontab").write_bytes(b"")
    short = espeak._short_path(data)
    assert len(str(short)) <= espeak._LONGEST_DATA_PATH
    assert (short / "phontab").exists()
    assert espeak._short_path(Path("/short")) == Path("/short")


def test_worker_threads_have_a_name(synthesizer: EspeakSynthesizer) -> None:
    synthesizer.render([ENGLISH])
    assert any(thread.name.startswith("espeak") for thread in threading.enumerate())


# ---------------------------------------------------------------- text


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("Hello 😀 there!", "Hello there!"),
        ("👩‍👩‍👧 ☀️ 🇨🇳 👍🏽", ""),
        ("**Bold** and `code` # title", "Bold and code title"),
        ("21.5 °C & 50% of $3", "21.5 °C & 50% of $3"),
        ("a\x01b\0c\nd", "a b c d"),
        ("你好，世界！", "你好，世界！"),
        ("non\u200bbreaking\ufeff", "nonbreaking"),
        ("don't — stop…", "don't — stop…"),
    ],
)
def test_only_what_is_said_is_read_out(text: str, spoken: str) -> None:
    assert speakable(text) == spoken


@given(st.text())
def test_no_command_reaches_the_library(text: str) -> None:
    spoken = speakable(text)
    assert all(char >= " " for char in spoken)
    spoken.encode()
    assert speakable(spoken) == spoken


@pytest.mark.parametrize(
    ("text", "language", "runs"),
    [
        ("Hello there.", "en", [("en", "Hello there.")]),
        ("你好。", "zh", [("zh", "你好。")]),
        ("我想听 Taylor Swift 的歌。", "zh", [("zh", "我想听 "), ("en", "Taylor Swift "), ("zh", "的歌。")]),
        ("温度是25度，iPhone 15。", "zh", [("zh", "温度是25度，"), ("en", "iPhone "), ("zh", "15。")]),
        ("The word 你好 means hello.", "en", [("en", "The word "), ("zh", "你好 "), ("en", "means hello.")]),
        ("“好”", "en", [("zh", "“好”")]),
        ("12:30", "zh", [("zh", "12:30")]),
        ("Schöne Grüße", "de", [("de", "Schöne Grüße")]),
        ("你好 Bob", "yue", [("yue", "你好 "), ("en", "Bob")]),
        ("привет", "ru", [("ru", "привет")]),
        ("", "en", []),
    ],
)
def test_scripts_find_their_voice(text: str, language: str, runs: list[tuple[str, str]]) -> None:
    assert script_runs(text, language) == runs


@given(
    st.text(alphabet=st.one_of(st.sampled_from("ab你好1 ,。é'"), st.characters())),
    st.sampled_from(["en", "zh", "de"]),
)
def test_runs_lose_nothing(text: str, language: str) -> None:
    runs = script_runs(text, language)
    assert "".join(run for _, run in runs) == text
    assert all(first[0] != second[0] for first, second in itertools.pairwise(runs))
