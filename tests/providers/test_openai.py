"""The OpenAI-compatible model against a real server process that speaks its API, well and badly."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp
import pytest

from mynah.errors import (
    ConfigError,
    ProviderError,
    ProviderProtocolError,
    ProviderRateLimitedError,
    ProviderRejectedError,
    ProviderTimeoutError,
    ProviderUnavailableError,
)
from mynah.providers import registry
from mynah.providers.base import (
    ChatMessage,
    Finish,
    Kind,
    LlmChunk,
    LlmRequest,
    Role,
    TextDelta,
    ToolCall,
    ToolSpec,
)
from mynah.providers.llm.openai import OpenAiLlm, ToolNames
from mynah.providers.wrap import GuardedLlm
from tests.standins.openai_scenarios import CHINESE, SENTENCES
from tests.standins.process import stand_in

HELLO = LlmRequest(messages=(ChatMessage(role=Role.USER, content="Hello"),))
WEATHER = ToolSpec(
    name="get_weather",
    description="Say the weather",
    parameters={"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
)
VOLUME = ToolSpec(
    name="self.audio_speaker.set_volume",
    description="Set the volume",
    parameters={"type": "object", "properties": {"volume": {"type": "integer"}}, "required": ["volume"]},
)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with stand_in("openai_server") as port:
        yield f"http://127.0.0.1:{port}/v1"


@contextlib.asynccontextmanager
async def model(server: str, scenario: str, **options: Any) -> AsyncIterator[OpenAiLlm]:
    entry = {
        "type": "openai",
        "model_name": scenario,
        "url": server,
        "api_key": f"sk-{uuid.uuid4().hex}",
        **options,
    }
    llm = registry.create(Kind.LLM, "MyLLM", entry)
    assert isinstance(llm, OpenAiLlm)
    await llm.start()
    try:
        yield llm
    finally:
        await llm.stop()


async def chunks_of(llm: Any, request: LlmRequest = HELLO) -> list[LlmChunk]:
    return [chunk async for chunk in llm.generate(request)]


def text_of(chunks: list[LlmChunk]) -> str:
    return "".join(chunk.text for chunk in chunks if isinstance(chunk, TextDelta))


async def reply_of(server: str, scenario: str, request: LlmRequest = HELLO, **options: Any) -> list[LlmChunk]:
    async with model(server, scenario, **options) as llm:
        return await chunks_of(llm, request)


async def failure_of(server: str, scenario: str, **options: Any) -> tuple[ProviderError, str]:
    """Return the error and what had been said before it."""
    async with model(server, scenario, **options) as llm:
        said = []
        with pytest.raises(ProviderError) as caught:
            async for chunk in llm.generate(HELLO):
                said.append(chunk)  # noqa: PERF401 - what came before the error counts
        assert caught.value.provider == "MyLLM"
        assert llm.options.api_key.get_secret_value() not in str(caught.value)
        return caught.value, text_of(said)


async def seen(server: str, llm: OpenAiLlm) -> dict[str, int]:
    key = llm.options.api_key.get_secret_value()
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{server}/seen", params={"key": key}) as response,
    ):
        return await response.json()  # type: ignore[no-any-return]


# ---------------------------------------------------------------- good replies


@pytest.mark.parametrize(
    ("scenario", "text"),
    [
        ("normal", SENTENCES),
        ("chinese", CHINESE),
        ("no-done", SENTENCES),
        ("no-finish-reason", SENTENCES),
        ("open-after-done", SENTENCES),
        ("cut-after-done", SENTENCES),
        ("odd-framing", CHINESE),
        ("no-empty-lines", SENTENCES),
        ("reasoning", SENTENCES),
        ("not-streamed", SENTENCES),
        ("null-choices", SENTENCES),
    ],
)
async def test_reply_arrives_whole(server: str, scenario: str, text: str) -> None:
    started = time.monotonic()
    chunks = await reply_of(server, scenario)
    assert text_of(chunks) == text
    assert [type(chunk) for chunk in chunks].count(Finish) == 1
    assert isinstance(chunks[-1], Finish)
    assert chunks[-1].reason == "stop"
    assert time.monotonic() - started < 5


async def test_usage_is_reported(server: str) -> None:
    assert (await reply_of(server, "normal"))[-1] == Finish("stop", prompt_tokens=11, completion_tokens=9)
    assert (await reply_of(server, "null-choices"))[-1] == Finish("stop", prompt_tokens=3)


async def test_text_streams_as_it_is_made(server: str) -> None:
    async with model(server, "slow-tokens-10") as llm, contextlib.aclosing(llm.generate(HELLO)) as reply:
        started = time.monotonic()
        first = await anext(reply)
        assert first == TextDelta("Hello")
        assert time.monotonic() - started < 1.0  # the whole reply takes 1.6 s at least


@pytest.mark.parametrize(
    "scenario", ["tools-fragmented", "tools-whole", "tools-same-index", "tools-no-ids", "tools-id-repeated"]
)
async def test_tool_calls_come_out_whole(server: str, scenario: str) -> None:
    chunks = await reply_of(server, scenario)
    calls = [chunk for chunk in chunks if isinstance(chunk, ToolCall)]
    assert [(call.name, json.loads(call.arguments)) for call in calls] == [
        ("get_weather", {"city": "巴黎"}),
        ("get_time", {"zone": "CET"}),
    ]
    assert len({call.id for call in calls}) == 2
    assert all(call.id for call in calls)
    if scenario != "tools-no-ids":
        assert [call.id for call in calls] == ["call_a", "call_b"]
    assert chunks[-1] == Finish("tool_calls", prompt_tokens=11, completion_tokens=9)


async def test_tool_round_trip_with_a_name_the_api_does_not_allow(server: str) -> None:
    async with model(server, "tool-round-trip") as llm:
        ask = ChatMessage(role=Role.USER, content="self_audio_speaker_set_volume please")
        first = await chunks_of(llm, LlmRequest(messages=(ask,), tools=(WEATHER, VOLUME)))
        call = first[0]
        assert isinstance(call, ToolCall)
        assert call.name == VOLUME.name
        assert json.loads(call.arguments) == {"volume": 30}
        asked = ChatMessage(role=Role.ASSISTANT, content="", tool_calls=(call,))
        told = ChatMessage(role=Role.TOOL, content="done", tool_call_id=call.id, name=call.name)
        second = await chunks_of(llm, LlmRequest(messages=(ask, asked, told), tools=(WEATHER, VOLUME)))
        assert text_of(second) == "The tool said: done."


async def test_request_carries_messages_tools_and_options(server: str) -> None:
    call = ToolCall(id="c1", name="self.x", arguments="")
    request = LlmRequest(
        messages=(
            ChatMessage(role=Role.SYSTEM, content="Be brief."),
            ChatMessage(role=Role.USER, content="天气？"),
            ChatMessage(role=Role.ASSISTANT, content="", tool_calls=(call,)),
            ChatMessage(role=Role.TOOL, content="sunny", tool_call_id="c1", name="self.x"),
        ),
        tools=(WEATHER,),
    )
    options = {
        "api_key": "sk-abc",
        "temperature": 0.7,
        "max_tokens": 500,
        "top_p": 1,
        "top_k": 50,
        "frequency_penalty": 0,
        "extra_headers": {"X-Extra": "1"},
        "extra_body": {"enable_thinking": False},
        "stream_usage": False,
    }
    told = json.loads(text_of(await reply_of(server, "echo", request, **options)))
    assert told["body"] == {
        "model": "echo",
        "stream": True,
        "temperature": 0.7,
        "max_tokens": 500,
        "top_p": 1,
        "top_k": 50,
        "frequency_penalty": 0,
        "enable_thinking": False,
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "天气？"},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {"id": "c1", "type": "function", "function": {"name": "self_x", "arguments": "{}"}}
                ],
            },
            {"role": "tool", "content": "sunny", "tool_call_id": "c1"},
        ],
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "get_weather",
                    "description": "Say the weather",
                    "parameters": dict(WEATHER.parameters),
                },
            }
        ],
    }
    assert told["headers"]["Authorization"] == "Bearer sk-abc"
    assert told["headers"]["X-Extra"] == "1"
    assert told["headers"]["Content-Type"] == "application/json"


async def test_options_that_are_not_set_are_not_sent_and_none_is_no_key(server: str) -> None:
    told = json.loads(text_of(await reply_of(server, "echo", api_key="none")))
    assert told["body"].keys() == {"model", "messages", "stream", "stream_options"}
    assert "Authorization" not in told["headers"]


@pytest.mark.parametrize("suffix", ["", "/", "/chat/completions", "?api-version=1", "/?api-version=1"])
async def test_base_url_in_any_form(server: str, suffix: str) -> None:
    told = json.loads(text_of(await reply_of(server + suffix, "echo")))
    assert told["path"] == "/v1/chat/completions" + ("?api-version=1" if "?" in suffix else "")


async def test_connection_is_used_again(server: str) -> None:
    async with model(server, "echo") as llm:
        told = [json.loads(text_of(await chunks_of(llm)))["connection"] for _ in range(3)]
    assert len(set(told)) == 1


# ---------------------------------------------------------------- faults


@pytest.mark.parametrize(
    ("scenario", "kind", "parts"),
    [
        ("status-400", ProviderRejectedError, ["400", "status-400", "LLM.MyLLM"]),
        (
            "status-401",
            ProviderRejectedError,
            ["401", "Incorrect API key provided: ***", "LLM.MyLLM.api_key"],
        ),
        ("status-402", ProviderRejectedError, ["quota"]),
        ("status-403", ProviderRejectedError, ["LLM.MyLLM.api_key"]),
        ("status-404", ProviderRejectedError, ["base_url", "model_name", "'status-404'"]),
        ("no-such-model", ProviderRejectedError, ["model_name", "'no-such-model'"]),
        ("status-408", ProviderUnavailableError, ["408"]),
        ("status-500", ProviderUnavailableError, ["500", "scripted 500"]),
        ("status-503", ProviderUnavailableError, ["503"]),
        ("html-error", ProviderUnavailableError, ["502", "Bad Gateway"]),
        ("redirect", ProviderRejectedError, ["301", "https://elsewhere.example"]),
        ("rate-limited-7", ProviderRateLimitedError, ["429", "Rate limit reached"]),
        ("quota", ProviderRejectedError, ["current quota"]),
        ("malformed", ProviderProtocolError, ["not a chat completion chunk"]),
        ("wrong-shape", ProviderProtocolError, ["not a chat completion chunk"]),
        ("tools-nameless", ProviderProtocolError, ["function name"]),
        ("endless-event", ProviderProtocolError, ["longer than"]),
        ("filtered", ProviderRejectedError, ["content filter"]),
        ("error-in-stream", ProviderUnavailableError, ["The server had an error"]),
        ("drop", ProviderUnavailableError, []),
        ("cut", ProviderUnavailableError, []),
        ("ends-early", ProviderUnavailableError, ["middle of the reply"]),
    ],
)
async def test_faults_have_a_class_and_a_helpful_text(
    server: str, scenario: str, kind: type[ProviderError], parts: list[str]
) -> None:
    error, said = await failure_of(server, scenario)
    assert type(error) is kind
    for part in parts:
        assert part in str(error)
    assert len(str(error)) < 1000
    if scenario in {"cut", "ends-early"}:
        assert said == "Hello there. How"


async def test_retry_after_as_seconds_and_as_a_date(server: str) -> None:
    error, _ = await failure_of(server, "rate-limited-7")
    assert error.retry_after_s == 7
    error, _ = await failure_of(server, "rate-limited-until-30")
    assert error.retry_after_s == pytest.approx(30, abs=3)


@pytest.mark.parametrize("scenario", ["hang", "hang-early"])
async def test_time_out(server: str, scenario: str) -> None:
    started = time.monotonic()
    error, _ = await failure_of(server, scenario, timeout=0.3)
    assert type(error) is ProviderTimeoutError
    assert 0.25 < time.monotonic() - started < 3


async def test_nobody_listens() -> None:
    error, _ = await failure_of("http://127.0.0.1:1/v1", "normal")
    assert type(error) is ProviderUnavailableError
    assert "127.0.0.1:1" in str(error)


async def test_address_that_is_none(server: str) -> None:
    error, _ = await failure_of("http://", "normal")
    assert type(error) is ProviderRejectedError
    with pytest.raises(ConfigError, match=r"LLM\.MyLLM\.url"):
        registry.create(
            Kind.LLM, "MyLLM", {"type": "openai", "model_name": "m", "api_key": "k-1", "url": "localhost:1"}
        )


async def test_stopping_early_ends_the_request_at_the_service(server: str) -> None:
    async with model(server, "slow-tokens-20") as llm:
        async with contextlib.aclosing(llm.generate(HELLO)) as reply:
            await anext(reply)
        assert await disconnected(server, llm)


async def test_cancelling_ends_the_request_at_the_service(server: str) -> None:
    async with model(server, "hang") as llm:
        task = asyncio.create_task(chunks_of(llm))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await disconnected(server, llm)


async def disconnected(server: str, llm: OpenAiLlm) -> bool:
    for _ in range(100):
        if (await seen(server, llm)).get("disconnected"):
            return True
        await asyncio.sleep(0.02)
    return False


async def test_not_started_and_stopped_twice() -> None:
    llm = registry.create(Kind.LLM, "MyLLM", {"type": "openai", "model_name": "m", "api_key": "k-1"})
    with pytest.raises(ProviderError, match="not started"):
        await chunks_of(llm)
    await llm.start()
    await llm.stop()
    await llm.stop()


# ---------------------------------------------------------------- guarded


async def test_guard_retries_once_and_the_user_hears_nothing_of_it(server: str) -> None:
    async with model(server, "flaky") as llm:
        assert text_of(await chunks_of(GuardedLlm(llm))) == SENTENCES
        assert (await seen(server, llm))["flaky"] == 2


async def test_guard_waits_as_long_as_the_service_says_if_there_is_time(server: str) -> None:
    async with model(server, "limited-then-ok-1") as llm:
        started = time.monotonic()
        assert text_of(await chunks_of(GuardedLlm(llm))) == SENTENCES
        assert time.monotonic() - started >= 1
    async with model(server, "limited-then-ok-60") as llm:
        with pytest.raises(ProviderRateLimitedError):
            await chunks_of(GuardedLlm(llm))
        assert (await seen(server, llm))["limited-then-ok-60"] == 1


async def test_guard_does_not_repeat_what_was_already_said(server: str) -> None:
    async with model(server, "cut") as llm:
        said = []
        with pytest.raises(ProviderUnavailableError):
            async for chunk in GuardedLlm(llm).generate(HELLO):
                said.append(chunk)  # noqa: PERF401 - what came before the error counts
        assert text_of(said) == "Hello there. How"
        assert (await seen(server, llm))["cut"] == 1


async def test_guard_bounds_the_wait(server: str) -> None:
    async with model(server, "hang") as llm:
        started = time.monotonic()
        with pytest.raises(ProviderTimeoutError):
            await chunks_of(GuardedLlm(llm, first_timeout_s=0.2))
        assert time.monotonic() - started < 2


# ---------------------------------------------------------------- names


def test_tool_names_never_collide() -> None:
    specs = [
        ToolSpec(name=name, description="", parameters={})
        for name in ("a.b", "a_b", "a b", "天气", "气温", "")
    ]
    names = ToolNames(specs)
    allowed = [names.allow(spec.name) for spec in specs]
    assert len(set(allowed)) == len(allowed)
    for spec, name in zip(specs, allowed, strict=True):
        restored = names.restore(ToolCall(id="1", name=name, arguments=""))
        assert isinstance(restored, ToolCall)
        assert restored.name == spec.name


def test_long_tool_names_are_cut_and_stay_apart() -> None:
    names = ToolNames([])
    first, second = names.allow("x" * 70 + "a"), names.allow("x" * 70 + "b")
    assert len(first) == len(second) == 64
    assert first != second
