"""Vision models: the OpenAI-compatible one against a real server process, its guard, and the fake."""

from __future__ import annotations

import asyncio
import base64
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
from mynah.providers.base import Kind, ProviderOptions, VisionRequest, VllmProvider
from mynah.providers.vllm.openai import OpenAiVllm
from mynah.providers.wrap import GuardedVllm
from tests.standins.openai_scenarios import CHINESE, SENTENCES
from tests.standins.process import stand_in
from tests.virtual_time import virtual

JPEG = b"\xff\xd8\xff\xe0" + bytes(range(256)) * 8
ASK = VisionRequest(JPEG, "image/jpeg", "What is this?")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with stand_in("openai_server") as port:
        yield f"http://127.0.0.1:{port}/v1"


@contextlib.asynccontextmanager
async def model(server: str, scenario: str, **options: Any) -> AsyncIterator[OpenAiVllm]:
    entry = {
        "type": "openai",
        "model_name": scenario,
        "url": server,
        "api_key": f"sk-{uuid.uuid4().hex}",
        **options,
    }
    vllm = registry.create(Kind.VLLM, "MyEyes", entry)
    assert isinstance(vllm, OpenAiVllm)
    await vllm.start()
    try:
        yield vllm
    finally:
        await vllm.stop()


async def seen(server: str, vllm: OpenAiVllm) -> dict[str, int]:
    address = f"{server}/seen"
    key = vllm.options.api_key.get_secret_value()
    async with aiohttp.ClientSession() as http, http.get(address, params={"key": key}) as response:
        return await response.json()  # type: ignore[no-any-return]


# ---------------------------------------------------------------- the service


@pytest.mark.parametrize(
    ("scenario", "answer"), [("not-streamed", SENTENCES), ("chinese", CHINESE), ("reasoning", SENTENCES)]
)
async def test_answers_whole_or_streamed(server: str, scenario: str, answer: str) -> None:
    async with model(server, scenario) as vllm:
        assert await vllm.describe(ASK) == answer


async def test_the_picture_travels_as_a_data_url(server: str) -> None:
    async with model(
        server, "echo", temperature=0.2, max_tokens=300, extra_body={"detail": "low"}, api_key="sk-abc"
    ) as vllm:
        told = json.loads(await vllm.describe(ASK))
    content = told["body"].pop("messages")[0]["content"]
    assert told["body"] == {
        "model": "echo", "stream": False, "temperature": 0.2, "max_tokens": 300, "detail": "low",
    }  # fmt: skip
    assert content[0]["type"] == "text"
    assert content[0]["text"].startswith("What is this?")
    assert "English" in content[0]["text"]
    url = content[1]["image_url"]["url"]
    assert url.startswith("data:image/jpeg;base64,")
    assert base64.b64decode(url.partition(",")[2]) == JPEG
    assert told["headers"]["Authorization"] == "Bearer sk-abc"
    assert told["path"] == "/v1/chat/completions"


async def test_the_language_of_the_question_is_asked_for(server: str) -> None:
    async with model(server, "echo") as vllm:
        told = json.loads(await vllm.describe(VisionRequest(JPEG, "image/png", "{这}是什么？", "zh")))
    content = told["body"]["messages"][0]["content"]
    assert content[0]["text"].startswith("{这}是什么？")
    assert "请用中文回答" in content[0]["text"]
    assert content[1]["image_url"]["url"].startswith("data:image/png;")


@pytest.mark.parametrize(
    ("scenario", "kind", "parts"),
    [
        ("status-400", ProviderRejectedError, ["400", "VLLM.MyEyes"]),
        ("status-401", ProviderRejectedError, ["Incorrect API key provided: ***", "VLLM.MyEyes.api_key"]),
        ("status-404", ProviderRejectedError, ["VLLM.MyEyes.base_url", "VLLM.MyEyes.model_name"]),
        ("status-500", ProviderUnavailableError, ["500"]),
        ("rate-limited-7", ProviderRateLimitedError, ["429"]),
        ("quota", ProviderRejectedError, ["quota"]),
        ("malformed", ProviderProtocolError, ["not a chat completion"]),
        ("filtered", ProviderRejectedError, ["content filter"]),
        ("tools-whole", ProviderProtocolError, ["no text"]),
        ("cut", ProviderUnavailableError, []),
        ("drop", ProviderUnavailableError, []),
    ],
)
async def test_faults_have_a_class_and_name_the_entry(
    server: str, scenario: str, kind: type[ProviderError], parts: list[str]
) -> None:
    async with model(server, scenario) as vllm:
        with pytest.raises(ProviderError) as caught:
            await vllm.describe(ASK)
        assert type(caught.value) is kind
        assert caught.value.provider == "MyEyes"
        assert all(part in str(caught.value) for part in parts), caught.value
        assert vllm.options.api_key.get_secret_value() not in str(caught.value)


