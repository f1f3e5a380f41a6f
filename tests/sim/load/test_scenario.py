from __future__ import annotations

from pathlib import Path

import pytest

from mynah.errors import ConfigError
from mynah.sim.load.scenario import (
    BUILT_IN,
    MAX_FILE_BYTES,
    Behaviour,
    Scenario,
    Thresholds,
    check,
    load_scenario,
    replaced,
)
from mynah.wire.messages import ListenMode


def loaded(folder: Path, text: str) -> Scenario:
    path = folder / "mine.yaml"
    path.write_text(text, "utf-8")
    return load_scenario(str(path))


@pytest.mark.parametrize("name", BUILT_IN)
def test_built_in_scenarios_have_names_and_make_sense(name: str) -> None:
    assert check(load_scenario(name)).name == name


def test_what_was_replaced_is_told_as_a_report_has_it() -> None:
    quick = BUILT_IN["quick"]
    assert replaced(quick, quick) == {}
    made = Scenario(
        name="x", steps=(5,), hold_s=quick.hold_s, mode=ListenMode.MANUAL, thresholds=Thresholds(success=1)
    )
    found = replaced(made, quick)
    assert set(found) == {"steps", "mode", "thresholds"}
    assert (found["steps"], found["mode"], found["thresholds"]["success"]) == ((100, 500), "auto", 0.99)


def test_a_file_says_what_it_changes(tmp_path: Path) -> None:
    scenario = loaded(
        tmp_path,
        "steps: [10, 20]\nbehaviour: mixed\nmode: manual\npause_s: [1, 2.5]\nsay: [hello]\n"
        "thresholds: {late_share: null, success: 0.5}\n",
    )
    assert scenario.name == "mine"
    assert (scenario.steps, scenario.behaviour, scenario.mode) == (
        (10, 20),
        Behaviour.MIXED,
        ListenMode.MANUAL,
    )
    assert scenario.pause_s == (1.0, 2.5)
    assert scenario.say == ("hello",)
    assert (scenario.thresholds.late_share, scenario.thresholds.success) == (None, 0.5)
    assert scenario.hold_s == Scenario().hold_s


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("behavior: idle", r"mine.yaml:1: there is no behavior; did you mean behaviour\?"),
        (
            "hold_s: 3\nthresholds:\n  late_shar: 1",
            r":3: there is no thresholds.late_shar; did you mean late_share",
        ),
        ("xyzzy: 1", "there are: name, steps"),
        ("behaviour: sleep", r":1: behaviour: must be one of idle, talk, mixed, churn"),
        ("mode: psychic", "mode: must be one of auto, manual, realtime"),
        ("hold_s: long", "hold_s: expected a number, got text"),
        ("steps: 5", "steps: expected a list, got a whole number"),
        ("steps: [5, x]", r"steps\[1\]: expected a whole number, got text"),
        ("steps: [20, 10]", "steps: write them in ascending order"),
        ("steps: [0]", "steps: each must be 1 to"),
        ("steps: []", "steps: name at least one"),
        ("hold_s: 0", "hold_s: must be more than 0"),
        ("hold_s: .nan", "hold_s: must be more than 0"),
        ("protocol: 4", "protocol: must be 1, 2 or 3"),
        ("pause_s: [2, 1]", "pause_s: must be two times in s, the shorter first"),
        ("interrupt_share: 2", "interrupt_share: must be a share"),
        ("- a", "expected `key: value` lines"),
        ("steps: [", "not valid YAML"),
        (f"# {'x' * MAX_FILE_BYTES}", "so it is no scenario"),
    ],
)
def test_mistakes_are_named_with_their_place(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        loaded(tmp_path, text)


def test_a_name_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"no scenario 'quik': give one of quick, standard, stress, extreme"
    ):
        load_scenario("quik")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="UTF-8"):
        load_scenario(str(tmp_path / "binary.yaml"))


def test_without_a_file_the_key_is_named() -> None:
    with pytest.raises(ConfigError, match=r"^connects_per_s: must be above 0"):
        check(Scenario(connects_per_s=0))
