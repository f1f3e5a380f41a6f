"""What the user of one device says: utterances, their text so far, and how long to wait for more.

Exists while the device listens. The ear finds the edges of speech; here the words are asked for at each pause, so that
the recogniser's time, and the model's, is hidden in the silence that ends an utterance anyway, and the silence is made
longer for who has obviously not finished. Somebody who goes on after all adds another part to the same utterance.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

import msgspec

from mynah.dialogue.interruption import BARGE_IN_SPEECH_MS, HARDER_FACTOR, HARDEST_MS, HOLD_SPEECH_MS
from mynah.dialogue.listen import Ear, Recording
from mynah.dialogue.services import Services
from mynah.dialogue.talker import Talker
from mynah.errors import ProviderError
from mynah.providers.base import AsrRequest, AsrStream, Transcript
from mynah.texts import detect_language
from mynah.wire.messages import ListenMode

MAX_INTERIMS = 3
"""How often the text so far is asked for in one part of an utterance from a recogniser that does all its work at the
end. People who pause more often are speaking slowly, and each time costs as much as the whole."""
GOING_ON_SPEECH_MS = 160.0
"""Speech it takes to go on with an utterance that seemed to be over: an answer is being prepared already, and must not
be dropped for a click."""


class HearingListener(Protocol):
    """Who wants to know; called on the event loop."""

    def on_speech_started(self) -> None:
        """A voice is heard."""

    def on_words(self, text: str) -> None:
        """The user has paused, and said this so far."""

    def on_speech_resumed(self) -> None:
        """The user goes on: those words were not all."""

    def on_speech_ended(self) -> None:
        """The utterance is over (auto and realtime mode only)."""


class Utterance(msgspec.Struct, frozen=True):
    """What was said, all parts together."""

    text: str
    voiced: bool
    """Whether there was a voice at all."""
    parts: int = 1
    """How many: more than one when the user went on after it seemed to be over."""


class Hearing:
    """The listening side of one session. Implements `mynah.dialogue.listen.EarListener`."""

    # fmt: off
    __slots__ = (
        "_alarms", "_doubt", "_ended_at", "_guess", "_interims", "_language", "_listener", "_loop", "_needed_ms",
        "_parts", "_patience", "_services", "_silence_ms", "_speculates", "_watching", "ear", "mode",
    )
    # fmt: on

    def __init__(
        self, services: Services, listener: HearingListener, talker: Talker, mode: ListenMode
    ) -> None:
        language = talker.kept.language
        self._services = services
        self._listener = listener
        self._language = language
        self.mode = mode
        self._loop = asyncio.get_running_loop()
        self._patience = services.patience(talker.device_id)
        self._parts: list[asyncio.Task[Utterance]] = []
        self._guess: asyncio.Task[Transcript | None] | None = None
        self._interims = 0
        self._speculates: bool | None = None
        self._needed_ms = 0.0  # silence the words so far ask for; 0 while they are not known
        self._silence_ms = 0.0  # that has passed at the end of the utterance
        self._ended_at = 0.0
        self._alarms = 0
        self._watching = False  # a reply is being spoken
        self._doubt: Callable[[], None] | None = None  # what there is to learn if the user really goes on
        self.ear: Ear | None = Ear(
            services.ingest,
            services.asr,
            services.vad,
            AsrRequest(language),
            self,
            manual=mode is ListenMode.MANUAL,
            echo=talker.echo,
            keep_tail=services.turn_detector is not None and mode is not ListenMode.MANUAL,
        )
        self.ear.endpointer.require_silence(self._patience.base_ms)

    # -- from the session

    @property
    def speaking(self) -> bool:
        """Whether an utterance is in progress."""
        return self.ear is not None and self.ear.hearing

    def can_go_on(self, mode: ListenMode) -> bool:
        """Return whether listening in ``mode`` continues what this ear hears already."""
        return self.ear is not None and self.mode is mode and mode is not ListenMode.MANUAL

    def renew(self) -> None:
        """Wait for a new utterance. One that has begun already goes on: the user may have been quick."""
        self._watching = False
        self._drop_parts()
        self._alarms = 0
        if self.ear is not None:
            self.ear.endpointer.require_speech(self._services.vad.min_speech_ms)

    def watch_for_interruption(self) -> None:
        """A reply is being spoken: it takes more to be heard."""
        self._watching = True
        self._drop_parts()
        self._alarms = 0
        if self.ear is not None:
            self.ear.forget()
            self.ear.endpointer.require_speech(self._interruption_ms)

    def false_alarm(self, noise: bool = True) -> None:
        """What was heard during the reply was nothing; after a ``noise`` it takes more the next time."""
        self._alarms += noise
        if self.ear is not None:
            self.ear.forget()
            self.ear.endpointer.require_speech(self._interruption_ms)

    @property
    def _interruption_ms(self) -> float:
        if not self._services.settings.policy.judge_interruptions:
            return BARGE_IN_SPEECH_MS
        return min(HOLD_SPEECH_MS * HARDER_FACTOR**self._alarms, HARDEST_MS)

    def go_on(self) -> None:
        """The user goes on with what seemed to be over: we were too quick."""
        self._interims = 0
        if self.ear is not None:
            # Learnt only when words follow: it may be a cough.
            self._doubt = self._patience.doubt(self.ear.endpointer.pause_ms)
            self.ear.endpointer.require_silence(self._patience.base_ms)
            self.ear.endpointer.require_speech(self._services.vad.min_speech_ms)

    def take_turn(self) -> None:
        """What was heard during the reply was meant: ordinary speech goes on with it."""
        self._watching = False
        self._interims = 0
        if self.ear is not None:
            self.ear.endpointer.require_speech(self._services.vad.min_speech_ms)

    def conclude(self, final: bool) -> None:
        """The utterance is over; `whole` returns it.

        ``final``: no more audio comes, so the ear is closed. Else it goes on listening.
        """
        ear = self.ear
        self._ended_at = self._loop.time()
        if ear is None:
            return
        if final:
            self.ear = None
            part = self._loop.create_task(self._last_part(ear))
            # Also when the task is cancelled before its first step.
            part.add_done_callback(lambda _: ear.close())
        else:
            self._silence_ms = ear.silence_ms
            ear.endpointer.require_speech(GOING_ON_SPEECH_MS)
            guess, self._guess = self._guess, None
            recording = ear.take()
            part = self._loop.create_task(self._part(recording, guess))
            part.add_done_callback(lambda _: recording.cancel())
            if guess is not None:
                # Also when the part is cancelled before its first step, or a streaming recogniser had the last word.
                part.add_done_callback(lambda _: guess.cancel())
        part.add_done_callback(_consume)
        self._parts.append(part)

    async def whole(self, final: bool) -> Utterance:
        """Return what was said. Raises ProviderError.

        Unless it is ``final``, this takes as long as the words ask for, once they are known.
        """
        known = await asyncio.gather(*(asyncio.shield(part) for part in self._parts), return_exceptions=True)
        parts = [part for part in known if not isinstance(part, BaseException)]
        if not parts:  # else what was understood is better than an apology
            for error in known:
                if isinstance(error, BaseException):
                    raise error
        words = join([part.text for part in parts])
        if self._doubt is not None and parts and parts[-1].text:
            self._doubt()
        self._doubt = None
        if not final:
            if not self._needed_ms:
                self._judge(words, None)  # they were not known at the pause
            left = (self._needed_ms - self._silence_ms) / 1000 - (self._loop.time() - self._ended_at)
            await asyncio.sleep(max(left, 0.0))
        return Utterance(words, any(part.voiced for part in parts), len(parts))

    def close(self) -> None:
        """Give everything back; safe to call twice."""
        self._drop_parts()
        if self.ear is not None:
            self.ear.close()
            self.ear = None

    # -- EarListener

    def on_speech_started(self) -> None:
        """A voice is heard. What was guessed before it is void, as after a long pause while a button is held."""
        self._drop_guess()
        self._listener.on_speech_resumed()
        if self.ear is not None:
            self._listener.on_speech_started()

    def on_speech_paused(self) -> None:
        """Find out what was said so far."""
        if self._watching:
            return  # `mynah.dialogue.interruption` asks for itself
        services = self._services
        if self._speculates is None:
            self._speculates = services.speculation.wanted()
        streaming = services.asr.capabilities.streaming
        ear = self.ear
        if ear is None or ear.utterance is None:
            return
        # Taken now, not when the task runs: by then the utterance may be over, and the ear hear the next one.
        stream = ear.utterance if streaming or (self._speculates and self._interims < MAX_INTERIMS) else None
        sound = ear.tail() if services.turn_detector is not None else b""
        if stream is None and not sound:
            return
        self._interims += 1
        self._guess = self._loop.create_task(self._think_twice(ear, stream, sound))
        self._guess.add_done_callback(_consume)

    def on_speech_resumed(self) -> None:
        """What was guessed from less is void."""
        if self.ear is not None:
            self._patience.paused(self.ear.endpointer.pause_ms)
        self._drop_guess()
        self._listener.on_speech_resumed()

    def on_speech_ended(self) -> None:
        """The utterance is over."""
        self._listener.on_speech_ended()

    # -- pieces

    async def _think_twice(self, ear: Ear, stream: AsrStream | None, sound: bytes) -> Transcript | None:
        """Find out how long to wait, by the words so far and by their sound; None when nobody knows the words."""
        detector = self._services.turn_detector
        judging = self._loop.create_task(detector.judge(sound)) if detector is not None else None
        try:
            transcript = await stream.interim() if stream is not None else None
        except ProviderError:
            transcript = None
        except asyncio.CancelledError:
            if judging is not None:
                judging.cancel()
            raise
        finished = await judging if judging is not None else None
        if self._guess is not asyncio.current_task():
            return transcript  # it is over already, or goes on
        text = transcript.text.strip() if transcript is not None else ""
        before = [part.result().text for part in self._parts if _is_known(part)]
        words = join([*before, text])
        self._judge(words, finished)
        ear.endpointer.wait(self._needed_ms)
        if text and self._speculates and len(before) == len(self._parts):
            self._listener.on_words(words)
        return transcript

    def _judge(self, words: str, finished: float | None) -> None:
        language = detect_language(words, default=self._language)
        self._needed_ms = self._patience.silence_ms(words, language, finished)

    async def _part(self, recording: Recording, guess: asyncio.Task[Transcript | None] | None) -> Utterance:
        """Return the text of one part: what was guessed at the pause, where nothing has been added since."""
        try:
            transcript: Transcript | None = None
            if guess is not None and not self._services.asr.capabilities.streaming:
                transcript = await guess
            if transcript is None:
                transcript = await recording.finish()
        finally:
            recording.cancel()
        return Utterance(transcript.text.strip(), recording.voiced)

    async def _last_part(self, ear: Ear) -> Utterance:
        recording = await ear.close_after_flush()
        # Only now: the user may have gone on in the audio that was on its way.
        guess, self._guess = self._guess, None
        return await self._part(recording, guess)

    def _drop_guess(self) -> None:
        guess, self._guess = self._guess, None
        self._needed_ms = 0.0
        if guess is not None:
            guess.cancel()

    def _drop_parts(self) -> None:
        self._drop_guess()
        for part in self._parts:
            part.cancel()
        self._parts = []
        self._doubt = None
        self._interims = 0
        self._speculates = None


def join(texts: list[str]) -> str:
    """Put parts of an utterance together; Chinese has no spaces."""
    whole = ""
    for text in filter(None, texts):
        space = " " if whole and whole[-1].isascii() and text[0].isascii() else ""
        whole += space + text
    return whole


def _is_known(part: asyncio.Task[Utterance]) -> bool:
    return part.done() and not part.cancelled() and part.exception() is None


def _consume(task: asyncio.Task[object]) -> None:
    """A result that nobody asks for any more must not be reported as an error."""
    if not task.cancelled():
        task.exception()
