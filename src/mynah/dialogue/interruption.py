"""What a voice during a reply is: somebody with something to say, or a cough, an "uh-huh", an echo of the reply."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from difflib import SequenceMatcher
from functools import cache
from typing import Protocol

import msgspec

from mynah.dialogue.turn import normalise
from mynah.errors import ProviderError
from mynah.providers.base import Transcript
from mynah.texts import languages, variants

HOLD_SPEECH_MS = 128.0
"""Speech that holds a reply: enough that clicks do not, so little that nobody has to talk against the voice."""
BARGE_IN_SPEECH_MS = 320.0
"""Speech it takes to end a reply where nothing judges it: longer than a cough, shorter than "no, stop"."""
LISTEN_S = 0.5
"""What is listened to before the recogniser is asked, unless the voice falls silent earlier."""
DECIDE_S = 0.95
"""From the hold to the decision at the latest: people wait for a pause of a second, not longer."""
SURE_SPEECH_MS = 450.0
"""Speech that counts as an interruption when nobody can tell its words in time: longer than a cough."""
HARDER_FACTOR = 2.0
"""How much more speech it takes after each false alarm in one reply: in a noisy room it would stutter otherwise."""
HARDEST_MS = 2048.0
"""And how much at most: who speaks for two seconds against the voice does want something."""
ECHO_WORDS = 3
ECHO_IDEOGRAPHS = 5
"""How much must stand together as in what is being spoken for an echo: less is said by chance, such as "no, wait"."""
ECHO_SHARE = 0.8
"""Share of what was heard that must come in the same order: recognisers mishear some of it."""
_STEP_S = 0.02

_WORDS = re.compile(r"[a-z0-9']+|[\u3400-\u9fff]")


class HeardVoice(Protocol):
    """What is known of the voice while it goes on."""

    @property
    def silence_ms(self) -> float:
        """Silence since its last sound."""

    @property
    def voiced_ms(self) -> float:
        """Speech so far."""

    @property
    def hearing(self) -> bool:
        """Whether the utterance is still in progress."""

    def interim(self) -> Awaitable[Transcript]:
        """Return the words so far. Raises ProviderError."""


class Judgement(msgspec.Struct, frozen=True):
    """The decision."""

    real: bool = False
    over: bool = False
    """The utterance had come to its end by then."""
    words: bool = False
    """Somebody said words; else a noise."""


async def judge(voice: HeardVoice, playing: Callable[[], str]) -> Judgement:
    """Decide within `DECIDE_S`. ``playing`` returns what has been spoken of the reply lately."""
    loop = asyncio.get_running_loop()
    until = loop.time() + DECIDE_S
    # Polled: there is one hold at a time, and to be told of every chunk would cost all others.
    while voice.silence_ms < HOLD_SPEECH_MS and loop.time() < until - DECIDE_S + LISTEN_S:  # noqa: ASYNC110
        await asyncio.sleep(_STEP_S)
    words: str | None = None
    try:
        async with asyncio.timeout_at(until):
            words = (await voice.interim()).text
            while not normalise(words) and voice.silence_ms < HOLD_SPEECH_MS:  # noqa: ASYNC110
                await asyncio.sleep(_STEP_S)  # a voice without words yet: they may come
    except (TimeoutError, ProviderError):
        pass
    real = is_interruption(words, voice.voiced_ms, playing())
    return Judgement(real, real and not voice.hearing, bool(words and normalise(words)))


def is_interruption(words: str | None, voiced_ms: float, playing: str) -> bool:
    """Return whether somebody wants to speak. ``words`` is None when nobody could tell them in time."""
    if words is None:
        return voiced_ms >= SURE_SPEECH_MS
    said = normalise(words)
    if not said:
        return voiced_ms >= 2 * SURE_SPEECH_MS  # the recogniser may not know the language; a cough is short
    if said.startswith(_interrupting()):
        return True
    return not is_backchannel(words) and not is_echo(words, playing)


def is_backchannel(words: str) -> bool:
    """Return whether it only means "I am listening"."""
    return normalise(words) in _backchannels()


def is_echo(words: str, playing: str) -> bool:
    """Return whether it is what the device itself is saying."""
    heard, spoken = _WORDS.findall(words.casefold()), _WORDS.findall(playing.casefold())
    enough = ECHO_IDEOGRAPHS if sum(not word.isascii() for word in heard) * 2 > len(heard) else ECHO_WORDS
    runs = [
        block.size for block in SequenceMatcher(None, heard, spoken, autojunk=False).get_matching_blocks()
    ]
    return max(runs) >= enough and sum(runs) >= ECHO_SHARE * len(heard)


@cache
def _interrupting() -> tuple[str, ...]:
    return tuple(
        normalise(phrase) for language in languages() for phrase in variants("interrupting", language)
    )


@cache
def _backchannels() -> frozenset[str]:
    return frozenset(
        normalise(phrase) for language in languages() for phrase in variants("backchannels", language)
    )
