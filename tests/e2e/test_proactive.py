"""What a server says of its own accord, and how a conversation ends: over real sockets, in real time."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import aiohttp
import pytest

from mynah.app import Addresses
from mynah.net import devices
from mynah.texts import variants
from tests.conformance.device import Device, device
from tests.e2e.model import Answer, Model, config, running
from tests.servers import app, serve

pytestmark = pytest.mark.e2e

TOKEN = "0123456789abcdef"
HOME = "02:00:00:00:0f:01"
VOICE = """
  TTS: Quick
TTS:
  Quick: {type: fake, seconds: 0.4, delay_ms: 5}
"""
"""Nobody listens to what it says here, only that it says it and when."""


@pytest.fixture(scope="module")
def shared_model() -> Iterator[Model]:
    with running() as served:
        yield served


@pytest.fixture
def model(shared_model: Model) -> Model:
    shared_model.forget()
    return shared_model


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look for silent conversations more often than every five seconds."""
    monkeypatch.setattr(devices, "SWEEP_S", 0.3)
    monkeypatch.setattr(devices, "QUIET_S", 1.0)


@asynccontextmanager
async def served(folder: Path, model: Model | None, *overrides: str) -> AsyncIterator[Addresses]:
    """Run a server, with a language model or with the built-in responder."""
    file = folder / "config.yaml"
    file.write_text("selected_module:" + VOICE if model is None else config(model, modules=VOICE))
    async with app(folder, *overrides, config=file) as (_, addresses):
        yield addresses


@asynccontextmanager
async def connected(url: str, device_id: str = HOME) -> AsyncIterator[Device]:
    async with device(url, device_id) as one:
        await one.hello()
        yield one


def spoken(one: Device) -> list[str]:
    """Return the sentences that were spoken."""
    return [message["text"] for message in one.messages("tts", "sentence_start")]


def is_one_of(key: str, sentences: list[str]) -> bool:
    """Say whether the sentences together are one of the built-in texts."""
    return " ".join(sentences) in variants(key, "en")


async def until_said(one: Device, count: int = 1, timeout_s: float = 15.0) -> None:
    await one.until("tts", "stop", count=count, timeout_s=timeout_s)


async def until_closed(one: Device, timeout_s: float = 10.0) -> None:
    await one.wait(lambda: one.closed, timeout_s)


# ---------------------------------------------------------------- how a conversation ends


async def test_who_was_told_enough_for_today_hears_so_and_the_model_is_not_asked(
    tmp_path: Path, model: Model
) -> None:
    async with served(tmp_path, model, "device_max_output_size=10") as at:
        async with connected(at.ws) as one:
            await one.listen("detect", text="tell me something")
            await until_said(one)
            assert len(model.requests) == 1
            await one.listen("detect", text="and more")
            await until_said(one, 2)
            assert is_one_of("allowance_used_up", spoken(one)[1:])
            await until_closed(one)
        async with connected(at.ws) as one:
            await one.listen("detect", text="and now")
            await until_said(one)
            assert is_one_of("allowance_used_up", spoken(one)), "to come back does not help"
        assert len(model.requests) == 1
        async with connected(at.ws, "02:00:00:00:0f:02") as other:
            await other.listen("detect", text="tell me something")
            await until_said(other)
            assert len(model.requests) == 2, "everybody has an allowance of his own"


async def test_an_exit_command_is_answered_by_a_farewell_and_a_close(tmp_path: Path, model: Model) -> None:
    async with served(tmp_path, model, "exit_commands=[see you]") as at, connected(at.ws) as one:
        await one.listen("detect", text="See you!")
        await until_said(one)
        await until_closed(one)
        assert is_one_of("farewell", spoken(one))
        assert one.frames()
        assert [what["state"] for what in one.messages("tts")][-1] == "stop"
        assert model.requests == []


