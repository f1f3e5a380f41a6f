"""Every metric there is, on a server that has done nothing yet, and how to read what is written."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

from prometheus_client.parser import text_string_to_metric_families

from mynah.audio.ingest import IngestStats
from mynah.audio.pacer import PacerStats
from mynah.dialogue.admission import Admission, Signals
from mynah.dialogue.speculation import SpeculationStats
from mynah.observe.metrics import Metrics
from mynah.observe.readings import Exposition, HasPhase, Sources
from mynah.observe.traces import TraceStats

Values = dict[tuple[str, frozenset[tuple[str, str]]], float]


def sources(sessions: list[HasPhase] | None = None) -> Sources:
    def walk() -> Iterator[HasPhase]:
        return iter(sessions or [])

    ingest = IngestStats()
    return Sources(
        sessions=walk,
        max_connections=100,
        pacer=PacerStats(),
        ingest=lambda: ingest,
        speculation=SpeculationStats(),
        traces=TraceStats(),
        admission=Admission(),
        signals=Signals,
        memory_limit=1 << 30,
    )


def metrics() -> Metrics:
    ticks = count()
    return Metrics(lambda: float(next(ticks)))


def read(text: bytes) -> Values:
    """Return each sample's value by name and labels. Raises ValueError for what Prometheus would not understand."""
    found: Values = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            key = sample.name, frozenset(sample.labels.items())
            assert key not in found, f"{key} is told twice"
            found[key] = sample.value
    return found


async def values(of: Metrics, at: Sources | None = None) -> Values:
    return read(await Exposition(of.registry, at or sources()).write())


def value(found: Values, name: str, **labels: str) -> float:
    return found[name, frozenset(labels.items())]


async def families() -> dict[str, str]:
    """Return name (as in a query, ``_total`` included) and type of everything that can be told."""
    written = (await Exposition(metrics().registry, sources()).write()).decode()
    return dict(line.split()[2:4] for line in written.splitlines() if line.startswith("# TYPE "))
