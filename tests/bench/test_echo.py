from __future__ import annotations

import numpy as np
import pytest

from mynah.audio.echo_gate import EchoGate
from mynah.bench import echo
from mynah.bench.echo import Place, Voice, cancel, detected_ms, erle_db, take, understood
from mynah.bench.echo_device import DeviceTiming, Heard, Sent, converse, reply
from mynah.bench.echo_room import RATE, Room, at_level, floats, level_dbfs, pcm
from mynah.sim.voice import speak


def noise(seconds: float, dbfs: float = -20) -> np.ndarray:
    return at_level(np.random.default_rng(0).standard_normal(round(seconds * RATE)).astype(np.float32), dbfs)


def test_a_room_answers_after_its_delay_at_its_level() -> None:
    far = np.zeros(2 * RATE, np.float32)
    far[RATE // 2 : RATE] = noise(0.5)
    echoes = Room(delay_ms=100, echo_dbfs=-30, decay_ms=200).echo(far)
    first = int(np.flatnonzero(np.abs(echoes) > 1e-3)[0])
    assert abs(first - (RATE // 2 + RATE // 10)) < 32
    assert level_dbfs(echoes) == pytest.approx(-30, abs=0.5)
    assert np.max(np.abs(echoes[round(1.35 * RATE) :])) < 1e-3
    assert np.array_equal(echoes, Room(delay_ms=100, echo_dbfs=-30, decay_ms=200).echo(far)), (
        "the seed decides"
    )


def test_a_driven_loudspeaker_is_not_linear() -> None:
    quiet = np.concatenate([noise(0.5, -40), noise(0.5, -10)])
    linear, bent = (Room(drive=drive).echo(quiet) for drive in (0.0, 2.0))
    loud, soft = slice(12000, 15000), slice(3000, 6000)
    ratios = [np.std(sound[loud]) / np.std(sound[soft]) for sound in (linear, bent)]
    assert ratios[1] < 0.95 * ratios[0]


def test_pcm_and_back() -> None:
    sound = noise(0.1)
    assert np.allclose(floats(pcm(sound)), sound, atol=1e-4)


def test_a_device_returns_the_stamps_of_what_it_played() -> None:
    sent = reply(noise(1.2), 100, 600)
    assert [packet.stamp for packet in sent] == [660 + 60 * n for n in range(20)]
    assert [packet.at_ms for packet in sent][:4] == [100, 100, 100, 160]
    events = converse([sent], Room(), np.zeros(2 * RATE, np.float32), DeviceTiming(lost=frozenset({9})))
    assert [event.at_ms for event in events] == sorted(event.at_ms for event in events)
    heard = [event for event in events if isinstance(event, Heard)]
    stamps = [event.stamp for event in heard if event.stamp]
    assert stamps == [660 + 60 * n for n in range(20) if 660 + 60 * n in stamps]
    assert len(stamps) == 19, "the lost frame took its stamp along"
    first = next(event for event in heard if event.stamp)
    assert 100 + 60 <= first.at_ms <= 100 + 60 + 60 + 60
    assert sum(isinstance(event, Sent) for event in events) == 20


def test_measures() -> None:
    one = echo.Take(
        events=[],
        began_ms=[0.0],
        voices=[Voice("a", 1000, 1500), Voice("b", 5000, 5400)],
        far_s=9,
        input_ms=20,
    )
    delays, nobodys = detected_ms(one, [500, 1220, 1400, 8000])
    assert delays == [200]
    assert nobodys == 2
    raw = noise(9, -20)
    heard = echo.Heard16k(raw, raw * np.float32(0.1), 0.1)
    assert erle_db(one, heard) == [pytest.approx(20, abs=0.1)]
    assert understood("Turn off the light.", "turn off the light") == 100
    assert understood("What time is it?", "") == 0
    assert 0 < understood("What time is it?", "what time") < 100


@pytest.mark.speech
def test_a_take_has_its_voices_where_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(echo, "REPLY_COUNT", 2)
    place = Place(Room(echo_dbfs=-60, noise_dbfs=-80), DeviceTiming())
    one = take(place, 40.0)
    assert [voice.text for voice in one.voices] == [*echo.COMMANDS[:2]]
    heard = cancel(one, None)
    assert np.array_equal(heard.raw, heard.clean)
    for voice in one.voices:
        begin, end = ((ms + one.input_ms) * 16 for ms in (voice.begin_ms, voice.end_ms))
        assert level_dbfs(heard.raw[int(begin) : int(end)]) > -30
        assert level_dbfs(heard.raw[int(begin) - 4000 : int(begin) - 800]) < -45
    gated = cancel(take(Place(Room(), DeviceTiming()), None), EchoGate())
    assert np.mean(np.square(gated.clean)) < 0.3 * np.mean(np.square(gated.raw))
    assert gated.cpu_s > 0


@pytest.mark.speech
def test_a_reply_that_is_held_leaves_the_voice_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(echo, "REPLY_COUNT", 1)
    place = Place(Room(), DeviceTiming())
    long, short = (cancel(take(place, 0.0, held=held), None).raw for held in (False, True))
    end = slice(4 * RATE, 6 * RATE)
    assert level_dbfs(short[end]) < level_dbfs(long[end]) - 10


@pytest.mark.speech
async def test_words_are_counted_by_the_real_recogniser() -> None:
    recordings = [("What time is it?", pcm(floats(speak("What time is it?")))), ("Stop.", bytes(16000))]
    assert await echo._words(recordings) == [100, 0]


@pytest.mark.speech
def test_the_whole_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    async def counted(recordings: list[tuple[str, bytes]]) -> list[float]:
        assert all(len(recording) > 32_000 for _, recording in recordings)
        return [float(len(recordings))]

    monkeypatch.setattr(echo, "_words", counted)
    monkeypatch.setattr(echo, "REPLY_COUNT", 3)
    monkeypatch.setattr(echo, "PLACES", echo.PLACES[:1])
    monkeypatch.setattr(echo, "LEVELS_DB", (6.0,))
    results = {(result.bench, result.case.partition(":")[0]): result for result in echo.echo()}
    assert results["echo taken for a voice", "none, 128 ms"].p50 > 5
    assert results["echo taken for a voice", "webrtc, 320 ms"].p50 < 5
    assert results["echo return loss enhancement", "webrtc"].p50 > 10
    assert ("echo, interruption heard", "webrtc, +6 dB, 128 ms") in results
    assert results["echo, words understood", "without a reply"].p50 == len(echo.COMMANDS)
    assert results["echo, words understood", "gate, +6 dB, held"].p50 == 3
