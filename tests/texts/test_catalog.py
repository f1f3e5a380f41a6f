"""The catalogue is complete in every language, fills its placeholders and does not repeat itself."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mynah import texts
from mynah.errors import ConfigError, MynahError
from mynah.texts.catalog import _read


def placeholders(key: str, language: str) -> set[str]:
    return {
        name
        for sentence in texts.variants(key, language)
        for _, name, _, _ in string.Formatter().parse(sentence)
        if name
    }


def test_every_language_has_the_same_keys() -> None:
    assert texts.languages() == ("en", "zh")
    assert texts.keys("en") == texts.keys("zh")


@pytest.mark.parametrize("key", sorted(texts.keys("en")))
def test_every_text_has_the_same_placeholders_and_is_clean(key: str) -> None:
    assert placeholders(key, "en") == placeholders(key, "zh")
    for language in texts.languages():
        for sentence in texts.variants(key, language):
            assert sentence.strip() or key.endswith("joint")
            assert "\n" not in sentence
            assert not set("<>*#_|") & set(
                string.Formatter().format(sentence, **dict.fromkeys(placeholders(key, language), "x"))
            )


def test_every_public_error_text_exists() -> None:
    def tree(cls: type[MynahError]) -> list[type[MynahError]]:
        return [cls, *(leaf for sub in cls.__subclasses__() for leaf in tree(sub))]

    assert {cls.public for cls in tree(MynahError)} <= texts.keys("en")


@pytest.mark.parametrize(
    "key", ["greeting", "farewell", "farewell_idle", "nothing_heard", "error_busy", "no_model", "help"]
)
def test_session_texts_need_no_values(key: str) -> None:
    assert texts.text(key, "en") != texts.text(key, "zh")


@pytest.mark.parametrize("language", ["en", "zh"])
def test_enough_jokes_and_none_twice_in_a_row(language: str) -> None:
    jokes = texts.variants("joke", language)
    assert len(set(jokes)) == len(jokes) >= 25
    assert {texts.text("joke", language) for _ in jokes} == set(jokes)


def test_unknown_key_and_missing_value_raise() -> None:
    with pytest.raises(KeyError):
        texts.text("no_such_text", "en")
    with pytest.raises(KeyError):
        texts.text("time_is", "en")


def test_language_tags_and_fallback() -> None:
    assert texts.text("time_is", "zh-CN", time="三点") == "现在是三点。"
    assert texts.text("time_is", "ZH_tw", time="三点") == "现在是三点。"
    assert texts.text("time_is", "fr", time="3") == "It is 3."


@given(st.text())
def test_values_are_never_read_as_placeholders(value: str) -> None:
    assert texts.text("reminder_due", "en", text=value) == f"Here is your reminder: {value}."


@pytest.mark.parametrize(
    ("said", "default", "expected"),
    [
        ("hello", "zh", "en"),
        ("现在几点", "en", "zh"),
        ("播放 Hello", "en", "zh"),
        ("123", "zh", "zh"),
        ("", "en", "en"),
        ("?!", "zh", "zh"),
        ("𠀀", "en", "zh"),
    ],
)
def test_detect_language(said: str, default: str, expected: str) -> None:
    assert texts.detect_language(said, default) == expected


def test_a_file_with_a_wrong_value_is_refused() -> None:
    with pytest.raises(ConfigError, match="number"):
        _read("xx.yaml", "number: [1, 2]")
    with pytest.raises(ConfigError, match="empty"):
        _read("xx.yaml", "empty: []")
