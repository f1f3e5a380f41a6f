"""From sentences to paced Opus frames: synthesis, encoding and the queue in front of the device's speaker."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from contextlib import aclosing
from typing import Any, Protocol

import msgspec

from mynah.audio.encode import SpeechEncoder
from mynah.audio.pacer import Pacer, Playback
from mynah.dialogue.text import is_speakable, spoken
from mynah.errors import ProviderError
from mynah.providers.base import TtsProvider, TtsRequest

START_GAP_S = 0.025
"""Firmware switches to speaking on another thread; packets that arrive before that are lost."""
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


class PhraseCache:
    """Opus frames of short sentences that were spoken before, least recently used first."""

    def __init__(self, max_bytes: int = CACHE_BYTES) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._phrases: OrderedDict[tuple[str, str, str], tuple[bytes, ...]] = OrderedDict()

    def get(self, key: tuple[str, str, str]) -> tuple[bytes, ...] | None:
        """Return the frames of (voice, language, text), or None."""
        frames = self._phrases.get(key)
        if frames is not None:
            self._phrases.move_to_end(key)
        return frames

    def put(self, key: tuple[str, str, str], frames: tuple[bytes, ...]) -> None:
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
        encoder: Callable[[], SpeechEncoder],
        cache: PhraseCache | None = None,
    ) -> None:
        self.tts = tts
        self.pacer = pacer
        self.encoder = encoder
        self.cache = PhraseCache() if cache is None else cache

    def open(self, sink: SpeechSink) -> Speech:
        """Begin a reply. The first frame leaves `START_GAP_S` from now at the earliest."""
        return Speech(self, sink)


class Speech:
    """The spoken side of one reply. Implements `mynah.audio.pacer.PlaybackSink`."""

    __slots__ = ("_encoder", "_playback", "_sink", "_voice", "failures")

    def __init__(self, voice: Voice, sink: SpeechSink) -> None:
        self._voice = voice
        self._sink = sink
        self._encoder: SpeechEncoder | None = None
        loop = asyncio.get_running_loop()
        self._playback: Playback = voice.pacer.play(self, not_before=loop.time() + START_GAP_S)
        self.failures = 0
        """Sentences that could not be synthesised and were shown as text only."""

    async def say(self, sentence: Spoken, language: str, *, cacheable: bool = False) -> None:
        """Synthesise one sentence and queue it. A failing voice leaves the text, which is shown without sound."""
        self._playback.mark(sentence)
        words = spoken(sentence.text)
        if not is_speakable(words):
            return
        key = (self._voice.tts.name, language, words)
        cached = self._voice.cache.get(key)
        if cached is not None:
            self._push(list(cached))
            return
        await self._playback.wait_room()
        keep: list[bytes] | None = [] if cacheable and len(words) <= CACHED_TEXT_CHARS else None
        try:
            await self._synthesise(TtsRequest(words, language), keep)
        except ProviderError:
            self.failures += 1
            return
        if keep:
            self._voice.cache.put(key, tuple(keep))

    async def _synthesise(self, request: TtsRequest, keep: list[bytes] | None) -> None:
        if self._encoder is None:
            self._encoder = self._voice.encoder()
        encoder = self._encoder
        async with aclosing(self._voice.tts.synthesize(request)) as chunks:
            async for pcm in chunks:
                frames = await encoder.push(pcm)
                self._push(frames)
                if keep is not None:
                    keep.extend(frames)
                await self._playback.wait_room()
        # Sentences end on a frame boundary: what is left is padded with silence rather than held until the next one.
        frames = await encoder.flush()
        self._push(frames)
        if keep is not None:
            keep.extend(frames)

    def _push(self, frames: list[bytes]) -> None:
        if frames:
            self._playback.push(frames)

    def finish(self) -> None:
        """No more sentences: `SpeechSink.on_spoken` follows when all has been played."""
        self._release()
        self._playback.finish()

    def cancel(self) -> None:
        """Drop everything that has not been sent."""
        self._release()
        self._playback.cancel()

    def restart(self) -> None:
        """Begin anew with what is said next: the work in progress failed and may have left the encoder in its midst."""
        self._release()

    def _release(self) -> None:
        if self._encoder is not None:
            self._encoder.close()
            self._encoder = None

    # -- PlaybackSink

    def on_frame(self, packet: bytes, timestamp_ms: int) -> None:
        """Pass a due frame on."""
        self._sink.on_frame(packet, timestamp_ms)

    def on_marker(self, value: Spoken) -> None:
        """Pass on that a sentence begins."""
        self._sink.on_sentence(value)

    def on_played(self) -> None:
        """Pass on that all is over."""
        self._sink.on_spoken()
