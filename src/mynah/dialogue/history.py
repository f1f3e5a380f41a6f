"""What has been said in a conversation, trimmed to a budget of tokens."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeAlias

import msgspec

from mynah.providers.base import ChatMessage, Role

MAX_EXCHANGES = 200
"""No token budget keeps more: it bounds the memory of one device, about 100 KB of text. Overflow policy: as for the
budget, the oldest are forgotten."""
CUT_MARK = " […] "
"""Stands where the middle of a long text was left out. Models know it from quotations."""
FRAME_TOKENS = 4
"""What a message costs besides its text: role and separators."""
CALL_TOKENS = 8
"""What a tool call costs besides its name and arguments: the JSON around them."""

_PIECE = re.compile(r"([A-Za-z']{1,8})|[0-9]{1,2}|\s{2,8}|[^\sA-Za-z0-9']")
"""What a token stands for, or in the group, a bit less: most words of up to eight letters are one token, or two."""
_THIRDS, _LETTER_THIRDS = 3, 4
"""What a piece costs, in thirds of a token."""
_MAX_PIECE_CHARS = 9
"""With a space, which costs nothing."""
_KEEP = (3, 4)
"""Past the budget, this share of it is kept. Were it trimmed to the budget itself, every further turn would drop an
exchange and so change the beginning of the request, which services keep from one request to the next."""
_MARK_TOKENS = 3
_MIN_TEXT_TOKENS = 8
"""Tool calls may leave as much for each text: the mark and a word at either end."""

Exchange: TypeAlias = tuple[ChatMessage, ...]
"""What the user said, the tool calls it led to with their results, and the answer."""


def estimate_tokens(message: ChatMessage) -> int:
    """Return roughly how many tokens a message costs, rather too many than too few.

    One for a CJK character, a symbol, two digits; 4/3 for eight letters; a URL is the sum of its parts.
    """
    calls = sum(
        CALL_TOKENS + _text_tokens(call.name) + _text_tokens(call.arguments) for call in message.tool_calls
    )
    return FRAME_TOKENS + _text_tokens(message.content) + calls


def shorten(text: str, tokens: int) -> str:
    """Return ``text`` with its middle cut out and marked, so that it costs ``tokens`` or less; short texts as they are.

    The mark alone costs 3: that is the least ``tokens`` can be.
    """
    if _text_tokens(text) <= tokens:
        return text
    thirds = _THIRDS * (tokens - _MARK_TOKENS)
    head = end = 0
    for piece in _PIECE.finditer(text):
        head += _thirds(piece)
        if head > thirds // 2:
            break
        end = piece.end()
    # All that could fit, so that a long text is not searched from its beginning.
    window = text[-(thirds // 2 + 1) * _MAX_PIECE_CHARS :]
    tail, begin = 0, len(window)
    for piece in reversed(list(_PIECE.finditer(window))):
        tail += _thirds(piece)
        if tail > thirds // 2:
            break
        begin = piece.start()
    return text[:end].rstrip() + CUT_MARK + window[begin:].lstrip()


class History:
    """The exchanges of one device, oldest first. One is dropped whole, so a tool result never lacks its call.

    What an exchange costs is estimated once, when it is added.
    """

    __slots__ = ("_budget", "_exchanges", "_tokens")

    def __init__(self, budget_tokens: int) -> None:
        self._budget = budget_tokens
        self._exchanges: list[
            tuple[int, Exchange]
        ] = []  # a deque takes 700 bytes more, in every idle session
        self._tokens = 0

    def add(self, exchange: Iterable[ChatMessage]) -> None:
        """Append one exchange. Past the budget, the oldest are forgotten until a quarter of it is free again.

        Empty messages are left out. One exchange that is larger than the budget is shortened.
        """
        messages = tuple(m for m in exchange if m.content or m.tool_calls or m.role is Role.TOOL)
        if not messages:
            return
        tokens = _cost(messages)
        if tokens > self._budget:
            messages = _shortened(messages, _share(self._budget))
            tokens = _cost(messages)
            if not messages:
                return
        self._exchanges.append((tokens, messages))
        self._tokens += tokens
        if self._tokens > self._budget or len(self._exchanges) > MAX_EXCHANGES:
            while len(self._exchanges) > 1 and (
                self._tokens > _share(self._budget) or len(self._exchanges) > _share(MAX_EXCHANGES)
            ):
                dropped, _ = self._exchanges.pop(0)
                self._tokens -= dropped

    def clear(self) -> None:
        """Forget everything."""
        self._exchanges.clear()
        self._tokens = 0

    def __iter__(self) -> Iterator[ChatMessage]:
        for _, messages in self._exchanges:
            yield from messages

    def __len__(self) -> int:
        return len(self._exchanges)

    @property
    def tokens(self) -> int:
        """Estimated tokens of all that is remembered."""
        return self._tokens


def _share(whole: int) -> int:
    return whole * _KEEP[0] // _KEEP[1]


def _cost(messages: Iterable[ChatMessage]) -> int:
    return sum(estimate_tokens(message) for message in messages)


def _text_tokens(text: str) -> int:
    groups = _PIECE.findall(text)
    letters = len(groups) - groups.count("")
    return -(-(_THIRDS * len(groups) + (_LETTER_THIRDS - _THIRDS) * letters) // 3)


def _thirds(piece: re.Match[str]) -> int:
    return _LETTER_THIRDS if piece[1] else _THIRDS


def _shortened(messages: Exchange, tokens: int) -> Exchange:
    """Cut the longest texts until all fit into ``tokens``; tool calls that leave no room for words go first."""
    room = tokens - _fixed_cost(messages)
    if room < _MIN_TEXT_TOKENS * len(messages):
        spoken = (m for m in messages if m.role is not Role.TOOL and m.content)
        messages = tuple(msgspec.structs.replace(m, tool_calls=()) for m in spoken)
        if not messages:
            return ()
        room = tokens - _fixed_cost(messages)
    limit = max(_MARK_TOKENS, _level([_text_tokens(m.content) for m in messages], room))
    return tuple(msgspec.structs.replace(m, content=shorten(m.content, limit)) for m in messages)


def _fixed_cost(messages: Exchange) -> int:
    return sum(estimate_tokens(m) - _text_tokens(m.content) for m in messages)


def _level(sizes: Sequence[int], room: int) -> int:
    """Return the limit to which the largest sizes have to be cut for all to fit into ``room``."""
    if sum(sizes) <= room:
        return max(sizes)
    left = sorted(sizes, reverse=True)
    while left:
        limit = room // len(left)
        smallest = left.pop()
        if smallest > limit:
            return limit
        room -= smallest
    raise AssertionError("unreachable: the sizes do not fit, so one is above its share")
