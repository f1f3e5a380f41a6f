"""What libopus costs and how well it sounds: by library, rate, mode, bitrate and complexity.

Two objective measures stand for the sound, both between the speech and what a decoder makes of it, over the parts that
are not silent. They agree on which setting is better; how much of it a listener notices, they do not tell.

* Segmental signal-to-noise ratio: per 20 ms, cut to −10…35 dB, the mean. More is better.
* Log-spectral distance: per 32 ms in 32 mel bands up to 8 kHz, the root of the mean square. Less is better.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from mynah.audio.espeak import SAMPLE_RATE as ESPEAK_RATE
from mynah.audio.espeak import EspeakSynthesizer, Span
from mynah.audio.opus import (
    SPEECH_BITRATE,
    Application,
    OpusDecoder,
    OpusEncoder,
    OpusLibrary,
    library_candidates,
)
from mynah.audio.pcm import resample
from mynah.bench.report import Result, distribution, repeat
from mynah.errors import AudioError
from mynah.sim import voice

Signal = NDArray[np.float64]

ENGLISH: Final = (
    "Tomorrow it will be sunny, with a light breeze from the west. "
    "The quick brown fox jumps over the lazy dog. Would you like me to set a timer?"
)
CHINESE: Final = "今天天气很好，明天可能会下雨，最高气温二十一度。要不要我提醒你带伞？"
RATES: Final = (16000, 24000)
FRAME_MS: Final = 60
ROUNDS: Final = 5
_SILENT: Final = 1e-4  # of the loudest piece's energy


class Setting(msgspec.Struct, frozen=True):
    """How an encoder is set up."""

    application: Application
    bitrate: int | None
    complexities: tuple[int, ...]

    @property
    def name(self) -> str:
        """Return it in words."""
        rate = "libopus' bitrate" if self.bitrate is None else f"{self.bitrate / 1000:g} kbit/s"
        return f"{self.application}, {rate}"


SETTINGS: Final = (
    Setting(Application.AUDIO, None, (0, 1, 2, 3, 4, 5, 7, 10)),
    Setting(Application.VOIP, None, (0, 5, 10)),
    Setting(Application.LOW_DELAY, None, (0, 5)),
    Setting(Application.AUDIO, 24_000, (0, 5)),
    Setting(Application.AUDIO, 28_000, (0, 5)),
    Setting(Application.AUDIO, SPEECH_BITRATE, (0, 1, 2, 3, 4, 5, 7, 10)),
)


class Speech(msgspec.Struct, frozen=True):
    """Something said: s16le mono at ``rate`` Hz."""

    name: str
    pcm: bytes
    rate: int


def libraries() -> list[OpusLibrary]:
    """Return every libopus of this machine."""
    found: list[OpusLibrary] = []
    for path in library_candidates():
        try:
            found.append(OpusLibrary(path))
        except AudioError:
            continue
    return found


def speeches() -> list[Speech]:
    """Return something said by each of the voices there are: eSpeak NG's, and flite's where that is installed."""
    said = []
    synthesizer = EspeakSynthesizer()
    try:
        for name, text in (("en-us+f5", ENGLISH), ("en-us+adam", ENGLISH), ("cmn+f5", CHINESE)):
            said.append(Speech(f"espeak {name}", synthesizer.render([Span(text, name)]), ESPEAK_RATE))
    finally:
        synthesizer.close()
    for name in ("kal", "rms", "awb"):
        try:
            said.append(Speech(f"flite {name}", voice.speak(ENGLISH, name), voice.SAMPLE_RATE))
        except AudioError:
            break  # not installed
    return said


def segmental_snr_db(reference: Signal, decoded: Signal, rate: int) -> float:
    """Return it in dB. Both signals are aligned and of the same length."""
    size = rate // 50
    count = len(reference) // size
    clean = reference[: count * size].reshape(count, size)
    error = clean - decoded[: count * size].reshape(count, size)
    energy = np.sum(clean**2, axis=1)
    loud = energy > np.max(energy) * _SILENT
    ratio = energy[loud] / (np.sum(error[loud] ** 2, axis=1) + 1e-9)
    return float(np.mean(np.clip(10 * np.log10(ratio + 1e-9), -10, 35)))


def log_spectral_distance_db(reference: Signal, decoded: Signal, rate: int) -> float:
    """Return it in dB. Both signals are aligned and of the same length."""
    clean, coded = _bands(reference, rate), _bands(decoded, rate)
    energy = np.sum(clean, axis=1)
    loud = energy > np.max(energy) * _SILENT
    floor = np.max(clean) * 1e-6  # 60 dB below the loudest: what is below is not heard beside it
    ratio = 10 * np.log10((clean[loud] + floor) / (coded[loud] + floor))
    return float(np.mean(np.sqrt(np.mean(ratio**2, axis=1))))


def _bands(signal: Signal, rate: int) -> Signal:
    """Return the energy in each band, by piece."""
    size = rate * 32 // 1000
    starts = range(0, len(signal) - size, size // 2)
    window = np.hanning(size)
    power = np.abs(np.fft.rfft([signal[at : at + size] * window for at in starts], axis=1)) ** 2
    top, bottom = (2595 * np.log10(1 + hz / 700) for hz in (min(8000.0, rate / 2), 50.0))
    edges = 700 * (10 ** (np.linspace(bottom, top, 33) / 2595) - 1)
    bins = np.searchsorted(np.fft.rfftfreq(size, 1 / rate), edges)
    return np.stack(
        [power[:, low:high].sum(axis=1) for low, high in itertools.pairwise(bins) if high > low],
        axis=1,
    )


def align(reference: Signal, decoded: Signal, rate: int) -> tuple[Signal, Signal]:
    """Take the codec's delay, at most 20 ms, off."""
    span = min(len(reference), len(decoded), 4 * rate)

    def likeness(delay: int) -> float:
        return float(reference[: span - delay] @ decoded[delay:span])

    delay = max(range(rate // 50), key=likeness)
    length = min(len(reference), len(decoded) - delay)
    return reference[:length], decoded[delay : delay + length]


def _signal(pcm: bytes) -> Signal:
    return np.frombuffer(pcm, "<i2").astype(np.float64)


class Measured(msgspec.Struct, frozen=True):
    """One setting's figures: one per speech, cost one per frame."""

    cost_us: list[float]
    kbits: list[float]
    snr_db: list[float]
    distance_db: list[float]


def measure(said: list[Speech], rate: int, encoder: OpusEncoder, rounds: int = ROUNDS) -> Measured:
    """Encode everything ``rounds`` times, decode it once, and compare. The cost is the least of each frame's."""
    result = Measured([], [], [], [])
    size = encoder.frame_bytes
    for speech in said:
        pcm = resample(speech.pcm, speech.rate, rate)
        frames = [pcm[at : at + size] for at in range(0, len(pcm) - size + 1, size)]
        costs: list[list[float]] = []
        packets: list[bytes] = []
        for _ in range(rounds):
            encoder.reset()
            packets, took = [], []
            for frame in frames:
                begin = time.thread_time_ns()
                packets.append(encoder.encode(frame))
                took.append((time.thread_time_ns() - begin) / 1000)
            costs.append(took)
        result.cost_us.extend(min(column) for column in zip(*costs, strict=True))
        decoder = OpusDecoder(rate)
        clean, decoded = align(
            _signal(b"".join(frames)), _signal(b"".join(decoder.decode(packet) for packet in packets)), rate
        )
        result.kbits.append(sum(map(len, packets)) * 8 / (len(packets) * FRAME_MS))
        result.snr_db.append(segmental_snr_db(clean, decoded, rate))
        result.distance_db.append(log_spectral_distance_db(clean, decoded, rate))
    return result


def opus() -> Iterator[Result]:
    """Encode speech in every setting, with every libopus there is; decode it."""
    said = speeches()
    names = ", ".join(speech.name for speech in said)
    note = f"opus: 60 ms frames of speech by {names}; the least of {ROUNDS} times each; segmental SNR: more is better"
    for rate in RATES:
        for setting in SETTINGS:
            for complexity in setting.complexities:
                for library in libraries():  # one after the other: what else runs meets both
                    encoder = OpusEncoder(
                        rate, FRAME_MS, complexity, setting.bitrate, setting.application, library=library
                    )
                    found = measure(said, rate, encoder)
                    where = "system" if "/" not in library.path else "PyAV"
                    version = library.version().decode().removeprefix("libopus ")
                    case = f"{rate // 1000} kHz, {setting.name}, complexity {complexity}, {version} ({where})"
                    yield distribution("opus encode", case, "µs", found.cost_us, note)
                    yield distribution("opus bitrate", case, "kbit/s", found.kbits, note)
                    yield distribution("opus segmental SNR", case, "dB", found.snr_db, note)
                    yield distribution("opus log-spectral distance", case, "dB", found.distance_db, note)
    yield _decoding(said)


def _decoding(said: list[Speech]) -> Result:
    encoder = OpusEncoder(16000, FRAME_MS, bitrate=SPEECH_BITRATE)
    pcm = resample(said[0].pcm, said[0].rate, 16000)
    size = encoder.frame_bytes
    packets = [encoder.encode(pcm[at : at + size]) for at in range(0, len(pcm) - size + 1, size)]
    decoder = OpusDecoder(16000)
    samples = repeat(lambda: [decoder.decode(packet) for packet in packets], least=10)
    return distribution("opus decode", "16 kHz", "µs", [sample / len(packets) for sample in samples])
