"""Speech: sentences into paced frames, holding and resuming, what was heard, the phrase cache, a voice that fails."""

from __future__ import annotations

import asyncio
import random
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mynah.audio.encode import Form, PcmCoders, SpeechEncoder
from mynah.audio.outlet import Outlet
from mynah.audio.pacer import Pacer
from mynah.dialogue.speak import PUSHED, START_GAP_S, PhraseCache, Speech, Spoken, Voice, _cut
from mynah.providers.base import TtsRequest
from tests.audio.inline_codec import InlineCodec
from tests.fakes import PROVIDER_DOWN, Script, ScriptedTts
from tests.virtual_time import run


class Sink:
    def __init__(self) -> None:
        self.seen: list[tuple[float, str]] = []
        self.packets: list[bytes] = []
        self.stamps: list[int] = []

    def _note(self, what: str) -> None:
        self.seen.append((asyncio.get_running_loop().time(), what))

    def on_frame(self, packet: bytes, timestamp_ms: int) -> None:
        self.packets.append(packet)
        self.stamps.append(timestamp_ms)
        self._note("frame")

    def on_sentence(self, sentence: Spoken) -> None:
        self._note(sentence.text)

    def on_spoken(self) -> None:
        self._note("end")

    @property
    def story(self) -> list[str]:
        return [what for _, what in self.seen]


NOISE = random.Random(1).randbytes(20_000)


class Siren(ScriptedTts):
    """No two frames of what it says sound the same."""

    async def synthesize(self, request: TtsRequest) -> AsyncGenerator[bytes, None]:
        self.said.append(request)
        for number in range(round(self.script.speech_s * 10)):
            yield NOISE[100 * (number + 13 * len(self.said)) :][:3200]


def voice(script: Script, kind: type[ScriptedTts] = ScriptedTts) -> tuple[Voice, ScriptedTts, Sink]:
    tts, codec = kind(script), InlineCodec()
    return Voice(tts, Pacer(), lambda _: SpeechEncoder(codec, 16000, 16000)), tts, Sink()


def test_sentence_frames_end_and_the_gap_before_them() -> None:
    async def main() -> tuple[float, Sink]:
        speaker, _, sink = voice(Script(tts_s=0.0))
        speech = speaker.open()
        began = asyncio.get_running_loop().time()
        speech.begin(sink)
        await speech.say(Spoken("Hello."), "en")
        speech.finish()
        await asyncio.sleep(5)
        return began, sink

    began, sink = run(main())
    assert sink.story == ["Hello.", *["frame"] * 10, "end"]
    assert sink.seen[1][0] - began >= START_GAP_S - 1e-6
    assert sink.seen[-1][0] - sink.seen[1][0] >= 0.6


def test_nothing_leaves_before_it_is_begun_and_then_all_does() -> None:
    async def main() -> None:
        speaker, _, sink = voice(Script(tts_s=0.0, speech_s=1.2))
        speech = speaker.open()
        await speech.say(Spoken("Hello."), "en")
        await speech.say(Spoken("World."), "en")
        speech.finish()
        await asyncio.sleep(10)
        assert (speech.queued_ms, speech.sent_ms) == (2400, 0)
        assert speech.heard() == []
        began = asyncio.get_running_loop().time()
        speech.begin(sink)
        await asyncio.sleep(10)
        assert sink.story == ["Hello.", *["frame"] * 20, "World.", *["frame"] * 20, "end"]
        assert sink.seen[0][0] - began == pytest.approx(START_GAP_S, abs=0.01)
        assert sink.seen[-1][0] - began == pytest.approx(2.4, abs=0.2), "nobody is sent a burst"

    run(main())


def test_what_is_cancelled_before_it_is_begun_leaves_nothing() -> None:
    async def main() -> None:
        speaker, _, sink = voice(Script())
        speech = speaker.open()
        await speech.say(Spoken("Hello."), "en")
        speech.cancel()
        speech.begin(sink)
        await asyncio.sleep(10)
        assert sink.seen == []

    run(main())


async def _spoken(disturb: Callable[[Speech], Awaitable[None]]) -> Sink:
    """Speak the same two sentences, with a disturbance beside it."""
    speaker, _, sink = voice(Script(speech_s=1.2), Siren)
    speech = speaker.open()
    speech.begin(sink)
    disturbing = asyncio.ensure_future(disturb(speech))
    await speech.say(Spoken("Hello."), "en")
    await speech.say(Spoken("World."), "en")
    speech.finish()
    await disturbing
    await asyncio.sleep(10)
    return sink


