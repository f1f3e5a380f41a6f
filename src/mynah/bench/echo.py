"""Echo: what is left of it, how often it is taken for a voice, and whether a voice is heard through it.

Replies are synthesised, sent through Opus to a simulated device with stamps as firmware makes them, played in a
simulated room, recorded with or without somebody who interrupts, and given to the canceller, the real voice detector,
the endpointer and the recogniser. Levels of the interruption are relative to the echo. Time is media time.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterator, Sequence
from difflib import SequenceMatcher
from typing import Final

import msgspec
import numpy as np

from mynah.audio.echo import EchoCanceller, EchoControl, choose
from mynah.audio.opus import OpusDecoder
from mynah.bench.echo_device import DeviceTiming, Heard, Sent, converse, reply
from mynah.bench.echo_room import RATE, Floats, Room, at_level, floats, pcm
from mynah.bench.report import Result, distribution
from mynah.dialogue.endpointing import Edge, Endpointer
from mynah.errors import ConfigError
from mynah.providers.asr.pocketsphinx import PocketSphinxAsr, PocketSphinxOptions
from mynah.providers.base import AsrRequest, VadCapabilities
from mynah.providers.vad.silero import CHUNK, SileroEngine, limit_blas_threads
from mynah.sim.voice import speak

REPLIES: Final = (
    "The weather in London tomorrow will be mostly cloudy, with some light rain in the afternoon. It will reach "
    "fifteen degrees.",
    "Here is a short story about a bird. It lived in a small village near the sea, and every morning it sang a song.",
    "I have set a timer for ten minutes. You can also ask me to play some music, or to tell you the news of the day.",
)
"""Some seven seconds each."""
REPLY_COUNT: Final = 6
"""In one conversation."""
COMMANDS: Final = ("Stop talking please.", "What time is it?", "Turn off the light.", "Cancel the timer.")
LEVELS_DB: Final = (-6.0, 0.0, 6.0)
_SPEECH_MS: Final = (128, 320)
"""Speech that holds a reply, and that ends one where nothing judges it; as in `mynah.dialogue.interruption`."""
_FAR_DBFS: Final = -20.0
_GAP_MS: Final = 1500.0
"""Between two replies; some more each time, so that recording and playing never meet in the same way."""
_INTERRUPTED_MS: Final = (1500.0, 2500.0, 3500.0)
"""When somebody speaks, after the beginning of the reply."""
_CONVERGED_MS: Final = 2000.0
_HELD_MS: Final = 400.0
"""From the first sound of an interruption to the last packet that is sent; the device plays its buffer to the end."""
_WORDS_IN: Final = 2
"""Places in which words are counted: the recogniser takes its time."""
_EARLY_MS, _LATE_MS = 100.0, 300.0
"""An edge so long before or after the words is theirs."""
_PREROLL_MS: Final = 500.0
"""What a recogniser gets from before the words."""
_NOTE: Final = "simulated rooms and devices: no figure here was measured on hardware"


def _uneven(least: float, most: float, seed: int) -> Callable[[int], float]:
    """Return a network's delays in ms."""
    return lambda number: random.Random(seed * 100_003 + number).uniform(least, most)


class Place(msgspec.Struct, frozen=True):
    """A device in a room."""

    room: Room
    timing: DeviceTiming


PLACES: Final = (
    Place(Room(delay_ms=20), DeviceTiming()),
    Place(Room(delay_ms=60, seed=3, drive=1.5), DeviceTiming(phase_ms=40)),
    Place(Room(delay_ms=40, seed=4, echo_dbfs=-34), DeviceTiming(_uneven(15, 75, 1), _uneven(15, 95, 2))),
    Place(Room(delay_ms=100, decay_ms=400, seed=5), DeviceTiming(output_ms=50, input_ms=50)),
)
"""On a desk; with a poor loudspeaker; quiet, and over uneven Wi-Fi; in a hall, with long buffers."""


class Voice(msgspec.Struct, frozen=True):
    """Somebody's words in a recording, in ms of it."""

    text: str
    begin_ms: float
    end_ms: float


class Take(msgspec.Struct, frozen=True):
    """A conversation: what the server sent and heard, when each reply began, and who interrupted."""

    events: list[Sent | Heard]
    began_ms: list[float]
    voices: list[Voice]
    far_s: float
    input_ms: float
    """By how much later than it happens something is in the recording."""


