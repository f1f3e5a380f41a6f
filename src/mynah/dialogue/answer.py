"""One reply in the making: the model thinks and the voice speaks, side by side.

It may begin before anybody knows that it is wanted: at the first pause, or while the user might still go on. Until
`Answer.commit` the words are a guess: no tool runs, and of the voice only the first sentence is prepared. Until
`Answer.begin` nothing reaches the device. What is cancelled before leaves no trace.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence

from mynah.dialogue.reply import Reply
from mynah.dialogue.services import Services
from mynah.dialogue.speak import Speech, Spoken
from mynah.dialogue.think import Face, Sentence, Thought
from mynah.errors import ProviderError
from mynah.providers.base import ChatMessage, ToolCall
from mynah.texts import detect_language, text, variants
from mynah.tools.base import ToolContext
from mynah.tools.toolbox import SessionTools

SENTENCE_QUEUE = 8
"""Sentences the model may be ahead of the voice; then it has to wait (back-pressure)."""
TOOL_DELAY = "tool {}"
MODEL_DELAY = "model {}"


class Answer:
    """The work of one reply. `start`, then `commit` and `begin` in this order, or `cancel` at any time."""

    # fmt: off
    __slots__ = (
        "_committed", "_context", "_empty", "_filled", "_first_seen", "_loop", "_messages", "_on_ready", "_queue",
        "_ready", "_reply", "_services", "_started", "_task", "_tools", "face", "first_sentence_at", "speech",
        "thought",
    )
    # fmt: on

    def __init__(
        self,
        services: Services,
        messages: Callable[[], Awaitable[Sequence[ChatMessage]]],
        context: ToolContext,
        tools: Callable[[], Awaitable[SessionTools | None]],
        on_ready: Callable[[], None],
    ) -> None:
        """``on_ready`` is called once, when it is committed and has its first words, or cannot be taken back."""
        self._services = services
        self._messages = messages
        self._context = context
        self._tools = tools
        self._on_ready = on_ready
        self._loop = asyncio.get_running_loop()
        self._committed = asyncio.Event()
        self._ready = self._filled = self._first_seen = self._empty = False
        self._reply: Reply | None = None
        self._task: asyncio.Task[None] | None = None
        self._started = 0.0
        self._queue: asyncio.Queue[Sentence | None] = asyncio.Queue(SENTENCE_QUEUE)
        self.face: Face | None = None
        self.thought: Thought | None = None
        self.first_sentence_at = 0.0
        """When the first sentence was complete, by the loop's clock; 0 before that."""
        self.speech: Speech = services.voice.open()

    # -- from the session

    def start(self) -> None:
        """Begin to think."""
        self._started = self._loop.time()
        self._task = self._loop.create_task(self._run())
        # A guess that fails and is never used has nobody to tell.
        self._task.add_done_callback(lambda task: task.cancelled() or task.exception())

    def commit(self) -> None:
        """The words are final: from now on it does everything it takes."""
        self._committed.set()
        if self._first_seen:
            self._tell_ready()

    def put_back(self) -> None:
        """The words may not be final after all. Only before it is ready: nothing was done that cannot be taken back."""
        self._committed.clear()

    @property
    def ready(self) -> bool:
        """Whether `on_ready` has been called."""
        return self._ready

    def begin(self, reply: Reply) -> None:
        """The device has been told to speak: let out what there is."""
        self._reply = reply
        if self.face is not None:
            reply.show_face(self.face)
        reply.take(self.speech)

    def cancel(self) -> None:
        """Drop all of it."""
        if self._task is not None:
            self._task.cancel()
        self.speech.cancel()

    def close(self) -> None:
        """It is over: let go of what knows it as well, or they would wait for the garbage collector together."""
        self.thought = self._reply = self._task = None

    async def done(self) -> None:
        """Wait until everything is said or queued. Raises what went wrong."""
        assert self._task is not None
        # Who waits may be cancelled while the answer is kept; `cancel` ends it.
        await asyncio.shield(self._task)

    @property
    def failed(self) -> bool:
        """Whether nothing will come of it: it ended with an error, or without a word."""
        task = self._task
        broken = task is not None and task.done() and (task.cancelled() or task.exception() is not None)
        return broken or self._empty

    @property
    def tokens(self) -> int:
        """Tokens the model has delivered so far."""
        return self.thought.tokens if self.thought is not None else 0

    # -- the work

    async def _run(self) -> None:
        services = self._services
        thought = self.thought = Thought(
            services.llm,
            await self._tools(),
            self._context,
            self._before_tools,
            self._note_tool,
            services.intent,
        )
        async with asyncio.TaskGroup() as group:
            group.create_task(self._think(thought))
            waiting = group.create_task(self._fill_for_model())
            said = await self._speak()
            waiting.cancel()
        self._empty = not said
        await self._committed.wait()
        if not said:
            # Silence would look like a broken device.
            if not thought.end_session:
                raise ProviderError(
                    "the language model answered with nothing", provider=self._services.llm.name
                )
            await self._say(Sentence(text("farewell", self._context.language), filler=True))
        self._tell_ready()
        self.speech.finish()

    async def _think(self, thought: Thought) -> None:
        async for piece in thought.stream(await self._messages(), self._context.language):
            if isinstance(piece, Face):
                self._show_face(piece)
                continue
            if not self.first_sentence_at:
                self.first_sentence_at = self._loop.time()
                if not thought.tool_messages:
                    self._services.delays.note(self._model_key, self.first_sentence_at - self._started)
            await self._queue.put(piece)
        await self._queue.put(None)

    async def _speak(self) -> bool:
        """Return whether anything was said but fillers."""
        said = False
        while (sentence := await self._queue.get()) is not None:
            if said:
                await self._committed.wait()
            self._first_seen = True
            said = said or not sentence.filler
            if self._committed.is_set():
                self._tell_ready()
            await self._say(sentence)
        return said

    async def _say(self, sentence: Sentence) -> None:
        language = detect_language(sentence.text, default=self._context.language)
        spoken = Spoken(sentence.text, remember=not sentence.filler)
        await self.speech.say(spoken, language, cacheable=sentence.filler)

    def _tell_ready(self) -> None:
        if not self._ready:
            self._ready = True
            self._on_ready()

    def _show_face(self, face: Face) -> None:
        if self._reply is not None:
            self._reply.show_face(face)
        elif self.face is None:
            self.face = face

    # -- waiting

    async def _before_tools(self, calls: Sequence[ToolCall]) -> None:
        await self._committed.wait()
        self._tell_ready()
        slow = any(self._services.delays.is_slow(TOOL_DELAY.format(call.name)) for call in calls)
        if slow:
            await self._fill()

    def _note_tool(self, name: str, seconds: float) -> None:
        self._services.delays.note(TOOL_DELAY.format(name), seconds)

    async def _fill_for_model(self) -> None:
        """Say something when the model usually takes long, instead of a silence."""
        await self._committed.wait()
        waited = self._loop.time() - self._started
        if self.first_sentence_at or not self._services.delays.is_slow(self._model_key, waited):
            return
        await self._fill()

    async def _fill(self) -> None:
        """Queue a short phrase, once per reply, if there is one that can be said at once."""
        services, language = self._services, self._context.language
        if self._filled or not services.settings.fillers or services.admission.tense:
            return
        phrases = [
            phrase for phrase in variants("filler", language) if services.voice.knows(phrase, language)
        ]
        if phrases:
            self._filled = True
            await self._queue.put(Sentence(random.choice(phrases), filler=True))

    @property
    def _model_key(self) -> str:
        return MODEL_DELAY.format(self._services.llm.name)
