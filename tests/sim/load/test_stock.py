"""What devices say: that it is what it claims to be."""

from __future__ import annotations

import numpy as np
import pytest

from mynah.audio.opus import OpusDecoder
from mynah.sim.load.stock import QUESTIONS_ZH, Recording, record, recordings
from mynah.sim.microphone import FRAME_MS, SAMPLE_RATE

CODEC_MS = 10
"""By how much later, about, a sound leaves the decoder."""


def levels_db(recording: Recording) -> np.ndarray:
    """Level of every 10 ms of what the server hears."""
    decoder = OpusDecoder(SAMPLE_RATE)
    pcm = b"".join(decoder.decode(packet) for packet in recording.packets)
    windows = np.frombuffer(pcm, "<i2").reshape(-1, SAMPLE_RATE // 100).astype(np.float64) / 32768
    return 10 * np.log10(np.mean(np.square(windows), axis=1) + 1e-12)


def tone(ms: int) -> bytes:
    time = np.arange(ms * SAMPLE_RATE // 1000) / SAMPLE_RATE
    return (8000 * np.sin(2 * np.pi * 300 * time)).astype("<i2").tobytes()


@pytest.mark.parametrize("lead_ms", [240, 270, 330])
def test_the_speech_ends_where_the_recording_says(lead_ms: int) -> None:
    recording = record(tone(500) + bytes(6400), lead_ms)
    end_ms = (recording.last + 1) * FRAME_MS - recording.after_ms
    assert end_ms == lead_ms + 500, "the silence behind it is none of it"
    assert recording.first == lead_ms // FRAME_MS
    levels = levels_db(recording)
    begin, end = ((round(ms) + CODEC_MS) // 10 for ms in (lead_ms, end_ms))
    assert np.all(levels[begin + 2 : end - 2] > -30)
    assert np.all(levels[end + 2 :] < -40)
    assert len(recording.packets) * FRAME_MS > end_ms + 2000, "noise goes on while the answer is awaited"


@pytest.mark.speech
def test_people_stop_anywhere_in_a_packet() -> None:
    made = recordings()
    assert {round(recording.after_ms) for recording in made} == set(range(0, 60, 10))
    assert [one.packets for one in made] == [one.packets for one in recordings()], "the same in every process"


@pytest.mark.speech
def test_they_speak_chinese() -> None:
    made = recordings(QUESTIONS_ZH[:1], "zh")
    assert len(made) == 6
    assert all(10 < one.last < 60 for one in made)
