"""What simulated people say, encoded once before it is needed: sending it costs next to nothing."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np

from mynah.sim.microphone import FRAME_BYTES, FRAME_MS, NOISE_AMPLITUDE, SAMPLE_RATE, audible_end
from mynah.sim.pull4g.codec import Form, encoded
from mynah.sim.voice import speak

QUESTIONS: Final = ("What time is it?", "How are you?", "Tell me a joke.")
"""About a second each, without a pause."""

QUESTIONS_ZH: Final = ("现在几点了", "你今天好吗", "讲一个笑话")
"""The same in Chinese."""

PHASE_MS: Final = 10
"""Step by which the words are shifted against the packets: people do not stop at the end of one."""

_BYTES_PER_MS = SAMPLE_RATE * 2 // 1000
_LEADS_MS = (240, 300)
"""Noise before the first word: people need that long to start."""
_AFTERWARDS_MS = 3000
"""Noise after the last word; the answer begins long before that, and who waits longer repeats the end of it."""


class Recording(msgspec.Struct, frozen=True):
    """Somebody's words with noise around them: Opus, or another codec of the pull protocol."""

    packets: list[bytes]
    last: int
    """Index of the packet with the last sound."""
    after_ms: float
    """What follows that sound in this packet, 0 to 60 ms."""
    first: int = 0
    """Index of the packet with the first word."""


def record(speech: bytes, lead_ms: int, form: Form = Form()) -> Recording:  # noqa: B008 - frozen
    """Encode speech (16 kHz s16le mono) that begins after ``lead_ms``, in a quiet room, as firmware does."""
    end = lead_ms * _BYTES_PER_MS + audible_end(speech)
    length = -(-(end + _AFTERWARDS_MS * _BYTES_PER_MS) // FRAME_BYTES) * FRAME_BYTES
    whole = (bytes(lead_ms * _BYTES_PER_MS) + speech)[:length].ljust(length, b"\0")
    noise = np.random.default_rng(lead_ms).integers(-NOISE_AMPLITUDE, NOISE_AMPLITUDE + 1, length // 2)
    samples = np.clip(np.frombuffer(whole, "<i2") + noise, -32768, 32767).astype("<i2").tobytes()
    packets = encoded(samples, form)
    last = -(-end // FRAME_BYTES) - 1
    return Recording(packets, last, ((last + 1) * FRAME_BYTES - end) / _BYTES_PER_MS, lead_ms // FRAME_MS)


def recordings(
    texts: Sequence[str] = QUESTIONS,
    language: str = "",
    form: Form = Form(),  # noqa: B008 - frozen
) -> list[Recording]:
    """Return every text at every place within a packet, in random order, the same every time.

    An empty ``language`` is guessed from each text. Raises AudioError when there is no voice for it.
    """
    dice = random.Random(1)
    made = [
        record(speak(text, language=language), dice.choice(_LEADS_MS) + phase, form)
        for text in texts
        for phase in range(0, FRAME_MS, PHASE_MS)
    ]
    dice.shuffle(made)
    return made
