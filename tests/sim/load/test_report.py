import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mynah.errors import ConfigError
from mynah.sim.load import report as reports
from mynah.sim.load.record import FORMAT, LoadReport, Sample, Step, Warned
from tests.sim.load.reports import mixed

words = st.text(st.characters(codec="utf-8"))
numbers = st.floats(-1e12, 1e12)
loads = st.builds(
    LoadReport,
    target=words,
    command=words,
    evidence=words,
    reasons=st.lists(words, max_size=3),
    warnings=st.lists(st.builds(Warned, at_s=numbers, text=words), max_size=3),
    samples=st.lists(st.builds(Sample, at_s=numbers, lag_ms=numbers, machine_cpu=numbers), max_size=5),
    steps=st.lists(
        st.builds(
            Step,
            number=st.integers(0, 9),
            devices=st.integers(0, 10**6),
            began_s=numbers,
            ended_s=numbers,
            connects_per_s=numbers,
            errors=st.dictionaries(words, st.integers(0, 10**6), max_size=3),
            reasons=st.lists(words, max_size=3),
            passed=st.booleans(),
        ),
        max_size=4,
    ),
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(loads)
def test_what_is_written_is_read(tmp_path: Path, report: LoadReport) -> None:
    page = reports.write(report, tmp_path)
    assert page == tmp_path / "report.html"
    assert reports.read(tmp_path) == report
    assert reports.read(tmp_path / "report.json") == report


def test_a_whole_report_survives(tmp_path: Path) -> None:
    report = mixed()
    reports.write(report, tmp_path / "new" / "folder")
    assert reports.read(tmp_path / "new" / "folder") == report


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is not a load test report"),
        (b"\x00\xff", "is not a load test report"),
        (b"<html>", "is not a load test report"),
        (b"[1, 2]", "is not a load test report"),
        (b'{"results": []}', "is not a load test report"),
        (b'{"format": "one", "target": "", "steps": []}', "is not a load test report"),
        (b'{"format": 1, "target": "", "steps": [{"number": 1}]}', "damaged"),
        (json.dumps({"format": FORMAT + 1, "target": "", "steps": [{"new": 1}]}).encode(), "newer"),
    ],
)
def test_what_is_no_report_is_refused_with_a_remedy(tmp_path: Path, content: bytes, problem: str) -> None:
    path = tmp_path / "report.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=problem):
        reports.read(path)


def test_a_report_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*report\.json.*or its folder"):
        reports.read(tmp_path)


def test_a_huge_file_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "MAX_BYTES", 10)
    (tmp_path / "report.json").write_bytes(b"x" * 11)
    with pytest.raises(ConfigError, match="too large"):
        reports.read(tmp_path)


def test_fields_of_a_later_version_do_no_harm(tmp_path: Path) -> None:
    raw = json.loads(msgspec.json.encode(mixed()))
    raw["something_new"] = 1
    (tmp_path / "report.json").write_text(json.dumps(raw))
    assert reports.read(tmp_path) == mixed()


def test_bytes_on_the_command_line_that_are_no_text_do_not_cost_the_report(tmp_path: Path) -> None:
    odd = msgspec.structs.replace(mixed(), command="mynah loadtest \udcff", scenario={"say": ["\ud800"]})
    reports.write(odd, tmp_path)
    found = reports.read(tmp_path)
    assert found.command == "mynah loadtest ?"
    assert found.steps == odd.steps
