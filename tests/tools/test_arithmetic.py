"""The calculator: exact, bounded, and deaf to anything that is no arithmetic."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mynah.tools.arithmetic import MAX_CHARS, ArithmeticFault, Parser, Phrase, Term


def work_out(expression: str) -> Fraction:
    return Parser(expression, str, lambda phrase, a, b: f"({a} {phrase.value} {b})").parse().value


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("1 + 2 * 3", 7),
        ("(1 + 2) * 3", 9),
        ("10 - 4 - 3", 3),
        ("2 ^ 3 ^ 2", 512),
        ("-2 ^ 2", -4),
        ("(-2) ^ 2", 4),
        ("2 ^ -1", Fraction(1, 2)),
        ("--5", 5),
        ("+5", 5),
        ("7 - (-2)", 9),
        ("1,234 + 1", 1235),
        (".5 * 4", 2),
        ("0.1 + 0.2", Fraction(3, 10)),
        ("10 / 4", Fraction(5, 2)),
        ("10 % 3", 1),
        ("10 mod 4", 2),
        ("50%", Fraction(1, 2)),
        ("15% of 80", 12),
        ("15 / 100 * 80", 12),
        ("200 + 10%", 220),
        ("200 - 10%", 180),
        ("200 * 10%", 20),
        ("sqrt(16)", 4),
        ("√ 2.25", Fraction(3, 2)),
        ("16 ** 0.5", 4),
        ("3²", 9),
        ("2 cubed", 8),
        ("12 x 4", 48),
        ("12 times 4 divided by 6", 8),
        ("１２×７＝", 84),
        ("12乘以7", 84),
        ("9除以3加1", 4),
        ("(2 + 3", 5),
        ("5 = ?", 5),
    ],
)
def test_values(expression: str, value: int | Fraction) -> None:
    assert work_out(expression) == value


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("", "not_understood"),
        ("hello", "not_understood"),
        ("1 +", "not_understood"),
        ("* 2", "not_understood"),
        ("1 2", "not_understood"),
        (") 1 (", "not_understood"),
        ("2 ** ", "not_understood"),
        ("__import__('os').system('id')", "not_understood"),
        ("(" * 40 + "1", "not_understood"),
        ("-" * 40 + "1", "not_understood"),
        ("1" + "+1" * MAX_CHARS, "not_understood"),
        ("1 / 0", "by_zero"),
        ("1 % 0", "by_zero"),
        ("5 mod 0", "by_zero"),
        ("0 ^ -1", "by_zero"),
        ("sqrt(-4)", "root_of_negative"),
        ("(-8) ^ 0.3", "root_of_negative"),
        ("9999999999 ^ 9999999999", "too_large"),
        ("2 ^ 9000 / 2 ^ 8990", "too_large"),
        ("9 ^ 9 ^ 9 ^ 9 ^ 9", "too_large"),
        ("10^300 * 10^300 * 10^300 * 10^300 * 10^300 * 10^300", "too_large"),
    ],
)
def test_faults(expression: str, reason: str) -> None:
    with pytest.raises(ArithmeticFault) as caught:
        work_out(expression)
    assert caught.value.reason == reason


def test_exactness_is_known() -> None:
    def parse(expression: str) -> Term:
        return Parser(expression, str, lambda *_: "").parse()

    assert parse("1 / 3").exact
    assert parse("2 ^ 100").exact
    assert not parse("sqrt(2) + 1").exact
    assert not parse("2 ^ 0.3").exact


def test_it_says_what_it_did() -> None:
    said = Parser("15 / 100 * 80", str, lambda phrase, a, b: f"[{phrase.value} {a} {b}]").parse()
    assert said.said == "[percent_of 15 80]"
    assert said.operators == 1
    assert Parser("(1 + 2) * 3", str, lambda *_: "").parse().has_brackets
    assert not Parser("(1) * 3", str, lambda *_: "").parse().has_brackets
    assert {phrase.value for phrase in Phrase} >= {"plus", "minus", "times", "divided"}


@given(st.recursive(st.integers(0, 99), lambda n: st.tuples(n, st.sampled_from("+-*"), n), max_leaves=6))
def test_it_agrees_with_python(tree: object) -> None:
    def write(node: object) -> str:
        return f"({write(node[0])} {node[1]} {write(node[2])})" if isinstance(node, tuple) else str(node)

    expression = write(tree)
    if len(expression) <= MAX_CHARS:
        assert work_out(expression) == eval(expression)


@given(st.text(alphabet="0123456789.,+-*/^%() sqrtofx²³√加减乘除", max_size=60))
def test_it_ends_with_a_number_or_a_fault(expression: str) -> None:
    try:
        assert isinstance(work_out(expression), Fraction)
    except ArithmeticFault:
        pass
