"""The real loading and asking, with networks of one layer in the published format."""

from __future__ import annotations

import asyncio
import math
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mynah.config import load
from mynah.errors import ProviderError, ProviderProtocolError, ProviderUnavailableError
from mynah.providers import registry
from mynah.providers.base import Kind
from mynah.providers.turn.smart_turn import MAX_QUESTIONS, SmartTurn
from tests.providers.turn import tiny_network, written_out
from tests.providers.turn.test_features import melody, signals

SILERO = Path(__file__).parents[2] / "data" / "silero_vad.onnx"


def make(model: Path | str, **options: Any) -> SmartTurn:
    entry = {"type": "smart_turn", "model": str(model), **options}
    provider = registry.create(Kind.TURN_DETECTOR, "SmartTurn", entry)
    assert isinstance(provider, SmartTurn)
    return provider


def expected(pcm: bytes, factor: float = 1.0) -> float:
    flat = written_out.features(pcm).reshape(1, -1)
    total = (flat @ (tiny_network.weights() * factor).astype(float))[0, 0] + tiny_network.BIAS[0]
    return 1 / (1 + math.exp(-total))


async def failure(provider: SmartTurn) -> str:
    with pytest.raises(ProviderError) as caught:
        await provider.start()
    assert caught.value.provider == "SmartTurn"
    await provider.stop()
    return str(caught.value)


# ---------------------------------------------------------------- answers


@pytest.mark.parametrize("threads", [1, 2])
async def test_gives_what_the_network_says_about_the_last_eight_seconds(tmp_path: Path, threads: int) -> None:
    provider = make(tiny_network.write(tmp_path / "tiny.onnx"), threads=threads)
    await provider.start()
    noise = signals()["noise"]
    sounds = [b"", b"\x01", melody(), noise[:2000], noise[: 2 * 127999], noise, noise * 20]
    answers = [await provider.probability(sound) for sound in sounds]
    assert answers == pytest.approx([expected(sound) for sound in sounds], abs=1e-4)
    assert np.ptp(answers) > 0.01, "or the comparison shows little"
    await provider.stop()


@pytest.mark.parametrize("shape", [(1, 80, 800), ("n", "bands", "frames")])
async def test_a_file_may_fix_the_batch_or_leave_all_sizes_open(
    tmp_path: Path, shape: tuple[Any, ...]
) -> None:
    provider = make(tiny_network.write(tmp_path / "tiny.onnx", shape=shape))
    await provider.start()
    assert await provider.probability(melody()) == pytest.approx(expected(melody()), abs=1e-4)
    await provider.stop()


def test_threshold_is_an_option(tmp_path: Path) -> None:
    assert make(tmp_path / "x").threshold == 0.5
    assert make(tmp_path / "x", threshold=0.7).threshold == 0.7


async def test_works_again_after_a_stop_and_not_without_a_start(tmp_path: Path) -> None:
    provider = make(tiny_network.write(tmp_path / "tiny.onnx"))
    for _ in range(2):
        with pytest.raises(ProviderError, match="not started"):
            await provider.probability(b"")
        await provider.start()
        await provider.start()
        assert 0 < await provider.probability(b"") < 1
        await provider.stop()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("turn-SmartTurn")]


# ---------------------------------------------------------------- what can be wrong with the file


async def test_a_missing_file_says_where_to_get_it_and_where_to_put_it(tmp_path: Path) -> None:
    message = await failure(make(tmp_path / "models" / "turn.onnx"))
    assert str(tmp_path / "models" / "turn.onnx") in message
    assert "https://huggingface.co/pipecat-ai/smart-turn-v3" in message
    assert "TurnDetector.SmartTurn.model" in message


async def test_a_missing_package_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    message = await failure(make(tiny_network.write(tmp_path / "tiny.onnx")))
    assert "pip install 'mynah-server[turn]'" in message


async def test_the_package_is_imported_by_the_start_only() -> None:
    code = "import sys; from mynah.providers import registry; registry.available(); print('onnxruntime' in sys.modules)"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    assert (await process.communicate())[0].strip() == b"False"


@pytest.mark.parametrize(
    "content", [b"", b"<html>404: Not Found</html>", b"version https://git-lfs.github.com/spec/v1\n"]
)
async def test_a_file_that_is_no_network_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "wrong.onnx"
    path.write_bytes(content)
    message = await failure(make(path))
    assert f"{path} " in message
    assert "complete" in message


async def test_half_a_download_is_named(tmp_path: Path) -> None:
    path = tiny_network.write(tmp_path / "tiny.onnx")
    path.write_bytes(path.read_bytes()[:100_000])
    assert "complete" in await failure(make(path))


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"input_name": "audio"}, "audio tensor(float)"),
        ({"shape": ("batch_size", 128, 800)}, "128"),
        ({"shape": ("batch_size", 80, 3000)}, "3000"),
        ({"shape": (2, 80, 800)}, "[2, 80, 800]"),
        ({"shape": ("batch_size", 80)}, "80]"),
        ({"outputs": 2}, "more_1"),
        ({"last": "Identity", "factor": 40.0}, "no probability"),
    ],
    ids=str,
)
async def test_another_network_is_told_from_the_right_one(
    tmp_path: Path, options: dict[str, Any], part: str
) -> None:
    message = await failure(make(tiny_network.write(tmp_path / "other.onnx", **options)))
    assert "not a Smart Turn v3 network" in message
    assert part in message


