"""From speech probabilities and levels to the edges of speech and its pauses. Pure: decisions in, edges out.

Time is media time, counted in VAD decisions (32 ms each), so that a delayed network never looks like silence.

A voice detector says whether something is speech, but it lets go late: its probability stays high for some 80 ms after
the last sound. So the probability decides that there is silence, and the level since when. Where the level tells
nothing, because the room is as loud as the voice, the probability alone counts.
"""

from __future__ import annotations

import enum
from typing import Final

from mynah.providers.base import VadCapabilities

PAUSE_MS: Final = 64.0
"""Silence after which there is a pause, the sooner the better: what is guessed then has to be ready when the silence is
over. Some closures before a `p` or `t` are longer; a guess they cause is void before it has cost much."""
PAUSE_CHUNKS: Final = 3
"""Silence, in decisions, from which on a pause is one in the sentence and not a closure in a word: people's habits are
learnt from it, and a single sound in it is a click."""
RESUME_CHUNKS: Final = 2
"""Speech, in decisions, that ends a pause. One may be a click or a breath; the shortest word has four."""
BACKDATE_CHUNKS: Final = 5
"""How far a confirmed silence is dated back at most. Detectors rarely lag more than 160 ms, and a mistake about the
level must not cost more."""

_INAUDIBLE_CHUNKS: Final = 3
"""Inaudible decisions that make a pause though the detector still says speech."""
_WAVERING_CHUNKS: Final = 2
_WAVERING: Final = 0.95
"""As many are enough when the probability is below this: the detector begins to let go. In a closure it rarely does."""
_UNCOUNTED_CHUNKS: Final = 1.0
"""Silence that no silent decision stands for: the decision with the last sound in it is half silence on average, and
decisions wait for the packet that completes them. With it, the mean is what was asked for."""
_SPEECH_RANGE_DB: Final = 34.0
"""What is further below the loudest of an utterance is not audible speech. The quietest consonants, as in `fish` and
`south`, are some 30 dB below the vowels."""
_ABOVE_FLOOR_DB: Final = 4.0
"""Noise alone rarely gets this far above its mean in 32 ms."""
_CLEAR_DB: Final = 26.0
"""Speech has to stand out of the noise by this much before its level tells where it ends: with less, its last
consonants are lost in the noise, and it would end too early."""
_FORGET_DB: Final = 0.1
"""By how much the loudest fades per decision of speech: 3 dB in a second, for who walks away."""
_FLOOR_FALL: Final = 0.3
"""Share of the way to a quieter level that the noise floor takes per decision."""
_FLOOR_RISE_DB: Final = 0.5
"""Rise of the noise floor per decision without speech: 16 dB in a second, as when a fan starts."""
_LOWEST_FLOOR_DB: Final = -65.0
"""Below this nothing is noise: a gated microphone must not make its own click audible."""


class Edge(enum.Enum):
    """A change between speech and silence.

    An utterance is STARTED, then any number of (PAUSED, RESUMED), then perhaps PAUSED, then ENDED.
    """

    STARTED = "started"
    PAUSED = "paused"
    """A short silence, the moment to think about what was said so far."""
    RESUMED = "resumed"
    """Audible speech goes on after PAUSED; `Endpointer.pause_ms` says how long the pause was."""
    ENDED = "ended"


