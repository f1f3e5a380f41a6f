"""A voice detector may do what it wants: the ingest worker lives, and the others are heard."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mynah.errors import ProviderError, ProviderProtocolError
from mynah.providers import vad_guard
from mynah.providers.vad_guard import GuardedVadEngine
from tests.audio.uplink import LevelEngine, Sink, decoded, flushed, running, speech

SLOTS = np.arange(3)
CHUNKS = np.full((3, 512), 0.25, np.float32)


class Foreign(LevelEngine):
    """Does with a call what ``act`` does: raises, or answers something."""

    def __init__(self, act: Callable[[], Any]) -> None:
        super().__init__()
        self.act: Callable[[], Any] | None = act

    def open(self) -> int:
        return super().open() if self.act is None else int(self.act())

    def close(self, slot: int) -> None:
        if self.act is not None:
            self.act()
        super().close(slot)

    def process(self, slots: NDArray[np.intp], chunks: NDArray[np.float32]) -> NDArray[np.float32]:
        if self.act is not None:
            result: NDArray[np.float32] = self.act()
            return result
        return super().process(slots, chunks)


def fail() -> Any:
    raise KeyError("a plug-in's bug")


async def test_what_a_detector_raises_does_not_end_hearing() -> None:
    reports: list[ProviderError] = []
    engine, sink = Foreign(fail), Sink()
    packets = speech(6)
    async with running(GuardedVadEngine(engine, "odd", reports.append)) as ingest:
        assert ingest.failed is not None
        stream = ingest.open(sink)
        for packet in packets[:3]:
            stream.push(packet)
        await flushed(stream, sink)
        assert sink.probabilities == []
        engine.act = None
        for packet in packets[3:]:
            stream.push(packet)
        await flushed(stream, sink)
        assert sink.pcm == decoded(packets)
        assert sink.probabilities, "it is listened to again as soon as it works"
        engine.act = fail
        stream.close()
        again = ingest.open(sink)
        again.push(packets[0])
        await flushed(again, sink)
        assert not ingest.failed.done()
    assert [(error.provider, "KeyError" in str(error)) for error in reports] == [("odd", True)]


@pytest.mark.parametrize(
    "result",
    [
        np.zeros(2, np.float32),
        np.zeros((3, 1), np.float32),
        np.array([0.5, np.nan, 0.5]),
        np.array([0.5, np.inf, 0.5]),
        None,
        ["a", "b", "c"],
    ],
    ids=str,
)
def test_results_that_are_no_probabilities_are_an_error(result: Any) -> None:
    engine = GuardedVadEngine(Foreign(lambda: result), "odd", lambda error: None)
    with pytest.raises(ProviderError):
        engine.process(SLOTS, CHUNKS)


def test_a_wrong_number_of_results_names_both() -> None:
    engine = GuardedVadEngine(Foreign(lambda: [0.5, 0.5]), "odd", lambda error: None)
    with pytest.raises(ProviderProtocolError, match=r"3 .*\(2,\)"):
        engine.process(SLOTS, CHUNKS)


def test_a_good_detector_is_passed_through() -> None:
    inner = LevelEngine()
    engine = GuardedVadEngine(inner, "good", lambda error: pytest.fail(str(error)))
    assert engine.chunk_samples == 512
    slots = np.array([engine.open() for _ in range(3)])
    assert engine.process(slots, CHUNKS) == pytest.approx(0.25)
    for slot in slots.tolist():
        engine.close(slot)
    assert not inner.taken


def test_errors_are_reported_once_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 500.0
    monkeypatch.setattr(vad_guard.time, "monotonic", lambda: now)
    reports: list[ProviderError] = []
    engine = GuardedVadEngine(Foreign(fail), "odd", reports.append)
    for _ in range(10):
        engine.close(0)
        with pytest.raises(ProviderError):
            engine.open()
    assert len(reports) == 1
    now += vad_guard.REPORT_PAUSE_S
    engine.close(0)
    assert len(reports) == 2
