"""What one turn looked like from the device: its raw trace, and the timeline that is made of it afterwards."""

from __future__ import annotations

import enum
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec
import numpy as np

from mynah.audio.opus import OpusDecoder, packet_duration_ms
from mynah.errors import AudioError
from mynah.sim.microphone import SAMPLE_RATE, SPEECH_DBFS
from mynah.sim.speaker import LATE_S
from mynah.sim.state import DeviceState, Direction, Observer
from mynah.wire.messages import Abort, DeviceMessage, IotCommands, Mcp, ReceivedMessage, Stt, Tts

MAX_UP_PACKETS = 5_000
"""Of one turn: five minutes of microphone, 10 MB as PCM. The oldest go: the end of the speech is what counts."""

MAX_DOWN_PACKETS = 20_000
"""Of one turn: twenty minutes of reply; later ones are left out."""

MAX_MESSAGES = 1_000
"""Of one turn; later ones are left out."""

MAX_TRACES = 50
"""Turns kept, so that an evening with a microphone stays small; the oldest go."""

WINDOW_MS = 10
"""Resolution of the envelope."""

PAUSE_MS = 200.0
"""A shorter gap in the speech is part of a word or between two, not a pause."""

STREAM_GAP_MS = 100.0
"""A microphone that sends nothing for longer was closed: packets come every 60 ms."""


class Origin(enum.StrEnum):
    """What happened at 0 ms."""

    SPEECH = "end of speech"
    BUTTON = "button released"
    TEXT = "text sent"
    WAKE = "wake word sent"
    STT = "stt"
    """With a real microphone, where nobody knows when the user stopped."""
    START = "tts start"
    """When the server speaks without having been asked."""


class Span(msgspec.Struct, frozen=True):
    """Something that took from ``start_ms`` to ``end_ms``; a moment has the same twice. Counted from the `Origin`."""

    name: str
    start_ms: float
    end_ms: float


class Packet(msgspec.Struct, frozen=True):
    """A packet of the reply: when it came, and from when to when it was played; None: it was thrown away."""

    at_ms: float
    play_ms: float | None
    end_ms: float | None
    late: bool = False
    """It came more than 5 ms after the one before had ended."""


class Sentence(msgspec.Struct, frozen=True):
    """A sentence of the reply: when its text came, and from when to when it was heard; None: it was not."""

    text: str
    at_ms: float
    play_ms: float | None = None
    end_ms: float | None = None


class TurnTimeline(msgspec.Struct, frozen=True):
    """One turn as the device saw it. All times are ms after the `Origin`; None: it did not happen."""

    said: str = ""
    origin: Origin = Origin.SPEECH
    error: str = ""
    envelope: tuple[tuple[float, float], ...] = ()
    """What the microphone sent: time and peak (0 to 1) of every 10 ms."""
    speech: tuple[Span, ...] = ()
    """What was loud in it, in pieces with pauses between them."""
    microphone: tuple[Span, ...] = ()
    """When it was open."""
    stt: str = ""
    stt_ms: float | None = None
    tts_start_ms: float | None = None
    first_audio_ms: float | None = None
    tts_stop_ms: float | None = None
    sentences: tuple[Sentence, ...] = ()
    packets: tuple[Packet, ...] = ()
    tools: tuple[Span, ...] = ()
    """Calls of the device's tools until their results; of IoT things, which have none, only the moment."""
    aborts: tuple[float, ...] = ()

    def stages(self) -> list[Span]:
        """Return what came one after the other from the origin to the first audio, named after how each ended."""
        milestones = [("", 0.0)] + [
            (name, at)
            for name, at in (
                ("stt", None if self.origin is Origin.STT else self.stt_ms),
                ("tts_start", None if self.origin is Origin.START else self.tts_start_ms),
                ("first_audio", self.first_audio_ms),
            )
            if at is not None
        ]
        return [
            Span(name, min(start, end), max(start, end))
            for (_, start), (name, end) in itertools.pairwise(milestones)
        ]

    def spans(self) -> list[Span]:
        """Return everything as a flat list, in the order in which it began."""
        found = [*self.speech, *self.microphone, *self.stages()]
        found += [Span(f"tool {call.name}", call.start_ms, call.end_ms) for call in self.tools]
        found += [
            Span(f"sentence {number}", sentence.play_ms, sentence.end_ms)
            for number, sentence in enumerate(self.sentences, 1)
            if sentence.play_ms is not None and sentence.end_ms is not None
        ]
        if self.packets:
            found.append(Span("packets", self.packets[0].at_ms, self.packets[-1].at_ms))
        if self.tts_start_ms is not None and self.tts_stop_ms is not None:
            found.append(Span("reply", self.tts_start_ms, self.tts_stop_ms))
        found += [Span("abort", at, at) for at in self.aborts]
        return sorted(found, key=lambda span: (span.start_ms, -span.end_ms))