async def test_after_a_long_silence_a_device_that_listens_hears_a_farewell(tmp_path: Path) -> None:
    async with served(tmp_path, None, "close_connection_no_voice_time=1") as at, connected(at.ws) as one:
        await one.listen(mode="auto")
        await until_closed(one, 15)
        assert is_one_of("farewell_idle", spoken(one))
        assert one.frames()
        assert len(one.messages("tts", "start")) == len(one.messages("tts", "stop")) == 1
        assert one.seen[-1][1].get("state") == "stop"


async def test_a_device_that_rests_is_closed_without_a_word(tmp_path: Path) -> None:
    async with served(tmp_path, None, "close_connection_no_voice_time=1") as at, connected(at.ws) as one:
        await until_closed(one, 15)
        assert one.messages("tts") == []


async def test_no_farewell_where_none_is_wanted(tmp_path: Path) -> None:
    settings = ("close_connection_no_voice_time=1", "end_prompt.enable=false")
    async with served(tmp_path, None, *settings) as at, connected(at.ws) as one:
        await one.listen(mode="auto")
        await until_closed(one, 15)
        assert one.messages("tts") == []


async def test_the_model_finds_its_own_words_for_a_farewell(tmp_path: Path, model: Model) -> None:
    """What it is asked for them does not become part of the conversation."""
    wish = "Say goodbye in five words."
    model.answer = lambda request: Answer(
        "Sleep well, my old friend." if wish in request.question else "Yes."
    )
    settings = ("close_connection_no_voice_time=2", f"end_prompt.prompt={wish}")
    async with served(tmp_path, model, *settings) as at:
        async with connected(at.ws) as one:
            await one.listen("detect", text="good evening")
            await until_said(one)
            await one.listen(mode="auto")
            await until_closed(one, 20)
            assert " ".join(spoken(one)) == "Yes. Sleep well, my old friend."
            assert model.requests[-1].question == wish
            assert ("user", "good evening") in model.requests[-1].conversation
        async with connected(at.ws) as one:
            await one.listen("detect", text="are you there")
            await until_said(one)
        asked = model.requests[-1]
        assert ("user", "good evening") in asked.conversation
        assert wish not in str(asked.messages), asked.conversation


# ---------------------------------------------------------------- reminders


async def test_a_timer_that_ends_while_the_device_is_away_is_told_when_it_is_back(tmp_path: Path) -> None:
    async with served(tmp_path, None) as at:
        async with connected(at.ws) as one:
            await one.listen("detect", text="set a timer for one second")
            await until_said(one)
            one.drop()
        await asyncio.sleep(1.5)
        async with connected(at.ws, "02:00:00:00:0f:02") as other, connected(at.ws) as one:
            await until_said(one)
            assert spoken(one) == ["Time is up! Your timer for 1 second is done."]
            assert one.frames()
            assert await one.quiet(1.2) == [], "told once"
            assert other.messages("tts") == []
        async with connected(at.ws) as one:
            await one.quiet(1.5)
            assert one.messages("tts") == []


async def test_who_comes_back_with_a_question_is_answered_before_he_is_reminded(tmp_path: Path) -> None:
    async with served(tmp_path, None) as at:
        async with connected(at.ws) as one:
            await one.listen("detect", text="set a timer for one second")
            await until_said(one)
        await asyncio.sleep(1.5)
        async with connected(at.ws) as one:
            await one.listen("detect", text="what is two plus two")
            await until_said(one, 2)
            assert "4" in spoken(one)[0] or "four" in spoken(one)[0]
            assert spoken(one)[-1] == "Time is up! Your timer for 1 second is done."


def state_file(folder: Path) -> Path:
    (path,) = folder.rglob("device-state.json")
    return path


def age(folder: Path, seconds: float) -> None:
    """Have all reminders become due so much earlier, as if the server had been off for that time."""
    path = state_file(folder)
    state = json.loads(path.read_text())
    assert len(state["reminders"]) == 1
    for reminder in state["reminders"]:
        reminder["due_at"] -= seconds
    path.write_text(json.dumps(state))


