"""What the assistant can do."""

from __future__ import annotations

from mynah.texts import text
from mynah.tools.base import ToolContext, register_function


@register_function()
async def show_help(context: ToolContext) -> str:
    """Say what the assistant can do and give an example."""
    return text("help", context.language)
