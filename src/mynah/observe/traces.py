"""A trace per turn for an OpenTelemetry collector: a span for the turn, below it one for each stage.

The spans are made when the turn is over, from its record, and on a thread of their own: an event loop that serves
hundreds of conversations only puts the record into a queue.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

import msgspec
from loguru import logger

from mynah import __version__
from mynah.config import Settings
from mynah.dialogue.record import TurnRecord
from mynah.errors import ConfigError
from mynah.observe.turns import Outcome, mode_of, outcome_of

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.trace import Tracer

MAX_WAITING: Final = 2048
"""Turns that wait for the exporter, 1 KB each: half a minute of a server with 400 conversations. Overflow policy: the
newest is dropped and counted."""
MAX_AT_ONCE: Final = 256
"""Turns in one request: about 400 KB."""
GATHER_S: Final = 2.0
"""How long turns are gathered before they are sent."""
STOP_S: Final = 3.0
"""How long the last traces may take when the server stops."""
REPORT_PAUSE_S: Final = 60.0
"""A collector that takes no traces is reported once a minute."""
TRACES_PATH: Final = "/v1/traces"
"""Where collectors take them, below their address."""
ENDPOINT_VARIABLES: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
"""Set by who runs the server, by OpenTelemetry's rules; the exporter reads them and their kin itself."""

log = logger.bind(tag="traces")


class TraceStats(msgspec.Struct):
    """What became of the turns to be traced."""

    exported: int = 0
    dropped: int = 0
    """There was no room for more: the collector is slower than the turns come."""
    failed: int = 0
    """The collector could not be reached, or refused them."""


class Exporter(Protocol):
    """Where spans go, from the exporting thread: OpenTelemetry's `SpanExporter`, as far as it is used."""

    def export(self, spans: Sequence[ReadableSpan]) -> object:
        """Send spans; returns an enum whose name is ``SUCCESS`` or ``FAILURE``. May wait for the network."""

    def shutdown(self) -> None:
        """Give up what is being sent."""


class Stage(NamedTuple):
    """A part of a turn, in s of the event loop's clock."""

    name: str
    begin: float
    end: float


class Ended(NamedTuple):
    """A turn on its way to the exporting thread."""

    record: TurnRecord
    end: float
    """When it ended, by the event loop's clock."""
    wall_s: float
    """What to add to the event loop's clock to get seconds since 1970."""


def wanted(settings: Settings, environ: Mapping[str, str]) -> bool:
    """Say whether somebody has set where traces go."""
    return bool(settings.tracing.endpoint) or any(environ.get(name) for name in ENDPOINT_VARIABLES)


def stages_of(record: TurnRecord, end: float) -> Iterator[Stage]:
    """Return the stages that a turn went through. One that was ready before its turn came has no length.

    ``listen`` lasts until the end of the speech, ``recognise`` until its text, ``think`` until the first sentence of
    the answer, ``voice`` until the first frame of its sound, ``speak`` until ``end``.
    """
    if 0.0 < record.speech_start < record.speech_end:
        yield Stage("listen", record.speech_start, record.speech_end)
    begin = record.speech_end or record.tts_start
    for name, done in (
        ("recognise", record.transcript),
        ("think", record.first_sentence),
        ("voice", record.first_frame),
        ("speak", end if record.first_frame else 0.0),
    ):
        if done:
            until = max(begin, done)
            yield Stage(name, begin or until, until)
            begin = until


def attributes_of(record: TurnRecord, words: bool) -> dict[str, str | int | bool]:
    """Return what the span of a turn tells. What was said and heard only with ``words``, else how much it was."""
    told: dict[str, str | int | bool] = {
        "mynah.device.id": record.device_id,
        "mynah.turn.mode": mode_of(record),
        "mynah.turn.outcome": outcome_of(record).value,
        "mynah.turn.parts": record.parts,
        "mynah.turn.false_alarms": record.false_alarms,
        "mynah.turn.cut_in": record.cut_in,
        "mynah.user.characters": len(record.text),
        "mynah.assistant.characters": len(record.answer),
    }
    if record.guess:
        told["mynah.turn.guess"] = record.guess
    if record.error:
        told["error.type"] = record.error
    if words:
        told["mynah.user.text"] = record.text
        told["mynah.assistant.text"] = record.answer
    return told


def connect(settings: Settings, environ: Mapping[str, str]) -> TurnTraces:
    """Return what sends traces where ``tracing.endpoint`` or the environment says. Raises ConfigError."""
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError as error:
        raise ConfigError(
            f"traces are wanted (tracing.endpoint or {ENDPOINT_VARIABLES[1]}), but OpenTelemetry is not installed "
            f"({error}): pip install 'mynah-server[otel]'"
        ) from None
    quiet = logging.getLogger("opentelemetry.exporter")
    if quiet.level == logging.NOTSET:  # it complains for each request, `TurnTraces` once a minute
        quiet.setLevel(logging.CRITICAL)
    endpoint = settings.tracing.endpoint
    exporter = OTLPSpanExporter(endpoint=f"{endpoint}{TRACES_PATH}" if endpoint else None)
    return TurnTraces(exporter, words=settings.tracing.words, service_name=_service_name(environ))


