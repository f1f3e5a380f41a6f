import time

import pytest

from mynah.sim import recorder
from mynah.sim.recorder import CallSeen, Recorder, describe
from mynah.sim.state import DeviceState, Direction, Observer
from mynah.wire.messages import IotCommands, Listen, Llm, Mcp, Stt, Tts

from .scripted import packets


def test_what_a_turn_leaves_behind() -> None:
    taken = Recorder(Observer(), 100.0)
    for at_s, message in (
        (101.0, Stt("hello", "s")),
        (101.5, Stt("there", "s")),
        (102.0, Llm("happy", "🙂", "s")),
        (103.0, Tts("start")),
        (104.0, Tts("sentence_start", "Hi.")),
        (106.0, Tts("stop")),
    ):
        taken.on_message(Direction.DOWN, message, at_s)
    taken.on_message(Direction.UP, Listen("stop"), 107.0)
    taken.on_audio(Direction.UP, packets(1)[0], 107.0)
    taken.on_audio(Direction.DOWN, packets(1)[0], 105.0)
    marks = taken.marks
    assert (marks.stt_at, marks.start_at, marks.audio_at, marks.stop_at) == (101.0, 103.0, 105.0, 106.0)
    assert (marks.stt, marks.sentences, marks.emotion) == (["hello", "there"], ["Hi."], "happy")
    assert round(marks.audio_s, 3) == 0.06
    assert [message.at_ms for message in taken.messages][:2] == [1000.0, 1500.0]


def test_a_stop_before_any_start_ends_nothing() -> None:
    taken = Recorder(Observer(), 0.0)
    taken.on_message(Direction.DOWN, Tts("stop"), 1.0)
    assert taken.marks.stop_at is None


def test_everything_is_passed_on() -> None:
    class Watch(Observer):
        def __init__(self) -> None:
            self.seen: list[object] = []

        def on_message(self, direction: Direction, message: object, at_s: float) -> None:
            self.seen.append(message)

        def on_audio(self, direction: Direction, packet: bytes, at_s: float) -> None:
            self.seen.append(packet)

        def on_state(self, state: DeviceState, at_s: float) -> None:
            self.seen.append(state)

        def on_code(self, code: str, message: str) -> None:
            self.seen.append(code)

    watch = Watch()
    taken = Recorder(watch, 0.0)
    packet = packets(1)[0]
    taken.on_message(Direction.UP, Listen("stop"), 1.0)
    taken.on_audio(Direction.DOWN, packet, 1.0)
    taken.on_state(DeviceState.IDLE, 1.0)
    taken.on_code("123456", "enter it")
    assert watch.seen == [Listen("stop"), packet, DeviceState.IDLE, "123456"]
    assert taken.code == "123456"


def test_no_more_messages_are_kept_than_can_be_read() -> None:
    taken = Recorder(Observer(), time.monotonic())
    taken.messages = [describe(Direction.UP, Listen("stop"), 0.0)] * recorder.MAX_MESSAGES
    taken.on_message(Direction.DOWN, Tts("start"), time.monotonic())
    assert len(taken.messages) == recorder.MAX_MESSAGES


def test_mcp_is_described_by_what_it_is() -> None:
    for payload, method in (
        ({"method": "tools/list"}, "tools/list"),
        ({"error": {}}, "error"),
        ({}, "result"),
    ):
        assert describe(Direction.DOWN, Mcp(payload), 1.234).method == method


@pytest.mark.parametrize(
    ("message", "calls"),
    [
        (
            Mcp({"method": "tools/call", "params": {"name": "self.lamp", "arguments": {"on": True}}}),
            (CallSeen("self.lamp", {"on": True}),),
        ),
        (Mcp({"method": "tools/call", "params": {"name": "self.lamp"}}), (CallSeen("self.lamp"),)),
        (Mcp({"method": "tools/call", "params": 7}), (CallSeen("None"),)),
        (Mcp({"method": "tools/list", "params": {"cursor": ""}}), ()),
        (
            IotCommands(
                [
                    {"name": "Lamp", "method": "TurnOn"},
                    {"name": "Speaker", "method": "SetVolume", "parameters": {"volume": 3}},
                ],
                "s",
            ),
            (CallSeen("Lamp.TurnOn"), CallSeen("Speaker.SetVolume", {"volume": 3})),
        ),
    ],
)
def test_calls_are_described_with_their_arguments(
    message: Mcp | IotCommands, calls: tuple[CallSeen, ...]
) -> None:
    assert describe(Direction.DOWN, message, 0.0).calls == calls
