import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mynah.errors import ConfigError
from mynah.sim.load.compare import compare, write
from mynah.sim.load.compare_data import Comparison, Difference, Figure
from mynah.sim.load.compare_page import render
from mynah.sim.load.noise import Change
from mynah.sim.load.record import Bottleneck, LoadReport, Stage, Step
from tests.sim.load.reports import idle, mixed
from tests.sim.load.test_page import text_of


def changed(report: LoadReport, **fields: Any) -> LoadReport:
    return msgspec.structs.replace(report, **fields)


def slower(report: LoadReport, factor: float) -> LoadReport:
    """The same server, whose answers take longer."""

    def step(one: Step) -> Step:
        first = one.times[Stage.FIRST_AUDIO]
        times = {name: getattr(first, name) * factor for name in ("mean", "p50", "p95", "p99", "max")}
        return changed(one, times=one.times | {Stage.FIRST_AUDIO: changed(first, **times)})

    return changed(report, steps=[step(one) for one in report.steps])


def change_of(found: Comparison, devices: int, figure: Figure) -> Change:
    (pair,) = (pair for pair in found.pairs if pair.devices == devices)
    (one,) = (one for one in pair.figures if one.figure is figure)
    return one.change


def table(found: Comparison, devices: str) -> list[list[str]]:
    """The rows of the table of a step, as read in English."""
    root = ET.fromstring(render(found))
    (rows,) = (
        [[text_of(cell).strip() for cell in line] for line in one.iter("tr")]
        for one in root.iter("table")
        if text_of(one.find("caption")).startswith(devices)  # type: ignore[arg-type]
    )
    return rows


def test_a_report_is_as_good_as_itself() -> None:
    found = compare(mixed(), mixed())
    assert [pair.devices for pair in found.pairs] == [100, 500, 1000, 2000, 5000]
    assert found.changes(Change.SAME) == sum(len(pair.figures) for pair in found.pairs)
    assert {one.about for one in found.cautions} == {Difference.CHECKS}
    assert "Nothing differs beyond noise" in render(found)


def test_slower_answers_are_seen_and_nothing_else() -> None:
    found = compare(mixed(), slower(mixed(), 1.6))
    for figure in (Figure.FIRST_AUDIO_P50, Figure.FIRST_AUDIO_P95):
        assert change_of(found, 2000, figure) is Change.WORSE
    assert change_of(found, 2000, Figure.CONNECT_P95) is Change.SAME
    assert change_of(compare(slower(mixed(), 1.6), mixed()), 2000, Figure.FIRST_AUDIO_P95) is Change.BETTER
    assert change_of(compare(mixed(), slower(mixed(), 1.04)), 2000, Figure.FIRST_AUDIO_P95) is Change.SAME


def test_the_table_has_both_values_their_ratio_and_what_it_means() -> None:
    rows = table(compare(mixed(), slower(mixed(), 2.0)), "2,000 devices, talkers: 200; passed in both")
    assert rows[0] == ["Figure", "Change", "Before", "After", "Ratio"]
    assert ["First audio p95", "▼ worse", "538 ms", "1,076 ms", "× 2.00"] in rows
    assert ["Success", "= within noise", "100 %", "100 %", "× 1.00"] in rows
    assert ["Lost connections", "= within noise", "0", "0", "–"] in rows


def test_steps_are_paired_by_their_devices() -> None:
    a, b = mixed((100, 500, 1000)), mixed((500, 1000, 2000))
    found = compare(a, b)
    assert [(pair.devices, pair.before, pair.after) for pair in found.pairs] == [(500, 2, 1), (1000, 3, 2)]
    assert found.only_before == [100]
    assert found.only_after == [2000]
    twice = changed(a, steps=[a.steps[0], changed(a.steps[0], number=2)])
    assert [(pair.before, pair.after) for pair in compare(twice, twice).pairs] == [(1, 1), (2, 2)]
    none = compare(mixed((100,)), mixed((200,)))
    assert "nothing can be compared" in render(none)


def test_what_only_one_server_shows_is_not_judged() -> None:
    found = compare(mixed((100, 500)), idle((100, 500)))
    assert change_of(found, 500, Figure.SERVER_MEMORY) is Change.UNKNOWN
    assert change_of(found, 500, Figure.FIRST_AUDIO_P95) is Change.UNKNOWN
    assert change_of(found, 100, Figure.CONNECT_P95) is Change.SAME
    assert "? only in one" in text_of(ET.fromstring(render(found)))


