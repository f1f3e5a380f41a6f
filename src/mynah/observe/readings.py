"""Metrics of what the server counts anyway: they are read when somebody asks, and cost nothing until then."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Final, Protocol

import msgspec
from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from mynah.audio.ingest import IngestStats
from mynah.audio.pacer import PacerStats
from mynah.dialogue.admission import Admission, Signals
from mynah.dialogue.speculation import SpeculationStats
from mynah.dialogue.turn import Phase
from mynah.observe.traces import TraceStats

SESSIONS_AT_ONCE: Final = 1000
"""Sessions looked at before the event loop's other work gets its turn: less than half a millisecond."""
SLICE_S: Final = 0.001
"""How long an answer is written before the event loop's other work gets its turn."""
THREADS: Final = {"loop": "MainThread", "ingest": "ingest", "codec": "codec"}
"""What the threads do that use most of the time, and what their names have in them. They live as long as the server."""
_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
FRESH_S: Final = 0.5
"""An answer this young is given again, so that many who ask cost no more than one."""


class HasPhase(Protocol):
    """A session, as far as it is of interest here."""

    @property
    def phase(self) -> Phase:
        """What the conversation is doing."""


class Sources(msgspec.Struct, frozen=True):
    """Where the figures are."""

    sessions: Callable[[], Iterator[HasPhase]]
    """Begins to go through all sessions as they are now."""
    max_connections: int
    pacer: PacerStats
    ingest: Callable[[], IngestStats]
    """Returns the counters of what was heard."""
    speculation: SpeculationStats
    traces: TraceStats
    admission: Admission
    signals: Callable[[], Signals]
    """Returns the last look at how late the server is."""
    memory_limit: int
    """Bytes; 0 when nobody knows."""


