"""One device's conversation: the only place that changes its state.

A `Session` receives decoded messages and audio from a `Link`, turns them into events for the turn machine, and carries
out the commands that come back. It owns a task only while it works on something.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from loguru import logger

from mynah.dialogue import emotion, turn
from mynah.dialogue.history import History
from mynah.dialogue.listen import Ear
from mynah.dialogue.record import TurnRecord
from mynah.dialogue.reminders import SessionReminders
from mynah.dialogue.services import Link, Services
from mynah.dialogue.speak import Speech, Spoken
from mynah.dialogue.text import shown
from mynah.dialogue.think import Face, Sentence, Thought
from mynah.errors import MynahError
from mynah.providers.base import (
    AsrRequest,
    ChatMessage,
    Role,
)
from mynah.texts import detect_language, text
from mynah.tools.base import ToolContext
from mynah.tools.device_mcp import DeviceMcp
from mynah.tools.toolbox import SessionTools
from mynah.wire import hello
from mynah.wire.messages import (
    Abort,
    DeviceMessage,
    Goodbye,
    Hello,
    Listen,
    ListenMode,
    Llm,
    Mcp,
    Ping,
    Pong,
    Stt,
    TtsSentence,
    TtsStart,
    TtsStop,
)

MAX_TYPED_CHARS = 4000
"""Two pages: more is a document, and all of it would stay in the history. Overflow policy: the rest is cut off."""
SILENT_MICROPHONE_S = 10.0
"""An open microphone sends a packet every 60 ms; one that has sent none for so long belongs to a dead connection."""
KEEP_ALIVE_S = 60.0
"""Firmware takes a connection for dead after 120 s without data from us; pings do not count."""
DISCOVERY_PATIENCE_S = 0.3
"""A device lists its tools within a network round trip or two; some clients never do."""
SENTENCE_QUEUE = 8
"""Sentences the model may be ahead of the voice; then it has to wait (back-pressure)."""

log = logger.bind(tag="dialogue")


class Session:
    """The conversation with one device, from its first message to the end of its connection."""

    # fmt: off
    __slots__ = (
        "_audio_at", "_device_mcp", "_discovery", "_ear", "_end_session", "_face_sent", "_history", "_kept_alive_at",
        "_language", "_link", "_loop", "_machine", "_quiet_since", "_record", "_reminders", "_services", "_speech",
        "_spoken", "_tasks", "_thought", "_tools", "_typed_at", "_user_text", "device_id", "greeted", "session_id",
    )
    # fmt: on

    def __init__(self, link: Link, services: Services, device_id: str) -> None:
        self.device_id = device_id
        self.session_id = uuid.uuid4().hex
        self.greeted = False
        """The hello has been answered: exactly one answer is sent per connection."""
        self._link = link
        self._services = services
        self._loop = asyncio.get_running_loop()
        self._machine = turn.TurnMachine(services.settings.policy)
        self._history = History(services.settings.history_tokens)
        self._language = services.settings.language
        self._ear: Ear | None = None
        self._speech: Speech | None = None
        self._thought: Thought | None = None
        self._user_text = ""
        self._spoken: list[str] = []
        self._face_sent = False
        self._end_session = False
        self._record = TurnRecord(device_id)
        self._tasks: set[asyncio.Task[None]] = set()
        self._device_mcp: DeviceMcp | None = None
        self._discovery: asyncio.Task[None] | None = None
        self._tools: SessionTools | None = None
        self._reminders = SessionReminders(self.say)
        self._typed_at = self._audio_at = 0.0
        self._kept_alive_at = self._loop.time()
        self._quiet_since = self._loop.time()
        services.observer.on_session_opened(device_id, self.session_id)

    @property
    def phase(self) -> turn.Phase:
        """What the conversation is doing."""
        return self._machine.phase

    # -- from the link

    def on_message(self, message: DeviceMessage) -> None:
        """Take in one message of the device."""
        match message:
            case Listen("start", mode):
                self._touch()
                self._post(turn.ListenStarted(mode or ListenMode.AUTO))
            case Listen("stop"):
                self._post(turn.ListenStopped())
            case Listen(text=words):
                self._touch()
                self._typed_at = self._loop.time()
                self._post(turn.TextGiven(words.strip()[:MAX_TYPED_CHARS]))
            case Abort():
                self._touch()
                self._post(turn.Aborted())
            case Mcp(payload):
                if self._device_mcp is not None:
                    self._device_mcp.receive(payload)
            case Hello():
                self._touch()
                self._answer_hello(message)
            case Goodbye():
                self._link.close()
            case Ping():
                self._link.send(Pong(self.session_id))
            case _:
                log.debug("{} sent {}, which is not supported yet", self.device_id, type(message).__name__)

    def on_audio(self, packet: bytes) -> None:
        """Take in one Opus packet. Audio that nobody listens to is dropped: firmware bursts its wake-word recording."""
        if self._ear is not None:
            self._audio_at = self._loop.time()
            self._ear.push(packet)

    def on_closed(self) -> None:
        """The connection is gone: end everything."""
        self._post(turn.Closed())
        # A machine that was closed already (farewell, goodbye) gives no commands, so end what is left here too.
        self._close_ear()
        self._cancel_turn()
        for task in tuple(self._tasks):
            task.cancel()
        self._reminders.clear()
        if self._device_mcp is not None:
            self._device_mcp.close()
        self._services.observer.on_session_closed(self.device_id, self.session_id)

    # -- from inside

    def say(self, words: str) -> None:
        """Speak unprompted as soon as there is a gap in the conversation."""
        self._post(turn.SayRequested(words))

    def check_quiet(self, now: float) -> None:
        """End the conversation when nobody has spoken for too long; called for all sessions every few seconds."""
        if self._machine.phase in (turn.Phase.RECOGNISING, turn.Phase.REPLYING):
            self._quiet_since = self._kept_alive_at = now
            return
        self._post(turn.Lull())
        hearing = self._ear is not None and self._ear.hearing and now - self._audio_at < SILENT_MICROPHONE_S
        if now - self._quiet_since < self._services.settings.no_voice_s or hearing or len(self._reminders):
            if now - self._kept_alive_at >= KEEP_ALIVE_S:
                self._kept_alive_at = now
                self._link.send(Pong(self.session_id))
            return
        # To a device that is not listening a sudden farewell would come out of nowhere.
        listening = self._machine.phase is turn.Phase.LISTENING
        self._post(turn.Fell(text("farewell_idle", self._language) if listening else ""))

    def on_speech_started(self) -> None:
        """The ear hears a voice."""
        self._touch()
        self._post(turn.SpeechStarted())

    def on_speech_ended(self) -> None:
        """The ear found the end of the utterance."""
        self._post(turn.SpeechEnded())

    # -- SpeechSink

    def on_frame(self, packet: bytes, timestamp_ms: int) -> None:
        """A frame is due."""
        if not self._record.first_frame:
            self._record.first_frame = self._loop.time()
        self._link.send_audio(packet, timestamp_ms)

    def on_sentence(self, sentence: Spoken) -> None:
        """A sentence begins to play."""
        if not self._face_sent:
            self._show_face(Face(emotion.DEFAULT_EMOJI, emotion.FACES[emotion.DEFAULT_EMOJI]))
        words = shown(sentence.text)
        if words:
            self._link.send(TtsSentence(words, self.session_id))
        if sentence.remember:
            self._spoken.append(sentence.text)

    def on_spoken(self) -> None:
        """The reply has been played to its end."""
        self._touch()
        self._close_record()
        self._post(turn.Played(self._machine.turn, self._end_session))

    # -- the machine

    def _post(self, event: turn.Event) -> None:
        for command in self._machine.step(event):
            self._carry_out(command)
        if self._speech is None and self._machine.phase in (turn.Phase.IDLE, turn.Phase.LISTENING):
            # What was said led to no reply (a noise, a wake word): it must not stick to the next one.
            self._user_text = ""
            if self._record.speech_end:
                self._record = TurnRecord(self.device_id)

    def _carry_out(self, command: turn.Command) -> None:
        match command:
            case turn.OpenEar():
                self._open_ear(command)
            case turn.CloseEar():
                self._close_ear()
            case turn.Recognise(number):
                ear, self._ear = self._ear, None
                mode = self._machine.mode.value
                self._record = TurnRecord(self.device_id, mode, speech_end=self._loop.time())
                task = self._spawn(number, partial(self._recognise, number, ear))
                if ear is not None:
                    # Also when the task is cancelled before its first step.
                    task.add_done_callback(lambda _: ear.close())
            case turn.ShowText(words):
                self._show_text(words)
            case turn.StartReply():
                self._start_reply()
            case turn.StopReply():
                self._link.send(TtsStop(self.session_id))
            case turn.CancelTurn():
                self._cancel_turn()
            case turn.HangUp():
                self._link.close()
            case _:
                self._speak(command)

    def _speak(self, command: turn.Command) -> None:
        match command:
            case turn.Think(number, words):
                self._spawn(number, partial(self._reply, words))
            case turn.Say(number, words, remember, end_session, sorry):
                self._end_session |= end_session
                if sorry:
                    self._show_face(Face(*emotion.SORRY))
                self._spawn(number, partial(self._say, words, remember), apology=False)
            case turn.AskAgain(number):
                self._spawn(number, partial(self._say, text("nothing_heard", self._language)), apology=False)
            case turn.Greet(number):
                self._spawn(number, partial(self._say, text("greeting", self._language), True), apology=False)
            case turn.Leave(number):
                self._end_session = True
                self._spawn(number, partial(self._say, text("farewell", self._language)), apology=False)

    def _open_ear(self, command: turn.OpenEar) -> None:
        if self._ear is not None and command.mode is ListenMode.REALTIME and not command.interrupting:
            # The ear that stood by during the reply goes on: the user may be speaking already.
            self._ear.relax()
            return
        self._close_ear()
        services = self._services
        self._ear = Ear(
            services.ingest,
            services.asr,
            services.vad,
            AsrRequest(self._language),
            self,
            manual=command.mode is ListenMode.MANUAL,
            interrupting=command.interrupting,
        )

    def _close_ear(self) -> None:
        if self._ear is not None:
            self._ear.close()
            self._ear = None

    def _start_reply(self) -> None:
        self._link.send(TtsStart(self.session_id))
        self._record.tts_start = self._loop.time()
        self._face_sent = False
        self._end_session = False
        self._spoken = []
        self._speech = self._services.voice.open(self)

    def _cancel_turn(self) -> None:
        for task in tuple(self._tasks):
            task.cancel()
        if self._speech is not None:
            self._speech.cancel()
            self._record.interrupted = True
            self._close_record()

    def _close_record(self) -> None:
        """The reply is over, played or not: what was heard of it becomes history."""
        self._speech = None
        answer = " ".join(self._spoken)
        exchange = [ChatMessage(Role.USER, self._user_text)]
        if self._thought is not None:
            exchange += self._thought.tool_messages
        if self._user_text or answer:
            self._history.add([*exchange, ChatMessage(Role.ASSISTANT, answer)])
        self._record.answer = answer
        self._services.observer.on_turn(self._record)
        self._thought = None
        self._user_text = ""
        self._spoken = []
        self._record = TurnRecord(self.device_id)

    # -- work of a turn

    def _spawn(
        self, number: int, work: Callable[[], Coroutine[Any, Any, None]], *, apology: bool = True
    ) -> asyncio.Task[None]:
        task = self._loop.create_task(self._guard(number, work, apology))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _guard(self, number: int, work: Callable[[], Coroutine[Any, Any, None]], apology: bool) -> None:
        """Root of every task of a turn: whatever goes wrong, the device leaves its speaking state."""
        try:
            await work()
        except Exception as error:  # noqa: BLE001 - the task root: see rule 8 of the rooms
            if number != self._machine.turn:
                return  # a clean-up that failed after the turn was cancelled; the state belongs to a newer one
            leaf = _leaf(error)
            key = leaf.public if isinstance(leaf, MynahError) else MynahError.public
            self._record.error = leaf.code if isinstance(leaf, MynahError) else "internal"
            log.opt(exception=None if isinstance(leaf, MynahError) else leaf).warning(
                "{}: turn {} failed: {}: {}", self.device_id, number, type(leaf).__name__, leaf
            )
            if self._speech is not None:
                self._speech.restart()
            if apology:
                self._post(turn.Failed(number, text(key, self._language)))
            elif self._speech is not None:
                self._speech.finish()

    async def _recognise(self, number: int, ear: Ear | None) -> None:
        if ear is None:
            self._post(turn.Recognised(number, "", voiced=False))
            return
        transcript, voiced = await ear.finish()
        self._record.transcript = self._loop.time()
        self._post(turn.Recognised(number, transcript.text.strip(), voiced))

    async def _reply(self, words: str) -> None:
        """Think and speak side by side, one task group for the turn."""
        services = self._services
        speech = self._speech
        if speech is None:  # cancelled between two commands
            return
        await self._wait_for_device_tools()
        language = self._language
        thought = self._thought = Thought(services.llm, self._session_tools(), self._tool_context(language))
        system = ChatMessage(Role.SYSTEM, services.settings.prompt)
        messages = (system, *self._history, ChatMessage(Role.USER, words))
        queue: asyncio.Queue[Sentence | None] = asyncio.Queue(SENTENCE_QUEUE)

        async def think() -> None:
            async for piece in thought.stream(messages, language):
                if isinstance(piece, Face):
                    self._show_face(piece)
                    continue
                if not self._record.first_sentence:
                    self._record.first_sentence = self._loop.time()
                await queue.put(piece)
            await queue.put(None)

        async with asyncio.TaskGroup() as group:
            group.create_task(think())
            while (sentence := await queue.get()) is not None:
                spoken_language = detect_language(sentence.text, default=language)
                await speech.say(Spoken(sentence.text), spoken_language)
        self._end_session |= thought.end_session
        self._record.tts_failures = speech.failures
        speech.finish()

    async def _say(self, words: str, remember: bool = False) -> None:
        speech = self._speech
        if speech is None:
            return
        language = detect_language(words, default=self._language)
        await speech.say(Spoken(words, remember), language, cacheable=True)
        speech.finish()

    # -- pieces

    def _answer_hello(self, message: Hello) -> None:
        if self.greeted:
            return
        self.greeted = True
        self._link.send(hello.answer(message, self.session_id, self._services.settings.sample_rate))
        if message.features.get("mcp") is True:
            self._device_mcp = DeviceMcp(lambda payload: self._link.send(Mcp(payload, self.session_id)))
            self._spawn_discovery(self._device_mcp)

    def _spawn_discovery(self, device: DeviceMcp) -> None:
        async def discover() -> None:
            if reason := await device.discover():
                log.debug("{}: not all device tools are known: {}", self.device_id, reason)

        # Not one of the turn's tasks: an interrupt must not end it; closing the device's tools does.
        self._discovery = self._loop.create_task(discover())
        self._tools = self._services.toolbox.for_session(device)

    async def _wait_for_device_tools(self) -> None:
        """Give a device that was asked for its tools a moment: the first words often come with the hello."""
        discovery = self._discovery
        if self._services.offers_tools and discovery is not None and not discovery.done():
            await asyncio.wait({discovery}, timeout=DISCOVERY_PATIENCE_S)

    def _session_tools(self) -> SessionTools | None:
        if not self._services.offers_tools:
            return None
        if self._tools is None:
            self._tools = self._services.toolbox.for_session(None)
        return self._tools

    def _tool_context(self, language: str) -> ToolContext:
        return ToolContext(self.device_id, language, self._services.now, self._reminders)

    def _show_text(self, words: str) -> None:
        if self._typed_at:
            # Only now: the commands before this one closed the record of a reply that was cut short.
            self._record = TurnRecord(self.device_id, "text", speech_end=self._typed_at)
            self._typed_at = 0.0
        self._user_text = self._record.text = words
        self._language = detect_language(words, default=self._language)
        self._link.send(Stt(words, self.session_id))

    def _show_face(self, face: Face) -> None:
        if not self._face_sent:
            self._face_sent = True
            self._link.send(Llm(face.emotion, face.emoji, self.session_id))

    def _touch(self) -> None:
        self._quiet_since = self._loop.time()


def _leaf(error: BaseException) -> BaseException:
    """Return the first real error inside nested groups."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
