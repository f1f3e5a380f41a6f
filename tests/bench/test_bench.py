from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from mynah import bench
from mynah.bench import pacing, sockets, turn
from mynah.bench.report import Result, distribution, repeat
from mynah.errors import ConfigError, MynahError


def quick() -> Iterator[Result]:
    yield distribution("quick", "one", "ms", [3.0, 1.0, 2.0], "a note")


def broken() -> Iterator[Result]:
    yield distribution("broken", "first", "µs", [1.0])
    raise MynahError("no such machine")


@pytest.fixture
def benches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "BENCHES", {"quick": quick, "broken": broken})


def test_distribution() -> None:
    result = distribution("b", "c", "ms", [float(n) for n in range(101)])
    assert (result.best, result.p50, result.p95, result.p99, result.worst) == (0, 50, 95, 99, 100)
    assert result.count == 101


def test_repeat_measures_the_work() -> None:
    samples = repeat(lambda: sum(range(20000)), seconds=0, least=10)
    assert len(samples) == 10
    assert min(samples) > 20


@pytest.mark.usefixtures("benches")
def test_json_is_printed_and_recorded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "new" / "result.json"
    assert bench.run(True, ["quick"], output) == 0
    captured = capsys.readouterr()
    printed = json.loads(captured.out)
    assert printed == json.loads(output.read_text("utf-8"))
    assert printed["results"] == [
        {
            "bench": "quick",
            "case": "one",
            "unit": "ms",
            "count": 3,
            "best": 1.0,
            "p50": 2.0,
            "p95": 2.9,
            "p99": 2.98,
            "worst": 3.0,
            "note": "a note",
        }
    ]
    assert printed["machine"]["cores"] >= 1
    assert printed["date"].startswith("20")
    assert printed["command"]
    assert "measuring quick" in captured.err


@pytest.mark.usefixtures("benches")
def test_a_failed_measurement_is_named_and_the_rest_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.run(False) == 1
    out = capsys.readouterr().out
    assert "quick" in out
    assert "not measured: broken: no such machine" in out


@pytest.mark.usefixtures("benches")
def test_unknown_names_and_bad_files_are_configuration_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="slow"):
        bench.run(False, ["slow"])
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot write"):
        bench.run(False, ["quick"], tmp_path / "file" / "result.json")


@pytest.mark.e2e
def test_websocket_echo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "_ROUND_TRIPS", 50)
    monkeypatch.setattr(sockets, "_FRAMES", 500)
    trips, cost = sockets.websocket()
    assert trips.count == 50
    assert 0 < trips.p50 < 100_000
    assert cost.p50 > 0


def test_pacer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pacing, "_FRAMES", 6)
    monkeypatch.setattr(pacing, "_TALKERS", (1, 3))
    monkeypatch.setattr(pacing, "_SENTENCE_S", 0.3)
    monkeypatch.setattr(pacing, "_ARRIVE_S", 0.1)
    monkeypatch.setattr(pacing, "_CUT_AFTER_S", 0.2)
    results = list(pacing.pacer())
    assert [result.count for result in results if result.bench == "pacer jitter"] == [3, 300, 1200, 3000]
    assert all(abs(result.p50) < 50 for result in results if result.bench == "pacer jitter")
    first = {result.case: result for result in results if result.bench == "down-link, first audio"}
    assert list(first) == [
        "1 talker", "1 talker, interrupted after 0.2 s", "3 talkers", "3 talkers, interrupted after 0.2 s"
    ]  # fmt: skip
    assert first["3 talkers"].count == 3
    assert all(-5 < result.best < 1000 for result in first.values())
    costs = {result.bench: result.p50 for result in results if result.case == "3 talkers"}
    whole, encoding, loop = (
        costs[f"down-link, {part}"] for part in ("all threads", "encoding", "event loop")
    )
    assert 0 < encoding < whole
    assert 0 < loop < whole


@pytest.mark.e2e
@pytest.mark.speech
def test_a_turn_in_each_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turn, "TURNS", 2)
    results = {(result.bench, result.case): result for result in turn.turns()}
    manual = results["turn, manual", "listen stop → first audio"]
    assert manual.count == 2
    assert manual.p50 == pytest.approx(results["turn, manual", "above the fakes' delays"].p50 + 150)
    assert manual.best >= 150, "the fakes' delays cannot be saved without speculation"
    assert manual.worst < 2000
    assert results["turn, manual", "first audio with speculation"].best > 0
    stt = results["turn, auto", "end of speech → stt"]
    assert 50 < stt.best < results["turn, auto", "end of speech → first audio"].best
    assert stt.worst < 2000
    last_frame, stop = (result for (bench, _), result in results.items() if bench == "interrupt")
    assert last_frame.count == stop.count == 6
    assert 0 <= last_frame.worst <= stop.worst < 1000, "no frame after the stop"