async def test_a_voice_detector_is_told_from_a_turn_detector() -> None:
    message = await failure(make(SILERO))
    assert "not a Smart Turn v3 network" in message
    assert "input_features of 1 x 80 x 800" in message
    assert "state tensor(float)" in message


async def test_an_answer_that_is_no_probability_is_an_error(tmp_path: Path) -> None:
    """Without its last step the network gives -1.5 … 1.5; for silence that may look like a probability."""
    path = tiny_network.write(tmp_path / "raw.onnx", last="Identity")
    provider = make(path)
    provider._check = lambda *_: None  # type: ignore[method-assign]
    await provider.start()
    sounds = [signals()[name] for name in ("noise", "tone", "chirp", "silence")]
    outcomes = await asyncio.gather(
        *(provider.probability(sound) for sound in sounds), return_exceptions=True
    )
    assert any(isinstance(outcome, ProviderProtocolError) for outcome in outcomes)
    assert all(isinstance(outcome, ProviderProtocolError) or 0 <= outcome <= 1 for outcome in outcomes)
    await provider.stop()


# ---------------------------------------------------------------- many at once


class SlowSession:
    """Stands in for the network: waits until it may go on, and counts."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.calls = 0
        self.threads: set[int] = set()

    def run(self, names: None, inputs: dict[str, Any]) -> list[Any]:
        self.calls += 1
        self.threads.add(threading.get_ident())
        assert self.go.wait(20)
        return [np.array([[0.75]], np.float32)]


async def slow(tmp_path: Path) -> tuple[SmartTurn, SlowSession]:
    provider, session = make(tiny_network.write(tmp_path / "tiny.onnx")), SlowSession()
    await provider.start()
    provider._session = session
    return provider, session


async def until(condition: Any) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


async def test_too_many_questions_are_refused_at_once_and_the_others_answered(tmp_path: Path) -> None:
    provider, session = await slow(tmp_path)
    accepted = [asyncio.create_task(provider.probability(b"")) for _ in range(MAX_QUESTIONS)]
    await asyncio.sleep(0)
    with pytest.raises(ProviderUnavailableError, match="waiting already") as caught:
        await provider.probability(b"")
    assert caught.value.retryable
    session.go.set()
    assert await asyncio.gather(*accepted) == [0.75] * MAX_QUESTIONS
    assert len(session.threads) == 1
    assert await provider.probability(b"") == 0.75
    await provider.stop()


async def test_a_question_that_was_given_up_is_not_worked_on_and_makes_room(tmp_path: Path) -> None:
    provider, session = await slow(tmp_path)
    asked = [asyncio.create_task(provider.probability(b"")) for _ in range(MAX_QUESTIONS)]
    await until(lambda: session.calls == 1)
    for task in asked:
        task.cancel()
    await asyncio.wait(asked)
    # The first is still in work: its place is taken.
    again = [asyncio.create_task(provider.probability(b"")) for _ in range(MAX_QUESTIONS - 1)]
    await asyncio.sleep(0)
    with pytest.raises(ProviderUnavailableError):
        await provider.probability(b"")
    session.go.set()
    assert await asyncio.gather(*again) == [0.75] * (MAX_QUESTIONS - 1)
    assert session.calls == MAX_QUESTIONS
    await provider.stop()


async def test_the_event_loop_goes_on_while_the_network_works(tmp_path: Path) -> None:
    provider, session = await slow(tmp_path)
    asked = asyncio.create_task(provider.probability(b""))
    await until(lambda: session.calls == 1)
    assert not asked.done()
    session.go.set()
    assert await asked == 0.75
    await provider.stop()


async def test_stopping_answers_the_question_in_work_and_refuses_the_others(tmp_path: Path) -> None:
    provider, session = await slow(tmp_path)
    asked = [asyncio.create_task(provider.probability(b"")) for _ in range(3)]
    await until(lambda: session.calls == 1)
    stopping = asyncio.create_task(provider.stop())
    await asyncio.sleep(0.02)
    session.go.set()
    await stopping
    first, *others = await asyncio.gather(*asked, return_exceptions=True)
    assert first == 0.75
    assert all(isinstance(outcome, ProviderUnavailableError) for outcome in others)


async def test_what_the_network_raises_is_a_provider_error(tmp_path: Path) -> None:
    provider, session = await slow(tmp_path)

    def run(names: None, inputs: dict[str, Any]) -> list[Any]:
        raise RuntimeError("out of memory")

    session.run = run  # type: ignore[method-assign]
    with pytest.raises(ProviderError, match="out of memory"):
        await provider.probability(b"")
    await provider.stop()


def test_the_packaged_entry_is_selected_by_its_name() -> None:
    settings = load(None, ["selected_module.TurnDetector=SmartTurn"], environ={})
    name, entry = settings.entry(Kind.TURN_DETECTOR)
    provider = registry.create(Kind.TURN_DETECTOR, name, entry)
    assert isinstance(provider, SmartTurn)
    assert provider.options.model.startswith("data/models/")
