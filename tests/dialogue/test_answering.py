"""The answers of a session: guessed at a pause, used when the words hold, dropped without a trace when not."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
import pytest

from mynah.dialogue.answering import RECALL_S, Answering
from mynah.errors import ProviderError
from mynah.providers.base import ChatMessage, Role
from mynah.tools.toolbox import SessionTools
from tests.dialogue.test_think import Echo
from tests.fakes import DEVICE_ID, PROVIDER_DOWN, Script, ScriptedIntent, Stage
from tests.virtual_time import run, settle


class Setting:
    """`Answering` beside a session that is not used."""

    def __init__(self, stage: Stage, **changed: object) -> None:
        self.stage = stage
        self.services = msgspec.structs.replace(stage.services, **changed)
        self.kept = self.services.conversations.join("another")
        self.ready = 0
        self.answering = Answering(
            self.services, DEVICE_ID, self.kept, stage.reminders, self._tools, self._on_ready
        )

    async def _tools(self) -> SessionTools:
        return self.services.toolbox.for_session()

    def _on_ready(self) -> None:
        self.ready += 1

    @property
    def asked(self) -> list[str]:
        return [request.messages[-1].content for request in self.stage.llm.requests]

    def note(self, index: int = 0) -> str:
        """What was told with the question, of the time and of what is remembered."""
        return self.stage.llm.requests[index].messages[-2].content


def scene(
    script: Script | None, act: Callable[[Setting], Awaitable[None]], daily_chars: int = 0, **changed: object
) -> Setting:
    async def main() -> Setting:
        stage = Stage(script, daily_chars=daily_chars)
        setting = Setting(stage, **changed)
        await act(setting)
        setting.answering.drop_guess()
        await stage.end()
        return setting

    return run(main())


def test_a_guess_that_holds_is_the_answer() -> None:
    async def act(s: Setting) -> None:
        s.answering.guess("What time is it?")
        await asyncio.sleep(1)
        assert s.ready == 0, "nobody has asked yet"
        answer = s.answering.answer("what time is it")
        assert s.answering.guessed == "hit"
        answer.commit()
        await answer.done()
        assert s.ready == 1
        answer.cancel()
        again = s.answering.answer("what time is it")
        assert s.answering.guessed == "", "it is used once"
        again.cancel()

    s = scene(Script(replies=[["It is five."]]), act)
    assert s.asked[0] == "What time is it?"
    assert s.services.speculation.stats.hits == 1
    assert s.services.speculation.stats.used_tokens == 1


def test_a_guess_that_does_not_hold_is_dropped_and_its_waste_counted() -> None:
    async def act(s: Setting) -> None:
        s.answering.guess("what time")
        await asyncio.sleep(1)
        answer = s.answering.answer("what time is it in Rome")
        assert s.answering.guessed == "miss"
        answer.commit()
        await answer.done()
        answer.cancel()

    s = scene(Script(replies=[["One. ", "Two. ", 60.0, "Three."], ["Right."]]), act)
    assert s.asked == ["what time", "what time is it in Rome"]
    stats = s.services.speculation.stats
    assert (stats.hits, stats.misses, stats.wasted_tokens) == (0, 1, 2)
    assert s.ready == 1


def test_a_newer_guess_takes_the_place_of_an_older_one() -> None:
    async def act(s: Setting) -> None:
        for words in ("what", "what time", "what time is it"):
            s.answering.guess(words)
            await asyncio.sleep(0.1)
        s.answering.answer("what time is it").cancel()
        assert s.answering.guessed == "hit"

    s = scene(Script(replies=[["One. ", 60.0]]), act)
    assert (s.services.speculation.stats.hits, s.services.speculation.stats.misses) == (1, 2)


@pytest.mark.parametrize("words", ["", " ", "…", "?!"])
def test_nothing_is_not_guessed_at(words: str) -> None:
    async def act(s: Setting) -> None:
        s.answering.guess(words)
        await asyncio.sleep(1)

    s = scene(None, act)
    assert s.asked == []
    assert s.services.speculation.stats.misses == 0


def test_a_guess_that_failed_is_asked_again_in_earnest() -> None:
    async def act(s: Setting) -> None:
        s.answering.guess("hello")
        await asyncio.sleep(1)
        answer = s.answering.answer("hello")
        assert s.answering.guessed == "miss"
        answer.commit()
        await answer.done()
        answer.cancel()

    s = scene(Script(replies=[[PROVIDER_DOWN], ["Fine."]]), act)
    assert s.asked == ["hello", "hello"]


def test_a_guess_that_fails_after_it_was_taken_fails_the_answer() -> None:
    async def act(s: Setting) -> None:
        s.answering.guess("hello")
        await asyncio.sleep(1)
        answer = s.answering.answer("hello")
        assert s.answering.guessed == "hit"
        answer.commit()
        with pytest.raises(BaseExceptionGroup) as caught:
            await answer.done()
        assert caught.group_contains(ProviderError)
        assert answer.failed
        answer.cancel()

    scene(Script(replies=[["One. ", 5.0, PROVIDER_DOWN]]), act)


def test_who_has_been_told_enough_costs_no_guesses() -> None:
    async def act(s: Setting) -> None:
        assert not s.answering.exhausted
        s.services.allowance.spend(DEVICE_ID, 10)
        assert s.answering.exhausted
        s.answering.guess("hello")
        await asyncio.sleep(1)

    assert scene(None, act, daily_chars=10).asked == []


class Memory:
    name = "memory"

    def __init__(self, takes_s: float = 0.1, error: Exception | None = None) -> None:
        self.takes_s, self.error = takes_s, error
        self.asked: list[tuple[str, str]] = []

    async def recall(self, device_id: str, words: str) -> str:
        self.asked.append((device_id, words))
        await asyncio.sleep(self.takes_s)
        if self.error is not None:
            raise self.error
        return "The user likes tea."


@pytest.mark.parametrize(
    ("memory", "known"),
    [(Memory(), True), (Memory(RECALL_S + 1), False), (Memory(error=PROVIDER_DOWN), False)],
)
def test_what_is_remembered_is_told_if_it_comes_in_time(memory: Memory, known: bool) -> None:
    async def act(s: Setting) -> None:
        answer = s.answering.answer("what do I like")
        await asyncio.sleep(RECALL_S + 0.1)
        assert len(s.asked) == 1, "nobody waits longer for a memory"
        answer.cancel()

    s = scene(None, act, memory=memory)
    assert memory.asked[-1] == (DEVICE_ID, "what do I like")
    assert ("The user likes tea." in s.note()) is known


def test_the_beginning_of_the_request_stays_the_same() -> None:
    async def act(s: Setting) -> None:
        for words in ("first", "second"):
            answer = s.answering.answer(words)
            answer.commit()
            await answer.done()
            answer.cancel()
            s.kept.history.add([ChatMessage(Role.USER, words), ChatMessage(Role.ASSISTANT, "Fine.")])

    s = scene(Script(replies=[["Fine."]]), act, memory=Memory())
    first, second = (request.messages for request in s.stage.llm.requests)
    assert first[0] == second[0]
    assert [m.content for m in second[1:-2]] == ["first", "Fine."]
    assert "15:04" in s.note()


@pytest.mark.parametrize("offers", [True, False])
def test_tools_are_offered_where_they_are_wanted(offers: bool) -> None:
    async def act(s: Setting) -> None:
        answer = s.answering.answer("hello")
        await settle()
        answer.cancel()

    async def main() -> Setting:
        stage = Stage(tools=(Echo(),))
        setting = Setting(stage, intent=ScriptedIntent(offers))
        await act(setting)
        await stage.end()
        return setting

    offered = run(main()).stage.llm.requests[0].tools
    assert [spec.name for spec in offered] == (["echo"] if offers else [])
