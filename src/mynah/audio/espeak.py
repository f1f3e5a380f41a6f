"""Speech from text in-process with eSpeak NG: no model, no download, a thousand times faster than real time.

The library (GPL-3.0) comes in the wheel ``espeakng-loader`` and is loaded when it is first used. It keeps
global state, so every utterance holds one lock; each `EspeakSynthesizer` works on one thread of its own. The
lock is held for a few milliseconds per sentence, and ctypes lets go of the GIL while the library works.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import re
import tempfile
import threading
import unicodedata
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np

from mynah.errors import AudioError

T = TypeVar("T")

SAMPLE_RATE = 22050
"""Rate of all audio from here, in Hz; the library has no other."""

MAX_TEXT = 2000
"""Longest text of one utterance, in characters: three minutes of speech, 8 MB, 0.2 s of work."""

_SYNCHRONOUS = 2  # AUDIO_OUTPUT_SYNCHRONOUS: espeak_Synth returns when the callback has had all audio
_BUFFER_MS = 50  # audio per callback; a tenth of a millisecond of work
_DONT_EXIT = 0x8000  # espeakINITIALIZE_DONT_EXIT: report missing data instead of ending the process
_UTF8 = 1  # espeakCHARS_UTF8
_RATE, _VOLUME, _PITCH, _RANGE, _WORD_GAP = 1, 2, 3, 4, 7  # espeak_PARAMETER
_LONGEST_DATA_PATH = (
    140  # the library cuts the path of its data at 160 bytes, file names included, without a word
)

_FIRST_PIECE_S = 0.06  # one device frame: playing can start with it
_PIECE_S = 0.4  # later pieces are larger, because each one wakes the event loop
_SILENCE = 100  # of 32767, -50 dB: below this the voice is not speaking
_LEAD_S = 0.005  # kept in front of the first sound, so that no consonant is clipped


class Delivery(msgspec.Struct, frozen=True):
    """How to speak. Chosen by measurement for a voice that is brisk, clear and does not clip."""

    rate_wpm: int = 165
    """Words per minute, 80 to 450."""
    pitch: int = 50
    """0 to 99."""
    pitch_range: int = 50
    """0 (a monotone) to 99."""
    volume: int = 90
    """0 to 200; at 100 loud vowels of some voices reach full scale."""
    word_gap: int = 0
    """Extra pause between words, in units of 10 ms."""


class Span(msgspec.Struct, frozen=True):
    """A stretch of text for one voice, such as ``en-us+f3``."""

    text: str
    voice: str
    delivery: Delivery = Delivery()


class EspeakVoice(msgspec.Struct, frozen=True):
    """A voice of the library. ``name`` is what `Span.voice` takes, such as ``en-gb``."""

    name: str
    description: str


AudioSink = Callable[[bytes], bool]
"""Takes PCM s16le mono at `SAMPLE_RATE`, on the worker thread. False stops; it must not raise."""


class EspeakSynthesizer:
    """Speaks one utterance at a time on a thread of its own. `close` it when done."""

    sample_rate = SAMPLE_RATE

    def __init__(self) -> None:
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="espeak")

    def submit(self, spans: Sequence[Span], on_audio: AudioSink, *, gap_s: float = 0.0) -> Future[None]:
        """Speak ``spans`` behind one another; audio goes to ``on_audio`` as it is made.

        Silence in front and behind is cut off, then ``gap_s`` seconds of it are added behind. The future ends
        with the utterance, or with AudioError for an unknown voice or a text that is too long.
        """
        return self._worker.submit(_speak, tuple(spans), on_audio, gap_s)

    def render(self, spans: Sequence[Span], *, gap_s: float = 0.0) -> bytes:
        """Speak ``spans`` and wait for all of it. Raises AudioError."""
        pieces: list[bytes] = []

        def keep(pcm: bytes) -> bool:
            pieces.append(pcm)
            return True

        self.submit(spans, keep, gap_s=gap_s).result()
        return b"".join(pieces)

    def voices(self) -> tuple[EspeakVoice, ...]:
        """Return the languages' voices, without variants. Raises AudioError when there is no library."""
        return self._worker.submit(_library_call, _Library.voices).result()

    def variants(self) -> tuple[str, ...]:
        """Return the names that may follow a ``+`` in a voice's name, such as ``f3``."""
        return self._worker.submit(_library_call, _Library.variants).result()

    def close(self) -> None:
        """Finish what was submitted, then let the thread go."""
        self._worker.shutdown(wait=True)


# ---------------------------------------------------------------- text


