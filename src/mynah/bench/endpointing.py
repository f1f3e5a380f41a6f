"""End of turn: how often somebody who only pauses is cut off, and how long whoever has finished waits.

Sentences with a pause in them are synthesised in pieces, put together with exact silences and a quiet room behind, sent
through Opus as a device would, and given to the real voice detector and endpointer in packets of 60 ms. Time is media
time. Half of the pauses are where the sentence cannot end, half where it could, and some sentences have none. Two
simulated devices say everything: the one's user pauses briefly, the other's for long.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import yaml
from numpy.typing import NDArray

from mynah.audio.opus import OpusDecoder, OpusEncoder
from mynah.bench.report import Result, distribution
from mynah.dialogue.endpointing import Edge, Endpointer
from mynah.dialogue.patience import Patience, PauseProfile
from mynah.errors import MynahError
from mynah.providers.asr.pocketsphinx import PocketSphinxAsr, PocketSphinxOptions
from mynah.providers.base import VadCapabilities
from mynah.providers.vad.silero import CHUNK, SileroEngine, limit_blas_threads
from mynah.sim.voice import FLITE_VOICES, SAMPLE_RATE, speak

Floats = NDArray[np.float32]

_VOICES: Final = {"en": FLITE_VOICES, "zh": ("cmn", "cmn+f2", "cmn+m3", "cmn+f4")}
_LANGUAGES: Final = {"en": "English", "zh": "Chinese"}
_PAUSES_MS: Final = ((200, 450), (400, 900))
"""Of the two devices' users."""
_LEVEL_DB, _ROOM_DB = -22.0, -62.0
_LOUDER_ROOMS_DB: Final = (-50.0, -38.0)
_AUDIBLE_DB: Final = -50.0
"""In windows of 5 ms: what is louder belongs to the speech."""
_TAIL_MS: Final = 3000
"""Room behind the last word: every policy comes to its end in it."""
_PACKET: Final = 960
_FIXED_MS: Final = (200, 300, 500, 800)
_CONFIGURED_MS: Final = (200, 300, 500)
_MAX_MS: Final = 1500
_ORACLE_MS: Final = 100.0
"""From the pause to the words, of a streaming recogniser."""
_GOING_ON_MS: Final = 160.0
"""Speech it takes to go on before an answer; as in `mynah.dialogue.hearing`."""


