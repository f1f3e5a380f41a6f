"""The process that recognises speech for `mynah.providers.asr.pocketsphinx`.

PocketSphinx holds the interpreter lock while it searches, so it lives in processes of its own. This one imports as
little as possible: an idle worker is the acoustic model, the memory-mapped language model and a bare interpreter.

Frames on standard input and output are a little-endian 32-bit length, one byte of kind and the body:

===== ========= ==========================================================================================
kind  direction body
===== ========= ==========================================================================================
``G`` in        the grammar, JSGF in UTF-8; always the first frame
``R`` out       ready, empty
``U`` in        one utterance, PCM s16le mono 16 kHz
``T`` out       its result, JSON ``{"text": str, "confidence": float, "search": "grammar"|"open"|"none"}``
``E`` out       the grammar or the model cannot be used; body is the reason. The process ends.
===== ========= ==========================================================================================

End of input ends the process.
"""

from __future__ import annotations

import ctypes
import json
import math
import signal
import struct
import sys
import tempfile
from pathlib import Path
from typing import Any, BinaryIO

HEADER = struct.Struct("<IB")
GRAMMAR, READY, UTTERANCE, RESULT, FAILURE = b"GRUTE"
MAX_BODY_BYTES = 16_000 * 2 * 120
"""Two minutes of audio: more than any utterance; protects both sides from a broken length field."""

SAMPLE_RATE = 16_000
FRAME_SAMPLES = 160
FRAMES_PER_SECOND = 100
MIN_SECONDS = 0.2
"""Shorter stretches hold no word."""
MIN_LEVEL = 60.0
"""RMS of the loudest frames, in units of 16-bit samples (−55 dBFS): quieter audio is a silent room."""

DITHER_DB = 43.0
"""White noise is added this far below the speech. Without it, empty bands (narrow-band microphones, codecs) have log
energies the acoustic model never saw; the 8 kHz voice of the test set gains a quarter of its sentences."""

SOUND_DB = 15.0
"""Frames this far below the speech belong to the pauses around it."""

_PR_SET_PDEATHSIG = 1


def read_frame(stream: BinaryIO) -> tuple[int, bytes] | None:
    """Return (kind, body), or None at the end of input. Raises ValueError for an impossible length."""
    header = stream.read(HEADER.size)
    if len(header) < HEADER.size:
        return None
    length, kind = HEADER.unpack(header)
    if length > MAX_BODY_BYTES:
        raise ValueError(f"frame of {length} bytes")
    body = stream.read(length)
    return (kind, body) if len(body) == length else None


def write_frame(stream: BinaryIO, kind: int, body: bytes = b"") -> None:
    """Write one frame and flush it."""
    stream.write(HEADER.pack(len(body), kind) + body)
    stream.flush()


class Hypothesis:
    """What one search heard. ``score`` is a natural log likelihood, −inf when the search reached no end."""

    def __init__(self, text: str = "", score: float = -math.inf) -> None:
        self.text = text
        self.score = score


class Recognizer:
    """Two-stage recognition: the grammar of commands first, the open language model when that is not trusted."""

    def __init__(self, jsgf: str) -> None:
        """Load the models. Raises RuntimeError or ValueError when the grammar does not fit them."""
        import pocketsphinx

        self._decoder = pocketsphinx.Decoder(lm=None, loglevel="FATAL", **DECODER_SETTINGS)
        self._add_grammar(jsgf)
        model = Path(pocketsphinx.get_model_path("en-us"))
        language_model = pocketsphinx.NGramModel(
            self._decoder.config, self._decoder.get_logmath(), str(model / "en-us.lm.bin")
        )
        self._decoder.add_lm("open", language_model)
        self._decoder.add_allphone_file("phones", str(model / "en-us-phone.lm.bin"))

    def _add_grammar(self, jsgf: str) -> None:
        from mynah.providers.asr.pocketsphinx_grammar import minimise, read_fsg

        with tempfile.TemporaryDirectory(prefix="mynah-grammar-") as folder:
            path = Path(folder, "commands.fsg")
            self._decoder.parse_jsgf(jsgf.encode()).writefile(str(path))
            automaton = minimise(read_fsg(path.read_text(encoding="utf-8")))
        inner_end = automaton.states
        start, end = inner_end + 1, inner_end + 2
        arcs: list[tuple[Any, ...]] = [
            (source, target, RARE_WORDS.get(word, 1.0), word) for source, target, word in automaton.arcs
        ]
        arcs += [(state, inner_end, 1.0) for state in automaton.finals]
        # The segmenter leaves silence at both ends. As a word it costs nothing; as a filler it would lose against
        # the closure of a stop consonant ("cancel …" was heard as "p-ick …").
        for source, target in ((start, automaton.start), (inner_end, end)):
            arcs += [(source, target, 1.0, "<sil>"), (source, target, NO_SILENCE)]
        self._decoder.add_fsg("commands", self._decoder.create_fsg("commands", start, end, arcs))

    def recognise(self, pcm: bytes) -> tuple[str, float, str]:
        """Return (text, confidence, search) for one utterance; the text is empty for noise and silence.

        The confidence, 0…1, orders results by how far they are from being rejected; it is no probability.
        """
        audio, speech_s = prepare(pcm)
        if not audio:
            return "", 0.0, "none"
        command = self.search("commands", audio)
        if command.text:
            pace = letters(command.text) / speech_s
            margin = _margin(command, self.search("phones", audio), audio)
            if margin >= SURE_MARGIN and pace >= ORDINARY_PACE:
                return command.text, _confidence(1 + margin / SURE_MARGIN), "grammar"
        heard = self.search("open", audio)
        if command.text and pace >= SLOWEST_PACE:
            agreement = _margin(command, heard, audio) + similarity(command.text, heard.text)
            if agreement >= MIN_AGREEMENT:
                return command.text, _confidence(agreement), "grammar"
        if not heard.text or heard.text in NOISE_WORDS:
            return "", 0.0, "none"
        return heard.text, OPEN_CONFIDENCE, "open"

    def search(self, name: str, audio: bytes) -> Hypothesis:
        """Run one search, ``commands``, ``phones`` or ``open``, over prepared audio."""
        decoder = self._decoder
        decoder.activate_search(name)
        decoder.start_utt()
        decoder.process_raw(audio, full_utt=True)
        decoder.end_utt()
        hypothesis = decoder.hyp()
        if hypothesis is None or hypothesis.score <= 0:
            return Hypothesis()
        return Hypothesis(hypothesis.hypstr, math.log(hypothesis.score))


