"""The dashboard, the alert rules and the documentation speak of metrics that exist, and of all of them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from mynah.dialogue.record import TurnRecord
from mynah.providers.base import Kind
from mynah.providers.calls import CANCELLED, ProviderCall
from tests.observe.exposed import families, metrics, values

ROOT = Path(__file__).parents[2]
DASHBOARD = ROOT / "deploy" / "grafana" / "mynah.json"
ALERTS = ROOT / "deploy" / "prometheus" / "alerts.yml"
CONFIG = ROOT / "deploy" / "prometheus" / "prometheus.yml"
PAGES = (ROOT / "docs" / "observability.md", ROOT / "docs" / "zh" / "observability.md")
PROMETHEUS_OWN = {"up"}
"""Made by Prometheus for each server that it scrapes."""
TARGET_LABELS = {"job", "instance"}
"""Added by Prometheus."""
SUFFIXES = {"histogram": ("_bucket", "_sum", "_count"), "summary": ("_sum", "_count")}


async def samples() -> set[str]:
    """Return every name that a query may use."""
    found = set(PROMETHEUS_OWN)
    for name, kind in (await families()).items():
        found |= {name + suffix for suffix in SUFFIXES.get(kind, ("",))}
    return found


def names(query: str) -> set[str]:
    """Return the metrics of a query: words that are no function, no label, no keyword and no text."""
    bare = re.sub(r'"[^"]*"', '""', query)
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]", " ", bare)
    bare = re.sub(r"\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", " ", bare)
    bare = re.sub(r"\b(and|or|unless|bool|offset)\b|[a-z_]+\s*(?=\()", " ", bare)
    return set(re.findall(r"[a-zA-Z_:][a-zA-Z0-9_:]*", bare))


def labels(query: str) -> set[str]:
    """Return the labels that a query selects or groups by."""
    chosen = re.findall(r"([a-z_]+)\s*(?:=~|!~|!=|=)\s*\"", query)
    grouped = re.findall(r"\b(?:by|without|on)\s*\(([^)]*)\)", query)
    return set(chosen) | {word.strip() for group in grouped for word in group.split(",")}


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(DASHBOARD.read_text("utf-8"))
    return found


def panels() -> list[dict[str, Any]]:
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(ALERTS.read_text("utf-8"))["groups"] for rule in group["rules"]]


def queries() -> Iterator[tuple[str, str]]:
    for panel in panels():
        for target in panel["targets"]:
            yield panel["title"], target["expr"]
    for rule in rules():
        yield rule["alert"], rule["expr"]


def rows(page: Path) -> dict[str, set[str]]:
    """Return the metrics that a page lists, each with its labels."""
    found = re.findall(r"^\| `([a-z_]+)` \|([^|]*)\|[^|\n]+\|$", page.read_text("utf-8"), re.MULTILINE)
    return {name: set(re.findall(r"`([a-z_]+)`", told)) for name, told in found}


def test_names_are_found_in_queries() -> None:
    query = 'sum by (le, kind) (rate(a_bucket{x=~"$y", z!="w"}[5m])) / on (job) b > 0.5 and c_total'
    assert names(query) == {"a_bucket", "b", "c_total"}
    assert labels(query) == {"le", "kind", "x", "z", "job"}


@pytest.mark.parametrize(("where", "query"), sorted(queries()))
async def test_queries_use_metrics_and_labels_that_exist(where: str, query: str) -> None:
    used = names(query)
    assert used, where
    assert used <= await samples(), where
    known = set().union(*rows(PAGES[0]).values()) | TARGET_LABELS | {"le"}
    assert labels(query) <= known, where
    for left, right in ("()", "[]", "{}"):
        assert query.count(left) == query.count(right), where


async def test_every_metric_of_the_server_is_on_the_dashboard() -> None:
    shown = set().union(*(names(query) for _, query in queries()))
    variables = json.dumps(dashboard()["templating"])
    for name, kind in (await families()).items():
        if name.startswith("mynah_"):
            found = {name + suffix for suffix in SUFFIXES.get(kind, ("",))} & shown
            assert found or name in variables, f"{name} is shown nowhere"


def test_the_dashboard_can_be_imported() -> None:
    board = dashboard()
    assert board["id"] is None, "else it would replace another one"
    assert (board["uid"], board["title"]) == ("mynah", "Mynah")
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids))
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not taken & cells, f"{panel['title']} covers another panel"
        assert at["x"] + at["w"] <= 24, "a dashboard is 24 wide"
        taken |= cells
    for panel in panels():
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        references = [target["refId"] for target in panel["targets"]]
        assert len(references) == len(set(references))
        for target in panel["targets"]:
            assert target["expr"].count("$job") == target["expr"].count("$instance") >= 1, panel["title"]


def test_alert_rules_are_complete() -> None:
    found = rules()
    assert len({rule["alert"] for rule in found}) == len(found) >= 10
    for rule in found:
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
        assert re.fullmatch(r"Mynah[A-Za-z]+", rule["alert"])
        assert rule["labels"]["severity"] in {"critical", "warning", "info"}
        assert {"summary", "description"} == set(rule["annotations"])
        assert re.fullmatch(r"\d+m", rule.get("for", "1m"))


def test_the_example_scrapes_the_default_port_and_loads_the_rules() -> None:
    told = yaml.safe_load(CONFIG.read_text("utf-8"))
    assert told["rule_files"] == [ALERTS.name]
    (job,) = told["scrape_configs"]
    assert job["static_configs"] == [{"targets": ["127.0.0.1:8003"]}]
    assert f'job="{job["job_name"]}"' in rules()[0]["expr"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.name)
async def test_every_metric_is_documented_with_its_labels(page: Path) -> None:
    told, exist = rows(page), await families()
    assert set(told) == set(exist), "what is told exists, and what exists is told"
    seen = metrics()
    seen.on_refused("full")
    seen.on_turn(TurnRecord("d", mode="auto", error="provider"))
    for error in ("", "provider", CANCELLED):
        seen.on_call(ProviderCall(Kind.LLM, "Big", 0.1, error))
    seen.on_tool("get_time", 0.1, True)
    for sample, pairs in await values(seen):
        name = sample if sample in told else re.sub(r"_(bucket|sum|count)$", "", sample)
        assert {label for label, _ in pairs} - {"le"} == told[name], name
