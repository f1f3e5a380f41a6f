"""Model and tools: what becomes a sentence, a face, a tool call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from mynah.dialogue.think import MAX_REPLY_CHARS, MAX_TOOL_ROUNDS, Face, Sentence, Thought
from mynah.errors import ToolError
from mynah.providers.base import ChatMessage, Role, ToolCall, ToolSpec
from mynah.tools.base import ToolContext, ToolResult
from mynah.tools.toolbox import Toolbox
from tests.fakes import PROVIDER_DOWN, Script, ScriptedLlm
from tests.virtual_time import run


class Echo:
    """A tool that takes a second and returns its argument."""

    def __init__(self, name: str = "echo", **result: Any) -> None:
        self.spec = ToolSpec(name, "says it again", {"type": "object", "properties": {}})
        self._result = result
        self.running = self.most = 0

    async def call(self, context: ToolContext, arguments: Mapping[str, Any]) -> ToolResult:
        self.running += 1
        self.most = max(self.most, self.running)
        await asyncio.sleep(1)
        self.running -= 1
        if arguments.get("fail"):
            raise ToolError("cannot do that")
        return ToolResult(str(arguments.get("say", "")), **self._result)


class Waiting:
    """Who is asked before tools run, and told how long they took."""

    def __init__(self) -> None:
        self.before: list[list[str]] = []
        self.took: list[tuple[str, float]] = []
        self.running: Callable[[], int] = lambda: 0

    async def before_tools(self, calls: Sequence[ToolCall]) -> None:
        self.before.append([call.name for call in calls])
        await asyncio.sleep(5)
        assert self.running() == 0, "no tool runs before it is allowed to"

    def note_tool(self, name: str, seconds: float) -> None:
        self.took.append((name, seconds))


def think(
    script: Script, *tools: Echo, waiting: Waiting | None = None
) -> tuple[list[Sentence | Face], Thought, ScriptedLlm]:
    async def main() -> tuple[list[Sentence | Face], Thought, ScriptedLlm]:
        llm, asked = ScriptedLlm(script), waiting or Waiting()
        asked.running = lambda: sum(tool.running for tool in tools)
        context = ToolContext("d", "en", lambda: datetime.now(UTC), None)  # type: ignore[arg-type]
        offered = Toolbox(tools).for_session() if tools else None
        thought = Thought(llm, offered, context, asked.before_tools, asked.note_tool)
        pieces = [piece async for piece in thought.stream([ChatMessage(Role.USER, "hi")], "en")]
        return pieces, thought, llm

    return run(main())


def call(number: int, **arguments: Any) -> ToolCall:
    import json

    return ToolCall(f"c{number}", "echo", json.dumps(arguments))


def test_sentences_and_faces_in_order() -> None:
    pieces, thought, _ = think(Script(replies=[["😂 Well, ", "that is", " funny. Bye"]]))
    assert pieces == [Face("😂", "funny"), Sentence("😂 Well,"), Sentence("that is funny."), Sentence("Bye")]
    assert thought.tool_messages == []
    assert thought.tokens == 3


def test_tools_wait_for_leave_and_their_times_are_noted() -> None:
    echo, waiting = Echo(), Waiting()
    script = Script(replies=[[call(1, say="a"), call(2, fail=True)], [call(3, say="c")], ["Done."]])
    _, thought, _ = think(script, echo, waiting=waiting)
    assert waiting.before == [["echo", "echo"], ["echo"]]
    assert [name for name, _ in waiting.took] == ["echo"] * 3
    assert [seconds for _, seconds in waiting.took] == pytest.approx([1.0] * 3)
    assert [m.content for m in thought.tool_messages if m.role is Role.TOOL][::2] == ["a", "c"]


def test_leave_that_is_not_given_runs_no_tool() -> None:
    echo = Echo()

    class Never(Waiting):
        async def before_tools(self, calls: Sequence[ToolCall]) -> None:
            raise PROVIDER_DOWN

    waiting = Never()
    with pytest.raises(type(PROVIDER_DOWN)):
        think(Script(replies=[[call(1)]]), echo, waiting=waiting)
    assert echo.most == 0
    assert waiting.took == []


def test_parallel_calls_and_text_before_them() -> None:
    echo = Echo()
    script = Script(replies=[["Let me see. ", call(1, say="a"), call(2, say="b")], ["Done."]])
    pieces, thought, llm = think(script, echo)
    assert pieces == [Sentence("Let me see."), Sentence("Done.")]
    assert echo.most == 2
    assert [(m.role, m.content) for m in thought.tool_messages] == [
        (Role.ASSISTANT, "Let me see. "),
        (Role.TOOL, "a"),
        (Role.TOOL, "b"),
    ]
    assert llm.requests[1].messages[1:] == tuple(thought.tool_messages)


def test_failing_and_unknown_tools_are_told_to_the_model() -> None:
    script = Script(
        replies=[
            [call(1, fail=True), ToolCall("c2", "nobody", "{}"), ToolCall("c3", "echo", "{bad")],
            ["Sorry."],
        ]
    )
    pieces, thought, _ = think(script, Echo())
    assert pieces == [Sentence("Sorry.")]
    assert all(message.content.startswith("Error") for message in thought.tool_messages[1:])


def test_direct_results_are_spoken_without_another_round() -> None:
    pieces, thought, llm = think(
        Script(replies=[[call(1, say="Straight.")]]), Echo(direct=True, end_session=True)
    )
    assert pieces == [Sentence("Straight.")]
    assert len(llm.requests) == 1
    assert thought.end_session


def test_a_model_that_only_calls_tools_is_stopped() -> None:
    _, _, llm = think(Script(replies=[[call(1, say="x")]]), Echo())
    assert len(llm.requests) == MAX_TOOL_ROUNDS + 1
    assert llm.requests[-1].tools == ()


def test_endless_text_is_cut() -> None:
    pieces, _, llm = think(Script(replies=[["A sentence of some length. "] * 2000]))
    spoken = sum(len(piece.text) for piece in pieces if isinstance(piece, Sentence))
    assert MAX_REPLY_CHARS < spoken < MAX_REPLY_CHARS + 100
    assert llm.closed_early == 1


def test_errors_pass_through() -> None:
    with pytest.raises(type(PROVIDER_DOWN)):
        think(Script(replies=[[PROVIDER_DOWN]]))
