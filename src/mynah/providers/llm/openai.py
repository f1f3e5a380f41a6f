"""Any service that speaks the OpenAI chat-completions API: OpenAI, DeepSeek, Qwen, GLM, Doubao, vLLM, LM Studio …

HTTP and errors are in `chat_api`; the stream is read in `openai_stream`.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import msgspec
from pydantic import Field

from mynah.providers.base import (
    ChatMessage,
    Kind,
    LlmCapabilities,
    LlmChunk,
    LlmProvider,
    LlmRequest,
    Role,
    ToolCall,
    ToolSpec,
)
from mynah.providers.chat_api import ChatApi, ChatApiOptions, read_chunks


class OpenAiOptions(ChatApiOptions):
    """Options of an OpenAI-compatible language model."""

    top_k: int | None = Field(default=None, ge=0, description="only where the service knows it (Qwen, vLLM)")
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2, description="against repetition")
    stream_usage: bool = Field(
        default=True, description="ask for token counts; false for a service that refuses stream_options"
    )


class OpenAiLlm(LlmProvider[OpenAiOptions]):
    """A language model behind the chat-completions API."""

    Options = OpenAiOptions
    summary = "any OpenAI-compatible chat-completions API, with streaming and tool calls"

    def __init__(self, name: str, options: OpenAiOptions) -> None:
        super().__init__(name, options)
        self._api = ChatApi(Kind.LLM, name, options)

    @property
    def capabilities(self) -> LlmCapabilities:
        """Streaming, with tools."""
        return LlmCapabilities(tools=True)

    async def start(self) -> None:
        """Open the pool of connections. The service is not called before the first request."""
        await self._api.start()

    async def stop(self) -> None:
        """Close all connections."""
        await self._api.stop()

    async def generate(self, request: LlmRequest) -> AsyncGenerator[LlmChunk, None]:
        """Stream one reply. Raises ProviderError with a message that names the setting to look at."""
        names = ToolNames(request.tools)
        body = msgspec.json.encode(self._body(request, names))
        async with (
            self._api.post(body) as response,
            contextlib.aclosing(read_chunks(response)) as chunks,
        ):
            async for chunk in chunks:
                yield names.restore(chunk)

    def _body(self, request: LlmRequest, names: ToolNames) -> dict[str, Any]:
        options = self.options
        body: dict[str, Any] = {
            "model": options.model_name,
            "messages": [_message(message, names) for message in _notes_merged(request.messages)],
            "stream": True,
            "stream_options": {"include_usage": True} if options.stream_usage else None,
            "temperature": options.temperature,
            "max_tokens": options.max_tokens,
            "top_p": options.top_p,
            "top_k": options.top_k,
            "frequency_penalty": options.frequency_penalty,
            "tools": [_tool(tool, names) for tool in request.tools] or None,
            **options.extra_body,
        }
        return {key: value for key, value in body.items() if value is not None}


# ---------------------------------------------------------------- messages and tools


class ToolNames:
    """Tool names as the API allows them (letters, digits, ``_``, ``-``; at most 64), and the way back."""

    _FORBIDDEN = re.compile(r"[^A-Za-z0-9_-]")
    _LONGEST = 64

    def __init__(self, tools: Sequence[ToolSpec]) -> None:
        self._original: dict[str, str] = {}
        self._allowed: dict[str, str] = {}
        for tool in tools:
            self.allow(tool.name)

    def allow(self, name: str) -> str:
        """Return the allowed form of ``name``; two names never share one."""
        if name in self._allowed:
            return self._allowed[name]
        base = self._FORBIDDEN.sub("_", name)[: self._LONGEST] or "tool"
        allowed = base
        number = 2
        while allowed in self._original:
            suffix = f"_{number}"
            allowed = base[: self._LONGEST - len(suffix)] + suffix
            number += 1
        self._original[allowed] = name
        self._allowed[name] = allowed
        return allowed

    def restore(self, chunk: LlmChunk) -> LlmChunk:
        """Return ``chunk`` with the tool's own name."""
        if isinstance(chunk, ToolCall):
            return msgspec.structs.replace(chunk, name=self._original.get(chunk.name, chunk.name))
        return chunk


def _notes_merged(messages: Sequence[ChatMessage]) -> list[ChatMessage]:
    """Put later system messages at the head of the user message that follows.

    Services know one system message, the first: chat templates refuse others, or move them to the top, where a note
    of the time would change the beginning of every request.
    """
    merged: list[ChatMessage] = []
    note = ""
    for message in messages:
        if message.role is Role.SYSTEM and merged:
            note += message.content + "\n\n"
        elif message.role is Role.USER and note:
            merged.append(msgspec.structs.replace(message, content=note + message.content))
            note = ""
        else:
            merged.append(message)
    return merged


def _message(message: ChatMessage, names: ToolNames) -> dict[str, Any]:
    out: dict[str, Any] = {"role": message.role.value, "content": message.content}
    if message.role is Role.TOOL:
        out["tool_call_id"] = message.tool_call_id
    if message.tool_calls:
        out["content"] = message.content or None
        out["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": names.allow(call.name), "arguments": call.arguments or "{}"},
            }
            for call in message.tool_calls
        ]
    return out


def _tool(tool: ToolSpec, names: ToolNames) -> dict[str, Any]:
    return {
        "type": "function",
        "function": {
            "name": names.allow(tool.name),
            "description": tool.description,
            "parameters": dict(tool.parameters),
        },
    }
