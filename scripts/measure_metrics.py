"""Measure what metrics and traces cost, and write benchmarks/metrics_cost.json.

    .venv/bin/python scripts/measure_metrics.py

All figures are CPU time, so that others on the machine disturb them little. The whole server is measured twice at the
same time, with metrics and without; the same talkers talk to one and then to the other. Takes two minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import platform
import statistics
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from loguru import logger

from mynah.audio.ingest import IngestStats
from mynah.audio.pacer import PacerStats
from mynah.bench.server import ServerUnderTest
from mynah.bench.talker import Talkers
from mynah.dialogue.admission import Admission, Signals
from mynah.dialogue.record import TurnRecord
from mynah.dialogue.speculation import SpeculationStats
from mynah.dialogue.turn import Phase, TurnMachine, TurnPolicy
from mynah.observe.logs import TurnLog
from mynah.observe.metrics import Metrics
from mynah.observe.readings import Exposition, Sources
from mynah.observe.traces import Ended, TraceStats, TurnTraces
from mynah.providers.base import (
    Kind,
    LlmCapabilities,
    LlmChunk,
    LlmProvider,
    LlmRequest,
    ProviderOptions,
    TextDelta,
)
from mynah.providers.calls import ProviderCall
from mynah.providers.wrap import GuardedLlm, watch_calls
from mynah.wire.messages import ListenMode

ROOT = Path(__file__).parent.parent
TURN = TurnRecord(
    "02:00:00:00:00:01", mode="auto", text="what time is it", answer="It is noon. " * 8, guess="hit", speech_start=8.0,
    speech_end=10.0, transcript=10.1, tts_start=10.2, first_sentence=10.15, first_frame=10.3,
)  # fmt: skip
SESSIONS = (0, 1000, 20000)
TOKENS = 40
CALLS_PER_TURN = 6
"""Recogniser at a pause and at the end, model, three sentences."""


class Talk:
    """A session, as far as it is counted: as many look-ups away from its phase as a real one."""

    def __init__(self) -> None:
        self._machine = TurnMachine(TurnPolicy.from_phrases([], [], False))

    @property
    def phase(self) -> Phase:
        return self._machine.phase


class Tokens(LlmProvider[ProviderOptions]):
    @property
    def capabilities(self) -> LlmCapabilities:
        return LlmCapabilities()

    async def generate(self, request: LlmRequest) -> AsyncGenerator[LlmChunk, None]:  # noqa: ARG002
        for _ in range(TOKENS):
            yield TextDelta("word ")


class Nowhere:
    """An exporter that does all but send."""

    def export(self, spans: Sequence[Any]) -> Any:
        from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
        from opentelemetry.sdk.trace.export import SpanExportResult

        encode_spans(spans).SerializePartialToString()
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        pass


def per_call_us(call: Callable[[], object], times: int = 5000, rounds: int = 5) -> float:
    """Return the CPU time of a call in µs: the least of some rounds, which others disturbed least."""
    found = []
    for _ in range(rounds):
        begin = time.thread_time()
        for _ in range(times):
            call()
        found.append((time.thread_time() - begin) / times * 1e6)
    return round(min(found), 2)


async def turns() -> dict[str, float]:
    metrics = Metrics(lambda: 12.0)
    traces = TurnTraces(Nowhere(), clock=lambda: 12.0)

    def trace() -> None:
        traces._waiting.clear()
        traces.on_turn(TURN)

    ended = [Ended(TURN, 12.0, 0.0)] * 100
    call = ProviderCall(Kind.TTS, "Voice", 0.1)
    return {
        "log_line_suppressed": per_call_us(lambda: TurnLog.on_turn(TurnLog(), TURN)),
        "metrics_on_turn": per_call_us(lambda: metrics.on_turn(TURN)),
        "metrics_on_provider_call": per_call_us(lambda: metrics.on_call(call)),
        "metrics_on_tool": per_call_us(lambda: metrics.on_tool("get_time", 0.1, False)),
        "metrics_on_lag": per_call_us(lambda: metrics.on_lag(0.001)),
        "traces_on_turn": per_call_us(trace),
        "traces_thread_per_turn": round(per_call_us(lambda: traces._send(ended), 5) / len(ended), 1),
    }


async def guard(rounds: int = 5) -> dict[str, float]:
    """Return the CPU time of a whole request of 40 pieces through its guard, watched and not, in µs."""
    found: dict[str, list[float]] = {"unwatched": [], "watched": []}
    guards = {"unwatched": GuardedLlm(Tokens("a", ProviderOptions(type="x")))}
    guards["watched"] = GuardedLlm(Tokens("b", ProviderOptions(type="x")))
    watch_calls([guards["watched"]], Metrics(lambda: 0.0).on_call)
    request = LlmRequest(messages=())
    for _ in range(rounds):
        for name, llm in guards.items():
            begin = time.thread_time()
            for _ in range(200):
                async with contextlib.aclosing(llm.generate(request)) as pieces:
                    async for _ in pieces:
                        pass
            found[name].append((time.thread_time() - begin) / 200 * 1e6)
    return {name: round(min(times), 1) for name, times in found.items()}


async def scrapes() -> list[dict[str, float]]:
    rows = []
    for count in SESSIONS:
        sessions = {number: Talk() for number in range(count)}
        metrics = Metrics(lambda: 12.0)
        metrics.on_turn(TURN)
        for kind, name in ((Kind.ASR, "A"), (Kind.LLM, "B"), (Kind.TTS, "C")):
            metrics.on_call(ProviderCall(kind, name, 0.1))
        for tool in range(20):
            metrics.on_tool(f"tool{tool}", 0.1, False)
        exposition = Exposition(metrics.registry, _sources(sessions))
        cpu, stalls, size = [], [], 0
        for _ in range(5):
            exposition._written_at = float("-inf")
            took, stall, size = await _scrape(exposition)
            cpu.append(took)
            stalls.append(stall)
        rows.append(
            {
                "sessions": count,
                "bytes": size,
                "cpu_ms": round(statistics.median(cpu) * 1000, 2),
                "longest_hold_of_the_loop_ms": round(statistics.median(stalls) * 1000, 2),
            }
        )
    return rows


def _sources(sessions: dict[int, Talk]) -> Sources:
    def walk() -> Iterator[Talk]:
        return (session for session in tuple(sessions.values()) if session.phase is not Phase.CLOSED)

    return Sources(
        walk, 25000, PacerStats(), IngestStats(), SpeculationStats(), TraceStats(), Admission(), Signals, 0
    )  # fmt: skip


async def _scrape(exposition: Exposition) -> tuple[float, float, int]:
    """Return CPU time of the process, the longest CPU time without a turn for others in s, and bytes."""
    longest, begin = 0.0, time.process_time()
    writing = asyncio.ensure_future(exposition.write())
    last = time.thread_time()
    while not writing.done():
        await asyncio.sleep(0)
        now = time.thread_time()
        longest, last = max(longest, now - last), now
    return time.process_time() - begin, longest, len(writing.result())


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / 100


def whole_server(talkers: int, turns_each: int, rounds: int) -> dict[str, Any]:
    """Return CPU time per turn of two servers that run side by side, each talked to in turn."""
    used: dict[str, list[float]] = {"off": [], "on": []}
    with ServerUnderTest("server.metrics=false") as off, ServerUnderTest("server.metrics=true") as on:
        servers = {"off": off, "on": on}
        for server in servers.values():
            server.url()
        for number in range(rounds):
            names = ("off", "on") if number % 2 == 0 else ("on", "off")  # who goes first is colder
            for name in names:
                server = servers[name]
                begin = cpu_s(server._process.pid)
                with Talkers(server.url(), ListenMode.MANUAL, talkers, turns_each, 0) as people:
                    count = len(people.wait().turns)
                used[name].append((cpu_s(server._process.pid) - begin) / count * 1000)
    return {
        "talkers": talkers,
        "turns_per_round": talkers * turns_each,
        "rounds": rounds,
        "cpu_ms_per_turn": {name: [round(ms, 2) for ms in times] for name, times in used.items()},
        "ratio_on_to_off": round(statistics.median(used["on"]) / statistics.median(used["off"]), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "metrics_cost.json")
    parser.add_argument("--talkers", type=int, default=10)
    parser.add_argument("--turns", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=4)
    options = parser.parse_args()
    logger.remove()
    per_call = asyncio.run(turns())
    server = whole_server(options.talkers, options.turns, options.rounds)
    per_turn_us = per_call["metrics_on_turn"] + CALLS_PER_TURN * per_call["metrics_on_provider_call"]
    cheapest_us = min(min(times) for times in server["cpu_ms_per_turn"].values()) * 1000
    result = {
        "command": ".venv/bin/python scripts/measure_metrics.py",
        "machine": {
            "cpu": _cpu_name(),
            "python": platform.python_version(),
            "prometheus_client": version("prometheus_client"),
            "opentelemetry_sdk": version("opentelemetry-sdk"),
        },
        "cpu_us": per_call,
        "metrics_us_per_turn": round(per_turn_us, 1),
        "metrics_share_of_a_turn": round(per_turn_us / cheapest_us, 5),
        "guard_us_per_request_of_40_pieces": asyncio.run(guard()),
        "per_frame_us": 0,
        "scrape": asyncio.run(scrapes()),
        "server": server,
        "notes": "Nothing is called per frame or packet: what is told about them is read from the counters of pacer "
        "and ingest when somebody asks. cpu_us are the least of five rounds; traces_thread_per_turn is spent on a "
        "thread of its own. log_line_suppressed is what the log of a turn costs where its level shows nothing. The "
        "share is that of the sum of the calls in the cheapest round of the server; the ratio of the servers is noise.",
    }
    options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))


def _cpu_name() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown"
    )


if __name__ == "__main__":
    main()
