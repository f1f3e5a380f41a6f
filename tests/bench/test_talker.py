"""The talkers: that they send what they claim to, when they claim to."""

from __future__ import annotations

import numpy as np
import pytest

from mynah.audio.opus import OpusDecoder
from mynah.bench.server import ServerUnderTest
from mynah.bench.talker import Recording, Talkers, record, recordings
from mynah.errors import MynahError
from mynah.sim.microphone import FRAME_MS, SAMPLE_RATE
from mynah.wire.messages import ListenMode

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


@pytest.mark.e2e
@pytest.mark.speech
def test_two_people_talk() -> None:
    with ServerUnderTest("conversation.speculation=true") as server:
        with Talkers(server.url(), ListenMode.AUTO, talkers=2, turns=2, warm_up=1) as talkers:
            talk = talkers.wait()
        report = server.stop()
    assert len(talk.turns) == 4
    assert report.summary.startswith("6 turns: 6 interrupted, 0 with a spoken error, 0 silent")
    assert talk.faults == {}
    assert len(talk.lag_ms) > 50 * talk.seconds
    for times in talk.turns:
        assert 50 < times.stt < times.first_audio < 5000
        assert 0 <= times.last_frame <= times.stop < 5000


@pytest.mark.e2e
@pytest.mark.speech
def test_people_whom_nobody_answers_say_so() -> None:
    with (
        Talkers("ws://127.0.0.1:9/", ListenMode.AUTO, talkers=1, turns=1) as talkers,
        pytest.raises(MynahError, match="nothing listens"),
    ):
        talkers.wait()
