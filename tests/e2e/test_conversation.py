"""From a real socket to a real reply: the default server, real speech, a simulated device."""

from __future__ import annotations

import json
import subprocess
import sys
import wave
from collections.abc import Iterator
from pathlib import Path

import pytest

from mynah.sim.conversation import Said, Target, converse
from mynah.sim.voice import speak
from mynah.wire.messages import ListenMode
from tests.servers import Process, connect, serve

pytestmark = [pytest.mark.e2e, pytest.mark.speech]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    with serve(tmp_path_factory.mktemp("server")) as process:
        yield process


@pytest.mark.parametrize(
    ("mode", "protocol"), [(ListenMode.AUTO, 1), (ListenMode.MANUAL, 2), (ListenMode.REALTIME, 3)]
)
async def test_discovery_to_spoken_answer(server: Process, mode: ListenMode, protocol: int) -> None:
    target = Target(ota_url=server.ready["ota"], mode=mode, protocol=protocol)
    said = [Said(text, speak(text)) for text in ("what is twelve times seven", "what time is it")]
    result = await converse(target, said)
    assert result.ok, result
    first, second = result.turns
    assert first.stt == "what is twelve times seven"
    assert "84" in first.answer
    assert "It is" in second.answer
    assert first.emotion
    assert first.audio_seconds > 0.5
    broken = {name: count for name, count in vars_of(result.counters).items() if count}
    assert not broken
    states = [message.state for message in result.messages if message.type == "tts"]
    assert states.count("start") == states.count("stop") == 2


def vars_of(counters: object) -> dict[str, int]:
    return {name: getattr(counters, name) for name in counters.__struct_fields__}  # type: ignore[attr-defined]


async def test_volume_of_the_device(server: Process) -> None:
    """The built-in responder uses the device's own tools."""
    target = Target(ota_url=server.ready["ota"], mode=ListenMode.MANUAL)
    text = "set the volume to thirty"
    result = await converse(target, [Said(text, speak(text))])
    assert result.ok, result
    calls = [message for message in result.messages if message.method == "tools/call"]
    assert calls
    assert "30" in result.turns[0].answer


async def test_brightness_up_and_down_is_relative_to_what_the_device_says(server: Process) -> None:
    result = await converse(Target(ota_url=server.ready["ota"]), [Said("make the screen brighter")])
    assert result.ok, result
    methods = [message.method for message in result.messages]
    assert methods.count("tools/call") == 2  # status first, then the new value


async def test_a_timer_speaks_when_it_is_due(server: Process) -> None:
    async with connect(server.ready["ws"], "02:00:00:00:00:42") as device:
        await device.hello()
        await device.say(type="listen", state="detect", text="set a timer for two seconds")
        await device.until("tts", "stop")
        await device.until("tts", "start", timeout_s=5)  # nobody asked for this one
        assert await device.until("tts", "sentence_start")
        await device.until("tts", "stop")


async def test_chinese_by_text(server: Process) -> None:
    result = await converse(Target(ota_url=server.ready["ota"]), [Said("现在几点"), Said("三加五等于几")])
    assert result.ok
    assert "点" in result.turns[0].answer
    assert "8" in result.turns[1].answer or "八" in result.turns[1].answer


async def test_what_it_cannot_answer_is_said_plainly(server: Process) -> None:
    result = await converse(Target(ota_url=server.ready["ota"]), [Said("who was the first king of France")])
    assert result.ok
    assert "language model" in result.turns[0].answer


def test_talk_command(server: Process, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mynah.cli", "talk", "--url", server.ready["ws"], "--text", "what time is it",
         "--json", "--save", str(tmp_path / "reply.wav"), "--mode", "manual"],
        check=False, capture_output=True, text=True, timeout=60, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert {"stt", "answer", "first_audio_ms", "audio_seconds", "messages"} <= set(result)
    assert result["stt"] == "what time is it"
    with wave.open(str(tmp_path / "reply.wav")) as wav:
        assert wav.getnchannels() == 1
        assert wav.getnframes() / wav.getframerate() > 0.5


def test_demo_command(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mynah.cli", "demo"],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    assert (tmp_path / "reply.wav").stat().st_size > 20_000
