"""What the OpenAI stand-in can be told to do; the model's name chooses the scenario.

A number at the end of the name is an argument: ``slow-first-300`` waits 300 ms before the first token.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

from aiohttp import web

SENTENCES = "Hello there. How can I help you today?"
CHINESE = "你好！今天😀天气很好。"
TOKENS = re.findall(r"\s?\S+", SENTENCES)

Scenario = Callable[["Reply"], Awaitable[web.StreamResponse]]
SCENARIOS: dict[str, Scenario] = {}


def scenario(name: str) -> Callable[[Scenario], Scenario]:
    def register(play: Scenario) -> Scenario:
        SCENARIOS[name] = play
        return play

    return register


class Reply:
    """One request and the means to answer it."""

    def __init__(self, request: web.Request, body: dict[str, Any], argument: float, tries: int) -> None:
        self.request = request
        self.body = body
        self.argument = argument
        """The number at the end of the model's name, such as milliseconds."""
        self.tries = tries
        """How many requests this key has made with this model, this one included."""
        self.response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        self.key = request.headers.get("Authorization", "").removeprefix("Bearer ")

    async def open(self) -> None:
        await self.response.prepare(self.request)
        await self.delta({"role": "assistant", "content": ""})

    async def raw(self, data: bytes) -> None:
        await self.response.write(data)

    def chunk(self, delta: dict[str, Any] | None, finish: str | None = None, **extra: Any) -> dict[str, Any]:
        choices = (
            [] if delta is None else [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]
        )
        return {
            "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1700000000,
            "model": self.body["model"], "system_fingerprint": "fp_1", "choices": choices, **extra,
        }  # fmt: skip

    async def event(self, data: Any, end: str = "\n") -> None:
        await self.raw(f"data: {json.dumps(data, ensure_ascii=False)}{end}{end}".encode())

    async def delta(self, delta: dict[str, Any], finish: str | None = None) -> None:
        await self.event(self.chunk(delta, finish))

    async def say(self, tokens: list[str], pause_s: float = 0.0) -> None:
        for token in tokens:
            await self.delta({"content": token})
            if pause_s:
                await asyncio.sleep(pause_s)

    async def close(self, reason: str = "stop", *, done: bool = True) -> web.StreamResponse:
        await self.delta({}, reason)
        if (self.body.get("stream_options") or {}).get("include_usage"):
            await self.event(
                self.chunk(None, usage={"prompt_tokens": 11, "completion_tokens": 9, "total_tokens": 20})
            )
        if done:
            await self.raw(b"data: [DONE]\n\n")
        await self.response.write_eof()
        return self.response


def refuse(status: int, message: str, code: str | None = None, **headers: str) -> web.Response:
    error = {"message": message, "type": "error", "param": None, "code": code}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return web.json_response({"error": error}, status=status, headers=named)


# ---------------------------------------------------------------- good replies


@scenario("normal")
async def normal(reply: Reply) -> web.StreamResponse:
    await reply.open()
    await reply.say(TOKENS)
    return await reply.close()


@scenario("chinese")
async def chinese(reply: Reply) -> web.StreamResponse:
    await reply.open()
    await reply.say(list(CHINESE))
    return await reply.close()


@scenario("slow-first")
async def slow_first(reply: Reply) -> web.StreamResponse:
    await reply.open()
    await asyncio.sleep(reply.argument / 1000)
    await reply.say(TOKENS)
    return await reply.close()


@scenario("slow-tokens")
async def slow_tokens(reply: Reply) -> web.StreamResponse:
    await reply.open()
    await reply.say(TOKENS * 20, reply.argument / 1000)
    return await reply.close()


@scenario("no-done")
async def no_done(reply: Reply) -> web.StreamResponse:
    await reply.open()
    await reply.say(TOKENS)
    return await reply.close(done=False)


@scenario("no-finish-reason")
async def no_finish_reason(reply: Reply) -> web.StreamResponse:
    await reply.open()
    await reply.say(TOKENS)
    await reply.raw(b"data: [DONE]\n\n")
    return reply.response


