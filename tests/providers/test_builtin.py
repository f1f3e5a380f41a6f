"""The built-in responder behaves as a language model does, and says plainly what it cannot do."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from importlib import resources

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mynah.dialogue.emotion import FACES
from mynah.providers.base import (
    ChatMessage,
    Finish,
    Kind,
    LlmChunk,
    LlmRequest,
    Role,
    TextDelta,
    ToolCall,
    ToolSpec,
)
from mynah.providers.commands import load_commands
from mynah.providers.llm import builtin_answers
from mynah.providers.llm.builtin import BuiltinLlm, BuiltinLlmOptions, _pieces
from mynah.providers.registry import create
from mynah.texts import text, variants
from tests.providers.builtin_talk import Talk


@pytest.fixture
async def talk() -> AsyncIterator[Talk]:
    conversation = Talk()
    yield conversation
    conversation.agenda.close()


async def test_it_can_be_configured_by_type() -> None:
    llm = create(Kind.LLM, "Offline", {"type": "builtin"})
    assert isinstance(llm, BuiltinLlm)
    await llm.start()
    await llm.stop()
    await llm.stop()
    assert llm.capabilities.tools


async def test_the_hint_is_given_once_and_then_kept_short(talk: Talk) -> None:
    assert await talk.say("write a poem about spring") == variants("no_model", "en")[0]
    assert talk.face == "😕"
    for _ in range(4):
        assert await talk.say("who was the first man on the moon") in variants("no_model_short", "en")
    # The other language has not been explained yet.
    assert await talk.say("给我写一首诗") == variants("no_model", "zh")[0]
    assert await talk.say("世界上最高的山") in variants("no_model_short", "zh")


async def test_the_hint_is_recognised_in_a_history_that_was_put_together_anew(talk: Talk) -> None:
    sentences = re.split(r"(?<=\.) ", text("no_model", "en"))
    talk.messages.append(ChatMessage(Role.USER, "x"))
    talk.messages.append(ChatMessage(Role.ASSISTANT, "".join(sentences)))
    assert await talk.say("write a poem") in variants("no_model_short", "en")


async def test_deltas_are_small_and_the_face_comes_first(talk: Talk) -> None:
    await talk.say("help")
    assert talk.deltas[0].strip() in FACES
    assert len(talk.deltas) > 8
    assert all(len(delta.split()) <= 4 for delta in talk.deltas)
    await talk.say("你会做什么")
    assert all(len(delta) <= 24 for delta in talk.deltas)
    assert len(talk.deltas) > 8


@given(st.text(min_size=1))
def test_no_character_is_lost_between_deltas(said: str) -> None:
    pieces = _pieces(builtin_answers.Reply(said, "😊"))
    assert "".join("".join(pieces).split()) == "😊" + "".join(said.split())


async def test_without_tools_it_says_so(talk: Talk) -> None:
    talk.offers_tools = False
    assert await talk.say("what time is it") == text("tool_missing", "en")
    assert await talk.say("现在几点") == text("tool_missing", "zh")
    assert await talk.say("set the volume to 30") == text("device_volume_missing", "en")
    assert await talk.say("goodbye") in variants("farewell", "en")
    assert not talk.ended


async def test_a_failed_tool_is_apologised_for() -> None:
    call = ToolCall("1", "get_time", "{}")
    request = LlmRequest(
        (
            ChatMessage(Role.USER, "what time is it"),
            ChatMessage(Role.ASSISTANT, "", (call,)),
            ChatMessage(Role.TOOL, "Error: broken", tool_call_id="1", name="get_time"),
        ),
        (ToolSpec("get_time", "", {}),),
    )
    llm = BuiltinLlm("builtin", BuiltinLlmOptions())
    chunks = [chunk async for chunk in llm.generate(request)]
    said = "".join(chunk.text for chunk in chunks if isinstance(chunk, TextDelta))
    assert said == f"😔 {text('error_tool', 'en')}"


@pytest.mark.parametrize("messages", [(), (ChatMessage(Role.SYSTEM, "x"),), (ChatMessage(Role.USER, "  "),)])
async def test_nothing_said_is_nothing_heard(messages: tuple[ChatMessage, ...]) -> None:
    llm = BuiltinLlm("builtin", BuiltinLlmOptions())
    chunks = [chunk async for chunk in llm.generate(LlmRequest(messages))]
    assert isinstance(chunks[-1], Finish)
    assert "".join(c.text for c in chunks if isinstance(c, TextDelta))[2:] in variants("nothing_heard", "en")


async def test_goodbye_ends_the_conversation(talk: Talk) -> None:
    assert await talk.say("goodbye") in variants("farewell", "en")
    assert talk.ended
    assert talk.face == "😘"


async def test_repeat_says_the_last_answer_again(talk: Talk) -> None:
    assert await talk.say("say that again") == text("nothing_to_repeat", "en")
    joke = await talk.say("tell me a joke")
    assert await talk.say("say that again") == joke
    assert await talk.say("pardon") == joke
    assert await talk.say("再说一遍") == joke


async def test_another_does_the_last_thing_again(talk: Talk) -> None:
    assert await talk.say("another one") in variants("no_model", "en")  # Of what?
    first = await talk.say("tell me a joke")
    second = await talk.say("another one")
    third = await talk.say("one more please")
    assert len({first, second, third}) == 3
    assert {first, second, third} <= set(variants("joke", "en"))
    assert await talk.say("roll a 20 sided die")
    await talk.say("again")
    assert [(call.name, call.arguments) for call in talk.called] == [("roll_dice", '{"sides":20}')]


async def test_other_days_follow_a_date(talk: Talk) -> None:
    await talk.say("what's the date")
    assert (await talk.say("and tomorrow?")).startswith("Tomorrow is Sunday")
    assert (await talk.say("what about yesterday")).startswith("Yesterday was Friday")
    assert (await talk.say("后天呢")).startswith("后天是")
    await talk.say("will it rain today")
    assert await talk.say("and tomorrow?") in variants("smalltalk_weather_unknown", "en")


async def test_every_emoji_has_a_face() -> None:
    emoji = {*builtin_answers._EMOJI.values(), *builtin_answers._TOPIC_EMOJI.values()}
    assert emoji <= set(FACES)
    intents = {name for language in ("en", "zh") for name in load_commands(language).intents()}
    assert set(builtin_answers._EMOJI) <= intents


@pytest.mark.parametrize("language", ["en", "zh"])
async def test_languages_have_the_same_commands(language: str) -> None:
    commands, english = load_commands(language), load_commands("en")
    assert set(commands.intents()) == set(english.intents())
    assert commands.tools() == english.tools()


async def test_very_long_text_is_not_understood_quickly(talk: Talk) -> None:
    assert await talk.say("tell me " * 2000) == variants("no_model", "en")[0]


@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_template_captures_what_its_arguments_need(language: str) -> None:
    source = resources.files("mynah.providers") / "data" / f"commands.{language}.yaml"
    for intent in yaml.safe_load(source.read_text(encoding="utf-8"))["intents"]:
        needed = set(re.findall(r"\$(\w+)", " ".join(map(str, intent.get("arguments", {}).values()))))
        for template in [*intent.get("phrases", []), *intent.get("typed", [])]:
            captured = {slot.rpartition(":")[2] for slot in re.findall(r"<([^<>]+)>", template)}
            assert needed <= captured, f"{intent['intent']}: {template}"


@pytest.mark.parametrize("said", ["吧" * 160, "请" * 160, "please " * 22, "1 + " * 40, "一小时" * 53])
async def test_senseless_texts_do_not_hold_up_the_event_loop(talk: Talk, said: str) -> None:
    await talk.say("help", "zh")
    started = time.process_time()
    await talk.say(said)
    # A few milliseconds in truth; without a bound on fillers these take a second.
    assert time.process_time() - started < 0.5


@given(st.text(max_size=60), st.sampled_from(["en", "zh", "fr", ""]))
def test_anything_said_gets_an_answer(said: str, language: str) -> None:
    async def ask() -> list[LlmChunk]:
        llm = BuiltinLlm("builtin", BuiltinLlmOptions())
        request = LlmRequest((ChatMessage(Role.USER, said),), language=language)
        return [chunk async for chunk in llm.generate(request)]

    chunks = asyncio.run(ask())
    assert len(chunks) >= 2
    assert isinstance(chunks[-1], Finish)
