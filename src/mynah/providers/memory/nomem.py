"""No memory: every conversation starts afresh."""

from __future__ import annotations

from mynah.providers.base import ChatMessage, MemoryProvider, ProviderOptions


class NoMemory(MemoryProvider[ProviderOptions]):
    """Remembers nothing, so nothing about a device is kept anywhere."""

    summary = "no memory between conversations"

    async def recall(self, device_id: str, query: str) -> str:  # noqa: ARG002 - the interface's arguments
        """Return an empty text: nothing is known."""
        return ""

    async def remember(self, device_id: str, messages: tuple[ChatMessage, ...]) -> None:
        """Let the conversation go."""
