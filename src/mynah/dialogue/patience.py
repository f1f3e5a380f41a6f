"""How much silence ends an utterance: learnt from how a device's users pause, and from the words before the silence.

Whoever pauses for half a second in the middle of a sentence must not be answered after 200 ms, and whoever never pauses
should not have to wait. So each device has a `PauseProfile`, three numbers that follow the longer ones of its users'
pauses. What was said so far decides which of the three counts, and a turn detector, where there is one, may move
the result. Pure: what happened in, milliseconds out.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from mynah.dialogue.completeness import Completeness, judge

LONGEST_PAUSE_MS: Final = 5000.0
"""What is longer is no pause within an utterance."""
SHORTEST_MS: Final = 160.0
"""Silence that is waited for even when a turn detector is sure; some closures within words have half of it."""
SURE_SHARE: Final = 0.6
"""Share of the usual silence that is left when a turn detector is quite sure that the speaker has finished."""
UNFINISHED_FACTOR: Final = 2.0
"""How much longer than usual is waited after words that need more to follow,"""
UNFINISHED_MS: Final = 1000.0
"""and at least so long: it takes about a second to remember a name."""

_FIRST_MS: Final = 200.0
"""Where a profile starts to learn; less silence than this is hardly ever waited for."""
_MARGIN_MS: Final = 80.0
"""How much longer than a pause is waited for, so that the next one like it is none too long: speech is noticed two
decisions after it began, and packets come every 60 ms."""
_YOUNG_MARGIN: Final = 0.3
"""What is added for the first pause, as a share of it; half as much for the second, and so on. Longer ones will
follow."""
_LONGEST_RISE_MS: Final = 400.0
"""What is above counts as this much above: one pause to look something up must not change the profile for weeks."""
_PAUSE_RISE: Final = 0.35
"""Share of the way to a longer pause. With the fall below, the silence settles where most pauses fit into it."""
_CUT_IN_RISE: Final = 0.7
"""The same after an interruption by the assistant, which is worse than waiting."""
_CUT_IN_FACTOR: Final = 1.4
"""How much longer than what was waited the pause is taken to have been where nobody knows."""
_SPREAD: Final = 0.5
"""Share of a rise that the other kinds of words learn from it."""
_PAUSE_FALL: Final = 0.1
"""Share of the way to a shorter pause."""
_YOUNG_FALL: Final = 0.5
"""The same for the first pauses, divided by their number: the very first may have been unusual."""
_LEARNT: Final = 10
"""Pauses after which a profile is not young any more."""
_END_FALL: Final = 0.01
"""Share of the way back per utterance that was followed by nothing: half of it in 70 utterances."""


class PauseProfile(msgspec.Struct, forbid_unknown_fields=True):
    """Silences in ms that this device's users rarely exceed in mid-sentence; 0 where nothing was learnt."""

    complete_ms: float = 0.0
    """After words that sound complete."""
    unsure_ms: float = 0.0
    """After words that may be complete, and where the words are not known."""
    incomplete_ms: float = 0.0
    """After words that need more to follow."""
    seen: int = 0
    """Pauses learnt from, up to 10: the first ones count for more."""

    @property
    def empty(self) -> bool:
        """Whether nothing was learnt."""
        return not (self.complete_ms or self.unsure_ms or self.incomplete_ms)

    @property
    def plausible(self) -> bool:
        """Whether these can be values of a profile; those from a file need not."""
        values = (self.complete_ms, self.unsure_ms, self.incomplete_ms)
        return self.seen >= 0 and all(
            math.isfinite(value) and 0 <= value <= 2 * LONGEST_PAUSE_MS for value in values
        )

    def limit_ms(self, configured_ms: float, max_ms: float, words: Completeness = Completeness.UNSURE) -> int:
        """Return the silence to wait for: what was learnt, but within ``configured_ms`` … ``max_ms``."""
        return round(max(configured_ms, min(self._learnt(words), max_ms)))

    def paused(self, pause_ms: float, words: Completeness = Completeness.UNSURE) -> None:
        """Learn from a pause after which the user went on with the same utterance."""
        if 0 < pause_ms <= LONGEST_PAUSE_MS:
            self._follow(words, max(self._learnt(words), _FIRST_MS), pause_ms, _PAUSE_RISE)

    def cut_in(
        self, waited_ms: float, pause_ms: float | None = None, words: Completeness = Completeness.UNSURE
    ) -> None:
        """Learn that the utterance was not over after ``waited_ms``: the user went on, after ``pause_ms`` if known."""
        pause = _CUT_IN_FACTOR * waited_ms if pause_ms is None else max(pause_ms, waited_ms)
        if 0 < pause <= LONGEST_PAUSE_MS:
            now = max(self._learnt(words), min(waited_ms, LONGEST_PAUSE_MS), _FIRST_MS)
            self._follow(words, now, pause, _CUT_IN_RISE)

    def ended(self) -> None:
        """Learn that an utterance was over: what has not been needed for long is forgotten."""
        for words in Completeness:
            if now := self._learnt(words):
                self._learn(words, now - _END_FALL * (now - _FIRST_MS))

    def _follow(self, words: Completeness, now: float, pause_ms: float, rise: float) -> None:
        """Move from ``now`` towards the silence that the pause would have fitted into."""
        young = 1 / (1 + self.seen)
        if words is not Completeness.INCOMPLETE:
            self.seen = min(self.seen + 1, _LEARNT)
        fitting = pause_ms * (1 + _YOUNG_MARGIN * young) + _MARGIN_MS
        step = min(fitting - now, _LONGEST_RISE_MS)
        if step <= 0:
            self._learn(words, now + max(_PAUSE_FALL, _YOUNG_FALL * young) * step)
            return
        step *= max(rise, young)
        self._learn(words, now + step)
        for other in Completeness:
            # A slow speaker is slow everywhere; but pauses where nobody could take the sentence to be over say nothing
            # about those where somebody could.
            if other is not words and words is not Completeness.INCOMPLETE:
                before = max(self._learnt(other), _FIRST_MS)
                self._learn(other, max(before, min(before + _SPREAD * step, now + step)))

    def _learnt(self, words: Completeness) -> float:
        match words:
            case Completeness.COMPLETE:
                return self.complete_ms
            case Completeness.UNSURE:
                return self.unsure_ms
            case Completeness.INCOMPLETE:
                return self.incomplete_ms

    def _learn(self, words: Completeness, ms: float) -> None:
        match words:
            case Completeness.COMPLETE:
                self.complete_ms = ms
            case Completeness.UNSURE:
                self.unsure_ms = ms
            case Completeness.INCOMPLETE:
                self.incomplete_ms = ms


