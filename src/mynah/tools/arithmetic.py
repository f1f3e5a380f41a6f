"""A small exact calculator: text in, a number and a way to say the sum out.

Grammar, the loosest first::

    sum      = product { ("+" | "-") product }          100 + 10 % adds a tenth, as pocket calculators do
    product  = power { ("*" | "/" | "%" | "of") power } "%" before an operand is the remainder of a division
    power    = unary [ "^" power ] { "%" }              "%" elsewhere is a hundredth
    unary    = { "+" | "-" } atom
    atom     = number | "(" sum ")" | ("sqrt" | "√") unary
"""

from __future__ import annotations

import enum
import math
import re
import unicodedata
from collections.abc import Callable
from fractions import Fraction
from typing import NoReturn

import msgspec

MAX_CHARS = 200
"""Nobody speaks a longer sum; it also bounds the parser's work."""

MAX_DEPTH = 24
"""Brackets and signs inside one another: keeps recursion shallow."""

MAX_BITS = 4096
"""Exact numbers grow up to this; beyond it the calculator goes on with floating point."""

_WORDS = {
    "plus": "+", "add": "+", "minus": "-", "times": "*", "x": "*", "over": "/", "divided by": "/", "multiplied by": "*",
    "to the power of": "^", "mod": "mod", "modulo": "mod", "percent": "%", "of": "of", "sqrt": "sqrt",
    "square root of": "sqrt", "the square root of": "sqrt", "squared": "²", "cubed": "³",
    "加上": "+", "加": "+", "减去": "-", "减": "-", "乘以": "*", "乘": "*", "除以": "/",
    "的平方": "²", "的立方": "³", "根号": "sqrt",
    "**": "^", "//": "/", "×": "*", "·": "*", "÷": "/", "−": "-", "–": "-", "√": "sqrt",
}  # fmt: skip
_TOKEN = re.compile(
    r"\s*(?:(?P<number>[0-9][0-9,]*(?:\.[0-9]+)?|\.[0-9]+)|(?P<word>"
    + "|".join(re.escape(word) for word in sorted(_WORDS, key=len, reverse=True))
    + r")|(?P<sign>[-+*/^%()²³]))"
)


class Phrase(enum.Enum):
    """How a step is said; the values are parts of text keys."""

    PLUS = "plus"
    MINUS = "minus"
    TIMES = "times"
    DIVIDED = "divided"
    REMAINDER = "remainder"
    POWER = "power"
    SQUARED = "squared"
    CUBED = "cubed"
    PERCENT = "percent"
    PERCENT_OF = "percent_of"
    SQUARE_ROOT = "square_root"
    NEGATIVE = "negative"


