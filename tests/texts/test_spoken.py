"""Numbers, times and durations sound right in both languages."""

from __future__ import annotations

from datetime import datetime
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mynah.texts import spoken


@pytest.mark.parametrize(
    ("value", "english", "chinese", "exact"),
    [
        (0, "0", "0", True),
        (42, "42", "42", True),
        (-40, "minus 40", "负40", True),
        (1234567, "1,234,567", "1234567", True),
        (Fraction(5, 2), "2.5", "2.5", True),
        (Fraction(10, 3), "3.3333", "3.3333", False),
        (Fraction(1, 3), "0.3333", "0.3333", False),
        (Fraction(12345, 100_000_000), "0.000123", "0.000123", False),
        (Fraction("99999.99999"), "100,000", "100000", False),
        (10**15, "1 times 10 to the power of 15", "1乘以10的15次方", True),
        (2**64, "1.84 times 10 to the power of 19", "1.84乘以10的19次方", False),
        (Fraction(1, 10**9), "1 times 10 to the power of minus 9", "1乘以10的负9次方", True),
        (Fraction(2, 10**9), "2 times 10 to the power of minus 9", "2乘以10的负9次方", True),
        (Fraction(1, 2**1100), "7.36 times 10 to the power of minus 332", "7.36乘以10的负332次方", False),
        (9_999_999_999_999_999, "1 times 10 to the power of 16", "1乘以10的16次方", False),
    ],
)
def test_number(value: Fraction | int, english: str, chinese: str, exact: bool) -> None:
    assert spoken.number(value, "en") == (english, exact)
    assert spoken.number(value, "zh") == (chinese, exact)


def test_decimals() -> None:
    assert spoken.number(Fraction("8.04672"), "en", decimals=2) == ("8.05", False)
    assert spoken.number(Fraction("37.777"), "en", decimals=1) == ("37.8", False)


@given(st.fractions() | st.floats(allow_nan=False, allow_infinity=False))
def test_every_number_can_be_said(value: Fraction | float) -> None:
    said, exact = spoken.number(value, "en")
    assert said
    if exact and "times" not in said:
        assert Fraction(said.replace("minus ", "-").replace(",", "")) == Fraction(value)


@pytest.mark.parametrize(
    ("hour", "minute", "english", "chinese"),
    [
        (0, 0, "12:00 AM", "凌晨零点整"),
        (0, 30, "12:30 AM", "凌晨零点三十分"),
        (2, 10, "2:10 AM", "凌晨两点十分"),
        (8, 9, "8:09 AM", "早上八点零九分"),
        (12, 0, "12:00 PM", "中午十二点整"),
        (15, 5, "3:05 PM", "下午三点零五分"),
        (23, 59, "11:59 PM", "深夜十一点五十九分"),
    ],
)
def test_clock_time(hour: int, minute: int, english: str, chinese: str) -> None:
    moment = datetime(2026, 11, 21, hour, minute)
    assert spoken.clock_time(moment, "en") == english
    assert spoken.clock_time(moment, "zh") == chinese


def test_date_and_weekday() -> None:
    moment = datetime(2026, 3, 1)
    assert (spoken.date(moment, "en"), spoken.weekday(moment, "en")) == ("March 1, 2026", "Sunday")
    assert (spoken.date(moment, "zh"), spoken.weekday(moment, "zh")) == ("2026年3月1日", "星期日")


@pytest.mark.parametrize(
    ("seconds", "english", "chinese"),
    [
        (0, "1 second", "1秒"),
        (1, "1 second", "1秒"),
        (59.6, "1 minute", "1分钟"),
        (90, "1 minute and 30 seconds", "1分钟30秒"),
        (3600, "1 hour", "1小时"),
        (5400, "1 hour and 30 minutes", "1小时30分钟"),
        (7322, "2 hours and 2 minutes", "2小时2分钟"),
        (90_000, "1 day and 1 hour", "1天1小时"),
    ],
)
def test_duration(seconds: float, english: str, chinese: str) -> None:
    assert spoken.duration(seconds, "en") == english
    assert spoken.duration(seconds, "zh") == chinese


@pytest.mark.parametrize(
    ("n", "said"), [(0, "零"), (7, "七"), (10, "十"), (15, "十五"), (20, "二十"), (59, "五十九")]
)
def test_chinese_numeral(n: int, said: str) -> None:
    assert spoken.chinese_numeral(n) == said


def test_sentence() -> None:
    assert spoken.sentence("the end") == "The end"
    assert spoken.sentence("") == ""