class Trace:
    """What went by in one turn, by `time.monotonic`, and what the user said. A `Tracer` fills it."""

    def __init__(self, carried: Iterable[tuple[float, bytes]] = ()) -> None:
        """``carried`` is sound that went up before the turn, and belongs to it."""
        self.said = ""
        self.origin = Origin.SPEECH
        self.asked_at = 0.0
        """When the `Origin` was."""
        self.error = ""
        self.up: deque[tuple[float, bytes]] = deque(carried, maxlen=MAX_UP_PACKETS)
        self.down: list[tuple[float, float]] = []
        """When a packet came, and its length in s."""
        self.messages: list[tuple[float, Direction, DeviceMessage | ReceivedMessage]] = []


class Tracer(Observer):
    """Takes down one turn after the other and passes everything on to a second observer."""

    def __init__(
        self,
        watcher: Observer,
        *,
        pcm: bool = False,
        duration_ms: Callable[[bytes], float] = packet_duration_ms,
    ) -> None:
        """``pcm``: the device sends PCM (16 kHz s16le mono) instead of Opus. ``duration_ms`` as in `Recorder`."""
        self._duration_ms = duration_ms
        self.traces: deque[Trace] = deque(maxlen=MAX_TRACES)
        """Of the turns that are over."""
        self._trace = Trace()
        self._pcm = pcm
        self._watcher = watcher

    def begin(self, carry_s: float = 0.0) -> None:
        """Begin the trace of another turn; what went up in the last ``carry_s`` belongs to it as well."""
        up = self._trace.up
        since = up[-1][0] - carry_s if up else 0.0
        self._trace = Trace((at, packet) for at, packet in up if at > since)

    def end(self, said: str, origin: Origin, asked_at: float, error: str = "") -> None:
        """The turn is over: say what the user said, what its times count from and when that was, what went wrong."""
        trace = self._trace
        trace.said, trace.origin, trace.asked_at, trace.error = said, origin, asked_at, error
        self.traces.append(trace)

    def timelines(self) -> list[TurnTimeline]:
        """Return the turns. Takes some 50 µs for every packet that went up."""
        return [timeline(trace, pcm=self._pcm) for trace in self.traces]

    def on_message(self, direction: Direction, message: DeviceMessage | ReceivedMessage, at_s: float) -> None:
        """Take down a message."""
        if len(self._trace.messages) < MAX_MESSAGES:
            self._trace.messages.append((at_s, direction, message))
        self._watcher.on_message(direction, message, at_s)

    def on_audio(self, direction: Direction, packet: bytes, at_s: float) -> None:
        """Take down a packet."""
        if direction is Direction.UP:
            self._trace.up.append((at_s, packet))
        elif len(self._trace.down) < MAX_DOWN_PACKETS:
            self._trace.down.append((at_s, self._duration_ms(packet) / 1000))
        self._watcher.on_audio(direction, packet, at_s)

    def on_state(self, state: DeviceState, at_s: float) -> None:
        """Pass it on."""
        self._watcher.on_state(state, at_s)

    def on_code(self, code: str, message: str) -> None:
        """Pass it on."""
        self._watcher.on_code(code, message)


def timeline(trace: Trace, *, pcm: bool = False) -> TurnTimeline:
    """Make the timeline of a trace; ``pcm`` says what its sound is."""

    def ms(at_s: float) -> float:
        return round((at_s - trace.asked_at) * 1000, 1)

    events = [(ms(at), direction, message) for at, direction, message in trace.messages]
    told = [(at, message) for at, _, message in events if isinstance(message, Tts)]
    starts = [at for at, message in told if message.state == "start"]
    stops = [at for at, message in told if message.state == "stop" and starts and at >= starts[-1]]
    texts = [(at, message.text) for at, message in told if message.state == "sentence_start" and message.text]
    stts = [(at, message.text) for at, _, message in events if isinstance(message, Stt)]
    sound = list(_sound([(ms(at), packet) for at, packet in trace.up], pcm=pcm))
    packets = played([(ms(at), length_s * 1000) for at, length_s in trace.down], starts)
    return TurnTimeline(
        said=trace.said,
        origin=trace.origin,
        error=trace.error,
        envelope=tuple((at, peak) for at, peak, _ in sound),
        speech=_merged("speech", ((at, at + WINDOW_MS) for at, _, loud in sound if loud), PAUSE_MS),
        microphone=_merged("microphone", ((at, at + WINDOW_MS) for at, _, _ in sound), STREAM_GAP_MS),
        stt=" ".join(text for _, text in stts),
        stt_ms=stts[0][0] if stts else None,
        tts_start_ms=starts[0] if starts else None,
        first_audio_ms=packets[0].at_ms if packets else None,
        tts_stop_ms=stops[-1] if stops else None,
        sentences=_sentences(texts, packets),
        packets=packets,
        tools=_tools(events),
        aborts=tuple(at for at, _, message in events if isinstance(message, Abort)),
    )


