"""What such a device sends and plays: PCM, IMA ADPCM or Opus, in pieces of 60 ms."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from mynah.audio.adpcm import AdpcmDecoder, AdpcmEncoder
from mynah.audio.opus import OpusDecoder, OpusEncoder, packet_duration_ms
from mynah.audio.pcm import resample
from mynah.errors import AudioError, ConfigError
from mynah.sim.microphone import FRAME_BYTES, FRAME_MS, SAMPLE_RATE
from mynah.wire.pull4g import Codec


class Form(msgspec.Struct, frozen=True):
    """How a device talks: codec and rate (Hz) of its audio, both ways, and whether it speaks in frames."""

    codec: Codec = Codec.OPUS
    rate: int = 16000
    framed: bool = True

    def check(self) -> Form:
        """Return it, if there is such a form. Raises ConfigError."""
        if self.codec is Codec.OPUS and not self.framed:
            raise ConfigError(
                "Opus needs framed mode, as its packets cannot be told apart otherwise: use pcm or adpcm"
            )
        return self


class Words(msgspec.Struct, frozen=True):
    """Something to say, ready to be sent; any number of devices may say the same."""

    pieces: tuple[bytes, ...]
    """60 ms each, as they go over the line."""
    pcm: tuple[bytes, ...] = ()
    """The same as 16 kHz s16le mono, for who looks on."""
    text: str = ""
    """What they are, for people."""


def words(pcm: bytes, form: Form, text: str = "") -> Words:
    """Encode an utterance (16 kHz s16le mono). Raises AudioError for a rate that the codec does not have."""
    pcm = pcm + bytes(-len(pcm) % FRAME_BYTES)
    return Words(tuple(encoded(pcm, form)), tuple(cut(pcm, FRAME_BYTES)), text)


def encoded(pcm: bytes, form: Form) -> list[bytes]:
    """Return 16 kHz s16le mono in pieces of 60 ms, encoded as one stream. Raises AudioError as `words` does."""
    if form.rate != SAMPLE_RATE:
        pcm = resample(pcm, SAMPLE_RATE, form.rate)
    size = form.rate * FRAME_MS // 1000 * 2
    frames = cut(pcm, size)
    match form.codec:
        case Codec.PCM:
            return list(frames)
        case Codec.ADPCM:
            adpcm = AdpcmEncoder()
            pieces = [adpcm.encode(frame) for frame in frames]
            return [piece for piece in (*pieces, adpcm.flush()) if piece]
        case Codec.OPUS:
            # The settings of firmware: cheap, and silence becomes packets of a few bytes.
            opus = OpusEncoder(form.rate, FRAME_MS, complexity=0, dtx=True)
            return [opus.encode(frame.ljust(size, b"\0")) for frame in frames]


def cut(data: bytes, size: int) -> Sequence[bytes]:
    """Return data in pieces of ``size`` bytes; the last may be shorter."""
    return [data[at : at + size] for at in range(0, len(data), size)]


def seconds(data: bytes, form: Form) -> float:
    """Return how long received audio lasts; with Opus ``data`` is one packet, and 0 if it is broken."""
    if form.codec is Codec.OPUS:
        try:
            return packet_duration_ms(data) / 1000
        except AudioError:
            return 0.0
    per_second = form.rate * (2 if form.codec is Codec.PCM else 0.5)
    return len(data) / per_second


class Decoder:
    """Decodes one reply, in whatever pieces it comes."""

    def __init__(self, form: Form) -> None:
        self._opus = OpusDecoder(form.rate) if form.codec is Codec.OPUS else None
        self._adpcm = AdpcmDecoder() if form.codec is Codec.ADPCM else None
        self._odd = b""

    def decode(self, data: bytes) -> bytes:
        """Return the PCM (s16le mono at the form's rate) of the next piece; of a broken Opus packet nothing."""
        if self._opus is not None:
            try:
                return self._opus.decode(data)
            except AudioError:
                return b""
        if self._adpcm is not None:
            return self._adpcm.decode(data)
        data = self._odd + data
        whole = len(data) & ~1
        self._odd = data[whole:]  # TCP cuts where it likes, also inside a sample
        return data[:whole]
