"""Metrics for Prometheus: what is counted as it happens. `docs/observability.md` says what each one means.

No label has more values than the configuration or this source: never a device, never what somebody else made up.
What the rest of the server counts anyway is read when somebody asks: `mynah.observe.readings`.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Summary, disable_created_metrics

from mynah import __version__
from mynah.dialogue.record import TurnRecord
from mynah.observe.turns import MODES, Outcome, mode_of, outcome_of
from mynah.providers.calls import CANCELLED, ProviderCall

STAGES: Final = ("transcript", "tts_start", "first_sentence", "first_frame")
"""As `TurnRecord.stages_ms` calls them."""
STAGE_BUCKETS_S: Final = (
    0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0,
)  # fmt: skip
"""Finest around the third of a second that people feel as immediate."""
WHOLE_BUCKETS_S: Final = (0.5, 1.0, 2.0, 3.0, 5.0, 7.5, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0, 120.0)
"""From a short word to a long story."""
LAG_BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""Around the 5 ms after which a frame counts as late, and the 100 ms that people hear."""

# The moment a series began is of no use to anybody here, and would be a third of all lines.
disable_created_metrics()  # type: ignore[no-untyped-call]


class Metrics:
    """All that is counted as it happens, in a registry of its own.

    Implements `mynah.dialogue.record.SessionObserver`, and has what the other parts are given as observers. All calls
    come from the event loop.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        """``clock`` is that of the event loop, in s: the times of `TurnRecord` are its."""
        self._clock = clock
        registry = self.registry = CollectorRegistry()
        build = Gauge(
            "mynah_build_info",
            "Always 1; the labels tell what runs.",
            ["version", "python"],
            registry=registry,
        )
        build.labels(__version__, platform.python_version()).set(1)
        self._opened = Counter(
            "mynah_connections_accepted", "Connections of devices let in.", registry=registry
        )
        self._closed = Counter(
            "mynah_connections_closed", "Connections of devices that have ended.", registry=registry
        )
        self._refused = Counter(
            "mynah_connections_refused", "Connections of devices not let in.", ["reason"], registry=registry
        )
        self._turns(registry)
        self._services(registry)
        # A series that begins at 0 shows its first event as an increase; one that begins at 1 does not.
        for mode in MODES:
            for outcome in Outcome:
                self._ended.labels(mode, outcome.value)
        for stage in STAGES:
            self._stages.labels(stage)
        self._lag = Histogram(
            "mynah_event_loop_lag_seconds",
            "How late the event loop was, looked at ten times a second.",
            buckets=LAG_BUCKETS_S,
            registry=registry,
        )

    def _turns(self, registry: CollectorRegistry) -> None:
        self._ended = Counter("mynah_turns", "Turns that have ended.", ["mode", "outcome"], registry=registry)
        self._errors = Counter(
            "mynah_turn_errors", "Turns that ended with an error.", ["code"], registry=registry
        )
        self._stages = Histogram(
            "mynah_turn_stage_seconds",
            "From the end of the user's speech to a stage of the answer; 0 where it was ready before.",
            ["stage"],
            buckets=STAGE_BUCKETS_S,
            registry=registry,
        )
        self._whole = Histogram(
            "mynah_turn_seconds",
            "From the end of the user's speech to the end of the reply.",
            buckets=WHOLE_BUCKETS_S,
            registry=registry,
        )
        self._continued = Counter(
            "mynah_turns_continued",
            "Turns whose user went on after his utterance seemed to be over.",
            registry=registry,
        )
        self._cut_in = Counter(
            "mynah_turns_begun_early", "Turns whose answer cut the user short.", registry=registry
        )
        self._false_alarms = Counter(
            "mynah_false_alarms", "Voices that held a reply and were nothing.", registry=registry
        )
        self._voiceless = Counter(
            "mynah_sentences_without_voice", "Sentences that the voice could not speak.", registry=registry
        )

    def _services(self, registry: CollectorRegistry) -> None:
        labels = ["kind", "provider"]
        self._requests = Counter(
            "mynah_provider_requests", "Requests to AI services that have ended.", labels, registry=registry
        )
        self._request_errors = Counter(
            "mynah_provider_errors",
            "Requests to AI services that failed.",
            [*labels, "code"],
            registry=registry,
        )
        self._cancelled = Counter(
            "mynah_provider_cancelled",
            "Requests to AI services whose result nobody waited for any more.",
            labels,
            registry=registry,
        )
        self._first_results = Histogram(
            "mynah_provider_first_result_seconds",
            "From a request to an AI service to its first result.",
            labels,
            buckets=STAGE_BUCKETS_S,
            registry=registry,
        )
        self._tools = Summary("mynah_tool_seconds", "What calls of tools took.", ["tool"], registry=registry)
        self._tool_errors = Counter(
            "mynah_tool_errors", "Calls of tools that failed.", ["tool"], registry=registry
        )

    # -- SessionObserver

    def on_session_opened(self, device_id: str, session_id: str) -> None:  # noqa: ARG002
        """A conversation begins."""
        self._opened.inc()

    def on_session_closed(self, device_id: str, session_id: str) -> None:  # noqa: ARG002
        """The conversation is over."""
        self._closed.inc()

    def on_turn(self, record: TurnRecord) -> None:
        """A reply has ended, played or interrupted."""
        outcome = outcome_of(record)
        self._ended.labels(mode_of(record), outcome.value).inc()
        if record.error:
            self._errors.labels(record.error).inc()
        for stage, ms in record.stages_ms().items():
            self._stages.labels(stage).observe(ms / 1000)
        if record.speech_end and outcome is Outcome.DONE:  # how long others took, their users decided
            self._whole.observe(self._clock() - record.speech_end)
        if record.parts > 1:
            self._continued.inc()
        if record.cut_in:
            self._cut_in.inc()
        if record.false_alarms:
            self._false_alarms.inc(record.false_alarms)
        if record.tts_failures:
            self._voiceless.inc(record.tts_failures)

    # -- other observers

    def on_refused(self, reason: str) -> None:
        """A device was not let in. ``reason`` is one of a few words (`mynah.net.refusals`)."""
        self._refused.labels(reason).inc()

    def on_call(self, call: ProviderCall) -> None:
        """A request to an AI service is over."""
        kind, name = call.kind.value, call.name
        self._requests.labels(kind, name).inc()
        if not call.error:
            self._first_results.labels(kind, name).observe(call.seconds)
        elif call.error == CANCELLED:
            self._cancelled.labels(kind, name).inc()
        else:
            self._request_errors.labels(kind, name, call.error).inc()

    def on_tool(self, name: str, seconds: float, failed: bool) -> None:
        """A call of a tool is over. ``name`` is that of a plugin's tool, or one word for all others."""
        self._tools.labels(name).observe(seconds)
        if failed:
            self._tool_errors.labels(name).inc()

    def on_lag(self, seconds: float) -> None:
        """The event loop was so late."""
        self._lag.observe(seconds)
