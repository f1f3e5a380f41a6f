"""Jokes, small talk, chance, help and the end of a conversation."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib import resources

import pytest
import yaml

from mynah.texts import keys, variants
from mynah.tools.base import ToolContext
from mynah.tools.plugins.conversation import end_conversation
from mynah.tools.plugins.fun import flip_coin, random_number, roll_dice, small_talk, tell_joke
from mynah.tools.plugins.help import show_help

Contexts = Callable[..., ToolContext]


@pytest.mark.parametrize("language", ["en", "zh"])
async def test_jokes_do_not_repeat_at_once(context: Contexts, language: str) -> None:
    told = [await tell_joke(context(language)) for _ in range(10)]
    assert len(set(told)) == 10
    assert set(told) <= set(variants("joke", language))


@pytest.mark.parametrize("language", ["en", "zh"])
async def test_every_topic_of_the_commands_has_an_answer_of_its_own(context: Contexts, language: str) -> None:
    source = resources.files("mynah.providers") / "data" / f"commands.{language}.yaml"
    intents = yaml.safe_load(source.read_text(encoding="utf-8"))["intents"]
    topics = {intent["arguments"]["topic"] for intent in intents if intent.get("tool") == "small_talk"}
    assert len(topics) >= 30
    assert {f"smalltalk_{topic}" for topic in topics} <= keys(language)
    for topic in topics:
        assert await small_talk(context(language), topic) in variants(f"smalltalk_{topic}", language)


async def test_unknown_topics_get_a_friendly_answer(context: Contexts) -> None:
    assert await small_talk(context(), "quantum physics") in variants("smalltalk_other", "en")


async def test_chance(context: Contexts) -> None:
    coins = {await flip_coin(context("en")) for _ in range(100)}
    assert coins == {"Heads!", "Tails!"}
    dice = {await roll_dice(context("en")) for _ in range(300)}
    assert dice == {f"You rolled a {n}." for n in range(1, 7)}
    numbers = {await random_number(context("zh"), 3, 1) for _ in range(100)}
    assert numbers == {f"我选的数是{n}。" for n in (1, 2, 3)}


async def test_bounds_of_chance(context: Contexts) -> None:
    for sides in (1, 0, -6, 1001):
        assert re.match("A die has", await roll_dice(context(), sides))
    assert re.match("I can pick", await random_number(context(), 1, 10**10))


async def test_help_and_goodbye(context: Contexts) -> None:
    assert await show_help(context("zh")) == variants("help", "zh")[0]
    goodbye = await end_conversation(context("en"))
    assert goodbye.end_session
    assert goodbye.content in variants("farewell", "en")
