"""Jokes, small talk and chance."""

from __future__ import annotations

import random

from mynah.texts import keys, text
from mynah.tools.base import ToolContext, register_function

MAX_SIDES = 1000
MAX_RANDOM = 1_000_000_000
"""Beyond a billion a spoken number is no fun."""


@register_function()
async def tell_joke(context: ToolContext) -> str:
    """Tell a short, clean joke; a different one each time."""
    return text("joke", context.language)


@register_function(
    description="Answer small talk from a short list of sentences. Made for assistants without a language "
    "model: do not use it when you can answer yourself."
)
async def small_talk(context: ToolContext, topic: str) -> str:
    """Answer small talk.

    Args:
        topic: what it is about, for example greeting, thanks, how_are_you, story, fun_fact
    """
    key = f"smalltalk_{topic}"
    return text(key if key in keys(context.language) else "smalltalk_other", context.language)


@register_function()
async def flip_coin(context: ToolContext) -> str:
    """Flip a coin."""
    # Not in turn, as texts are: a coin has no memory.
    return text(random.choice(("coin_heads", "coin_tails")), context.language)


@register_function()
async def roll_dice(context: ToolContext, sides: int = 6) -> str:
    """Roll one die.

    Args:
        sides: how many sides it has, 2 to 1000
    """
    if not 2 <= sides <= MAX_SIDES:
        return text("dice_out_of_range", context.language)
    return text("dice_rolled", context.language, n=random.randint(1, sides))


@register_function()
async def random_number(context: ToolContext, low: int, high: int) -> str:
    """Pick a random whole number.

    Args:
        low: the smallest it may be
        high: the largest it may be
    """
    low, high = min(low, high), max(low, high)
    if low < -MAX_RANDOM or high > MAX_RANDOM:
        return text("random_out_of_range", context.language)
    return text("random_number", context.language, n=random.randint(low, high))
