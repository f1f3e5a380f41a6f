"""What waits un-encoded: how far ahead it is encoded, in which order it comes out, what bounds it, how it ends."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mynah.audio.encode import EncoderPool, OnFrames, SpeechEncoder
from mynah.audio.opus import SPEECH_BITRATE, Effort, OpusEncoder
from mynah.audio.pacer import Pacer, Playback
from mynah.audio.supply import (
    AHEAD,
    FIRST_SLICE,
    LEAST_WAITING_S,
    LOW,
    MAX_WAITING_S,
    PREPARED,
    SLICE,
    Passage,
    Store,
    Supply,
)
from mynah.errors import AudioError
from tests.audio.inline_codec import InlineCodec
from tests.virtual_time import run, settle, virtual

T = 0.06
FRAME = 1920
"""Bytes of PCM that make a frame at 16 kHz."""
NOISE = random.Random(2).randbytes(400_000)


class Sink:
    def __init__(self) -> None:
        self.events: list[Any] = []
        self.packets: list[bytes] = []

    def on_frame(self, packet: bytes, timestamp_ms: int) -> None:
        self.events.append("frame")
        self.packets.append(packet)

    def on_marker(self, value: Any) -> None:
        self.events.append(value)

    def on_played(self) -> None:
        self.events.append("end")


class Stage:
    def __init__(self, *, begun: bool = True, store: Store | None = None) -> None:
        self.codec, self.sink, self.store = InlineCodec(), Sink(), store or Store()
        self.encoders: list[SpeechEncoder] = []
        self.playback: Playback = Pacer().play(self.sink)
        self.playback.pause()
        self.supply = Supply(self.playback, self.encoder, self.store)
        if begun:
            self.begin()

    def begin(self) -> None:
        self.playback.resume()
        self.supply.release()

    def encoder(self) -> SpeechEncoder:
        self.encoders.append(SpeechEncoder(self.codec, 16000, 16000, encoders=EncoderPool()))
        return self.encoders[-1]

    def say(self, name: str, pcm: bytes, piece: int = 3200) -> Passage:
        passage = self.supply.begin(name)
        for at in range(0, len(pcm), piece):
            self.supply.add_pcm(pcm[at : at + piece])
        self.supply.end()
        return passage


def plain(pcm: bytes) -> list[bytes]:
    encoder = OpusEncoder(16000, 60, Effort.LIGHT, SPEECH_BITRATE)
    pcm += bytes(-len(pcm) % FRAME)
    return [encoder.encode(pcm[at : at + FRAME]) for at in range(0, len(pcm), FRAME)]


@virtual
async def test_little_is_encoded_ahead_and_all_of_it_in_the_end() -> None:
    stage = Stage()
    passage = stage.say("a", NOISE[: 100 * FRAME + 500])
    stage.supply.finish()
    assert passage.ms == 101 * 60
    most = 0
    while "end" not in stage.sink.events:
        await asyncio.sleep(0.01)
        most = max(most, stage.playback.queued)
        left = 101 - len(stage.sink.packets) - stage.playback.queued
        assert stage.playback.queued >= min(LOW - 1, left) or not stage.sink.packets
    assert AHEAD - SLICE < most <= AHEAD
    assert stage.sink.packets == plain(NOISE[: 100 * FRAME + 500])
    assert stage.sink.events[0] == "a"
    assert stage.store.used == 0
    assert passage.ms == 101 * 60
    assert len(stage.codec.submitted) < 101 / SLICE * 1.3 + 2


@virtual
async def test_less_is_prepared_until_it_is_to_be_played() -> None:
    stage = Stage(begun=False)
    stage.say("a", NOISE[: 60 * FRAME])
    await asyncio.sleep(10)
    assert stage.playback.queued == PREPARED
    stage.begin()
    await settle()
    assert AHEAD - 3 <= stage.playback.queued <= AHEAD
    await asyncio.sleep(10)
    assert stage.sink.packets == plain(NOISE[: 60 * FRAME])


@virtual
async def test_the_first_frames_are_a_small_job_that_goes_before_others() -> None:
    stage, loop = Stage(), asyncio.get_running_loop()
    begin = loop.time()
    stage.codec.hold()
    stage.say("a", NOISE[: 60 * FRAME], piece=60 * FRAME)
    assert stage.codec.submitted == [begin]
    stage.codec.go_on()
    await asyncio.sleep(0)
    assert stage.playback.queued == FIRST_SLICE
    await settle()
    assert stage.codec.submitted[1] == pytest.approx(begin + 2 * T), (
        "the rest is needed when these are played"
    )
    await asyncio.sleep(30 * T)
    assert all(due > begin + 0.3 for due in stage.codec.submitted[2:])


@virtual
async def test_a_device_that_ran_dry_is_as_urgent() -> None:
    stage, loop = Stage(), asyncio.get_running_loop()
    stage.supply.begin("a")
    stage.supply.add_pcm(NOISE[: 10 * FRAME])
    await asyncio.sleep(20 * T)
    stage.supply.add_pcm(NOISE[: 10 * FRAME])
    assert stage.codec.submitted[-1] == loop.time()


@virtual
async def test_a_voice_as_fast_as_speech_is_not_kept_waiting() -> None:
    stage = Stage()
    stage.supply.begin("a")
    for at in range(0, 60 * FRAME, FRAME // 2):
        stage.supply.add_pcm(NOISE[at : at + FRAME // 2])
        await asyncio.sleep(T / 2)
    assert len(stage.sink.packets) + stage.playback.queued >= 58
    stage.supply.end()
    stage.supply.finish()
    await asyncio.sleep(10)
    assert stage.sink.packets == plain(NOISE[: 60 * FRAME])


@virtual
async def test_everything_comes_in_the_order_in_which_it_was_put_in() -> None:
    stage = Stage()
    stage.say("a", NOISE[: 40 * FRAME + 2])
    stage.supply.begin("text only")
    stage.supply.begin("known")
    stage.supply.add_frames((b"1", b"2", b"3"))
    stage.say("b", NOISE[: 2 * FRAME])
    stage.supply.begin("last words")
    stage.supply.finish()
    stage.supply.finish()
    with pytest.raises(RuntimeError, match="after the end"):
        stage.supply.begin("late")
    await asyncio.sleep(10)
    story = [
        "a",
        *["frame"] * 41,
        "text only",
        "known",
        *["frame"] * 3,
        "b",
        *["frame"] * 2,
        "last words",
        "end",
    ]
    assert stage.sink.events == story
    assert stage.sink.packets[41:44] == [b"1", b"2", b"3"]


@virtual
async def test_what_broke_off_is_heard_as_far_as_it_came_and_leaves_nothing_to_the_next() -> None:
    stage = Stage()
    broken = stage.supply.begin("broken")
    stage.supply.add_pcm(NOISE[: 40 * FRAME + 1000])
    stage.supply.end(pad=False)
    stage.supply.end(pad=False)
    stage.supply.add_pcm(NOISE[:FRAME])  # nothing is open
    stage.say("next", NOISE[: 2 * FRAME])
    stage.supply.finish()
    await asyncio.sleep(10)
    assert stage.sink.packets == plain(NOISE[: 40 * FRAME]) + plain(NOISE[: 2 * FRAME])
    assert broken.ms == 40 * 60
    assert len(stage.encoders) == 2


@virtual
async def test_cancelling_drops_all_and_keeps_the_length() -> None:
    stage = Stage()
    first, second = stage.say("a", NOISE[: 60 * FRAME]), stage.say("b", NOISE[: 30 * FRAME])
    await asyncio.sleep(5 * T)
    stage.supply.cancel()
    stage.supply.cancel()
    sent, jobs = len(stage.sink.packets), len(stage.codec.submitted)
    assert (first.ms, second.ms) == (3600, 1800)
    assert stage.store.used == 0
    assert stage.supply.over
    stage.supply.add_pcm(b"late")
    stage.supply.end()
    stage.supply.finish()
    await asyncio.sleep(10)
    assert (len(stage.sink.packets), len(stage.codec.submitted)) == (sent, jobs)
    assert await stage.supply.encoded(second) is None


@virtual
async def test_cancelled_while_a_thread_encodes() -> None:
    stage = Stage()
    stage.codec.hold()
    passage = stage.say("a", NOISE[: 9 * FRAME])
    waiting = asyncio.ensure_future(stage.supply.encoded(passage))
    await settle()
    stage.supply.cancel()
    stage.codec.go_on()
    assert await waiting is None
    await asyncio.sleep(10)
    assert stage.sink.events == []


@virtual
async def test_what_is_kept_is_encoded_at_once_and_as_well_as_can_be() -> None:
    stage = Stage(begun=False)
    passage = stage.supply.begin("a")
    passage.keep = []
    stage.supply.add_pcm(NOISE[: 100 * FRAME - 100])
    stage.supply.end()
    frames = await stage.supply.encoded(passage)
    best = OpusEncoder(16000, 60, Effort.FULL, SPEECH_BITRATE)
    pcm = NOISE[: 100 * FRAME - 100] + bytes(100)
    assert frames == [best.encode(pcm[at : at + FRAME]) for at in range(0, len(pcm), FRAME)]
    assert stage.sink.packets == []
    assert stage.playback.queued == 100


@virtual
async def test_the_voice_waits_when_much_is_waiting() -> None:
    stage, loop = Stage(), asyncio.get_running_loop()
    await stage.supply.wait_room()
    stage.supply.begin("a")
    second = bytes(32000)
    added = 0
    begin = loop.time()
    while loop.time() == begin:
        stage.supply.add_pcm(second)
        added += 1
        await stage.supply.wait_room()
    assert MAX_WAITING_S <= added <= MAX_WAITING_S + 3
    stage.supply.add_pcm(second * 9)
    waiting = [asyncio.ensure_future(stage.supply.wait_room()) for _ in range(2)]
    await settle()
    assert not any(task.done() for task in waiting)
    waiting[0].cancel()
    stage.supply.cancel()
    await waiting[1]


@virtual
async def test_with_many_replies_each_may_have_less_waiting() -> None:
    store = Store(limit=320_000)
    other, stage = Stage(store=store), Stage(store=store)
    other.say("a", bytes(400_000))
    assert store.used > store.limit
    stage.supply.begin("b")
    stage.supply.add_pcm(bytes(int(LEAST_WAITING_S * 32000)))
    await asyncio.wait_for(stage.supply.wait_room(), 1)
    stage.supply.add_pcm(bytes(96000))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(stage.supply.wait_room(), 1)
    stage.supply.add_pcm(bytes(32000))
    await asyncio.wait_for(stage.supply.wait_room(), 6)
    other.supply.cancel()
    stage.supply.cancel()
    assert store.used == 0


class Failing:
    """Fails with its second slice."""

    frame_in = FRAME

    def __init__(self, inner: SpeechEncoder) -> None:
        self._inner, self._slices = inner, 0
        self.close = inner.close

    def encode(self, pcm: bytes, done: OnFrames, *, last: bool, due: float, best: bool = False) -> None:
        self._slices += 1
        if self._slices == 2:
            asyncio.get_running_loop().call_soon(done, [], AudioError("broken"))
            return
        self._inner.encode(pcm, done, last=last, due=due, best=best)


@pytest.mark.parametrize("ended", [True, False])
def test_what_cannot_be_encoded_ends_its_passage_only(ended: bool) -> None:
    @virtual
    async def main() -> None:
        stage = Stage()
        make: Callable[[], Any] = stage.encoder
        stage.supply._make = lambda: Failing(make()) if len(stage.encoders) == 0 else make()
        passage = stage.supply.begin("a")
        stage.supply.add_pcm(NOISE[: 30 * FRAME])
        if ended:
            stage.supply.end()
        await settle()
        with pytest.raises(AudioError, match="broken"):
            await stage.supply.encoded(passage)
        if not ended:
            with pytest.raises(AudioError, match="broken"):
                stage.supply.add_pcm(NOISE[:FRAME])
        stage.say("b", NOISE[: 5 * FRAME])
        stage.supply.finish()
        await asyncio.sleep(10)
        heard = plain(NOISE[: FIRST_SLICE * FRAME]) + plain(NOISE[: 5 * FRAME])
        assert stage.sink.packets == heard
        assert stage.sink.events[-1] == "end"
        assert passage.ms == FIRST_SLICE * 60
        assert stage.store.used == 0

    main()


@virtual
async def test_an_encoder_that_cannot_be_made_is_told_to_who_adds() -> None:
    stage = Stage()
    stage.supply._make = lambda: SpeechEncoder(stage.codec, 16000, 44100)
    stage.supply.begin("a")
    with pytest.raises(AudioError, match="44100"):
        stage.supply.add_pcm(NOISE[:FRAME])
    stage.supply.finish()
    await asyncio.sleep(1)
    assert stage.sink.events == ["a", "end"]


PIECES = st.lists(st.integers(0, 9000), max_size=8)


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.tuples(PIECES, st.booleans(), st.floats(0, 3)), min_size=1, max_size=4),
    st.lists(st.tuples(st.floats(0, 2), st.floats(0, 2)), max_size=3),
)
@example(
    [([6359, 9000], True, 0.0), ([1919], False, 0.0)], []
)  # the first one's end falls on that of a frame
def test_however_it_comes_the_frames_are_those_of_the_passages(
    passages: list[tuple[list[int], bool, float]], holds: list[tuple[float, float]]
) -> None:
    async def main() -> None:
        stage = Stage(begun=False)
        stage.playback._pacer.loop.call_later(0.7, stage.begin)

        async def hold() -> None:
            await asyncio.sleep(0.8)
            for after, length in holds:
                await asyncio.sleep(after)
                stage.playback.pause()
                await asyncio.sleep(length)
                stage.playback.resume()

        holding = asyncio.ensure_future(hold())
        expected: list[bytes] = []
        lengths = []
        for number, (pieces, padded, pause) in enumerate(passages):
            passage = stage.supply.begin(number)
            at = number * 1000
            for size in (*pieces, sum(pieces) % 2):  # half samples within, but not at the end
                stage.supply.add_pcm(NOISE[at : at + size])
                at += size
                await asyncio.sleep(pause / 10)
            stage.supply.end(pad=padded)
            pcm = NOISE[number * 1000 : at]
            expected += plain(pcm if padded else pcm[: len(pcm) // FRAME * FRAME])
            lengths.append((passage, (len(pcm) + (FRAME - 1) * padded) // FRAME * 60))
            assert passage.ms == lengths[-1][1]
            await asyncio.sleep(pause)
        stage.supply.finish()
        await holding
        await asyncio.sleep(60)
        assert stage.sink.packets == expected
        assert [event for event in stage.sink.events if isinstance(event, int)] == list(range(len(passages)))
        assert stage.sink.events[-1] == "end"
        assert [passage.ms for passage, _ in lengths] == [length for _, length in lengths]
        assert stage.store.used == 0

    run(main())
