"""Speech for tests and demos: a text becomes 16 kHz PCM, spoken by flite (English) or eSpeak NG (everything else).

flite's voices are recordings of people cut up and put together again, so recognisers understand them much better
than eSpeak's formant voice; English falls back to the latter when flite is not installed and no voice was asked for.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from mynah.audio.espeak import MAX_TEXT, EspeakSynthesizer, Span
from mynah.audio.espeak import SAMPLE_RATE as ESPEAK_RATE
from mynah.audio.pcm import read_audio, resample
from mynah.errors import AudioError

SAMPLE_RATE = 16000
"""Rate of all speech from here, in Hz."""

FLITE_VOICES = ("slt", "kal", "awb", "rms")
"""A woman and three men; kal is the oldest and hardest to understand."""

DEFAULT_VOICE = "slt"

_FLITE_TIMEOUT_S = 60.0
"""flite works some fifty times faster than real time, so even the longest text takes seconds."""

_CJK = re.compile(r"[\u3400-\u9fff]")
_ESPEAK_VOICES = {"en": "en-us", "zh": "cmn"}


def language_of(text: str) -> str:
    """Guess the language of a text by its script: ``zh`` or ``en``."""
    return "zh" if _CJK.search(text) else "en"


def speak(text: str, voice: str = DEFAULT_VOICE, *, language: str = "") -> bytes:
    """Return ``text`` as speech: 16 kHz s16le mono. Blocking; what was said once comes from a cache on disk.

    ``voice`` is one of `FLITE_VOICES` (English only) or the name of an eSpeak NG voice. An empty ``language`` is
    guessed from the text. Raises AudioError.
    """
    if not text.strip():
        raise AudioError("there is no text to speak")
    if len(text) > MAX_TEXT:
        raise AudioError(f"{len(text)} characters are too long for one utterance (limit {MAX_TEXT})")
    language = language or language_of(text)
    flite = shutil.which("flite") if language == "en" and voice in FLITE_VOICES else None
    if flite is not None:
        speaker = f"flite-{voice}"
    elif voice not in FLITE_VOICES:
        speaker = voice
    elif language == "en" and voice != DEFAULT_VOICE:
        raise AudioError(f"the voice {voice!r} needs flite: apt-get install flite")
    else:
        speaker = _ESPEAK_VOICES.get(language, language)
    folder = _cache_folder()
    cached = folder / (hashlib.sha256(f"{speaker}\0{text}".encode()).hexdigest() + ".pcm")
    if cached.is_file():
        return cached.read_bytes()
    pcm = _flite(flite, text, voice, folder) if flite else _espeak(text, speaker)
    if not pcm:
        raise AudioError(f"nothing in {text!r} can be spoken")
    _store(cached, pcm)
    return pcm


def _flite(program: str, text: str, voice: str, folder: Path) -> bytes:
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        wav = Path(scratch) / "speech.wav"
        command = [program, "-voice", voice, "-t", text, "-o", str(wav)]
        try:
            done = subprocess.run(command, capture_output=True, timeout=_FLITE_TIMEOUT_S, check=False)  # noqa: S603
        except (OSError, subprocess.TimeoutExpired) as error:
            raise AudioError(f"flite failed: {error}") from error
        # flite ends with 0 even when it does not know the voice and takes another one.
        if done.returncode != 0 or not wav.is_file() or b"unknown voice" in done.stderr.lower():
            raise AudioError(
                f"flite failed: {done.stderr.decode(errors='replace').strip() or done.returncode}"
            )
        return read_audio(wav, SAMPLE_RATE)


def _espeak(text: str, voice: str) -> bytes:
    synthesizer = EspeakSynthesizer()
    try:
        pcm = synthesizer.render([Span(text, voice)])
    except AudioError as error:
        raise AudioError(f"{error}; for English speech also: apt-get install flite") from error
    finally:
        synthesizer.close()
    return resample(pcm, ESPEAK_RATE, SAMPLE_RATE)


def _cache_folder() -> Path:
    """Return a folder in the temporary one that belongs to this user alone."""
    folder = Path(tempfile.gettempdir()) / f"mynah-voice-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise AudioError(f"{folder} belongs to somebody else: remove it, or set TMPDIR")
    return folder


def _store(path: Path, pcm: bytes) -> None:
    """Write a cache entry in one step, so that a reader in another process never sees half of it."""
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        file.write(pcm)
    Path(file.name).replace(path)