async def start_a_timer(url: str) -> None:
    async with connected(url) as one:
        await one.listen("detect", text="set a timer for ten minutes")
        await until_said(one)


async def told_late(url: str) -> None:
    """Come back, and hear how late it is."""
    async with connected(url) as one:
        await until_said(one, timeout_s=20)
        (told,) = spoken(one)
        assert told == "This was due 3 minutes ago: Time is up! Your timer for 10 minutes is done."
        assert one.frames()


async def test_a_reminder_survives_a_restart_and_tells_how_late_it_is(tmp_path: Path) -> None:
    async with served(tmp_path, None) as at:
        await start_a_timer(at.ws)
    assert state_file(tmp_path).stat().st_mode & 0o777 == 0o600
    age(tmp_path, 13 * 60)
    async with served(tmp_path, None) as at:
        await told_late(at.ws)
    assert json.loads(state_file(tmp_path).read_text())["reminders"] == []


async def test_a_reminder_survives_a_server_that_is_killed(tmp_path: Path) -> None:
    """Nobody says goodbye to the disk: it must have been written to by then."""
    file = tmp_path / "config.yaml"
    file.write_text("selected_module:" + VOICE)
    with serve(tmp_path, config=file) as server:
        await start_a_timer(server.ready["ws"])
        until = time.monotonic() + 10
        while not list(tmp_path.rglob("device-state.json")) and time.monotonic() < until:
            await asyncio.sleep(0.1)
        server.popen.kill()
        await asyncio.to_thread(server.popen.wait)
    age(tmp_path, 13 * 60)
    async with served(tmp_path, None, f"log.data_dir={state_file(tmp_path).parent}") as at:
        await told_late(at.ws)


# ---------------------------------------------------------------- messages from the house


@asynccontextmanager
async def bell(at: Addresses) -> AsyncIterator[Any]:
    """Return what rings: a function that asks the server to say something and returns its answer."""
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {TOKEN}"}) as http:

        async def say(text: str, device_id: str = HOME, **more: Any) -> str:
            body = {"device_id": device_id, "text": text, **more}
            async with http.post(urljoin(at.ota, "/api/say"), json=body) as answer:
                assert answer.status == 200, await answer.text()
                return str((await answer.json())["status"])

        yield say


async def test_what_becomes_of_a_message(tmp_path: Path) -> None:
    async with served(tmp_path, None, f"server.announce_token={TOKEN}") as at, bell(at) as say:
        assert await say("Nobody hears this.") == "undelivered"
        assert await say("This one is too late.", wait_s=0.2) == "waiting"
        assert await say("The washing is done.", wait_s=60) == "waiting"
        await asyncio.sleep(0.4)
        async with connected(at.ws) as one:
            await until_said(one)
            assert spoken(one) == ["The washing is done."]
            began = time.monotonic()
            assert await say("Somebody is at the door.") == "spoken"
            assert time.monotonic() - began < 2
            await until_said(one, 2)
            assert spoken(one)[1:] == ["Somebody is at the door."]
            assert await say("For somebody else.", "02:00:00:00:0f:77") == "undelivered"
            assert len(one.messages("tts", "start")) == 2


async def test_a_message_waits_for_the_end_of_an_answer(tmp_path: Path, model: Model) -> None:
    model.answer = lambda _: Answer("This is a long answer to a short question, and it goes on for a while.")
    async with (
        served(tmp_path, model, f"server.announce_token={TOKEN}", "TTS.Quick.seconds=1.5") as at,
        bell(at) as say,
        connected(at.ws) as one,
    ):
        await one.listen("detect", text="tell me something")
        await one.wait(lambda: len(one.frames()) > 3)
        assert await say("Dinner is ready.") == "queued"
        await until_said(one, 2, 20)
        assert spoken(one)[-1] == "Dinner is ready."
        states = [what["state"] for what in one.messages("tts") if what["state"] in {"start", "stop"}]
        assert states == ["start", "stop"] * 2
