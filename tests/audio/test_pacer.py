from __future__ import annotations

import asyncio
import itertools
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mynah.audio.pacer import Pacer, Playback
from tests.virtual_time import START, settle, virtual

T = 0.06


class Recorder:
    """A sink that writes down what came when, in seconds since the start of virtual time."""

    def __init__(self) -> None:
        self.frames: list[tuple[float, bytes]] = []
        self.stamps: list[int] = []
        self.events: list[tuple[float, str, Any]] = []

    @property
    def now(self) -> float:
        return asyncio.get_running_loop().time() - START

    @property
    def times(self) -> list[float]:
        return [when for when, _ in self.frames]

    @property
    def played_at(self) -> float:
        return next(when for when, kind, _ in self.events if kind == "played")

    def on_frame(self, packet: bytes, timestamp_ms: int) -> None:
        self.frames.append((self.now, packet))
        self.stamps.append(timestamp_ms)
        self.events.append((self.now, "frame", packet))

    def on_marker(self, value: Any) -> None:
        self.events.append((self.now, "marker", value))

    def on_played(self) -> None:
        self.events.append((self.now, "played", None))


def packets(count: int, first: int = 0) -> list[bytes]:
    return [index.to_bytes(4, "big") for index in range(first, first + count)]


def ahead(times: list[float], base: float | None = None) -> float:
    """How many frames the device had received beyond what real time had consumed, at worst."""
    worst, dry_at = 0.0, None
    for now in times:
        dry_at = now if dry_at is None else max(dry_at, now)
        dry_at += T
        worst = max(worst, (dry_at - now) / T)
    return worst


@virtual
async def test_the_lead_goes_at_once_and_the_rest_on_the_clock() -> None:
    sink = Recorder()
    playback = Pacer().play(sink)
    playback.push(packets(6))
    assert not sink.frames, "no callback inside the caller's own call"
    playback.finish()
    await asyncio.sleep(2)
    assert sink.times == pytest.approx([0, 0, 0, T, 2 * T, 3 * T], abs=1e-6)
    assert [packet for _, packet in sink.frames] == packets(6)
    assert sink.stamps == [60, 120, 180, 240, 300, 360]
    assert sink.played_at == pytest.approx(7 * T)
    assert playback.over


@virtual
async def test_replies_that_begin_whenever_they_like_share_their_wake_ups_and_keep_an_even_rhythm() -> None:
    pacer, sinks = Pacer(), [Recorder() for _ in range(40)]
    for sink in sinks:
        await asyncio.sleep(0.0137)
        pacer.play(sink).push(packets(20))
    await asyncio.sleep(2)
    for sink in sinks:
        gaps = [after - before for before, after in itertools.pairwise(sink.times[3:])]
        assert gaps == pytest.approx([T] * 16, abs=1.1e-3)
        assert T - 0.006 - 1e-6 <= sink.times[3] - sink.times[0] <= T + 1e-6
    paced = {round(when * 1000) for sink in sinks for when in sink.times[3:]}
    assert all(ms % 5 in (0, 4) for ms in paced), "or 1 ms earlier, together with somebody's first frame"
    assert len(paced) <= 200 * 2, "at most 200 a second"


@virtual
async def test_not_before_holds_the_first_frame_and_marker() -> None:
    sink, loop = Recorder(), asyncio.get_running_loop()
    playback = Pacer().play(sink, not_before=loop.time() + 0.02)
    playback.mark("a")
    playback.push(packets(4))
    await asyncio.sleep(1)
    assert sink.events[0] == (pytest.approx(0.02), "marker", "a")
    assert sink.times == pytest.approx([0.02, 0.02, 0.02, 0.08])


@virtual
async def test_markers_come_with_the_frame_that_follows_them() -> None:
    sink = Recorder()
    playback = Pacer().play(sink)
    playback.mark("one")
    playback.push(packets(5))
    playback.mark("two")
    await asyncio.sleep(1)
    assert [value for _, kind, value in sink.events if kind == "marker"] == ["one"]
    playback.push(packets(1, 5))
    await settle()
    kinds = [value for _, _, value in sink.events]
    assert kinds == ["one", *packets(5), "two", *packets(1, 5)]
    assert sink.events[-2][0] == pytest.approx(1)


