"""Speech: sentences into paced frames, the phrase cache, a voice that fails."""

from __future__ import annotations

import asyncio

from mynah.audio.encode import SpeechEncoder
from mynah.audio.pacer import Pacer
from mynah.dialogue.speak import START_GAP_S, PhraseCache, Spoken, Voice
from tests.fakes import PROVIDER_DOWN, Script, ScriptedTts
from tests.virtual_time import InlineExecutor, run


class Sink:
    def __init__(self) -> None:
        self.seen: list[tuple[float, str]] = []

    def _note(self, what: str) -> None:
        self.seen.append((asyncio.get_running_loop().time(), what))

    def on_frame(self, packet: bytes, timestamp_ms: int) -> None:
        self._note("frame")

    def on_sentence(self, sentence: Spoken) -> None:
        self._note(sentence.text)

    def on_spoken(self) -> None:
        self._note("end")


def voice(script: Script) -> tuple[Voice, ScriptedTts, Sink]:
    tts, executor = ScriptedTts(script), InlineExecutor()
    return Voice(tts, Pacer(), lambda: SpeechEncoder(executor, 16000, 16000, complexity=0)), tts, Sink()


def test_sentence_frames_end_and_the_gap_before_them() -> None:
    async def main() -> tuple[float, Sink]:
        speaker, _, sink = voice(Script(tts_s=0.0))
        began = asyncio.get_running_loop().time()
        speech = speaker.open(sink)
        await speech.say(Spoken("Hello."), "en")
        speech.finish()
        await asyncio.sleep(5)
        return began, sink

    began, sink = run(main())
    assert [what for _, what in sink.seen] == ["Hello.", *["frame"] * 10, "end"]
    assert sink.seen[1][0] - began >= START_GAP_S - 1e-6
    assert sink.seen[-1][0] - sink.seen[1][0] >= 0.6


def test_what_cannot_be_pronounced_is_only_shown() -> None:
    async def main() -> list[str]:
        speaker, tts, sink = voice(Script())
        speech = speaker.open(sink)
        await speech.say(Spoken("😊"), "en")
        speech.finish()
        await asyncio.sleep(1)
        assert tts.said == []
        return [what for _, what in sink.seen]

    assert run(main()) == ["😊", "end"]


def test_failures_are_counted_and_not_cached() -> None:
    async def main() -> None:
        script = Script(tts_error=PROVIDER_DOWN)
        speaker, tts, sink = voice(script)
        speech = speaker.open(sink)
        await speech.say(Spoken("Hello."), "en", cacheable=True)
        assert speech.failures == 1
        script.tts_error = None
        await speech.say(Spoken("Hello."), "en", cacheable=True)
        await speech.say(Spoken("Hello."), "en", cacheable=True)
        assert len(tts.said) == 2
        speech.cancel()
        await speech.say(Spoken("Hello."), "en")  # a late sentence of a cancelled reply
        await asyncio.sleep(5)
        assert [what for _, what in sink.seen].count("frame") <= 3

    run(main())


def test_phrase_cache_forgets_the_least_recently_used() -> None:
    cache = PhraseCache(max_bytes=30)
    for name in "abc":
        cache.put(("v", "en", name), (b"x" * 10,))
    assert cache.get(("v", "en", "a")) is not None
    cache.put(("v", "en", "d"), (b"x" * 10,))
    cache.put(("v", "en", "d"), (b"y" * 10,))
    assert len(cache) == 3
    assert cache.get(("v", "en", "b")) is None
    assert cache.get(("v", "en", "d")) == (b"x" * 10,)
