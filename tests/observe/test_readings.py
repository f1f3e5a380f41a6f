"""What the server counts anyway, and how it is written without keeping the event loop."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import dataclass

import msgspec

from mynah.dialogue.admission import Level, Signals
from mynah.dialogue.turn import Phase
from mynah.observe.readings import SESSIONS_AT_ONCE, Exposition, HasPhase, drops, thread_cpu_s
from tests.observe.exposed import metrics, read, sources, value, values


@dataclass(frozen=True)
class Talk:
    phase: Phase


async def test_sessions_by_phase() -> None:
    sessions: list[HasPhase] = [Talk(Phase.IDLE)] * 2500 + [Talk(Phase.REPLYING)] * 3 + [Talk(Phase.CLOSED)]
    found = await values(metrics(), sources(sessions))
    assert value(found, "mynah_sessions", phase="idle") == 2500
    assert value(found, "mynah_sessions", phase="replying") == 3
    assert value(found, "mynah_sessions", phase="listening") == 0
    assert ("mynah_sessions", frozenset({("phase", "closed")})) not in found, "they are no sessions any more"


async def test_sessions_are_counted_some_at_a_time() -> None:
    sessions: list[HasPhase] = [Talk(Phase.IDLE)] * (SESSIONS_AT_ONCE * 5)
    exposition = Exposition(metrics().registry, sources(sessions))
    turns = 0
    writing = asyncio.ensure_future(exposition.write())
    while not writing.done():
        turns += 1
        await asyncio.sleep(0)
    assert turns >= 6, "the event loop had its turn after each thousand, and while the rest was written"


async def test_figures_of_the_parts() -> None:
    at = sources()
    at.pacer.frames, at.pacer.late_frames, at.pacer.restarts = 1000, 2, 1
    ingest = at.ingest()
    ingest.packets, ingest.bad_packets, ingest.batches, ingest.vad_errors = 500, 4, 80, 5
    at.speculation.hits, at.speculation.misses, at.speculation.wasted_tokens = 7, 3, 44
    at.traces.exported, at.traces.dropped, at.traces.failed = 10, 11, 12
    at.admission.level, at.admission.talking, at.admission.busy_total = Level.FULL, 17, 6
    at = msgspec.structs.replace(at, signals=lambda: Signals(0.0, 0.25, 0.5, 0.0))
    found = await values(metrics(), at)
    expected = {
        "mynah_frames_sent_total": 1000,
        "mynah_frames_late_total": 2,
        "mynah_playback_restarts_total": 1,
        "mynah_ingest_packets_total": 500,
        "mynah_ingest_bad_packets_total": 4,
        "mynah_ingest_batches_total": 80,
        "mynah_vad_errors_total": 5,
        "mynah_guess_wasted_tokens_total": 44,
        "mynah_overload_level": 2,
        "mynah_talking": 17,
        "mynah_busy_total": 6,
        "mynah_codec_queue_age_seconds": 0.25,
        "mynah_ingest_queue_age_seconds": 0.5,
        "mynah_connections_limit": 100,
        "mynah_memory_limit_bytes": 1 << 30,
    }
    assert {name: value(found, name) for name in expected} == expected
    assert value(found, "mynah_guesses_total", result="hit") == 7
    assert value(found, "mynah_guesses_total", result="miss") == 3
    for result, count in (("exported", 10), ("dropped", 11), ("failed", 12)):
        assert value(found, "mynah_traced_turns_total", result=result) == count


async def test_every_dropped_packet_has_a_reason() -> None:
    at = sources()
    names = [name for name in at.ingest().__struct_fields__ if name.startswith("dropped_")]
    reasons = [name for name in names if name != "dropped_packets"]  # that one is their sum
    for number, name in enumerate(reasons, 1):
        setattr(at.ingest(), name, number)
    assert sorted(drops(at.ingest())) == sorted(
        (n.removeprefix("dropped_"), i) for i, n in enumerate(reasons, 1)
    )
    found = await values(metrics(), at)
    for reason, count in drops(at.ingest()):
        assert value(found, "mynah_ingest_dropped_packets_total", reason=reason) == count


async def test_figures_of_the_process() -> None:
    found = await values(metrics())
    assert value(found, "process_cpu_seconds_total") > 0
    assert value(found, "process_resident_memory_bytes") > 1 << 20
    assert value(found, "process_open_fds") > 3
    assert value(found, "python_gc_collections_total", generation="0") > 0


async def test_who_asks_again_at_once_gets_the_same_answer() -> None:
    at = sources()
    exposition = Exposition(metrics().registry, at)
    first, second = await asyncio.gather(exposition.write(), exposition.write())
    assert first is second
    assert value(read(first), "mynah_frames_sent_total") == 0
    at.pacer.frames = 1
    exposition._written_at -= 60
    assert value(read(await exposition.write()), "mynah_frames_sent_total") == 1


async def test_an_asker_who_goes_away_does_not_spoil_it_for_others() -> None:
    exposition = Exposition(metrics().registry, sources([Talk(Phase.IDLE)] * 5000))
    impatient = asyncio.ensure_future(exposition.write())
    await asyncio.sleep(0)
    patient = asyncio.ensure_future(exposition.write())
    await asyncio.sleep(0)
    impatient.cancel()
    assert value(read(await patient), "mynah_sessions", phase="idle") == 5000


async def test_cpu_time_of_the_threads_that_carry_a_server() -> None:
    stopped, ready = threading.Event(), threading.Event()

    def work() -> None:
        until = time.thread_time() + 0.1
        while time.thread_time() < until:
            pass
        ready.set()
        stopped.wait(20)

    thread = threading.Thread(target=work, name="mynah-ingest")
    thread.start()
    try:
        assert await asyncio.to_thread(ready.wait, 20)
        found = await values(metrics())
    finally:
        stopped.set()
        thread.join()
    assert value(found, "mynah_thread_cpu_seconds_total", thread="ingest") >= 0.05
    assert value(found, "mynah_thread_cpu_seconds_total", thread="loop") > 0
    assert value(found, "mynah_thread_cpu_seconds_total", thread="codec") >= 0
    assert thread_cpu_s(-1) == 0.0


async def test_cpu_time_of_hearing_includes_the_process_beside() -> None:
    at = sources()
    at.ingest().process_s = 1000.0
    found = await values(metrics(), at)
    assert value(found, "mynah_thread_cpu_seconds_total", thread="ingest") >= 1000