@scenario("open-after-done")
async def open_after_done(reply: Reply) -> web.StreamResponse:
    await reply.open()
    await reply.say(TOKENS)
    await reply.delta({}, "stop")
    await reply.raw(b"data: [DONE]\n\n")
    await asyncio.sleep(60)
    return reply.response


@scenario("cut-after-done")
async def cut_after_done(reply: Reply) -> web.StreamResponse:
    """The answer is whole, but the service drops the connection instead of ending the body."""
    await reply.open()
    await reply.say(TOKENS)
    await reply.delta({}, "stop")
    await reply.raw(b"data: [DONE]\n\n")
    await asyncio.sleep(0.05)
    assert reply.request.transport is not None
    reply.request.transport.abort()
    return reply.response


@scenario("odd-framing")
async def odd_framing(reply: Reply) -> web.StreamResponse:
    """Comments, CRLF, no space after the colon, other fields, bytes one by one."""
    await reply.open()
    text = ": keep-alive\r\n\r\nevent: message\r\nid: 7\r\nretry: 10\r\n\r\n"
    for token in CHINESE:
        text += f": ping\r\ndata:{json.dumps(reply.chunk({'content': token}), ensure_ascii=False)}\r\n\r\n"
    text += f"data: {json.dumps(reply.chunk({}, 'stop'))}\r\n\r\ndata: [DONE]\r\n\r\n"
    data = text.encode()
    for start in range(0, len(data), 7):  # cuts characters of three and four bytes at every place
        await reply.raw(data[start : start + 7])
        await asyncio.sleep(0)
    return reply.response


@scenario("no-empty-lines")
async def no_empty_lines(reply: Reply) -> web.StreamResponse:
    await reply.response.prepare(reply.request)
    lines = [json.dumps(reply.chunk({"content": token})) for token in TOKENS]
    lines += [json.dumps(reply.chunk({}, "stop")), "[DONE]"]
    await reply.raw("".join(f"data: {line}\n" for line in lines).encode())
    return reply.response


@scenario("reasoning")
async def reasoning(reply: Reply) -> web.StreamResponse:
    await reply.open()
    await reply.delta({"reasoning_content": "Let me see.", "content": None})
    await reply.say(["<th", "ink>", "The user <b>", "greets", " me.</", "think", ">\n", "\n", *TOKENS])
    return await reply.close()


@scenario("not-streamed")
async def not_streamed(reply: Reply) -> web.StreamResponse:
    message = {"role": "assistant", "content": SENTENCES}
    return web.json_response(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 11, "completion_tokens": 9},
        }
    )


@scenario("null-choices")
async def null_choices(reply: Reply) -> web.StreamResponse:
    await reply.open()
    await reply.say(TOKENS)
    await reply.delta({}, "stop")
    await reply.event({"id": "x", "choices": None, "usage": {"prompt_tokens": 3, "completion_tokens": None}})
    await reply.raw(b"data: [DONE]\n\n")
    return reply.response


@scenario("echo")
async def echo(reply: Reply) -> web.StreamResponse:
    """Say what was asked: body, headers, and a number that is the same for requests on the same connection."""
    await reply.open()
    told = {
        "body": reply.body,
        "headers": dict(reply.request.headers),
        "path": reply.request.path_qs,
        "connection": str(
            reply.request.transport.get_extra_info("peername") if reply.request.transport else None
        ),
    }
    await reply.say([json.dumps(told)])
    await reply.delta({}, "stop")
    await reply.raw(b"data: [DONE]\n\n")
    await asyncio.sleep(0.01)  # the end of the body comes in a packet of its own
    await reply.response.write_eof()
    return reply.response


# ---------------------------------------------------------------- tools


def call(
    index: int | None, arguments: Any, name: str | None = None, id_: str | None = None
) -> dict[str, Any]:
    function: dict[str, Any] = {"arguments": arguments}
    if name is not None:
        function["name"] = name
    out: dict[str, Any] = {"function": function}
    if index is not None:
        out["index"] = index
    if id_ is not None:
        out |= {"id": id_, "type": "function"}
    return out


