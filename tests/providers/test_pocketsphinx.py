"""The embedded recogniser: life and death of its worker processes, and what it understands."""

from __future__ import annotations

import asyncio
import io
import os
import shutil
import signal
import subprocess
import sys
import time
import wave
from collections.abc import AsyncIterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mynah.audio.opus import OpusDecoder, OpusEncoder
from mynah.audio.pcm import resample
from mynah.errors import ProviderTimeoutError, ProviderUnavailableError
from mynah.providers.asr import pocketsphinx_worker as worker
from mynah.providers.asr.pocketsphinx import PocketSphinxAsr, PocketSphinxOptions
from mynah.providers.base import AsrRequest, Transcript
from mynah.providers.commands import load_commands

DATA = yaml.safe_load(
    (Path(__file__).parent.parent / "data" / "spoken_commands.en.yaml").read_text(encoding="utf-8")
)
VOICES = ("slt", "rms", "awb")
needs_flite = pytest.mark.skipif(
    shutil.which("flite") is None, reason="flite (Debian package flite) is not installed"
)


@cache
def speech(text: str, voice: str = "slt") -> bytes:
    """Speak a text and send it through Opus, with silence around it as a segmenter leaves it."""
    with wave.open(io.BytesIO(_flite(text, voice))) as file:
        pcm = resample(file.readframes(file.getnframes()), file.getframerate(), 16_000)
    room = np.random.default_rng(0).normal(0, 2, (len(pcm) // 2) + 16_000 * 9 // 10)
    room[4_800 : 4_800 + len(pcm) // 2] += np.frombuffer(pcm, "<i2")
    samples = np.clip(room, -32768, 32767).astype("<i2").tobytes()
    encoder, decoder = OpusEncoder(16_000), OpusDecoder(16_000)
    frames = (samples[at : at + 1920] for at in range(0, len(samples) - 1919, 1920))
    return b"".join(decoder.decode(encoder.encode(frame)) for frame in frames)


def _flite(text: str, voice: str) -> bytes:
    command = ["flite", "-voice", voice, "-t", text, "-o", "/dev/stdout"]
    return subprocess.run(command, check=True, capture_output=True).stdout


def make(**options: Any) -> PocketSphinxAsr:
    return PocketSphinxAsr("Test", PocketSphinxOptions(type="pocketsphinx", **options))


@pytest.fixture
async def recogniser() -> AsyncIterator[PocketSphinxAsr]:
    provider = make()
    await provider.start()
    yield provider
    await provider.stop()


async def hear(provider: PocketSphinxAsr, pcm: bytes) -> Transcript:
    stream = provider.open_stream(AsrRequest())
    for at in range(0, len(pcm), 1920):
        stream.feed(pcm[at : at + 1920])
    return await stream.finish()


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


# ---------------------------------------------------------------- what it understands


@pytest.mark.speech
@needs_flite
@pytest.mark.parametrize("voice", VOICES)
async def test_spoken_commands_are_understood(recogniser: PocketSphinxAsr, voice: str) -> None:
    commands, wrong = load_commands("en"), []
    for command in DATA["commands"]:
        transcript = await hear(recogniser, speech(command["say"], voice))
        match = commands.match(transcript.text)
        understood = match and (match.tool, match.arguments, match.intent)
        if understood != (
            command["tool"],
            command["arguments"],
            command.get("intent", match and match.intent),
        ):
            wrong.append(f"{command['say']!r} was heard as {transcript.text!r}")
    assert len(wrong) <= len(DATA["commands"]) // 10, wrong


@pytest.mark.speech
@needs_flite
async def test_other_sentences_are_not_taken_for_commands(recogniser: PocketSphinxAsr) -> None:
    commands, taken = load_commands("en"), []
    sentences = DATA["other"][::2]  # half of them, for speed; scripts/measure_embedded_asr.py takes all
    for sentence in sentences:
        transcript = await hear(recogniser, speech(sentence))
        assert transcript.text, sentence
        if commands.match(transcript.text):
            taken.append(f"{sentence!r} was heard as {transcript.text!r}")
    assert len(taken) <= len(sentences) // 10, taken


@pytest.mark.speech
@needs_flite
async def test_text_is_natural_and_confidence_is_set(recogniser: PocketSphinxAsr) -> None:
    transcript = await hear(recogniser, speech("what time is it"))
    assert transcript.text == "what time is it"
    assert transcript.confidence is not None and 0.5 < transcript.confidence <= 1


async def test_silence_and_noise_are_nothing(recogniser: PocketSphinxAsr) -> None:
    rng = np.random.default_rng(5)
    for level in (0, 3, 40, 400, 3000):
        noise = rng.normal(0, level, 32_000).clip(-32768, 32767).astype("<i2").tobytes()
        assert (await hear(recogniser, noise)).text == "", level
    assert (await hear(recogniser, b"")).text == ""
    assert (await hear(recogniser, b"\x01\x02\x03")).text == ""


# ---------------------------------------------------------------- life and death of the workers


async def test_start_returns_at_once_and_stop_is_final() -> None:
    provider = make()
    with pytest.raises(ProviderUnavailableError, match="not running"):
        await provider.recognise(b"\0" * 32_000)
    began = time.monotonic()
    await provider.start()
    assert time.monotonic() - began < 1.0  # the models load in the other process
    await provider.recognise(b"\0" * 32_000)
    pids = provider.worker_pids
    assert len(pids) == 1
    await provider.stop()
    await provider.stop()
    assert not any(alive(pid) for pid in pids)
    with pytest.raises(ProviderUnavailableError):
        await provider.recognise(b"\0" * 32_000)


async def test_a_worker_that_dies_idle_is_replaced_unnoticed(recogniser: PocketSphinxAsr) -> None:
    await recogniser.recognise(b"\0" * 32_000)
    (pid,) = recogniser.worker_pids
    os.kill(pid, signal.SIGKILL)
    for _ in range(200):
        if not recogniser.worker_pids:
            break
        await asyncio.sleep(0.01)
    assert (await recogniser.recognise(b"\0" * 32_000)).text == ""
    assert recogniser.worker_pids != (pid,)


async def test_a_crash_fails_the_utterance_and_the_next_one_works(recogniser: PocketSphinxAsr) -> None:
    await recogniser.recognise(b"\0" * 32_000)
    (pid,) = recogniser.worker_pids
    os.kill(pid, signal.SIGSTOP)  # so that the utterance is surely in flight when the process dies
    utterance = asyncio.create_task(recogniser.recognise(b"\0" * 32_000))
    await asyncio.sleep(0.1)
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(ProviderUnavailableError) as caught:
        await utterance
    assert caught.value.retryable and caught.value.provider == "Test"
    assert (await recogniser.recognise(b"\0" * 32_000)).text == ""


async def test_a_stuck_worker_is_a_timeout_and_is_replaced() -> None:
    provider = make(timeout_s=8.0)  # the next worker loads its models within it, on a busy machine
    await provider.start()
    try:
        await provider.recognise(b"\0" * 32_000)
        (pid,) = provider.worker_pids
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(ProviderTimeoutError):
            await provider.recognise(b"\0" * 32_000)
        assert (await provider.recognise(b"\0" * 32_000)).text == ""
        assert not alive(pid)
    finally:
        await provider.stop()


async def test_a_full_queue_refuses_and_stop_fails_those_who_wait() -> None:
    provider = make(max_waiting=2)
    await provider.start()
    await provider.recognise(b"\0" * 32_000)
    os.kill(provider.worker_pids[0], signal.SIGSTOP)
    waiting = []
    for _ in range(3):  # one in the worker, two in the queue
        waiting.append(asyncio.create_task(provider.recognise(b"\0" * 32_000)))
        await asyncio.sleep(0.05)
    with pytest.raises(ProviderUnavailableError, match="2 utterances"):
        await provider.recognise(b"\0" * 32_000)
    await provider.stop()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(result) for result in results] == [ProviderUnavailableError] * 3


async def test_cancelled_streams_are_never_searched(recogniser: PocketSphinxAsr) -> None:
    stream = recogniser.open_stream(AsrRequest())
    stream.feed(b"\x10\x10" * 16_000)
    stream.cancel()
    stream.cancel()
    stream.feed(b"\x10\x10" * 16_000)
    assert await stream.finish() == Transcript("")


async def test_only_the_beginning_of_an_endless_utterance_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    provider = make(max_utterance_s=1.0)
    seen: list[int] = []

    async def recognise(pcm: bytes) -> Transcript:
        seen.append(len(pcm))
        return Transcript("")

    monkeypatch.setattr(provider, "recognise", recognise)
    await hear(provider, b"\0" * 200_000)
    assert seen == [32_000]


async def test_a_grammar_that_does_not_load_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def jsgf(self) -> str:
            return "#JSGF V1.0;\ngrammar g;\npublic <command> = xyzzyplugh ;\n"

    monkeypatch.setattr("mynah.providers.asr.pocketsphinx.load_commands", lambda language: Broken())
    provider = make()
    await provider.start()
    try:
        with pytest.raises(ProviderUnavailableError, match="refused to start"):
            await provider.recognise(b"\0" * 32_000)
    finally:
        await provider.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="the parent-death signal is a Linux feature")
def test_workers_die_with_a_killed_server() -> None:
    code = """
import asyncio
from mynah.providers.asr.pocketsphinx import PocketSphinxAsr, PocketSphinxOptions
async def main():
    provider = PocketSphinxAsr("Test", PocketSphinxOptions(type="pocketsphinx"))
    await provider.start()
    await provider.recognise(bytes(32000))
    print(provider.worker_pids[0], flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        pid = int(server.stdout.readline())
        assert alive(pid)
        server.kill()
        deadline = time.monotonic() + 5
        while alive(pid) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not alive(pid)


# ---------------------------------------------------------------- the worker's own pieces


@given(st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=64)), max_size=5))
def test_frames_read_back(frames: list[tuple[int, bytes]]) -> None:
    pipe = io.BytesIO()
    for kind, body in frames:
        worker.write_frame(pipe, kind, body)
    pipe.seek(0)
    for frame in frames:
        assert worker.read_frame(pipe) == frame
    assert worker.read_frame(pipe) is None


@given(st.binary(max_size=64))
def test_any_bytes_are_frames_or_an_end_or_an_error(data: bytes) -> None:
    pipe = io.BytesIO(data)
    try:
        while worker.read_frame(pipe) is not None:
            pass
    except ValueError:
        pass


def test_similarity_counts_common_words_and_equal_length() -> None:
    assert worker.similarity("set a timer", "set a timer") == worker.WORD_WEIGHT
    assert worker.similarity("flip a coin", "for the korean") < worker.similarity(
        "flip a coin", "flip the korean"
    )
    assert worker.similarity("help", "my computer makes a strange noise") < -2
    assert worker.similarity("help", "") < 0


def test_dither_follows_the_level_and_pauses_are_not_speech() -> None:
    tone = np.sin(np.arange(16_000) * 0.3)
    for level in (1_000, 10_000):
        audio, seconds = worker.prepare((tone * level).astype("<i2").tobytes())
        dither = np.frombuffer(audio, "<i2") - tone * level
        assert dither.std() == pytest.approx(level * 2**-0.5 * 10 ** (-worker.DITHER_DB / 20), rel=0.1)
        assert seconds == pytest.approx(1.0, abs=0.02)
    padded = np.concatenate([np.zeros(8_000), tone * 5_000, np.zeros(8_000)]).astype("<i2").tobytes()
    assert worker.prepare(padded)[1] == pytest.approx(1.0, abs=0.02)
    assert worker.prepare((tone * 20).astype("<i2").tobytes()) == (b"", 0.0)
    assert worker.prepare(b"\x00\x40" * 1_000) == (b"", 0.0)


def test_every_word_of_the_grammar_can_be_pronounced() -> None:
    import pocketsphinx

    dictionary = Path(pocketsphinx.get_model_path("en-us/cmudict-en-us.dict")).read_text(encoding="utf-8")
    known = {line.split()[0] for line in dictionary.splitlines()}
    assert load_commands("en").vocabulary() <= known
