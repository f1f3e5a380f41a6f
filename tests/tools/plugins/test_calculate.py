"""Sums are answered in a sentence."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mynah.tools.base import ToolContext
from mynah.tools.plugins.calculate import calculate

Contexts = Callable[..., ToolContext]


@pytest.mark.parametrize(
    ("expression", "english", "chinese"),
    [
        ("12 * 7", "12 times 7 is 84.", "12乘以7等于84。"),
        ("105 - 38", "105 minus 38 is 67.", "105减38等于67。"),
        ("15 / 100 * 80", "15 percent of 80 is 12.", "80的百分之15等于12。"),
        ("144 ** 0.5", "The square root of 144 is 12.", "144的平方根等于12。"),
        ("10 / 3", "10 divided by 3 is about 3.3333.", "10除以3约等于3.3333。"),
        ("-5 + 3", "Minus 5 plus 3 is minus 2.", "负5加3等于负2。"),
        ("10 % 3", "The remainder of 10 divided by 3 is 1.", "10除以3的余数等于1。"),
        ("(2 + 3) * 4", "That makes 20.", "结果是20。"),
        ("(2 + 3) / 7", "That makes about 0.7143.", "结果约为0.7143。"),
        ("1+2+3+4+5+6", "That makes 21.", "结果是21。"),
        (
            "2 ^ 64",
            "2 to the power of 64 is about 1.84 times 10 to the power of 19.",
            "2的64次方约等于1.84乘以10的19次方。",
        ),
        ("1 / 0", "You cannot divide by zero.", "不能除以零。"),
        ("9^9^9^9", "That number is too large for me.", "这个数对我来说太大了。"),
        ("sqrt(-1)", "There is no real square root of a negative number.", "负数没有实数平方根。"),
        ("what?", "I did not understand that sum.", "这道题我没听懂。"),
    ],
)
async def test_answers(context: Contexts, expression: str, english: str, chinese: str) -> None:
    assert await calculate(context("en"), expression) == english
    assert await calculate(context("zh"), expression) == chinese
