"""Points 92 and 93 of the device contract: time stamps for echo cancellation on the server, and their use."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from mynah.app import App
from mynah.audio.opus import OpusDecoder
from mynah.bench.echo_room import Floats, at_level, floats, pcm
from mynah.sim.device import SimulatedDevice
from mynah.sim.discovery import DeviceIdentity
from mynah.sim.microphone import FRAME_BYTES, FRAME_MS, SAMPLE_RATE, Microphone
from mynah.sim.speaker import Speaker
from mynah.sim.state import Direction, Observer
from mynah.wire.frames import decode_audio, encode_audio
from mynah.wire.messages import DeviceMessage, ListenMode, ReceivedMessage, Stt, Tts
from tests.conformance.device import device, speech
from tests.e2e.microphone import spoken
from tests.servers import app

SHORT = "TTS.FakeTTS.seconds=0.3"


async def test_point_92_stamps_grow_through_the_whole_session(tmp_path: Path) -> None:
    async with app(tmp_path, SHORT) as (_, at), device(at.ws, headers={"Protocol-Version": "2"}) as one:
        await one.hello({"aec": True})
        for turn in range(3):
            await one.listen("detect", text="tell me something")
            if turn == 1:  # an interrupted reply must not give its stamps away a second time
                await one.until("tts", "sentence_start", count=4)
                await one.say(type="abort")
            await one.until("tts", "stop", count=turn + 1)
        stamps = [decode_audio(2, frame).timestamp for _, frame in one.frames()]
        assert len(stamps) > 20
        assert stamps[0] > 0
        assert stamps == sorted(set(stamps))


async def test_point_93_a_stamp_of_zero_means_no_reference(tmp_path: Path) -> None:
    async with app(tmp_path, SHORT) as (_, at), device(at.ws, headers={"Protocol-Version": "2"}) as one:
        await one.hello({"aec": True})
        for turn, stamp in enumerate((0, 60, 4_000_000_000)):  # none, a possible one, one that was never sent
            await one.listen(mode="manual")
            await one.audio((encode_audio(2, packet, stamp) for packet in speech()), pace=0.01)
            await one.listen("stop")
            await one.until("tts", "stop", count=turn + 1)
        assert len(one.messages("stt")) == 3


# ---------------------------------------------------------------- a device that hears itself

ECHO = 0.3
"""Share of the loudspeaker's amplitude that comes back: about -30 dBFS."""
ECHO_DELAY_S = 0.08
"""From the moment a packet begins to play to its sound in the recording: the sound chip's buffers, and air."""
USER_DBFS = -16.0
FRAME_S = FRAME_MS / 1000
LONGEST = SAMPLE_RATE * 60
"""Samples of the longest recording: a minute."""
REPLY = (
    "The river begins in the mountains of the north. It runs through seven valleys and past four large towns."
)
SPEECH = (
    f"LLM.FakeLLM.text={REPLY}",
    "selected_module.ASR=PocketSphinx",
    "selected_module.TTS=EspeakTTS",
    "conversation.speculation=false",
)


class Loudspeaker(Speaker):
    """One that knows when each packet began to play."""

    def __init__(self, speaker: Speaker) -> None:
        super().__init__(record=True, stamps=speaker._stamps)
        self.begun: list[float] = []

    def advance(self, now: float) -> None:
        known = len(self.played)
        super().advance(now)
        new = len(self.played) - known
        # What begins in one call follows one upon the other, and the last one ends when the speaker is free.
        self.begun += [self._busy_until - FRAME_S * (new - index) for index in range(new)]