DECODER_SETTINGS: dict[str, Any] = {"wip": 0.1, "maxhmmpf": 3000, "maxwpf": 20}
"""``wip``: a lower word insertion probability than PocketSphinx' 0.65, against "eight" and "and" heard in noise.
The other two bound the hypotheses per frame: the open search takes half the time with the same word errors."""
RARE_WORDS = dict.fromkeys(("a", "and", "hundred", "point", "thousand", "zero"), 0.1)
"""Short or seldom used number words, which a grammar without probabilities hears too often."""
NO_SILENCE = 1e-3
"""Probability that an utterance begins or ends without silence."""

# Found with scripts/measure_embedded_asr.py: four voices, 40 commands and 32 other sentences each. A command explains
# the audio about as well as free phones do, and better than free words do; another sentence forced into the grammar
# does neither, or it covers a part of the audio only, or its text looks unlike the open one.
SCORE_UNIT = 1e-3
"""Log likelihood per frame in which margins are counted; PocketSphinx' scores come scaled down."""
SURE_MARGIN = 0.5
"""Margin over free phones from which the open search is not needed: 60 % of the commands, none of the others."""
ORDINARY_PACE = 8.0
"""Letters per second of speech below which the open search is asked in any case; the test voices speak 10 to 21."""
SLOWEST_PACE = 7.0
"""Letters per second below which a command does not cover the audio."""
WORD_WEIGHT, LENGTH_WEIGHT = 2.0, 2.0
MIN_AGREEMENT = 0.35
"""Keeps 97 % of the rightly heard commands and 2 % of the other sentences."""
OPEN_CONFIDENCE = 0.5
NOISE_WORDS = frozenset({"a", "ah", "and", "but", "huh", "hm", "in", "mm", "oh", "the", "uh", "um"})
"""What the open search makes of breath, clicks and hiss."""


def _confidence(evidence: float) -> float:
    return round(1 / (1 + math.exp(-evidence)), 3)


def _margin(command: Hypothesis, rival: Hypothesis, audio: bytes) -> float:
    """Return by how much a command explains the audio better than a rival, per frame, in SCORE_UNIT."""
    frames = len(audio) / 2 / FRAME_SAMPLES
    return (command.score - rival.score) / frames / SCORE_UNIT


def letters(text: str) -> int:
    """Return the length of a text without its spaces."""
    return len(text.replace(" ", ""))


def similarity(command: str, heard: str) -> float:
    """Return the evidence, positive or negative, that two texts are the same speech: common words, equal length."""
    words, others = set(command.split()), set(heard.split())
    common = len(words & others) / max(1, len(words | others))
    stretch = abs(math.log(max(1, letters(command)) / max(1, letters(heard))))
    return WORD_WEIGHT * common - LENGTH_WEIGHT * stretch


def prepare(pcm: bytes) -> tuple[bytes, float]:
    """Return the audio with dither in proportion to the speech, and the seconds from its first to its last sound.

    The audio is empty when it is too short or too quiet.
    """
    import numpy as np

    samples = np.frombuffer(pcm[: len(pcm) // 2 * 2], "<i2").astype(np.float32)
    if len(samples) < MIN_SECONDS * SAMPLE_RATE:
        return b"", 0.0
    power = (samples[: len(samples) // FRAME_SAMPLES * FRAME_SAMPLES].reshape(-1, FRAME_SAMPLES) ** 2).mean(
        axis=1
    )
    loud = float(np.sort(power)[int(len(power) * 0.7) :].mean())
    if loud < MIN_LEVEL**2:
        return b"", 0.0
    sounding = np.flatnonzero(power > loud * 10 ** (-SOUND_DB / 10))
    # A fixed seed: the same audio gives the same text.
    dither = np.random.default_rng(1).normal(0, math.sqrt(loud) * 10 ** (-DITHER_DB / 20), len(samples))
    audio = np.clip(samples + dither, -32768, 32767).astype("<i2").tobytes()
    return audio, float(sounding[-1] - sounding[0] + 1) / FRAMES_PER_SECOND


def _die_with_parent() -> None:
    """Ask Linux to end this process when the server dies, even in the middle of a search."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def main() -> int:
    """Serve frames until the end of input. Returns the exit code."""
    _die_with_parent()
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C reaches the whole group; the server decides when we stop
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    first = read_frame(source)
    if first is None:
        return 0
    try:
        recognizer = Recognizer(first[1].decode())
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        write_frame(sink, FAILURE, str(error).encode())
        return 1
    write_frame(sink, READY)
    while (frame := read_frame(source)) is not None:
        text, confidence, search = recognizer.recognise(frame[1])
        body = json.dumps({"text": text, "confidence": confidence, "search": search})
        write_frame(sink, RESULT, body.encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