@pytest.mark.parametrize(
    ("other", "about", "name"),
    [
        ({"machine": changed(mixed().machine, cores=8)}, Difference.MACHINE, "cores"),
        ({"machine": changed(mixed().machine, memory=16_000_000_000)}, Difference.MACHINE, "memory"),
        ({"scenario": mixed().scenario | {"hold_s": 99.0}}, Difference.SCENARIO, "hold_s"),
        ({"scenario": mixed().scenario | {"mode": "manual"}}, Difference.SCENARIO, "mode"),
        (
            {
                "scenario": mixed().scenario
                | {"thresholds": mixed().scenario["thresholds"] | {"late_share": 0.1}}
            },
            Difference.SCENARIO,
            "thresholds.late_share",
        ),
        ({"version": "9.9"}, Difference.VERSION, ""),
        ({"format": 2}, Difference.FORMAT, ""),
        ({"interrupted": True}, Difference.INTERRUPTED, ""),
        ({"bottleneck": Bottleneck.GENERATOR}, Difference.GENERATOR, ""),
    ],
)
def test_what_else_differs_is_a_caution(other: dict[str, Any], about: Difference, name: str) -> None:
    found = compare(mixed(), changed(mixed(), **other))
    assert (about, name) in {(one.about, one.name) for one in found.cautions}
    assert about not in {one.about for one in compare(mixed(), mixed()).cautions}


def test_other_steps_and_a_little_memory_are_no_caution() -> None:
    machine = changed(mixed().machine, memory=mixed().machine.memory - 50_000_000)
    scenario = mixed().scenario | {"steps": [1], "name": "mine"}
    found = compare(mixed(), changed(mixed(), machine=machine, scenario=scenario))
    assert {one.about for one in found.cautions} == {Difference.CHECKS}


def test_a_scenario_from_a_file_is_the_same_as_in_memory() -> None:
    in_memory = changed(mixed(), scenario=mixed().scenario | {"pause_s": (0.5, 2.0)})
    assert not [one for one in compare(mixed(), in_memory).cautions if one.about is Difference.SCENARIO]


def test_what_a_process_needs_anyway_is_no_memory_of_few_devices() -> None:
    def grown(devices: int) -> Change:
        report = mixed((devices,))
        (step,) = report.steps
        assert step.server is not None
        server = changed(
            step.server, resident=int(step.server.resident + 0.9e6 + 15_000 * (devices > 1000) * devices)
        )
        other = changed(report, steps=[changed(step, server=server)])
        return change_of(compare(report, other), devices, Figure.MEMORY_PER_DEVICE)

    assert grown(100) is Change.SAME
    assert grown(5000) is Change.WORSE


def test_other_talkers_are_a_caution() -> None:
    report = mixed((100,))
    found = compare(report, changed(report, steps=[changed(report.steps[0], talkers=50)]))
    (one,) = (one for one in found.cautions if one.about is Difference.TALKERS)
    assert (one.name, one.before, one.after) == ("100", "10", "50")
    assert "talkers: 10 → 50" in render(found)


@pytest.mark.parametrize(
    ("a", "b"),
    [(LoadReport(), LoadReport()), (mixed(), LoadReport()), (idle(), mixed()), (mixed(), idle((500, 5000)))],
)
def test_the_page_is_well_formed_and_needs_nothing_from_outside(a: LoadReport, b: LoadReport) -> None:
    page = render(compare(a, b))
    root = ET.fromstring(page)
    assert not [
        e for e in root.iter() if {"src", "href", "style"} & e.attrib.keys() or e.tag in {"script", "link"}
    ]


evil = st.sampled_from(["<script>alert(1)</script>", '"><img src=x>', "\x00\ud800", "ok"])


@given(evil, evil)
def test_what_others_wrote_cannot_do_anything(one: str, other: str) -> None:
    a = LoadReport(target=one, started=one, version=one, evidence=one, scenario={one: one})
    b = LoadReport(target=other, started=one, version=other, evidence=other, scenario={other: [other]})
    page = render(compare(a, b))
    ET.fromstring(page.encode())
    assert not re.search("<script|<img", page)


def test_both_files_are_written(tmp_path: Path) -> None:
    page = write(mixed(), slower(mixed(), 2), tmp_path / "new")
    assert page == tmp_path / "new" / "compare.html"
    raw = (tmp_path / "new" / "compare.json").read_bytes()
    assert msgspec.json.decode(raw, type=Comparison) == compare(mixed(), slower(mixed(), 2))
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError):
        write(mixed(), mixed(), tmp_path / "file")
