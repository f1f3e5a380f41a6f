"""From sentences to paced Opus frames: synthesis, encoding and the queue in front of the device's speaker."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable
from contextlib import aclosing
from copy import copy
from typing import Any, Protocol

import msgspec

from mynah.audio.encode import Form, FrameEncoder
from mynah.audio.pacer import Pacer, Playback, Player
from mynah.audio.supply import Passage, Store, Supply
from mynah.dialogue.text import is_speakable, spoken
from mynah.errors import ProviderError
from mynah.providers.base import TtsProvider, TtsRequest

START_GAP_S = 0.025
"""Firmware switches to speaking on another thread; packets that arrive before that are lost."""
PUSHED = Form(24000)
"""What devices are pushed if nothing else is said."""
CACHE_BYTES = 8 * 1024 * 1024
"""About half an hour of speech at 35 kbit/s: all greetings, apologies and jokes in two languages many times over."""
CACHED_TEXT_CHARS = 200
"""Longer texts are seldom repeated."""


class Spoken(msgspec.Struct, frozen=True):
    """A sentence in the playback queue. ``remember``: it belongs into the history once it is heard."""

    text: str
    remember: bool = True


class SpeechSink(Protocol):
    """Where speech goes; called on the event loop in the order of playing."""

    def on_frame(self, packet: bytes, timestamp_ms: int) -> None:
        """Send one Opus frame now."""

    def on_sentence(self, sentence: Spoken) -> None:
        """The audio of this sentence begins (or it has none)."""

    def on_spoken(self) -> None:
        """Everything has had time to play."""


PhraseKey = tuple[str, str, str, Form]
"""Voice, language, text, and what the frames are."""


class PhraseCache:
    """Frames of short sentences that were spoken before, least recently used first."""

    def __init__(self, max_bytes: int = CACHE_BYTES) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._phrases: OrderedDict[PhraseKey, tuple[bytes, ...]] = OrderedDict()

    def get(self, key: PhraseKey) -> tuple[bytes, ...] | None:
        """Return its frames, or None."""
        frames = self._phrases.get(key)
        if frames is not None:
            self._phrases.move_to_end(key)
        return frames

    def put(self, key: PhraseKey, frames: tuple[bytes, ...]) -> None:
        """Remember frames; the least recently used phrases make room."""
        if key in self._phrases:
            return
        self._phrases[key] = frames
        self._bytes += sum(map(len, frames))
        while self._bytes > self._max_bytes:
            _, dropped = self._phrases.popitem(last=False)
            self._bytes -= sum(map(len, dropped))

    def __len__(self) -> int:
        return len(self._phrases)


class Voice:
    """The way to speak, shared by all sessions: a TTS provider, encoders, the pacer and the phrase cache."""

    def __init__(
        self,
        tts: TtsProvider[Any],
        pacer: Pacer,
        encoder: Callable[[Form], FrameEncoder],
        cache: PhraseCache | None = None,
        reword: Callable[[str], str] = spoken,
        form: Form = PUSHED,
    ) -> None:
        """``encoder`` makes one for frames of a form; ``form`` is that of devices that are pushed to.

        ``reword`` makes of a sentence what the voice is given: without markup, with replacements."""
        self.words = reword
        self.tts = tts
        self.pacer = pacer
        self.player: Player = pacer
        """Whom the replies go to."""
        self.form = form
        self._encoder = encoder
        self._other_cache = PhraseCache()
        self.cache = PhraseCache() if cache is None else cache
        self.store = Store()

    def through(self, player: Player, form: Form) -> Voice:
        """Return the same voice for a device that gets its audio in another way."""
        voice = copy(self)
        voice.player, voice.form = player, form
        if form != self.form:
            # A few devices that want PCM, which is much larger, must not crowd out everybody's greetings.
            voice.cache = self._other_cache
        return voice

    def encoder(self) -> FrameEncoder:
        """Make an encoder for a reply."""
        return self._encoder(self.form)

    def open(self) -> Speech:
        """Prepare a reply. Nothing of it leaves before `Speech.begin`."""
        return Speech(self)

    def knows(self, text: str, language: str) -> bool:
        """Return whether this sentence can be said at once, because it was said before."""
        return self.cache.get(self.key(self.words(text), language)) is not None

    def key(self, words: str, language: str) -> PhraseKey:
        """Return under which key the phrase cache has words that were made ready for the voice."""
        return (self.tts.name, language, words, self.form)

    async def warm(self, phrases: Iterable[tuple[str, str]]) -> int:
        """Put phrases, ``(text, language)`` each, into the cache; return how many could not be synthesised.

        One after the other, so that people who talk meanwhile are not kept waiting.
        """
        failures = 0
        for text, language in phrases:
            if is_speakable(self.words(text)) and not self.knows(text, language):
                speech = self.open()
                await speech.say(Spoken(text), language, cacheable=True)
                failures += speech.failures
                speech.cancel()
        return failures


class Speech:
    """The spoken side of one reply. Implements `mynah.audio.pacer.PlaybackSink`."""

    __slots__ = ("_begun", "_playback", "_said", "_sink", "_supply", "_voice", "failures")

    def __init__(self, voice: Voice) -> None:
        self._voice = voice
        self._sink: SpeechSink | None = None
        self._playback: Playback = voice.player.play(self)
        self._playback.pause()
        self._supply = Supply(self._playback, voice.encoder, voice.store)
        self._said: list[Passage] = []
        self._begun = 0  # how many of them the device has been given audio of, or at least the text
        self.failures = 0
        """Sentences that could not be synthesised and were shown as text only."""

    def begin(self, sink: SpeechSink) -> None:
        """Let it out, to ``sink``. The first frame leaves `START_GAP_S` from now at the earliest."""
        self._sink = sink
        self._playback.resume(not_before=asyncio.get_running_loop().time() + START_GAP_S)
        self._supply.release()

    def hold(self) -> None:
        """Stop sending. What the device already has keeps playing."""
        self._playback.pause()

    def resume(self) -> None:
        """Go on with exactly the frame that `hold` held back."""
        self._playback.resume()

    @property
    def queued_ms(self) -> int:
        """Audio that waits to be sent, in ms."""
        return (
            0 if self._playback.over else sum(passage.ms for passage in self._said) - self._playback.sent_ms
        )

    @property
    def sent_ms(self) -> int:
        """Audio sent so far, in ms."""
        return self._playback.sent_ms

    @property
    def played_ms(self) -> float:
        """Audio that the device has played by now, in ms."""
        return self._playback.played_ms

    def heard(self) -> list[str]:
        """Return the sentences to remember that were heard, the last one cut where the sound was cut.

        Of a sentence still being synthesised the length is not known yet, and a little too much of it may be returned.
        """
        texts, left = [], self._playback.heard_ms
        for passage in self._said[: self._begun]:
            sentence, length = passage.value, passage.ms
            if sentence.remember:
                texts.append(_cut(sentence.text, left / length) if left < length else sentence.text)
            left -= length
        return [text for text in texts if text]

    async def say(self, sentence: Spoken, language: str, *, cacheable: bool = False) -> None:
        """Synthesise one sentence and queue it. A failing voice leaves the text, which is shown without sound."""
        supply = self._supply
        if supply.over:
            return
        passage = supply.begin(sentence)
        self._said.append(passage)
        words = self._voice.words(sentence.text)
        if not is_speakable(words):
            return
        key = self._voice.key(words, language)
        cached = self._voice.cache.get(key)
        if cached is not None:
            supply.add_frames(cached)
            return
        await supply.wait_room()
        if cacheable and len(words) <= CACHED_TEXT_CHARS:
            passage.keep = []
        try:
            await self._synthesise(TtsRequest(words, language))
        except ProviderError:
            self.failures += 1
            self._release()  # what is left of it must not be heard before the next sentence
            return
        if passage.keep is not None and (frames := await supply.encoded(passage)):
            self._voice.cache.put(key, tuple(frames))

    async def _synthesise(self, request: TtsRequest) -> None:
        supply = self._supply
        async with aclosing(self._voice.tts.synthesize(request)) as chunks:
            async for pcm in chunks:
                supply.add_pcm(pcm)
                await supply.wait_room()
        # Sentences end on a frame boundary: what is left is padded with silence rather than held until the next one.
        supply.end()

    def finish(self) -> None:
        """No more sentences: `SpeechSink.on_spoken` follows when all has been played."""
        self._supply.finish()

    def cancel(self) -> None:
        """Drop everything that has not been sent."""
        self._supply.cancel()
        self._sink = (
            None  # it knows us: together they would wait for the garbage collector, and the link with them
        )

    def restart(self) -> None:
        """Begin anew with what is said next: the work in progress failed and may have left the encoder in its midst."""
        self._release()

    def _release(self) -> None:
        self._supply.end(pad=False)

    # -- PlaybackSink

    def on_frame(self, packet: bytes, timestamp_ms: int) -> None:
        """Pass a due frame on."""
        assert self._sink is not None  # nothing is due before `begin`
        self._sink.on_frame(packet, timestamp_ms)

    def on_marker(self, value: Spoken) -> None:
        """Pass on that a sentence begins."""
        assert self._sink is not None
        self._begun += 1
        self._sink.on_sentence(value)

    def on_played(self) -> None:
        """Pass on that all is over."""
        sink, self._sink = self._sink, None
        assert sink is not None
        sink.on_spoken()


def _cut(text: str, fraction: float) -> str:
    """Return the beginning of ``text`` that was heard when ``fraction`` of its sound was; whole words, with a mark."""
    end = round(len(text) * max(fraction, 0.0))
    if end >= len(text):
        return text
    if text[end].isascii() and text[end].isalnum():
        while end and text[end - 1].isascii() and text[end - 1].isalnum():
            end -= 1  # half a word was not understood; ideographs are words by themselves
    begun = text[:end].rstrip(" ,;:，、；：")
    return f"{begun}…" if is_speakable(begun) else ""
