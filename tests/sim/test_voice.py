import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from mynah.audio.pcm import level_dbfs
from mynah.errors import AudioError
from mynah.sim import voice
from mynah.sim.voice import language_of, speak

needs_flite = pytest.mark.skipif(
    shutil.which("flite") is None, reason="flite is not installed: apt-get install flite"
)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


@needs_flite
@pytest.mark.parametrize("name", voice.FLITE_VOICES)
def test_flite_speaks_at_16_khz(name: str) -> None:
    pcm = speak("What time is it?", name)
    assert 0.7 < len(pcm) / 32000 < 2.5
    assert level_dbfs(pcm) > -35


@needs_flite
def test_what_was_said_once_comes_from_the_cache(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = speak("Hello there.")
    monkeypatch.setattr(subprocess, "run", None)
    assert speak("Hello there.") == first
    assert len(list(own_cache.rglob("*.pcm"))) == 1
    assert next(own_cache.iterdir()).stat().st_mode & 0o077 == 0


@needs_flite
def test_voices_and_texts_are_cached_apart() -> None:
    assert len({speak("One.", "slt"), speak("One.", "rms"), speak("Two.", "slt")}) == 3


def test_chinese_is_spoken_by_espeak() -> None:
    pcm = speak("现在几点了")
    assert 0.5 < len(pcm) / 32000 < 3
    assert level_dbfs(pcm) > -35
    assert speak("现在几点了", "cmn+f2") != pcm


def test_english_without_flite(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    assert np.frombuffer(speak("Hello."), "<i2").size > 4000
    with pytest.raises(AudioError, match="apt-get install flite"):
        speak("Hello.", "rms")


def test_a_broken_flite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "flite"
    program.write_text("#!/bin/sh\necho 'cannot do it' >&2\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(AudioError, match="flite failed: cannot do it"):
        speak("Hello.")
    program.write_text("")
    with pytest.raises(AudioError, match="flite failed"):
        speak("Hello.")


def test_an_unknown_espeak_voice() -> None:
    with pytest.raises(AudioError, match="no voice 'nonsense'"):
        speak("Hello.", "nonsense")


@pytest.mark.parametrize("text", ["", "   ", "x" * 2001])
def test_texts_that_cannot_be_spoken(text: str) -> None:
    with pytest.raises(AudioError, match=r"no text|too long"):
        speak(text)


def test_a_cache_of_somebody_else_is_not_used(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.getuid", lambda: 54321)
    with pytest.raises(AudioError, match="belongs to somebody else"):
        speak("Hello.")


def test_language_of() -> None:
    assert language_of("现在几点了 ok") == "zh"
    assert language_of("What time is it?") == "en"