_MARKS = re.compile(r"[*_#~`|\\^]+")  # Markdown and the like: eSpeak would read out their names
_TRANSLATED = str.maketrans("，。？！：；、（）“”‘’【】…—～", ",.?!:;,()\"\"''()., ")
_WRITTEN_SYMBOLS = frozenset("°©®™")  # of the category that emoji are in too, and worth reading
_CJK = "㐀-䶿一-鿿〇"
_LATIN = r"[A-Za-zÀ-ɏ]"
_TOKEN = re.compile(
    rf"(?P<han>[{_CJK}]+)|(?P<latin>{_LATIN}(?:{_LATIN}|[0-9'’+-])*)|(?P<digits>\d+)|.", re.DOTALL
)
_HAN_LANGUAGES = frozenset({"zh", "cmn", "yue", "hak", "ja"})


def speakable(text: str) -> str:
    """Return ``text`` without what should not be read out: emoji, Markdown, control characters."""
    kept = []
    for char in _MARKS.sub(" ", text):
        category = unicodedata.category(char)
        if category in {"Cc", "Zl", "Zp"}:
            kept.append(" ")  # the library takes control characters for commands
        elif category in {"So", "Sk"} and char not in _WRITTEN_SYMBOLS:
            kept.append(" ")
        elif category not in {"Cf", "Cs", "Co", "Cn", "Me"} and not "\ufe00" <= char <= "\ufe0f":
            kept.append(char)
    return " ".join("".join(kept).split())


def script_runs(text: str, language: str) -> list[tuple[str, str]]:
    """Cut ``text`` into (language, stretch) by script: a Mandarin voice spells out English and the reverse.

    Chinese characters are Mandarin and Latin words English, unless ``language`` itself is written with them.
    Numbers belong to ``language``, punctuation to what stands before it. Joined, the stretches give ``text``.
    """
    han = language if language in _HAN_LANGUAGES else "zh"
    latin = "en" if language in _HAN_LANGUAGES else language
    runs: list[tuple[str, str]] = []
    pending = ""
    for match in _TOKEN.finditer(text):
        spoken_in = {"han": han, "latin": latin, "digits": language}.get(match.lastgroup or "")
        if spoken_in is None:
            if runs:
                runs[-1] = (runs[-1][0], runs[-1][1] + match[0])
            else:
                pending += match[0]
        elif runs and runs[-1][0] == spoken_in:
            runs[-1] = (spoken_in, runs[-1][1] + match[0])
        else:
            runs.append((spoken_in, pending + match[0]))
            pending = ""
    return runs or ([(language, pending)] if pending else [])


# ---------------------------------------------------------------- audio


class _Trimmer:
    """Cuts silence off both ends of a stream and gathers it into pieces of a useful size."""

    def __init__(self, sink: AudioSink) -> None:
        self._sink = sink
        self._ready = bytearray()
        self._silence = bytearray()  # may be the end, or a pause within; bounded by the pauses eSpeak makes
        self._started = False
        self._piece = round(_FIRST_PIECE_S * SAMPLE_RATE) * 2

    def feed(self, pcm: bytes) -> bool:
        """Take the next audio; False when the sink wants no more."""
        loud = np.flatnonzero(np.abs(np.frombuffer(pcm, "<i2").astype(np.int32)) > _SILENCE)
        if not loud.size:
            self._silence += pcm
            return True
        if not self._started:
            self._silence += pcm[: loud[0] * 2]
            keep = round(_LEAD_S * SAMPLE_RATE) * 2
            self._silence = self._silence[-keep:]
            pcm = pcm[loud[0] * 2 :]
            loud = loud - loud[0]
            self._started = True
        end = (int(loud[-1]) + 1) * 2
        self._ready += self._silence
        self._ready += pcm[:end]
        self._silence = bytearray(pcm[end:])
        return self._flush(self._piece)

    def finish(self, gap_s: float) -> None:
        """Hand over the rest, with ``gap_s`` seconds of silence behind."""
        if self._started:
            self._ready += bytes(round(gap_s * SAMPLE_RATE) * 2)
            self._flush(1)

    def _flush(self, at_least: int) -> bool:
        if len(self._ready) < at_least:
            return True
        piece = bytes(self._ready)
        self._ready.clear()
        self._piece = round(_PIECE_S * SAMPLE_RATE) * 2
        return self._sink(piece)


# ---------------------------------------------------------------- library


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
_lock = threading.Lock()  # the library keeps global state


class _VoiceRecord(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("languages", ctypes.c_void_p),  # a priority byte and a name that ends with 0, for each; then a 0
        ("identifier", ctypes.c_char_p),
        ("gender", ctypes.c_ubyte),
        ("age", ctypes.c_ubyte),
        ("variant", ctypes.c_ubyte),
        ("xx1", ctypes.c_ubyte),
        ("score", ctypes.c_int),
        ("spare", ctypes.c_void_p),
    )