class _Sentences(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    unfinished: list[str]
    finished: list[str]
    whole: list[str]


class _Decided(msgspec.Struct, frozen=True):
    """A decision of the voice detector and when the packet that completed it was there."""

    at_ms: float
    probability: float
    level_db: float


class _Segment(msgspec.Struct, frozen=True):
    """Speech without a pause; ``begin_ms`` and ``end_ms`` are its first and its last sound."""

    text: str
    begin_ms: float
    end_ms: float


class _Take(msgspec.Struct, frozen=True):
    """One sentence as one of the users said it."""

    number: int
    """Of the sentence."""
    user: int
    segments: tuple[_Segment, ...]
    pcm: bytes
    """What came out of the decoder."""
    decided: tuple[_Decided, ...]

    @property
    def end_ms(self) -> float:
        """When the speaker had really finished."""
        return self.segments[-1].end_ms


class _Words(msgspec.Struct, frozen=True):
    """What a recogniser said about an utterance up to a pause, and how long it took."""

    text: str
    delay_ms: float


Recogniser = Callable[[_Take, float], _Words]
"""Takes an utterance and the time of a pause in it."""


class _Outcome(msgspec.Struct, frozen=True):
    user: int
    cut_off: bool
    """An end was found before the speaker had finished."""
    latency_ms: float
    """From the last sound to the end that was found behind it."""


def endpointing() -> Iterator[Result]:
    """Fixed silences against words and learning, and how exactly the silence is kept."""
    limit_blas_threads()
    takes = {language: _takes(language) for language in _LANGUAGES}
    yield from _accuracy("a quiet room", takes["en"] + takes["zh"])
    for room_db in _LOUDER_ROOMS_DB:
        case = f"noise at {room_db - _LEVEL_DB:.0f} dB"
        yield from _accuracy(case, _takes("en", room_db)[: len(takes["en"]) // 2])
    for language in _LANGUAGES:
        bench = f"end of turn, {_LANGUAGES[language]}"
        yield from _pauses(bench, takes[language])
        yield from _compare(bench, language, takes[language], _oracle(language), waits=False)
    bench = "end of turn, PocketSphinx"
    yield from _compare(bench, "en", takes["en"], _pocketsphinx(takes["en"]), waits=True)


# ---------------------------------------------------------------- speech


def _takes(language: str, room_db: float = _ROOM_DB) -> list[_Take]:
    """Speak everything, in an order that is always the same, in a room that is so loud."""
    sentences = _sentences(language)
    texts = sentences.unfinished + sentences.finished + sentences.whole
    random = np.random.default_rng(7)
    voices = _VOICES[language]
    spoken = []
    for user, (least, most) in enumerate(_PAUSES_MS):
        for number in random.permutation(len(texts)).tolist():
            pieces = [
                _audible(speak(text.strip(), voices[number % len(voices)], language=language))
                for text in texts[number].split("|")
            ]
            spoken.append((number, user, texts[number], _recording(pieces, random, room_db, (least, most))))
    packed = [_through_opus(sound) for *_, (sound, _) in spoken]
    return [
        _Take(
            number,
            user,
            tuple(_Segment(part.strip(), *edges) for part, edges in zip(text.split("|"), spans, strict=True)),
            pcm,
            decided,
        )
        for (number, user, text, (_, spans)), pcm, decided in zip(
            spoken, packed, _decide(packed), strict=True
        )
    ]


def _sentences(language: str) -> _Sentences:
    file = resources.files("mynah.bench") / "data" / f"endpointing.{language}.yaml"
    return msgspec.convert(yaml.safe_load(file.read_text(encoding="utf-8")), _Sentences)


def _audible(pcm: bytes) -> Floats:
    """Bring speech to a common level and cut off what cannot be heard in front and behind."""
    sound = np.frombuffer(pcm, "<i2").astype(np.float32)
    sound /= 32768
    loud = sound[np.abs(sound) > 0.01]
    sound *= np.float32(10 ** (_LEVEL_DB / 20) / np.sqrt(np.mean(loud**2)))
    step = SAMPLE_RATE // 200
    frames = sound[: len(sound) // step * step].reshape(-1, step)
    audible = np.flatnonzero(np.mean(frames**2, axis=1) > 10 ** (_AUDIBLE_DB / 10))
    return sound[audible[0] * step : (audible[-1] + 1) * step]


def _recording(
    pieces: list[Floats], random: np.random.Generator, room_db: float, pauses_ms: tuple[int, int]
) -> tuple[Floats, list[tuple[float, float]]]:
    """Put pieces behind one another; return the sound and where each begins and ends, in ms."""
    per_ms = SAMPLE_RATE // 1000
    parts: list[Floats] = [np.zeros(int(random.integers(500, 700)) * per_ms, np.float32)]
    spans = []
    at = len(parts[0])
    for index, piece in enumerate(pieces):
        spans.append((at / per_ms, (at + len(piece)) / per_ms))
        last = index == len(pieces) - 1
        silence = _TAIL_MS if last else int(random.integers(*pauses_ms))
        parts += [piece, np.zeros(silence * per_ms, np.float32)]
        at += len(piece) + silence * per_ms
    sound = np.concatenate(parts)
    sound += random.normal(0, 10 ** (room_db / 20), len(sound)).astype(np.float32)
    return sound, spans


def _through_opus(sound: Floats) -> bytes:
    encoder = OpusEncoder(SAMPLE_RATE, 60, complexity=0, dtx=True)  # as devices do
    decoder = OpusDecoder(SAMPLE_RATE)
    samples = (np.clip(sound, -1, 1) * 32767).astype("<i2")
    frames = samples[: len(samples) // _PACKET * _PACKET].reshape(-1, _PACKET)
    return b"".join(decoder.decode(encoder.encode(frame.tobytes())) for frame in frames)


def _decide(recordings: list[bytes]) -> list[tuple[_Decided, ...]]:
    """Run the voice detector over all recordings at once."""
    engine = SileroEngine()
    slots = [engine.open() for _ in recordings]
    sounds = [np.frombuffer(pcm, "<i2").astype(np.float32) * np.float32(1 / 32768) for pcm in recordings]
    decided: list[list[_Decided]] = [[] for _ in recordings]
    for at in range(0, max(map(len, sounds)) - CHUNK + 1, CHUNK):
        rows = [row for row, sound in enumerate(sounds) if at + CHUNK <= len(sound)]
        chunks = np.stack([sounds[row][at : at + CHUNK] for row in rows])
        probabilities = engine.process(np.array([slots[row] for row in rows]), chunks)
        levels = 10 * np.log10(np.mean(chunks**2, axis=1) + 1e-12)
        arrival = -(-(at + CHUNK) // _PACKET) * 60.0
        for row, probability, level in zip(rows, probabilities.tolist(), levels.tolist(), strict=True):
            decided[row].append(_Decided(arrival, probability, level))
    return [tuple(decisions) for decisions in decided]


# ---------------------------------------------------------------- recognisers


def _oracle(language: str) -> Recogniser:
    """A recogniser that understands everything."""
    space = " " if language == "en" else ""

    def recognise(take: _Take, at_ms: float) -> _Words:
        known = []
        for segment in take.segments:
            words = segment.text.split() if space else list(segment.text)
            share = (at_ms - 100 - segment.begin_ms) / (segment.end_ms - segment.begin_ms)
            known += words[: round(len(words) * max(0.0, min(1.0, share)))]
        return _Words(space.join(known), _ORACLE_MS)

    return recognise


def _pocketsphinx(takes: list[_Take]) -> Recogniser:
    """The embedded recogniser: what it understands at each pause, and the processor time that takes.

    It hears every sentence from one of the users only; the same words and times stand for the other.
    """
    asked = [take for take in takes if take.user == 0]
    found = asyncio.run(_recognise(asked))
    known = {take.number: words for take, words in zip(asked, found, strict=True)}

    def recognise(take: _Take, at_ms: float) -> _Words:
        finished = sum(segment.end_ms <= at_ms for segment in take.segments)
        # A pause that is none, in the middle of a word: the words before it are as good as any.
        return known[take.number][max(0, finished - 1)]

    return recognise


async def _recognise(takes: list[_Take]) -> list[list[_Words]]:
    """Return what is understood of each take up to the end of each of its segments."""
    # Two providers with a process each, so that the processor time of one is that of one utterance.
    options = PocketSphinxOptions(type="pocketsphinx", workers=1, timeout_s=120, start_timeout_s=120)
    halves = await asyncio.gather(
        *(_recognise_with(PocketSphinxAsr("bench", options), takes[first::2]) for first in range(2))
    )
    return [halves[number % 2][number // 2] for number in range(len(takes))]


async def _recognise_with(provider: PocketSphinxAsr, takes: list[_Take]) -> list[list[_Words]]:
    async def one(pcm: bytes) -> _Words:
        begin = _spent_ms(provider)
        transcript = await provider.recognise(pcm)
        return _Words(transcript.text, _spent_ms(provider) - begin)

    async def all_of(take: _Take) -> list[_Words]:
        first = max(0, round(take.segments[0].begin_ms) - 300) * 32
        ends = [round(segment.end_ms + 120) * 32 for segment in take.segments]
        return [await one(take.pcm[first:end]) for end in ends]

    await provider.start()
    try:
        await provider.recognise(takes[0].pcm)  # the models are loaded
        return [await all_of(take) for take in takes]
    finally:
        await provider.stop()


def _spent_ms(provider: PocketSphinxAsr) -> float:
    """Return the processor time of the provider's worker so far: what else runs on the machine counts little then."""
    spent = 0.0
    for pid in provider.worker_pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        except OSError:  # no Linux: the clock has to do
            return time.perf_counter() * 1000
        spent += (int(fields[11]) + int(fields[12])) * 1000 / os.sysconf("SC_CLK_TCK")
    return spent


# ---------------------------------------------------------------- policies


def _capabilities(silence_ms: float) -> VadCapabilities:
    return VadCapabilities(min_silence_ms=round(silence_ms))


def _fixed(take: _Take, silence_ms: float, recogniser: Recogniser | None = None) -> _Outcome:
    """A silence that is always the same. With a recogniser, the end is not used before the words are known."""
    endpointer = Endpointer(_capabilities(silence_ms))
    ends: list[float] = []
    known_at = 0.0
    for decision in take.decided:
        edge = endpointer.push(decision.probability, decision.level_db)
        if edge is Edge.PAUSED and recogniser is not None:
            known_at = decision.at_ms + recogniser(take, decision.at_ms).delay_ms
        elif edge is Edge.ENDED:
            ends.append(decision.at_ms)
    return _outcome(take, [*ends[:-1], max(ends[-1], known_at)])


def _outcome(take: _Take, ends: list[float]) -> _Outcome:
    if not ends or ends[-1] < take.end_ms:
        raise MynahError("an utterance did not end")
    return _Outcome(take.user, ends[0] < take.end_ms, ends[-1] - take.end_ms)


class _Listener:
    """What the session does with one utterance: it waits for the words, and for as long as they need."""

    def __init__(self, take: _Take, patience: Patience, recogniser: Recogniser | None, language: str) -> None:
        self._take, self._patience, self._recogniser = take, patience, recogniser
        self._language = language
        self._endpointer = Endpointer(_capabilities(patience.base_ms))
        self._asked: tuple[float, str] | None = None  # when the words will be known, and what they are
        self._needed_ms = 0.0
        self._held: tuple[float, float] | None = (
            None  # when the endpointer found an end, and the silence then
        )
        self._over = False
        self.ends: list[float] = []

    def run(self) -> _Outcome:
        """Listen to all of it, and learn from it."""
        for decision in self._take.decided:
            self._words_arrive(decision.at_ms)
            edge = self._endpointer.push(decision.probability, decision.level_db)
            if edge is not None:
                self._on_edge(edge, decision.at_ms)
            self._end_if_due(decision.at_ms)
        self._end_after_all()
        self._patience.ended()
        return _outcome(self._take, self.ends)

    def _words_arrive(self, now: float) -> None:
        if self._asked is not None and self._asked[0] <= now:
            (_, text), self._asked = self._asked, None
            self._needed_ms = self._patience.silence_ms(text, self._language)
            self._endpointer.wait(self._needed_ms)

    def _on_edge(self, edge: Edge, now: float) -> None:
        match edge:
            case Edge.STARTED:
                if self._held is not None or self._over:
                    self._patience.cut_in(self._endpointer.pause_ms)
                    self._endpointer.require_speech(_capabilities(0).min_speech_ms)
                self._resume()
            case Edge.RESUMED:
                self._patience.paused(self._endpointer.pause_ms)
                self._resume()
            case Edge.PAUSED if self._recogniser is not None:
                words = self._recogniser(self._take, now)
                self._asked = now + words.delay_ms, words.text
            case Edge.ENDED:
                self._held = now, self._endpointer.silence_ms
                self._endpointer.require_speech(_GOING_ON_MS)
            case _:
                pass

    def _resume(self) -> None:
        self._asked = self._held = None
        self._over = False
        self._needed_ms = 0.0
        self._endpointer.require_silence(self._patience.base_ms)

    def _end_after_all(self) -> None:
        """The words may come later than the audio ends."""
        if self._held is not None and self._asked is not None:
            now = self._asked[0]
            self._words_arrive(now)
            since, silence = self._held
            self.ends.append(max(now, since + self._needed_ms - silence))

    def _end_if_due(self, now: float) -> None:
        if self._held is None or self._over or self._asked is not None:
            return
        since, silence = self._held
        if silence + now - since >= self._needed_ms - 16:
            self.ends.append(now)
            self._over = True


def _adaptive(
    takes: Sequence[_Take], configured_ms: float, recogniser: Recogniser | None, language: str
) -> tuple[list[_Outcome], list[_Outcome]]:
    """Words and learning. Return how it goes with devices that are new, and how when all is said once more."""
    new, known = [], []
    for _, group in itertools.groupby(takes, lambda take: take.user):
        of_user = list(group)
        patience = Patience(PauseProfile(), configured_ms, _MAX_MS)
        new += [_Listener(take, patience, recogniser, language).run() for take in of_user]
        known += [_Listener(take, patience, recogniser, language).run() for take in of_user]
    return new, known


# ---------------------------------------------------------------- figures


def _accuracy(room: str, takes: list[_Take]) -> Iterator[Result]:
    """How far the end is from where it should be."""
    errors = [_fixed(take, 200).latency_ms - 200 for take in takes]
    note = (
        "accuracy: end found − (last sound + 200 ms), with packets of 60 ms and decisions of 32 ms; "
        "noise in dB against the voice"
    )
    yield distribution("end of turn, accuracy", room, "ms", errors, note)
    distances = [abs(error) for error in errors]
    yield distribution("end of turn, accuracy", f"{room}, absolute", "ms", distances)


def _pauses(bench: str, takes: list[_Take]) -> Iterator[Result]:
    """When the last pause is told, which is when an answer is guessed, and what guesses it takes."""
    told: list[float] = []
    guesses = []
    for take in takes:
        endpointer = Endpointer(_capabilities(200))
        edges = [(one.at_ms, endpointer.push(one.probability, one.level_db)) for one in take.decided]
        found = [(at_ms, edge) for at_ms, edge in edges if edge is not None]
        guesses.append(float(sum(edge is Edge.PAUSED for _, edge in found)))
        at_ms, edge = found[-2]  # the last is the end
        if edge is Edge.PAUSED:
            told.append(at_ms - take.end_ms)
    real = _mean([float(len(take.segments)) for take in takes])
    note = (
        f"{bench}: with a silence of 200 ms, {100 * len(told) / len(takes):.0f} % have a pause before the end; "
        f"{_mean(guesses):.2f} pauses are told per utterance, {real:.2f} are real"
    )
    yield distribution(bench, "pause told after the last sound", "ms", told, note)


def _compare(
    bench: str, language: str, takes: list[_Take], recogniser: Recogniser, *, waits: bool
) -> Iterator[Result]:
    """``waits``: the recogniser is so slow that fixed silences have to wait for the words, too."""
    needed = recogniser if waits else None
    fixed = {ms: [_fixed(take, ms, needed) for take in takes] for ms in range(200, 1001, 25)}
    for ms in _FIXED_MS:
        yield from _rows(bench, f"fixed {ms} ms", fixed[ms], "")
    runs: list[tuple[str, int, Recogniser | None]] = [
        (f"adaptive {ms} ms", ms, recogniser) for ms in _CONFIGURED_MS
    ]
    if not waits:
        runs.append(("no words, 200 ms", 200, None))
    for case, configured, words in runs:
        new, known = _adaptive(takes, configured, words, language)
        yield from _rows(bench, f"{case}, new", new, _equal(new, fixed))
        yield from _rows(bench, f"{case}, known", known, _equal(known, fixed))


def _rows(bench: str, case: str, outcomes: list[_Outcome], comparison: str) -> Iterator[Result]:
    latencies = [outcome.latency_ms for outcome in outcomes]
    quick, slow = (_mean([one.latency_ms for one in outcomes if one.user == user]) for user in range(2))
    note = (
        f"{bench}, {case}: {_cut_off(outcomes):.1f} % cut off, {_mean(latencies):.0f} ms on average "
        f"({quick:.0f} for the user with short pauses, {slow:.0f} for the other){comparison}"
    )
    yield distribution(bench, f"{case}: latency", "ms", latencies, note)
    share = round(_cut_off(outcomes), 1)
    yield Result(bench, f"{case}: cut off", "%", len(outcomes), share, share, share, share, share)


def _cut_off(outcomes: list[_Outcome]) -> float:
    """Return the share of utterances that were cut off, in %."""
    return 100 * sum(outcome.cut_off for outcome in outcomes) / len(outcomes)


def _equal(outcomes: list[_Outcome], fixed: dict[int, list[_Outcome]]) -> str:
    """Return the fixed silence that takes as long on average, and how often it cuts off."""
    mean = _mean([outcome.latency_ms for outcome in outcomes])
    means = {ms: _mean([outcome.latency_ms for outcome in of_ms]) for ms, of_ms in fixed.items()}
    ms = min(means, key=lambda ms: abs(means[ms] - mean))
    return f"; fixed {ms} ms: {_cut_off(fixed[ms]):.1f} %, {means[ms]:.0f} ms"


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