class Readings(Collector):
    """Reads the figures that others keep."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._phases: dict[Phase, int] = {}

    async def count_sessions(self) -> None:
        """Count the sessions by phase, some at a time: twenty thousand take ten milliseconds in all."""
        counts = dict.fromkeys(Phase, 0)
        sessions = self._sources.sessions()
        while some := list(islice(sessions, SESSIONS_AT_ONCE)):
            for session in some:
                counts[session.phase] += 1
            await asyncio.sleep(0)
        # Those that are being closed are none any more.
        del counts[Phase.CLOSED]
        self._phases = counts

    def collect(self) -> Iterator[Metric]:
        """Return all families; the sessions as `count_sessions` last saw them."""
        sessions = GaugeMetricFamily(
            "mynah_sessions", "Conversations by what they are doing.", labels=["phase"]
        )
        for phase, count in self._phases.items():
            sessions.add_metric([phase.value], count)
        yield sessions
        sources = self._sources
        yield _gauge(
            "mynah_connections_limit",
            "Devices there is room for: server.limits.max_connections, or what the limit of open files allows.",
            sources.max_connections,
        )
        yield from self._load(sources)
        yield from self._audio(sources)
        yield from self._guesses(sources.speculation)
        yield from self._traces(sources.traces)

    def _load(self, sources: Sources) -> Iterator[Metric]:
        admission, signals = sources.admission, sources.signals()
        yield _gauge(
            "mynah_overload_level",
            "0: all is well; 1: what nobody misses is left out; 2: no new conversations.",
            int(admission.level),
        )
        yield _gauge("mynah_talking", "Conversations in which somebody listens or speaks.", admission.talking)
        yield _counter("mynah_busy", "Users told that the server is busy.", admission.busy_total)
        yield _gauge(
            "mynah_codec_queue_age_seconds",
            "How long the most urgent audio has been waiting to be encoded since it was due.",
            signals.encoding_s,
        )
        yield _gauge(
            "mynah_ingest_queue_age_seconds",
            "Age of the oldest packet that waits to be heard.",
            signals.hearing_s,
        )
        yield _gauge(
            "mynah_memory_limit_bytes",
            "What the server may have in memory; 0: unknown.",
            sources.memory_limit,
        )

    def _audio(self, sources: Sources) -> Iterator[Metric]:
        pacer, ingest = sources.pacer, sources.ingest()
        yield _counter("mynah_frames_sent", "Frames of 60 ms sent to devices.", pacer.frames)
        yield _counter("mynah_frames_late", "Frames sent more than 5 ms after their time.", pacer.late_frames)
        yield _counter(
            "mynah_playback_restarts",
            "Replies that ran dry in the middle, for want of audio.",
            pacer.restarts,
        )
        yield _counter("mynah_ingest_packets", "Packets of audio from devices.", ingest.packets)
        yield _counter("mynah_ingest_bad_packets", "Packets that were no audio.", ingest.bad_packets)
        dropped = CounterMetricFamily(
            "mynah_ingest_dropped_packets", "Packets that were not heard, by reason.", labels=["reason"]
        )
        for reason, count in drops(ingest):
            dropped.add_metric([reason], count)
        yield dropped
        yield _counter("mynah_ingest_batches", "Batches of the ingest worker.", ingest.batches)
        yield _counter("mynah_vad_errors", "Calls of the voice detector that failed.", ingest.vad_errors)

    def _guesses(self, stats: SpeculationStats) -> Iterator[Metric]:
        guesses = CounterMetricFamily(
            "mynah_guesses", "Answers prepared at a pause, by whether they held.", labels=["result"]
        )
        guesses.add_metric(["hit"], stats.hits)
        guesses.add_metric(["miss"], stats.misses)
        yield guesses
        yield _counter(
            "mynah_guess_wasted_tokens", "Tokens of guesses that did not hold.", stats.wasted_tokens
        )

    def _traces(self, stats: TraceStats) -> Iterator[Metric]:
        turns = CounterMetricFamily(
            "mynah_traced_turns", "Turns to be traced, by what became of them.", labels=["result"]
        )
        for result, count in (
            ("exported", stats.exported),
            ("dropped", stats.dropped),
            ("failed", stats.failed),
        ):
            turns.add_metric([result], count)
        yield turns


def drops(stats: IngestStats) -> tuple[tuple[str, int], ...]:
    """Return the packets that were dropped, by reason."""
    return (
        ("credit", stats.dropped_credit),
        ("stream", stats.dropped_stream),
        ("overload", stats.dropped_overload),
    )


class Exposition:
    """Writes all metrics in Prometheus' text format, without keeping the event loop from its other work."""

    def __init__(self, registry: CollectorRegistry, sources: Sources) -> None:
        """``registry`` gets the readings besides what it has."""
        self._registry = registry
        self._sources = sources
        self._readings = Readings(sources)
        registry.register(self._readings)
        GCCollector(registry=registry)
        # Asked on a thread: it lists the open files, and each connection is one.
        self._process = ProcessCollector(registry=CollectorRegistry())
        self._lock = asyncio.Lock()
        self._written = b""
        self._written_at = float("-inf")

    async def write(self) -> bytes:
        """Return everything as it is now, or was half a second ago. Takes some 20 ms, of which none is at a stretch."""
        async with self._lock:
            if time.monotonic() - self._written_at >= FRESH_S:
                self._written = await self._write()
                self._written_at = time.monotonic()
            return self._written

    async def _write(self) -> bytes:
        await self._readings.count_sessions()
        beside_s = self._sources.ingest().process_s
        process = await asyncio.to_thread(lambda: (*self._process.collect(), _threads(beside_s)))
        parts = [generate_latest(_Families(process))]
        begun = time.perf_counter()
        for family in self._registry.collect():
            parts.append(generate_latest(_Families((family,))))
            if time.perf_counter() - begun >= SLICE_S:
                await asyncio.sleep(0)
                begun = time.perf_counter()
        return b"".join(parts)


class _Families(Collector):
    """Some families, as the writer wants them."""

    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def _threads(beside_s: float) -> Metric:
    """Return the CPU time of the threads that carry a server; ``beside_s`` is that of the process that hears."""
    family = CounterMetricFamily(
        "mynah_thread_cpu_seconds", "CPU time by what the threads do.", labels=["thread"]
    )
    used = dict.fromkeys(THREADS, 0.0)
    for thread in threading.enumerate():
        work = next((work for work, mark in THREADS.items() if mark in thread.name), None)
        if work is not None and thread.native_id is not None:
            used[work] += thread_cpu_s(thread.native_id)
    used["ingest"] += beside_s
    for work, seconds in used.items():
        family.add_metric([work], seconds)
    return family


def thread_cpu_s(native_id: int) -> float:
    """Return the CPU time in s that a thread of this process has used; 0 when the system does not tell."""
    try:
        stat = Path(f"/proc/self/task/{native_id}/stat").read_text()
    except OSError:
        return 0.0
    fields = stat.rpartition(")")[2].split()  # a name in front may have blanks
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(name, text, value=value)