class _Library:
    """The loaded and initialised library. Every use holds `_lock`."""

    def __init__(self) -> None:
        try:
            import espeakng_loader
        except ImportError as error:
            raise AudioError("eSpeak NG is not installed: pip install espeakng-loader") from error
        self._data = Path(espeakng_loader.get_data_path())
        try:
            self._lib = ctypes.CDLL(espeakng_loader.get_library_path())
        except OSError as error:
            raise AudioError(f"eSpeak NG cannot be loaded: {error}") from error
        self._lib.espeak_ListVoices.restype = ctypes.POINTER(ctypes.POINTER(_VoiceRecord))
        path = str(_short_path(self._data)).encode()
        rate = self._lib.espeak_Initialize(_SYNCHRONOUS, _BUFFER_MS, path, _DONT_EXIT)
        if rate != SAMPLE_RATE:
            raise AudioError(f"eSpeak NG cannot be initialised with the data in {self._data} (answer {rate})")
        self._sink: AudioSink | None = None
        self._callback = _Callback(self._on_samples)  # kept: ctypes does not keep it alive
        self._lib.espeak_SetSynthCallback(self._callback)
        self._voices, self._identifiers = self._list_voices()

    def _on_samples(self, samples: ctypes._Pointer[ctypes.c_short], count: int, _events: int) -> int:
        if self._sink is None:
            return 1
        if not samples or count <= 0:
            return 0
        return 0 if self._sink(ctypes.string_at(samples, count * 2)) else 1

    def speak(self, span: Span, sink: AudioSink) -> None:
        """Speak one stretch; returns when all of it went to ``sink``, or ``sink`` said stop."""
        language, plus, variant = span.voice.partition("+")
        name = self._identifiers.get(language, language) + plus + variant
        if self._lib.espeak_SetVoiceByName(name.encode()) != 0:
            raise AudioError(f"eSpeak NG has no voice {span.voice!r}")
        delivery = span.delivery
        for parameter, value in (
            (_RATE, delivery.rate_wpm),
            (_VOLUME, delivery.volume),
            (_PITCH, delivery.pitch),
            (_RANGE, delivery.pitch_range),
            (_WORD_GAP, delivery.word_gap),
        ):
            self._lib.espeak_SetParameter(parameter, value, 0)
        text = span.text.encode() + b"\0"
        self._sink = sink
        try:
            status = self._lib.espeak_Synth(text, ctypes.c_size_t(len(text)), 0, 1, 0, _UTF8, None, None)
        finally:
            self._sink = None
        if status != 0:
            raise AudioError(f"eSpeak NG could not speak (status {status})")

    def voices(self) -> tuple[EspeakVoice, ...]:
        """Return the voices by the names of their languages."""
        return self._voices

    def _list_voices(self) -> tuple[tuple[EspeakVoice, ...], dict[str, str]]:
        """Return the voices, and for every language's name the identifier that the library selects by."""
        records = self._lib.espeak_ListVoices(None)
        best: dict[str, tuple[int, str, str]] = {}
        index = 0
        while records[index]:
            record = records[index].contents
            for priority, name in _languages(record.languages):
                found = (priority, record.identifier.decode(), record.name.decode())
                best[name] = min(best.get(name, found), found)
            index += 1
        voices = tuple(EspeakVoice(name=name, description=best[name][2]) for name in sorted(best))
        return voices, {name: identifier for name, (_, identifier, _) in best.items()}

    def variants(self) -> tuple[str, ...]:
        """Return the names of the variants."""
        return tuple(sorted(path.name for path in (self._data / "voices" / "!v").iterdir()))


def _languages(address: int) -> list[tuple[int, str]]:
    """Read (priority, name) of each language of a voice; the lower priority is the better."""
    found = []
    while priority := ctypes.string_at(address, 1)[0]:
        name = ctypes.string_at(address + 1)
        found.append((priority, name.decode()))
        address += len(name) + 2
    return found


def _short_path(data: Path) -> Path:
    """Return a path to ``data`` that is short enough for the library."""
    if len(str(data).encode()) <= _LONGEST_DATA_PATH:
        return data
    folder = tempfile.TemporaryDirectory(prefix="espeak-")
    atexit.register(folder.cleanup)
    link = Path(folder.name) / data.name
    link.symlink_to(data)
    return link


@functools.cache
def _library() -> _Library:
    return _Library()


def _library_call(method: Callable[[_Library], T]) -> T:
    with _lock:
        return method(_library())


def _speak(spans: tuple[Span, ...], on_audio: AudioSink, gap_s: float) -> None:
    length = sum(len(span.text) for span in spans)
    if length > MAX_TEXT:
        raise AudioError(f"{length} characters are too long for one utterance (limit {MAX_TEXT})")
    wanted = True

    def feed(pcm: bytes) -> bool:
        nonlocal wanted
        wanted = trimmer.feed(pcm)
        return wanted

    trimmer = _Trimmer(on_audio)
    with _lock:
        library = _library()
        for span in spans:
            if wanted and span.text.strip():
                library.speak(span, feed)
    if wanted:
        trimmer.finish(gap_s)
