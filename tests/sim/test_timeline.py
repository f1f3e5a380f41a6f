import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mynah.audio.opus import OpusEncoder
from mynah.sim import timeline as timelines
from mynah.sim.speaker import Speaker
from mynah.sim.state import DeviceState, Direction, Observer
from mynah.sim.timeline import Origin, Packet, Sentence, Span, Tracer, TurnTimeline, played
from mynah.wire.messages import Abort, DeviceMessage, IotCommands, Listen, Mcp, ReceivedMessage, Stt, Tts

from .scripted import packets, tone

PACKET = packets(1)[0]


def spoken(seconds: float) -> list[bytes]:
    """Speech as frames of 60 ms."""
    encoder, pcm = OpusEncoder(16000, 60), tone(seconds)
    return [encoder.encode(pcm[i : i + 1920]) for i in range(0, len(pcm), 1920)]


def silence(count: int) -> list[bytes]:
    encoder = OpusEncoder(16000, 60)
    return [encoder.encode(bytes(1920)) for _ in range(count)]


def traced(
    messages: list[tuple[float, Direction, DeviceMessage | ReceivedMessage]],
    down: tuple[float, ...] = (),
    up: list[tuple[float, bytes]] | None = None,
    *,
    origin: Origin = Origin.SPEECH,
    pcm: bool = False,
) -> TurnTimeline:
    """A turn that is asked at 100 s."""
    tracer = Tracer(Observer(), pcm=pcm)
    tracer.begin()
    for at, direction, message in messages:
        tracer.on_message(direction, message, at)
    for at in down:
        tracer.on_audio(Direction.DOWN, PACKET, at)
    for at, packet in up or []:
        tracer.on_audio(Direction.UP, packet, at)
    tracer.end("hello", origin, 100.0, "nothing")
    (seen,) = tracer.timelines()
    return seen


def test_a_turn() -> None:
    down = Direction.DOWN
    seen = traced(
        [
            (100.2, down, Stt("hello", "s")),
            (100.21, down, Tts("start")),
            (100.3, down, Tts("sentence_start", "Hi.")),
            (100.42, down, Tts("sentence_start", "How are you?")),
            (100.5, Direction.UP, Abort(session_id="s")),
            (100.6, down, Tts("stop")),
        ],
        (100.3, 100.301, 100.42),
    )
    assert (seen.said, seen.stt, seen.error) == ("hello", "hello", "nothing")
    assert (seen.stt_ms, seen.tts_start_ms, seen.first_audio_ms, seen.tts_stop_ms) == (200, 210, 300, 600)
    assert seen.stages() == [Span("stt", 0, 200), Span("tts_start", 200, 210), Span("first_audio", 210, 300)]
    assert seen.sentences == (Sentence("Hi.", 300, 300, 420), Sentence("How are you?", 420, 420, 480))
    assert [packet.at_ms for packet in seen.packets] == [300, 301, 420]
    assert seen.aborts == (500,)
    assert [span.name for span in seen.spans()] == [
        "stt",
        "tts_start",
        "reply",
        "first_audio",
        "sentence 1",
        "packets",
        "sentence 2",
        "abort",
    ]


def test_a_turn_that_nobody_asked_for() -> None:
    down = Direction.DOWN
    messages = [(100.0, down, Tts("start")), (100.1, down, Tts("sentence_start", "Your tea is ready."))]
    seen = traced([*messages], (100.05,), origin=Origin.START)
    assert seen.stages() == [Span("first_audio", 0, 50)]
    assert seen.sentences == (Sentence("Your tea is ready.", 100),)  # its sound never came
    assert (seen.tts_stop_ms, seen.stt_ms) == (None, None)
    live = traced([(100.0, down, Stt("hi", "s")), (100.4, down, Tts("start"))], origin=Origin.STT)
    assert live.stages() == [Span("tts_start", 0, 400)]


def test_a_stop_before_the_last_start_ends_nothing() -> None:
    down = Direction.DOWN
    messages = [(100.0, down, Tts("stop")), (100.1, down, Tts("start"))]
    assert traced([*messages]).tts_stop_ms is None
    assert traced([*messages, (100.2, down, Tts("stop")), (100.3, down, Tts("start"))]).tts_stop_ms is None


def test_tools_last_until_their_results() -> None:
    def call(number: int, name: str) -> Mcp:
        return Mcp({"id": number, "method": "tools/call", "params": {"name": name}})

    seen = traced(
        [
            (100.0, Direction.DOWN, Mcp({"id": 1, "method": "tools/list"})),
            (100.1, Direction.UP, Mcp({"id": 1, "result": {}})),
            (100.2, Direction.DOWN, call(2, "lamp")),
            (100.3, Direction.DOWN, call(3, "radio")),
            (100.4, Direction.DOWN, Mcp({"id": 4, "method": "tools/call", "params": 5})),
            (100.5, Direction.UP, Mcp({"id": 3, "error": {}})),
            (100.7, Direction.UP, Mcp({"id": 2, "result": {}})),
            (100.8, Direction.DOWN, IotCommands([{"name": "Lamp", "method": "TurnOn"}], "s")),
        ]
    )
    assert seen.tools == (
        Span("lamp", 200, 700),
        Span("radio", 300, 500),
        Span("None", 400, 800),  # never answered
        Span("Lamp.TurnOn", 800, 800),
    )
    assert "tool lamp" in [span.name for span in seen.spans()]


