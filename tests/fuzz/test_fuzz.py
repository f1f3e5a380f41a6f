"""A short run of `make fuzz`, other inputs at each run, and all inputs that were found to hurt once."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from loguru import logger

from tests.fuzz import campaign
from tests.fuzz.campaign import FINDINGS, Campaign, Finding, keep, run_batch, table
from tests.fuzz.mutations import ODD_VALUES, Shape, json_sample, mutate
from tests.fuzz.targets import TARGETS, Target

INPUTS = 2000
"""For each target: a second for the slowest. `make fuzz` feeds a million."""
SEED = secrets.randbelow(10**6)
SLOW_MS = 500.0
"""Ten times what `make fuzz` allows: tests run side by side on machines that may be slow."""


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logger.disable("mynah")
    yield
    logger.enable("mynah")


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_input_is_refused_properly(name: str) -> None:
    batch = run_batch(TARGETS[name], SEED, 0, INPUTS)
    found = [f for f in batch.findings if f.kind != "slow" or float(f.detail.split()[0]) > SLOW_MS]
    kept = [keep(finding, SEED).relative_to(FINDINGS) for finding in found[:3]]
    assert not found, f"{len(found)} findings, e.g. {found[0]}; inputs: {kept}"
    assert batch.inputs == INPUTS
    assert batch.accepted, "no input was accepted: the samples are not valid any more"
    assert batch.refused or name in {"text.spoken and shown", "espeak.script_runs"}


@pytest.mark.parametrize("name", TARGETS)
def test_every_sample_is_accepted_or_refused(name: str) -> None:
    results = [TARGETS[name].feed(sample.data) for sample in TARGETS[name].corpus()]
    assert True in results


def saved() -> list[Path]:
    return sorted(path for path in FINDINGS.glob("*/*") if path.is_file())


@pytest.mark.parametrize("path", saved(), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_what_was_found_once_is_mended(path: Path) -> None:
    target = next(
        target for target in TARGETS.values() if campaign.folder_name(target.name) == path.parent.name
    )
    data = path.read_bytes()
    began = time.thread_time()
    target.feed(data)
    assert (time.thread_time() - began) * 1000 < SLOW_MS


# ---------------------------------------------------------------- the fuzzer itself


def test_the_same_seed_gives_the_same_input() -> None:
    for target in TARGETS.values():
        assert [target.input(7, i) for i in range(20)] == [target.input(7, i) for i in range(20)]
        assert len({target.input(7, i) for i in range(20)} | {target.input(8, i) for i in range(20)}) > 10


def test_the_places_of_a_sample_are_its_values_and_members() -> None:
    sample = json_sample(b'{"a": [1, "x\\"]"], "b": {}}')
    texts = {sample.data[span.start : span.end] for span in sample.spans}
    assert texts == {b'"a": [1, "x\\"]"]', b'[1, "x\\"]"]', b"1", b'"x\\"]"', b'"b": {}', b"{}", sample.data}
    with pytest.raises(ValueError, match="more than one"):
        json_sample(b"{} {}")


def test_input_is_damaged_and_bounded() -> None:
    samples = [json_sample(b'{"key": [1, 2, {"deep": "text"}]}')]
    made = [mutate(Random(i), samples, Shape.JSON, 3000) for i in range(2000)]
    assert all(len(data) <= 3000 for data in made)
    assert any(odd in data for odd in ODD_VALUES[-8:] if odd for data in made)
    assert sum(data == samples[0].data for data in made) < 400
    assert any(data.count(b'"deep"') == 2 for data in made)
    assert any(b"[" * 200 in data for data in made)


def _fail(data: bytes) -> bool:
    if len(data) > 60:
        raise KeyError("long")
    return True


def _die(data: bytes) -> bool:
    if data.startswith(b"\x00"):
        import os

        os._exit(3)
    return len(data) % 2 == 0


@pytest.mark.parametrize(("feed", "kind"), [(_fail, "KeyError at test_fuzz.py"), (_die, "killed")])
def test_findings_are_kept_and_the_run_goes_on(
    feed: object, kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plain = TARGETS["opus.decode"]
    monkeypatch.setitem(TARGETS, "bad", Target("bad", feed, plain.corpus, Shape.BINARY, 200))  # type: ignore[arg-type]
    monkeypatch.setattr(campaign, "FINDINGS", tmp_path)
    run = Campaign(["bad", "opus.decode"], seed=1, inputs=300, processes=2, show=lambda _: None)
    run.run()
    report = run.report("test")
    assert report.complete
    assert [row.inputs for row in report.targets][1] == 300
    assert report.findings == report.targets[0].findings > 0
    assert all(name.startswith(kind) for name in report.targets[0].kinds)
    kept = sorted((tmp_path / "bad").iterdir())
    assert kept
    index = int(kept[0].name.rpartition("-")[2])
    assert kept[0].read_bytes() == TARGETS["bad"].input(1, index)
    assert "bad" in "\n".join(table(report))


def test_slow_input_is_a_finding() -> None:
    def dawdle(data: bytes) -> bool:
        return sum(i * i for i in range(20_000)) > 0

    slow = Target("slow", dawdle, TARGETS["opus.decode"].corpus, Shape.BINARY, 100, slow_ms=0.01)
    batch = run_batch(slow, 1, 0, 3)
    assert [finding.kind for finding in batch.findings] == ["slow"] * 3
    assert isinstance(batch.findings[0], Finding)