@virtual
async def test_trailing_markers_come_before_played() -> None:
    sink = Recorder()
    playback = Pacer().play(sink)
    playback.push(packets(4))
    playback.mark("end")
    playback.finish()
    await asyncio.sleep(1)
    assert [kind for _, kind, _ in sink.events] == ["frame"] * 4 + ["marker", "played"]


@virtual
async def test_an_answer_without_audio_ends_at_once() -> None:
    sink = Recorder()
    playback = Pacer().play(sink)
    playback.mark("only text")
    playback.finish()
    assert not sink.events
    await settle()
    assert [kind for _, kind, _ in sink.events] == ["marker", "played"]


@virtual
async def test_a_short_gap_is_made_up_within_the_lead() -> None:
    sink, pacer = Recorder(), Pacer()
    playback = pacer.play(sink)
    playback.push(packets(3))
    await asyncio.sleep(2.5 * T)  # frame 3 was due at 1 T and plays at 3 T: the device has not run dry
    playback.push(packets(9, 3))
    await asyncio.sleep(2)
    assert sink.times[3:6] == pytest.approx([2.5 * T, 2.5 * T, 3 * T], abs=1e-6)
    assert pacer.stats.restarts == 0
    assert ahead(sink.times) <= 3 + 1e-6


@virtual
async def test_a_long_gap_starts_the_clock_anew_without_a_burst() -> None:
    sink, pacer = Recorder(), Pacer()
    playback = pacer.play(sink)
    playback.push(packets(3))
    await asyncio.sleep(10)
    playback.push(packets(6, 3))
    playback.finish()
    await asyncio.sleep(10)
    assert sink.times[3:] == pytest.approx([10, 10, 10, 10 + T, 10 + 2 * T, 10 + 3 * T])
    assert sink.played_at == pytest.approx(10 + 7 * T)
    assert pacer.stats.restarts == 1
    assert pacer.stats.late_frames == 0, "starving is the source's fault, not the loop's"


@virtual
async def test_cancel_drops_everything_at_once() -> None:
    sink = Recorder()
    playback = Pacer().play(sink)
    playback.push(packets(50))
    playback.finish()
    await asyncio.sleep(10.5 * T)
    before = len(sink.events)
    assert before == 13
    playback.cancel()
    playback.cancel()
    assert playback.queued_ms == 0
    playback.push(packets(3))
    await asyncio.sleep(10)
    assert len(sink.events) == before


@virtual
async def test_cancel_from_inside_a_callback() -> None:
    class Failing(Recorder):
        def on_frame(self, packet: bytes, timestamp_ms: int) -> None:
            super().on_frame(packet, timestamp_ms)
            playback.cancel()

    sink = Failing()
    playback = Pacer().play(sink)
    playback.push(packets(5))
    await asyncio.sleep(1)
    assert len(sink.frames) == 1


@virtual
async def test_pause_and_resume_keep_every_frame() -> None:
    sink, pacer = Recorder(), Pacer()
    playback = pacer.play(sink)
    playback.push(packets(10))
    await asyncio.sleep(1.5 * T)
    playback.pause()
    assert len(sink.frames) == 4
    await asyncio.sleep(5)
    assert len(sink.frames) == 4
    assert playback.played_ms == pytest.approx(240)
    playback.resume()
    await asyncio.sleep(5)
    assert [packet for _, packet in sink.frames] == packets(10)
    assert sink.times[4:7] == pytest.approx([1.5 * T + 5] * 3)
    assert ahead(sink.times) <= 3 + 1e-6


@virtual
async def test_played_ms_follows_the_clock() -> None:
    sink = Recorder()
    playback = Pacer().play(sink)
    assert playback.played_ms == 0
    playback.push(packets(5))
    await asyncio.sleep(0.1)
    assert playback.played_ms == pytest.approx(100)
    assert playback.sent_ms == 240
    assert playback.queued_ms == 60
    await asyncio.sleep(5)
    assert playback.played_ms == 300


