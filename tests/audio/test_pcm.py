from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mynah.audio.pcm import SILENCE_DBFS, StreamResampler, level_dbfs, read_audio, resample, write_wav
from mynah.errors import AudioError


def tone(rate: int, seconds: float, hz: float = 300.0, level: float = 10000) -> bytes:
    t = np.arange(int(rate * seconds)) / rate
    return (level * np.sin(2 * np.pi * hz * t)).astype("<i2").tobytes()


def same(a: bytes, b: bytes) -> bool:
    """Equal but for the dither that soxr adds when it rounds to 16 bits."""
    one, two = np.frombuffer(a, "<i2").astype(int), np.frombuffer(b, "<i2").astype(int)
    return len(one) == len(two) and bool(np.all(np.abs(one - two) <= 2))


@pytest.mark.parametrize(("rate_in", "rate_out"), [(22050, 16000), (16000, 24000), (8000, 48000)])
def test_resampling_keeps_length_and_pitch(rate_in: int, rate_out: int) -> None:
    out = resample(tone(rate_in, 1.0), rate_in, rate_out)
    assert len(out) / 2 == pytest.approx(rate_out, abs=2)
    wanted = np.frombuffer(tone(rate_out, 1.0), "<i2").astype(float)[1000 : rate_out - 1000]
    got = np.frombuffer(out, "<i2").astype(float)[1000 : rate_out - 1000]
    assert np.max(np.abs(got - wanted)) < 100


def test_equal_rates_pass_through() -> None:
    pcm = tone(16000, 0.1)
    assert StreamResampler(16000, 16000).process(pcm) == pcm


@given(st.lists(st.integers(0, 3000), max_size=20))
def test_pieces_of_any_length_give_the_same_audio(sizes: list[int]) -> None:
    pcm = tone(22050, 0.4)
    resampler = StreamResampler(22050, 16000)
    out, at = b"", 0
    for size in sizes:
        out += resampler.process(pcm[at : at + size])
        at += size
    out += resampler.process(pcm[at:], last=True)
    assert same(out, resample(pcm, 22050, 16000))


def test_a_resampler_takes_a_new_stream_after_the_last_piece() -> None:
    resampler = StreamResampler(22050, 16000)
    first = resampler.process(tone(22050, 0.2), last=True)
    assert same(resampler.process(tone(22050, 0.2), last=True), first)


def test_senseless_rates_are_refused() -> None:
    with pytest.raises(AudioError):
        StreamResampler(0, 16000)


def test_levels() -> None:
    assert level_dbfs(b"") == SILENCE_DBFS
    assert level_dbfs(bytes(100)) == SILENCE_DBFS
    assert level_dbfs(tone(16000, 1.0, level=32767)) == pytest.approx(-3.01, abs=0.01)
    assert level_dbfs(tone(16000, 1.0, level=327.67)) == pytest.approx(-43.01, abs=0.05)


def test_wav_round_trip(tmp_path: Path) -> None:
    pcm = tone(16000, 0.7)
    write_wav(tmp_path / "a.wav", pcm, 16000)
    assert read_audio(tmp_path / "a.wav") == pcm


def test_stereo_at_another_rate_is_read_as_mono(tmp_path: Path) -> None:
    mono = np.frombuffer(tone(44100, 1.0), "<i2")
    with wave.open(str(tmp_path / "a.wav"), "wb") as wav:
        wav.setnchannels(2)
        wav.setsampwidth(2)
        wav.setframerate(44100)
        wav.writeframes(np.repeat(mono, 2).tobytes())
    pcm = read_audio(str(tmp_path / "a.wav"), 16000)
    assert len(pcm) / 2 == pytest.approx(16000, abs=50)
    assert level_dbfs(pcm) == pytest.approx(level_dbfs(mono.tobytes()), abs=0.5)


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="no such audio file"):
        read_audio(tmp_path / "none.wav")
    (tmp_path / "text.wav").write_text("this is no audio at all")
    with pytest.raises(AudioError, match=r"text\.wav"):
        read_audio(tmp_path / "text.wav")
    with pytest.raises(AudioError, match="cannot write"):
        write_wav(tmp_path / "no" / "folder.wav", b"", 16000)
