"""A language model to look over the shoulder of: a service of its own that answers as a test says, and keeps what it
was asked."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
from aiohttp import web

SHORT = "That is done."
LONG = (
    "The river begins in the mountains of the north. It runs through seven valleys, and reaches the sea beside an old "
    "harbour."
)


class Answer(msgspec.Struct):
    """What the model says, and how fast; with ``tool`` it calls that first."""

    text: str = SHORT
    delay_s: float = 0.0
    token_s: float = 0.0
    tool: str = ""
    arguments: dict[str, Any] = {}


class Request(msgspec.Struct):
    """One request as it came."""

    at: float
    """By `time.monotonic`."""
    messages: list[dict[str, Any]]
    tools: list[str]
    finished: bool = False
    """Whether the whole answer was taken; else the server hung up before."""

    @property
    def question(self) -> str:
        """What the user said last, without the server's note before it."""
        said = next(
            str(message["content"]) for message in reversed(self.messages) if message["role"] == "user"
        )
        return said.rsplit("\n\n", 1)[-1]

    @property
    def conversation(self) -> list[tuple[str, str]]:
        """Roles and words, without the system's."""
        return [
            (message["role"], str(message["content"]))
            for message in self.messages
            if message["role"] != "system"
        ]

    @property
    def answers_tool(self) -> bool:
        """Whether a tool has just answered."""
        return bool(self.messages[-1]["role"] == "tool")


class Model:
    """The service. ``answer`` may be replaced at any time."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.answer: Callable[[Request], Answer] = lambda _: Answer()
        self.url = ""

    def forget(self) -> None:
        """Begin a new test."""
        self.requests.clear()
        self.answer = lambda _: Answer()

    async def complete(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        tools = [tool["function"]["name"] for tool in body.get("tools", ())]
        asked = Request(time.monotonic(), body["messages"], tools)
        self.requests.append(asked)
        answer = self.answer(asked)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)

        async def delta(piece: dict[str, Any], finish: str | None = None) -> None:
            choice = {"index": 0, "delta": piece, "finish_reason": finish}
            await response.write(f"data: {json.dumps({'choices': [choice]})}\n\n".encode())

        await asyncio.sleep(answer.delay_s)
        if answer.tool:
            function = {"name": answer.tool, "arguments": json.dumps(answer.arguments)}
            await delta({"tool_calls": [{"index": 0, "id": "c1", "type": "function", "function": function}]})
            await delta({}, "tool_calls")
        else:
            for token in answer.text.split(" "):
                await delta({"content": token + " "})
                if answer.token_s:
                    await asyncio.sleep(answer.token_s)
            await delta({}, "stop")
        await response.write(b"data: [DONE]\n\n")
        await response.write_eof()
        asked.finished = True
        return response


@contextmanager
def running() -> Iterator[Model]:
    """Serve a model on a thread of its own, so that it outlives the event loop of one test."""
    model = Model()
    loop = asyncio.new_event_loop()

    async def start() -> web.AppRunner:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", model.complete)
        # A handler is cancelled when its client goes: that is how it is seen that a guess was dropped.
        runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        model.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        return runner

    thread = threading.Thread(target=loop.run_forever, name="model", daemon=True)
    thread.start()
    runner = asyncio.run_coroutine_threadsafe(start(), loop).result(10)
    try:
        yield model
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


def config(model: Model, more: str = "", modules: str = "") -> str:
    """Return a configuration that uses the model. ``modules`` are further lines of ``selected_module``."""
    return f"""
selected_module:
  LLM: Scripted
  {modules}
LLM:
  Scripted:
    type: openai
    base_url: {model.url}
    model_name: scripted
    api_key: sk-test
{more}"""