async def play_calls(reply: Reply, *deltas: list[dict[str, Any]]) -> web.StreamResponse:
    await reply.open()
    for calls in deltas:
        await reply.delta({"tool_calls": calls, "content": None})
    return await reply.close("tool_calls")


@scenario("tools-fragmented")
async def tools_fragmented(reply: Reply) -> web.StreamResponse:
    """As OpenAI does it: two calls, names first, arguments bit by bit and interleaved."""
    return await play_calls(
        reply,
        [call(0, "", "get_weather", "call_a")],
        [call(0, '{"ci')],
        [call(1, "", "get_time", "call_b")],
        [call(0, 'ty": "巴'), call(1, '{"zone"')],
        [call(0, '黎"}')],
        [call(1, ': "CET"}')],
    )


@scenario("tools-whole")
async def tools_whole(reply: Reply) -> web.StreamResponse:
    return await play_calls(
        reply,
        [
            call(0, '{"city": "巴黎"}', "get_weather", "call_a"),
            call(1, '{"zone": "CET"}', "get_time", "call_b"),
        ],
    )


@scenario("tools-same-index")
async def tools_same_index(reply: Reply) -> web.StreamResponse:
    return await play_calls(
        reply,
        [call(0, '{"city": "巴黎"}', "get_weather", "call_a")],
        [call(0, '{"zone": "CET"}', "get_time", "call_b")],
    )


@scenario("tools-no-ids")
async def tools_no_ids(reply: Reply) -> web.StreamResponse:
    return await play_calls(
        reply,
        [call(None, '{"city": "巴黎"}', "get_weather")],
        [call(None, {"zone": "CET"}, "get_time")],
    )


@scenario("tools-id-repeated")
async def tools_id_repeated(reply: Reply) -> web.StreamResponse:
    return await play_calls(
        reply,
        [call(0, '{"city": ', "get_weather", "call_a")],
        [call(0, '"巴黎"}', "get_weather", "call_a")],
        [call(1, '{"zone": ', "get_time", "call_b")],
        [call(1, '"CET"}', "", "call_b")],
    )


def example(schema: dict[str, Any]) -> Any:
    """Return a value that fits a JSON schema."""
    if schema.get("enum"):
        return schema["enum"][0]
    match schema.get("type"):
        case "object":
            properties = schema.get("properties", {})
            return {name: example(properties[name]) for name in schema.get("required", ())}
        case "integer" | "number":
            return schema.get("minimum", 30)
        case "boolean":
            return True
        case "array":
            return []
        case _:
            return "Paris"


@scenario("tool-round-trip")
async def tool_round_trip(reply: Reply) -> web.StreamResponse:
    """Ask for the tool that the user names (else the first one); then answer with what it said."""
    messages = reply.body["messages"]
    last = messages[-1]
    if last["role"] == "tool":
        asked = next(one for one in reversed(messages) if one.get("tool_calls"))
        if asked["tool_calls"][-1]["id"] != last["tool_call_id"]:
            return refuse(400, "tool_call_id does not answer any tool call")
        await reply.open()
        await reply.say(["The ", "tool ", "said: ", last["content"], "."])
        return await reply.close()
    tools = [tool["function"] for tool in reply.body.get("tools", ())]
    if not tools:
        return refuse(400, "no tools were offered")
    tool = next((one for one in tools if one["name"] in last["content"]), tools[0])
    if not re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", tool["name"]):
        return refuse(400, f"Invalid 'tools[0].function.name': {tool['name']!r} does not match the pattern")
    arguments = json.dumps(example(tool["parameters"]))
    middle = len(arguments) // 2
    return await play_calls(
        reply,
        [call(0, "", tool["name"], "call_1")],
        [call(0, arguments[:middle])],
        [call(0, arguments[middle:])],
    )


@scenario("tools-nameless")
async def tools_nameless(reply: Reply) -> web.StreamResponse:
    return await play_calls(reply, [call(0, "{}", None, "call_a")])