async def test_a_slow_service_and_none_at_all(server: str) -> None:
    async with model(server, "hang", timeout=0.3) as vllm:
        with pytest.raises(ProviderTimeoutError):
            await vllm.describe(ASK)
    async with model("http://127.0.0.1:1/v1", "normal") as vllm:
        with pytest.raises(ProviderUnavailableError):
            await vllm.describe(ASK)
    with pytest.raises(ProviderError, match="not started"):
        await vllm.describe(ASK)


async def test_a_cancelled_question_ends_at_the_service(server: str) -> None:
    async with model(server, "hang") as vllm:
        task = asyncio.create_task(vllm.describe(ASK))
        async with asyncio.timeout(10):
            while not (await seen(server, vllm)).get("hang"):
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            while not (await seen(server, vllm)).get("disconnected"):
                await asyncio.sleep(0.01)


def test_a_key_is_needed() -> None:
    with pytest.raises(ConfigError, match=r"VLLM\.MyEyes\.api_key"):
        registry.create(Kind.VLLM, "MyEyes", {"type": "openai", "model_name": "m"})


# ---------------------------------------------------------------- the guard


async def test_the_guard_tries_once_more(server: str) -> None:
    async with model(server, "flaky") as vllm:
        assert await GuardedVllm(vllm).describe(ASK) == SENTENCES
        assert (await seen(server, vllm))["flaky"] == 2
    async with model(server, "status-401") as vllm:
        with pytest.raises(ProviderRejectedError):
            await GuardedVllm(vllm).describe(ASK)
        assert (await seen(server, vllm))["status-401"] == 1


async def test_the_guard_bounds_the_wait(server: str) -> None:
    async with model(server, "hang") as vllm:
        started = time.monotonic()
        with pytest.raises(ProviderTimeoutError, match=r"0\.2 s"):
            await GuardedVllm(vllm, timeout_s=0.2).describe(ASK)
        assert time.monotonic() - started < 5


@virtual
async def test_two_tries_share_the_time() -> None:
    clock = asyncio.get_running_loop().time
    fake = registry.create(Kind.VLLM, "Fake", {"type": "fake", "delay_ms": 7000, "error_rate": 1})
    assert isinstance(fake, VllmProvider)
    started = clock()
    with pytest.raises(ProviderUnavailableError):
        await GuardedVllm(fake, timeout_s=25).describe(ASK)
    assert 14 < clock() - started < 15  # twice, and a pause
    started = clock()
    with pytest.raises(ProviderTimeoutError):
        await GuardedVllm(fake, timeout_s=10).describe(ASK)
    assert clock() - started == pytest.approx(10)


class Foreign(VllmProvider[ProviderOptions]):
    async def describe(self, request: VisionRequest) -> str:
        raise KeyError("choices")


async def test_foreign_errors_become_ours() -> None:
    with pytest.raises(ProviderError, match="KeyError") as caught:
        await GuardedVllm(Foreign("Odd", ProviderOptions(type="odd"))).describe(ASK)
    assert caught.value.provider == "Odd"


# ---------------------------------------------------------------- the fake


@virtual
async def test_the_fake_answers_after_its_delay() -> None:
    clock = asyncio.get_running_loop().time
    fake = registry.create(Kind.VLLM, "Fake", {"type": "fake", "delay_ms": 120})
    assert isinstance(fake, VllmProvider)
    started = clock()
    assert "red cup" in await fake.describe(ASK)
    assert clock() - started == pytest.approx(0.12)
    assert "杯子" in await fake.describe(VisionRequest(JPEG, "image/jpeg", "?", "zh"))
    told = registry.create(Kind.VLLM, "Fake", {"type": "fake", "text": "A cat."})
    assert isinstance(told, VllmProvider)
    assert await told.describe(ASK) == "A cat."
