"""What the built-in responder does about a command: call a tool, or say something."""

from __future__ import annotations

from typing import Any

import msgspec

from mynah.providers.base import ToolCall
from mynah.providers.commands import CommandMatch
from mynah.providers.llm import builtin_device
from mynah.providers.llm.builtin_turn import Turn
from mynah.texts import text, variants

HAPPY, NEUTRAL, SAD, CONFUSED = "😊", "😶", "😔", "😕"

_EMOJI = {
    "calculate": "🤔", "convert": "🤔", "joke": "😂", "coin": "😜", "dice": "😜", "random_number": "😜",
    "goodbye": "😘", "mute": NEUTRAL, "volume_down": "😌", "brightness_down": "😌",
}  # fmt: skip
"""The face that goes with an intent; all others are answered happily."""

_TOPIC_EMOJI = {
    "goodnight": "😴", "compliment": "😳", "insult": SAD, "love": "😍", "sad": SAD, "bored": "😜", "sing": "😆",
    "weather_unknown": CONFUSED, "news_unknown": CONFUSED, "meaning_of_life": "🤔", "favourite_food": "🤤",
    "who_are_you": "😎", "age": "😉", "are_you_real": "😏", "fun_fact": "😮",
}  # fmt: skip

_END_TOOL = "end_conversation"


class Reply(msgspec.Struct, frozen=True):
    """Something to say, and the face to say it with."""

    text: str
    emoji: str = HAPPY


def answer(turn: Turn) -> Reply | ToolCall:
    """Return the next step: a tool to call, or the reply."""
    if not turn.said.strip():
        return Reply(text("nothing_heard", turn.language), CONFUSED)
    command = turn.command
    if command is None:
        return _not_understood(turn)
    if command.intent == "repeat":
        return _repeat(turn)
    if command.intent == "goodbye":
        command = msgspec.structs.replace(command, tool=_END_TOOL)
        if _END_TOOL not in turn.tools and not turn.outcomes:
            return Reply(text("farewell", turn.language), _EMOJI["goodbye"])
    if builtin_device.handles(command):
        step = builtin_device.answer(turn, command)
        if isinstance(step, ToolCall):
            return step
        said, succeeded = step
        return Reply(said, emoji_for(command) if succeeded else SAD)
    return _use_tool(turn, command, command.tool, command.arguments)


def emoji_for(command: CommandMatch) -> str:
    """Return the emoji that goes with a command."""
    if command.intent == "small_talk":
        return _TOPIC_EMOJI.get(str(command.arguments.get("topic")), HAPPY)
    return _EMOJI.get(command.intent, HAPPY)


def _use_tool(turn: Turn, command: CommandMatch, tool: str, arguments: dict[str, Any]) -> Reply | ToolCall:
    done = turn.outcome(tool)
    if done is not None:
        return (
            Reply(text("error_tool", turn.language), SAD)
            if done.failed
            else Reply(done.content, emoji_for(command))
        )
    if tool not in turn.tools:
        return Reply(text("tool_missing", turn.language), SAD)
    return turn.call(tool, arguments)


def _repeat(turn: Turn) -> Reply:
    said = turn.previous_answer
    # The emoji in front belongs to the face, not to the words.
    words = said.split(" ", 1)[-1] if said and not said[0].isascii() and " " in said[:3] else said
    return Reply(words) if words else Reply(text("nothing_to_repeat", turn.language), CONFUSED)


def _not_understood(turn: Turn) -> Reply:
    """Explain once in a conversation how to configure a model, then keep it short."""
    # The history may have cut the answer into sentences and put it together again.
    hint = "".join(variants("no_model", turn.language)[0].split())
    if any(hint in "".join(said.split()) for said in turn.earlier_answers):
        return Reply(text("no_model_short", turn.language), CONFUSED)
    return Reply(text("no_model", turn.language), CONFUSED)
