"""One line to a real model: the whole server against a separate process that speaks the OpenAI-compatible API."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import aiohttp
import pytest

from mynah.sim.conversation import Conversation, Said, Target, converse
from mynah.texts import variants
from tests.servers import Process, connect, serve
from tests.standins.process import stand_in

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with stand_in("openai_server") as number:
        yield number


@contextmanager
def served(
    folder: Path, port: int, model: str, timeout_s: float = 4.0, key: str = "sk-test"
) -> Iterator[Process]:
    """Run a server whose model is ``model``."""
    file = folder / "config.yaml"
    file.write_text(f"""
selected_module:
  LLM: RealLLM
LLM:
  RealLLM:
    type: openai
    base_url: http://127.0.0.1:{port}/v1
    model_name: {model}
    api_key: ${{MY_MODEL_KEY}}
timeouts:
  llm_s: {timeout_s}
""")
    with mock.patch.dict(os.environ, MY_MODEL_KEY=key), serve(folder, config=file) as server:
        yield server


async def ask(
    folder: Path, port: int, model: str, *questions: str, timeout_s: float = 4.0, key: str = "sk-test"
) -> Conversation:
    """Ask a server whose model is ``model``."""
    with served(folder, port, model, timeout_s, key) as server:
        return await converse(Target(ota_url=server.ready["ota"]), [Said(q) for q in questions])


async def test_streaming(tmp_path: Path, port: int) -> None:
    result = await ask(tmp_path, port, "normal", "hello")
    assert result.ok
    assert result.turns[0].answer == "Hello there. How can I help you today?"


async def test_tool_call_round_trip(tmp_path: Path, port: int) -> None:
    result = await ask(tmp_path, port, "tool-round-trip", "use get_time please")
    assert result.ok
    assert result.turns[0].answer.startswith("The tool said: It is ")


@pytest.mark.parametrize(
    ("model", "key"),
    [
        ("status-500", "error_provider"),
        ("status-401", "error_provider"),
        ("slow-first-3000", "error_timeout"),
        ("drop", "error_provider"),
        ("malformed", "error_provider"),
    ],
)
async def test_errors_are_spoken_and_the_next_turn_works(
    tmp_path: Path, port: int, model: str, key: str
) -> None:
    result = await ask(tmp_path, port, model, "hello", "again", timeout_s=1.0)
    assert len(result.turns) == 2
    for turn in result.turns:
        assert any(phrase in turn.answer for phrase in variants(key, "en")), turn
        assert turn.audio_seconds > 0
    assert result.counters.stuck_speaking == 0


async def test_a_stream_that_is_cut_keeps_what_was_said(tmp_path: Path, port: int) -> None:
    result = await ask(tmp_path, port, "cut", "hello")
    answer = result.turns[0].answer
    assert answer.startswith("Hello there."), answer
    assert any(phrase in answer for phrase in variants("error_provider", "en")), answer


async def test_slow_tokens_are_spoken_as_they_come(tmp_path: Path, port: int) -> None:
    """The whole reply takes 18 s to generate; its first sentence is two tokens long."""
    with served(tmp_path, port, "slow-tokens-100") as server:
        async with connect(server.ready["ws"], "02:00:00:00:00:43") as device:
            await device.hello()
            await device.say(type="listen", state="detect", text="hello")
            assert (await device.until("tts", "sentence_start", timeout_s=3))["text"] == "Hello there."
            await device.say(type="abort")
            await device.until("tts", "stop", timeout_s=2)


async def test_the_key_comes_from_the_environment(tmp_path: Path, port: int) -> None:
    """The stand-in counts requests by the key they carried."""
    key = f"sk-{uuid.uuid4().hex}"
    result = await ask(tmp_path, port, "normal", "hello", key=key)
    assert result.ok
    async with aiohttp.ClientSession() as http:
        address = f"http://127.0.0.1:{port}/v1/seen"
        assert (await (await http.get(address, params={"key": key})).json())["normal"] == 1
        assert await (await http.get(address, params={"key": "${MY_MODEL_KEY}"})).json() == {}
