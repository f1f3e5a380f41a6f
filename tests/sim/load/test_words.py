import re
import string
from pathlib import Path

import pytest
import yaml

from mynah.sim.load.record import Bottleneck, Stage
from mynah.sim.load.words import Words, counted, keys, same, words

FOLDER = Path(words.__code__.co_filename).parent
RAW: dict[str, list[str]] = yaml.safe_load((FOLDER / "words.yaml").read_text("utf-8"))


def placeholders(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


@pytest.mark.parametrize("key", sorted(RAW))
def test_both_languages_say_the_same(key: str) -> None:
    english, chinese = RAW[key]
    assert placeholders(english) == placeholders(chinese)
    assert english.strip() == english != ""
    assert not re.search("[\u3400-\u9fff]", english)


def test_every_word_is_used_and_every_used_word_is_there() -> None:
    code = "\n".join(path.read_text("utf-8") for path in FOLDER.glob("*.py"))
    prefixes = set(re.findall(r'f"(\w+_)\{', code))
    suffixes = {f"{key}_one" for key in re.findall(r'counted\("(\w+)"', code)}
    literal = set(re.findall(r'"(\w+)"', code))
    unused = [
        key
        for key in keys()
        if key not in literal and key not in suffixes and not key.startswith(tuple(prefixes))
        and not re.fullmatch(r"(chart_\w+_about|term_\w+_is|errors_\w+|faults_\w+)", key)
    ]  # fmt: skip
    assert not unused
    assert not [key for key in re.findall(r'\bwords\("(\w+)"', code) if key not in keys()]


def test_every_kind_has_words() -> None:
    assert all(words(f"bottleneck_{one.name.lower()}") for one in Bottleneck)
    assert all(words(f"{part}{one.name.lower()}") for one in Stage for part in ("stage_", "chart_stage_"))


def test_values_are_filled_in_as_they_are() -> None:
    told = words("capacity_sign", step="2", sign="{step} <b>")
    assert told.en.endswith("no longer so: {step} <b>")
    assert words("crowd_talking", crowd=Words("a", "b"), talkers="3").zh.startswith("b")
    assert same("x") == Words("x", "x")
    with pytest.raises(KeyError):
        words("no_such_words")
    with pytest.raises(KeyError):
        words("capacity_sign", step="2")


def test_one_and_many() -> None:
    assert counted("n_devices", 1).en == "1 device"
    assert counted("n_devices", 20_000).en == "20,000 devices"
