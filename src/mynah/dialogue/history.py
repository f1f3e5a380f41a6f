"""What has been said in a conversation, trimmed to a budget of tokens."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator

from mynah.providers.base import ChatMessage, Role

_CJK = re.compile(r"[\u3400-\u9fff\uf900-\ufaff\u3040-\u30ff\uac00-\ud7af]")
_WORD = re.compile(r"[A-Za-z0-9_']+|[^\sA-Za-z0-9_']")

MAX_EXCHANGES = 200
"""No token budget keeps more: it bounds the memory of one device, about 100 KB of text."""


def estimate_tokens(message: ChatMessage) -> int:
    """Return roughly how many tokens a message costs: one per CJK character or word, four for its frame."""
    text = message.content + "".join(call.name + call.arguments for call in message.tool_calls)
    cjk = len(_CJK.findall(text))
    return 4 + cjk + len(_WORD.findall(_CJK.sub(" ", text))) * 4 // 3


class History:
    """The exchanges of one device, oldest first. One is dropped whole, so a tool result never lacks its call."""

    __slots__ = ("_budget", "_exchanges", "_tokens")

    def __init__(self, budget_tokens: int) -> None:
        self._budget = budget_tokens
        self._exchanges: deque[tuple[int, tuple[ChatMessage, ...]]] = deque()
        self._tokens = 0

    def add(self, exchange: Iterable[ChatMessage]) -> None:
        """Append one exchange and forget the oldest ones past the budget. Empty messages are left out."""
        messages = tuple(m for m in exchange if m.content or m.tool_calls or m.role is Role.TOOL)
        if not messages:
            return
        tokens = sum(estimate_tokens(message) for message in messages)
        self._exchanges.append((tokens, messages))
        self._tokens += tokens
        while len(self._exchanges) > 1 and (
            self._tokens > self._budget or len(self._exchanges) > MAX_EXCHANGES
        ):
            dropped, _ = self._exchanges.popleft()
            self._tokens -= dropped

    def __iter__(self) -> Iterator[ChatMessage]:
        for _, messages in self._exchanges:
            yield from messages

    def __len__(self) -> int:
        return len(self._exchanges)

    @property
    def tokens(self) -> int:
        """Estimated tokens of all that is remembered."""
        return self._tokens
