"""Audio that is fetched: the same face as a pacer, but frames leave when they are asked for."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mynah.audio.outlet import LEAD_MS, Outlet
from mynah.audio.pacer import Pacer, Playback, Player
from tests.virtual_time import START, settle, virtual

T = 0.06


class Sink:
    """Writes down what it gets, with the time since the start."""

    def __init__(self) -> None:
        self.log: list[tuple[float, str, Any]] = []
        self.stamps: list[int] = []

    def on_frame(self, packet: bytes, timestamp_ms: int) -> None:
        self.stamps.append(timestamp_ms)
        self._note("frame", packet)

    def on_marker(self, value: Any) -> None:
        self._note("marker", value)

    def on_played(self) -> None:
        self._note("played", None)

    def _note(self, kind: str, value: Any) -> None:
        self.log.append((asyncio.get_running_loop().time() - START, kind, value))

    @property
    def story(self) -> list[tuple[str, Any]]:
        return [(kind, value) for _, kind, value in self.log]

    def times(self, kind: str = "frame") -> list[float]:
        return [at for at, what, _ in self.log if what == kind]


class Place:
    """An outlet and what it tells."""

    def __init__(self, lead_ms: int = LEAD_MS) -> None:
        self.pacer = Pacer()
        self.rests: list[float] = []
        self.outlet = Outlet(self.pacer, self._rest, lead_ms)
        self.sink = Sink()
        self.playback = self.outlet.play(self.sink)

    def _rest(self) -> None:
        self.rests.append(asyncio.get_running_loop().time() - START)
        self.outlet.shut()

    def begin(self, frames: int = 0, *, finish: bool = False) -> None:
        self.playback.pause()
        self.playback.resume()
        self.playback.push(packets(frames))
        if finish:
            self.playback.finish()


def packets(count: int, first: int = 0) -> list[bytes]:
    return [index.to_bytes(4, "big") for index in range(first, first + count)]


@virtual
async def test_nothing_leaves_before_it_is_asked_for_and_then_all_there_is() -> None:
    place = Place()
    place.begin(20, finish=True)
    assert place.outlet.playing
    await asyncio.sleep(5)
    assert not place.sink.log
    place.outlet.open()
    assert not place.sink.log, "no callback within a call"
    await settle()
    assert [value for kind, value in place.sink.story if kind == "frame"] == packets(20)
    assert set(place.sink.times()) == {5.0}
    assert place.sink.stamps == [60 * number for number in range(1, 21)]
    assert place.rests == [5.0], "told once, with the last frame"
    assert place.outlet.drained
    assert place.outlet.playing, "the device has it, but has not played it"
    await asyncio.sleep(10)
    assert place.sink.times("played") == [pytest.approx(5 + 21 * T)]
    assert not place.outlet.playing
    assert place.playback.over


@virtual
async def test_no_more_leaves_than_the_lead_in_front_of_what_was_played() -> None:
    place = Place(lead_ms=1200)
    place.begin(100, finish=True)
    for tick in range(20):
        if place.outlet.waiting:
            place.outlet.open()
            await settle()
        assert len(place.sink.times()) == pytest.approx(min(20 + tick * 0.5 / T, 100), abs=1)
        assert not place.outlet.is_open, "resting was told"
        assert not place.outlet.waiting
        await asyncio.sleep(0.5)
    assert len(place.sink.times()) == 100
    assert place.pacer.stats.restarts == place.pacer.stats.late_frames == 0


@virtual
async def test_what_is_made_while_it_is_open_leaves_as_it_is_made() -> None:
    place = Place()
    place.begin()
    place.outlet.open()
    for number in range(5):
        await asyncio.sleep(0.1)
        place.playback.push(packets(1, number))
    await settle()
    assert place.sink.times() == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])
    assert not place.rests
    assert place.outlet.waiting
    place.playback.finish()
    assert not place.rests, "no callback within a call"
    await settle()
    assert place.rests == [pytest.approx(0.5)], "who waits for more waits in vain"


@virtual
async def test_shut_it_lets_nothing_out_and_open_it_goes_on_with_the_next_frame() -> None:
    place = Place()
    place.begin(3)
    place.outlet.open()
    await settle()
    place.outlet.shut()
    place.playback.push(packets(3, 3))
    await asyncio.sleep(1)
    assert len(place.sink.times()) == 3
    place.outlet.open()
    await settle()
    assert [value for _, value in place.sink.story] == packets(6)


@virtual
async def test_a_sink_may_shut_it_in_the_midst() -> None:
    place = Place()

    def shut(packet: bytes, timestamp_ms: int) -> None:
        Sink.on_frame(place.sink, packet, timestamp_ms)
        if len(place.sink.stamps) == 4:
            place.outlet.shut()

    place.sink.on_frame = shut  # type: ignore[method-assign]
    place.begin(10, finish=True)
    place.outlet.open()
    await asyncio.sleep(1)
    assert len(place.sink.stamps) == 4
    assert place.playback.queued == 6


@virtual
async def test_markers_come_with_the_frame_they_belong_to_and_at_the_end_without() -> None:
    place = Place()
    place.begin()
    place.playback.mark("one")
    place.playback.push(packets(2))
    place.playback.mark("two")
    place.outlet.open()
    await settle()
    assert [value for _, value in place.sink.story] == ["one", *packets(2)]
    await asyncio.sleep(3)
    assert len(place.sink.log) == 3, "this sentence may still get its audio"
    place.playback.finish()
    await settle()
    assert place.sink.story[3:] == [("marker", "two"), ("played", None)]


@virtual
async def test_a_reply_without_audio_ends_at_once_whether_asked_for_or_not() -> None:
    for asked in (False, True):
        place = Place()
        place.begin()
        if asked:
            place.outlet.open()
        place.playback.mark("shown only")
        place.playback.finish()
        await settle()
        assert place.sink.story == [("marker", "shown only"), ("played", None)]
        assert bool(place.rests) == asked
        assert not place.outlet.playing


@virtual
async def test_what_was_heard_is_what_the_device_has_had_time_to_play() -> None:
    place = Place()
    place.begin(50, finish=True)
    place.outlet.open()
    await asyncio.sleep(1.2)
    assert place.playback.sent_ms == 3000
    assert place.playback.played_ms == pytest.approx(1200)
    assert place.playback.heard_ms == pytest.approx(1200), "such a device drops what it has in store"
    place.playback.cancel()
    assert place.playback.heard_ms == pytest.approx(1200)


@virtual
async def test_what_is_missing_was_not_heard_and_is_played_from_when_it_comes() -> None:
    place = Place()
    place.begin(50, finish=True)
    place.outlet.open()
    await asyncio.sleep(0.5)
    place.outlet.miss(2000)  # 1 s has arrived of the 3
    await asyncio.sleep(10)
    assert not place.playback.over
    assert place.playback.played_ms == pytest.approx(1000)
    assert place.playback.heard_ms == pytest.approx(1000)
    place.outlet.miss(0)
    assert place.playback.played_ms == pytest.approx(1000)
    await asyncio.sleep(0.5)
    assert place.playback.played_ms == pytest.approx(1500)
    assert not place.playback.over
    await asyncio.sleep(1.6)
    assert place.playback.over
    assert place.sink.times("played") == [pytest.approx(10.5 + 2 + T)]


@virtual
async def test_missing_audio_keeps_the_lead_but_nothing_leaves_twice() -> None:
    place = Place(lead_ms=1200)
    place.begin(60, finish=True)
    place.outlet.open()
    await settle()
    assert len(place.sink.times()) == 20
    place.outlet.miss(600)
    await asyncio.sleep(30)
    place.outlet.miss(0)
    place.outlet.open()
    await settle()
    # 10 frames were played of the 20, 10 are played from now on: 10 more fit in front.
    assert len(place.sink.times()) == pytest.approx(30, abs=1)
    assert [value for kind, value in place.sink.story if kind == "frame"] == packets(len(place.sink.times()))


@virtual
async def test_cancelled_it_says_nothing_any_more_and_the_next_reply_takes_its_place() -> None:
    place = Place()
    place.begin(10)
    place.outlet.open()
    await settle()
    place.playback.push(packets(5))
    place.playback.cancel()
    place.playback.cancel()
    assert not place.outlet.playing
    assert not place.outlet.waiting
    assert not place.outlet.drained
    await asyncio.sleep(5)
    assert len(place.sink.log) == 10
    place.playback.resume()
    place.playback.finish()
    assert not place.outlet.playing, "what is over does not come back"
    place.sink = Sink()
    place.playback = place.outlet.play(place.sink)
    place.begin(3, finish=True)
    await settle()
    assert [value for kind, value in place.sink.story if kind == "frame"] == packets(3)


@virtual
async def test_the_end_of_one_that_was_replaced_does_not_touch_the_next() -> None:
    place = Place()
    place.begin(2, finish=True)
    older = place.playback
    newer_sink = Sink()
    newer = place.outlet.play(newer_sink)
    newer.pause()
    newer.push(packets(4))
    assert place.outlet._playback is older, "what is prepared is not fetched"
    newer.resume()
    older.cancel()
    assert place.outlet.playing
    place.outlet.open()
    await settle()
    assert len(newer_sink.times()) == 4
    assert not place.sink.log


@virtual
async def test_paused_it_rests_and_goes_on_with_the_same_frame() -> None:
    place = Place()
    place.begin(4)
    place.playback.pause()
    place.outlet.open()
    await asyncio.sleep(1)
    assert not place.sink.log
    assert not place.outlet.waiting
    place.playback.resume()
    await settle()
    assert [value for _, value in place.sink.story] == packets(4)


@virtual
async def test_the_producer_is_asked_for_more_as_frames_leave() -> None:
    place = Place()
    given = 4

    def more() -> None:
        nonlocal given
        if given < 12:
            place.playback.push(packets(2, given))
            given += 2

    place.playback.on_low(2, more)
    place.begin(4)
    place.outlet.open()
    await settle()
    assert [value for _, value in place.sink.story] == packets(12)


@virtual
async def test_when_the_next_frame_is_needed() -> None:
    place = Place(lead_ms=1200)
    place.begin(30)
    now = asyncio.get_running_loop().time()
    assert place.playback.dry_at == now, "nothing has left: as soon as it is asked for"
    place.outlet.open()
    assert place.playback.dry_at == now
    await settle()
    assert place.playback.dry_at == pytest.approx(now + 30 * T - 1.2)


STEP = st.one_of(
    st.tuples(st.just("push"), st.integers(1, 5)),
    st.tuples(st.just("mark"), st.integers(0, 99)),
    st.tuples(st.just("sleep"), st.integers(0, 30)),
    st.tuples(st.just("hold"), st.integers(0, 10)),
)


async def play(player: Player, script: list[tuple[str, int]], sink: Sink) -> Playback:
    playback = player.play(sink)
    playback.pause()
    playback.resume(not_before=asyncio.get_running_loop().time() + 0.025)
    number = 0
    for step, value in script:
        match step:
            case "push":
                playback.push(packets(value, number))
                number += value
            case "mark":
                playback.mark(value)
            case "sleep":
                await asyncio.sleep(value / 10)
            case "hold":
                playback.pause()
                await asyncio.sleep(value / 10)
                playback.resume()
    playback.finish()
    await asyncio.sleep(number * T + 3)
    return playback


@settings(max_examples=150)
@given(st.lists(STEP, max_size=12))
@virtual
async def test_it_has_the_face_of_a_pacer(script: list[tuple[str, int]]) -> None:
    """The same script on both: the same frames, markers, stamps and end; only the times of frames may differ."""
    pushed, fetched = Sink(), Sink()
    pacer = Pacer()
    outlet = Outlet(pacer, lambda: None, lead_ms=60_000)
    outlet.open()
    one, two = await asyncio.gather(play(pacer, script, pushed), play(outlet, script, fetched))
    assert fetched.story == pushed.story
    assert fetched.stamps == pushed.stamps
    assert (
        (one.sent_ms, one.queued, one.over) == (two.sent_ms, two.queued, two.over) == (one.sent_ms, 0, True)
    )
    assert one.played_ms == two.played_ms == one.sent_ms
    # A device that was given more in advance is not interrupted by a pause; else both run dry at the same places.
    ends = fetched.times("played")[0], pushed.times("played")[0]
    assert ends[0] <= ends[1] + 0.006
    if all(step != "hold" for step, _ in script):
        assert ends[0] == pytest.approx(ends[1], abs=0.006)
