"""Numbers, times and durations as they are said in each language; the words come from the catalogue."""

from __future__ import annotations

import math
from datetime import datetime
from fractions import Fraction

from mynah.texts.catalog import text, variants

MAX_PLAIN = 10**15
"""Numbers at or above this are said with a power of ten: nobody follows more than fifteen digits."""

MIN_PLAIN = 10**-6
"""Numbers below this are said with a power of ten, too."""

_CHINESE_DIGITS = "零一二三四五六七八九"


def number(value: Fraction | float, language: str, decimals: int = 4) -> tuple[str, bool]:
    """Say a number; returns the text and whether it is exact.

    Numbers of one and more keep at most ``decimals`` places, smaller ones three digits that count.
    """
    exact = Fraction(value)
    if exact < 0:
        said, is_exact = number(-exact, language, decimals)
        return text("number_negative", language, value=said), is_exact
    if exact >= MAX_PLAIN or 0 < exact < MIN_PLAIN:
        return _scientific(exact, language)
    places = decimals
    if 0 < exact < 1:
        places = max(decimals, 2 - math.floor(math.log10(exact)))
    rounded = round(exact, places)
    whole, rest = divmod(rounded, 1)
    said = f"{int(whole):,}" if language == "en" else str(int(whole))
    if rest:
        said += "." + f"{int(rest * 10**places):0{places}d}".rstrip("0")
    return said, rounded == exact


def _scientific(value: Fraction, language: str) -> tuple[str, bool]:
    # Counted in digits: the logarithm of a number too small for a float does not exist.
    exponent = len(str(int(value))) - 1 if value >= 1 else -len(str(math.ceil(1 / value) - 1))
    mantissa = round(value / Fraction(10) ** exponent, 2)
    if mantissa == 10:
        mantissa, exponent = Fraction(1), exponent + 1
    said = f"{float(mantissa):.2f}".rstrip("0").rstrip(".")
    shown_exponent = text("number_negative", language, value=-exponent) if exponent < 0 else exponent
    exact = mantissa * Fraction(10) ** exponent == value
    return text("number_scientific", language, mantissa=said, exponent=shown_exponent), exact


def chinese_numeral(n: int) -> str:
    """Write 0…99 in Chinese numerals: 十五, 二十."""
    tens, ones = divmod(n, 10)
    if not tens:
        return _CHINESE_DIGITS[ones]
    return ("" if tens == 1 else _CHINESE_DIGITS[tens]) + "十" + (_CHINESE_DIGITS[ones] if ones else "")


def sentence(said: str) -> str:
    """Begin with a capital letter, for sentences that begin with a filled-in value."""
    return said[:1].upper() + said[1:]


def clock_time(moment: datetime, language: str) -> str:
    """Say the time of day: ``3:05 PM``, ``下午三点零五分``."""
    part = variants("day_parts", language)[moment.hour]
    hour = moment.hour % 12 or 12
    minute = moment.minute
    if language == "en":
        return f"{hour}:{minute:02} {part}"
    said_hour = "零" if moment.hour == 0 else "两" if hour == 2 else chinese_numeral(hour)
    if minute == 0:
        return f"{part}{said_hour}点整"
    return f"{part}{said_hour}点{'零' if minute < 10 else ''}{chinese_numeral(minute)}分"


def date(moment: datetime, language: str) -> str:
    """Say a date: ``November 21, 2026``, ``2026年11月21日``."""
    month = variants("months", language)[moment.month - 1]
    return text("date", language, year=moment.year, month=month, day=moment.day)


def weekday(moment: datetime, language: str) -> str:
    """Say the day of the week."""
    return variants("weekdays", language)[moment.weekday()]


def duration(seconds: float, language: str) -> str:
    """Say a length of time in its two largest units: ``1 hour and 5 minutes``, ``1小时5分钟``."""
    left = max(1, round(seconds))
    parts: list[str] = []
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1)):
        n, left = divmod(left, length)
        if n and len(parts) < 2:
            parts.append(text(f"duration_{unit}_{'one' if n == 1 else 'other'}", language, n=n))
    return text("duration_joint", language).join(parts)
