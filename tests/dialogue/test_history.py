"""History keeps whole exchanges within its budget, and changes its beginning seldom."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from mynah.dialogue.history import (
    CUT_MARK,
    MAX_EXCHANGES,
    History,
    estimate_tokens,
    shorten,
)
from mynah.providers.base import ChatMessage, Role, ToolCall


def user(text: str) -> ChatMessage:
    return ChatMessage(Role.USER, text)


def exchange(number: int, words: int = 10) -> list[ChatMessage]:
    return [
        user(f"question {number}"),
        ChatMessage(Role.ASSISTANT, "", (ToolCall("1", "get_time", "{}"),)),
        ChatMessage(Role.TOOL, "", tool_call_id="1"),
        ChatMessage(Role.ASSISTANT, "word " * words),
    ]


def cost(text: str) -> int:
    return estimate_tokens(user(text)) - estimate_tokens(user(""))


def assert_calls_are_paired(messages: list[ChatMessage]) -> None:
    """Services refuse a result without its call, and a call without its result."""
    open_calls: list[str] = []
    for message in messages:
        if message.role is Role.TOOL:
            assert message.tool_call_id in open_calls
            open_calls.remove(message.tool_call_id)
        else:
            assert not open_calls
            open_calls = [call.id for call in message.tool_calls]
    assert not open_calls


# ---------------------------------------------------------------- trimming


def test_oldest_exchanges_are_dropped_whole() -> None:
    history = History(200)
    for number in range(20):
        history.add(exchange(number))
    assert history.tokens <= 200
    messages = list(history)
    assert messages[0].role is Role.USER
    assert messages[-4].content == "question 19"
    assert len(messages) % 4 == 0


def test_the_beginning_stays_the_same_for_many_turns() -> None:
    """Services keep the beginning of a request: were one exchange dropped every turn, none would be found again."""
    history = History(4000)
    first: list[str] = []
    for number in range(400):
        history.add(exchange(number))
        first.append(next(iter(history)).content)
    changes = sum(a != b for a, b in itertools.pairwise(first))
    assert 1 <= changes <= 400 // 10


def test_an_exchange_larger_than_the_budget_is_shortened() -> None:
    history = History(400)
    result = "start " + "middle " * 2000 + "end"
    history.add(
        [
            user("read it to me"),
            ChatMessage(Role.ASSISTANT, "", (ToolCall("1", "read_page", '{"url": "x"}'),)),
            ChatMessage(Role.TOOL, result, tool_call_id="1"),
            ChatMessage(Role.ASSISTANT, "It says a lot."),
        ]
    )
    question, call, page, answer = history
    assert (question.content, answer.content) == ("read it to me", "It says a lot.")
    assert call.tool_calls[0].arguments == '{"url": "x"}'
    assert page.content.startswith("start middle")
    assert CUT_MARK in page.content
    assert page.content.endswith("middle end")
    assert 200 < history.tokens <= 400


def test_calls_that_leave_no_room_go_with_their_results() -> None:
    history = History(300)
    call = ToolCall("1", "write_note", '{"text": "' + "note " * 2000 + '"}')
    history.add(
        [
            user("write that down"),
            ChatMessage(Role.ASSISTANT, "One moment.", (call,)),
            ChatMessage(Role.TOOL, "done", tool_call_id="1"),
            ChatMessage(Role.ASSISTANT, "I have written it down."),
        ]
    )
    assert [m.content for m in history] == ["write that down", "One moment.", "I have written it down."]
    assert_calls_are_paired(list(history))


def test_even_a_tiny_budget_keeps_the_last_exchange() -> None:
    history = History(10)
    for number in range(3):
        history.add(exchange(number, words=500))
    assert len(history) == 1
    assert history.tokens < 100


def test_empty_messages_are_left_out_but_tool_results_are_not() -> None:
    history = History(1000)
    history.add([user(""), ChatMessage(Role.ASSISTANT, "")])
    assert len(history) == 0
    history.add([user(""), ChatMessage(Role.ASSISTANT, "tea is ready")])
    assert [message.role for message in history] == [Role.ASSISTANT]
    history.add(exchange(1))
    assert [message.role for message in history].count(Role.TOOL) == 1


def test_number_of_exchanges_is_bounded() -> None:
    history = History(10**9)
    sizes = []
    for number in range(MAX_EXCHANGES * 3):
        history.add(exchange(number))
        sizes.append(len(history))
    assert max(sizes) == MAX_EXCHANGES


def test_cleared_history_is_as_new() -> None:
    history = History(100)
    history.add(exchange(1))
    history.clear()
    assert (len(history), history.tokens, list(history)) == (0, 0, [])


TEXT = st.one_of(
    st.text(max_size=300),
    st.builds(
        lambda piece, times: piece * times,
        st.sampled_from(["word ", "字", "a", " ", "7", "😀", "/"]),
        st.integers(0, 3000),
    ),
)


@st.composite
def exchanges(draw: st.DrawFn) -> list[ChatMessage]:
    rounds: list[ChatMessage] = []
    for number in range(draw(st.integers(0, 5))):
        calls = tuple(ToolCall(f"{number}.{n}", "tool", draw(TEXT)) for n in range(draw(st.integers(1, 2))))
        rounds.append(ChatMessage(Role.ASSISTANT, draw(TEXT), calls))
        rounds += [ChatMessage(Role.TOOL, draw(TEXT), tool_call_id=call.id) for call in calls]
    return [user(draw(TEXT)), *rounds, ChatMessage(Role.ASSISTANT, draw(TEXT))]


@given(st.lists(exchanges(), max_size=8), st.integers(100, 2000))
def test_the_budget_holds_and_calls_keep_their_results(said: list[list[ChatMessage]], budget: int) -> None:
    history = History(budget)
    for messages in said:
        history.add(messages)
        kept = list(history)
        assert history.tokens == sum(estimate_tokens(message) for message in kept) <= budget
        assert_calls_are_paired(kept)
        if messages[-1].content:
            assert kept[-1].content[:1].strip() == messages[-1].content[:1].strip()


# ---------------------------------------------------------------- shortening


@given(TEXT, st.integers(3, 400))
def test_shortened_texts_keep_both_ends(text: str, tokens: int) -> None:
    short = shorten(text, tokens)
    assert cost(short) <= tokens
    if cost(text) <= tokens:
        assert short == text
    else:
        head, _, tail = short.partition(CUT_MARK)
        assert text.startswith(head)
        assert text.endswith(tail)


def test_shortening_uses_the_room_there_is() -> None:
    assert 95 <= cost(shorten("one two three " * 1000, 100)) <= 100
    assert 95 <= cost(shorten("今天天气" * 1000, 100)) <= 100


# ---------------------------------------------------------------- estimates


def test_estimate_counts_ideographs_one_by_one() -> None:
    assert estimate_tokens(user("今天天气怎么样")) == 4 + 7
    assert 4 + 4 <= estimate_tokens(user("what is the time")) <= 4 + 8


def test_estimate_is_not_fooled_by_text_without_spaces() -> None:
    assert cost("a" * 4000) >= 600  # a key, a number, blank lines: all of these cost a model something
    assert cost("7" * 4000) >= 1000
    assert cost(" \n" * 2000) >= 250
    assert 8 <= cost("https://example.com/weather/today?city=Berlin&days=3") <= 30
    assert 2 <= cost("internationalisation") <= 5


def test_estimate_counts_tool_calls() -> None:
    plain = ChatMessage(Role.ASSISTANT, "")
    arguments = '{"city": "Berlin", "days": 3}'
    calls = (ToolCall("1", "get_weather", arguments), ToolCall("2", "get_weather", arguments))
    assert estimate_tokens(ChatMessage(Role.ASSISTANT, "", calls)) >= estimate_tokens(plain) + 2 * cost(
        arguments
    )


@given(TEXT, TEXT)
def test_more_text_never_costs_less(text: str, more: str) -> None:
    assert cost(text) <= cost(text + more) <= cost(text) + cost(more) + 1
