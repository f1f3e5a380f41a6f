"""From what the user said to sentences worth speaking: the language model, and the tools it asks for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing
from typing import Any

import msgspec

from mynah.dialogue import emotion
from mynah.dialogue.text import SentenceSplitter
from mynah.providers.base import (
    ChatMessage,
    IntentProvider,
    LlmProvider,
    LlmRequest,
    Role,
    TextDelta,
    ToolCall,
)
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
        intent: IntentProvider[Any] | None = None,
    ) -> None:
        """``note_tool`` is told how many seconds each tool took. ``intent`` says whether the model is shown the tools,
        or chooses them itself; without one the model is shown all.
        """
        self._intent = intent
        self._llm = llm
        self._tools = tools
        self._context = context
        self._before_tools = before_tools
        self._note_tool = note_tool
        self._chars = 0
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
        if self._intent is not None:
            chosen = await self._choose(LlmRequest(prompt, specs, language))
            if chosen:
                direct = await self._run(list(chosen), "")
                for content in direct:
                    yield Sentence(content)
                if len(direct) == len(chosen):
                    return
            if not self._intent.offers_tools:
                specs = ()
        for round_number in range(MAX_TOOL_ROUNDS + 1):
            # In the last round no tools are offered, so that the model has to answer.
            offered = specs if round_number < MAX_TOOL_ROUNDS else ()
            request = LlmRequest((*prompt, *self.tool_messages), offered, language)
            calls: list[ToolCall] = []
            said: list[str] = []
            async with aclosing(self._round(request, calls, said)) as pieces:
                async for piece in pieces:
                    yield piece
            if not calls or not offered or self._tools is None or self._chars > MAX_REPLY_CHARS:
                return
            direct = await self._run(calls, "".join(said))
            for content in direct:
                yield Sentence(content)
            if len(direct) == len(calls):
                return

    async def _choose(self, request: LlmRequest) -> tuple[ToolCall, ...]:
        if self._intent is None or not self._intent.chooses or not request.tools:
            return ()
        return await self._intent.choose(request)

    async def _run(self, calls: list[ToolCall], said: str) -> list[str]:
        """Run tools, and return the results that are spoken as they are."""
        assert self._tools is not None
        await self._before_tools(calls)
        results = await self._call(self._tools, calls, said)
        return [result.content for result in results if result.direct]

    async def _round(
        self, request: LlmRequest, calls: list[ToolCall], said: list[str]
    ) -> AsyncGenerator[Sentence | Face, None]:
        """Yield what the model says to one request; what it calls and its text go to ``calls`` and ``said``."""
        splitter = SentenceSplitter()
        async with aclosing(self._llm.generate(request)) as chunks:
            async for chunk in chunks:
                if isinstance(chunk, TextDelta):
                    self.tokens += 1
                    said.append(chunk.text)
                    if (face := emotion.find(chunk.text)) is not None:
                        yield Face(*face)
                    for sentence in splitter.feed(chunk.text):
                        self._chars += len(sentence)
                        yield Sentence(sentence)
                    if self._chars > MAX_REPLY_CHARS:
                        return
                elif isinstance(chunk, ToolCall):
                    calls.append(chunk)
                    # What was said before is spoken while the tool runs.
                    for sentence in splitter.flush():
                        yield Sentence(sentence)
        for sentence in splitter.flush():
            yield Sentence(sentence)

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
