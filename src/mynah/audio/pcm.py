"""Plain PCM: signed 16-bit little-endian mono everywhere. Resampling, levels, reading and writing files."""

from __future__ import annotations

import math
import wave
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import soxr

from mynah.errors import AudioError

if TYPE_CHECKING:
    from av import AudioFrame

SILENCE_DBFS = -100.0
"""Level reported for digital silence and for no audio at all; other 16-bit audio stays above −91 dBFS."""


class StreamResampler:
    """Changes the sample rate of one stream, piece by piece. Does nothing when the rates are equal.

    Uses soxr's ``HQ`` recipe: 22.05 → 16 kHz costs 10 µs per 60 ms of audio, no more than the lesser recipes,
    and at most 13 ms are held back until ``last``.
    """

    def __init__(self, rate_in: int, rate_out: int) -> None:
        """Both rates in Hz. Raises AudioError for rates that make no sense."""
        if rate_in <= 0 or rate_out <= 0:
            raise AudioError(f"cannot resample from {rate_in} to {rate_out} Hz")
        self.rate_in, self.rate_out = rate_in, rate_out
        self._stream: soxr.ResampleStream | None = None
        if rate_in != rate_out:
            self._stream = soxr.ResampleStream(rate_in, rate_out, 1, dtype="int16", quality="HQ")
        self._odd = b""

    def process(self, pcm: bytes, last: bool = False) -> bytes:
        """Return the audio that is ready. Pieces may have any length, even half a sample.

        With ``last`` the rest comes out and the stream is over; the object may then take a new stream.
        """
        data = self._odd + pcm if self._odd else pcm
        cut = len(data) & ~1
        self._odd = b"" if last else data[cut:]
        data = data[:cut]
        if self._stream is None:
            return data
        out = self._stream.resample_chunk(np.frombuffer(data, dtype="<i2"), last=last)
        if last:
            self._stream.clear()
        return bytes(np.asarray(out, dtype="<i2").tobytes())


def resample(pcm: bytes, rate_in: int, rate_out: int) -> bytes:
    """Change the rate of a whole piece of audio."""
    return StreamResampler(rate_in, rate_out).process(pcm, last=True)


def level_dbfs(pcm: bytes) -> float:
    """Return the RMS level in dB relative to full scale (0 = loudest), `SILENCE_DBFS` for silence."""
    samples = np.frombuffer(pcm[: len(pcm) & ~1], dtype="<i2")
    if not samples.size:
        return SILENCE_DBFS
    power = float(np.mean(np.square(samples, dtype=np.float64)))
    return 10.0 * math.log10(power / 32768.0**2) if power > 0 else SILENCE_DBFS


def read_audio(path: Path | str, rate: int = 16000) -> bytes:
    """Read any audio file FFmpeg knows as mono PCM at ``rate`` Hz. Blocking: call it off the loop.

    Raises AudioError with a sentence for the user when the file is missing, holds no audio or is damaged.
    """
    import av  # 40 ms to import; only callers with files pay it

    path = Path(path)
    if not path.is_file():
        raise AudioError(f"no such audio file: {path}")
    pieces: list[bytes] = []
    try:
        with av.open(str(path)) as container:
            if not container.streams.audio:
                raise AudioError(f"{path} holds no audio")
            resampler = av.AudioResampler(format="s16", layout="mono", rate=rate)
            for frame in container.decode(container.streams.audio[0]):
                pieces += (_frame_bytes(out) for out in resampler.resample(frame))
            if pieces:
                pieces += (_frame_bytes(out) for out in resampler.resample(None))
    except (av.FFmpegError, ValueError) as error:
        raise AudioError(f"cannot read {path} as audio: {error}") from error
    return b"".join(pieces)


def _frame_bytes(frame: AudioFrame) -> bytes:
    # The plane's own buffer may be padded past the last sample; the array is cut to the frame's samples.
    return frame.to_ndarray().astype("<i2", copy=False).tobytes()


def write_wav(path: Path | str, pcm: bytes, rate: int) -> None:
    """Write mono PCM as a WAV file. Blocking. Raises AudioError when the file cannot be written."""
    try:
        with Path(path).open("wb") as file, wave.open(file, "wb") as wav:
            wav.setnchannels(1)
            wav.setsampwidth(2)
            wav.setframerate(rate)
            wav.writeframes(pcm)
    except OSError as error:
        raise AudioError(f"cannot write {path}: {error}") from error