async def _undisturbed(speech: Speech) -> None:
    return


@settings(max_examples=40)
@given(st.lists(st.tuples(st.floats(0, 1.5), st.floats(0, 2.0)), min_size=1, max_size=4))
def test_a_held_reply_is_the_reply_frame_by_frame(holds: list[tuple[float, float]]) -> None:
    async def disturb(speech: Speech) -> None:
        for after, length in holds:
            await asyncio.sleep(after)
            speech.hold()
            sent = speech.sent_ms
            await asyncio.sleep(length)
            assert speech.sent_ms == sent, "nothing leaves while it is held"
            speech.resume()

    whole, held = run(_spoken(_undisturbed)), run(_spoken(disturb))
    assert len(set(whole.packets)) > 30, "equal frames would hide a mistake"
    assert held.packets == whole.packets
    assert held.story == whole.story
    assert held.stamps == whole.stamps == [60 * (i + 1) for i in range(40)]


@pytest.mark.parametrize("moment", [0.0, 0.01, 3.0, 8.0])
def test_a_hold_before_the_first_frame_or_after_the_last_ends_too(moment: float) -> None:
    async def disturb(speech: Speech) -> None:
        await asyncio.sleep(moment)
        speech.hold()
        await asyncio.sleep(2.0)
        speech.resume()
        speech.resume()

    sink = run(_spoken(disturb))
    assert sink.story.count("frame") == 40
    assert sink.story.count("end") == 1


def test_the_end_does_not_come_during_a_hold() -> None:
    async def disturb(speech: Speech) -> None:
        while speech.queued_ms or not speech.sent_ms:
            await asyncio.sleep(0.01)
        speech.hold()
        held_at.append(asyncio.get_running_loop().time())
        await asyncio.sleep(3.0)
        speech.resume()

    held_at: list[float] = []
    sink = run(_spoken(disturb))
    assert sink.seen[-1][1] == "end"
    assert sink.seen[-1][0] >= held_at[0] + 3.0


def test_heard_is_what_was_sent_and_no_more() -> None:
    async def main() -> None:
        speaker, _, sink = voice(Script(tts_s=0.0, speech_s=3.0))
        speech = speaker.open()
        speech.begin(sink)
        await speech.say(Spoken("One moment.", remember=False), "en")
        await speech.say(Spoken("This is the second sentence here."), "en")
        await speech.say(Spoken("Never heard."), "en")
        speech.finish()
        await asyncio.sleep(2.0)
        assert speech.heard() == [], "a filler is no part of the conversation"
        while speech.sent_ms < 3000 + 1500:
            assert all("This is the second sentence here.".startswith(text[:-1]) for text in speech.heard())
            await asyncio.sleep(0.01)
        assert speech.heard() == ["This is the…"]
        while speech.sent_ms < 6000:
            await asyncio.sleep(0.01)
        assert speech.heard() == ["This is the second sentence here."]
        speech.cancel()
        assert speech.heard() == ["This is the second sentence here."]

    run(main())


def test_what_waits_to_be_encoded_counts_for_how_far_a_sentence_was_heard() -> None:
    async def main() -> None:
        speaker, _, sink = voice(Script(tts_s=0.0, speech_s=9.0))
        speech = speaker.open()
        speech.begin(sink)
        await speech.say(Spoken("One two three four five six."), "en")
        assert speech.queued_ms == 9000
        while speech.sent_ms < 4500:
            await asyncio.sleep(0.01)
        assert speech.queued_ms == 4500
        assert speech.heard() == ["One two three…"]
        speech.cancel()
        assert speech.heard() == ["One two three…"]
        assert speech.queued_ms == 0
        assert speaker.store.used == 0
        await speech.say(Spoken("Too late."), "en")
        await asyncio.sleep(5)
        assert "Too late." not in sink.story

    run(main())


