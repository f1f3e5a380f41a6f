"""The places where a simulated world is attached to a real session: its link, turn machine, voice, announcements."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mynah.audio.encode import SpeechEncoder
from mynah.audio.pacer import Pacer
from mynah.dialogue import commands, events
from mynah.dialogue.session import Session
from mynah.dialogue.speak import PhraseCache, Speech, Spoken, Voice
from mynah.dialogue.turn import TurnMachine, TurnPolicy
from mynah.providers.base import TtsProvider
from mynah.wire.messages import Listen, TtsSentence, TtsStart, TtsStop
from tests.simulation.record import Moved, Told
from tests.simulation.services import FRAME, SAYING

if TYPE_CHECKING:
    from tests.simulation.world import World


class SpyMachine(TurnMachine):
    """Writes down every step."""

    __slots__ = ("_number", "_world")

    def __init__(self, policy: TurnPolicy, world: World, number: int) -> None:
        super().__init__(policy)
        self._world, self._number = world, number

    def step(self, event: events.Event) -> list[commands.Command]:
        before = self.phase
        try:
            found = super().step(event)
        except Exception as error:
            self._world.fault(f"{type(error).__name__} in the turn machine: {error}")
            raise
        self._world.note("step", self._number, Moved(before, event, tuple(found), self.phase))
        return found

    @property
    def held(self) -> bool:
        return self._held

    @property
    def hearing(self) -> bool:
        return self._hearing


class SpyCache(PhraseCache):
    """Tells which request to the voice a phrase was once made of."""

    def get(self, key: tuple[str, str, str]) -> tuple[bytes, ...] | None:
        frames = super().get(key)
        if frames and (saying := SAYING.get()) is not None:
            saying.append(FRAME.unpack(frames[0])[0])
        return frames


class SpyVoice(Voice):
    """Knows for each sentence that is sent what it is made of."""

    def __init__(self, tts: TtsProvider[Any], pacer: Pacer, encoder: Callable[[], SpeechEncoder]) -> None:
        super().__init__(tts, pacer, encoder, SpyCache())
        self.beginning: list[int] | None = None
        """The requests to the voice of the sentence that begins at this moment."""

    def open(self) -> Speech:
        return SpySpeech(self)


class SpySpeech(Speech):
    """Keeps the requests to the voice with the sentences, which begin in the order in which they are prepared."""

    __slots__ = ("_made_of", "_spy")

    def __init__(self, voice: SpyVoice) -> None:
        super().__init__(voice)
        self._spy = voice
        self._made_of: deque[list[int]] = deque()

    async def say(self, sentence: Spoken, language: str, *, cacheable: bool = False) -> None:
        calls: list[int] = []
        self._made_of.append(calls)
        token = SAYING.set(calls)
        try:
            await super().say(sentence, language, cacheable=cacheable)
        finally:
            SAYING.reset(token)

    def on_marker(self, value: Spoken) -> None:
        self._spy.beginning = self._made_of.popleft()
        super().on_marker(value)
        self._spy.beginning = None


class SimLink:
    """The server's end of a connection, and the device's."""

    def __init__(self, world: World, number: int) -> None:
        self.world, self.number = world, number
        self.closed = False
        self.lost = False
        """Nothing gets through any more, but the server does not know yet."""
        self.session: Session | None = None
        self.sentences = 0
        self.speaking = False
        self.frames = 0
        self._recording, self._released = 0, False
        self.recordings: dict[int, set[int]] = {}
        """The recordings that hold part of a word, by its number; a release and a press of the button divide them."""

    # -- Link

    def send(self, message: Any) -> None:
        world = self.world
        if self.closed:
            world.fault(f"{type(message).__name__} was sent after the connection was closed")
            return
        if isinstance(message, TtsStart):
            self.speaking, self.sentences, self.frames = True, 0, 0
        elif isinstance(message, TtsSentence):
            self.sentences += message.state == "sentence_start"
        elif isinstance(message, TtsStop):
            self.speaking = False
        more: list[int] | None = None
        if isinstance(message, TtsStop):
            more = world.encoded()
        elif isinstance(message, TtsSentence) and message.state == "sentence_start":
            more = world.voice.beginning
        world.note("send", self.number, message, more)
        if not self.lost:
            world.device.on_message(self, message)

    def send_audio(self, packet: bytes, timestamp_ms: int) -> None:
        if self.closed:
            self.world.fault("audio was sent after the connection was closed")
            return
        self.frames += 1
        self.world.note("frame", self.number, FRAME.unpack(packet), timestamp_ms)
        if not self.lost:
            self.world.device.on_frame(timestamp_ms)

    def close(self, code: int = 1000, reason: str = "") -> None:
        if not self.closed:
            self.closed = True
            self.world.loop.call_soon(self.end)
            self.world.device.on_closed(self)

    # -- the device's end

    def up(self, message: Any) -> None:
        if not self.closed and not self.lost and self.session is not None:
            if isinstance(message, Listen) and message.state == "stop":
                self._released = True
            elif isinstance(message, Listen) and message.state == "start" and self._released:
                self._recording, self._released = self._recording + 1, False
            self.session.on_message(message)

    def up_audio(self, packet: bytes, stamp: int) -> None:
        if not self.closed and not self.lost and self.session is not None:
            if packet[:1] == b"w":
                self.recordings.setdefault(int(packet[1:]), set()).add(self._recording)
            self.session.on_audio(packet, stamp)

    def end(self) -> None:
        """The server learns that the connection is gone."""
        self.closed = True
        self.world.note("closed", self.number, None, self.world.encoded())
        assert self.session is not None
        self.session.on_closed()
        self.speaking = False


class Speaker:
    """A session as the outbox sees it; counts what is told of each announcement."""

    def __init__(self, world: World, link: SimLink) -> None:
        self._world, self._link = world, link

    @property
    def quiet_s(self) -> float:
        assert self._link.session is not None
        return self._link.session.quiet_s

    def say(self, words: str, on_done: Callable[[bool], None] | None = None) -> None:
        told = Told(words, self._link.number, [])
        self._world.told.append(told)

        def tell(said: bool) -> None:
            told.answers.append(said)
            if on_done is not None:
                on_done(said)

        assert self._link.session is not None
        self._link.session.say(words, tell)
