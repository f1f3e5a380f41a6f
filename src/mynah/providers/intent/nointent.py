"""No tools: the language model only talks."""

from __future__ import annotations

from mynah.providers.base import IntentProvider, ProviderOptions


class NoIntent(IntentProvider[ProviderOptions]):
    """The language model is not shown any tool."""

    summary = "no tools: the language model only talks"

    @property
    def offers_tools(self) -> bool:
        """Never."""
        return False