@pytest.mark.parametrize("seconds", [0.1, 3.0])
def test_a_voice_that_breaks_off_is_heard_as_far_as_it_came(seconds: float) -> None:
    class Breaking(ScriptedTts):
        async def synthesize(self, request: TtsRequest) -> AsyncGenerator[bytes, None]:
            async for pcm in super().synthesize(request):
                yield pcm
            if request.text == "Broken.":
                raise PROVIDER_DOWN

    async def main() -> None:
        speaker, _, sink = voice(Script(tts_s=0.0, speech_s=seconds), Breaking)
        speech = speaker.open()
        speech.begin(sink)
        await speech.say(Spoken("Broken."), "en")
        await speech.say(Spoken("Whole."), "en")
        speech.finish()
        await asyncio.sleep(20)
        frames = int(seconds / 0.06), round(seconds / 0.06 + 0.49)
        assert sink.story == ["Broken.", *["frame"] * frames[0], "Whole.", *["frame"] * frames[1], "end"]
        assert speech.failures == 1
        assert speech.heard() == ["Broken.", "Whole."]

    run(main())


def test_restarted_in_the_midst_of_a_sentence() -> None:
    async def main() -> None:
        speaker, _, sink = voice(Script(tts_s=0.0, speech_s=3.0))
        speech = speaker.open()
        speech.begin(sink)
        saying = asyncio.ensure_future(speech.say(Spoken("Cut off."), "en"))
        await asyncio.sleep(0)
        saying.cancel()
        speech.restart()
        await speech.say(Spoken("Sorry."), "en", cacheable=True)
        speech.finish()
        await asyncio.sleep(20)
        assert sink.story[0] == "Cut off."
        assert sink.story[-52:] == ["Sorry.", *["frame"] * 50, "end"]
        assert speaker.knows("Sorry.", "en")

    run(main())


def test_what_was_only_shown_counts_as_heard() -> None:
    async def main() -> None:
        script = Script(tts_s=0.0, speech_s=0.6)
        speaker, _, sink = voice(script)
        speech = speaker.open()
        speech.begin(sink)
        await speech.say(Spoken("Heard."), "en")
        script.tts_error = PROVIDER_DOWN
        await speech.say(Spoken("Shown."), "en")
        script.tts_error = None
        await speech.say(Spoken("Heard too."), "en")
        speech.finish()
        await asyncio.sleep(5)
        assert speech.heard() == ["Heard.", "Shown.", "Heard too."]
        assert speech.failures == 1

    run(main())


@pytest.mark.parametrize(
    ("text", "fraction", "cut"),
    [
        ("Once upon a time.", 0.55, "Once upon…"),
        ("Once upon a time.", 0.45, "Once…"),
        ("Well, then go.", 0.36, "Well…"),
        ("Hello.", 0.5, ""),
        ("Hello.", 1.0, "Hello."),
        ("Hello.", 0.0, ""),
        ("Hello.", -1.0, ""),
        ("今天天气很好。", 0.5, "今天天气…"),
        ("好的，我知道了。", 0.4, "好的…"),
    ],
)
def test_sentences_are_cut_between_words(text: str, fraction: float, cut: str) -> None:
    assert _cut(text, fraction) == cut


@given(st.text(max_size=60), st.floats(0, 1))
def test_a_cut_is_a_beginning(text: str, fraction: float) -> None:
    cut = _cut(text, fraction)
    assert cut == text or (text.startswith(cut.removesuffix("…")) and len(cut) <= len(text) + 1)
    if cut not in ("", text):
        begun = cut.removesuffix("…")
        following = text[len(begun) :][:1]
        assert not (
            following.isascii() and following.isalnum() and begun[-1].isascii() and begun[-1].isalnum()
        )


def test_what_cannot_be_pronounced_is_only_shown() -> None:
    async def main() -> list[str]:
        speaker, tts, sink = voice(Script())
        speech = speaker.open()
        speech.begin(sink)
        await speech.say(Spoken("😊"), "en")
        speech.finish()
        await asyncio.sleep(1)
        assert tts.said == []
        return sink.story

    assert run(main()) == ["😊", "end"]


def test_failures_are_counted_and_not_cached() -> None:
    async def main() -> None:
        script = Script(tts_error=PROVIDER_DOWN)
        speaker, tts, sink = voice(script)
        speech = speaker.open()
        speech.begin(sink)
        await speech.say(Spoken("Hello."), "en", cacheable=True)
        assert speech.failures == 1
        script.tts_error = None
        await speech.say(Spoken("Hello."), "en", cacheable=True)
        await speech.say(Spoken("Hello."), "en", cacheable=True)
        assert len(tts.said) == 2
        speech.cancel()
        await speech.say(Spoken("Hello."), "en")  # a late sentence of a cancelled reply
        await asyncio.sleep(5)
        assert sink.story.count("frame") <= 3

    run(main())


