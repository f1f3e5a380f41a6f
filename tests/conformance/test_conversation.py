"""Points 43 to 61 of the device contract: listening, replies, interruption."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from loguru import logger

from mynah.sim.voice import speak
from mynah.wire.messages import EMOTIONS
from tests.conformance.device import Device, device, packets, silence, speech
from tests.servers import app

SHORT = "TTS.FakeTTS.seconds=0.3"
WAKE = "wakeup_words=[mynah]"
HEARD = "What time is it?"


def brackets(one: Device) -> list[str]:
    """Return starts and stops of replies, and where audio came between them."""
    story: list[str] = []
    for _, what in one.seen:
        word = "audio" if isinstance(what, bytes) else what["state"] if what["type"] == "tts" else ""
        if word in {"start", "audio", "stop"} and (word != "audio" or story[-1:] != ["audio"]):
            story.append(word)
    return story


async def ask(one: Device, words: str = "tell me something") -> None:
    """Type something and hear the answer out."""
    stops = len(one.messages("tts", "stop"))
    await one.listen("detect", text=words)
    await one.until("tts", "stop", count=stops + 1)


async def test_point_43_a_reply_is_one_start_and_one_stop(tmp_path: Path) -> None:
    async with app(tmp_path, SHORT) as (_, at), device(at.ws) as one:
        await one.hello()
        await ask(one)
        await one.listen(mode="manual")
        await one.audio(speech(), pace=0.01)
        await one.listen("stop")
        await one.until("tts", "stop", count=2)
        await one.quiet(0.3)
        assert brackets(one) == ["start", "audio", "stop"] * 2


async def test_point_44_stop_comes_when_the_last_packet_has_been_played(tmp_path: Path) -> None:
    async with app(tmp_path, SHORT) as (_, at), device(at.ws) as one:
        await one.hello()
        await ask(one)
        # What a device would do: play each packet when it is there and the one before has ended.
        free_at = 0.0
        for at_s, _frame in one.frames():
            free_at = max(free_at, at_s) + 0.06
        stopped_at = one.timed("tts", "stop")[0][0]
        assert stopped_at >= free_at - 0.005


async def test_point_45_no_stale_stop_after_a_new_start(tmp_path: Path) -> None:
    async with app(tmp_path, "TTS.FakeTTS.seconds=1.0") as (_, at), device(at.ws) as one:
        await one.hello()
        for turn in range(5):
            await one.listen("detect", text=f"question {turn}")
            await one.until("tts", "start", count=turn + 1)
            await one.quiet(0.03 * turn)
            await one.say(type="abort")
        await one.listen("detect", text="the last one")
        await one.until("tts", "stop", count=6)
        story = [word for word in brackets(one) if word != "audio"]
        assert story == ["start", "stop"] * 6


async def test_point_46_an_abort_is_always_answered_by_a_stop(tmp_path: Path) -> None:
    async with app(tmp_path, "TTS.FakeTTS.seconds=1.0") as (_, at), device(at.ws) as one:
        await one.hello()
        await one.say(type="abort")
        await one.until("tts", "stop")
        await one.listen("detect", text="tell me something")
        await one.wait(lambda: len(one.frames()) > 3)
        await one.say(type="abort")
        await one.until("tts", "stop", count=2, timeout_s=1)


async def test_point_47_nothing_of_an_aborted_reply_comes_afterwards(tmp_path: Path) -> None:
    async with app(tmp_path, "TTS.FakeTTS.seconds=1.0") as (_, at), device(at.ws) as one:
        await one.hello()
        await one.listen("detect", text="tell me something")
        await one.wait(lambda: len(one.frames()) > 3)
        await one.say(type="abort")
        await one.until("tts", "stop")
        later = await one.quiet(1.0)
        assert later == []
        assert one.seen[-1][1]["state"] == "stop"


@pytest.mark.parametrize("extra", [{}, {"reason": ""}, {"reason": None}, {"reason": "sneezed"}])
async def test_point_48_any_reason_will_do(tmp_path: Path, extra: dict[str, Any]) -> None:
    async with app(tmp_path) as (_, at), device(at.ws) as one:
        await one.hello()
        await one.listen("detect", text="tell me something")
        await one.until("tts", "sentence_start")
        await one.say(type="abort", **extra)
        await one.until("tts", "stop", timeout_s=2)


async def test_point_49_listen_start_may_be_repeated(tmp_path: Path) -> None:
    async with app(tmp_path, SHORT) as (_, at), device(at.ws) as one:
        await one.hello()
        for _ in range(3):
            await one.listen(mode="auto")
        await one.listen("detect", text="tell me something")
        await one.until("tts", "sentence_start")
        for _ in range(3):
            await one.listen(mode="auto")
        await one.until("tts", "stop")
        said = " ".join(m["text"] for m in one.messages("tts", "sentence_start"))
        assert said.endswith("everything for now.")
        assert brackets(one) == ["start", "audio", "stop"]


async def test_point_50_listen_start_after_detect_leaves_the_greeting_alone(tmp_path: Path) -> None:
    async with app(tmp_path, WAKE, SHORT) as (_, at), device(at.ws) as one:
        await one.hello()
        await one.listen("detect", text="mynah")
        await one.listen(mode="auto")
        await one.until("tts", "stop")
        assert brackets(one) == ["start", "audio", "stop"]
        # And the microphone that was opened meanwhile is heard.
        await one.audio((*speech(), *silence()))
        assert (await one.until("stt", count=2))["text"] == HEARD


@pytest.mark.parametrize("mode", ["auto", "realtime"])
async def test_point_51_the_server_finds_the_end_of_speech(tmp_path: Path, mode: str) -> None:
    async with app(tmp_path, SHORT) as (_, at), device(at.ws) as one:
        await one.hello()
        await one.listen(mode=mode)
        await one.audio((*speech(), *silence()))
        assert (await one.until("stt"))["text"] == HEARD
        await one.until("tts", "stop")


async def test_point_52_in_manual_mode_the_button_ends_the_utterance(tmp_path: Path) -> None:
    async with app(tmp_path, SHORT) as (_, at), device(at.ws) as one:
        await one.hello()
        await one.listen(mode="manual")
        await one.audio((*speech(), *silence(), *speech()), pace=0.02)
        assert await one.quiet(0.8) == []
        await one.listen("stop")
        assert (await one.until("stt"))["text"] == HEARD
        await one.until("tts", "stop")
        assert len(one.messages("stt")) == 1


async def test_point_53_a_recording_without_audio_is_no_error(tmp_path: Path) -> None:
    async with app(tmp_path, SHORT) as (_, at), device(at.ws) as one:
        await one.hello()
        for mode in ("manual", "auto", "realtime"):
            await one.listen(mode=mode)
            await one.listen("stop")
        await one.quiet(0.3)
        assert one.messages("stt") == []
        await one.alive()
        await ask(one)


async def test_point_54_the_wake_word_recording_belongs_to_the_detect_that_follows(tmp_path: Path) -> None:
    lines: list[str] = []
    sink = logger.add(lambda line: lines.append(str(line)), format="{message}")
    try:
        async with app(tmp_path, WAKE, SHORT) as (_, at), device(at.ws) as one:
            await one.hello()
            burst = packets(speak("hey mynah"))[:33]
            await one.audio(burst, pace=0)
            await one.listen("detect", text="mynah")
            await one.listen(mode="auto")
            await one.until("tts", "stop")
            await one.quiet(0.5)
            assert [m["text"] for m in one.messages("stt")] == ["mynah"]
    finally:
        logger.remove(sink)
    assert any(f"{60 * len(burst)} ms of wake word" in line for line in lines)


async def test_point_55_detect_with_any_text_is_a_question(tmp_path: Path) -> None:
    async with app(tmp_path, WAKE, SHORT) as (_, at), device(at.ws) as one:
        await one.hello()
        await one.listen(mode="manual")  # as py-xiaozhi does before it sends typed text
        await ask(one, "今天天气怎么样？ 😀")
        assert one.messages("stt")[0]["text"] == "今天天气怎么样？ 😀"
        assert one.messages("tts", "sentence_start")


@pytest.mark.parametrize("told", [{}, {"session_id": ""}, {"session_id": "foreign"}, {"session_id": None}])
async def test_point_56_the_session_id_does_not_matter(tmp_path: Path, told: dict[str, Any]) -> None:
    async with app(tmp_path, SHORT) as (_, at), device(at.ws) as one:
        await one.hello()
        await one.listen(mode="manual", **told)
        await one.audio(speech(), pace=0.01)
        await one.listen("stop", **told)
        await one.until("stt")
        await one.say(type="abort", **told)
        await one.until("tts", "stop")


async def test_point_57_what_is_unknown_or_broken_is_ignored(tmp_path: Path) -> None:
    broken = (
        "",
        "hello",
        "{",
        "[]",
        "null",
        '{"type":"telepathy"}',
        '{"no":"type"}',
        '{"type":7}',
        '{"type":"listen","state":"fly"}',
        '{"type":"listen"}',
        '{"type":"listen","state":"start","mode":"shout"}',
        '{"type":"listen","state":"detect","text":"hey "mynah""}',
        '{"type":"mcp","payload":"text"}',
        '{"type":"abort","reason":[]}',
        "[" * 5000,
        '{"type":"hello","audio_params":7}',
    )
    async with app(tmp_path, SHORT) as (_, at), device(at.ws) as one:
        await one.hello()
        for text in broken:
            await one.raw(text)
        await one.alive()
        await ask(one)


async def test_point_58_texts_are_texts_and_faces_are_known(tmp_path: Path) -> None:
    async with (
        app(tmp_path, SHORT, "LLM.FakeLLM.text=😀 Great to hear. 🤖 Yes.") as (_, at),
        device(at.ws) as one,
    ):
        await one.hello()
        await ask(one)
        sentences = one.messages("tts", "sentence_start")
        assert sentences
        for message in (*one.messages("stt"), *sentences):
            assert isinstance(message["text"], str)
        assert [message["emotion"] for message in one.messages("llm")] == ["happy"]
        assert "happy" in EMOTIONS


async def test_point_59_alerts_are_complete_and_never_within_a_reply(tmp_path: Path) -> None:
    async with app(tmp_path, SHORT) as (server, at), device(at.ws) as one:
        assert server.devices is not None
        await one.hello()
        assert server.devices.alert("02:00:00:00:00:01", "The washing machine is done.")
        first = await one.until("alert")
        assert all(isinstance(first[key], str) and first[key] for key in ("status", "message", "emotion"))
        await one.listen("detect", text="tell me something")
        await one.until("tts", "sentence_start")
        assert server.devices.alert("02:00:00:00:00:01", "And so is the dryer.")
        await one.until("alert", count=2)
        kinds = [m.get("state") or m["type"] for m in one.messages() if m["type"] in {"tts", "alert"}]
        assert kinds[0] == "alert" and kinds[-2:] == ["stop", "alert"]


async def test_point_60_in_realtime_the_microphone_stays_open(tmp_path: Path) -> None:
    async with app(tmp_path, SHORT) as (_, at), device(at.ws) as one:
        await one.hello()
        await one.listen(mode="realtime")
        streaming = True

        async def microphone() -> None:
            said = 0
            while streaming:
                replies = len(one.messages("tts", "stop"))
                if said == replies < 2:  # the next question once the last was answered
                    said += 1
                    await one.audio(speech())
                await one.audio(silence(2))

        task = asyncio.create_task(microphone())
        try:
            await one.until("tts", "stop", count=2, timeout_s=20)
        finally:
            streaming = False
            await task
        assert [m["text"] for m in one.messages("stt")] == [HEARD, HEARD]
        assert [word for word in brackets(one) if word != "audio"] == ["start", "stop"] * 2


async def test_point_61_an_idle_device_can_be_spoken_to(tmp_path: Path) -> None:
    async with app(tmp_path, SHORT) as (server, at), device(at.ws) as one:
        assert server.devices is not None
        await one.hello()
        assert server.devices.say("02:00:00:00:00:01", "Tea is ready.")
        await one.until("tts", "stop")
        assert brackets(one) == ["start", "audio", "stop"]
        await one.listen(mode="auto")  # what a device in auto mode does next
        await one.audio((*speech(), *silence()))
        assert (await one.until("stt"))["text"] == HEARD


# ---------------------------------------------------------------- between the points


async def test_the_device_is_told_to_speak_only_when_there_is_something_to_say(tmp_path: Path) -> None:
    """Until then its microphone is open, so that whoever goes on is heard; told to speak, firmware closes it."""
    async with app(tmp_path, SHORT, "LLM.FakeLLM.delay_ms=600") as (_, at), device(at.ws) as one:
        await one.hello()
        await one.listen(mode="auto")
        await one.audio((*speech(), *silence()))
        await one.until("tts", "stop")
        heard, started = one.timed("stt")[0][0], one.timed("tts", "start")[0][0]
        assert started - heard > 0.3
        assert one.frames()[0][0] - started < 0.4


async def test_sound_that_was_on_its_way_when_the_reply_began_belongs_to_no_turn(tmp_path: Path) -> None:
    async with app(tmp_path, SHORT) as (_, at), device(at.ws) as one:
        await one.hello()
        await one.listen(mode="auto")
        await one.audio((*speech(), *silence(10)))
        await one.until("tts", "start")
        await one.audio((*speech(), *silence(10)), pace=0.01)
        await one.until("tts", "stop")
        assert await one.quiet(0.5) == []
        assert len(one.messages("stt")) == 1
        await one.listen(mode="auto")
        await one.audio((*speech(), *silence()))
        await one.until("tts", "stop", count=2)
        assert brackets(one) == ["start", "audio", "stop"] * 2


async def test_an_abort_before_the_answer_is_one_stop_and_no_answer(tmp_path: Path) -> None:
    async with app(tmp_path, SHORT, "LLM.FakeLLM.delay_ms=1500") as (_, at), device(at.ws) as one:
        await one.hello()
        await one.listen(mode="auto")
        await one.audio((*speech(), *silence(10)))
        await one.until("stt")
        await one.say(type="abort")
        await one.until("tts", "stop", timeout_s=1)
        assert await one.quiet(2) == []
        assert brackets(one) == ["stop"]
        await ask(one)
        assert brackets(one) == ["stop", "start", "audio", "stop"]
