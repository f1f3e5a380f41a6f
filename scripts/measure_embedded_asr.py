"""Measure the embedded recogniser and write benchmarks/embedded_asr.json.

    .venv/bin/python scripts/measure_embedded_asr.py

Speaks tests/data/spoken_commands.en.yaml with four flite voices (Debian package ``flite``), sends it through Opus at
16 kHz in 60 ms frames with 300 ms of silence before and 600 ms after, and recognises it with the real provider and its
worker process. Takes ten minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import platform
import statistics
import subprocess
import time
import wave
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from mynah.audio.opus import OpusDecoder, OpusEncoder
from mynah.audio.pcm import resample
from mynah.providers.asr.pocketsphinx import PocketSphinxAsr, PocketSphinxOptions
from mynah.providers.base import AsrRequest
from mynah.providers.commands import load_commands

ROOT = Path(__file__).parent.parent
VOICES = ("slt", "rms", "awb", "kal")
RATE = 16_000


def speak(text: str, voice: str) -> np.ndarray:
    command = ["flite", "-voice", voice, "-t", text, "-o", "/dev/stdout"]
    wav = subprocess.run(command, check=True, capture_output=True).stdout
    with wave.open(io.BytesIO(wav)) as file:
        pcm = resample(file.readframes(file.getnframes()), file.getframerate(), RATE)
    return np.frombuffer(pcm, "<i2").astype(np.float32)


def through_opus(samples: np.ndarray) -> bytes:
    pcm = np.clip(samples, -32768, 32767).astype("<i2").tobytes()
    encoder, decoder = OpusEncoder(RATE), OpusDecoder(RATE)
    frames = (pcm[at : at + 1920] for at in range(0, len(pcm) - 1919, 1920))
    return b"".join(decoder.decode(encoder.encode(frame)) for frame in frames)


def utterance(text: str, voice: str, snr_db: float | None) -> bytes:
    """Return an utterance as a segmenter would cut it; without ``snr_db`` the room is nearly silent."""
    speech = speak(text, voice)
    level = 2.0 if snr_db is None else float(np.sqrt(np.mean(speech**2))) * 10 ** (-snr_db / 20)
    room = np.random.default_rng(0).normal(0, level, len(speech) + RATE * 9 // 10).astype(np.float32)
    room[RATE * 3 // 10 :][: len(speech)] += speech
    return through_opus(room)


def resident_mb(pid: int) -> float:
    """Return the resident set, file-backed pages such as the language model included."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    return round(next(int(line.split()[1]) for line in lines if line.startswith("Rss:")) / 1024, 1)


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / 100


class Measurement:
    """Runs the sets through one provider and collects the figures."""

    def __init__(self, provider: PocketSphinxAsr) -> None:
        self.provider = provider
        self.commands = load_commands("en")
        self.latencies: list[float] = []
        self.audio_seconds = 0.0

    async def hear(self, pcm: bytes) -> str:
        stream = self.provider.open_stream(AsrRequest())
        stream.feed(pcm)
        began = time.perf_counter()
        transcript = await stream.finish()
        self.latencies.append(time.perf_counter() - began)
        self.audio_seconds += len(pcm) / 2 / RATE
        return transcript.text

    async def spoken_commands(
        self, commands: list[dict[str, Any]], voice: str, snr_db: float | None
    ) -> dict[str, Any]:
        wrong = []
        for command in commands:
            text = await self.hear(utterance(command["say"], voice, snr_db))
            match = self.commands.match(text)
            if (
                match is None
                or (match.tool, match.arguments) != (command["tool"], command["arguments"])
                or match.intent != command.get("intent", match.intent)
            ):
                wrong.append({"said": command["say"], "heard": text})
        correct = len(commands) - len(wrong)
        return {
            "of": len(commands),
            "correct": correct,
            "accuracy": round(correct / len(commands), 3),
            "wrong": wrong,
        }

    async def other(self, sentences: list[str], voice: str, snr_db: float | None) -> dict[str, Any]:
        texts = {sentence: await self.hear(utterance(sentence, voice, snr_db)) for sentence in sentences}
        taken = [{"said": said, "heard": text} for said, text in texts.items() if self.commands.match(text)]
        return {"of": len(sentences), "taken_for_commands": len(taken), "wrong": taken}


async def measure(voices: list[str]) -> dict[str, Any]:
    data = yaml.safe_load((ROOT / "tests/data/spoken_commands.en.yaml").read_text(encoding="utf-8"))
    provider = PocketSphinxAsr("measured", PocketSphinxOptions(type="pocketsphinx"))
    began = time.perf_counter()
    await provider.start()
    started = time.perf_counter() - began
    await provider.recognise(bytes(RATE * 2))
    ready = time.perf_counter() - began
    (pid,) = provider.worker_pids
    idle_mb, cpu_before = resident_mb(pid), cpu_seconds(pid)
    run = Measurement(provider)
    results: dict[str, Any] = {}
    for name, commands, other, snr_db in (
        ("clean", "commands", "other", None),
        ("held_out", "held_out_commands", "held_out_other", None),
        ("white_noise_20_db", "commands", "", 20.0),
    ):
        results[name] = {}
        for voice in voices:
            figures: dict[str, Any] = {"commands": await run.spoken_commands(data[commands], voice, snr_db)}
            if other:
                figures["other"] = await run.other(data[other], voice, snr_db)
            results[name][voice] = figures
            print(
                name,
                voice,
                {kind: {k: v for k, v in one.items() if k != "wrong"} for kind, one in figures.items()},
            )
    cpu = cpu_seconds(pid) - cpu_before
    busy_mb = resident_mb(pid)
    await provider.stop()
    latencies = sorted(run.latencies)
    return {
        "command": "python scripts/measure_embedded_asr.py",
        "machine": {"python": platform.python_version(), "cpu": platform.processor() or platform.machine()},
        "versions": {"pocketsphinx": version("pocketsphinx")},
        "start": {"start_returns_s": round(started, 3), "models_ready_s": round(ready, 3)},
        "worker_resident_mb": {"idle": idle_mb, "after_run": busy_mb},
        "cpu_seconds_per_audio_second": round(cpu / run.audio_seconds, 3),
        "latency_s": {
            "median": round(statistics.median(latencies), 3),
            "p90": round(latencies[int(len(latencies) * 0.9)], 3),
            "max": round(latencies[-1], 3),
        },
        "results": results,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--voices", nargs="+", default=list(VOICES))
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/embedded_asr.json")
    arguments = parser.parse_args()
    figures = asyncio.run(measure(arguments.voices))
    arguments.output.parent.mkdir(exist_ok=True)
    arguments.output.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    print(json.dumps({key: value for key, value in figures.items() if key != "results"}, indent=2))


if __name__ == "__main__":
    main()
