"""The guides show scenarios and thresholds that exist, and every kind of error."""

import ast
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
import typer

from mynah import cli
from mynah.sim.load import device, dial, fetcher, talker
from mynah.sim.load.machine import Facts, examine
from mynah.sim.load.record import Bottleneck
from mynah.sim.load.scenario import BUILT_IN, Behaviour, Scenario, Thresholds, load_scenario
from mynah.sim.load.tally import MAX_KINDS, Tally
from mynah.sim.load.words import words

DOCS = Path(__file__).parents[3] / "docs"
PAGES = {
    "en": (DOCS / "load-testing.md").read_text("utf-8"),
    "zh": (DOCS / "zh/load-testing.md").read_text("utf-8"),
}

each_language = pytest.mark.parametrize("language", PAGES)


@each_language
def test_the_shown_scenario_loads_and_names_every_key(language: str, tmp_path: Path) -> None:
    (block,) = re.findall(r"^```yml\n(.*?)^```$", PAGES[language], re.MULTILINE | re.DOTALL)
    file = tmp_path / "evening.yaml"
    file.write_text(block, "utf-8")
    found = load_scenario(str(file))
    assert found.language == language
    assert found.thresholds.first_audio_p95_ms == 900
    assert not [key for key in Scenario.__struct_fields__ if f"{key}:" not in block]


@each_language
def test_built_in_scenarios_are_told_as_they_are(language: str) -> None:
    for name, scenario in BUILT_IN.items():
        (row,) = re.findall(rf"^\| `{name}` \|(.*)\|$", PAGES[language], re.MULTILINE)
        steps, hold, rate = row.split("|")
        found = [int(step.replace(" ", "")) for step in re.split("[,、]", steps)]
        assert tuple(found) == scenario.steps
        assert int(hold.split()[0]) == scenario.hold_s
        assert int(rate) == scenario.connects_per_s


@each_language
def test_thresholds_and_their_defaults_are_told(language: str) -> None:
    for name in Thresholds.__struct_fields__:
        (default,) = re.findall(rf"^\| `{name}` \| ([^|]*) \|", PAGES[language], re.MULTILINE)
        value = getattr(Thresholds(), name)
        if value is None:
            assert not default[0].isdigit()
        else:
            assert float(default) == value


@each_language
def test_every_behaviour_option_and_bottleneck_is_told(language: str) -> None:
    page = PAGES[language]
    assert not [one for one in Behaviour if f"| `{one}` |" not in page]
    command = typer.main.get_command(cli.app).commands["loadtest"]  # type: ignore[attr-defined]
    options = [option for parameter in command.params for option in parameter.opts if option.startswith("--")]
    assert len(options) > 10
    assert not [option for option in options if f"`{option}" not in page]
    told = [getattr(words(f"bottleneck_{one.name.lower()}"), language).split(",")[0] for one in Bottleneck]
    if language == "en":
        rows = page.partition("### What keeps it from more")[2].partition("###")[0]
        grouped = rows.replace("file descriptors, local ports", "file descriptors | local ports")
        assert not [name for name in told if name != "nothing was exhausted" and name not in grouped]


@each_language
def test_a_check_that_stops_the_test_is_told(language: str) -> None:
    facts = Facts(
        devices=100_000, connections=100_000, connects_per_s=1e6, cores=1.0, descriptors=300, server_descriptors=10,
        ports=100, memory_available=1, listen_queue=1, syn_queue=1, swap_used=1 << 40, swap_total=1 << 41, busy=1.0,
        time_wait=1 << 20, conntrack_free=1,
    )  # fmt: skip
    assert [check.name for check in examine(facts) if check.fatal] == ["open files", "local ports"]
    told = {
        "en": "Two *spoil the test*, so that\n`mynah loadtest` does not begin",
        "zh": "标明“使测试无效”的有两项，这时 `mynah loadtest` 不会开始",
    }
    assert told[language] in PAGES[language]


# ---------------------------------------------------------------- kinds of errors


def texts(node: ast.AST) -> Iterator[str]:
    """Yield the texts in a piece of code; what is filled into one is a …"""
    if isinstance(node, ast.JoinedStr):
        yield "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    else:
        for inner in ast.iter_child_nodes(node):
            yield from texts(inner)


def returned(function: Callable[..., object]) -> set[str]:
    """Return the texts that a function may return."""
    code = ast.parse(textwrap.dedent(inspect.getsource(function)))
    found = (node.value for node in ast.walk(code) if isinstance(node, ast.Return) and node.value)
    return {text for value in found for text in texts(value)} - {""}


def named(module: ModuleType) -> set[str]:
    """Return the texts that have a name in a module."""
    return {value for name, value in vars(module).items() if name.isupper() and isinstance(value, str)}


def kinds() -> set[str]:
    """Return what failures are called, found in the code."""
    found = {text for _, text in vars(dial)["_KINDS"]} | set(vars(dial)["_REASONS"].values())
    found |= (named(dial) - {dial.BUSY}) | named(device) | named(talker) | named(fetcher)
    for function in (
        dial.Dialer.dial,
        vars(dial.Dialer)["_ask"],
        vars(dial.Dialer)["_connect"],
        vars(dial)["_reason"],
    ):
        found |= returned(function)
    ended = ast.parse(textwrap.dedent(inspect.getsource(device.Device.on_ws_disconnected)))
    found |= {text for node in ast.walk(ended) if isinstance(node, ast.Assign) for text in texts(node.value)}
    refused = ast.parse(textwrap.dedent(inspect.getsource(vars(fetcher.Fetcher)["_on_failed"])))
    found |= {text for node in ast.walk(refused) if isinstance(node, ast.JoinedStr) for text in texts(node)}
    crowded = Tally()
    for number in range(MAX_KINDS + 1):
        crowded.error(f"kind {number}")
    return found | {list(crowded.errors)[-1]}


def test_the_kinds_of_errors_are_those_of_the_code() -> None:
    found = kinds()
    assert found >= talker.TURN_ERRORS
    assert named(talker) == talker.TURN_ERRORS
    assert found >= {
        "no address",
        "closed with …",
        "connection lost",
        "OTA: …",
        "OTA answered …",
        "refused with …",
        "answered ERROR …",
        "polls unanswered",
    }
    assert found >= {
        "no local port left",
        "no hello",
        "hello without transport",
        "connect timed out",
        "other",
    }
    assert len(found) > 28


@each_language
def test_every_kind_of_error_has_a_row(language: str) -> None:
    table = PAGES[language].rpartition("\n## ")[2]
    told = {
        name
        for cell in re.findall(r"^\| (.*?) \|", table, re.MULTILINE)
        for name in re.findall("`([^`]+)`", cell)
    }
    patterns = {kind: re.escape(kind).replace("…", r"(\d+|…)") for kind in kinds()}
    assert [
        kind for kind, pattern in patterns.items() if not any(re.fullmatch(pattern, name) for name in told)
    ] == []
