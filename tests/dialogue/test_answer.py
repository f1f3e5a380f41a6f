"""One reply in the making: nothing that cannot be taken back before it is wanted, fillers for long waits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec
import pytest

from mynah.dialogue.admission import Level
from mynah.dialogue.answer import MODEL_DELAY, TOOL_DELAY, Answer
from mynah.dialogue.delays import FILLER_AFTER_S, LEAST_SAMPLES
from mynah.dialogue.reply import Reply
from mynah.errors import ProviderError
from mynah.providers.base import ChatMessage, Role
from mynah.texts import variants
from mynah.tools.base import ToolContext
from mynah.tools.toolbox import SessionTools, Toolbox
from tests.dialogue.test_think import Echo, call
from tests.fakes import DEVICE_ID, PROVIDER_DOWN, Script, Stage
from tests.virtual_time import run

FILLERS = variants("filler", "en")


class Setting:
    """One `Answer` beside a session that is not used, and the reply that it may go to."""

    def __init__(self, stage: Stage, tools: tuple[Echo, ...] = (), fillers: bool = True) -> None:
        self.stage, self.tools = stage, tools
        self.ready: list[float] = []
        self.played = 0
        settings = msgspec.structs.replace(stage.services.settings, fillers=fillers)
        self.services = msgspec.structs.replace(stage.services, settings=settings)
        context = ToolContext(DEVICE_ID, "en", stage.services.now, stage.reminders)
        self.answer = Answer(self.services, self._messages, context, self._offered, self._on_ready)

    async def _messages(self) -> Sequence[ChatMessage]:
        return (ChatMessage(Role.USER, "hello"),)

    async def _offered(self) -> SessionTools | None:
        return Toolbox(self.tools).for_session() if self.tools else None

    def _on_ready(self) -> None:
        self.ready.append(asyncio.get_running_loop().time())

    def begin(self) -> None:
        def played() -> None:
            self.played += 1

        self.answer.begin(Reply(self.services.voice, self.stage.link, "s", played, 0))

    async def warm(self) -> None:
        """Put the fillers into the cache, and forget that they were synthesised for it."""
        assert await self.services.voice.warm([(phrase, "en") for phrase in FILLERS]) == 0
        self.stage.tts.said.clear()

    def slow(self, key: str, seconds: float = 5.0) -> None:
        for _ in range(LEAST_SAMPLES):
            self.services.delays.note(key, seconds)

    @property
    def model_key(self) -> str:
        return MODEL_DELAY.format(self.stage.llm.name)

    @property
    def shown(self) -> list[str]:
        return [word.removeprefix("say:") for word in self.stage.link.story if word.startswith("say:")]


def scene(script: Script, act: Callable[[Setting], Awaitable[None]], *tools: Echo, **options: Any) -> Setting:
    async def main() -> Setting:
        stage = Stage(script)
        setting = Setting(stage, tools, **options)
        await act(setting)
        setting.answer.cancel()
        await stage.end()
        return setting

    return run(main())


async def whole(s: Setting) -> None:
    """An answer as it usually goes."""
    s.answer.start()
    s.answer.commit()
    s.begin()
    await s.answer.done()
    await asyncio.sleep(20)


# ---------------------------------------------------------------- before it is wanted


def test_of_a_guess_only_the_first_sentence_is_synthesised_and_nothing_sent() -> None:
    async def act(s: Setting) -> None:
        s.answer.start()
        await asyncio.sleep(10)
        assert [request.text for request in s.stage.tts.said] == ["One."]
        assert s.stage.link.log == []
        assert s.ready == []
        assert s.answer.tokens == 4
        s.answer.commit()
        s.begin()
        await s.answer.done()
        await asyncio.sleep(10)
        assert s.played == 1

    s = scene(Script(replies=[["One. ", "Two. ", "Three. ", "Four."]]), act)
    assert s.shown == ["One.", "Two.", "Three.", "Four."]
    assert len(s.ready) == 1


def test_no_tool_runs_for_a_guess() -> None:
    echo = Echo()

    async def act(s: Setting) -> None:
        s.answer.start()
        await asyncio.sleep(30)
        assert echo.most == 0
        assert s.ready == []
        wanted_at = asyncio.get_running_loop().time()
        s.answer.commit()
        await asyncio.sleep(0.5)
        assert s.ready == [wanted_at], "what a tool does cannot be taken back: the device is told"
        assert echo.running == 1
        s.begin()
        await s.answer.done()

    s = scene(Script(replies=[[call(1, say="a")], ["Done."]]), act, echo)
    assert len(s.ready) == 1
    assert s.stage.tts.said[0].text == "Done."


@pytest.mark.parametrize("committed", [False, True])
@pytest.mark.parametrize("moment", [0.0, 0.01, 0.06, 0.5, 1.2, 5.0])
def test_what_is_cancelled_leaves_nothing_at_any_moment(moment: float, committed: bool) -> None:
    async def act(s: Setting) -> None:
        s.answer.start()
        if committed:
            s.answer.commit()
        await asyncio.sleep(moment)
        s.answer.cancel()
        ready = len(s.ready)
        await asyncio.sleep(30)
        assert len(s.ready) == ready <= committed
        assert s.stage.link.log == []

    script = Script(replies=[["One. ", 0.1, call(1, say="x")], ["Two. ", 1.0, "Three."]])
    scene(script, act, Echo())


def test_a_guess_that_fails_tells_nobody_until_it_is_wanted() -> None:
    async def act(s: Setting) -> None:
        s.answer.start()
        assert not s.answer.failed
        await asyncio.sleep(1)
        assert s.answer.failed
        assert s.ready == []
        s.answer.commit()
        with pytest.raises(BaseExceptionGroup) as caught:
            await s.answer.done()
        assert caught.group_contains(ProviderError)

    scene(Script(replies=[[PROVIDER_DOWN]]), act)


def test_the_face_waits_for_the_reply() -> None:
    async def act(s: Setting) -> None:
        s.answer.start()
        await asyncio.sleep(1)
        s.answer.commit()
        s.begin()
        await asyncio.sleep(5)

    assert scene(Script(replies=[["😂 Funny."]]), act).stage.link.story[:3] == [
        "start",
        "face:funny",
        "say:Funny.",
    ]


# ---------------------------------------------------------------- endings


def test_ready_comes_with_the_first_words_and_once() -> None:
    async def act(s: Setting) -> None:
        began = asyncio.get_running_loop().time()
        await whole(s)
        assert s.ready == [pytest.approx(began + 2.0, abs=0.01)]
        assert s.answer.first_sentence_at == pytest.approx(began + 2.0, abs=0.01)
        assert s.played == 1

    scene(Script(replies=[[2.0, "One. ", 2.0, "Two."]]), act)


@pytest.mark.parametrize("replies", [[[]], [["  ", "\n"]], [[3.0]]])
def test_a_model_that_answers_nothing_has_failed(replies: list[Any]) -> None:
    async def act(s: Setting) -> None:
        s.answer.start()
        s.answer.commit()
        with pytest.raises(ProviderError, match="nothing"):
            await s.answer.done()
        assert s.ready == []

    scene(Script(replies=replies), act)


def test_a_tool_that_ends_the_session_without_words_says_goodbye() -> None:
    async def act(s: Setting) -> None:
        await whole(s)
        assert s.answer.thought is not None
        assert s.answer.thought.end_session
        assert s.answer.speech.heard() == [], "a courtesy is not part of the conversation"
        assert s.played == 1

    s = scene(Script(replies=[[call(1)], []]), act, Echo(end_session=True))
    assert len(s.shown) == 1
    assert s.shown[0] in variants("farewell", "en")


def test_a_tool_that_ends_the_session_with_words_adds_none() -> None:
    s = scene(Script(replies=[[call(1)], ["See you."]]), whole, Echo(end_session=True))
    assert s.shown == ["See you."]


# ---------------------------------------------------------------- fillers


def test_a_slow_model_is_bridged_by_one_phrase_from_the_cache() -> None:
    async def act(s: Setting) -> None:
        await s.warm()
        s.slow(s.model_key)
        await whole(s)
        assert s.answer.speech.heard() == ["At last."]

    s = scene(Script(replies=[[4.0, "At last."]]), act)
    assert s.shown[0] in FILLERS
    assert s.shown[1:] == ["At last."]
    assert [request.text for request in s.stage.tts.said] == ["At last."], "a filler costs nothing"
    assert len(s.ready) == 1


def test_a_slow_tool_is_bridged_and_the_round_after_it_is_not() -> None:
    async def act(s: Setting) -> None:
        await s.warm()
        s.slow(TOOL_DELAY.format("echo"))
        await whole(s)

    s = scene(Script(replies=[[call(1)], [call(2)], ["Done."]]), act, Echo())
    assert len(s.shown) == 2
    assert s.shown[0] in FILLERS
    assert s.shown[1] == "Done."


@pytest.mark.parametrize("reason", ["not cached", "not wanted", "fast", "too few", "late", "tense"])
def test_no_filler(reason: str) -> None:
    async def act(s: Setting) -> None:
        if reason == "tense":
            s.services.admission.level = Level.TENSE
        if reason != "not cached":
            await s.warm()
        if reason == "too few":
            s.services.delays.note(s.model_key, 60.0)
        elif reason == "late":  # by the time it is wanted, little is left to wait
            s.slow(s.model_key, 4.0)
            s.answer.start()
            await asyncio.sleep(4.0 - FILLER_AFTER_S + 0.1)
        else:
            s.slow(s.model_key, FILLER_AFTER_S - 0.1 if reason == "fast" else 5.0)
        if reason != "late":
            s.answer.start()
        s.answer.commit()
        s.begin()
        await s.answer.done()
        await asyncio.sleep(10)

    s = scene(Script(replies=[[4.0, "Done."]]), act, fillers=reason != "not wanted")
    assert s.shown == ["Done."]


def test_a_filler_is_not_said_for_a_guess_nor_when_the_answer_is_there() -> None:
    async def act(s: Setting) -> None:
        await s.warm()
        s.slow(s.model_key)
        s.answer.start()
        await asyncio.sleep(1)
        assert s.answer.speech.queued_ms == s.answer.speech.sent_ms == 0
        await asyncio.sleep(4)
        s.answer.commit()
        s.begin()
        await s.answer.done()
        await asyncio.sleep(10)

    assert scene(Script(replies=[[4.0, "Done."]]), act).shown == ["Done."]


def test_a_filler_and_nothing_else_is_no_answer() -> None:
    async def act(s: Setting) -> None:
        await s.warm()
        s.slow(s.model_key)
        s.answer.start()
        s.answer.commit()
        s.begin()
        with pytest.raises(ProviderError, match="nothing"):
            await s.answer.done()

    scene(Script(replies=[[4.0]]), act)


def test_times_are_noted_for_the_next_turn() -> None:
    async def act(s: Setting) -> None:
        s.slow(TOOL_DELAY.format("echo"), 1.0)
        await whole(s)
        assert s.services.delays.expected(TOOL_DELAY.format("echo")) == pytest.approx(1.0)
        assert s.services.delays._known[TOOL_DELAY.format("echo")][0] == LEAST_SAMPLES + 1

    scene(Script(replies=[[call(1)], [4.0, "Done."]]), act, Echo())

    async def model(s: Setting) -> None:
        s.slow(s.model_key, 2.0)
        await whole(s)
        assert s.services.delays.expected(s.model_key) == pytest.approx(2.0 + 0.3 * 2.0, abs=0.01)

    scene(Script(replies=[[4.0, "Done."]]), model)
