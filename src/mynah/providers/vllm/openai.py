"""Any vision model behind the OpenAI chat-completions API: GLM-4V, Qwen-VL, OpenAI, Ollama, vLLM, llama.cpp …"""

from __future__ import annotations

import asyncio
import base64
import contextlib
from typing import Any

import msgspec
from pydantic import Field

from mynah.errors import ProviderProtocolError
from mynah.providers.base import Kind, TextDelta, VisionRequest, VllmCapabilities, VllmProvider
from mynah.providers.chat_api import ChatApi, ChatApiOptions, read_chunks
from mynah.texts import text


class OpenAiVllmOptions(ChatApiOptions):
    """Options of an OpenAI-compatible vision model."""

    max_connections: int = Field(
        default=32, gt=0, description="pictures at the same time; more wait until one is answered"
    )


class OpenAiVllm(VllmProvider[OpenAiVllmOptions]):
    """A vision model behind the chat-completions API; pictures travel inside the request, as data URLs."""

    Options = OpenAiVllmOptions
    summary = "any OpenAI-compatible vision model: GLM-4V, Qwen-VL, OpenAI, Ollama"

    def __init__(self, name: str, options: OpenAiVllmOptions) -> None:
        super().__init__(name, options)
        self._api = ChatApi(Kind.VLLM, name, options)

    @property
    def capabilities(self) -> VllmCapabilities:
        """The usual formats; a service that knows fewer refuses the request."""
        return VllmCapabilities()

    async def start(self) -> None:
        """Open the pool of connections. The service is not called before the first picture."""
        await self._api.start()

    async def stop(self) -> None:
        """Close all connections."""
        await self._api.stop()

    async def describe(self, request: VisionRequest) -> str:
        """Ask about one picture. Raises ProviderError with a message that names the setting to look at."""
        # Five megabytes take tens of milliseconds to encode: too long for the event loop.
        body = await asyncio.to_thread(self._body, request)
        async with self._api.post(body) as response, contextlib.aclosing(read_chunks(response)) as chunks:
            pieces = [chunk.text async for chunk in chunks if isinstance(chunk, TextDelta)]
        answer = "".join(pieces).strip()
        if not answer:
            raise ProviderProtocolError("the answer has no text", provider=self.name)
        return answer

    def _body(self, request: VisionRequest) -> bytes:
        options = self.options
        url = f"data:{request.media_type};base64,{base64.b64encode(request.image).decode()}"
        question = text("vision_instruction", request.language, question=request.question)
        body: dict[str, Any] = {
            "model": options.model_name,
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": question},
                        {"type": "image_url", "image_url": {"url": url}},
                    ],
                }
            ],
            "stream": False,
            "temperature": options.temperature,
            "max_tokens": options.max_tokens,
            "top_p": options.top_p,
            **options.extra_body,
        }
        return msgspec.json.encode({key: value for key, value in body.items() if value is not None})