# ---------------------------------------------------------------- faults


@scenario("cut")
async def cut(reply: Reply) -> web.StreamResponse:
    await reply.open()
    await reply.say(TOKENS[:3])
    await asyncio.sleep(0.02)
    if reply.request.transport is not None:
        reply.request.transport.abort()
    return reply.response


@scenario("ends-early")
async def ends_early(reply: Reply) -> web.StreamResponse:
    await reply.open()
    await reply.say(TOKENS[:3])
    return reply.response


@scenario("drop")
async def drop(reply: Reply) -> web.StreamResponse:
    """Close the connection instead of answering."""
    if reply.request.transport is not None:
        reply.request.transport.abort()
    return reply.response


@scenario("status")
async def status(reply: Reply) -> web.StreamResponse:
    messages = {401: f"Incorrect API key provided: {reply.key}.", 404: "The model does not exist."}
    number = int(reply.argument)
    return refuse(number, messages.get(number, f"scripted {number}"))


@scenario("html-error")
async def html_error(reply: Reply) -> web.StreamResponse:
    return web.Response(
        status=502, text="<html>\n<h1>Bad\nGateway</h1>" + "x" * 100_000, content_type="text/html"
    )


@scenario("rate-limited")
async def rate_limited(reply: Reply) -> web.StreamResponse:
    return refuse(429, "Rate limit reached", "rate_limit_exceeded", Retry_After=f"{reply.argument:g}")


@scenario("rate-limited-until")
async def rate_limited_until(reply: Reply) -> web.StreamResponse:
    until = datetime.now(UTC) + timedelta(seconds=reply.argument)
    return refuse(
        429, "Rate limit reached", "rate_limit_exceeded", Retry_After=format_datetime(until, usegmt=True)
    )


@scenario("quota")
async def quota(reply: Reply) -> web.StreamResponse:
    return refuse(429, "You exceeded your current quota", "insufficient_quota")


@scenario("flaky")
async def flaky(reply: Reply) -> web.StreamResponse:
    """500 the first time, then well."""
    return refuse(500, "try again") if reply.tries == 1 else await normal(reply)


@scenario("limited-then-ok")
async def limited_then_ok(reply: Reply) -> web.StreamResponse:
    return await (rate_limited(reply) if reply.tries == 1 else normal(reply))


@scenario("malformed")
async def malformed(reply: Reply) -> web.StreamResponse:
    await reply.open()
    await reply.raw(b'data: {"choices": [{"delta": {"content": "He\n\n')
    return await reply.close()


@scenario("wrong-shape")
async def wrong_shape(reply: Reply) -> web.StreamResponse:
    await reply.open()
    await reply.event({"choices": {"delta": "text"}})
    return await reply.close()


@scenario("error-in-stream")
async def error_in_stream(reply: Reply) -> web.StreamResponse:
    await reply.open()
    await reply.say(TOKENS[:2])
    await reply.event({"error": {"message": "The server had an error", "type": "server_error", "code": None}})
    return reply.response


@scenario("filtered")
async def filtered(reply: Reply) -> web.StreamResponse:
    await reply.open()
    return await reply.close("content_filter")


@scenario("endless-event")
async def endless_event(reply: Reply) -> web.StreamResponse:
    await reply.response.prepare(reply.request)
    await reply.raw(b"data: ")
    while reply.request.transport is not None and not reply.request.transport.is_closing():
        await reply.raw(b"x" * 65536)
    return reply.response


@scenario("redirect")
async def redirect(reply: Reply) -> web.StreamResponse:
    return web.Response(status=301, headers={"Location": "https://elsewhere.example/v1/chat/completions"})


@scenario("hang")
async def hang(reply: Reply) -> web.StreamResponse:
    """Accept the request, send headers, then nothing."""
    await reply.response.prepare(reply.request)
    await asyncio.sleep(600)
    return reply.response


@scenario("hang-early")
async def hang_early(reply: Reply) -> web.StreamResponse:
    """Not even headers."""
    await asyncio.sleep(600)
    return reply.response