def played(arrivals: Sequence[tuple[float, float]], starts: Sequence[float] = ()) -> tuple[Packet, ...]:
    """Work out when each packet (arrival and length in ms) is heard: at once, or after the ones before it.

    At each of ``starts``, when a reply begins, the device forgets what it has not played yet.
    """
    packets: list[Packet] = []
    pending = sorted(starts)
    free = float("-inf")
    first = True
    for at, length in arrivals:
        while pending and pending[0] <= at:
            flushed = pending.pop(0)
            first = True
            for number in range(len(packets) - 1, -1, -1):
                begun = packets[number].play_ms
                if begun is None or begun <= flushed:
                    break
                packets[number] = Packet(packets[number].at_ms, None, None)
            free = max(
                (packet.end_ms for packet in packets if packet.end_ms is not None), default=float("-inf")
            )
        late = not first and at - free > LATE_S * 1000
        begins = max(at, free)
        free = round(begins + length, 1)
        packets.append(Packet(at, begins, free, late))
        first = False
    return tuple(packets)


def _sound(up: Sequence[tuple[float, bytes]], *, pcm: bool) -> Iterator[tuple[float, float, bool]]:
    """Give time in ms, peak and whether it is speech of every 10 ms of sound that went up.

    A packet holds what was heard until it was sent, or until the next one begins: those of a burst lie end to end.
    """
    decoder = OpusDecoder(SAMPLE_RATE)
    heard: list[bytes] = []
    for _, packet in up:
        try:
            heard.append(packet if pcm else decoder.decode(packet))
        except AudioError:
            heard.append(b"")
    begins: deque[float] = deque()
    for (at, _), samples in zip(reversed(up), reversed(heard), strict=True):
        end = min(at, begins[0]) if begins else at
        begins.appendleft(end - len(samples) / 2 / SAMPLE_RATE * 1000)
    threshold = 10 ** (SPEECH_DBFS / 20)
    window = SAMPLE_RATE * WINDOW_MS // 1000
    for begin, samples in zip(begins, heard, strict=True):
        wave = np.frombuffer(samples[: len(samples) & ~1], "<i2").astype(np.float64) / 32768
        windows = wave[: len(wave) // window * window].reshape(-1, window)
        peaks = np.abs(windows).max(axis=1, initial=0.0)
        loud = np.sqrt(np.mean(windows**2, axis=1)) > threshold
        for number, (peak, is_loud) in enumerate(zip(peaks, loud, strict=True)):
            yield round(begin + number * WINDOW_MS, 1), round(float(peak), 3), bool(is_loud)


def _merged(name: str, intervals: Iterable[tuple[float, float]], gap_ms: float) -> tuple[Span, ...]:
    """Join intervals, given in their order, that are less than ``gap_ms`` apart."""
    spans: list[Span] = []
    for start, until in intervals:
        end = round(until, 1)
        if spans and start - spans[-1].end_ms < gap_ms:
            spans[-1] = Span(name, spans[-1].start_ms, max(end, spans[-1].end_ms))
        else:
            spans.append(Span(name, start, end))
    return tuple(spans)


def _sentences(texts: Sequence[tuple[float, str]], packets: Sequence[Packet]) -> tuple[Sentence, ...]:
    """Give every sentence the packets that came after its text and before the next one's."""
    found: list[Sentence] = []
    for number, (at, text) in enumerate(texts):
        until = texts[number + 1][0] if number + 1 < len(texts) else float("inf")
        own = [packet for packet in packets if at <= packet.at_ms < until and packet.end_ms is not None]
        found.append(Sentence(text, at, own[0].play_ms, own[-1].end_ms) if own else Sentence(text, at))
    return tuple(found)


def _tools(messages: Sequence[tuple[float, Direction, DeviceMessage | ReceivedMessage]]) -> tuple[Span, ...]:
    """Find the calls of tools and their results; a call without one lasts until the last message."""
    calls: list[Span] = []
    waiting: dict[str, int] = {}
    for at, direction, message in messages:
        if isinstance(message, IotCommands):
            calls += (
                Span(f"{given.get('name')}.{given.get('method')}", at, at) for given in message.commands
            )
        elif isinstance(message, Mcp):
            number = str(message.payload.get("id"))
            if direction is Direction.DOWN and message.payload.get("method") == "tools/call":
                params = message.payload.get("params")
                name = params.get("name") if isinstance(params, dict) else None
                waiting[number] = len(calls)
                calls.append(Span(str(name), at, messages[-1][0]))
            elif direction is Direction.UP and number in waiting:
                index = waiting.pop(number)
                calls[index] = Span(calls[index].name, calls[index].start_ms, at)
    return tuple(calls)
