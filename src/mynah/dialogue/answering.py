"""The answers of one session: asked for, or guessed at a pause because the user may have finished."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Literal

from mynah.dialogue.answer import Answer
from mynah.dialogue.continuity import Kept
from mynah.dialogue.prompt import Facts
from mynah.dialogue.services import Services
from mynah.dialogue.turn import normalise
from mynah.errors import ProviderError
from mynah.providers.base import ChatMessage
from mynah.texts import detect_language
from mynah.tools.base import Reminders, ToolContext
from mynah.tools.toolbox import SessionTools

RECALL_S = 1.0
"""A memory that has nothing to say within this time is done without: it would be heard as a pause."""


class Answering:
    """Made when a device first says something."""

    # fmt: off
    __slots__ = (
        "_device_id", "_guess", "_kept", "_on_ready", "_reminders", "_services", "_system", "_tools", "guessed",
    )
    # fmt: on

    def __init__(
        self,
        services: Services,
        device_id: str,
        kept: Kept,
        reminders: Reminders,
        tools: Callable[[], Awaitable[SessionTools]],
        on_ready: Callable[[], None],
    ) -> None:
        """``on_ready`` is called when an answer that `answer` returned may be begun."""
        self._services = services
        self._device_id = device_id
        self._kept = kept
        self._reminders = reminders
        self._tools = tools
        self._on_ready = on_ready
        self._system = ""
        self._guess: tuple[str, Answer] | None = None
        self.guessed: Literal["", "hit", "miss"] = ""
        """Whether the last answer had been guessed, and right."""

    @property
    def exhausted(self) -> bool:
        """Whether the device has been told enough for today."""
        return self._services.allowance.left(self._device_id) == 0

    def guess(self, words: str) -> None:
        """Prepare an answer to what was said so far, in case that is all."""
        if self._guess is not None and self._guess[0] == normalise(words) and not self._guess[1].failed:
            return
        self.drop_guess()
        if normalise(words) and not self.exhausted:
            self._guess = (normalise(words), self._make(words))

    def put_back(self, words: str, answer: Answer) -> None:
        """The user may be going on: keep the answer for the case that nothing is added to ``words``."""
        self.drop_guess()
        answer.put_back()
        self._guess = (normalise(words), answer)

    def drop_guess(self) -> None:
        """It was not all."""
        guess, self._guess = self._guess, None
        if guess is not None:
            self._services.speculation.settle(False, guess[1].tokens)
            guess[1].cancel()
            guess[1].close()

    def answer(self, words: str) -> Answer:
        """Return the answer to what was said: the one that was guessed, if it was to the same words."""
        self.guessed = ""
        if self._guess is not None:
            word, answer = self._guess
            if word == normalise(words) and not answer.failed:
                self._guess = None
                self.guessed = "hit"
                self._services.speculation.settle(True, answer.tokens)
                return answer
            self.guessed = "miss"
            self.drop_guess()
        return self._make(words)

    def _make(self, words: str) -> Answer:
        language = detect_language(words, default=self._kept.language)
        context = ToolContext(self._device_id, language, self._services.now, self._reminders)
        answer = Answer(
            self._services, partial(self._messages, words, language), context, self._offered, self._on_ready
        )
        answer.start()
        return answer

    async def _offered(self) -> SessionTools | None:
        intent = self._services.intent
        return await self._tools() if intent.offers_tools or intent.chooses else None

    async def _messages(self, words: str, language: str) -> Sequence[ChatMessage]:
        services = self._services
        facts = Facts(services.now(), language, await self._recall(words), self._device_id)
        if not self._system:
            self._system = services.prompt.system(facts)
        return services.prompt.messages(self._system, self._kept.history, facts, words)

    async def _recall(self, words: str) -> str:
        try:
            async with asyncio.timeout(RECALL_S):
                return await self._services.memory.recall(self._device_id, words)
        except (TimeoutError, ProviderError):
            return ""