class Room:
    """What the microphone of a device hears: its own loudspeaker, softer and later, and its user."""

    def __init__(self, loudspeaker: Loudspeaker) -> None:
        self._loudspeaker = loudspeaker
        self._decoder = OpusDecoder(SAMPLE_RATE)
        self._heard = np.random.default_rng(3).standard_normal(LONGEST).astype(np.float32) * np.float32(1e-4)
        self._began = time.monotonic()
        self._taken = self._mixed = 0

    def say(self, sound: Floats) -> float:
        """Speak, from now on; return when that will be over."""
        at = round((time.monotonic() - self._began) * SAMPLE_RATE)
        self._heard[at : at + len(sound)] += sound
        return self._began + (at + len(sound)) / SAMPLE_RATE

    def frame(self) -> bytes | None:
        """Return the next 60 ms, or None when they are not over. Implements `mynah.sim.microphone.PcmSource`."""
        end = self._taken + FRAME_BYTES // 2
        if time.monotonic() < self._began + end / SAMPLE_RATE:
            return None
        self._loudspeaker.advance(time.monotonic())
        while self._mixed < len(self._loudspeaker.played):
            sound = floats(self._decoder.decode(self._loudspeaker.played[self._mixed]))
            begun = self._loudspeaker.begun[self._mixed] - self._began
            self._mixed += 1
            for delay_s, share in (
                (ECHO_DELAY_S, 1.0),
                (ECHO_DELAY_S + 0.013, 0.4),
                (ECHO_DELAY_S + 0.037, 0.2),
            ):
                at = round((begun + delay_s) * SAMPLE_RATE)
                self._heard[at : at + len(sound)] += np.float32(ECHO * share) * sound
        piece = self._heard[self._taken : end]
        self._taken = end
        return pcm(piece)


class Story(Observer):
    """What the device was told."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.states: list[str] = []

    def on_message(self, direction: Direction, message: DeviceMessage | ReceivedMessage, at_s: float) -> None:
        match message:
            case Stt():
                self.heard.append(message.text)
            case Tts(state="start" | "stop"):
                self.states.append(message.state)


@contextlib.asynccontextmanager
async def talkative(url: str) -> AsyncIterator[tuple[SimulatedDevice, Room, Story]]:
    """Connect a device that leaves echo cancelling to the server, and open its microphone."""
    told = Story()
    identity = DeviceIdentity("02:00:00:00:0a:01")
    one = SimulatedDevice(identity, protocol=2, aec=True, observer=told)
    loudspeaker = one.speaker = Loudspeaker(one.speaker)
    room = Room(loudspeaker)
    await one.open(url)
    streaming = asyncio.create_task(Microphone(one, source=room.frame).run())
    one.listen(ListenMode.REALTIME)
    try:
        yield one, room, told
    finally:
        streaming.cancel()
        await asyncio.gather(streaming, return_exceptions=True)
        await one.close()


async def until_told(one: SimulatedDevice, told: Story, states: list[str], timeout_s: float = 20.0) -> None:
    """Wait until as many replies have begun and ended."""
    async with asyncio.timeout(timeout_s):
        while len(told.states) < len(states):
            await one.changed()
    assert told.states == states


def disturbed(server: App) -> bool:
    """Say whether any reply was held or ended for a voice."""
    told = server.summary()
    return " 0 interrupted" not in told or " 0 false alarms" not in told


@pytest.mark.speech
@pytest.mark.parametrize("setting", ["auto", "gate"])
async def test_a_device_that_hears_itself_is_not_interrupted_by_its_own_voice(
    tmp_path: Path, setting: str
) -> None:
    """But by a user who is louder than its echo."""
    async with (
        app(tmp_path, f"conversation.echo_cancellation={setting}", *SPEECH) as (server, at),
        talkative(at.ws) as (one, room, told),
    ):
        one.detect("tell me about the river")
        await until_told(one, told, ["start", "stop"])
        assert told.heard == ["tell me about the river"]
        assert not disturbed(server), server.summary()
        one.detect("and again")
        await until_told(one, told, ["start", "stop", "start"])
        await asyncio.sleep(1.2)
        began = time.monotonic()
        room.say(at_level(floats(spoken("what time is it", "rms")), USER_DBFS))
        await until_told(one, told, ["start", "stop", "start", "stop"])
        assert time.monotonic() - began < 2.5, "it was not the end of the reply"
        await until_told(one, told, ["start", "stop"] * 2 + ["start"])
        assert told.heard[1] == "and again"
        # Said over the device's own voice: that it was heard counts, not that each word was.
        assert told.heard[2]


@pytest.mark.speech
async def test_without_echo_cancelling_the_device_does_hear_itself(tmp_path: Path) -> None:
    """What the test above would see."""
    async with (
        app(tmp_path, "conversation.echo_cancellation='off'", *SPEECH) as (server, at),
        talkative(at.ws) as (one, _, told),
    ):
        one.detect("tell me about the river")
        await until_told(one, told, ["start", "stop"])
        assert disturbed(server), server.summary()
