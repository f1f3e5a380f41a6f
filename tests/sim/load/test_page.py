import re
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from enum import Enum
from typing import Any

import msgspec
import pytest

from mynah.sim.load.page import capacity, render, verdict
from mynah.sim.load.record import Bottleneck, Check, Knee, LoadReport, Machine, Step, Warned
from tests.sim.load.reports import idle, mixed, usage

STOPPED = msgspec.structs.replace(
    mixed((100, 500)), steps=mixed((100, 500)).steps[:1], knee=None, interrupted=True, passed=False
)
CASES = {
    "mixed": mixed(),
    "idle": idle(),
    "one step": mixed((50,)),
    "a hundred steps": mixed(tuple(range(100, 10_100, 100)), samples_per_s=0.1),
    "interrupted": STOPPED,
    "empty": LoadReport(),
}


def text_of(element: ET.Element, language: str = "en") -> str:
    """What a reader of one language sees."""
    other = {"en": "zh", "zh": "en"}[language]
    if other in (element.get("class") or "").split():
        return element.tail or ""
    inside = (element.text or "") + "".join(text_of(child, language) for child in element)
    return inside + (element.tail or "")


def parse(page: str) -> ET.Element:
    return ET.fromstring(page)


def shown(report: LoadReport, language: str = "en") -> str:
    main = parse(render(report)).find("body/main")
    assert main is not None
    return text_of(main, language)


@pytest.mark.parametrize("report", CASES.values(), ids=CASES)
def test_the_page_is_well_formed_and_needs_nothing_from_outside(report: LoadReport) -> None:
    page = render(report)
    root = parse(page)
    assert not re.search(r"<script|<iframe|<object|<link|@import|url\(|srcset| on\w+=", page)
    for element in root.iter():
        assert not {"src", "href", "style", "data", "action"} & element.attrib.keys()
    ids = [element.get("id") for element in root.iter() if element.get("id")]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("report", CASES.values(), ids=CASES)
def test_every_chart_has_a_title_and_says_what_it_shows(report: LoadReport) -> None:
    root = parse(render(report))
    by_id = {element.get("id"): element for element in root.iter() if element.get("id")}
    for figure in root.iter("figure"):
        svg = figure.find("{http://www.w3.org/2000/svg}svg")
        assert svg is not None
        assert svg.get("role") == "img"
        title, text = (text_of(by_id[name]).strip() for name in (svg.get("aria-labelledby") or "").split())
        assert title
        assert re.search(r"\d|no data", text), title


def test_all_charts_are_there() -> None:
    titles = {text_of(title).strip() for title in parse(render(mixed())).iter("h3")}
    assert titles == {
        "Success", "Connect", "Hello", "Transcript", "First audio", "Whole answer", "Whole turn",
        "Late packets and gaps", "Server memory per device", "Speed of connecting", "Errors by kind", "Devices", "CPU",
        "Busiest main thread",
        "Memory", "Memory left on the machine", "Network", "File descriptors", "Threads and processes",
        "Lag of the load generator",
    }  # fmt: skip


def test_the_answer_comes_first() -> None:
    text = shown(mixed())
    order = [
        text.index(part)
        for part in (
            "Not passed",
            "step 5 did not pass",
            "Served as well as few: 2,000 devices, 200 of them talking.",
            "At step 5 it was no longer so: p95 of the first audio went from 464 ms to 1,624 ms",
            "What keeps it from more: one core",
            "The server used 0.99 of one core",
            "Connect p95",
        )
    ]
    assert order == sorted(order)


@pytest.mark.parametrize(
    ("report", "style", "answer"),
    [
        (idle(), "good", "At least 500 devices: the largest step passed, and the limit was not reached."),
        (
            mixed(),
            "bad",
            "The largest step that kept all thresholds is step 4: 2,000 devices, 200 of them talking.",
        ),
        (LoadReport(), "hint", "No step ended, so there is no answer."),
        (STOPPED, "hint", "At least 100 devices, 10 of them talking: the largest step passed"),
        (
            msgspec.structs.replace(STOPPED, steps=[Step(number=1, devices=1, passed=False)]),
            "bad",
            "No step kept all thresholds.",
        ),
        (
            msgspec.structs.replace(mixed(), knee=Knee(step=1, devices=0, talkers=0, sign="all refused")),
            "bad",
            "Already the first step was too much.",
        ),
    ],
)
def test_verdict_and_capacity(report: LoadReport, style: str, answer: str) -> None:
    assert verdict(report)[0] == style
    assert any(one.en.startswith(answer) for one in capacity(report)), capacity(report)
    assert all(one.zh for one in capacity(report))


@pytest.mark.parametrize(
    ("name", "changed", "english", "chinese"),
    [
        ("quick", {}, "quick", "quick"),
        ("quick, changed", {"mode": "auto", "hold_s": 9}, "quick, changed (mode, hold_s)",
         "quick，有改动（mode, hold_s）"),
        ("quick, changed", {}, "quick, changed", "quick, changed"),  # a report saved as a file, and run again
        ("", {}, "custom", "自定义"),
        ("custom, changed", {"steps": [1]}, "custom, changed (steps)", "custom，有改动（steps）"),
    ],
)  # fmt: skip
def test_a_scenario_that_the_command_line_changed_is_called_so(
    name: str, changed: dict[str, Any], english: str, chinese: str
) -> None:
    report = msgspec.structs.replace(idle(), scenario={"name": name, "steps": [1]}, changed=changed)
    for language, wanted in (("en", english), ("zh", chinese)):
        assert wanted in [text_of(one, language).strip() for one in parse(render(report)).iter("dd")]


