"""A trace per turn, as a collector gets it over HTTP, and what happens when there is none."""

from __future__ import annotations

import asyncio
import builtins
import io
import itertools
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loguru import logger

from mynah import config
from mynah.config import Settings
from mynah.dialogue.record import TurnRecord
from mynah.errors import ConfigError
from mynah.observe import traces
from mynah.observe.traces import (
    MAX_AT_ONCE,
    MAX_WAITING,
    Stage,
    TurnTraces,
    attributes_of,
    connect,
    stages_of,
    wanted,
)
from tests.observe.collector import attributes, collecting
from tests.servers import app
from tests.servers import connect as connect_device

TURN = TurnRecord(
    "aa:bb",
    mode="auto",
    text="what time is it",
    answer="It is noon.",
    guess="hit",
    speech_start=8.0,
    speech_end=10.0,
    transcript=10.1,
    tts_start=10.2,
    first_sentence=10.15,
    first_frame=10.3,
)


# ---------------------------------------------------------------- what is told


def test_stages_follow_each_other() -> None:
    assert list(stages_of(TURN, 12.0)) == [
        Stage("listen", 8.0, 10.0),
        Stage("recognise", 10.0, 10.1),
        Stage("think", 10.1, 10.15),
        Stage("voice", 10.15, 10.3),
        Stage("speak", 10.3, 12.0),
    ]


def test_stages_that_were_not_reached_are_left_out() -> None:
    assert list(stages_of(TurnRecord("d"), 12.0)) == []
    assert list(stages_of(TurnRecord("d", speech_end=10.0, transcript=10.5), 12.0)) == [
        Stage("recognise", 10.0, 10.5)
    ]
    assert list(stages_of(TurnRecord("d", tts_start=11.0, first_frame=11.1), 12.0)) == [
        Stage("voice", 11.0, 11.1),
        Stage("speak", 11.1, 12.0),
    ]


MOMENTS = st.one_of(st.just(0.0), st.floats(1.0, 100.0))


@given(MOMENTS, MOMENTS, MOMENTS, MOMENTS, MOMENTS, MOMENTS)
def test_stages_never_run_backwards(
    start: float, speech: float, transcript: float, tts: float, sentence: float, frame: float
) -> None:
    record = TurnRecord(
        "d",
        speech_start=start,
        speech_end=speech,
        transcript=transcript,
        tts_start=tts,
        first_sentence=sentence,
        first_frame=frame,
    )
    found = list(stages_of(record, 200.0))
    assert all(0 < stage.begin <= stage.end <= 200.0 for stage in found)
    assert all(one.end <= two.begin for one, two in itertools.pairwise(found))


def test_words_are_told_only_to_who_wants_them() -> None:
    told = attributes_of(TURN, words=False)
    assert "noon" not in str(told)
    assert "time" not in str(told)
    assert (told["mynah.user.characters"], told["mynah.assistant.characters"]) == (15, 11)
    assert attributes_of(TURN, words=True)["mynah.user.text"] == "what time is it"
    assert attributes_of(TurnRecord("d", error="provider_timeout"), False)["error.type"] == "provider_timeout"


# ---------------------------------------------------------------- over HTTP


def settings(*overrides: str) -> Settings:
    return config.defaults(*overrides)


async def wait(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_turn_arrives_as_one_trace() -> None:
    with collecting() as collector:
        sending = connect(settings(f"tracing.endpoint={collector.endpoint}/"), {})
        sending._clock = lambda: 12.0
        sending.start()
        before = time.time_ns()
        sending.on_turn(TURN)
        sending.on_turn(TurnRecord("cc:dd", error="provider_timeout", speech_end=9.0, transcript=9.5))
        await sending.stop()
        after = time.time_ns()
    assert collector.paths == ["/v1/traces"], "both in one request"
    assert collector.resources[0]["service.name"] == "mynah"
    assert collector.resources[0]["service.version"]
    good, bad = collector.named("turn")
    assert attributes(good)["mynah.device.id"] == "aa:bb"
    assert attributes(good)["mynah.turn.outcome"] == "done"
    assert "noon" not in str(collector.spans)
    assert good.status.code == 0
    assert (bad.status.code, bad.status.message) == (2, "provider_timeout")
    assert good.trace_id != bad.trace_id
    # The event loop's clock stood at 12 when the turn ended: that was now.
    assert before <= good.end_time_unix_nano + 1000 <= after + 1000
    below = [span for span in collector.spans if span.parent_span_id == good.span_id]
    assert {span.trace_id for span in below} == {good.trace_id}
    lengths = {s.name: round((s.end_time_unix_nano - s.start_time_unix_nano) / 1e9, 3) for s in below}
    assert lengths == {"listen": 2.0, "recognise": 0.1, "think": 0.05, "voice": 0.15, "speak": 1.7}
    assert min(s.start_time_unix_nano for s in below) == good.start_time_unix_nano
    assert sending.stats.exported == 2


async def test_words_are_sent_when_that_is_set() -> None:
    with collecting() as collector:
        sending = connect(settings(f"tracing.endpoint={collector.endpoint}", "tracing.words=true"), {})
        sending.start()
        sending.on_turn(TURN)
        await sending.stop()
    assert attributes(collector.named("turn")[0])["mynah.assistant.text"] == "It is noon."


async def test_the_environment_says_where_and_as_what(monkeypatch: pytest.MonkeyPatch) -> None:
    with collecting() as collector:
        environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint, "OTEL_SERVICE_NAME": "kitchen"}
        for name, text in environ.items():
            monkeypatch.setenv(name, text)
        assert wanted(settings(), environ)
        assert not wanted(settings(), {"OTEL_EXPORTER_OTLP_ENDPOINT": ""})
        sending = connect(settings(), environ)
        sending.start()
        sending.on_turn(TURN)
        await sending.stop()
    assert collector.paths == ["/v1/traces"]
    assert collector.resources[0]["service.name"] == "kitchen"


