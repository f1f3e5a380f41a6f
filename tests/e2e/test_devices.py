"""Every kind of device that there is, against the real server with real speech; none may have a complaint."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from mynah.sim.conversation import Conversation, Dialect, Said, Target, converse
from mynah.sim.counters import Counters
from mynah.sim.device import AudioFormat, DeviceState, SimulatedDevice
from mynah.sim.microphone import Microphone, burst
from mynah.sim.recorder import Recorder
from mynah.sim.state import Observer
from mynah.sim.user import User
from mynah.sim.voice import speak
from mynah.wire.messages import ListenMode
from tests.servers import Process, serve

pytestmark = [pytest.mark.e2e, pytest.mark.speech]

ANSWER_S = 20.0
"""Time for one answer, on a machine that does other things too."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    with serve(tmp_path_factory.mktemp("server")) as process:
        yield process


def spoken(*texts: str) -> list[Said]:
    return [Said(text, speak(text)) for text in texts]


def sound(conversation: Conversation) -> Conversation:
    assert conversation.ok, conversation.turns
    assert conversation.counters == Counters()
    return conversation


@asynccontextmanager
async def in_hand(
    server: Process, **options: bool
) -> AsyncIterator[tuple[SimulatedDevice, User, Microphone]]:
    """Give a device with a running microphone, not connected yet."""
    device = SimulatedDevice(**options)
    user = User(device, lambda: device.open(server.ready["ws"]))
    microphone = Microphone(device)
    running = asyncio.create_task(microphone.run())
    try:
        yield device, user, microphone
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await device.close()
    assert device.counters == Counters()


async def until(device: SimulatedDevice, state: DeviceState) -> None:
    async with asyncio.timeout(ANSWER_S):
        while device.state is not state:
            await device.changed()


async def hold_and_say(user: User, microphone: Microphone, text: str) -> None:
    speech = microphone.say(speak(text))
    await user.press()
    await speech.finished.wait()
    user.release()


@pytest.mark.parametrize("options", [{}, {"full_tools": True}, {"iot": True}], ids=["mcp", "full", "iot"])
async def test_the_volume_is_really_set(server: Process, options: dict[str, bool]) -> None:
    async with in_hand(server, **options) as (device, user, microphone):
        await hold_and_say(user, microphone, "turn the volume to thirty")
        await until(device, DeviceState.SPEAKING)
        await until(device, DeviceState.IDLE)
        things = device.peripherals.things
        assert (things.settings if things is not None else device.mcp.settings).volume == 30
        assert things is None or (things.calls, things.faults) == (["Speaker.SetVolume"], [])


@pytest.mark.parametrize("mode", [ListenMode.AUTO, ListenMode.REALTIME])
async def test_wake_word_greeting_and_a_question(server: Process, mode: ListenMode) -> None:
    target = Target(ota_url=server.ready["ota"], mode=mode)
    result = sound(await converse(target, spoken("what is twelve times seven"), wake=spoken("hey mynah")[0]))
    greeting, answer = result.turns
    assert greeting.answer
    assert greeting.audio_seconds > 0.3
    assert (answer.stt, "84" in answer.answer) == ("what is twelve times seven", True)


async def test_push_to_talk_and_pressing_while_it_speaks(server: Process) -> None:
    recorder = Recorder(Observer(), 0.0)
    async with in_hand(server) as (device, user, microphone):
        device._observer = recorder
        await hold_and_say(user, microphone, "tell me a joke")
        await until(device, DeviceState.SPEAKING)
        while not device.speaker.played:
            await device.changed()
        await hold_and_say(user, microphone, "what is twelve times seven")
        assert not device.mic_open
        await until(device, DeviceState.SPEAKING)
        await until(device, DeviceState.IDLE)
    assert recorder.marks.stt == ["tell me a joke", "what is twelve times seven"]
    assert "84" in recorder.marks.sentences[-1]


async def test_interrupting_with_the_wake_word(server: Process) -> None:
    async with in_hand(server) as (device, user, microphone):
        wake = burst(speak("hey mynah"))
        await user.call("hey mynah", wake)
        await until(device, DeviceState.SPEAKING)
        while not device.speaker.played:
            await device.changed()
        await user.call("hey mynah", wake)
        assert device.state is DeviceState.LISTENING
        microphone.say(speak("what time is it"))
        await until(device, DeviceState.SPEAKING)
        await until(device, DeviceState.LISTENING)


async def test_realtime_without_a_new_start_between_turns(server: Process) -> None:
    target = Target(ota_url=server.ready["ota"], mode=ListenMode.REALTIME)
    result = sound(await converse(target, spoken("what is twelve times seven", "what time is it")))
    assert "84" in result.turns[0].answer
    assert "It is" in result.turns[1].answer
    assert [message.state for message in result.messages if message.type == "listen"] == ["start"]


async def test_stamps_for_echo_cancelling(server: Process) -> None:
    target = Target(ota_url=server.ready["ota"], mode=ListenMode.REALTIME, protocol=2, aec=True)
    sound(await converse(target, spoken("what time is it")))


@pytest.mark.parametrize("audio_format", ["opus", "pcm"])
@pytest.mark.parametrize("mode", [ListenMode.AUTO, ListenMode.MANUAL])
async def test_json_dialect(server: Process, mode: ListenMode, audio_format: AudioFormat) -> None:
    target = Target(ota_url=server.ready["ota"], mode=mode, dialect=Dialect.JSON, audio_format=audio_format)
    result = sound(await converse(target, spoken("what is twelve times seven", "what time is it")))
    first, second = result.turns
    assert (first.stt, "84" in first.answer) == ("what is twelve times seven", True)
    assert "It is" in second.answer
    assert first.audio_seconds > 0.5
    kinds = {message.type for message in result.messages}
    assert {"device_info", "session_ready", "heartbeat_ack"} <= kinds
    assert not kinds & {"hello", "listen"}
