import sys
import types
from typing import Any, ClassVar

import numpy as np
import pytest

from mynah.errors import AudioError
from mynah.sim.microphone import FRAME_BYTES
from mynah.sim.soundcard import MAX_WAITING_FRAMES, SoundCard

from .scripted import packets, tone


class FakeStream:
    """A stream of sounddevice: remembers its settings, and lets a test call the callback."""

    made: ClassVar[list["FakeStream"]] = []

    def __init__(self, **settings: Any) -> None:
        self.settings = settings
        self.log: list[str] = []
        FakeStream.made.append(self)

    def start(self) -> None:
        self.log.append("start")

    def stop(self) -> None:
        self.log.append("stop")

    def close(self) -> None:
        self.log.append("close")

    def record(self, pcm: bytes) -> None:
        self.settings["callback"](memoryview(pcm), len(pcm) // 2, None, None)

    def play(self, size: int) -> bytes:
        out = bytearray(size)
        self.settings["callback"](memoryview(out), size // 2, None, None)
        return bytes(out)


@pytest.fixture
def sounddevice(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    module = types.ModuleType("sounddevice")
    module.PortAudioError = type("PortAudioError", (Exception,), {})  # type: ignore[attr-defined]
    module.RawInputStream = module.RawOutputStream = FakeStream  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sounddevice", module)
    monkeypatch.setattr(FakeStream, "made", [])
    return module


def test_records_frames(sounddevice: types.ModuleType) -> None:
    with SoundCard() as card:
        recorder, player = FakeStream.made
        assert recorder.settings["samplerate"] == 16000
        assert recorder.settings["blocksize"] == 960
        assert player.settings["samplerate"] == 24000
        assert card.next_frame() is None
        recorder.record(tone(0.06))
        recorder.record(b"\0\0")  # a cut-off block at the end of a stream
        assert card.next_frame() == tone(0.06)
        assert card.next_frame() is None
    assert recorder.log == player.log == ["start", "stop", "close"]


def test_the_oldest_frames_are_dropped(sounddevice: types.ModuleType) -> None:
    with SoundCard() as card:
        for number in range(40):
            FakeStream.made[0].record(bytes([number]) * FRAME_BYTES)
        kept = [frame[0] for frame in iter(card.next_frame, None)]
    assert kept == list(range(40 - MAX_WAITING_FRAMES, 40))


def test_plays_packets_and_silence_behind_them(sounddevice: types.ModuleType) -> None:
    with SoundCard(16000) as card:
        for packet in packets(2):
            card.play(packet)
        heard = b"".join(FakeStream.made[1].play(1000) for _ in range(5))
    assert len(heard) == 5000
    samples = np.frombuffer(heard, "<i2")
    assert np.abs(samples[: 2 * 960]).max() > 4000
    assert not samples[2 * 960 :].any()


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(AudioError, match=r"pip install sounddevice"):
        SoundCard()


def test_without_a_sound_card(sounddevice: types.ModuleType) -> None:
    def refuse(**_settings: Any) -> None:
        raise sounddevice.PortAudioError("no default device")

    sounddevice.RawInputStream = refuse  # type: ignore[attr-defined]
    with pytest.raises(AudioError, match="cannot open the microphone or loudspeaker: no default device"):
        SoundCard()
