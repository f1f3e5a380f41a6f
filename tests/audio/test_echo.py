from __future__ import annotations

import sys

import numpy as np
import pytest

from mynah.audio.echo import EchoControl, WebrtcCanceller, choose
from mynah.audio.echo_gate import EchoGate
from mynah.audio.echo_references import Samples
from mynah.bench.echo_room import RATE, Room, at_level
from mynah.errors import ConfigError
from tests.audio.test_echo_gate import samples
from tests.audio.test_echo_references import hiss, packets


class Recorder:
    """A canceller that notes what it gets and takes away nothing."""

    def __init__(self) -> None:
        self.near: list[Samples] = []
        self.far: list[Samples] = []
        self.restarts = self.releases = 0

    def process(self, near: Samples, far: Samples) -> Samples:
        assert len(near) == len(far)
        assert len(near) % 160 == 0
        self.near.append(near)
        self.far.append(far)
        return near

    def restart(self) -> None:
        self.restarts += 1

    def release(self) -> None:
        self.releases += 1


@pytest.fixture
def not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pywebrtc_audio", None)


def test_the_best_that_is_installed_is_chosen() -> None:
    assert choose("auto") is WebrtcCanceller
    assert choose("webrtc") is WebrtcCanceller
    assert choose("gate") is EchoGate
    assert choose("off") is None


@pytest.mark.usefixtures("not_installed")
def test_without_the_extra_auto_takes_the_gate_and_webrtc_says_what_to_install() -> None:
    assert choose("auto") is EchoGate
    with pytest.raises(ConfigError, match=r"mynah-server\[aec\]"):
        choose("webrtc")


def test_webrtc_cancels_an_echo_and_lets_a_voice_through() -> None:
    far = hiss(8)
    room = Room(delay_ms=100, echo_dbfs=-26, drive=0)
    voice = np.zeros_like(far)
    voice[6 * RATE : 7 * RATE] = at_level(hiss(1, seed=9), -20)
    near = room.record(far, voice)
    canceller = WebrtcCanceller()
    canceller.restart()  # before there is anything to restart
    out = np.concatenate(
        [
            canceller.process(samples(near[at : at + 960]), samples(far[at : at + 960]))
            for at in range(0, 7 * RATE, 960)
        ]
    ).astype(np.float32)
    alone = np.mean(np.square(out[3 * RATE : 6 * RATE] / 32768))
    spoken = np.mean(np.square(out[6 * RATE + 1600 : 7 * RATE] / 32768))
    before = np.mean(np.square(near[3 * RATE : 6 * RATE]))
    assert 10 * np.log10(before / alone) > 15
    assert 10 * np.log10(spoken / alone) > 10
    canceller.release()
    assert canceller._native is None
    assert len(canceller.process(samples(near[:960]), samples(far[:960]))) == 960


def test_control_pairs_frames_with_what_was_sent() -> None:
    recorder = Recorder()
    control, stream = EchoControl(recorder), object()
    assert control.process(stream, bytes(1920), 0) == bytes(1920)
    assert not recorder.far[0].any()
    for _ in range(3):
        control.process(stream, bytes(1920), 0)
    restarts = recorder.restarts
    for pair in packets(5):
        control.sent(*pair)
    control.process(stream, bytes(1920), 0)
    assert recorder.far[-1].any()
    assert recorder.restarts == restarts + 1, "after a pause the echo may follow by another time"


def test_what_is_no_multiple_of_10_ms_waits() -> None:
    recorder = Recorder()
    control, stream = EchoControl(recorder), object()
    sound = bytes(range(256)) * 10
    got = b"".join(control.process(stream, sound[at : at + 82], 0) for at in range(0, len(sound), 82))
    assert got == sound[: len(sound) // 320 * 320]
    other = object()
    assert control.process(other, sound[:320], 0) == sound[:320], (
        "another stream does not get the rest of the first"
    )


def test_only_the_last_stream_gives_the_memory_back() -> None:
    recorder = Recorder()
    control, first, second = EchoControl(recorder), object(), object()
    control.process(first, bytes(320), 0)
    control.process(second, bytes(320), 0)
    control.leave(first)
    assert recorder.releases == 0
    control.leave(second)
    control.leave(second)
    assert recorder.releases == 1


def test_what_was_sent_survives_between_streams() -> None:
    recorder = Recorder()
    control, first, second = EchoControl(recorder), object(), object()
    sent = packets(12)
    for pair in sent[:6]:
        control.sent(*pair)
    for number in range(3):
        control.process(first, bytes(1920), sent[number][0])
    control.leave(first)
    for pair in sent[6:]:
        control.sent(*pair)
    control.process(second, bytes(1920), sent[4][0])
    at = control._references._at
    control.process(second, bytes(1920), sent[5][0])
    assert recorder.far[-1].any()
    assert control._references._at == at + 960


def test_a_canceller_that_fails_costs_its_own_device_the_cancelling_only() -> None:
    class Broken:
        calls = 0

        def process(self, near: Samples, far: Samples) -> Samples:
            self.calls += 1
            raise RuntimeError("native trouble")

        def restart(self) -> None:
            """Nothing to do."""

        def release(self) -> None:
            """Nothing to do."""

    canceller = Broken()
    control = EchoControl(canceller)
    pcm = bytes(range(256)) * 15  # 120 ms
    assert control.process("stream", pcm[:1920], 0) + control.process("stream", pcm[1920:], 0) == pcm
    assert canceller.calls == 1
