"""The slots that command templates read values with, and the speech-grammar rules that stand for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from mynah.providers.commands_numbers import Reading, token_at
from mynah.providers.commands_template import Tokens, Value

Reader = Callable[[Tokens, int], Iterator[Reading]]

ENGLISH_NUMBER_RULES = """
<digit> = one | two | three | four | five | six | seven | eight | nine ;
<teen> = ten | eleven | twelve | thirteen | fourteen | fifteen | sixteen | seventeen | eighteen | nineteen ;
<tens> = twenty | thirty | forty | fifty | sixty | seventy | eighty | ninety ;
<below_hundred> = <digit> | <teen> | <tens> [ <digit> ] ;
<whole> = <below_hundred> | ( a | <digit> ) hundred [ [ and ] <below_hundred> ]
  | ( a | <below_hundred> ) thousand ;
<number> = zero | <whole> | <below_hundred> point ( zero | <digit> ) [ zero | <digit> ] ;
<quantity> = <whole> | a | an | half a | half an | <below_hundred> point ( <digit> ) | <digit> and a half ;
<percent> = ( zero | <below_hundred> | ( a | one ) hundred ) [ percent ] ;
<duration> = <below_hundred> ( second | seconds )
  | ( <below_hundred> | a ) ( minute | minutes ) [ and ( a half | <below_hundred> seconds ) ]
  | ( <below_hundred> | an ) ( hour | hours ) [ and ( a half | <below_hundred> minutes ) ]
  | half ( a minute | an hour ) | a quarter of an hour | <digit> and a half ( minutes | hours ) ;
"""
"""Spoken numbers. Rarer forms (millions, two-digit decimals in quantities) can be typed or come out of the
open search: every alternative in the grammar costs accuracy for the common ones."""


class NumericSlot:
    """A number or duration, read by a function of the language."""

    def __init__(self, rule: str, reader: Reader) -> None:
        self._rule = rule
        self._reader = reader

    def read(self, tokens: Tokens, start: int) -> Iterator[tuple[int, Value]]:
        """Yield (end, number)."""
        yield from self._reader(tokens, start)

    def rule(self) -> str | None:
        """Name of the grammar rule."""
        return self._rule


class PercentSlot:
    """A whole number with an optional percent sign or word on the language's side of it."""

    def __init__(self, reader: Reader, before: tuple[str, ...], after: tuple[str, ...]) -> None:
        self._reader = reader
        self._before = before
        self._after = after

    def read(self, tokens: Tokens, start: int) -> Iterator[tuple[int, Value]]:
        """Yield (end, percentage as an int, not clamped)."""
        if self._before and tuple(tokens[start : start + len(self._before)]) == self._before:
            start += len(self._before)
        for end, value in self._reader(tokens, start):
            if token_at(tokens, end) in self._after:
                yield end + 1, round(value)
            yield end, round(value)

    def rule(self) -> str | None:
        """Name of the grammar rule."""
        return "percent"


class ListSlot:
    """One of a list of values, each with the phrases that mean it (units, days, names of things)."""

    def __init__(self, name: str, phrases: Mapping[tuple[str, ...], Value]) -> None:
        self._name = name
        self._by_first: dict[str, list[tuple[tuple[str, ...], Value]]] = {}
        for tokens, value in sorted(phrases.items(), key=lambda item: -len(item[0])):
            self._by_first.setdefault(tokens[0], []).append((tokens, value))

    def read(self, tokens: Tokens, start: int) -> Iterator[tuple[int, Value]]:
        """Yield (end, value), the longest phrase first."""
        for phrase, value in self._by_first.get(token_at(tokens, start), ()):
            end = start + len(phrase)
            if tuple(tokens[start:end]) == phrase:
                yield end, value

    def rule(self) -> str | None:
        """Name of the grammar rule."""
        return self._name


class ExpressionSlot:
    """Arithmetic: at least two numbers with operators between them, read as text such as ``12 * 7 + 1``."""

    def __init__(self, reader: Reader, operators: Mapping[tuple[str, ...], str]) -> None:
        self._reader = reader
        self._operators = sorted(operators.items(), key=lambda item: -len(item[0]))

    def read(self, tokens: Tokens, start: int) -> Iterator[tuple[int, Value]]:
        """Yield (end, expression), the longest first."""
        readings = list(self._chain(tokens, start, ""))
        yield from sorted(readings, key=lambda reading: -reading[0])

    def _chain(self, tokens: Tokens, start: int, left: str) -> Iterator[tuple[int, str]]:
        operand = next(self._reader(tokens, start), None)
        if operand is None:
            return
        end, value = operand
        text = f"{left}{value if value >= 0 else f'({value})'}"
        if left:
            yield end, text
        for phrase, operator in self._operators:
            after = end + len(phrase)
            if tuple(tokens[end:after]) == phrase:
                yield from self._chain(tokens, after, f"{text} {operator} ")
                return

    def rule(self) -> str | None:
        """Name of the grammar rule."""
        return "expression"


class TextSlot:
    """Any words up to the next part of the template. Can be typed but is not in the speech grammar."""

    def read(self, tokens: Tokens, start: int) -> Iterator[tuple[int, Value]]:
        """Yield (end, text), the longest first."""
        for end in range(len(tokens), start, -1):
            yield end, _join(tokens[start:end])

    def rule(self) -> str | None:
        """Return None: nobody can list what may be said here."""
        return None


def _join(tokens: Tokens) -> str:
    """Put tokens together again: spaces between words, none between Chinese characters."""
    text = ""
    for token in tokens:
        if text and (text[-1].isascii() or token[0].isascii()):
            text += " "
        text += token
    return text


def substitute(template: Value, captures: Mapping[str, Value]) -> Value:
    """Fill ``$name`` references of an argument: a lone reference keeps its type, others become text."""
    if not isinstance(template, str) or "$" not in template:
        return template
    for name in sorted(captures, key=len, reverse=True):
        if template == f"${name}":
            return captures[name]
        template = template.replace(f"${name}", str(captures[name]))
    return template
