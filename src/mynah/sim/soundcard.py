"""This computer's microphone and loudspeaker, through the optional package sounddevice."""

from __future__ import annotations

import importlib
from collections import deque
from typing import Any

from mynah.audio.opus import OpusDecoder
from mynah.errors import AudioError
from mynah.sim.microphone import FRAME_BYTES, SAMPLE_RATE

MAX_WAITING_FRAMES = 25
"""Frames kept while the event loop is busy, 1.5 s; the oldest are dropped, as a device's queue does."""

INSTALL = ".venv/bin/pip install sounddevice (on Debian also: apt-get install libportaudio2)"


class SoundCard:
    """Records 16 kHz frames and plays Opus packets. Use as a context manager."""

    def __init__(self, play_rate: int = 24000) -> None:
        """``play_rate`` in Hz is that of the loudspeaker. Raises AudioError when there is no sound system."""
        try:
            sounddevice: Any = importlib.import_module("sounddevice")
        except (ImportError, OSError) as error:  # OSError: the package is there, the PortAudio library is not
            raise AudioError(f"--mic needs the package sounddevice: {INSTALL}") from error
        self._frames: deque[bytes] = deque(maxlen=MAX_WAITING_FRAMES)
        self._decoder = OpusDecoder(play_rate)
        self._to_play = bytearray()
        try:
            self._input = sounddevice.RawInputStream(
                samplerate=SAMPLE_RATE,
                channels=1,
                dtype="int16",
                blocksize=FRAME_BYTES // 2,
                callback=self._on_recorded,
            )
            self._output = sounddevice.RawOutputStream(
                samplerate=play_rate, channels=1, dtype="int16", callback=self._on_needed
            )
        except (sounddevice.PortAudioError, ValueError) as error:
            raise AudioError(f"cannot open the microphone or loudspeaker: {error}") from error

    def __enter__(self) -> SoundCard:
        self._input.start()
        self._output.start()
        return self

    def __exit__(self, *_: object) -> None:
        for stream in (self._input, self._output):
            stream.stop()
            stream.close()

    def next_frame(self) -> bytes | None:
        """Return the oldest recorded frame of 60 ms, or None."""
        try:
            return self._frames.popleft()
        except IndexError:
            return None

    def play(self, packet: bytes) -> None:
        """Play one Opus packet behind those before it."""
        self._to_play += self._decoder.decode(packet)

    def _on_recorded(self, data: Any, _frames: int, _time: object, _status: object) -> None:
        frame = bytes(data)
        if len(frame) == FRAME_BYTES:
            self._frames.append(frame)

    def _on_needed(self, out: Any, _frames: int, _time: object, _status: object) -> None:
        # Runs on PortAudio's thread. Taking from the front while the loop appends is safe under the GIL
        # because each of the two is a single operation on the bytearray.
        wanted = len(out)
        piece = bytes(self._to_play[:wanted])
        del self._to_play[: len(piece)]
        out[:] = piece.ljust(wanted, b"\0")