class Patience:
    """How long to wait for one device's user. Made per session; the profile outlives it."""

    __slots__ = ("_adaptive", "_configured", "_max", "_profile", "_threshold", "_waited", "_words")

    def __init__(
        self,
        profile: PauseProfile,
        configured_ms: float,
        max_ms: float,
        *,
        adaptive: bool = True,
        threshold: float = 0.5,
    ) -> None:
        """``configured_ms`` is the shortest silence without a turn detector, ``max_ms`` the longest with anything.

        ``adaptive=False``: always wait for ``configured_ms``, and learn nothing. ``threshold`` is the probability from
        which on the turn detector takes the speaker to have finished.
        """
        self._profile = profile
        self._configured = configured_ms
        self._max = max(configured_ms, max_ms)
        self._adaptive = adaptive
        self._threshold = threshold
        self._words = Completeness.UNSURE  # about the silence in progress, or the last one
        self._waited = float(self.base_ms)

    @property
    def base_ms(self) -> int:
        """The silence to wait for while the words are not known."""
        if not self._adaptive:
            return round(self._configured)
        return self._profile.limit_ms(self._configured, self._max)

    def silence_ms(self, text: str, language: str, finished: float | None = None) -> int:
        """Return the silence to wait for after ``text``, all that was said so far.

        ``finished`` is the turn detector's probability (0…1) that the speaker has finished, None without one. Only
        a detector can make the silence shorter than configured.
        """
        if not self._adaptive:
            return round(self._configured)
        self._words = judge(text, language)
        silence = float(self._profile.limit_ms(self._configured, self._max, self._words))
        if self._words is Completeness.INCOMPLETE:
            silence = max(silence, UNFINISHED_FACTOR * self._configured, UNFINISHED_MS)
        if finished is not None:
            silence = self._listen_to_detector(silence, finished)
        self._waited = min(silence, self._max)
        return round(self._waited)

    def _listen_to_detector(self, silence: float, finished: float) -> float:
        # Gradual: just above the threshold is not sure, and just below it is no reason to wait for the maximum.
        if finished < self._threshold:
            doubt = min(1.0, 2 * (self._threshold - finished) / self._threshold)
            return silence + doubt * max(0.0, self._max - silence)
        if self._words is Completeness.INCOMPLETE:
            return silence
        surety = min(1.0, 2 * (finished - self._threshold) / max(1e-9, 1 - self._threshold))
        shortest = min(silence, max(SHORTEST_MS, SURE_SHARE * silence))
        return silence - surety * (silence - shortest)

    def paused(self, pause_ms: float) -> None:
        """The user went on after a pause within the utterance."""
        if self._adaptive:
            self._profile.paused(pause_ms, self._words)
        self._forget()

    def cut_in(self, pause_ms: float | None = None) -> None:
        """The utterance was taken to be over, and the user went on; after ``pause_ms`` if that is known."""
        if self._adaptive:
            self._profile.cut_in(self._waited, pause_ms, self._words)
        self._forget()

    def doubt(self, pause_ms: float) -> Callable[[], None]:
        """Return what to call if it turns out that the user went on after the silence that was just waited for."""
        waited, words = self._waited, self._words

        def learn() -> None:
            if self._adaptive:
                self._profile.cut_in(waited, pause_ms, words)

        return learn

    def ended(self) -> None:
        """An utterance was over: the answer to it was not interrupted at once."""
        if self._adaptive:
            self._profile.ended()
        self._forget()

    def _forget(self) -> None:
        self._words = Completeness.UNSURE
        self._waited = float(self.base_ms)