class Endpointer:
    """Segments one stream of decisions.

    Hysteresis: at or above ``threshold`` is speech, below ``threshold_low`` is silence, in between the last decision
    stands. Speech shorter than ``min_speech_ms`` is a click; silence of ``min_silence_ms`` after speech ends the
    utterance, unless `require_silence` or `wait` says otherwise. Times are rounded to whole decisions.

    A pause is told as soon as nothing can be heard, an end only when the detector says silence, too.
    """

    __slots__ = (
        "_dip",
        "_early",
        "_gap",
        "_high",
        "_limit",
        "_loudness",
        "_low",
        "_min_silence",
        "_min_speech",
        "_pause",
        "_run",
        "_silence",
        "_span",
        "_speech",
        "_tail",
        "_voiced",
        "chunk_ms",
        "pause_ms",
        "paused",
        "peak",
        "speaking",
    )

    def __init__(
        self,
        capabilities: VadCapabilities,
        *,
        chunk_ms: float = 32.0,
        min_speech_ms: float | None = None,
        pause_ms: float = PAUSE_MS,
        early: bool = True,
    ) -> None:
        """``chunk_ms`` is the length of what one decision is about, ``pause_ms`` the silence before `Edge.PAUSED`.

        ``early=False``: a pause is told only when the detector has let go, and not before `PAUSE_CHUNKS`.
        """
        self.chunk_ms = chunk_ms
        self._early = early
        self._high = capabilities.threshold
        self._low = capabilities.threshold_low
        self._pause = self._chunks(pause_ms) if early else max(self._chunks(pause_ms), PAUSE_CHUNKS)
        self._min_speech = self._min_silence = self._limit = 1
        self.require_silence(capabilities.min_silence_ms)
        self.require_speech(capabilities.min_speech_ms if min_speech_ms is None else min_speech_ms)
        self._loudness = _Loudness()
        # Counts of decisions.
        self._voiced = False  # the last one was speech
        self._run = 0  # of speech: in a row before STARTED, or what may end a pause
        self._dip = 0  # silent ones in a row before STARTED
        self._gap = 0  # since the last speech of the utterance before, or the beginning
        self._span = 0  # since the first one of a run of speech before STARTED
        self._tail = 0  # inaudible, while the detector still says speech
        self._silence = 0  # confirmed
        self._speech = 0  # audible speech of this utterance
        self.speaking = False
        """Between `Edge.STARTED` and `Edge.ENDED`, in its pauses too."""
        self.paused = False
        """Between `Edge.PAUSED` and `Edge.RESUMED` or `Edge.ENDED`."""
        self.pause_ms = 0.0
        """At `Edge.RESUMED` the pause that just ended, 0 when it was only a closure in a word; at `Edge.STARTED` the
        silence since the utterance before it, or since the stream began."""
        self.peak = 0.0
        """Highest probability seen so far."""

    @property
    def voiced_ms(self) -> float:
        """Audible speech, without pauses, in this utterance; after `Edge.ENDED` in the last one."""
        return self._speech * self.chunk_ms

    @property
    def silence_ms(self) -> float:
        """Silence since the last sound as far as it is known; 0 during speech, at `Edge.ENDED` what was waited."""
        return (self._silence + _UNCOUNTED_CHUNKS) * self.chunk_ms if self._silence else 0.0

    @property
    def required_speech_ms(self) -> float:
        """Speech it takes to start."""
        return self._min_speech * self.chunk_ms

    def require_speech(self, ms: float) -> None:
        """Change how much speech it takes to start; used while a reply is being spoken."""
        self._min_speech = self._chunks(ms)

    def require_silence(self, ms: float) -> None:
        """Change the silence that ends utterances, the present one included; takes back what `wait` said."""
        self._min_silence = self._limit = self._silent_chunks(ms)

    def restart(self) -> None:
        """Drop the utterance in progress. What is required of speech and silence stays, and what the room is like."""
        self._limit = self._min_silence
        self._voiced = self.speaking = self.paused = False
        self._run = self._dip = self._gap = self._span = self._tail = self._silence = self._speech = 0
        self.peak = self.pause_ms = 0.0

    def wait(self, ms: float) -> None:
        """Change the silence that ends the utterance, for this pause or, during speech, for the next one.

        At `Edge.RESUMED` and `Edge.ENDED` it is forgotten: what is known then may be wrong. A silence that is already
        longer ends the utterance with the next decision, unless that is speech.
        """
        self._limit = self._silent_chunks(ms)

    def push(self, probability: float, level_db: float = 0.0) -> Edge | None:
        """Take the next decision and return the edge it completes, if any.

        ``level_db`` is the RMS level in dB of full scale. A level that is always the same says nothing: then the
        probability alone decides.
        """
        self.peak = max(self.peak, probability)
        self._voiced = probability >= self._high or (self._voiced and probability >= self._low)
        audible = self._loudness.hear(level_db, self._voiced)
        if not self.speaking:
            return self._before(audible)
        if self._voiced:
            return self._during(audible, probability)
        return self._after()

    def _chunks(self, ms: float) -> int:
        return max(1, round(ms / self.chunk_ms))

    def _silent_chunks(self, ms: float) -> int:
        return max(1, round(ms / self.chunk_ms - _UNCOUNTED_CHUNKS))

    def _before(self, audible: bool) -> Edge | None:
        """Wait for an utterance."""
        self._gap += 1
        if not self._voiced:
            # A single dip inside a word must not start the count of speech anew.
            self._dip += 1
            self._span += 1
            if self._dip > 1:
                self._run = 0
            return None
        if not self._run:
            self._span = self._speech = self._tail = 0
        self._dip = 0
        self._span += 1
        self._run += 1
        self._hear(audible)
        if self._run < self._min_speech:
            return None
        self.pause_ms = (self._gap - self._span) * self.chunk_ms
        self._run = self._silence = 0
        self.speaking = True
        return Edge.STARTED

    def _during(self, audible: bool, probability: float) -> Edge | None:
        """Take what the detector calls speech within an utterance, perhaps after a silence."""
        if self.paused and self._silence >= PAUSE_CHUNKS:
            self._run += 1
            if self._run < RESUME_CHUNKS:
                return None
            self._speech += self._run
            self._tail = 0
            return self._resume(self._silence * self.chunk_ms)
        self._silence = 0
        self._hear(audible)
        if not audible:
            if self.paused or not self._fading(probability):
                return None
            self.paused = True
            self._run = 0
            return Edge.PAUSED
        if self.paused:
            self._run += 1
            if self._run >= RESUME_CHUNKS:
                return self._resume(0.0)
        return None

    def _fading(self, probability: float) -> bool:
        """Return whether the voice has fallen silent, as far as can be heard, and the detector is only late."""
        least = _WAVERING_CHUNKS if probability < _WAVERING else _INAUDIBLE_CHUNKS
        return self._early and self._tail >= least

    def _resume(self, pause_ms: float) -> Edge:
        self.pause_ms = pause_ms
        self._run = self._silence = 0
        self._limit = self._min_silence
        self.paused = False
        return Edge.RESUMED

    def _after(self) -> Edge | None:
        """Take silence within an utterance, perhaps its end."""
        if self._silence == 0:
            self._silence = min(self._tail, BACKDATE_CHUNKS)
        elif self._silence >= PAUSE_CHUNKS:
            self._silence += self._run  # what seemed to be speech again was a click
        self._silence += 1
        if self._silence >= PAUSE_CHUNKS:
            self._run = 0
        if self._silence >= self._limit:
            self._limit = self._min_silence
            self._gap = self._silence
            self._dip = self._span = 0
            self.speaking = self.paused = False
            self._loudness.forget()
            return Edge.ENDED
        if not self.paused and self._silence >= self._pause:
            self.paused = True
            self._run = 0
            return Edge.PAUSED
        return None

    def _hear(self, audible: bool) -> None:
        if audible:
            self._speech += 1
            self._tail = 0
        else:
            self._tail += 1


class _Loudness:
    """Tells audible speech from what a detector only has not let go of yet."""

    __slots__ = ("_floor", "_loudest")

    def __init__(self) -> None:
        self._floor: float | None = None
        self._loudest = _LOWEST_FLOOR_DB

    def hear(self, level_db: float, voiced: bool) -> bool:
        """Take the next level; return whether this is audible speech."""
        level = max(level_db, _LOWEST_FLOOR_DB)
        floor = level if self._floor is None else self._floor
        if level < floor:
            floor += _FLOOR_FALL * (level - floor)
        elif not voiced:
            floor = min(level, floor + _FLOOR_RISE_DB)
        self._floor = floor
        if not voiced:
            return False
        self._loudest = max(level, self._loudest - _FORGET_DB)
        if self._loudest - floor < _CLEAR_DB:
            return True
        return level > max(floor + _ABOVE_FLOOR_DB, self._loudest - _SPEECH_RANGE_DB)

    def forget(self) -> None:
        """The next utterance may be somebody else's, further away."""
        self._loudest = _LOWEST_FLOOR_DB
