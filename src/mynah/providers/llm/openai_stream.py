"""The stream of an OpenAI-compatible chat completion, from bytes to chunks. Pure: no I/O, no clock.

    bytes → `SseDecoder` → text of each event → `ReplyDecoder` → TextDelta, ToolCall, Finish

Written for what servers really send: keep-alive comments, any line ending, characters cut in two, tool calls in
fragments or whole, without ids or with one index for all, a missing ``[DONE]``, a usage block at the end.
"""

from __future__ import annotations

import re
import uuid
from typing import Any

import msgspec

from mynah.errors import (
    ProviderError,
    ProviderProtocolError,
    ProviderRateLimitedError,
    ProviderRejectedError,
    ProviderUnavailableError,
)
from mynah.providers.base import Finish, LlmChunk, TextDelta, ToolCall

MAX_EVENT = 1 << 20
"""Longest event in bytes. A whole reply fits into one many times over; more is not a chat completion."""

MAX_TOOL_CALLS = 64
"""Most tool calls in one reply; models ask for a handful."""

_LINE_END = re.compile(rb"\r\n|\n|\r")


class SseDecoder:
    """Cuts a byte stream into the data of its server-sent events, as the HTML standard describes them."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[str] = []
        self._size = 0

    def feed(self, data: bytes) -> list[str]:
        """Take the next bytes; return the data of the events that are complete. Raises ProviderProtocolError."""
        buffer = self._rest + data
        events: list[str] = []
        start = 0
        for end in _LINE_END.finditer(buffer):
            if end[0] == b"\r" and end.end() == len(buffer):
                break  # the \n that belongs to it may be the next byte
            self._line(buffer[start : end.start()], events)
            start = end.end()
        self._rest = buffer[start:]
        if self._size + len(self._rest) > MAX_EVENT:
            raise ProviderProtocolError(f"an event of the stream is longer than {MAX_EVENT} bytes")
        return events

    def finish(self) -> list[str]:
        """The stream has ended: return the event that was not closed by an empty line, if any."""
        events: list[str] = []
        self._line(self._rest.rstrip(b"\r"), events)
        self._rest = b""
        self._dispatch(events)
        return events

    def _line(self, line: bytes, events: list[str]) -> None:
        if not line:
            self._dispatch(events)
            return
        name, _, value = line.partition(b":")
        if name != b"data":  # comments (keep-alive), event, id, retry
            return
        if len(self._data) == 1 and _is_complete(self._data[0]):
            self._dispatch(
                events
            )  # a server that leaves out the empty lines; it does not break its JSON into lines
        text = value.removeprefix(b" ").decode("utf-8", errors="replace")
        self._data.append(text)
        self._size += len(line)

    def _dispatch(self, events: list[str]) -> None:
        if self._data:
            events.append("\n".join(self._data))
            self._data = []
            self._size = 0


def _is_complete(text: str) -> bool:
    if text.strip() == "[DONE]":
        return True
    try:
        msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


class ThinkFilter:
    """Leaves out ``<think>…</think>``, with which some models write down their reasoning before they answer."""

    _OPEN, _CLOSE = "<think>", "</think>"

    def __init__(self) -> None:
        self._held = ""  # may be the beginning of a tag; shorter than one
        self._thinking = False
        self._trim = False

    def feed(self, text: str) -> str:
        """Return what of ``text`` (and of what was held back) belongs to the answer."""
        text = self._held + text
        out = ""
        while True:
            tag = self._CLOSE if self._thinking else self._OPEN
            before, found, after = text.partition(tag)
            if not found:
                break
            out += "" if self._thinking else self._clean(before)
            self._thinking = not self._thinking
            self._trim = True
            text = after
        keep = next((n for n in range(min(len(tag) - 1, len(text)), 0, -1) if tag.startswith(text[-n:])), 0)
        self._held = text[len(text) - keep :]
        if not self._thinking:
            out += self._clean(text[: len(text) - keep])
        return out

    def finish(self) -> str:
        """The reply has ended: what was held back was no tag after all."""
        held, self._held = self._held, ""
        return "" if self._thinking else self._clean(held)

    def _clean(self, text: str) -> str:
        if self._trim:  # the empty lines between the reasoning and the answer
            text = text.lstrip()
            self._trim = not text
        return text


# ---------------------------------------------------------------- what servers send


class _Part(msgspec.Struct):
    text: str | None = None


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | dict[str, Any] | None = None


class _CallDelta(msgspec.Struct):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None


class _Delta(msgspec.Struct):
    content: str | list[_Part] | None = None
    tool_calls: list[_CallDelta] | None = None


class _Choice(msgspec.Struct):
    delta: _Delta | None = None
    message: _Delta | None = None  # in a reply that is not streamed
    finish_reason: str | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Event(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    error: Any = None


class _Call:
    """A tool call that is being put together."""

    def __init__(self) -> None:
        self.id = ""
        self.name = ""
        self.arguments = ""


class ReplyDecoder:
    """Turns the events of one reply into chunks. Tool calls come out whole, at the end."""

    def __init__(self) -> None:
        self._decoder = msgspec.json.Decoder(_Event)
        self._think = ThinkFilter()
        self._calls: list[_Call] = []
        self._by_index: dict[int, _Call] = {}
        self._reason = ""
        self._usage = _Usage()
        self._answered = False
        self.done = False
        """``[DONE]`` has come: there is nothing more to read."""

    def feed(self, data: str) -> list[LlmChunk]:
        """Take the data of one event. Raises ProviderError."""
        if data.strip() == "[DONE]":
            self.done = True
            return []
        try:
            event = self._decoder.decode(data)
        except (msgspec.DecodeError, RecursionError) as error:  # includes ValidationError
            raise ProviderProtocolError(f"not a chat completion chunk ({error}): {data[:200]!r}") from error
        if event.error is not None:
            raise error_in_body(event.error)
        if event.usage is not None:
            self._usage = event.usage
        out: list[LlmChunk] = []
        for choice in event.choices or ():
            self._reason = choice.finish_reason or self._reason
            delta = choice.delta or choice.message
            if delta is not None:
                self._text(self._think.feed(_content(delta)), out)
                for call in delta.tool_calls or ():
                    self._call(call)
        return out

    def finish(self) -> list[LlmChunk]:
        """The stream has ended. Raises ProviderUnavailableError when it was cut before the reply was complete."""
        if not self.done and not self._reason:
            raise ProviderUnavailableError("the connection ended in the middle of the reply")
        out: list[LlmChunk] = []
        self._text(self._think.finish(), out)
        for call in self._calls:
            if not call.name:
                raise ProviderProtocolError("a tool call without a function name")
            out.append(
                ToolCall(
                    id=call.id or f"call_{uuid.uuid4().hex[:16]}",
                    name=call.name,
                    arguments=call.arguments or "{}",
                )
            )
        if self._reason == "content_filter" and not self._answered and not self._calls:
            raise ProviderRejectedError("the service's content filter withheld the reply")
        out.append(
            Finish(
                reason=self._reason or ("tool_calls" if self._calls else "stop"),
                prompt_tokens=self._usage.prompt_tokens or 0,
                completion_tokens=self._usage.completion_tokens or 0,
            )
        )
        return out

    def _text(self, text: str, out: list[LlmChunk]) -> None:
        if text:
            self._answered = True
            out.append(TextDelta(text=text))

    def _call(self, delta: _CallDelta) -> None:
        function = delta.function or _Function()
        call = self._slot(delta, function)
        call.id = call.id or delta.id or ""
        call.name = call.name or function.name or ""
        if isinstance(function.arguments, dict):
            call.arguments = msgspec.json.encode(function.arguments).decode()
        elif function.arguments:
            call.arguments += function.arguments
        if len(call.arguments) > MAX_EVENT:
            raise ProviderProtocolError(
                f"the arguments of a tool call are longer than {MAX_EVENT} characters"
            )

    def _slot(self, delta: _CallDelta, function: _Function) -> _Call:
        """Find the call a fragment belongs to. Index first; a new id with a name starts a call in any case."""
        current = self._by_index.get(delta.index) if delta.index is not None else None
        if current is None and delta.index is None and self._calls:
            current = self._calls[-1]
        if current is not None:
            another_id = bool(delta.id and current.id and delta.id != current.id)
            whole_again = bool(delta.index is None and not delta.id and function.name and current.name)
            if not (function.name and (another_id or whole_again)):
                return current
        if len(self._calls) >= MAX_TOOL_CALLS:
            raise ProviderProtocolError(f"more than {MAX_TOOL_CALLS} tool calls in one reply")
        fresh = _Call()
        self._calls.append(fresh)
        if delta.index is not None:
            self._by_index[delta.index] = fresh
        return fresh


def _content(delta: _Delta) -> str:
    if isinstance(delta.content, list):
        return "".join(part.text or "" for part in delta.content)
    return delta.content or ""


_QUOTA = frozenset({"insufficient_quota", "billing_hard_limit_reached", "account_deactivated"})


def error_in_body(error: object) -> ProviderError:
    """Return the exception for an ``error`` object that came in a stream or with a status of 200."""
    message, code = describe_error(error)
    if code == "429" or "rate_limit" in code:
        return ProviderRateLimitedError(message)
    if code in _QUOTA or (code.startswith("4") and len(code) == 3) or "invalid" in code or "filter" in code:
        return ProviderRejectedError(message)
    return ProviderUnavailableError(message)


def describe_error(error: object) -> tuple[str, str]:
    """Return (message, code) of an error object: ``{"message": …, "code": …, "type": …}`` or anything else."""
    if not isinstance(error, dict):
        return str(error)[:500], ""
    message = str(error.get("message") or error)[:500]
    code = error.get("code") or error.get("type") or ""
    return message, str(code)


def is_quota(code: str) -> bool:
    """Whether an error code says that the account is exhausted, so that waiting does not help."""
    return code in _QUOTA
