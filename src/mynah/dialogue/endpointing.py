"""From speech probabilities to "speech started" and "speech ended". Pure: probabilities in, edges out.

Time is media time, counted in VAD decisions (32 ms each), so that a delayed network never looks like silence.
"""

from __future__ import annotations

import enum

from mynah.providers.base import VadCapabilities


class Edge(enum.Enum):
    """A change between speech and silence."""

    STARTED = "started"
    ENDED = "ended"


class Endpointer:
    """Segments one stream of probabilities.

    Hysteresis: at or above ``threshold`` is speech, below ``threshold_low`` is silence, in between the last decision
    stands. Speech shorter than ``min_speech_ms`` is a click; silence of ``min_silence_ms`` after speech ends the
    utterance.
    """

    __slots__ = (
        "_high",
        "_low",
        "_min_silence",
        "_min_speech",
        "_silence",
        "_speech",
        "_voiced",
        "chunk_ms",
        "peak",
        "speaking",
    )

    def __init__(
        self, capabilities: VadCapabilities, *, chunk_ms: float = 32.0, min_speech_ms: float | None = None
    ) -> None:
        self.chunk_ms = chunk_ms
        self._high = capabilities.threshold
        self._low = capabilities.threshold_low
        # Rounded, not raised, to whole decisions: 200 ms of silence ends after 192 ms rather than after 224.
        self._min_silence = max(1, round(capabilities.min_silence_ms / chunk_ms))
        self._min_speech = 1
        self.require_speech(capabilities.min_speech_ms if min_speech_ms is None else min_speech_ms)
        self._voiced = False
        self._speech = 0
        self._silence = 0
        self.speaking = False
        """Between `Edge.STARTED` and `Edge.ENDED`."""
        self.peak = 0.0
        """Highest probability seen so far."""

    def require_speech(self, ms: float) -> None:
        """Change how much speech it takes to start; used while a reply is being spoken."""
        self._min_speech = max(1, round(ms / self.chunk_ms))

    def push(self, probability: float) -> Edge | None:
        """Take the next decision and return the edge it completes, if any."""
        self.peak = max(self.peak, probability)
        if probability >= self._high:
            self._voiced = True
        elif probability < self._low:
            self._voiced = False
        if self._voiced:
            self._silence = 0
            self._speech += 1
            if not self.speaking and self._speech >= self._min_speech:
                self.speaking = True
                return Edge.STARTED
            return None
        self._silence += 1
        if not self.speaking:
            # A single dip inside a word must not start the count of speech anew.
            if self._silence > 1:
                self._speech = 0
            return None
        if self._silence >= self._min_silence:
            self.speaking = False
            self._speech = 0
            return Edge.ENDED
        return None
