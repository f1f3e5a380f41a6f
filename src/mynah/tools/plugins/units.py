"""Conversion of units."""

from __future__ import annotations

import math
import unicodedata
from fractions import Fraction
from functools import cache

import msgspec

from mynah.texts import languages, text, variants
from mynah.texts.spoken import number, sentence
from mynah.tools.base import ToolContext, register_function

MAX_VALUE = 1e15
"""Larger amounts are typing mistakes."""


class Unit(msgspec.Struct, frozen=True):
    """A unit of measure. One of it is ``factor`` times the base unit of its kind, plus ``offset``."""

    name: str
    kind: str
    factor: Fraction
    offset: Fraction = Fraction(0)


_TABLE: dict[str, dict[str, tuple[str, str]]] = {
    # kind → name → (size in base units, further spellings)
    "length": {
        "millimetre": ("0.001", "mm"),
        "centimetre": ("0.01", "cm"),
        "metre": ("1", "m"),
        "kilometre": ("1000", "km kms 千米"),
        "inch": ("0.0254", 'in " 吋'),
        "foot": ("0.3048", "ft ' 尺"),
        "yard": ("0.9144", "yd"),
        "mile": ("1609.344", "mi"),
        "nautical_mile": ("1852", "nmi"),
    },
    "area": {
        "square_metre": ("1", "m2 sqm 平米"),
        "square_kilometre": ("1000000", "km2"),
        "square_foot": ("0.09290304", "ft2 sqft"),
        "hectare": ("10000", "ha"),
        "acre": ("4046.8564224", ""),
        "mu": ("2000/3", ""),
    },
    "mass": {
        "milligram": ("0.001", "mg"),
        "gram": ("1", "g gramme grammes"),
        "kilogram": ("1000", "kg kgs kilo kilos 千克"),
        "tonne": ("1000000", "t ton tons"),
        "ounce": ("28.349523125", "oz"),
        "pound": ("453.59237", "lb lbs 英磅"),
        "stone": ("6350.29318", "st"),
        "jin": ("500", "市斤"),
        "liang": ("50", ""),
    },
    "volume": {
        "millilitre": ("0.001", "ml"),
        "litre": ("1", "l 公升"),
        "cubic_metre": ("1000", "m3 方"),
        "gallon": ("3.785411784", "gal"),
        "quart": ("0.946352946", "qt"),
        "pint": ("0.473176473", "pt"),
        "cup": ("0.2365882365", ""),
        "fluid_ounce": ("0.0295735295625", "floz"),
        "tablespoon": ("0.01478676478125", "tbsp 大勺"),
        "teaspoon": ("0.00492892159375", "tsp 小勺"),
    },
    "time": {
        "millisecond": ("0.001", "ms"),
        "second": ("1", "s sec secs 秒钟"),
        "minute": ("60", "min mins 分"),
        "hour": ("3600", "h hr hrs 钟头"),
        "day": ("86400", "d 日"),
        "week": ("604800", "wk 星期 个星期 礼拜"),
        # A month is a twelfth of a year, and a year is the Gregorian calendar's mean.
        "month": ("2629746", "月"),
        "year": ("31556952", "yr"),
    },
    "speed": {
        "metre_per_second": ("1", "m/s mps"),
        "kilometre_per_hour": ("5/18", "km/h kmh kph 公里/小时 千米每小时"),
        "mile_per_hour": ("0.44704", "mph"),
        "knot": ("463/900", "kn kt"),
    },
    "data": {
        "byte": ("1", "b"),
        "kilobyte": ("1000", "kb"),
        "megabyte": ("1000000", "mb 兆"),
        "gigabyte": ("1000000000", "gb"),
        "terabyte": ("1000000000000", "tb"),
    },
    "energy": {
        "joule": ("1", "j 焦耳"),
        "kilojoule": ("1000", "kj"),
        "calorie": ("4.184", "cal 卡"),
        "kilocalorie": ("4184", "kcal 大卡"),
        "kilowatt_hour": ("3600000", "kwh 度电"),
    },
}

_TEMPERATURES = (
    # Base unit: kelvin.
    (Unit("kelvin", "temperature", Fraction(1)), "k"),
    (Unit("celsius", "temperature", Fraction(1), Fraction("273.15")), "c centigrade 度 摄氏"),
    (Unit("fahrenheit", "temperature", Fraction(5, 9), Fraction("459.67") * Fraction(5, 9)), "f 华氏"),
)


@cache
def _spellings() -> dict[str, Unit]:
    """Return every way to write a unit: its name, its names in all languages, its abbreviations."""
    units = [
        (Unit(name, kind, Fraction(size)), also)
        for kind, members in _TABLE.items()
        for name, (size, also) in members.items()
    ]
    found: dict[str, Unit] = {}
    for unit, also in (*units, *_TEMPERATURES):
        names = [unit.name, *also.split()]
        for language in languages():
            names += variants(f"unit_{unit.name}", language)
        for name in names:
            # Symbols of earlier kinds win: "m" is a metre.
            found.setdefault(_plain(name), unit)
    return found


def _plain(name: str) -> str:
    folded = unicodedata.normalize("NFKC", name).casefold()
    folded = folded.replace("degrees", "").replace("degree", "").replace("°", "")
    folded = (
        folded.replace("square", "sq")
        .replace("cubic", "cu")
        .replace("meter", "metre")
        .replace("liter", "litre")
    )
    return "".join(char for char in folded if char not in " _-.")


def find_unit(name: str) -> Unit | None:
    """Return the unit that is written like this: ``km``, ``kilometers``, ``公里``, ``°F``."""
    spellings = _spellings()
    plain = _plain(name)
    return spellings.get(plain) or spellings.get(plain.removesuffix("s"))


def unit_name(unit: Unit, amount: float, language: str) -> str:
    """Say a unit's name as it stands after ``amount``."""
    forms = variants(f"unit_{unit.name}", language)
    return forms[0] if amount == 1 else forms[-1]


@register_function()
async def convert_unit(context: ToolContext, value: float, from_unit: str, to_unit: str) -> str:
    """Convert a length, area, weight, volume, temperature, time, speed, amount of data or energy.

    Args:
        value: the amount
        from_unit: its unit, for example mile, kg, celsius
        to_unit: the unit that is wanted
    """
    language = context.language
    source, target = find_unit(from_unit), find_unit(to_unit)
    if source is None or target is None:
        unknown = from_unit if source is None else to_unit
        return text("conversion_unknown_unit", language, unit=unknown[:40])
    if not math.isfinite(value) or abs(value) > MAX_VALUE:
        return text("calculation_too_large", language)
    if source.kind != target.kind:
        names = unit_name(source, 2, language), unit_name(target, 2, language)
        return sentence(text("conversion_mismatch", language, from_unit=names[0], to_unit=names[1]))
    # str() gives the shortest decimal, so that 0.1 means one tenth.
    amount = Fraction(str(value))
    base = amount * source.factor + source.offset
    if source.kind == "temperature" and base < 0:
        return text("conversion_below_absolute_zero", language)
    result = (base - target.offset) / target.factor
    decimals = 1 if source.kind == "temperature" else 2
    said_value, _ = number(amount, language)
    said_result, exact = number(result, language, decimals)
    said = text(
        "conversion_is" if exact else "conversion_about",
        language,
        value=said_value,
        from_unit=unit_name(source, value, language),
        result=said_result,
        to_unit=unit_name(target, float(result), language),
    )
    return sentence(said)
