"""What the built-in responder needs to know about a conversation, read out of the messages of a request."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

import msgspec

from mynah.providers.base import TOOL_FAILED, ChatMessage, LlmRequest, Role, ToolCall
from mynah.providers.commands import CommandMatch, CommandSet, load_commands, parse_commands
from mynah.texts import detect_language

LANGUAGES = ("en", "zh")
"""Those that have command files."""

MAX_COMMAND_CHARS = 160
"""Longer texts are no commands. Matching runs on the event loop, so it has to be done in milliseconds."""


class ToolOutcome(msgspec.Struct, frozen=True):
    """A tool that has been called since the user spoke, and its answer."""

    call: ToolCall
    content: str

    @property
    def failed(self) -> bool:
        """Whether the toolbox reported a failure."""
        return self.content.startswith(TOOL_FAILED)

    @property
    def refused(self) -> bool:
        """Whether it was not done: a failure, or ``false``, with which firmware says that it could not."""
        return self.failed or self.content.strip().casefold() == "false"

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments it was called with."""
        found: dict[str, Any] = msgspec.json.decode(self.call.arguments, type=dict[str, Any])
        return found


class Turn(msgspec.Struct, frozen=True):
    """One thing the user said, what it means, and what has been done about it so far."""

    said: str
    language: str
    command: CommandMatch | None
    outcomes: tuple[ToolOutcome, ...]
    tools: Mapping[str, Mapping[str, Any]]
    """Names of the tools on offer → their JSON schema."""
    descriptions: Mapping[str, str]
    """Names of the same tools → what they say they do."""
    previous_answer: str = ""
    earlier_answers: tuple[str, ...] = ()
    """Everything the assistant has said before in this conversation."""
    call_id: str = ""
    """An id for the next tool call, unlike any before."""

    def outcome(self, name: str) -> ToolOutcome | None:
        """Return what the tool ``name`` answered in this turn."""
        return next((found for found in reversed(self.outcomes) if found.call.name == name), None)

    def call(self, name: str, arguments: Mapping[str, Any]) -> ToolCall:
        """Ask for a tool."""
        return ToolCall(self.call_id, name, msgspec.json.encode(dict(arguments)).decode())


def prepare() -> None:
    """Compile the command files of all languages. Raises ConfigError when one is broken."""
    for language in LANGUAGES:
        load_commands(language)
        _follow_ups(language)


def read_turn(request: LlmRequest) -> Turn:
    """Read the last turn out of ``request``."""
    messages = [message for message in request.messages if message.role is not Role.SYSTEM]
    at = next((i for i in reversed(range(len(messages))) if messages[i].role is Role.USER), None)
    said = messages[at].content if at is not None else ""
    earlier = messages[:at] if at is not None else []
    since = messages[at + 1 :] if at is not None else messages
    language = request.language if request.language in LANGUAGES else detect_language(said)
    answers = tuple(
        message.content for message in earlier if message.role is Role.ASSISTANT and message.content
    )
    return Turn(
        said=said,
        language=language,
        command=_understand(said, earlier, language),
        outcomes=tuple(_outcomes(since)),
        tools={tool.name: tool.parameters for tool in request.tools},
        descriptions={tool.name: tool.description for tool in request.tools},
        previous_answer=answers[-1] if answers else "",
        earlier_answers=answers,
        call_id=f"builtin_{len(request.messages)}",
    )


def _outcomes(messages: list[ChatMessage]) -> list[ToolOutcome]:
    calls = {call.id: call for message in messages for call in message.tool_calls}
    return [
        ToolOutcome(calls[message.tool_call_id], message.content)
        for message in messages
        if message.role is Role.TOOL and message.tool_call_id in calls
    ]


def _understand(said: str, earlier: list[ChatMessage], language: str) -> CommandMatch | None:
    """Return what the user wants; a follow-up such as "another one" means what was wanted before."""
    command = _match(load_commands, said, language)
    if command is not None:
        return command
    follow_up = _match(_follow_ups, said, language)
    if follow_up is None or follow_up.intent == "repeat":
        return follow_up
    previous = _previous_command(earlier)
    if follow_up.intent == "other_day":
        # "And tomorrow?" goes on from the date, or from the weather, for which we have no answer on any day.
        return follow_up if previous is None or previous.tool == follow_up.tool else previous
    return previous


def _match(commands: Any, said: str, language: str) -> CommandMatch | None:
    """Match in the language of the conversation, then in the other one: people mix them."""
    if len(said) > MAX_COMMAND_CHARS:
        return None
    order = (language, *(other for other in LANGUAGES if other != language))
    for candidate in order:
        found: CommandMatch | None = commands(candidate).match(said)
        if found is not None:
            return found
    return None


def _previous_command(earlier: list[ChatMessage]) -> CommandMatch | None:
    """Return the last thing the user asked for in full, looking past follow-ups."""
    for message in reversed(earlier):
        if message.role is Role.USER:
            command = _match(load_commands, message.content, detect_language(message.content))
            if command is not None:
                return command
    return None


@cache
def _follow_ups(language: str) -> CommandSet:
    file = resources.files("mynah.providers") / "data" / f"follow_ups.{language}.yaml"
    return parse_commands(file.read_text(encoding="utf-8"))
