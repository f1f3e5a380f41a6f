"""Units: every one the commands know, in and out, rounded for the ear."""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources
from itertools import product

import pytest
import yaml

from mynah.texts import keys, variants
from mynah.tools.base import ToolContext
from mynah.tools.plugins.units import convert_unit, find_unit

Contexts = Callable[..., ToolContext]


@pytest.mark.parametrize(
    ("value", "source", "target", "english", "chinese"),
    [
        (5, "mile", "kilometre", "5 miles is about 8.05 kilometers.", "5英里约等于8.05公里。"),
        (1, "kilometre", "metre", "1 kilometer is 1,000 meters.", "1公里等于1000米。"),
        (1, "metre", "kilometre", "1 meter is 0.001 kilometers.", "1米等于0.001公里。"),
        (
            100,
            "°F",
            "celsius",
            "100 degrees Fahrenheit is about 37.8 degrees Celsius.",
            "100华氏度约等于37.8摄氏度。",
        ),
        (
            -40,
            "c",
            "f",
            "Minus 40 degrees Celsius is minus 40 degrees Fahrenheit.",
            "负40摄氏度等于负40华氏度。",
        ),
        (
            0,
            "kelvin",
            "celsius",
            "0 kelvins is about minus 273.2 degrees Celsius.",
            "0开尔文约等于负273.2摄氏度。",
        ),
        (2, "斤", "kg", "2 jin is 1 kilogram.", "2斤等于1公斤。"),
        (0.1, "inch", "mm", "0.1 inches is 2.54 millimeters.", "0.1英寸等于2.54毫米。"),
        (1.5, "hours", "min", "1.5 hours is 90 minutes.", "1.5小时等于90分钟。"),
        (36, "km/h", "m/s", "36 kilometers per hour is 10 meters per second.", "36公里每小时等于10米每秒。"),
        (1, "kg", "m", "Kilograms cannot be converted to meters.", "公斤不能换算成米。"),
        (1, "parsec", "m", "I do not know the unit parsec.", "我不认识“parsec”这个单位。"),
        (1, "m", "x" * 99, f"I do not know the unit {'x' * 40}.", f"我不认识“{'x' * 40}”这个单位。"),
        (-1, "kelvin", "c", "Nothing can be that cold.", "没有这么低的温度。"),
        (1e30, "m", "km", "That number is too large for me.", "这个数对我来说太大了。"),
        (float("nan"), "m", "km", "That number is too large for me.", "这个数对我来说太大了。"),
    ],
)
async def test_conversions(
    context: Contexts, value: float, source: str, target: str, english: str, chinese: str
) -> None:
    assert await convert_unit(context("en"), value, source, target) == english
    assert await convert_unit(context("zh"), value, source, target) == chinese


@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_unit_of_the_commands_is_known(language: str) -> None:
    source = resources.files("mynah.providers") / "data" / f"commands.{language}.yaml"
    units = yaml.safe_load(source.read_text(encoding="utf-8"))["lists"]["unit"]
    assert len(units) >= 40
    for name in units:
        unit = find_unit(name)
        assert unit is not None
        assert unit.name == name


def test_every_name_that_is_spoken_is_understood() -> None:
    names = [key.removeprefix("unit_") for key in keys("en") if key.startswith("unit_")]
    for name, language in product(names, ("en", "zh")):
        for spelling in variants(f"unit_{name}", language):
            unit = find_unit(spelling)
            assert unit is not None, spelling
            assert unit.name == name, spelling