def take(place: Place, level_db: float | None, *, held: bool = False) -> Take:
    """Hold a conversation in which each reply is interrupted at this level, or none is.

    With ``held`` the server sends nothing more of a reply once it can have noticed that.
    """
    sent: list[list[Sent]] = []
    at_ms, stamp = 1000.0, 0
    for number in range(REPLY_COUNT):
        sound = floats(speak(REPLIES[number % len(REPLIES)], ("rms", "awb")[number % 2]))
        sent.append(reply(at_level(sound, _FAR_DBFS), at_ms, stamp))
        stamp = sent[-1][-1].stamp
        at_ms = sent[-1][-1].at_ms + _GAP_MS + 17 * number
    near = np.zeros((round(at_ms) + 2000) * RATE // 1000, np.float32)
    voices: list[Voice] = []
    for number, one in enumerate(sent if level_db is not None else ()):
        text = COMMANDS[number % len(COMMANDS)]
        words = at_level(floats(speak(text)), place.room.echo_dbfs + (level_db or 0.0))
        loud = np.flatnonzero(np.abs(words) > 0.02 * np.max(np.abs(words)))
        words = words[loud[0] : loud[-1]]
        begin_ms = one[0].at_ms + _INTERRUPTED_MS[number % len(_INTERRUPTED_MS)]
        at = round(begin_ms) * RATE // 1000
        near[at : at + len(words)] += words
        if held:
            sent[number] = [packet for packet in one if packet.at_ms <= begin_ms + _HELD_MS]
        voices.append(Voice(text, begin_ms, begin_ms + len(words) * 1000 / RATE))
    return Take(
        events=converse(sent, place.room, near, place.timing),
        began_ms=[one[0].at_ms for one in sent],
        voices=voices,
        far_s=sum(len(one) for one in sent) * 0.06,
        input_ms=place.timing.input_ms - place.timing.phase_ms,
    )


class Heard16k(msgspec.Struct, frozen=True):
    """What the microphone recorded, before and after the canceller, and what the canceller cost."""

    raw: Floats
    clean: Floats
    cpu_s: float


def cancel(one: Take, canceller: EchoCanceller | None) -> Heard16k:
    """Give the server's events to the canceller as the ingest does."""
    control = EchoControl(canceller) if canceller is not None else None
    decoder = OpusDecoder(RATE)
    raw: list[bytes] = []
    clean: list[bytes] = []
    spent = 0
    for event in one.events:
        if isinstance(event, Sent):
            if control is not None:
                control.sent(event.stamp, event.packet)
            continue
        raw.append(decoder.decode(event.packet))
        begin = time.thread_time_ns()
        clean.append(control.process(one, raw[-1], event.stamp) if control is not None else raw[-1])
        spent += time.thread_time_ns() - begin
    return Heard16k(floats(b"".join(raw)), floats(b"".join(clean)), spent / 1e9)


def starts_ms(engine: SileroEngine, sound: Floats, speech_ms: float) -> list[float]:
    """Return when the endpointer says that somebody has begun to speak."""
    endpointer = Endpointer(VadCapabilities(), min_speech_ms=speech_ms)
    slot = engine.open()
    found: list[float] = []
    for number, chunk in enumerate(sound[: len(sound) // CHUNK * CHUNK].reshape(-1, CHUNK), start=1):
        probability = float(engine.process(np.array([slot]), chunk[None])[0])
        level = 10 * float(np.log10(np.mean(np.square(chunk)) + 1e-12))
        if endpointer.push(probability, level) is Edge.STARTED:
            found.append(number * CHUNK * 1000 / RATE)
    engine.close(slot)
    return found


def erle_db(one: Take, heard: Heard16k) -> list[float]:
    """Return by how many dB the echo of each reply got quieter, once the canceller had time to learn the room."""
    losses: list[float] = []
    for began, following in zip(one.began_ms, [*one.began_ms[1:], len(heard.raw) * 1000 / RATE], strict=True):
        span = slice(_sample(began + _CONVERGED_MS), _sample(following - _GAP_MS))
        before, after = (np.mean(np.square(sound[span])) + 1e-9 for sound in (heard.raw, heard.clean))
        losses.append(10 * float(np.log10(before / after)))
    return losses


def detected_ms(one: Take, starts: Sequence[float]) -> tuple[list[float], int]:
    """Return how long after its first sound each voice that was heard was heard, and how many starts are nobody's."""
    delays: list[float] = []
    nobodys = set(starts)
    for voice in one.voices:
        begin, end = voice.begin_ms + one.input_ms, voice.end_ms + one.input_ms
        theirs = [at for at in starts if begin - _EARLY_MS <= at <= end + _LATE_MS]
        nobodys.difference_update(theirs)
        delays += [theirs[0] - begin] if theirs else []
    return delays, len(nobodys)


def echo() -> Iterator[Result]:
    """Measure every canceller that is installed, and none, in all places. Takes some five minutes."""
    limit_blas_threads()
    engine = SileroEngine()
    makers = cancellers()
    quiet = [take(place, None) for place in PLACES]
    for name, make in makers.items():
        yield from _pure_echo(engine, name, make, quiet)
    alone = [(text, pcm(at_level(floats(speak(text)), PLACES[0].room.echo_dbfs))) for text in COMMANDS]
    yield distribution("echo, words understood", "without a reply", "%", asyncio.run(_words(alone)), _NOTE)
    for level in LEVELS_DB:
        takes = [take(place, level) for place in PLACES]
        held = [take(place, level, held=True) for place in PLACES[:_WORDS_IN]]
        for name, make in makers.items():
            heard = _cancel_all(takes, make)
            if make is not None:
                yield from _double_talk(engine, f"{name}, {level:+.0f} dB", takes, heard)
            for case, ones in (
                (f"{name}, {level:+.0f} dB", takes[:_WORDS_IN]),
                (f"{name}, {level:+.0f} dB, held", held),
            ):
                sounds = heard if ones is not held else _cancel_all(held, make)
                cuts = [cut for one, sound in zip(ones, sounds, strict=False) for cut in _cuts(one, sound)]
                yield distribution("echo, words understood", case, "%", asyncio.run(_words(cuts)), _NOTE)


def _cancel_all(takes: list[Take], make: Callable[[], EchoCanceller] | None) -> list[Heard16k]:
    return [cancel(one, make() if make is not None else None) for one in takes]


def cancellers() -> dict[str, Callable[[], EchoCanceller] | None]:
    """Return what can be measured on this machine, by name."""
    found: dict[str, Callable[[], EchoCanceller] | None] = {"none": None, "gate": choose("gate")}
    try:
        found["webrtc"] = choose("webrtc")
    except ConfigError:
        pass  # the extra is not installed; the table shows that by what it lacks
    return found


def _pure_echo(
    engine: SileroEngine, name: str, make: Callable[[], EchoCanceller] | None, takes: list[Take]
) -> Iterator[Result]:
    heard = _cancel_all(takes, make)
    if make is not None:
        losses = [loss for one, sound in zip(takes, heard, strict=True) for loss in erle_db(one, sound)]
        yield distribution("echo return loss enhancement", name, "dB", losses, _NOTE)
        costs = [sound.cpu_s * 1000 / (len(sound.raw) / RATE) for sound in heard]
        yield distribution("echo cost", name, "ms/s of audio", costs)
    for speech_ms in _SPEECH_MS:
        rates = [
            len(starts_ms(engine, sound.clean, speech_ms)) * 60 / one.far_s
            for one, sound in zip(takes, heard, strict=True)
        ]
        yield distribution("echo taken for a voice", f"{name}, {speech_ms} ms", "per minute", rates, _NOTE)


def _double_talk(
    engine: SileroEngine, case: str, takes: list[Take], heard: list[Heard16k]
) -> Iterator[Result]:
    for speech_ms in _SPEECH_MS:
        delays: list[float] = []
        shares: list[float] = []
        for one, sound in zip(takes, heard, strict=True):
            found, _ = detected_ms(one, starts_ms(engine, sound.clean, speech_ms))
            delays += found
            shares.append(100 * len(found) / len(one.voices))
        mean = sum(shares) / len(shares)
        yield distribution(
            "echo, interruption heard", f"{case}, {speech_ms} ms: {mean:.0f} %", "%", shares, _NOTE
        )
        if delays:
            yield distribution("echo, until it is heard", f"{case}, {speech_ms} ms", "ms", delays)


def _cuts(one: Take, heard: Heard16k) -> Iterator[tuple[str, bytes]]:
    """Return each voice's words and what a recogniser would be given of them."""
    for voice in one.voices:
        begin = _sample(voice.begin_ms + one.input_ms - _PREROLL_MS)
        end = _sample(voice.end_ms + one.input_ms + _LATE_MS)
        yield voice.text, pcm(heard.clean[begin:end])


async def _words(recordings: list[tuple[str, bytes]]) -> list[float]:
    """Return the share of the words of each recording that the embedded recogniser understood, in %."""
    provider = PocketSphinxAsr("bench", PocketSphinxOptions(type="pocketsphinx"))
    await provider.start()
    try:
        shares: list[float] = []
        for text, recording in recordings:
            stream = provider.open_stream(AsrRequest(language="en"))
            stream.feed(recording)
            shares.append(understood(text, (await stream.finish()).text))
        return shares
    finally:
        await provider.stop()


def understood(said: str, heard: str) -> float:
    """Return how many percent of what was said and heard agrees, word by word and in order."""
    want, got = (
        ["".join(filter(str.isalnum, word)) for word in text.lower().split()] for text in (said, heard)
    )
    return 100 * SequenceMatcher(None, want, got, autojunk=False).ratio()


def _sample(ms: float) -> int:
    return round(ms * RATE / 1000)