@virtual
async def test_who_fills_it_is_told_when_it_runs_low() -> None:
    sink, playback = Recorder(), None
    left: list[int] = []

    def low() -> None:
        left.append(playback.queued)
        if len(left) == 3:
            playback.push(packets(8, 12))

    playback = Pacer().play(sink)
    playback.on_low(4, low)
    playback.push(packets(12))
    await asyncio.sleep(10 * T)
    assert left == [4, 3, 2]
    await asyncio.sleep(30 * T)
    assert left == [4, 3, 2, *range(4, -1, -1)]
    assert [packet for _, packet in sink.frames] == packets(20)
    assert sink.times[3:] == pytest.approx([T * n for n in range(1, 18)])


@virtual
async def test_when_it_runs_dry() -> None:
    sink, loop = Recorder(), asyncio.get_running_loop()
    playback = Pacer().play(sink, not_before=START + 0.5)
    assert playback.dry_at == pytest.approx(START + 0.5 - 2 * T)
    playback.push(packets(10))
    assert playback.dry_at == pytest.approx(START + 0.5 + 8 * T)
    await asyncio.sleep(0.5 + 2.5 * T)
    assert playback.dry_at == pytest.approx(START + 0.5 + 8 * T)
    playback.push(packets(2, 10))
    assert playback.dry_at == pytest.approx(START + 0.5 + 10 * T)
    playback.pause()
    assert playback.queued == 7
    assert playback.dry_at == pytest.approx(loop.time() + 7 * T), "if it went on now"
    playback.resume()
    await asyncio.sleep(30 * T)
    assert playback.dry_at == pytest.approx(START + 0.5 + 10 * T), "since then it has been dry"
    assert loop.time() > playback.dry_at


@virtual
async def test_input_after_finish_is_a_bug_in_the_caller() -> None:
    playback = Pacer().play(Recorder())
    playback.finish()
    with pytest.raises(RuntimeError):
        playback.push(packets(1))
    with pytest.raises(RuntimeError):
        playback.mark("x")


@virtual
async def test_late_frames_are_counted_and_the_clock_is_not_shifted() -> None:
    sink, loop, pacer = Recorder(), asyncio.get_running_loop(), Pacer()
    playback = pacer.play(sink)
    playback.push(packets(20))

    def hog() -> None:  # the loop is busy for two frames: time moves, nothing runs
        loop._jumping.clock += 2 * T  # type: ignore[attr-defined]

    loop.call_later(4.5 * T, hog)
    await asyncio.sleep(5)
    assert pacer.stats.late_frames == 2
    assert pacer.stats.worst_late_ms == pytest.approx(90, abs=1)
    assert sink.times[-1] == pytest.approx(17 * T)
    assert pacer.stats.frames == 20


@virtual
async def test_many_playbacks_share_few_wake_ups() -> None:
    loop = asyncio.get_running_loop()
    wake_ups = 0
    original = loop.call_at

    def counting(when: float, *args: Any, **kwargs: Any) -> asyncio.TimerHandle:
        nonlocal wake_ups
        wake_ups += 1
        return original(when, *args, **kwargs)

    pacer, sinks = Pacer(), [Recorder() for _ in range(200)]
    for index, sink in enumerate(sinks):
        playback = pacer.play(sink, not_before=loop.time() + index * 0.0017)
        playback.push(packets(50))
        playback.finish()
    await asyncio.sleep(0.5)
    loop.call_at = counting  # type: ignore[method-assign]
    await asyncio.sleep(1)
    del loop.call_at
    assert wake_ups <= 2 * 200 + 2
    await asyncio.sleep(10)
    for sink in sinks:
        assert [packet for _, packet in sink.frames] == packets(50)
        assert ahead(sink.times) <= 3.1


