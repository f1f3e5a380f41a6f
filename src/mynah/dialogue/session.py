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
from mynah.dialogue.device_tools import DeviceTools
from mynah.dialogue.history import History
from mynah.dialogue.listen import Ear
from mynah.dialogue.record import TurnRecord
from mynah.dialogue.reminders import SessionReminders
from mynah.dialogue.reply import Reply
from mynah.dialogue.services import Link, Services, VisionAccess
from mynah.dialogue.speak import Spoken
from mynah.dialogue.think import Face, Sentence, Thought
from mynah.dialogue.wake_audio import WakeAudio
from mynah.errors import MynahError
from mynah.providers.base import (
    AsrRequest,
    ChatMessage,
    Role,
)
from mynah.texts import detect_language, text
from mynah.tools.base import ToolContext
from mynah.wire import hello
from mynah.wire.messages import (
    Abort,
    Alert,
    Goodbye,
    Heartbeat,
    HeartbeatAck,
    Hello,
    Iot,
    Listen,
    ListenMode,
    Mcp,
    Ping,
    Pong,
    SessionMessage,
    Stt,
    System,
    TtsStop,
)

MAX_TYPED_CHARS = 4000
"""Two pages: more is a document, and all of it would stay in the history. Overflow policy: the rest is cut off."""
SILENT_MICROPHONE_S = 10.0
"""An open microphone sends a packet every 60 ms; one that has sent none for so long belongs to a dead connection."""
KEEP_ALIVE_S = 60.0
"""Firmware takes a connection for dead after 120 s without data from us; pings do not count."""
MAX_ALERTS = 4
"""Alerts that wait for the end of a reply; a person reads no more at once. Overflow policy: the oldest is dropped."""
NO_VISION = VisionAccess("", "")
SENTENCE_QUEUE = 8
"""Sentences the model may be ahead of the voice; then it has to wait (back-pressure)."""

log = logger.bind(tag="dialogue")


