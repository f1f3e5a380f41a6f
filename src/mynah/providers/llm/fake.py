"""A language model that says the same words at a set pace. For benchmarks and tests."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator

from pydantic import Field

from mynah.providers.base import Finish, LlmCapabilities, LlmChunk, LlmProvider, LlmRequest, TextDelta
from mynah.providers.faults import FaultOptions, Faults, sleep_until

# Twenty tokens that make three sentences, in either language.
_REPLIES = {
    "en": (
        "Sure, here is a short answer for you. It has exactly twenty words in all. "
        "That is everything for now."
    ),
    "zh": "好的，|这|是|给|你|的|一个|简短|回答。|它|一共|有|二十个|词|左右。|暂时|就|先|说到|这里。",
}
# A word with its leading space, or one Chinese character with the punctuation after it.
_TOKEN = re.compile(r"\s*[一-鿿][，。！？、；：…“”]*|\s*[^\s一-鿿]+|\s+$")


class FakeLlmOptions(FaultOptions):
    """Options of the fake language model."""

    token_ms: float = Field(default=10.0, ge=0, description="time between two tokens, in milliseconds")
    text: str | None = Field(
        default=None, description="what it answers; left out: twenty tokens that make three sentences"
    )


class FakeLlm(LlmProvider[FakeLlmOptions]):
    """Test double; never a default."""

    Options = FakeLlmOptions
    summary = "test double: says a set text at a set pace"

    def __init__(self, name: str, options: FakeLlmOptions) -> None:
        super().__init__(name, options)
        self._faults = Faults(name, options)

    @property
    def capabilities(self) -> LlmCapabilities:
        """No tools: it only talks."""
        return LlmCapabilities(tools=False)

    async def generate(self, request: LlmRequest) -> AsyncGenerator[LlmChunk, None]:
        """First token ``delay_ms`` after the request, then one per ``token_ms``."""
        started = asyncio.get_running_loop().time()
        tokens = self._tokens(request.language)
        await self._faults.first_result(started)
        for index, token in enumerate(tokens):
            await sleep_until(started + (self.options.delay_ms + index * self.options.token_ms) / 1000)
            yield TextDelta(text=token)
        prompt = sum(len(message.content.split()) for message in request.messages)
        yield Finish(prompt_tokens=prompt, completion_tokens=len(tokens))

    def _tokens(self, language: str) -> list[str]:
        if self.options.text is not None:
            return _TOKEN.findall(self.options.text)
        reply = _REPLIES.get(language, _REPLIES["en"])
        return reply.split("|") if "|" in reply else _TOKEN.findall(reply)