class Profiles:
    """The profiles of many devices; those not heard of for longest make room."""

    def __init__(self, max_devices: int = 10_000) -> None:
        """``max_devices`` bounds the memory: some 300 bytes each. Policy: the least recently used is forgotten."""
        self._max = max_devices
        self._profiles: OrderedDict[str, PauseProfile] = OrderedDict()

    def __len__(self) -> int:
        return len(self._profiles)

    def of(self, device_id: str) -> PauseProfile:
        """Return the profile of a device, to be changed in place; a new one for a new device.

        A device without a name (empty, or ``anonymous-…``) gets one that is not kept: it cannot be found again.
        """
        profile = self._profiles.get(device_id)
        if profile is not None:
            self._profiles.move_to_end(device_id)
            return profile
        profile = PauseProfile()
        if device_id and not device_id.startswith("anonymous-"):
            self._put(device_id, profile)
        return profile

    def forget(self, device_id: str) -> None:
        """The device has another owner now."""
        self._profiles.pop(device_id, None)

    def snapshot(self) -> dict[str, PauseProfile]:
        """Return copies of the profiles that hold anything, by device, the least recently used first."""
        return {
            device_id: msgspec.structs.replace(profile)
            for device_id, profile in self._profiles.items()
            if not profile.empty
        }

    def restore(self, profiles: Mapping[str, PauseProfile]) -> None:
        """Take in what `snapshot` returned. Implausible profiles, and those of devices known by now, are left out."""
        known = self._profiles
        self._profiles = OrderedDict()
        for device_id, profile in profiles.items():
            if device_id and device_id not in known and profile.plausible:
                self._put(device_id, msgspec.structs.replace(profile))
        for device_id, profile in known.items():
            self._put(device_id, profile)

    def _put(self, device_id: str, profile: PauseProfile) -> None:
        self._profiles[device_id] = profile
        while len(self._profiles) > self._max:
            self._profiles.popitem(last=False)