class Session:
    """The conversation with one device, from its first message to the end of its connection."""

    # fmt: off
    __slots__ = (
        "_alerts", "_audio_at", "_ear", "_end_session", "_gone", "_history", "_kept_alive_at", "_language", "_link",
        "_loop", "_machine", "_quiet_since", "_record", "_reminders", "_reply", "_services", "_stamp", "_tasks",
        "_thought", "_tools", "_typed_at", "_user_text", "_vision", "_wake_audio", "_wake_ms", "device_id", "greeted",
        "session_id",
    )
    # fmt: on

    def __init__(
        self,
        link: Link,
        services: Services,
        device_id: str,
        vision: Callable[[], VisionAccess] = lambda: NO_VISION,
    ) -> None:
        """``vision`` is asked when the device wants to know where its camera's pictures go."""
        self.device_id = device_id
        self.session_id = uuid.uuid4().hex
        self._gone = False
        self.greeted = False
        """The hello has been answered: exactly one answer is sent per connection."""
        self._link = link
        self._services = services
        self._vision = vision
        self._loop = asyncio.get_running_loop()
        self._machine = turn.TurnMachine(services.settings.policy)
        self._history = History(services.settings.history_tokens)
        self._language = services.settings.language
        self._ear: Ear | None = None
        self._reply: Reply | None = None
        self._thought: Thought | None = None
        self._user_text = ""
        self._end_session = False
        self._record = TurnRecord(device_id)
        self._tasks: set[asyncio.Task[None]] = set()
        self._tools: DeviceTools | None = None
        self._wake_audio: WakeAudio | None = None
        self._wake_ms = 0
        self._alerts: list[Alert] = []
        self._stamp = 0
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

    def on_message(self, message: SessionMessage) -> None:
        """Take in one message of the device."""
        match message:
            case Listen():
                self._on_listen(message)
            case Abort():
                self._touch()
                self._post(turn.Aborted())
            case Mcp(payload):
                if self._tools is not None:
                    self._tools.on_mcp(payload)
            case Iot():
                self._device_tools().on_iot(message)
            case Hello():
                self._touch()
                self._answer_hello(message)
            case Goodbye():
                self._link.close()
            case Ping():
                self._link.send(Pong(self.session_id))
            case Heartbeat(timestamp):
                if self._machine.phase is turn.Phase.IDLE:
                    self._touch()  # it says so: this device wants to stay
                self._link.send(HeartbeatAck(timestamp))

    def _on_listen(self, message: Listen) -> None:
        match message:
            case Listen("start", mode):
                self._touch()
                self._post(turn.ListenStarted(mode or ListenMode.AUTO))
            case Listen("stop"):
                self._post(turn.ListenStopped())
            case Listen(text=words):
                self._touch()
                self._typed_at = self._loop.time()
                self._take_wake_audio()
                self._post(turn.TextGiven(words.strip()[:MAX_TYPED_CHARS]))

    def on_audio(self, packet: bytes) -> None:
        """Take in one Opus packet: into the open ear, or to a wake word that will be told in a moment."""
        if self._ear is not None:
            self._audio_at = self._loop.time()
            self._ear.push(packet)
        elif self._machine.phase is turn.Phase.IDLE:
            if self._wake_audio is None:
                self._wake_audio = WakeAudio()
            self._wake_audio.push(packet, self._loop.time())

    def on_pcm(self, pcm: bytes, sample_rate: int) -> None:
        """Take in s16le mono PCM; dropped when nobody listens. ``sample_rate`` in Hz."""
        if self._ear is not None:
            self._audio_at = self._loop.time()
            self._ear.push_pcm(pcm, sample_rate)

    def identify(self, device_id: str) -> None:
        """Take the name that a device told only after it had connected; before its hello."""
        self.device_id = device_id
        self._record = TurnRecord(device_id)

    def on_closed(self) -> None:
        """The connection is gone or being closed: end everything. Safe to call twice."""
        if self._gone:
            return
        self._gone = True
        self._post(turn.Closed())
        # A machine that was closed already (farewell, goodbye) gives no commands, so end what is left here too.
        self._close_ear()
        self._cancel_turn()
        for task in tuple(self._tasks):
            task.cancel()
        self._reminders.clear()
        if self._tools is not None:
            self._tools.close()
        self._services.observer.on_session_closed(self.device_id, self.session_id)

    # -- from inside

    def say(self, words: str) -> None:
        """Speak unprompted as soon as there is a gap in the conversation."""
        self._post(turn.SayRequested(words))

    def alert(self, status: str, message: str, emotion: str) -> None:
        """Have the device show (and vibrate) something; a reply in progress is finished first: it would stutter."""
        self._alerts.append(Alert(status, message, emotion, self.session_id))
        del self._alerts[:-MAX_ALERTS]
        self._send_alerts()

    def reboot(self) -> None:
        """Have the device start anew."""
        self._link.send(System("reboot", self.session_id))

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

    # -- the machine

    def _post(self, event: turn.Event) -> None:
        for command in self._machine.step(event):
            self._carry_out(command)
        if self._reply is None and self._machine.phase in (turn.Phase.IDLE, turn.Phase.LISTENING):
            # What was said led to no reply (a noise, a wake word): it must not stick to the next one.
            self._user_text = ""
            if self._record.speech_end:
                self._record = TurnRecord(self.device_id)
        if self._alerts:
            self._send_alerts()

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
                self._spawn(number, partial(self._answer, words))
            case turn.Say(number, words, remember, end_session, sorry):
                self._end_session |= end_session
                if sorry and self._reply is not None:
                    self._reply.show_face(Face(*emotion.SORRY))
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
        self._wake_audio = None
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
        self._record.tts_start = self._loop.time()
        self._end_session = False
        self._reply = Reply(self._services.voice, self._link, self.session_id, self._on_played, self._stamp)

    def _cancel_turn(self) -> None:
        for task in tuple(self._tasks):
            task.cancel()
        if self._reply is not None:
            self._reply.speech.cancel()
            self._record.interrupted = True
            self._close_record(self._reply)

    def _on_played(self) -> None:
        self._touch()
        if self._reply is not None:
            self._close_record(self._reply)
        self._post(turn.Played(self._machine.turn, self._end_session))

    def _close_record(self, reply: Reply) -> None:
        """The reply is over, played or not: what was heard of it becomes history."""
        self._reply = None
        self._stamp = reply.stamp
        answer = " ".join(reply.heard)
        exchange = [ChatMessage(Role.USER, self._user_text)]
        if self._thought is not None:
            exchange += self._thought.tool_messages
        if self._user_text or answer:
            self._history.add([*exchange, ChatMessage(Role.ASSISTANT, answer)])
        self._record.answer = answer
        self._record.first_frame = reply.first_frame_at
        self._record.tts_failures = reply.speech.failures
        self._services.observer.on_turn(self._record)
        self._thought = None
        self._user_text = ""
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
            if self._reply is not None:
                self._reply.speech.restart()
            if apology:
                self._post(turn.Failed(number, text(key, self._language)))
            elif self._reply is not None:
                self._reply.speech.finish()

    async def _recognise(self, number: int, ear: Ear | None) -> None:
        if ear is None:
            self._post(turn.Recognised(number, "", voiced=False))
            return
        transcript, voiced = await ear.finish()
        self._record.transcript = self._loop.time()
        self._post(turn.Recognised(number, transcript.text.strip(), voiced))

    async def _answer(self, words: str) -> None:
        """Think and speak side by side, one task group for the turn."""
        services = self._services
        reply = self._reply
        if reply is None:  # cancelled between two commands
            return
        tools = await self._device_tools().ready() if services.offers_tools else None
        language = self._language
        thought = self._thought = Thought(services.llm, tools, self._tool_context(language))
        system = ChatMessage(Role.SYSTEM, services.settings.prompt)
        messages = (system, *self._history, ChatMessage(Role.USER, words))
        queue: asyncio.Queue[Sentence | None] = asyncio.Queue(SENTENCE_QUEUE)

        async def think() -> None:
            async for piece in thought.stream(messages, language):
                if isinstance(piece, Face):
                    reply.show_face(piece)
                    continue
                if not self._record.first_sentence:
                    self._record.first_sentence = self._loop.time()
                await queue.put(piece)
            await queue.put(None)

        async with asyncio.TaskGroup() as group:
            group.create_task(think())
            while (sentence := await queue.get()) is not None:
                spoken_language = detect_language(sentence.text, default=language)
                await reply.speech.say(Spoken(sentence.text), spoken_language)
        self._end_session |= thought.end_session
        reply.speech.finish()

    async def _say(self, words: str, remember: bool = False) -> None:
        reply = self._reply
        if reply is None:
            return
        language = detect_language(words, default=self._language)
        await reply.speech.say(Spoken(words, remember), language, cacheable=True)
        reply.speech.finish()

    # -- pieces

    def _answer_hello(self, message: Hello) -> None:
        if self.greeted:
            return
        self.greeted = True
        self._link.send(hello.answer(message, self.session_id, self._services.settings.sample_rate))
        if message.features.get("mcp") is True:
            self._device_tools().discover(self._vision())

    def _device_tools(self) -> DeviceTools:
        if self._tools is None:
            self._tools = DeviceTools(
                self._services.toolbox, self._link.send, self.device_id, self.session_id
            )
        return self._tools

    def _take_wake_audio(self) -> None:
        """A wake word was heard, or text typed: audio that came just before belongs to it."""
        wake, self._wake_audio = self._wake_audio, None
        self._wake_ms = wake.duration_ms(self._loop.time()) if wake is not None else 0

    def _send_alerts(self) -> None:
        if self._machine.phase is not turn.Phase.REPLYING:
            alerts, self._alerts = self._alerts, []
            for alert in alerts:
                self._link.send(alert)

    def _tool_context(self, language: str) -> ToolContext:
        return ToolContext(self.device_id, language, self._services.now, self._reminders)

    def _show_text(self, words: str) -> None:
        if self._typed_at:
            # Only now: the commands before this one closed the record of a reply that was cut short.
            self._record = TurnRecord(
                self.device_id, "text", wake_ms=self._wake_ms, speech_end=self._typed_at
            )
            self._typed_at = 0.0
        self._user_text = self._record.text = words
        self._language = detect_language(words, default=self._language)
        self._link.send(Stt(words, self.session_id))

    def _touch(self) -> None:
        self._quiet_since = self._loop.time()


def _leaf(error: BaseException) -> BaseException:
    """Return the first real error inside nested groups."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
