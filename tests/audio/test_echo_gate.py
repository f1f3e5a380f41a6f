from __future__ import annotations

import numpy as np

from mynah.audio.echo_gate import EchoGate
from mynah.bench.echo_room import RATE, Floats, Room, at_level, pcm
from tests.audio.test_echo_references import hiss

ROOM = Room(delay_ms=120, echo_dbfs=-30)


def samples(sound: Floats) -> np.ndarray:
    return np.frombuffer(pcm(sound), np.int16)


def through(gate: EchoGate, near: Floats, far: Floats, frame: int = 960) -> Floats:
    out = [
        gate.process(samples(near[at : at + frame]), samples(far[at : at + frame]))
        for at in range(0, len(near) - frame + 1, frame)
    ]
    return np.concatenate(out).astype(np.float32) / 32768


def test_without_a_reference_nothing_is_changed() -> None:
    near = samples(hiss(2))
    assert np.array_equal(EchoGate().process(near, np.zeros_like(near)), near)


def test_echo_is_muted() -> None:
    far = hiss(10)
    out = through(EchoGate(), ROOM.record(far), far)
    share = np.mean(np.abs(out[RATE // 2 :]) > 1e-3)
    assert share < 0.01


def test_a_louder_voice_passes_unchanged_and_soon() -> None:
    far = hiss(10)
    voice = np.zeros_like(far)
    at = 6 * RATE
    voice[at : at + RATE] = at_level(hiss(1, seed=9), ROOM.echo_dbfs + 15)
    near = ROOM.record(far, voice)
    out = through(EchoGate(), near, far)
    assert not np.any(np.abs(out[RATE // 2 : at - 960]) > 1e-3)
    passed = np.flatnonzero(np.abs(out[at : at + RATE]) > 1e-2)
    assert passed[0] < 0.2 * RATE
    begin = at + RATE // 2
    assert np.allclose(out[begin : begin + 1600], near[begin : begin + 1600], atol=1e-3)


def test_nothing_passes_until_the_device_is_known_and_release_does_not_forget_it() -> None:
    far = hiss(10)
    loud = ROOM.record(far) + at_level(hiss(10, seed=9), ROOM.echo_dbfs + 15)
    assert not np.any(through(EchoGate(), loud[:8000], far[:8000])[960:])
    gate = EchoGate()
    through(gate, ROOM.record(far), far)
    gate.release()
    gate.restart()
    again = through(gate, loud[RATE : 2 * RATE], far[RATE : 2 * RATE])
    assert np.mean(np.abs(again) > 1e-2) > 0.3


def test_the_level_of_the_echo_is_learned_anew_when_the_volume_changes() -> None:
    far = hiss(40)
    quiet, loud = ROOM.record(far), Room(delay_ms=120, echo_dbfs=-18).record(far)
    gate = EchoGate()
    through(gate, quiet[: 5 * RATE], far[: 5 * RATE])
    out = through(gate, loud[5 * RATE :], far[5 * RATE :])
    assert np.mean(np.abs(out[-5 * RATE :]) > 1e-3) < 0.05


def test_the_length_of_the_frames_does_not_matter() -> None:
    far = hiss(6)
    voice = np.zeros_like(far)
    voice[4 * RATE : 5 * RATE] = at_level(hiss(1, seed=9), -12)
    near = ROOM.record(far, voice)
    long, short = (through(EchoGate(), near, far, frame)[: 5 * RATE] for frame in (960, 320))
    assert np.array_equal(long, short)