def _service_name(environ: Mapping[str, str]) -> str:
    """Return under which name the server is known to the collector; empty where the environment says it."""
    told = environ.get("OTEL_SERVICE_NAME") or "service.name=" in environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    return "" if told else "mynah"


def _tracer(made: list[ReadableSpan], service_name: str) -> Tracer:
    """Return what makes spans; those that have ended are added to ``made``."""
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import SpanProcessor, TracerProvider

    class Collecting(SpanProcessor):
        def on_end(self, span: ReadableSpan) -> None:
            made.append(span)

    told = {"service.version": __version__} | ({"service.name": service_name} if service_name else {})
    provider = TracerProvider(resource=Resource.create(told), shutdown_on_exit=False)
    provider.add_span_processor(Collecting())
    return provider.get_tracer("mynah", __version__)


class TurnTraces:
    """Sends a trace per turn. Implements `mynah.dialogue.record.SessionObserver`."""

    def __init__(
        self,
        exporter: Exporter,
        *,
        words: bool = False,
        service_name: str = "mynah",
        clock: Callable[[], float] = lambda: asyncio.get_running_loop().time(),
        gather_s: float = GATHER_S,
    ) -> None:
        """``words``: tell what was said. ``service_name`` empty: the environment says it.

        ``clock`` is that of the event loop, in s; ``gather_s`` is how long turns are gathered before they are sent.
        """
        self._exporter = exporter
        self._words = words
        self._clock = clock
        self._gather_s = gather_s
        self.stats = TraceStats()
        """``dropped`` is written by the event loop, the others by the exporting thread."""
        # Emptied before it grows past MAX_WAITING; append and popleft are atomic.
        self._waiting: deque[Ended] = deque()
        self._some, self._stopping = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        self._reported_at = float("-inf")
        self._made: list[ReadableSpan] = []
        self._tracer = _tracer(self._made, service_name)

    def on_session_opened(self, device_id: str, session_id: str) -> None:
        """A conversation begins."""

    def on_session_closed(self, device_id: str, session_id: str) -> None:
        """The conversation is over."""

    def on_turn(self, record: TurnRecord) -> None:
        """A reply has ended, played or interrupted."""
        if len(self._waiting) >= MAX_WAITING:
            self.stats.dropped += 1
            return
        now = self._clock()
        self._waiting.append(Ended(record, now, time.time() - now))
        if not self._some.is_set():
            self._some.set()

    def start(self) -> None:
        """Begin to send."""
        self._thread = threading.Thread(target=self._run, name="mynah-traces", daemon=True)
        self._thread.start()

    async def stop(self) -> None:
        """Send what waits, for `STOP_S` at most. Safe more than once, and without `start`."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._stopping.set()
        self._some.set()
        await asyncio.to_thread(thread.join, STOP_S)
        if thread.is_alive():
            # It waits for a collector that does not answer; the process need not.
            self.stats.dropped += len(self._waiting)
            self._waiting.clear()
        await asyncio.to_thread(self._exporter.shutdown)

    # ------------------------------------------------------------ on the exporting thread

    def _run(self) -> None:
        while not self._stopping.is_set() or self._waiting:
            self._some.wait()
            self._stopping.wait(self._gather_s)
            self._some.clear()  # before the queue is emptied: what comes from here on sets it again
            while self._waiting:
                self._send([self._waiting.popleft() for _ in range(min(len(self._waiting), MAX_AT_ONCE))])

    def _send(self, turns: Sequence[Ended]) -> None:
        for turn in turns:
            self._describe(turn)
        spans = self._made[:]
        self._made.clear()
        if not spans:  # a sampler of the environment wanted none of them
            return
        sent = sum(span.parent is None for span in spans)  # a sampler may have wanted some only
        try:
            result = getattr(self._exporter.export(spans), "name", "")
        # Older exporters raise when the collector is away.
        except (OSError, ValueError, RuntimeError) as error:
            result = type(error).__name__
        if result == "SUCCESS":
            self.stats.exported += sent
            return
        self.stats.failed += sent
        now = time.monotonic()
        if now - self._reported_at >= REPORT_PAUSE_S:
            self._reported_at = now
            log.warning(
                "the collector took no traces, {} turns are lost so far: is it there? (tracing.endpoint)",
                self.stats.failed,
            )

    def _describe(self, turn: Ended) -> None:
        """Make the spans of a turn; they come to `_made`."""
        from opentelemetry import trace

        record = turn.record

        def at(seconds: float) -> int:
            return int((seconds + turn.wall_s) * 1e9)

        stages = list(stages_of(record, turn.end))
        begin = min((stage.begin for stage in stages), default=turn.end)
        root = self._tracer.start_span(
            "turn", attributes=attributes_of(record, self._words), start_time=at(begin)
        )
        if outcome_of(record) is Outcome.FAILED:
            root.set_status(trace.StatusCode.ERROR, record.error)
        context = trace.set_span_in_context(root)
        for stage in stages:
            self._tracer.start_span(stage.name, context, start_time=at(stage.begin)).end(at(stage.end))
        root.end(at(turn.end))
