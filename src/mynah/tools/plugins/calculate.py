"""Arithmetic, with a parser of its own: nothing a user or a model writes is ever run as code."""

from __future__ import annotations

from mynah.texts import text
from mynah.texts.spoken import number, sentence
from mynah.tools.arithmetic import ArithmeticFault, Parser, Phrase
from mynah.tools.base import ToolContext, register_function

MAX_OPERATORS = 4
"""Longer sums are not read back, only their result is said."""


@register_function()
async def calculate(context: ToolContext, expression: str) -> str:
    """Work out a sum exactly. Use it for all arithmetic.

    Args:
        expression: for example 12 * (3 + 4), 2 ^ 10, 10 % 3, sqrt(2), 15% of 80
    """
    language = context.language

    def phrase(kind: Phrase, a: str, b: str) -> str:
        return text(f"calculation_{kind.value}", language, a=a, b=b)

    try:
        term = Parser(expression, lambda value: number(value, language, decimals=6)[0], phrase).parse()
    except ArithmeticFault as fault:
        return text(f"calculation_{fault.reason}", language)
    result, exact = number(term.value, language)
    exact = exact and term.exact
    if term.has_brackets or not 1 <= term.operators <= MAX_OPERATORS:
        return text(
            "calculation_result_only" if exact else "calculation_result_only_about", language, result=result
        )
    key = "calculation_is" if exact else "calculation_about"
    return sentence(text(key, language, expression=term.said, result=result))