def test_phrases_are_warmed_once_and_known_in_their_language() -> None:
    async def main() -> None:
        script = Script()
        speaker, tts, _ = voice(script)
        assert await speaker.warm([("Let me see.", "en"), ("😊", "en"), ("Let me see.", "en")]) == 0
        assert [request.text for request in tts.said] == ["Let me see."]
        assert speaker.knows("Let me see.", "en")
        assert not speaker.knows("Let me see.", "zh")
        script.tts_error = PROVIDER_DOWN
        assert await speaker.warm([("One moment.", "en")]) == 1
        assert not speaker.knows("One moment.", "en")

    run(main())


def test_phrase_cache_forgets_the_least_recently_used() -> None:
    cache = PhraseCache(max_bytes=30)
    for name in "abc":
        cache.put(("v", "en", name, PUSHED), (b"x" * 10,))
    assert cache.get(("v", "en", "a", PUSHED)) is not None
    cache.put(("v", "en", "d", PUSHED), (b"x" * 10,))
    cache.put(("v", "en", "d", PUSHED), (b"y" * 10,))
    assert len(cache) == 3
    assert cache.get(("v", "en", "b", PUSHED)) is None
    assert cache.get(("v", "en", "d", PUSHED)) == (b"x" * 10,)


def test_one_voice_speaks_to_devices_of_all_kinds() -> None:
    """A device that fetches gets the same speech in its own form; what was said before is kept for each form."""

    async def main() -> None:
        made: list[Form] = []
        script, codec = Script(), InlineCodec()
        tts = Siren(script)

        def encoder(form: Form) -> SpeechEncoder:
            made.append(form)
            return SpeechEncoder(codec, 16000, form.rate, encoders=None if form.opus else PcmCoders())

        pushed = Voice(tts, Pacer(), encoder)
        outlet = Outlet(pushed.pacer, lambda: None)
        plain = Form(16000, opus=False)
        fetched = pushed.through(outlet, plain)
        assert pushed.player is pushed.pacer
        assert pushed.form == PUSHED
        assert (fetched.tts, fetched.store, fetched.pacer) == (pushed.tts, pushed.store, pushed.pacer)
        sinks = []
        for voice in (pushed, fetched):
            speech, sink = voice.open(), Sink()
            await speech.say(Spoken("Busy."), "en", cacheable=True)
            speech.begin(sink)
            speech.finish()
            sinks.append(sink)
        assert made == [PUSHED, plain]
        assert pushed.key("Busy.", "en") != fetched.key("Busy.", "en")
        await asyncio.sleep(3)
        assert sinks[0].story[-1] == "end"
        assert sinks[1].story == [], "nobody has asked"
        outlet.open()
        await asyncio.sleep(3)
        assert sinks[1].story == ["Busy.", *["frame"] * len(sinks[1].packets), "end"]
        assert b"".join(sinks[1].packets).startswith(NOISE[100 * 26 :][:3200])
        assert fetched.knows("Busy.", "en")
        assert pushed.knows("Busy.", "en")
        again = pushed.through(Outlet(pushed.pacer, lambda: None), Form(8000, opus=False))
        assert not again.knows("Busy.", "en")
        assert len(tts.said) == 2

    run(main())


@pytest.mark.parametrize("end", ["played", "cancelled"])
def test_what_is_over_holds_on_to_nobody(end: str) -> None:
    """Else the link to the device would wait for the garbage collector."""

    async def main() -> None:
        speaker, _, sink = voice(Script())
        speech = speaker.open()
        speech.begin(sink)
        await speech.say(Spoken("Hello."), "en")
        speech.finish()
        known = weakref.ref(sink)
        if end == "cancelled":
            speech.cancel()
        else:
            await asyncio.sleep(5)
            assert sink.story[-1] == "end"
        del sink
        assert known() is None

    run(main())


async def test_phrases_in_another_form_do_not_crowd_out_those_of_the_others() -> None:
    say, _, _ = voice(Script())
    other = say.through(say.player, Form(16000, opus=False))
    assert other.cache is not say.cache
    assert say.through(say.player, Form(8000, opus=False)).cache is other.cache
    assert say.through(say.player, say.form).cache is say.cache
