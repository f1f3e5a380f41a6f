"""From what the user said to sentences worth speaking: the language model, and the tools it asks for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing
from typing import Any

import msgspec

from mynah.dialogue import emotion
from mynah.dialogue.text import SentenceSplitter
from mynah.providers.base import ChatMessage, LlmProvider, LlmRequest, Role, TextDelta, ToolCall
from mynah.tools.base import ToolContext, ToolResult
from mynah.tools.toolbox import SessionTools

MAX_TOOL_ROUNDS = 5
"""Tool calls may ask for more tool calls; a model that has not come to an answer after five rounds goes in circles."""
MAX_REPLY_CHARS = 8000
"""About ten minutes of speech. Overflow policy: the rest of the reply is not requested."""


BeforeTools = Callable[[Sequence[ToolCall]], Awaitable[None]]
"""Awaited before tools are run: what they do cannot be taken back."""


class Sentence(msgspec.Struct, frozen=True):
    """A piece of the reply that is spoken in one breath. ``filler``: it only bridges a wait."""

    text: str
    filler: bool = False


class Face(msgspec.Struct, frozen=True):
    """The emotion to show, found in the text."""

    emoji: str
    emotion: str


class Thought:
    """One reply in the making. Iterate `stream` once; afterwards the other attributes are final."""

    def __init__(
        self,
        llm: LlmProvider[Any],
        tools: SessionTools | None,
        context: ToolContext,
        before_tools: BeforeTools,
        note_tool: Callable[[str, float], None],
    ) -> None:
        """``note_tool`` is told how many seconds each tool took."""
        self._llm = llm
        self._tools = tools
        self._context = context
        self._before_tools = before_tools
        self._note_tool = note_tool
        self.tokens = 0
        """Pieces of text the model has delivered, which is about tokens."""
        self.tool_messages: list[ChatMessage] = []
        """Tool calls and their results, in order, for the history."""
        self.end_session = False
        """A tool asked to close the conversation after the reply."""

    async def stream(self, messages: Iterable[ChatMessage], language: str) -> AsyncIterator[Sentence | Face]:
        """Yield the reply piece by piece. Raises ProviderError."""
        prompt = tuple(messages)
        specs = self._tools.specs() if self._tools is not None else ()
        spoken_chars = 0
        for round_number in range(MAX_TOOL_ROUNDS + 1):
            # In the last round no tools are offered, so that the model has to answer.
            offered = specs if round_number < MAX_TOOL_ROUNDS else ()
            request = LlmRequest((*prompt, *self.tool_messages), offered, language)
            splitter = SentenceSplitter()
            calls: list[ToolCall] = []
            said: list[str] = []
            async with aclosing(self._llm.generate(request)) as chunks:
                async for chunk in chunks:
                    if isinstance(chunk, TextDelta):
                        self.tokens += 1
                        said.append(chunk.text)
                        if (face := emotion.find(chunk.text)) is not None:
                            yield Face(*face)
                        for sentence in splitter.feed(chunk.text):
                            spoken_chars += len(sentence)
                            yield Sentence(sentence)
                        if spoken_chars > MAX_REPLY_CHARS:
                            return
                    elif isinstance(chunk, ToolCall):
                        calls.append(chunk)
            for sentence in splitter.flush():
                yield Sentence(sentence)
            if not calls or not offered or self._tools is None:
                return
            await self._before_tools(calls)
            results = await self._call(self._tools, calls, "".join(said))
            direct = [result.content for result in results if result.direct]
            for content in direct:
                yield Sentence(content)
            if len(direct) == len(results):
                return

    async def _call(self, tools: SessionTools, calls: list[ToolCall], said: str) -> list[ToolResult]:
        """Run the calls of one round side by side and note them for the model and the history."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._call_one(tools, call)) for call in calls]
        results = [task.result() for task in tasks]
        self.tool_messages.append(ChatMessage(Role.ASSISTANT, said, tuple(calls)))
        for call, result in zip(calls, results, strict=True):
            self.tool_messages.append(
                ChatMessage(Role.TOOL, result.content, tool_call_id=call.id, name=call.name)
            )
            self.end_session |= result.end_session
        return results

    async def _call_one(self, tools: SessionTools, call: ToolCall) -> ToolResult:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        result = await tools.call(self._context, call)
        self._note_tool(call.name, loop.time() - begun)
        return result