class ArithmeticFault(Exception):  # noqa: N818 - not an error of ours: the sum has no answer
    """The sum has no answer. ``reason`` is part of a text key."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Term(msgspec.Struct, frozen=True):
    """A part of a sum that has been worked out."""

    value: Fraction
    said: str
    exact: bool = True
    operators: int = 0
    has_brackets: bool = False
    hundredths: str = ""
    """For ``a %`` and ``a / 100``: how a is said."""
    is_percent: bool = False


class Parser:
    """Works out one expression. ``say_number`` and ``say`` put numbers and steps into words."""

    def __init__(
        self,
        expression: str,
        say_number: Callable[[Fraction], str],
        say: Callable[[Phrase, str, str], str],
    ) -> None:
        self._say_number = say_number
        self._say = say
        self._tokens = _tokenize(expression)
        self._at = 0
        self._depth = 0

    def parse(self) -> Term:
        """Return the result. Raises ArithmeticFault."""
        term = self._sum()
        if self._peek():
            _not_understood()
        return term

    def _peek(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def _take(self, *accepted: str) -> str:
        token = self._peek()
        if token not in accepted:
            return ""
        self._at += 1
        return token

    def _sum(self) -> Term:
        left = self._product()
        while sign := self._take("+", "-"):
            right = self._product()
            amount = left.value * right.value if right.is_percent else right.value
            value = left.value + amount if sign == "+" else left.value - amount
            left = self._step(Phrase.PLUS if sign == "+" else Phrase.MINUS, left, right, value)
        return left

    def _product(self) -> Term:
        left = self._power()
        while sign := self._take("*", "/", "mod", "of"):
            right = self._power()
            if sign in {"*", "of"}:
                left = self._multiply(left, right)
            elif not right.value:
                raise ArithmeticFault("by_zero")
            elif sign == "/":
                hundredths = left.said if right.value == 100 and not left.operators else ""
                divided = self._step(Phrase.DIVIDED, left, right, left.value / right.value)
                left = msgspec.structs.replace(divided, hundredths=hundredths)
            else:
                left = self._step(Phrase.REMAINDER, left, right, left.value % right.value)
        return left

    def _multiply(self, left: Term, right: Term) -> Term:
        term = self._step(Phrase.TIMES, left, right, left.value * right.value)
        if left.hundredths:
            said = self._say(Phrase.PERCENT_OF, left.hundredths, right.said)
            term = msgspec.structs.replace(term, said=said, operators=1)
        return term

    def _power(self) -> Term:
        base = self._unary()
        if self._take("^"):
            base = self._raise_to(base, self._nested(self._power))
        while mark := self._take("²", "³"):
            base = self._raise_to(base, Term(Fraction(2 if mark == "²" else 3), ""))
        while self._take("%"):
            if self._starts_operand():
                # 10 % 3: a remainder, for the level above.
                self._at -= 1
                self._tokens[self._at] = "mod"
                break
            said = self._say(Phrase.PERCENT, base.said, "")
            base = msgspec.structs.replace(
                base,
                value=base.value / 100, said=said, hundredths=base.said, is_percent=True, operators=base.operators + 1,
            )  # fmt: skip
        return base

    def _starts_operand(self) -> bool:
        token = self._peek()
        return _is_number(token) or token in {"(", "sqrt"}

    def _unary(self) -> Term:
        sign = self._take("+", "-")
        if not sign:
            return self._atom()
        term = self._nested(self._unary)
        if sign == "+":
            return term
        # -2 ^ 2 is -4 in mathematics: the sign is applied after the power.
        if self._take("^"):
            term = self._raise_to(term, self._nested(self._power))
        value = -term.value
        said = self._say_number(value) if not term.operators else self._say(Phrase.NEGATIVE, term.said, "")
        return msgspec.structs.replace(term, value=value, said=said)

    def _atom(self) -> Term:
        if self._take("("):
            inner = self._nested(self._sum)
            # People leave the last bracket out.
            if not self._take(")") and self._peek():
                _not_understood()
            plain = inner.operators == 0
            return msgspec.structs.replace(inner, has_brackets=not plain, hundredths="", is_percent=False)
        if self._take("sqrt"):
            return self._root(self._nested(self._unary))
        token = self._peek()
        if not _is_number(token):
            _not_understood()
        self._at += 1
        value = Fraction(token.replace(",", ""))
        return Term(value, self._say_number(value))

    def _nested(self, rule: Callable[[], Term]) -> Term:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            _not_understood()
        try:
            return rule()
        finally:
            self._depth -= 1

    def _step(self, phrase: Phrase, left: Term, right: Term, value: Fraction) -> Term:
        return Term(
            _bounded(value),
            self._say(phrase, left.said, right.said),
            exact=left.exact and right.exact and _is_small(value),
            operators=left.operators + right.operators + 1,
            has_brackets=left.has_brackets or right.has_brackets,
        )

    def _raise_to(self, base: Term, exponent: Term) -> Term:
        if exponent.value == Fraction(1, 2):
            return self._root(base)
        phrase = {2: Phrase.SQUARED, 3: Phrase.CUBED}.get(exponent.value, Phrase.POWER)  # type: ignore[call-overload]
        value, exact = _power(base.value, exponent.value)
        term = self._step(phrase, base, exponent, value)
        # "a to the power of b squared" would be heard wrongly: such sums are not read back.
        unclear = term.has_brackets or exponent.operators > 0
        return msgspec.structs.replace(term, exact=term.exact and exact, has_brackets=unclear)

    def _root(self, term: Term) -> Term:
        if term.value < 0:
            raise ArithmeticFault("root_of_negative")
        value, exact = _square_root(term.value)
        return Term(
            value,
            self._say(Phrase.SQUARE_ROOT, term.said, ""),
            exact=exact and term.exact,
            operators=term.operators + 1,
            has_brackets=term.has_brackets,
        )


def _is_number(token: str) -> bool:
    # Not isdigit(), for which a superscript is a digit.
    return token != "" and token[0] in "0123456789."


def _not_understood() -> NoReturn:
    raise ArithmeticFault("not_understood")


def _tokenize(expression: str) -> list[str]:
    # NFKC would turn 2² into 22, so the two marks are kept apart.
    text = expression.replace("²", " squared ").replace("³", " cubed ").replace("√", " sqrt ")
    text = unicodedata.normalize("NFKC", text).lower().strip().rstrip("=?。. ")
    if len(text) > MAX_CHARS:
        _not_understood()
    tokens: list[str] = []
    at = 0
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            _not_understood()
        word = found["word"]
        tokens.append(_WORDS[word] if word else (found["number"] or found["sign"]))
        at = found.end()
    return tokens


def _is_small(value: Fraction) -> bool:
    return value.numerator.bit_length() + value.denominator.bit_length() <= MAX_BITS


def _bounded(value: Fraction) -> Fraction:
    return value if _is_small(value) else _from_float(lambda: float(value))


def _from_float(work: Callable[[], float]) -> Fraction:
    try:
        result = work()
    except (OverflowError, ValueError):
        raise ArithmeticFault("too_large") from None
    if not math.isfinite(result):
        raise ArithmeticFault("too_large")
    return Fraction(result)


def _power(base: Fraction, exponent: Fraction) -> tuple[Fraction, bool]:
    if base == 0 and exponent < 0:
        raise ArithmeticFault("by_zero")
    if exponent.denominator == 1:
        bits = base.numerator.bit_length() + base.denominator.bit_length()
        if abs(exponent.numerator) * bits <= MAX_BITS:
            return base**exponent.numerator, True
        return _from_float(lambda: math.pow(base, exponent)), False
    if base < 0:
        raise ArithmeticFault("root_of_negative")
    return _from_float(lambda: math.pow(base, exponent)), False


def _square_root(value: Fraction) -> tuple[Fraction, bool]:
    root = Fraction(math.isqrt(value.numerator), math.isqrt(value.denominator))
    if root * root == value:
        return root, True
    return _from_float(lambda: math.sqrt(value)), False
