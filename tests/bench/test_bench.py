from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from mynah import bench
from mynah.bench import pacing, sockets, turn
from mynah.bench.report import Result, distribution, repeat
from mynah.config import load
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


async def test_the_known_delays_follow_from_the_fakes() -> None:
    settings = load(turn.fakes_file(), environ={})
    # 50 ms recogniser, 50 ms to the first token, whose comma ends the first clause, 50 ms voice.
    assert await turn.known_delays_ms(settings) == 150
    one_sentence = load(
        turn.fakes_file(),
        ["LLM.FakeLLM.text=one two three four. And more.", "TTS.FakeTTS.delay_ms=0"],
        environ={},
    )
    # A full stop ends a sentence only when the next token begins with a space: the fifth token.
    assert await turn.known_delays_ms(one_sentence) == 50 + 50 + 4 * 10


async def test_only_fakes_have_known_delays() -> None:
    settings = load(turn.fakes_file(), ["selected_module.TTS=EspeakTTS"], environ={})
    with pytest.raises(ConfigError, match="fake"):
        await turn.known_delays_ms(settings)


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
    results = list(pacing.pacer())
    assert [result.count for result in results if result.bench == "pacer jitter"] == [3, 300, 3000]
    assert all(abs(result.p50) < 50 for result in results if result.bench == "pacer jitter")


@pytest.mark.e2e
def test_a_turn_in_each_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turn, "TURNS", 1)
    results = list(turn.turns())
    manual, above, auto, _, last_frame, stop = results
    assert manual.p50 == pytest.approx(above.p50 + 150)
    assert 0 < above.p50 < 500
    assert auto.p50 > 350
    assert 0 <= last_frame.p50 <= stop.p50 < 500  # no frame after the stop