def test_turns_without_an_answer_have_columns_where_there_are_any() -> None:
    report = mixed()
    assert "Unanswered" not in shown(report).partition("What the words mean")[0]
    last = msgspec.structs.replace(report.steps[-1], unanswered=4321, pending=8765)
    text = shown(msgspec.structs.replace(report, steps=[*report.steps[:-1], last]))
    for told in ("Unanswered", "Still waiting", "4,321", "8,765"):
        assert told in text.partition("What the words mean")[0]


def test_a_limit_of_the_generator_is_a_lower_bound() -> None:
    report = msgspec.structs.replace(idle(), bottleneck=Bottleneck.GENERATOR)
    assert "may be able to do more" in shown(report)
    assert "may be able to do more" not in shown(idle())


def test_a_machine_that_is_not_fit_is_said_at_the_top() -> None:
    text = shown(mixed())
    assert text.index("figures mean little") < text.index("How many devices")


def test_chinese_has_no_english_sentences_of_ours() -> None:
    """Only what others say is in English: evidence, reasons, checks, warnings."""
    quiet = msgspec.structs.replace(idle(), evidence="", machine=Machine(), command="", scenario={})
    text = re.sub(r"wss?://\S+|report\.json|Mynah|WebSocket|hello|realtime", "", shown(quiet, "zh"))
    assert not re.findall(r"[a-z]{3,} [a-z]{3,}", text)
    assert "它能承载多少台设备？" in text


def test_what_others_wrote_cannot_do_anything() -> None:
    evil = '</code></p></td><script>alert(1)</script><img src=x onerror="alert(2)">&lt;\x00\u202e\ud800'
    step = msgspec.structs.replace(mixed((50,)).steps[0], errors={evil: 3}, faults={evil: 1}, reasons=[evil])
    report = LoadReport(
        version=evil,
        started=evil,
        command=evil,
        target=evil,
        scenario={"name": evil, evil: [evil, {evil: evil}]},
        machine=Machine(
            cpu=evil,
            system=evil,
            python=evil,
            checks=[Check(name=evil, ok=False, found=evil, wanted=evil, remedy=evil)],
        ),
        steps=[step],
        warnings=[Warned(at_s=1, text=evil)],
        knee=Knee(step=1, devices=1, talkers=1, sign=evil),
        evidence=evil,
        reasons=[evil],
    )
    page = render(report)
    root = parse(page)
    assert "<script" not in page
    assert "<img" not in page
    assert not [element for element in root.iter() if element.tag in {"script", "img"}]
    assert page.count("alert(1)") > 15, "it is shown, as text"


def test_a_long_test_makes_a_page_that_can_be_opened() -> None:
    report = mixed((100, 500), samples_per_s=450)
    assert len(report.samples) > 15_000
    assert len(render(report)) < 400_000
    assert len(render(CASES["a hundred steps"])) < 1_500_000


def test_a_flood_of_foreign_text_is_bounded() -> None:
    errors = {f"{number} {'x' * 3000}": 1 for number in range(500)}
    step = Step(number=1, devices=1, errors=errors, reasons=["y" * 9000] * 500)
    flood = LoadReport(
        steps=[step],
        warnings=[Warned(at_s=number, text="z" * 5000) for number in range(2000)],
        reasons=["w" * 5000] * 500,
    )
    began = time.process_time()
    assert len(render(flood)) < 2_000_000
    assert time.process_time() - began < 20


# ---------------------------------------------------------------- nothing of the record is forgotten


def mutations(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield the path of each leaf, and the value with that leaf changed."""
    if isinstance(value, msgspec.Struct):
        for field in value.__struct_fields__:
            for where, changed in mutations(getattr(value, field), f"{path}.{field}"):
                yield where, msgspec.structs.replace(value, **{field: changed})
    elif isinstance(value, dict) and value:
        key = next(iter(value))
        for where, changed in mutations(value[key], f"{path}[{key}]"):
            yield where, value | {key: changed}
    elif isinstance(value, list) and value:
        for where, changed in mutations(value[-1], f"{path}[]"):
            yield where, [*value[:-1], changed]
    else:
        yield path, different(value)


def different(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, Enum):
        return next(one for one in type(value) if one is not value)
    if isinstance(value, int | float):
        return type(value)(value * 2 + 3)
    return f"{value} changed"


def test_every_field_of_the_record_is_on_the_page() -> None:
    """Whatever changes in the record, the page changes; so nothing that is measured is silently left out."""
    base = mixed((100, 500, 5000))
    last = base.steps[-1]
    last = msgspec.structs.replace(
        last,
        hung_up=2,
        frames=msgspec.structs.replace(last.frames, overflow=5),
        jitter=msgspec.structs.replace(last.jitter, max=40.0),
    )
    first = msgspec.structs.replace(base.steps[0], server=usage(0.2, 3e8, 50))
    base = msgspec.structs.replace(base, steps=[first, *base.steps[1:-1], last], warnings=base.warnings[:1])
    page = render(base)
    found = list(mutations(base, "report"))
    assert len(found) > 100
    assert [where for where, changed in found if render(changed) == page] == []


def test_main_threads_of_reports_that_do_not_know_them_are_not_called_idle() -> None:
    def old(one: Step) -> Step:
        assert one.server is not None
        server = msgspec.structs.replace(one.server, main=0.0)
        return msgspec.structs.replace(
            one, server=server, generator=msgspec.structs.replace(one.generator, main=0.0)
        )

    report = mixed((100,))
    report = msgspec.structs.replace(report, steps=[old(one) for one in report.steps], at_rest=None)
    without = [msgspec.structs.replace(one, server=None, generator=usage(0, 0, 0)) for one in report.samples]
    page = shown(msgspec.structs.replace(report, samples=without))
    assert page.count("Busiest main thread") == 1, "the column of the table, no chart"
    assert shown(report).count("Busiest main thread") > 1
