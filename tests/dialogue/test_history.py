"""History keeps whole exchanges within its budget."""

from __future__ import annotations

from mynah.dialogue.history import MAX_EXCHANGES, History, estimate_tokens
from mynah.providers.base import ChatMessage, Role, ToolCall


def exchange(number: int, words: int = 10) -> list[ChatMessage]:
    return [
        ChatMessage(Role.USER, f"question {number}"),
        ChatMessage(Role.ASSISTANT, "", (ToolCall("1", "get_time", "{}"),)),
        ChatMessage(Role.TOOL, "", tool_call_id="1"),
        ChatMessage(Role.ASSISTANT, "word " * words),
    ]


def test_oldest_exchanges_are_dropped_whole() -> None:
    history = History(200)
    for number in range(20):
        history.add(exchange(number))
    assert history.tokens <= 200
    messages = list(history)
    assert messages[0].role is Role.USER
    assert messages[-4].content == "question 19"
    assert len(messages) % 4 == 0


def test_the_last_exchange_stays_however_long() -> None:
    history = History(10)
    history.add(exchange(1, words=500))
    assert len(history) == 1


def test_empty_messages_are_left_out_but_tool_results_are_not() -> None:
    history = History(1000)
    history.add([ChatMessage(Role.USER, ""), ChatMessage(Role.ASSISTANT, "")])
    assert len(history) == 0
    history.add([ChatMessage(Role.USER, ""), ChatMessage(Role.ASSISTANT, "tea is ready")])
    assert [message.role for message in history] == [Role.ASSISTANT]


def test_number_of_exchanges_is_bounded() -> None:
    history = History(10**9)
    for number in range(MAX_EXCHANGES + 10):
        history.add(exchange(number))
    assert len(history) == MAX_EXCHANGES


def test_estimate_counts_ideographs_one_by_one() -> None:
    assert estimate_tokens(ChatMessage(Role.USER, "今天天气怎么样")) == 4 + 7
    assert 4 + 4 <= estimate_tokens(ChatMessage(Role.USER, "what is the time")) <= 4 + 8
