from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

from mynah.errors import ProviderError
from mynah.providers.vad.silero import SileroEngine, SileroOptions, SileroVad, limit_blas_threads
from tests.providers.vad_speech import Floats, chunked, needs_flite, noise, probabilities, sentence

NETWORK = Path(__file__).parent.parent / "data" / "silero_vad.onnx"


@pytest.fixture(scope="module")
def reference() -> Any:
    runtime = pytest.importorskip("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return runtime.InferenceSession(str(NETWORK), options, providers=["CPUExecutionProvider"])


def published(reference: Any, audio: Floats) -> Floats:
    """The published network, used as its own wrapper does."""
    state = np.zeros((2, 1, 128), np.float32)
    context = np.zeros((1, 64), np.float32)
    result = []
    for chunk in chunked(audio):
        whole = np.concatenate([context, chunk[None]], axis=1)
        inputs = {"input": whole, "state": state, "sr": np.array(16000, np.int64)}
        probability, state = reference.run(None, inputs)
        context = whole[:, -64:]
        result.append(probability[0, 0])
    return np.array(result)


def signals() -> dict[str, Floats]:
    t = np.arange(32000) / 16000
    return {
        "silence": np.zeros(16000, np.float32),
        "noise": noise(2, -20),
        "loud noise": np.clip(noise(2, 0), -1, 1),
        "tone": (0.5 * np.sin(2 * np.pi * 220 * t)).astype(np.float32),
        "buzz": (0.4 * np.sign(np.sin(2 * np.pi * 130 * t)) * (np.sin(2 * np.pi * 4 * t) > 0)).astype(
            np.float32
        ),
        "clicks": np.where(np.arange(32000) % 3000 < 5, 0.9, 0).astype(np.float32),
    }


@pytest.mark.parametrize("name", signals())
def test_agrees_with_the_published_network(reference: Any, name: str) -> None:
    audio = signals()[name]
    ours = probabilities(SileroEngine(), audio)
    assert np.max(np.abs(ours - published(reference, audio))) < 1e-4


@needs_flite
@pytest.mark.parametrize("voice", ["slt", "rms", "awb"])
def test_agrees_with_the_published_network_on_speech(reference: Any, voice: str) -> None:
    audio = np.concatenate([noise(0.5, -60), sentence(voice), noise(0.5, -60)])
    ours, theirs = probabilities(SileroEngine(), audio), published(reference, audio)
    assert np.max(np.abs(ours - theirs)) < 1e-4
    assert np.max(theirs) > 0.9, "or the comparison shows little"


@needs_flite
@pytest.mark.parametrize("voice", ["slt", "rms", "awb"])
def test_tells_speech_from_silence(voice: str) -> None:
    speech = sentence(voice)
    audio = np.concatenate([noise(1, -60), speech, noise(1, -60)])
    found = probabilities(SileroEngine(), audio)
    assert np.all(found[:28] < 0.35)
    assert np.mean(found[32 : 32 + len(speech) // 512] > 0.5) > 0.7
    assert np.all(found[-16:] < 0.35)


@pytest.mark.parametrize("name", ["silence", "noise", "clicks"])
def test_what_is_no_speech(name: str) -> None:
    assert np.max(probabilities(SileroEngine(), signals()[name])) < 0.5


def test_streams_in_a_batch_do_not_disturb_each_other() -> None:
    engine = SileroEngine()
    audio = [chunked(noise(1, -50 + 4 * index, seed=index)) for index in range(10)]
    alone = [probabilities(SileroEngine(), chunks.reshape(-1)) for chunks in audio]
    slots = np.array([engine.open() for _ in audio])
    rng = np.random.default_rng(0)
    position = [0] * len(audio)
    found: list[list[float]] = [[] for _ in audio]
    while any(at < len(audio[0]) for at in position):
        chosen = [
            i for i in rng.permutation(len(audio)) if position[i] < len(audio[0]) and rng.random() < 0.6
        ]
        if not chosen:
            continue
        result = engine.process(slots[chosen], np.stack([audio[i][position[i]] for i in chosen]))
        for index, probability in zip(chosen, result, strict=True):
            found[index].append(float(probability))
            position[index] += 1
    for together, single in zip(found, alone, strict=True):
        assert np.allclose(together, single, atol=1e-5)


@pytest.mark.parametrize(("streams", "length"), [(1, 2), (3, 5), (40, 7)])
def test_chunks_that_follow_each_other_in_one_call_are_as_good_as_single_ones(
    streams: int, length: int
) -> None:
    audio = [chunked(noise(1, -50 + 40 * index / streams, seed=index))[:length] for index in range(streams)]
    alone = np.concatenate([probabilities(SileroEngine(), chunks.reshape(-1)) for chunks in audio])
    engine = SileroEngine()
    slots = np.array([engine.open() for _ in audio])
    found = engine.process(np.repeat(slots, length), np.concatenate(audio))
    assert np.allclose(found, alone, atol=1e-5)
    # However the calls are cut, and in whatever order the streams come.
    engine = SileroEngine()
    slots = np.array([engine.open() for _ in audio])
    parts = [
        engine.process(
            np.tile(slots, len(piece[0])), np.concatenate([np.stack(row) for row in zip(*piece, strict=True)])
        )
        .reshape(-1, streams)
        .T
        for piece in ([chunks[:1] for chunks in audio], [chunks[1:] for chunks in audio])
    ]
    assert np.allclose(np.concatenate(parts, axis=1).reshape(-1), alone, atol=1e-5)


def test_a_batch_of_several_passes_keeps_its_order() -> None:
    engine, count = SileroEngine(), 150
    chunks = np.stack([chunked(noise(0.1, -60 + index / 3, seed=index))[0] for index in range(count)])
    slots = np.array([engine.open() for _ in range(count)])
    found = engine.process(slots, chunks)
    for index in range(0, count, 7):
        alone = engine.open()
        assert engine.process(np.array([alone]), chunks[index : index + 1])[0] == pytest.approx(
            found[index], abs=1e-5
        )


def test_slots_are_reused_afresh_and_grow() -> None:
    engine = SileroEngine()
    first = probabilities(engine, noise(1, -20))
    assert np.array_equal(probabilities(engine, noise(1, -20)), first)
    slots = [engine.open() for _ in range(100)]
    assert len(set(slots)) == 100
    chunks: NDArray[np.float32] = np.tile(chunked(noise(1, -20))[0], (100, 1))
    assert np.allclose(engine.process(np.array(slots), chunks), first[0], atol=1e-5)
    for slot in slots:
        engine.close(slot)
    assert len({engine.open() for _ in range(100)}) == 100


def test_growing_keeps_the_streams_states() -> None:
    engine = SileroEngine()
    audio = noise(1, -20)
    expected = probabilities(SileroEngine(), audio)
    slot, found = engine.open(), []
    for index, chunk in enumerate(chunked(audio)):
        if index == 5:
            for _ in range(200):
                engine.open()
        found.append(engine.process(np.array([slot]), chunk[None])[0])
    assert np.allclose(found, expected, atol=1e-5)


def test_a_batch_is_cheaper_than_single_streams() -> None:
    """A guard, not a measurement (`mynah bench` measures): 32 streams together cost less than half."""
    limit_blas_threads()
    engine = SileroEngine()
    slots = np.array([engine.open() for _ in range(32)])
    chunks = noise(32 * 512 / 16000, -20).reshape(32, 512)

    def best(run: Any) -> float:
        times = []
        for _ in range(10):
            begin = time.thread_time()
            run()
            times.append(time.thread_time() - begin)
        return min(times)

    together = best(lambda: engine.process(slots, chunks))
    alone = best(lambda: [engine.process(slots[i : i + 1], chunks[i : i + 1]) for i in range(32)])
    assert together < alone / 2


def test_blas_is_limited_with_the_wheel_of_numpy() -> None:
    assert limit_blas_threads()


async def test_provider() -> None:
    provider = SileroVad(
        "SileroVAD", SileroOptions(type="silero", min_silence_duration_ms=200, model_dir="x")
    )
    with pytest.raises(ProviderError, match="not started"):
        provider.engine()
    await provider.start()
    assert provider.engine() is provider.engine()
    assert provider.capabilities.min_silence_ms == 200
    assert provider.capabilities.threshold == 0.5
    await provider.stop()
    await provider.stop()


def test_options_are_checked() -> None:
    with pytest.raises(ValidationError, match="threshold_low"):
        SileroOptions(type="silero", threshold=0.3, threshold_low=0.4)
    with pytest.raises(ValidationError, match="treshold"):
        SileroOptions.model_validate({"type": "silero", "treshold": 0.3})
