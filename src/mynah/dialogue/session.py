"""One device's conversation: the only place that changes its state.

A `Session` receives decoded messages and audio from a `Link`, turns them into events for the turn machine, and carries
out the commands that come back. It owns a task only while it works on something.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Callable
from functools import partial

from loguru import logger

from mynah.audio.echo import EchoControl
from mynah.dialogue import commands, events, turn
from mynah.dialogue.alerts import Alerts
from mynah.dialogue.device_tools import DeviceTools
from mynah.dialogue.hearing import Hearing
from mynah.dialogue.interruption import Judgement
from mynah.dialogue.record import TurnRecord
from mynah.dialogue.replying import Replying
from mynah.dialogue.services import Link, Services, VisionAccess
from mynah.dialogue.talker import Talker
from mynah.dialogue.turned_away import TurnedAway
from mynah.dialogue.wake_audio import WakeAudio
from mynah.dialogue.work import TurnWork
from mynah.errors import MynahError, innermost
from mynah.texts import detect_language, text
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
NO_VISION = VisionAccess("", "")

log = logger.bind(tag="dialogue")


class Session:
    """The conversation with one device, from its first message to the end of its connection."""

    # fmt: off
    __slots__ = (
        "_alerts", "_audio_at", "_events", "_gone", "_guest", "_hearing", "_kept_alive_at", "_link", "_loop",
        "_machine", "_quiet_since", "_services", "_source", "_speaking", "_talker", "_talking", "_tools",
        "_turned_away", "_typed_at", "_vision", "_wake_audio", "_wake_ms", "_work", "device_id", "greeted",
        "kept_as", "session_id",
    )
    # fmt: on

    def __init__(
        self,
        link: Link,
        services: Services,
        device_id: str,
        vision: Callable[[], VisionAccess] = lambda: NO_VISION,
        kept_as: str = "",
        guest: bool = False,
        source: Callable[[], str] = lambda: "",
    ) -> None:
        """``vision``: where pictures go; ``source``: whom it counts for. A ``guest`` only hears there is no room."""
        self.device_id = device_id
        """How the device calls itself, or a made-up name until it does."""
        self.kept_as = kept_as or device_id
        """Under which name its conversation, reminders and messages are kept."""
        self.session_id = secrets.token_hex(16)
        """Name of this conversation, as told in the hello."""
        self._gone, self._talking, self._guest = False, False, guest
        self._turned_away: TurnedAway | None = None
        self.greeted = False
        """The hello has been answered: exactly one answer is sent per connection."""
        self._link = link
        self._services = services
        self._vision, self._source = vision, source
        self._loop = asyncio.get_running_loop()
        self._machine = turn.TurnMachine(services.settings.policy)
        self._events: deque[events.Event] | None = None
        self._hearing: Hearing | None = None
        self._work = TurnWork(self._machine, self._fail)
        kept, reminders = services.conversations.join(self.kept_as), services.reminders(self.kept_as)
        self._talker = Talker(device_id, self.session_id, kept, reminders)
        self._speaking: Replying | None = None
        self._tools: DeviceTools | None = None
        self._wake_audio: WakeAudio | None = None
        self._wake_ms = 0
        self._alerts: Alerts | None = None
        self._typed_at = self._audio_at = 0.0
        self._kept_alive_at = self._quiet_since = self._loop.time()
        services.observer.on_session_opened(device_id, self.session_id)

    @property
    def phase(self) -> turn.Phase:
        """What the conversation is doing."""
        return self._machine.phase

    @property
    def _replying(self) -> Replying:
        """The speaking side, made when there is something to say."""
        if self._speaking is None:
            self._speaking = Replying(
                self._services, self._link, self._talker, self._device_tools, self._work, self._post
            )
        return self._speaking

    # -- from the link

    def on_message(self, message: SessionMessage) -> None:
        """Take in one message of the device."""
        match message:
            case Listen() if self._may_talk(message):
                self._on_listen(message)
            case Abort() if self._turned_away is not None:
                self._turned_away.end()
            case Abort():
                self._touch()
                self._replying.note_cut_in()
                self._post(events.Aborted())
            case Mcp(payload) if self._tools is not None:
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
                self._post(events.ListenStarted(mode or ListenMode.AUTO))
            case Listen("stop"):
                self._post(events.ListenStopped())
            case Listen(text=words):
                self._touch()
                self._typed_at = self._loop.time()
                self._take_wake_audio()
                self._post(events.TextGiven(words.strip()[:MAX_TYPED_CHARS]))

    def _may_talk(self, message: Listen) -> bool:
        """Return whether a conversation may begin or go on; where it may not begin, the user is told so."""
        if message.state == "stop" or self._machine.phase is not turn.Phase.IDLE:
            return self._turned_away is None
        admission, talked_at = self._services.admission, self._talker.kept.talked_at
        if self._guest or not admission.admits(self._loop.time(), talked_at, self._source):
            self._post(events.Closed())  # for everybody else this conversation is over
            self._turned_away = TurnedAway(self._services, self._link, self._talker, message.text, self._work)
            return False
        return True

    def on_audio(self, packet: bytes, stamp: int = 0) -> None:
        """Take in one Opus packet: into the open ear, or to a wake word that will be told in a moment.

        ``stamp`` is that of the frame the device has just finished playing; 0: none, or it does not tell.
        """
        ear = self._hearing.ear if self._hearing is not None else None
        if ear is not None:
            self._audio_at = self._loop.time()
            ear.push(packet, stamp)
        elif self._machine.phase is turn.Phase.IDLE:
            if self._wake_audio is None:
                self._wake_audio = WakeAudio()
            self._wake_audio.push(packet, self._loop.time())

    def on_pcm(self, pcm: bytes, sample_rate: int) -> None:
        """Take in s16le mono PCM; dropped when nobody listens. ``sample_rate`` in Hz."""
        ear = self._hearing.ear if self._hearing is not None else None
        if ear is not None:
            self._audio_at = self._loop.time()
            ear.push_pcm(pcm, sample_rate)

    def identify(self, device_id: str, kept_as: str = "", guest: bool = False) -> None:
        """Take the name that a device told only after it had connected; before its hello. ``guest``: as it is now."""
        services, talker, self._guest = self._services, self._talker, guest
        services.conversations.leave(self.kept_as)
        self.device_id = talker.device_id = device_id
        self.kept_as = kept_as or device_id
        talker.kept = services.conversations.join(self.kept_as)
        talker.reminders = services.reminders(self.kept_as)
        self._speaking = None  # the next reply is that device's

    def on_closed(self) -> None:
        """The connection is gone or being closed: end everything. Safe to call twice."""
        if self._gone:
            return
        self._gone = True
        self._post(events.Closed())
        # A machine that was closed already (farewell, goodbye) gives no commands, so end what is left here too.
        self._close_ear()
        self._work.close()
        if self._turned_away is not None:
            self._turned_away.cancel()
        if self._speaking is not None:
            self._speaking.close()
            self._speaking = None
        if self._tools is not None:
            self._tools.close()
        self._services.conversations.leave(self.kept_as)
        self._services.observer.on_session_closed(self.device_id, self.session_id)

    # -- from inside

    def say(self, words: str, on_done: Callable[[bool], None] | None = None) -> None:
        """Speak unprompted as soon as there is a gap in the conversation.

        ``on_done`` is called once: True when its sound has begun or its text was shown; False when that will not be.
        """
        ticket = self._replying.tickets.issue(on_done) if on_done is not None else 0
        if self._machine.phase is turn.Phase.CLOSED:
            self._replying.tickets.settle(ticket, False)
        else:
            self._post(events.SayRequested(words, ticket))

    @property
    def quiet_s(self) -> float:
        """How long nobody has spoken or been about to, in seconds: 0 while the user speaks or a reply is under way."""
        busy = self._machine.phase not in (turn.Phase.IDLE, turn.Phase.LISTENING)
        speaking = self._hearing is not None and self._hearing.speaking
        return 0.0 if busy or speaking else self._loop.time() - self._quiet_since

    def alert(self, status: str, message: str, emotion: str) -> None:
        """Have the device show (and vibrate) something; a reply in progress is finished first: it would stutter."""
        if self._alerts is None:
            self._alerts = Alerts(self._link.send)
        self._alerts.add(Alert(status, message, emotion, self.session_id))
        self._tidy()

    def reboot(self) -> None:
        """Have the device start anew."""
        self._link.send(System("reboot", self.session_id))

    def check_quiet(self, now: float) -> None:
        """End the conversation when nobody has spoken for too long; called for all sessions every few seconds."""
        if self._machine.phase not in (turn.Phase.IDLE, turn.Phase.LISTENING):
            self._quiet_since = self._kept_alive_at = now
            return
        if self._speaking is not None or self._hearing is not None:  # else nothing waits to be said
            self._post(events.Lull())
        hearing = self._hearing is not None and self._hearing.speaking
        hearing = hearing and now - self._audio_at < SILENT_MICROPHONE_S
        recent = now - self._quiet_since < self._services.settings.no_voice_s
        if recent or hearing or self._talker.reminders.list():
            if now - self._kept_alive_at >= KEEP_ALIVE_S:
                self._kept_alive_at = now
                self._link.send(Pong(self.session_id))
            return
        # To a device that is not listening a sudden farewell would come out of nowhere.
        listening = self._machine.phase is turn.Phase.LISTENING
        self._post(self._services.settings.fell(self._talker.kept.language) if listening else events.Fell(""))

    # -- from the ear

    def on_speech_started(self) -> None:
        """The ear hears a voice."""
        self._touch()
        self._services.conversations.heard(self.kept_as, self._talker.kept, self._loop.time())
        replying = self._machine.phase is turn.Phase.REPLYING
        self._post(events.SpeechStarted())
        if replying and self._machine.phase is turn.Phase.LISTENING and self._hearing is not None:
            self._hearing.take_turn()

    def on_words(self, words: str) -> None:
        """The user has paused: prepare an answer to what was said, in case that was all."""
        listening = self._machine.phase is turn.Phase.LISTENING
        if listening and turn.normalise(words) not in self._services.settings.policy.exit_commands:
            self._replying.guess(words)

    def on_speech_resumed(self) -> None:
        """It was not all."""
        self._replying.drop_guess()

    def on_speech_ended(self) -> None:
        """The ear found the end of the utterance."""
        self._post(events.SpeechEnded())

    # -- the machine

    def _post(self, event: events.Event) -> None:
        """Have the machine decide, and do what it says. What happens meanwhile waits for its turn."""
        if self._events is not None:
            self._events.append(event)
            return
        self._events = deque([event])
        try:
            while self._events:
                for command in self._machine.step(self._events.popleft()):
                    self._carry_out(command)
                self._tidy()
        finally:
            self._events = None
            resting = self._machine.phase in (turn.Phase.IDLE, turn.Phase.CLOSED)
            self._talking = self._services.admission.count(self._talking, not resting)

    def _tidy(self) -> None:
        phase = self._machine.phase
        if self._speaking is not None:
            self._speaking.tidy(phase)
        if self._alerts is not None and phase not in (turn.Phase.REPLYING, turn.Phase.CLOSED):
            self._alerts.flush()

    def _carry_out(self, command: commands.Command) -> None:
        match command:
            case commands.OpenEar():
                self._open_ear(command)
            case commands.CloseEar():
                self._close_ear()
            case commands.Recognise(number, final):
                self._conclude(number, final)
            case commands.ShowText(words):
                self._show_text(words)
            case commands.StartReply():
                self._replying.start()
            case commands.StopReply():
                self._touch()
                self._services.conversations.replied(self.kept_as, self._talker.kept, self._loop.time())
                self._link.send(TtsStop(self.session_id))
            case commands.CancelTurn(_, going_on):
                self._cancel_turn(going_on)
            case commands.HangUp():
                if self._alerts is not None:
                    self._alerts.flush()
                self._link.close()
            case commands.GoOn() | commands.HoldReply() | commands.ResumeReply():
                self._listen_on(command)
            case _:
                self._speak(command)

    def _listen_on(self, command: commands.GoOn | commands.HoldReply | commands.ResumeReply) -> None:
        """Deal with a voice where none was expected; it is heard by an open ear."""
        hearing = self._hearing
        match command:
            case commands.GoOn() if hearing is not None:
                hearing.go_on()
            case commands.HoldReply(number, hold) if hearing is not None and hearing.ear is not None:
                self._replying.hold(hearing.ear, partial(self._judged, number, hold))
            case commands.ResumeReply():
                self._replying.resume()

    def _judged(self, number: int, hold: int, judgement: Judgement) -> None:
        if not self._machine.awaits(number, hold):
            return  # the reply has gone on or ended since: what is heard now has nothing to do with it
        if judgement.real:
            self._replying.note_cut_in()
        if self._hearing is not None and judgement.real:
            self._hearing.take_turn()
        elif self._hearing is not None:
            self._hearing.false_alarm(noise=not judgement.words)
        self._post(events.Judged(number, hold, judgement.real, judgement.over))

    def _speak(self, command: commands.Command) -> None:
        language, replying = self._talker.kept.language, self._replying
        match command:
            case commands.Think(number, words, farewell):
                if not replying.think(words, farewell):
                    self._post(events.Failed(number, text("allowance_used_up", language)))
            case commands.Say(_, words, remember, end_session, sorry, ticket):
                replying.say(words, remember=remember, end_session=end_session, sorry=sorry, ticket=ticket)
            case commands.Unsaid(ticket):
                replying.tickets.settle(ticket, False)
            case commands.AskAgain():
                replying.say(text("nothing_heard", language))
            case commands.Greet():
                replying.say(text("greeting", language), remember=True)
            case commands.Leave():
                replying.say(text("farewell", language), end_session=True)

    # -- hearing

    def _open_ear(self, command: commands.OpenEar) -> None:
        hearing = self._hearing
        if hearing is None or not hearing.can_go_on(command.mode):
            self._close_ear()
            self._wake_audio = None
            hearing = Hearing(self._services, self, self._talker, command.mode)
            self._hearing = hearing
        if command.interrupting:
            hearing.watch_for_interruption()
        else:
            # The ear that stood by goes on: the user may be speaking already.
            hearing.renew()

    def _close_ear(self) -> None:
        if self._hearing is not None:
            self._hearing.close()
            self._hearing = None

    def _conclude(self, number: int, final: bool) -> None:
        hearing = self._hearing
        mode, now = self._machine.mode.value, self._loop.time()
        self._replying.record = TurnRecord(
            self.device_id, mode, speech_start=self._quiet_since, speech_end=now
        )
        if hearing is not None:
            hearing.conclude(final)
        self._work.spawn(partial(self._recognise, number, hearing, final))

    async def _recognise(self, number: int, hearing: Hearing | None, final: bool) -> None:
        if hearing is None:
            self._post(events.Recognised(number, "", voiced=False))
            return
        utterance = await hearing.whole(final)
        record = self._replying.record
        record.transcript = self._loop.time()
        record.parts = utterance.parts
        self._post(events.Recognised(number, utterance.text, utterance.voiced))

    # -- replying

    def _cancel_turn(self, going_on: bool = False) -> None:
        if going_on:
            self._replying.put_back()
        self._work.cancel()
        if self._speaking is not None:
            self._speaking.cancel()

    def _fail(self, number: int, error: BaseException) -> None:
        """Work of the turn has failed: apologise."""
        leaf = innermost(error)
        known = leaf if isinstance(leaf, MynahError) else None
        self._replying.record.error = known.code if known is not None else "internal"
        log.opt(exception=None if known is not None else leaf).warning(
            "{}: turn {} failed: {}: {}", self.device_id, number, type(leaf).__name__, leaf
        )
        key = "farewell_idle" if self._replying.leaving else (known or MynahError).public
        self._replying.fail()
        self._post(events.Failed(number, text(key, self._talker.kept.language)))

    # -- pieces

    def _answer_hello(self, message: Hello) -> None:
        if self.greeted:
            return
        self.greeted = True
        self._link.send(hello.answer(message, self.session_id, self._services.settings.sample_rate))
        if message.features.get("aec") is True and self._services.echo is not None:
            self._talker.echo = EchoControl(self._services.echo())
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

    def _show_text(self, words: str) -> None:
        if self._typed_at:
            # Only now: the commands before this one closed the record of a reply that was cut short.
            self._replying.record = TurnRecord(
                self.device_id, "text", wake_ms=self._wake_ms, speech_end=self._typed_at
            )
            self._typed_at = 0.0
        self._replying.user_text = self._replying.record.text = words
        kept = self._talker.kept
        kept.language = detect_language(words, default=kept.language)
        self._services.conversations.heard(self.kept_as, kept, self._loop.time())
        self._link.send(Stt(words, self.session_id))

    def _touch(self) -> None:
        self._quiet_since = self._loop.time()
