"""What a voice during a reply is: judged by its words where they come in time, else by its length."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mynah.dialogue.interruption import (
    DECIDE_S,
    HARDER_FACTOR,
    HARDEST_MS,
    HOLD_SPEECH_MS,
    LISTEN_S,
    SURE_SPEECH_MS,
    Judgement,
    is_backchannel,
    is_echo,
    is_interruption,
    judge,
)
from mynah.providers.base import Transcript
from mynah.texts import variants
from tests.fakes import PROVIDER_DOWN
from tests.virtual_time import run

PLAYING = "Once upon a time there was a small mynah bird. 从前有一只小鸟。"


@dataclass
class Voice:
    """Somebody who speaks for ``speaks_s``; the recogniser takes ``asr_s``."""

    speaks_s: float
    words: str | Exception = "stop that please"
    asr_s: float = 0.05
    ends_after_s: float = 0.5
    asked_at: float = -1.0

    def __post_init__(self) -> None:
        self.begun = asyncio.get_running_loop().time()

    @property
    def _now(self) -> float:
        return asyncio.get_running_loop().time() - self.begun

    @property
    def silence_ms(self) -> float:
        return max(0.0, self._now - self.speaks_s) * 1000

    @property
    def voiced_ms(self) -> float:
        return HOLD_SPEECH_MS + min(self._now, self.speaks_s) * 1000

    @property
    def hearing(self) -> bool:
        return self._now < self.speaks_s + self.ends_after_s

    async def interim(self) -> Transcript:
        self.asked_at = self._now
        await asyncio.sleep(self.asr_s)
        if isinstance(self.words, Exception):
            raise self.words
        return Transcript(self.words)


def judged(playing: str = PLAYING, **voice: object) -> tuple[Judgement, float, Voice]:
    async def main() -> tuple[Judgement, float, Voice]:
        heard = Voice(**voice)  # type: ignore[arg-type]
        judgement = await judge(heard, lambda: playing)
        return judgement, heard._now, heard

    return run(main())


def test_words_are_asked_for_when_the_voice_falls_silent() -> None:
    judgement, took, voice = judged(speaks_s=0.2)
    assert judgement == Judgement(real=True, over=False, words=True)
    assert voice.asked_at == pytest.approx(0.2 + HOLD_SPEECH_MS / 1000, abs=0.03)
    assert took < 0.45


def test_who_does_not_fall_silent_is_listened_to_for_a_while_only() -> None:
    judgement, took, voice = judged(speaks_s=5.0)
    assert judgement.real
    assert voice.asked_at == pytest.approx(LISTEN_S, abs=0.03)
    assert took < DECIDE_S


def test_an_utterance_that_has_ended_is_over() -> None:
    assert judged(speaks_s=0.1, ends_after_s=0.2, asr_s=0.3)[0] == Judgement(real=True, over=True, words=True)
    assert judged(speaks_s=0.1, ends_after_s=0.2, asr_s=0.3, words="mhm")[0] == Judgement(words=True)


@pytest.mark.parametrize(("speaks_s", "real"), [(0.1, False), (0.25, False), (0.4, True), (3.0, True)])
@pytest.mark.parametrize("asr_s", [60.0, 0.9])
def test_a_slow_recogniser_leaves_the_length_to_decide_in_time(
    speaks_s: float, real: bool, asr_s: float
) -> None:
    judgement, took, _ = judged(speaks_s=speaks_s, asr_s=asr_s)
    assert judgement.real is real
    assert took == pytest.approx(DECIDE_S, abs=0.03)


@pytest.mark.parametrize(("speaks_s", "real"), [(0.2, False), (0.5, True)])
def test_a_failing_recogniser_leaves_the_length_to_decide(speaks_s: float, real: bool) -> None:
    judgement, took, _ = judged(speaks_s=speaks_s, words=PROVIDER_DOWN)
    assert judgement.real is real
    assert took < DECIDE_S


def test_a_cough_is_nothing_and_a_long_voice_without_words_is_something() -> None:
    assert judged(speaks_s=0.3, words="")[0] == Judgement()
    judgement, took, _ = judged(speaks_s=3.0, words="…")
    assert judgement.real
    assert took == pytest.approx(DECIDE_S, abs=0.03), "words may come"


@pytest.mark.parametrize("words", ["mhm", "Uh-huh.", "Okay!", "嗯", "嗯嗯。", "好"])
def test_backchannels_of_both_languages_do_not_interrupt(words: str) -> None:
    assert is_backchannel(words)
    assert judged(speaks_s=0.4, words=words)[0] == Judgement(words=True)


@pytest.mark.parametrize("words", ["okay stop", "no", "stop", "停", "不对", "嗯不是"])
def test_other_words_do(words: str) -> None:
    assert judged(speaks_s=0.4, words=words)[0].real


def test_every_backchannel_of_the_texts_is_one() -> None:
    for language in ("en", "zh"):
        phrases = variants("backchannels", language)
        assert len(phrases) > 5
        assert all(is_backchannel(phrase) and not is_interruption(phrase, 2000, "") for phrase in phrases)


@pytest.mark.parametrize(
    ("words", "echo"),
    [
        ("once upon a time", True),
        ("there was a small minor bird", True),  # one word of six misheard
        ("a small bird", False),  # said by chance
        ("was there a time", False),
        ("small minor birch", False),
        ("从前有一只", True),
        ("从前有一头牛", False),
        ("stop", False),
        ("", False),
        ("…", False),
    ],
)
def test_an_echo_is_of_what_is_being_spoken(words: str, echo: bool) -> None:
    assert is_echo(words, PLAYING) is echo
    if words.strip("…"):
        assert is_interruption(words, 500, PLAYING) is not echo


def test_what_plays_is_asked_for_at_the_end() -> None:
    """A recogniser lags behind: what is echoed may have begun after the voice did."""

    async def main() -> Judgement:
        voice = Voice(0.3, "a brand new sentence")
        return await judge(voice, lambda: "A brand new sentence." if voice.asked_at > 0 else "Old.")

    assert run(main()) == Judgement(words=True)


@given(st.one_of(st.none(), st.text(max_size=30)), st.floats(0, 5000), st.text(max_size=60))
def test_more_speech_is_never_less_of_an_interruption(
    words: str | None, voiced_ms: float, playing: str
) -> None:
    if is_interruption(words, voiced_ms, playing):
        assert is_interruption(words, voiced_ms + 1000, playing)


def test_the_bounds_make_sense_together() -> None:
    assert HOLD_SPEECH_MS < SURE_SPEECH_MS < DECIDE_S * 1000
    assert LISTEN_S < DECIDE_S
    assert HARDEST_MS >= HOLD_SPEECH_MS * HARDER_FACTOR


@pytest.mark.parametrize("words", ["Stop.", "wait a minute", "hold on", "停！", "等一下", "不要说了"])
def test_some_words_always_interrupt(words: str) -> None:
    said = "Wait a minute and hold on to it until it does not stop. 等一下再说，不要说了，停在这里。"
    assert is_interruption(words, 200, said)
