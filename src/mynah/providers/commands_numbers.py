"""Numbers and durations as people say and type them, in English and Chinese.

How a language builds its numbers is a matter of grammar, not of wording, so these tables stand next to the
code that reads them instead of in the command files.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from mynah.providers.commands_template import Tokens

Number = int | float
Reading = tuple[int, Number]
"""End position and value."""

_ONES = {
    word: value
    for value, word in enumerate(
        (
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
            "thirteen",
            "fourteen",
            "fifteen",
            "sixteen",
            "seventeen",
            "eighteen",
            "nineteen",
        )
    )
}
_TENS = {
    word: 10 * value
    for value, word in enumerate(
        ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"), 2
    )
}
_SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9}
_ENGLISH_DIGITS = {**{word: value for word, value in _ONES.items() if value < 10}, "oh": 0}
_ENGLISH_FRACTIONS = {"half": 0.5, "quarter": 0.25, "third": 1 / 3}

_CHINESE_DIGITS = {char: value for value, char in enumerate("零一二三四五六七八九")} | {
    "两": 2,
    "〇": 0,
    "俩": 2,
    "幺": 1,
}
_CHINESE_UNITS = {"十": 10, "百": 100, "千": 1000}
_CHINESE_SCALES = {"万": 10**4, "亿": 10**8}


def tidy(value: float) -> Number:
    """Return an int where the value is whole, else the float without the noise of binary arithmetic."""
    rounded = round(value, 9)
    return int(rounded) if rounded == int(rounded) else rounded


def token_at(tokens: Tokens, position: int) -> str:
    """Return a token, or the empty string past the end."""
    return tokens[position] if position < len(tokens) else ""


def is_digits(token: str) -> bool:
    """Whether a token is a number in digits, such as ``12`` or ``3.5``."""
    return token[:1].isdecimal()


def _from_digits(token: str) -> Number:
    return float(token) if "." in token else int(token)


# ---------------------------------------------------------------- English


def _below_hundred(tokens: Tokens, start: int) -> Reading | None:
    first = token_at(tokens, start)
    if first in _TENS:
        second = _ONES.get(token_at(tokens, start + 1), 0)
        return (start + 2, _TENS[first] + second) if 0 < second < 10 else (start + 1, _TENS[first])
    return (start + 1, _ONES[first]) if first in _ONES else None


def _below_thousand(tokens: Tokens, start: int) -> Reading | None:
    if token_at(tokens, start) in {"a", "an"} and token_at(tokens, start + 1) in {"hundred", *_SCALES}:
        reading: Reading | None = (start + 1, 1)
    elif is_digits(token_at(tokens, start)):
        reading = (start + 1, _from_digits(tokens[start]))
    else:
        reading = _below_hundred(tokens, start)
    if reading is None or token_at(tokens, reading[0]) != "hundred":
        return reading
    end, value = reading[0] + 1, reading[1] * 100
    rest_start = end + 1 if token_at(tokens, end) == "and" else end
    rest = _below_hundred(tokens, rest_start)
    return (rest[0], value + rest[1]) if rest and rest[1] else (end, value)


def _english_whole(tokens: Tokens, start: int) -> Reading | None:
    reading = _below_thousand(tokens, start)
    if reading is None:
        return None
    end, part = reading
    total: Number = 0
    ceiling = (
        10**12
    )  # each scale must be smaller than the one before: "five thousand two million" is two numbers
    while (scale := _SCALES.get(token_at(tokens, end))) and scale < ceiling:
        total, ceiling, end, part = total + part * scale, scale, end + 1, 0
        rest = _below_thousand(tokens, end + 1 if token_at(tokens, end) == "and" else end)
        if rest is None or not 0 < rest[1] < 1000:
            break
        end, part = rest
    return end, total + part


def _english_decimals(tokens: Tokens, start: int) -> Reading | None:
    """Read ``point one four`` or ``point twenty five`` as a fraction below one."""
    if token_at(tokens, start) not in {"point", "dot"}:
        return None
    end, digits = start + 1, ""
    while (digit := token_at(tokens, end)) in _ENGLISH_DIGITS:
        digits += str(_ENGLISH_DIGITS[digit])
        end += 1
    if not digits:
        reading = _below_hundred(tokens, end)
        if reading is None:
            return None
        end, digits = reading[0], str(reading[1])
    return end, float(f"0.{digits}")


def english_number(tokens: Tokens, start: int) -> Iterator[Reading]:
    """Yield the number that begins at ``start``: digits, words, decimals, ``one and a half``, minus."""
    sign = 1
    if token_at(tokens, start) in {"minus", "negative", "-"}:
        sign, start = -1, start + 1
    whole = _english_whole(tokens, start)
    decimals = _english_decimals(tokens, whole[0] if whole else start)
    if decimals:
        yield decimals[0], tidy(sign * ((whole[1] if whole else 0) + decimals[1]))
    if not whole:
        return
    end, value = whole
    if token_at(tokens, end) == "and" and token_at(tokens, end + 1) in {"a", "one"}:
        fraction = _ENGLISH_FRACTIONS.get(token_at(tokens, end + 2))
        if fraction:
            yield end + 3, tidy(sign * (value + fraction))
    if token_at(tokens, end) == "dozen":
        yield end + 1, tidy(sign * value * 12)
    yield end, tidy(sign * value)
    # "add a hundred and twelve" means two numbers, where everything else means one.
    for at in range(end - 1, start, -1):
        if token_at(tokens, at) == "and" and (shorter := _english_whole(tokens[:at], start)):
            yield at, tidy(sign * shorter[1])


def english_quantity(tokens: Tokens, start: int) -> Iterator[Reading]:
    """Yield a number, or ``a``, ``half a``, ``a quarter of a``, ``a couple of``, ``a dozen``."""
    yield from english_number(tokens, start)
    article = 1 if token_at(tokens, start) in {"a", "an"} else 0
    word = token_at(tokens, start + article)
    end = start + article + 1
    if word in _ENGLISH_FRACTIONS:
        end += token_at(tokens, end) == "of"
        end += token_at(tokens, end) in {"a", "an"}
        yield end, _ENGLISH_FRACTIONS[word]
    elif word == "couple":
        yield end + (token_at(tokens, end) == "of"), 2
    elif word == "dozen":
        yield end, 12
    if article:
        yield start + 1, 1


_ENGLISH_TIME = {
    **dict.fromkeys(("second", "seconds", "sec", "secs", "s"), 1),
    **dict.fromkeys(("minute", "minutes", "min", "mins", "m"), 60),
    **dict.fromkeys(("hour", "hours", "hr", "hrs", "h"), 3600),
    **dict.fromkeys(("day", "days"), 86400),
}


def english_duration(tokens: Tokens, start: int) -> Iterator[Reading]:
    """Yield a duration in whole seconds: ``two hours and ten minutes``, ``an hour and a half``."""
    readings: list[Reading] = []
    total: Number = 0
    end, smallest = start, 10**9
    while True:
        begin = end + 1 if readings and token_at(tokens, end) == "and" else end
        part = _english_time_part(tokens, begin)
        if part is None or part[2] >= smallest:
            break
        end, total, smallest = part[0], total + part[1], part[2]
        readings.append((end, round(total)))
    yield from reversed(readings)


def _english_time_part(tokens: Tokens, start: int) -> tuple[int, Number, int] | None:
    """Return (end, seconds, seconds of its unit) of one ``<quantity> <unit> [and a half]``."""
    for unit_at, value in english_quantity(tokens, start):
        unit = _ENGLISH_TIME.get(token_at(tokens, unit_at))
        if unit is None or value < 0:
            continue
        end = unit_at + 1
        if token_at(tokens, end) == "and" and token_at(tokens, end + 1) == "a":
            fraction = _ENGLISH_FRACTIONS.get(token_at(tokens, end + 2))
            if fraction:
                return end + 3, (value + fraction) * unit, unit
        return end, value * unit, unit
    return None


# ---------------------------------------------------------------- Chinese


class _ChineseTotal(msgspec.Struct):
    """A number while its characters are being read: 亿 and 万 close a section, 千 百 十 close a digit."""

    total: int = 0
    section: int = 0
    digit: int = -1
    last_unit: int = 1

    def value(self) -> int:
        """Return the number so far; a digit right after 百 or higher counts tenths of it (三百五 = 350)."""
        digit = max(self.digit, 0)
        if digit and self.last_unit >= 100:
            digit *= self.last_unit // 10
        return self.total + self.section + digit

    def take_unit(self, unit: int) -> None:
        """Apply 十, 百 or 千 to the digit before it (十五 has none: it means one ten)."""
        self.section += max(self.digit, 1 if self.digit < 0 else 0) * unit
        self.digit, self.last_unit = -1, unit

    def take_scale(self, scale: int) -> None:
        """Apply 万 or 亿 to everything since the last scale."""
        self.total += (self.section + max(self.digit, 0)) * scale
        self.section, self.digit, self.last_unit = 0, -1, scale


def _chinese_whole(tokens: Tokens, start: int) -> Reading | None:
    end, run = start, ""
    while (char := token_at(tokens, end)) in _CHINESE_DIGITS and char not in _CHINESE_UNITS:
        run += str(_CHINESE_DIGITS[char])
        end += 1
    if len(run) > 1 and token_at(tokens, end) not in {*_CHINESE_UNITS, *_CHINESE_SCALES}:
        return end, int(run)  # 二零二五: digit by digit
    number, end = _ChineseTotal(), start
    while char := token_at(tokens, end):
        if char in _CHINESE_DIGITS:
            if number.digit > 0:
                break
            number.digit = _CHINESE_DIGITS[char]
            if char in {"零", "〇"}:
                number.last_unit = 1  # 三百零五: the zero says that the five counts ones
        elif char in _CHINESE_UNITS and (end > start or char == "十"):
            number.take_unit(_CHINESE_UNITS[char])
        elif char in _CHINESE_SCALES and end > start:
            number.take_scale(_CHINESE_SCALES[char])
        else:
            break
        end += 1
    return (end, number.value()) if end > start else None


def chinese_number(tokens: Tokens, start: int) -> Iterator[Reading]:
    """Yield the number that begins at ``start``: 12, 3.5, 十二, 三百零五, 两万, 三点五."""
    sign = 1
    if token_at(tokens, start) in {"负", "-"}:
        sign, start = -1, start + 1
    first = token_at(tokens, start)
    whole: Reading | None
    if is_digits(first):
        scale = (_CHINESE_SCALES | _CHINESE_UNITS).get(token_at(tokens, start + 1))
        whole = (start + 2, _from_digits(first) * scale) if scale else (start + 1, _from_digits(first))
    else:
        whole = _chinese_whole(tokens, start)
    if whole is None:
        return
    end, value = whole
    if token_at(tokens, end) == "点":
        digits, decimal_end = "", end + 1
        while (char := token_at(tokens, decimal_end)) in _CHINESE_DIGITS:
            digits += str(_CHINESE_DIGITS[char])
            decimal_end += 1
        if digits:
            yield decimal_end, tidy(sign * (value + float(f"0.{digits}")))
    yield end, tidy(sign * value)


def chinese_quantity(tokens: Tokens, start: int) -> Iterator[Reading]:
    """Yield a number, also 半 and 一个半; a measure word 个 after it is read along."""
    if token_at(tokens, start) == "半":
        yield start + 1 + (token_at(tokens, start + 1) == "个"), 0.5
        return
    for end, value in chinese_number(tokens, start):
        measured = end + 1 if token_at(tokens, end) == "个" else end
        if token_at(tokens, measured) == "半":
            yield measured + 1, tidy(value + 0.5)
        if measured > end:
            yield measured, value
        yield end, value


_CHINESE_TIME: tuple[tuple[str, int], ...] = (
    ("秒钟", 1),
    ("秒", 1),
    ("分钟", 60),
    ("分", 60),
    ("刻钟", 900),
    ("小时", 3600),
    ("钟头", 3600),
    ("天", 86400),
)


def chinese_duration(tokens: Tokens, start: int) -> Iterator[Reading]:
    """Yield a duration in whole seconds: 五分钟, 半小时, 一个半小时, 两小时二十分钟, 五分半, 一刻钟."""
    readings: list[Reading] = []
    total: Number = 0
    end, smallest = start, 10**9
    while (part := _chinese_time_part(tokens, end)) and part[2] < smallest:
        end, total, smallest = part[0], total + part[1], part[2]
        readings.append((end, round(total)))
        end += token_at(tokens, end) in {"又", "零"}
    yield from reversed(readings)


def _chinese_time_part(tokens: Tokens, start: int) -> tuple[int, Number, int] | None:
    for end, value in chinese_quantity(tokens, start):
        for word, unit in _CHINESE_TIME:
            after = end + len(word)
            if "".join(tokens[end:after]) != word or value < 0:
                continue
            if token_at(tokens, after) == "半":
                after += 2 if token_at(tokens, after + 1) == "钟" else 1
                return after, (value + 0.5) * unit, unit
            return after, value * unit, unit
    return None
