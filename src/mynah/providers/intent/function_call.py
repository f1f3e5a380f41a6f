"""Requests for tools are found by the language model itself, through function calling."""

from __future__ import annotations

from pydantic import Field

from mynah.providers.base import IntentProvider, ProviderOptions


class FunctionCallOptions(ProviderOptions):
    """Options of `function_call`."""

    functions: tuple[str, ...] | None = Field(
        default=None,
        description="names of the tools the model is shown; left out: all that are available",
    )


class FunctionCallIntent(IntentProvider[FunctionCallOptions]):
    """The language model is shown the tools and calls them."""

    Options = FunctionCallOptions
    summary = "the language model is shown the tools and calls them itself"

    @property
    def offers_tools(self) -> bool:
        """Always: that is the point."""
        return True
