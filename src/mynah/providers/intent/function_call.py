"""Requests for tools are found by the language model itself, through function calling."""

from __future__ import annotations

from pydantic import Field

from mynah.providers.base import IntentProvider, ProviderOptions


class FunctionCallOptions(ProviderOptions):
    """Options of `function_call`."""

    functions: tuple[str, ...] | None = Field(
        default=None,
        description="names of the plugin tools the model is shown; left out: all; a device's own are always shown",
    )


class FunctionCallIntent(IntentProvider[FunctionCallOptions]):
    """The language model is shown the tools and calls them."""

    Options = FunctionCallOptions
    summary = "the language model is shown the tools and calls them itself"

    @property
    def offers_tools(self) -> bool:
        """Always: that is the point."""
        return True

    @property
    def functions(self) -> frozenset[str] | None:
        """Those the configuration lists, if it does."""
        listed = self.options.functions
        return None if listed is None else frozenset(listed)
