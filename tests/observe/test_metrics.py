"""What is counted as it happens, as Prometheus reads it."""

from __future__ import annotations

import re

from prometheus_client import REGISTRY

from mynah.dialogue.record import TurnRecord
from mynah.observe.metrics import STAGES, Metrics
from mynah.providers.base import Kind
from mynah.providers.calls import CANCELLED, ProviderCall
from tests.observe.exposed import families, metrics, value, values


async def test_turns_by_mode_and_outcome() -> None:
    seen = metrics()
    seen.on_turn(TurnRecord("aa:bb", mode="auto"))
    seen.on_turn(TurnRecord("aa:bb", mode="auto", interrupted=True, cut_in=True, parts=2, false_alarms=3))
    seen.on_turn(TurnRecord("aa:bb", mode="manual", error="provider_timeout", tts_failures=2))
    seen.on_turn(TurnRecord("aa:bb", silent=True))
    found = await values(seen)
    assert value(found, "mynah_turns_total", mode="auto", outcome="done") == 1
    assert value(found, "mynah_turns_total", mode="auto", outcome="interrupted") == 1
    assert value(found, "mynah_turns_total", mode="manual", outcome="failed") == 1
    assert value(found, "mynah_turns_total", mode="unprompted", outcome="silent") == 1
    assert value(found, "mynah_turns_total", mode="text", outcome="done") == 0, "a series begins at 0"
    assert value(found, "mynah_turn_errors_total", code="provider_timeout") == 1
    assert value(found, "mynah_turns_continued_total") == 1
    assert value(found, "mynah_turns_begun_early_total") == 1
    assert value(found, "mynah_false_alarms_total") == 3
    assert value(found, "mynah_sentences_without_voice_total") == 2


async def test_stages_count_from_the_end_of_the_speech() -> None:
    seen = Metrics(lambda: 14.0)
    reached = {"transcript": 10.2, "tts_start": 10.3, "first_sentence": 9.9, "first_frame": 10.31}
    seen.on_turn(TurnRecord("d", mode="auto", speech_end=10.0, **reached))
    seen.on_turn(TurnRecord("d", mode="auto", speech_end=10.0, interrupted=True))
    seen.on_turn(TurnRecord("d"))
    found = await values(seen)

    def times(stage: str) -> tuple[float, float]:
        name = "mynah_turn_stage_seconds"
        return value(found, f"{name}_count", stage=stage), round(value(found, f"{name}_sum", stage=stage), 6)

    assert {stage: times(stage) for stage in STAGES} == {
        "transcript": (1, 0.2),
        "tts_start": (1, 0.3),
        "first_sentence": (1, 0.0),  # it was ready before
        "first_frame": (1, 0.31),
    }
    assert value(found, "mynah_turn_stage_seconds_bucket", stage="first_frame", le="0.3") == 0
    assert value(found, "mynah_turn_stage_seconds_bucket", stage="first_frame", le="0.4") == 1
    # Whole: only turns whose end nobody hurried.
    assert value(found, "mynah_turn_seconds_count") == 1
    assert value(found, "mynah_turn_seconds_sum") == 4.0


def test_the_names_of_stages_are_those_of_the_record() -> None:
    record = TurnRecord(
        "d", speech_end=1.0, transcript=2.0, tts_start=2.0, first_sentence=2.0, first_frame=2.0
    )
    assert tuple(record.stages_ms()) == STAGES


async def test_requests_to_providers() -> None:
    seen = metrics()
    seen.on_call(ProviderCall(Kind.LLM, "Big", 0.2))
    seen.on_call(ProviderCall(Kind.LLM, "Big", 3.0, "provider_timeout"))
    seen.on_call(ProviderCall(Kind.LLM, "Big", 0.1, CANCELLED))
    seen.on_call(ProviderCall(Kind.TTS, "Voice", 0.1))
    found = await values(seen)
    big = {"kind": "LLM", "provider": "Big"}
    assert value(found, "mynah_provider_requests_total", **big) == 3
    assert value(found, "mynah_provider_errors_total", **big, code="provider_timeout") == 1
    assert value(found, "mynah_provider_cancelled_total", **big) == 1
    assert value(found, "mynah_provider_first_result_seconds_count", **big) == 1, "only of those that had one"
    assert value(found, "mynah_provider_requests_total", kind="TTS", provider="Voice") == 1


async def test_tools_connections_and_lag() -> None:
    seen = metrics()
    seen.on_tool("get_time", 0.25, False)
    seen.on_tool("get_time", 0.25, True)
    for session in ("s1", "s2"):
        seen.on_session_opened("d", session)
    seen.on_session_closed("d", "s1")
    seen.on_refused("full")
    seen.on_lag(0.007)
    found = await values(seen)
    assert value(found, "mynah_tool_seconds_count", tool="get_time") == 2
    assert value(found, "mynah_tool_seconds_sum", tool="get_time") == 0.5
    assert value(found, "mynah_tool_errors_total", tool="get_time") == 1
    assert value(found, "mynah_connections_accepted_total") == 2
    assert value(found, "mynah_connections_closed_total") == 1
    assert value(found, "mynah_connections_refused_total", reason="full") == 1
    assert value(found, "mynah_event_loop_lag_seconds_bucket", le="0.005") == 0
    assert value(found, "mynah_event_loop_lag_seconds_bucket", le="0.01") == 1


async def test_names_follow_the_conventions() -> None:
    for name, kind in (await families()).items():
        assert re.fullmatch(r"(mynah|process|python)_[a-z0-9_]+", name)
        assert (kind == "counter") == name.endswith("_total")
        if kind == "histogram":
            assert name.endswith("_seconds")


async def test_who_a_device_is_is_never_told() -> None:
    seen = metrics()
    seen.on_session_opened("12:34:56:78:9a:bc", "session-1")
    seen.on_turn(
        TurnRecord("12:34:56:78:9a:bc", mode="auto", text="a secret", answer="another", error="provider")
    )
    told = str(await values(seen))
    assert not [word for word in ("12:34", "session-1", "secret", "another") if word in told]


async def test_two_servers_in_a_process_count_apart() -> None:
    one, two = metrics(), metrics()
    one.on_refused("full")
    assert ("mynah_connections_refused_total", frozenset({("reason", "full")})) not in await values(two)
    assert not [family.name for family in REGISTRY.collect() if family.name.startswith("mynah")]