@pytest.mark.parametrize("pcm", [False, True])
def test_speech_and_its_pauses(pcm: bool) -> None:
    said = [tone(0.06)] * 5 if pcm else spoken(0.3)
    quiet = [bytes(1920)] * 5 if pcm else silence(5)
    frames = [*said, *quiet, *said, *quiet]
    up = [(99.0 + 0.06 * number, frame) for number, frame in enumerate(frames, 1)]
    seen = traced([], up=up, pcm=pcm)
    first, second = seen.speech
    assert first.start_ms == pytest.approx(-1000, abs=40)
    assert first.end_ms == pytest.approx(-700, abs=40)
    assert (second.start_ms, second.end_ms) == (pytest.approx(-400, abs=40), pytest.approx(-100, abs=40))
    assert seen.microphone == (Span("microphone", -1000, 200),)
    assert len(seen.envelope) == 120
    assert max(peak for _, peak in seen.envelope) > 0.1
    assert max(peak for at, peak in seen.envelope if at > 0) < 0.01


def test_a_burst_lies_end_to_end_before_it_was_sent() -> None:
    seen = traced([], up=[(100.0, frame) for frame in spoken(0.6)])
    assert seen.microphone == (Span("microphone", -600, 0),)


def test_a_closed_microphone_and_damaged_packets_leave_holes() -> None:
    up = [(99.0, PACKET), (99.06, b""), (99.06, PACKET), (99.5, PACKET)]
    seen = traced([], up=up)
    assert [(span.start_ms, span.end_ms) for span in seen.microphone] == [(-1060, -940), (-560, -500)]


def test_what_was_not_played_when_the_next_reply_begins_is_forgotten() -> None:
    assert played([(0, 60), (1, 60), (2, 60), (100, 60)], [0, 70]) == (
        Packet(0, 0, 60),
        Packet(1, 60, 120),
        Packet(2, None, None),
        Packet(100, 120, 180),
    )


@given(st.lists(st.tuples(st.integers(0, 500), st.sampled_from([20, 40, 60])), min_size=1, max_size=60))
def test_packets_are_played_when_the_speaker_plays_them(steps: list[tuple[int, int]]) -> None:
    """What the speaker has no room for is not accepted, so the timeline never sees it."""
    speaker, arrivals, at = Speaker(), [], 1000
    speaker.begin(1.0)
    for gap, length in steps:
        at += gap
        if speaker.push(b"x", length / 1000, at / 1000):
            arrivals.append((float(at), float(length)))
    seen = played(arrivals)
    assert seen[-1].end_ms == pytest.approx(speaker.silent_at(at / 1000) * 1000, abs=0.2)
    assert all(before.end_ms <= after.play_ms for before, after in itertools.pairwise(seen))  # type: ignore[operator]
    silent = [
        after.at_ms - before.end_ms  # type: ignore[operator]
        for before, after in itertools.pairwise(seen)
    ]
    assert [packet.late for packet in seen] == [False, *(gap > 5 for gap in silent)]


def test_everything_is_passed_on_and_turns_are_kept_apart(monkeypatch: pytest.MonkeyPatch) -> None:
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

    monkeypatch.setattr(timelines, "MAX_DOWN_PACKETS", 2)
    monkeypatch.setattr(timelines, "MAX_MESSAGES", 2)
    watch = Watch()
    tracer = Tracer(watch)
    for number in range(3):
        tracer.begin(carry_s=0.15)
        for step in range(3):
            tracer.on_message(Direction.UP, Listen("stop"), number + step / 10)
            tracer.on_audio(Direction.UP, PACKET, number + step / 10)
            tracer.on_audio(Direction.DOWN, PACKET, number + step / 10)
        tracer.end(str(number), Origin.TEXT, float(number))
    tracer.on_state(DeviceState.IDLE, 3.0)
    tracer.on_code("123456", "enter it")
    assert len(watch.seen) == 3 * 9 + 2
    assert watch.seen[-2:] == [DeviceState.IDLE, "123456"]
    assert [seen.said for seen in tracer.timelines()] == ["0", "1", "2"]
    assert [len(trace.messages) for trace in tracer.traces] == [2, 2, 2]
    assert [len(trace.down) for trace in tracer.traces] == [2, 2, 2]
    # What was said in the last 0.15 s goes along.
    assert [len(trace.up) for trace in tracer.traces] == [3, 5, 5]
    assert tracer.traces[0] is not tracer.traces[1]


def test_a_long_evening_stays_small() -> None:
    tracer = Tracer(Observer())
    for number in range(timelines.MAX_TRACES + 5):
        tracer.begin()
        tracer.end(str(number), Origin.TEXT, 0.0)
    assert len(tracer.traces) == timelines.MAX_TRACES
    assert tracer.traces[-1].said == str(timelines.MAX_TRACES + 4)
