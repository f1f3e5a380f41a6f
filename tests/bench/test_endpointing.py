"""The measurement of end of turn: that it says what it claims to, and that its policies are what they are called."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from mynah.bench import endpointing
from mynah.bench.endpointing import (
    _adaptive,
    _audible,
    _equal,
    _fixed,
    _oracle,
    _pocketsphinx,
    _recording,
    _Sentences,
    _Take,
    _takes,
    _through_opus,
    _Words,
)
from mynah.sim.voice import speak

pytestmark = pytest.mark.speech

FEW = _Sentences(
    unfinished=["我想听 | 周杰伦的歌"], finished=["打开客厅的灯 | 还有卧室的灯"], whole=["今天几号"]
)


@pytest.fixture
def takes(monkeypatch: pytest.MonkeyPatch) -> list[_Take]:
    monkeypatch.setattr(endpointing, "_sentences", lambda language: FEW)
    return _takes("zh")


@pytest.mark.parametrize("language", ["en", "zh"])
def test_there_are_enough_sentences_and_each_pauses_where_it_should(language: str) -> None:
    sentences = endpointing._sentences(language)
    assert len(sentences.unfinished) == len(sentences.finished) >= 15
    assert len(sentences.unfinished + sentences.finished + sentences.whole) >= 30
    assert all("|" in text for text in sentences.unfinished + sentences.finished)
    assert not any("|" in text for text in sentences.whole)


def test_the_pauses_are_exact_and_hold_nothing_but_the_room() -> None:
    pieces = [_audible(speak(text, "cmn", language="zh")) for text in ("你好", "谢谢")]
    sound, spans = _recording(pieces, np.random.default_rng(1), -62.0, (400, 401))
    assert spans[1][0] - spans[0][1] == 400
    for begin, end in spans:
        assert np.max(np.abs(sound[int(end * 16) - 80 : int(end * 16)])) > 0.001
        assert np.max(np.abs(sound[int(begin * 16) : int(end * 16)])) > 0.1
    gap = sound[int(spans[0][1] * 16) : int(spans[1][0] * 16)]
    assert 10 * np.log10(np.mean(gap**2)) == pytest.approx(-62, abs=1)
    assert len(_through_opus(sound)) // 2 > len(sound) - 960


def test_both_users_say_everything_with_pauses_of_their_own(takes: list[_Take]) -> None:
    assert sorted((take.user, take.number) for take in takes) == [(u, n) for u in (0, 1) for n in (0, 1, 2)]
    for take in takes:
        for one, other in zip(take.segments, take.segments[1:], strict=False):
            least, most = ((200, 450), (400, 900))[take.user]
            assert least <= other.begin_ms - one.end_ms < most
        arrivals = [decision.at_ms for decision in take.decided]
        assert arrivals == sorted(arrivals)
        assert all(at % 60 == 0 for at in arrivals)
        spoken = [
            d.probability
            for d in take.decided
            if take.segments[0].begin_ms + 100 < d.at_ms <= take.segments[0].end_ms
        ]
        assert np.mean(spoken) > 0.8


def test_a_short_silence_cuts_off_and_a_long_one_is_slow(takes: list[_Take]) -> None:
    short = [_fixed(take, 160) for take in takes]
    assert [outcome.cut_off for outcome in short] == [len(take.segments) > 1 for take in takes]
    long = [_fixed(take, 1200) for take in takes]
    assert not any(outcome.cut_off for outcome in long)
    assert all(1100 < outcome.latency_ms < 1300 for outcome in long)
    # A recogniser that takes its time delays every end.
    slow = _fixed(takes[0], 160, lambda take, at_ms: _Words("", 2000))
    assert 2000 < slow.latency_ms < 2400


def test_the_words_keep_the_unfinished_sentence_open(takes: list[_Take]) -> None:
    unfinished = [take for take in takes if take.number == 0 and take.user == 1]
    new, known = _adaptive(unfinished, 200, _oracle("zh"), "zh")
    assert not any(outcome.cut_off for outcome in new + known)
    assert new[0].latency_ms < 450
    blind, _ = _adaptive(unfinished, 200, None, "zh")
    assert blind[0].cut_off


def test_a_user_who_was_cut_off_is_waited_for_later(takes: list[_Take]) -> None:
    finished = [take for take in takes if take.number == 1] * 6
    outcomes, known = _adaptive(sorted(finished, key=lambda take: take.user), 200, _oracle("zh"), "zh")
    assert outcomes[0].cut_off
    assert not known[-1].cut_off
    assert known[-1].user == 1
    assert known[-1].latency_ms > 400


def test_the_comparison_is_with_the_fixed_silence_that_takes_as_long(takes: list[_Take]) -> None:
    fixed = {ms: [_fixed(take, ms) for take in takes] for ms in (200, 600, 1000)}
    assert _equal(fixed[600], fixed).startswith("; fixed 600 ms: ")


def test_the_figures_of_one_comparison(takes: list[_Take]) -> None:
    results = list(endpointing._compare("end of turn", "zh", takes, _oracle("zh"), waits=False))
    assert [result.unit for result in results[:2]] == ["ms", "%"]
    by_case = {result.case: result for result in results}
    assert by_case["fixed 200 ms: cut off"].p50 == pytest.approx(66.7)
    assert by_case["fixed 800 ms: latency"].p50 > by_case["fixed 200 ms: latency"].p50 + 400
    assert {"adaptive 200 ms, new: cut off", "no words, 200 ms, known: latency"} <= set(by_case)


@pytest.mark.skipif(shutil.which("flite") is None, reason="flite (Debian package flite) is not installed")
def test_the_real_recogniser_is_asked_at_every_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    sentences = _Sentences(
        unfinished=["my brother bought | a new car last week"], finished=[], whole=["stop the music"]
    )
    monkeypatch.setattr(endpointing, "_sentences", lambda language: sentences)
    takes = _takes("en")
    recognise = _pocketsphinx(takes)
    paused = next(take for take in takes if len(take.segments) == 2)
    first, both = recognise(paused, paused.segments[0].end_ms + 150), recognise(paused, paused.end_ms + 150)
    assert first.text
    assert len(both.text) > len(first.text)
    assert both.delay_ms > 10
