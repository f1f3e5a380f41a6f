"""The built-in responder: answers a fixed set of commands without any language model.

It looks like a language model to the rest of the server. What the user said is matched against the command files
(`mynah.providers.commands`); the tools do the work and their sentences are the answer. What it does not
understand it says so, and how to configure a language model.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from typing import Literal

from pydantic import Field

from mynah.providers.base import (
    Finish,
    LlmCapabilities,
    LlmChunk,
    LlmProvider,
    LlmRequest,
    ProviderOptions,
    TextDelta,
    ToolCall,
)
from mynah.providers.llm.builtin_answers import Reply, answer
from mynah.providers.llm.builtin_turn import prepare, read_turn

_PIECE = re.compile(r"(?:\S*[^\W\u3400-\u9fff]\S*\s*|\S\s*){1,4}")
"""Up to four words, or four Chinese characters: about what a language model sends at a time."""


class BuiltinLlmOptions(ProviderOptions):
    """Options of the built-in responder: there is nothing to set."""

    type: Literal["builtin"] = Field(default="builtin", description="which implementation this entry uses")


class BuiltinLlm(LlmProvider[BuiltinLlmOptions]):
    """Offline answers to a fixed set of commands, in English and Chinese."""

    Options = BuiltinLlmOptions
    summary = "offline: time, sums, units, timers, device control, jokes; no model, no key"

    @property
    def capabilities(self) -> LlmCapabilities:
        """It uses tools and streams, as a model does."""
        return LlmCapabilities(tools=True, streaming=True)

    async def start(self) -> None:
        """Compile the command files now, so that the first answer does not wait for it."""
        prepare()

    async def generate(self, request: LlmRequest) -> AsyncGenerator[LlmChunk, None]:
        """Answer the last user message of ``request``; ends with `Finish`."""
        outcome = answer(read_turn(request))
        if isinstance(outcome, ToolCall):
            yield outcome
            yield Finish("tool_calls")
            return
        for piece in _pieces(outcome):
            yield TextDelta(piece)
        yield Finish("stop")


def _pieces(reply: Reply) -> list[str]:
    return [f"{reply.emoji} ", *_PIECE.findall(reply.text)]