async def test_a_server_sends_a_trace_of_a_conversation(tmp_path: Path) -> None:
    with collecting() as collector:
        tracing = f"tracing.endpoint={collector.endpoint}"
        async with (
            app(tmp_path, tracing, "TTS.FakeTTS.seconds=0.2") as (_, at),
            connect_device(at.ws) as device,
        ):
            await device.hello()
            await device.say(type="listen", state="detect", text="tell me something")
            await device.until("tts", "stop")
        # The server has stopped: all that it had to tell is here.
        (turn,) = collector.named("turn")
        assert attributes(turn)["mynah.turn.mode"] == "text"
        assert {span.name for span in collector.spans} == {"turn", "think", "voice", "speak"}
        assert not [thread for thread in threading.enumerate() if thread.name == "mynah-traces"]


# ---------------------------------------------------------------- no collector, a slow one


class Sink:
    """An exporter that is as slow as a test wants, and never fails."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.batches: list[int] = []
        self.shut = 0

    def export(self, spans: Sequence[Any]) -> Any:
        self.open.wait(10)
        self.batches.append(sum(span.name == "turn" for span in spans))
        return traces_result("SUCCESS")

    def shutdown(self) -> None:
        self.shut += 1
        self.open.set()


def traces_result(name: str) -> Any:
    from opentelemetry.sdk.trace.export import SpanExportResult

    return SpanExportResult[name]


async def test_a_slow_collector_costs_turns_and_nothing_else() -> None:
    sink = Sink()
    sending = TurnTraces(sink, gather_s=0.0)
    sending.start()
    sending.on_turn(TURN)
    await wait(lambda: not sending._waiting)  # it has been taken, and waits for the collector
    for _ in range(MAX_WAITING + 5):
        sending.on_turn(TURN)
    assert sending.stats.dropped == 5
    sink.open.set()
    await sending.stop()
    assert sending.stats.exported == sum(sink.batches) == MAX_WAITING + 1
    assert max(sink.batches) <= MAX_AT_ONCE
    assert sink.shut == 1


async def test_stopping_waits_only_so_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traces, "STOP_S", 0.05)
    sink = Sink()
    sending = TurnTraces(sink, gather_s=0.0)
    sending.start()
    thread = sending._thread
    assert thread is not None
    sending.on_turn(TURN)
    await wait(lambda: not sending._waiting)
    sending.on_turn(TURN)
    await sending.stop()
    await sending.stop()
    assert sink.shut == 1
    assert sending.stats.dropped == 1
    await asyncio.to_thread(thread.join, 10)
    assert not thread.is_alive(), "the exporter was told to give up, so its thread ended"


async def test_it_can_be_stopped_without_having_been_started() -> None:
    sending = TurnTraces(Sink())
    await sending.stop()


async def test_a_collector_that_refuses_is_reported_once() -> None:
    lines = io.StringIO()
    sink = logger.add(lines, format="{level} {message}", level="DEBUG")
    try:
        with collecting() as collector:
            collector.status = 400
            sending = connect(settings(f"tracing.endpoint={collector.endpoint}"), {})
            sending._gather_s = 0.0
            sending.start()
            for number in range(1, 3):
                sending.on_turn(TURN)
                await wait(lambda number=number: sending.stats.failed == number)  # type: ignore[misc]
            await sending.stop()
    finally:
        logger.remove(sink)
    told = [line for line in lines.getvalue().splitlines() if "collector took no traces" in line]
    assert len(told) == 1
    assert told[0].startswith("WARNING")


def test_without_the_package_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name.startswith("opentelemetry"):
            raise ImportError(f"No module named '{name}'")
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match=r"tracing\.endpoint.*mynah-server\[otel\]"):
        connect(settings("tracing.endpoint=http://127.0.0.1:4318"), {})


async def test_an_exporter_that_raises_costs_these_turns_only() -> None:
    sink = Sink()
    sink.open.set()
    sending = TurnTraces(sink, gather_s=0.0)
    export, answers = sink.export, [ConnectionError("nobody there")]

    def moody(spans: Sequence[Any]) -> Any:
        if answers:
            raise answers.pop()
        return export(spans)

    sink.export = moody  # type: ignore[method-assign]
    sending.start()
    sending.on_turn(TURN)
    await wait(lambda: sending.stats.failed == 1)
    sending.on_turn(TURN)
    await wait(lambda: sending.stats.exported == 1)
    await sending.stop()


def test_the_address_may_have_the_path_for_traces() -> None:
    assert settings("tracing.endpoint=http://host:4318/v1/traces/").tracing.endpoint == "http://host:4318"


def test_an_endpoint_is_enough() -> None:
    assert not wanted(settings(), {})
    assert wanted(settings("tracing.endpoint=http://127.0.0.1:4318"), {})
