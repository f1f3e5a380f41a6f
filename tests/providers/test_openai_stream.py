"""The chat-completions stream, from bytes to chunks, cut in every way."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mynah.errors import (
    ProviderError,
    ProviderProtocolError,
    ProviderRateLimitedError,
    ProviderRejectedError,
    ProviderUnavailableError,
)
from mynah.providers.base import Finish, LlmChunk, TextDelta, ToolCall
from mynah.providers.llm.openai_stream import MAX_EVENT, MAX_TOOL_CALLS, ReplyDecoder, SseDecoder, ThinkFilter


def cut(data: Any, places: list[int]) -> list[Any]:
    edges = [0, *sorted({place % (len(data) + 1) for place in places}), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges)]


# ---------------------------------------------------------------- events

payloads = st.lists(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n"), min_size=1), max_size=5
)


@given(
    payloads,
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.sampled_from(["data: ", "data:"]),
    st.lists(st.integers(0)),
)
def test_events_survive_any_cut(events: list[str], end: str, prefix: str, places: list[int]) -> None:
    expected = [event.removeprefix(" ") if prefix == "data:" else event for event in events]
    stream = "".join(f": ping{end}{end}id: 1{end}{prefix}{event}{end}{end}" for event in events).encode()
    decoder = SseDecoder()
    got = [event for piece in cut(stream, places) for event in decoder.feed(piece)]
    assert got + decoder.finish() == expected


def test_data_of_several_lines_is_joined() -> None:
    assert SseDecoder().feed(b'data: {"a":\ndata: 1}\n\n') == ['{"a":\n1}']


def test_the_last_event_needs_no_empty_line() -> None:
    decoder = SseDecoder()
    assert decoder.feed(b"data: [DONE]") == []
    assert decoder.finish() == ["[DONE]"]
    assert decoder.finish() == []


@given(st.binary(max_size=300), st.lists(st.integers(0), max_size=5))
def test_any_bytes_are_survived(data: bytes, places: list[int]) -> None:
    decoder, whole = SseDecoder(), SseDecoder()
    got = [event for piece in cut(data, places) for event in decoder.feed(piece)]
    assert got + decoder.finish() == whole.feed(data) + whole.finish()


@pytest.mark.parametrize("line", [b"data: " + b"x" * 1000, b"data: " + b"x" * 1000 + b"\n"])
def test_an_event_has_a_limit(line: bytes) -> None:
    decoder = SseDecoder()
    with pytest.raises(ProviderProtocolError, match="longer"):
        for _ in range(MAX_EVENT // 1000 + 2):
            decoder.feed(line)


# ---------------------------------------------------------------- reasoning


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("<think>hm</think>\n\nHello", "Hello"),
        ("<think></think>Hello", "Hello"),
        ("Hello", "Hello"),
        ("a < b and <thing>", "a < b and <thing>"),
        ("ends with <thi", "ends with <thi"),
        ("<think>never ends", ""),
        ("one <think>x</think> two <think>y</think> three", "one two three"),
        ("<think>a <b> </thin </think>ok", "ok"),
        ("", ""),
    ],
)
@given(places=st.lists(st.integers(0)))
def test_reasoning_is_left_out_however_it_is_cut(said: str, kept: str, places: list[int]) -> None:
    strip = ThinkFilter()
    assert "".join(strip.feed(piece) for piece in cut(said, places)) + strip.finish() == kept


# ---------------------------------------------------------------- replies


def event(delta: dict[str, Any] | None = None, finish: str | None = None, **extra: Any) -> str:
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
    return json.dumps({"choices": choices, **extra})


def decode(*events: str) -> list[LlmChunk]:
    decoder = ReplyDecoder()
    out = [chunk for data in events for chunk in decoder.feed(data)]
    return out + decoder.finish()


def calls(*deltas: dict[str, Any]) -> list[tuple[str, str, str]]:
    chunks = decode(*(event({"tool_calls": [delta]}) for delta in deltas), "[DONE]")
    return [(chunk.id, chunk.name, chunk.arguments) for chunk in chunks if isinstance(chunk, ToolCall)]


def test_text_then_finish() -> None:
    assert decode(event({"content": "Hi"}), event({"content": None}), event({}, "stop"), "[DONE]") == [
        TextDelta("Hi"),
        Finish("stop"),
    ]


def test_content_in_parts() -> None:
    parts = [{"type": "text", "text": "Hi"}, {"type": "thinking", "thinking": []}]
    assert decode(event({"content": parts}), "[DONE]") == [TextDelta("Hi"), Finish("stop")]


def test_arguments_of_every_kind() -> None:
    assert calls({"index": 0, "id": "a", "function": {"name": "f", "arguments": ""}}) == [("a", "f", "{}")]
    assert calls({"index": 0, "id": "a", "function": {"name": "f", "arguments": {"x": 1}}}) == [
        ("a", "f", '{"x":1}')
    ]
    assert calls(
        {"index": 0, "id": "a", "function": {"name": "f"}},
        {"index": 0, "id": "", "function": {"name": None, "arguments": '{"x"'}},
        {"index": 0, "function": {"arguments": ":1}"}},
    ) == [("a", "f", '{"x":1}')]


def test_same_tool_twice_without_index() -> None:
    both = calls(
        {"id": "a", "function": {"name": "f", "arguments": "1"}},
        {"id": "b", "function": {"name": "f", "arguments": "2"}},
    )
    assert both == [("a", "f", "1"), ("b", "f", "2")]


def test_calls_without_ids_get_different_ones() -> None:
    ids = [id_ for id_, _, _ in calls(*({"index": n, "function": {"name": "f"}} for n in range(3)))]
    assert len(set(ids)) == 3


def test_number_of_calls_has_a_limit() -> None:
    with pytest.raises(ProviderProtocolError, match="tool calls"):
        calls(*({"index": n, "function": {"name": "f"}} for n in range(MAX_TOOL_CALLS + 1)))


@given(st.lists(st.sampled_from(["{", '"a', '": ', "1", "}", "巴黎", " "]), min_size=1))
def test_fragments_are_joined_exactly(fragments: list[str]) -> None:
    first = {"index": 0, "id": "a", "function": {"name": "f"}}
    assert calls(first, *({"index": 0, "function": {"arguments": part}} for part in fragments)) == [
        ("a", "f", "".join(fragments))
    ]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"message": "slow down", "code": "rate_limit_exceeded"}, ProviderRateLimitedError),
        ({"message": "slow down", "code": 429}, ProviderRateLimitedError),
        ({"message": "broke", "code": "insufficient_quota"}, ProviderRejectedError),
        ({"message": "bad", "type": "invalid_request_error"}, ProviderRejectedError),
        ({"message": "bad", "code": 400}, ProviderRejectedError),
        ({"message": "oops", "type": "server_error"}, ProviderUnavailableError),
        ({"message": "oops", "code": 500}, ProviderUnavailableError),
        ("just text", ProviderUnavailableError),
    ],
)
def test_errors_within_the_stream(error: Any, kind: type[ProviderError]) -> None:
    with pytest.raises(ProviderError) as caught:
        decode(json.dumps({"error": error}))
    assert type(caught.value) is kind
    assert (error if isinstance(error, str) else error["message"]) in str(caught.value)


def test_filter_after_some_text_only_ends_the_reply() -> None:
    assert decode(event({"content": "Hi"}), event({}, "content_filter"))[-1] == Finish("content_filter")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda x: (
            st.lists(x)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "choices",
                        "delta",
                        "tool_calls",
                        "function",
                        "index",
                        "content",
                        "error",
                        "usage",
                        "name",
                    ]
                ),
                x,
            )
        ),
    )
)
def test_any_json_is_a_reply_or_a_provider_error(value: Any) -> None:
    try:
        decode(json.dumps(value), "[DONE]")
    except ProviderError:
        pass
