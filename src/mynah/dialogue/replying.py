"""The speaking side of one session: the reply, the answer behind it, and what becomes of both."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

from mynah.dialogue import emotion, events
from mynah.dialogue.answer import Answer
from mynah.dialogue.answering import Answering
from mynah.dialogue.completeness import Completeness
from mynah.dialogue.completeness import judge as judge_words
from mynah.dialogue.device_tools import DeviceTools
from mynah.dialogue.interruption import HeardVoice, Judgement, judge
from mynah.dialogue.record import TurnRecord
from mynah.dialogue.reply import Reply
from mynah.dialogue.services import Link, Services
from mynah.dialogue.speak import Spoken
from mynah.dialogue.talker import Talker
from mynah.dialogue.think import Face
from mynah.dialogue.tickets import Tickets
from mynah.dialogue.turn import Phase
from mynah.dialogue.work import TurnWork
from mynah.providers.base import ChatMessage, Role
from mynah.texts import detect_language
from mynah.tools.toolbox import SessionTools

CUT_IN_S = 2.0
"""Who ends a reply this soon after it began was probably not done with what it answers."""


class Replying:
    """What is said to one device. Made for the first reply; the parts that cost something are made for each."""

    # fmt: off
    __slots__ = (
        "_answer", "_answering", "_end_session", "_link", "_loop", "_post", "_reply", "_services", "_stamp",
        "_talker", "_ticket", "_tools", "_work", "record", "tickets", "user_text",
    )
    # fmt: on

    def __init__(
        self,
        services: Services,
        link: Link,
        talker: Talker,
        tools: Callable[[], DeviceTools],
        work: TurnWork,
        post: Callable[[events.Event], None],
    ) -> None:
        """``post`` is told when an answer is `Ready` and when a reply was `Played`."""
        self._services = services
        self._link = link
        self._talker = talker
        self._tools = tools
        self._work = work
        self._post = post
        self._loop = asyncio.get_running_loop()
        self._answering: Answering | None = None
        self._answer: Answer | None = None
        self._reply: Reply | None = None
        self._end_session = False
        self._stamp = 0
        self._ticket = 0
        self.tickets = Tickets()
        self.user_text = ""
        """What the reply answers; empty when the assistant speaks by itself."""
        self.record = TurnRecord(talker.device_id)

    def tidy(self, phase: Phase) -> None:
        """Drop what does not belong into this phase."""
        if phase not in (Phase.LISTENING, Phase.RECOGNISING):
            self.drop_guess()
        if self._reply is None and phase in (Phase.IDLE, Phase.LISTENING):
            # What was said led to no reply (a noise, a wake word): it must not stick to the next one.
            self.user_text = ""
            if self.record.speech_end:
                self.record = TurnRecord(self._talker.device_id)

    def close(self) -> None:
        """End everything: there will be no more replies."""
        self.drop_guess()
        self.cancel()
        self.tickets.close()
        self._answering = None  # it knows us: together they would wait for the garbage collector

    # -- answers

    def guess(self, words: str) -> None:
        """Prepare an answer to what was said so far."""
        self._answers().guess(words)

    def drop_guess(self) -> None:
        """It was not all."""
        if self._answering is not None:
            self._answering.drop_guess()

    def think(self, words: str, farewell: bool) -> bool:
        """Answer; False when the device has been told enough for today. ``farewell``: hang up after it."""
        answering = self._answers()
        if answering.exhausted and not farewell:
            self._end_session = True
            return False
        self._end_session = farewell
        answer = self._answer = answering.answer(words)
        self.record.guess = answering.guessed
        if self._reply is not None:
            answer.begin(self._reply)
        answer.commit()
        self._work.spawn(answer.done)
        return True

    def _answers(self) -> Answering:
        if self._answering is None:
            talker = self._talker
            self._answering = Answering(
                self._services,
                talker.device_id,
                talker.kept,
                talker.reminders,
                self._ready_tools,
                self._on_ready,
            )
        return self._answering

    def _ready_tools(self) -> Awaitable[SessionTools]:
        return self._tools().ready()

    # -- the reply

    def start(self) -> None:
        """Tell the device to speak; the answer that is in the making, if any, is let out."""
        self.record.tts_start = self._loop.time()
        session_id = self._talker.session_id
        self._reply = Reply(
            self._services.voice, self._link, session_id, self._on_played, self._stamp, self._on_frame
        )
        if self._answer is not None:
            self._answer.begin(self._reply)

    def say(
        self,
        words: str,
        *,
        remember: bool = False,
        end_session: bool = False,
        sorry: bool = False,
        ticket: int = 0,
    ) -> None:
        """Speak a fixed sentence; where that goes wrong, the reply ends. ``ticket``: of who wants to know."""
        reply = self._reply
        self._ticket = ticket or self._ticket
        if reply is None:
            return
        self._end_session |= end_session
        if sorry:
            reply.show_face(Face(*emotion.SORRY))
        self._work.spawn(partial(self._utter, reply, words, remember), instead=reply.finish)

    async def _utter(self, reply: Reply, words: str, remember: bool) -> None:
        language = detect_language(words, default=self._talker.kept.language)
        await reply.speech.say(Spoken(words, remember), language, cacheable=True)
        reply.finish()

    def fail(self) -> None:
        """The work on the answer failed: an apology follows, in place of the rest of it."""
        if self._reply is not None:
            self._reply.restart()
        elif self._answer is not None:
            self._answer.cancel()
            self._answer.close()
            self._answer = None

    def cancel(self) -> None:
        """End the reply and the work on it. What was heard becomes history."""
        if self._answer is not None:
            self._answer.cancel()
        if self._reply is not None:
            self._reply.cancel()
            self.record.interrupted = True
            self._close(self._reply)
        if self._answer is not None:
            self._answer.close()
            self._answer = None

    def put_back(self) -> None:
        """The user may be going on: the answer that has not begun becomes a guess."""
        answer = self._answer
        if answer is not None and self._reply is None and not answer.ready and not answer.failed:
            self._answer = None
            self._answers().put_back(self.user_text, answer)

    @property
    def leaving(self) -> bool:
        """Whether the conversation ends with this reply."""
        return self._end_session

    def note_cut_in(self) -> None:
        """Who stops a reply right after it began, and had not finished by his words, was cut short himself."""
        reply = self._reply
        if reply is None or self.record.mode not in ("auto", "realtime"):
            return
        begun = reply.first_frame_at
        soon = not begun or self._loop.time() - begun < CUT_IN_S
        language = self._talker.kept.language
        if soon and judge_words(self.user_text, language) is Completeness.INCOMPLETE:
            patience = self._services.patience(self._talker.device_id)
            patience.silence_ms(self.user_text, language)  # so that it is learnt about such words
            patience.cut_in()
            self.record.cut_in = True

    def _on_played(self) -> None:
        thought = self._answer.thought if self._answer is not None else None
        end_session = self._end_session or (thought is not None and thought.end_session)
        if self._reply is not None:
            self._close(self._reply)
        self._post(events.Played(self._work.turn, end_session))

    def _on_ready(self) -> None:
        """The answer has its first words, or is about to do something that cannot be taken back."""
        self._post(events.Ready(self._work.turn))

    def _on_frame(self, packet: bytes, stamp: int) -> None:
        if self._talker.echo is not None:
            self._talker.echo.sent(stamp, packet)
        if self._ticket:
            self.tickets.settle(self._ticket, True)

    def _close(self, reply: Reply) -> None:
        """The reply is over, played or not."""
        self._reply = None
        self._stamp = reply.stamp
        answer, self._answer = self._answer, None
        heard = " ".join(reply.heard)
        exchange = [ChatMessage(Role.USER, self.user_text)]
        if answer is not None and answer.thought is not None:
            exchange += answer.thought.tool_messages
        if self.user_text or heard:
            self._talker.kept.history.add([*exchange, ChatMessage(Role.ASSISTANT, heard)])
        record, self.record = self.record, TurnRecord(self._talker.device_id)
        record.answer = heard
        record.first_sentence = answer.first_sentence_at if answer is not None else 0.0
        record.first_frame = reply.first_frame_at
        record.tts_failures = reply.failures
        record.silent = not reply.sentences and not record.interrupted
        if self.user_text and not record.cut_in:
            self._services.patience(self._talker.device_id).ended()
        self._services.allowance.spend(self._talker.device_id, len(heard))
        self._services.observer.on_turn(record)
        self.tickets.settle(self._ticket, bool(reply.sentences))
        self.user_text = ""
        self._end_session = False
        self._ticket = 0
        reply.close()
        if answer is not None:
            answer.close()

    # -- a voice meanwhile

    def hold(self, voice: HeardVoice, judged: Callable[[Judgement], None]) -> None:
        """Stop sending at once, find out what the voice is, and tell."""
        reply = self._reply
        if reply is not None:
            reply.hold()
            self._work.spawn(partial(self._judge, voice, reply, judged), instead=lambda: judged(Judgement()))

    async def _judge(self, voice: HeardVoice, reply: Reply, judged: Callable[[Judgement], None]) -> None:
        judged(await judge(voice, lambda: reply.recent))

    def resume(self) -> None:
        """It was nothing: go on."""
        self.record.false_alarms += 1
        if self._reply is not None:
            self._reply.resume()
