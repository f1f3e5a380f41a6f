"""Intent providers that choose tools themselves, before the model is asked."""

from __future__ import annotations

from mynah.providers.base import Role, ToolCall
from mynah.tools.base import Tool, ToolResult, register_function, registered_tool
from mynah.wire.messages import Listen
from tests.fakes import Script, ScriptedIntent, Stage
from tests.virtual_time import virtual

CALLS: list[str] = []


@register_function("lamp")
def lamp() -> ToolResult:
    """Switch the lamp on."""
    CALLS.append("lamp")
    return ToolResult("The lamp is on.", direct=True)


@register_function("mood")
def mood() -> str:
    """Return the mood."""
    CALLS.append("mood")
    return "cheerful"


def tools() -> tuple[Tool, ...]:
    found = [registered_tool(lamp), registered_tool(mood)]
    return tuple(tool for tool in found if tool is not None)


async def asked(intent: ScriptedIntent, words: str = "light please") -> Stage:
    CALLS.clear()
    stage = Stage(Script(replies=[["You feel cheerful."]]), tools=tools(), intent=intent)
    stage.session.on_message(Listen("detect", text=words))
    await stage.settle(10)
    return stage


@virtual
async def test_a_chosen_tool_whose_answer_is_direct_needs_no_model() -> None:
    stage = await asked(ScriptedIntent(False, (ToolCall("1", "lamp", "{}"),)))
    assert CALLS == ["lamp"]
    assert stage.llm.requests == []
    assert "say:The lamp is on." in stage.link.story
    await stage.end()


@virtual
async def test_the_model_phrases_what_a_chosen_tool_found_and_is_not_shown_the_tools() -> None:
    stage = await asked(ScriptedIntent(False, (ToolCall("1", "mood", "{}"),)), "how do I feel")
    (request,) = stage.llm.requests
    assert request.tools == ()
    assert [m.content for m in request.messages if m.role is Role.TOOL] == ["cheerful"]
    assert "say:You feel cheerful." in stage.link.story
    await stage.end()


@virtual
async def test_where_nothing_is_chosen_the_model_answers() -> None:
    intent = ScriptedIntent(False, ())
    stage = await asked(intent)
    assert CALLS == []
    assert {spec.name for spec in intent.requests[0].tools} == {"lamp", "mood"}
    assert stage.llm.requests[0].tools == ()
    await stage.end()
