"""Ending the conversation."""

from __future__ import annotations

from mynah.texts import text
from mynah.tools.base import ToolContext, ToolResult, register_function


@register_function()
async def end_conversation(context: ToolContext) -> ToolResult:
    """End the conversation. Use it when the user says goodbye or does not want to talk any more."""
    return ToolResult(text("farewell", context.language), end_session=True)