@virtual
async def test_a_raising_sink_does_not_stop_the_others() -> None:
    class Broken(Recorder):
        def on_frame(self, packet: bytes, timestamp_ms: int) -> None:
            raise ZeroDivisionError

    errors: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context["exception"]))
    pacer, good = Pacer(), Recorder()
    bad, fine = pacer.play(Broken()), pacer.play(good)
    bad.push(packets(3))
    fine.push(packets(6))
    await asyncio.sleep(1)
    assert len(good.frames) == 6
    assert all(isinstance(error, ZeroDivisionError) for error in errors)
    assert errors


@virtual
async def test_close_ends_all_callbacks() -> None:
    pacer, sink = Pacer(), Recorder()
    playback = pacer.play(sink)
    playback.push(packets(20))
    await asyncio.sleep(T)
    count = len(sink.events)
    pacer.close()
    await asyncio.sleep(5)
    assert len(sink.events) == count
    assert playback.over


def test_settings_that_cannot_be_paced_are_refused() -> None:
    with pytest.raises(ValueError, match="lead"):
        Pacer(lead_frames=0)


Step = tuple[str, float]
steps = st.lists(
    st.tuples(st.sampled_from(["push", "wait", "mark", "pause", "resume"]), st.floats(0, 1.0)), max_size=30
)


@settings(max_examples=200, deadline=None)
@given(steps=steps, lead=st.integers(1, 8))
def test_whatever_the_producer_does(steps: list[Step], lead: int) -> None:
    check_producer(steps, lead)


@virtual
async def check_producer(steps: list[Step], lead: int) -> None:
    sink, pacer = Recorder(), Pacer(lead_frames=lead)
    playback = pacer.play(sink)
    pushed: list[Any] = []
    available: list[float] = []
    paused = False
    for kind, amount in steps:
        if kind == "push":
            new = packets(int(amount * 20), len(pushed))
            pushed += new
            available += [sink.now] * len(new)
            playback.push(new)
        elif kind == "mark":
            pushed.append(f"m{len(pushed)}")
            available.append(sink.now)
            playback.mark(pushed[-1])
        elif kind == "wait":
            await asyncio.sleep(amount)
        else:
            (playback.pause if kind == "pause" else playback.resume)()
            paused = paused or kind == "pause"
    playback.resume()
    playback.finish()
    await asyncio.sleep(60)
    assert [value for _, kind, value in sink.events[:-1]] == pushed, "exact order, nothing lost"
    assert sink.events[-1][1] == "played"
    assert ahead(sink.times) <= lead + 0.1
    assert sink.played_at >= play_out(sink.times) + T - 1e-6
    if not paused and not any(isinstance(value, str) for value in pushed):
        assert gaps(sink.times, available) <= 1e-6


def play_out(times: list[float]) -> float:
    end = 0.0
    for when in times:
        end = max(end, when) + T
    return end if times else -T


def gaps(times: list[float], available: list[float]) -> float:
    """Longest time the device ran dry although the next frame was available: must be 0."""
    worst, end = 0.0, None
    for when, since in zip(times, available, strict=True):
        if end is not None and when > end:
            worst = max(worst, when - max(end, since))
        end = (when if end is None else max(end, when)) + T
    return worst


def test_a_thousand_playbacks_cost_little() -> None:
    """Not a benchmark, a guard against quadratic work: 1000 playbacks × 5 s are 83 000 frames."""

    @virtual
    async def main() -> None:
        pacer = Pacer()
        playbacks: list[Playback] = []
        for _ in range(1000):
            playback = pacer.play(Recorder())
            playback.push(packets(83))
            playbacks.append(playback)
        await asyncio.sleep(10)
        assert pacer.stats.frames == 83000

    begin = time.process_time()
    main()
    assert time.process_time() - begin < 5


@virtual
async def test_the_frames_of_the_lead_are_not_late_when_the_first_had_to_wait() -> None:
    pacer = Pacer()
    playback = pacer.play(Recorder())
    playback.pause()
    playback.push(packets(5))
    await asyncio.sleep(0.5)
    playback.resume(not_before=asyncio.get_running_loop().time() + 0.025)
    await asyncio.sleep(1)
    assert (pacer.stats.frames, pacer.stats.late_frames) == (5, 0)
