"""Numbers and durations, in words and digits."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mynah.providers.commands_numbers import (
    chinese_duration,
    chinese_number,
    chinese_quantity,
    english_duration,
    english_number,
    english_quantity,
)
from mynah.providers.commands_template import tokenize

ONES = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
]
ONES += [f"{stem}teen" for stem in ("thir", "four", "fif", "six", "seven", "eigh", "nine")]
TENS = ["", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
SCALES = ((10**9, "billion"), (10**6, "million"), (1000, "thousand"))


def spell_english(value: int) -> str:
    for size, name in SCALES:
        if value >= size:
            rest = f" {spell_english(value % size)}" if value % size else ""
            return f"{spell_english(value // size)} {name}{rest}"
    if value >= 100:
        rest = f" and {spell_english(value % 100)}" if value % 100 else ""
        return f"{ONES[value // 100]} hundred{rest}"
    if value >= 20:
        return TENS[value // 10] + (f"-{ONES[value % 10]}" if value % 10 else "")
    return ONES[value]


def spell_chinese(value: int) -> str:
    digits = "零一二三四五六七八九"
    for size, name in ((10**8, "亿"), (10**4, "万")):
        if value >= size:
            rest = value % size
            gap = "零" if 0 < rest < size // 10 else ""
            return spell_chinese(value // size) + name + (gap + spell_chinese(rest) if rest else "")
    for size, name in ((1000, "千"), (100, "百"), (10, "十")):
        if value >= size:
            rest = value % size
            gap = "零" if 0 < rest < size // 10 else ""
            return digits[value // size] + name + (gap + spell_chinese(rest) if rest else "")
    return digits[value]


def whole(reader, text: str):
    tokens = tokenize(text)
    return next((value for end, value in reader(tokens, 0) if end == len(tokens)), None)


@given(st.integers(0, 10**12 - 1))
def test_english_words_read_back(value: int) -> None:
    assert whole(english_number, spell_english(value)) == value


@given(st.integers(0, 10**9))
def test_chinese_words_read_back(value: int) -> None:
    assert whole(chinese_number, spell_chinese(value)) == value


@given(st.decimals(-(10**6), 10**6, places=3))
def test_digits_read_back_in_both_languages(value) -> None:
    for reader in (english_number, chinese_number):
        assert whole(reader, str(value)) == pytest.approx(float(value))


@given(
    st.text(alphabet="一两三十百千万亿零点半个分钟小时a one hundred and half 12.5-", max_size=30),
    st.integers(0, 8),
)
def test_readers_take_any_tokens(text: str, start: int) -> None:
    tokens = tokenize(text)
    for reader in (
        english_number,
        english_quantity,
        english_duration,
        chinese_number,
        chinese_quantity,
        chinese_duration,
    ):
        for end, value in reader(tokens, start):
            assert start < end <= len(tokens)
            assert math.isfinite(value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("three point one four", 3.14),
        ("one and a half", 1.5),
        ("minus twelve", -12),
        ("a hundred and five", 105),
        ("1,250", 1250),
        ("two dozen", 24),
        ("two point twenty five", 2.25),
    ],
)
def test_english_numbers(text: str, value: float) -> None:
    assert whole(english_number, text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("三点五", 3.5),
        ("两万", 20000),
        ("三百五", 350),
        ("三百零五", 305),
        ("十五", 15),
        ("二零二五", 2025),
        ("负三", -3),
        ("3万", 30000),
    ],
)
def test_chinese_numbers(text: str, value: float) -> None:
    assert whole(chinese_number, text) == value


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("ten minutes", 600),
        ("half an hour", 1800),
        ("an hour and a half", 5400),
        ("one and a half hours", 5400),
        ("two hours and ten minutes", 7800),
        ("1h30min", 5400),
        ("a quarter of an hour", 900),
        ("a couple of minutes", 120),
        ("one minute thirty seconds", 90),
        ("0.5 min", 30),
    ],
)
def test_english_durations(text: str, seconds: int) -> None:
    assert whole(english_duration, text) == seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("五分钟", 300),
        ("半小时", 1800),
        ("一个半小时", 5400),
        ("两小时二十分钟", 8400),
        ("五分半钟", 330),
        ("一刻钟", 900),
        ("90秒", 90),
        ("半个钟头", 1800),
    ],
)
def test_chinese_durations(text: str, seconds: int) -> None:
    assert whole(chinese_duration, text) == seconds


def test_a_duration_needs_a_unit_and_falling_units() -> None:
    assert whole(english_duration, "ten") is None
    assert whole(english_duration, "ten seconds two hours") is None
    assert whole(chinese_duration, "十") is None
