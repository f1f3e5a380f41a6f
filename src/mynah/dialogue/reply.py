"""One reply as the device gets it: start, face, sentences and their audio. The stop is the session's to send."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from mynah.dialogue import emotion
from mynah.dialogue.services import Link
from mynah.dialogue.speak import Speech, Spoken, Voice
from mynah.dialogue.text import shown
from mynah.dialogue.think import Face
from mynah.wire.messages import Llm, TtsSentence, TtsStart

RECENT_SENTENCES = 3
"""What an echo may be of: recognisers lag behind by a sentence or two."""


class Reply:
    """Exists from ``tts start`` until it is played or cut short. Implements `mynah.dialogue.speak.SpeechSink`."""

    # fmt: off
    __slots__ = (
        "_face_sent", "_first_stamp", "_link", "_on_frame", "_on_played", "_recent", "_sentence", "_session_id",
        "_speech", "_voice", "first_frame_at", "sentences", "stamp",
    )
    # fmt: on

    def __init__(
        self,
        voice: Voice,
        link: Link,
        session_id: str,
        on_played: Callable[[], None],
        first_stamp: int,
        on_frame: Callable[[bytes, int], None] | None = None,
    ) -> None:
        """Tell the device that a reply begins. Time stamps of its frames come after ``first_stamp``.

        ``on_frame`` is told of every frame and its time stamp: the echo of it will come back.
        """
        self._voice = voice
        self._link = link
        self._session_id = session_id
        self._on_played = on_played
        self._on_frame = on_frame
        self._face_sent = False
        self._sentence = ""
        self._recent: deque[str] = deque(maxlen=RECENT_SENTENCES)
        self._first_stamp = first_stamp
        self.stamp = first_stamp
        """That of the last frame sent: echo cancellation looks frames up by it, so none may occur twice."""
        self.first_frame_at = 0.0
        """When the first frame left, by the loop's clock; 0 before that."""
        self.sentences = 0
        """How many the device has been given, with sound or without."""
        link.send(TtsStart(session_id))
        self._speech: Speech | None = None

    @property
    def speech(self) -> Speech:
        """Its voice, which is let out as it comes."""
        if self._speech is None:
            self.take(self._voice.open())
            assert self._speech is not None
        return self._speech

    def take(self, speech: Speech) -> None:
        """Let out what has been prepared, in place of what was said before."""
        if self._speech is not None:
            self._speech.cancel()
        self._speech = speech
        speech.begin(self)

    def cancel(self) -> None:
        """Drop everything that has not been sent."""
        if self._speech is not None:
            self._speech.cancel()

    def close(self) -> None:
        """It is over: let go of the session, which is kept in memory by what is left of it otherwise."""
        self._on_played, self._on_frame = _nobody, None

    def finish(self) -> None:
        """There is no more to say."""
        self.speech.finish()

    def restart(self) -> None:
        """Begin anew with what is said next: the work in progress failed in its midst."""
        if self._speech is not None:
            self._speech.restart()

    def hold(self) -> None:
        """Stop sending."""
        self.speech.hold()

    def resume(self) -> None:
        """Go on with exactly the frame that was held back."""
        self.speech.resume()

    @property
    def heard(self) -> list[str]:
        """The sentences to remember that were heard, the last one as far as it was."""
        return self._speech.heard() if self._speech is not None else []

    @property
    def failures(self) -> int:
        """Sentences that could not be synthesised and were shown as text only."""
        return self._speech.failures if self._speech is not None else 0

    @property
    def recent(self) -> str:
        """What has been spoken lately."""
        return " ".join(self._recent)

    def show_face(self, face: Face) -> None:
        """Show a face, once per reply."""
        if not self._face_sent:
            self._face_sent = True
            self._link.send(Llm(face.emotion, face.emoji, self._session_id))

    def on_frame(self, packet: bytes, timestamp_ms: int) -> None:
        """A frame is due."""
        if not self.first_frame_at:
            self.first_frame_at = asyncio.get_running_loop().time()
        self.stamp = self._first_stamp + timestamp_ms
        if self._on_frame is not None:
            self._on_frame(packet, self.stamp)
        self._link.send_audio(packet, self.stamp)

    def on_sentence(self, sentence: Spoken) -> None:
        """A sentence begins to play."""
        self.show_face(Face(emotion.DEFAULT_EMOJI, emotion.FACES[emotion.DEFAULT_EMOJI]))
        self._end_sentence()
        self.sentences += 1
        self._recent.append(sentence.text)
        words = shown(sentence.text)
        if words:
            self._sentence = words
            self._link.send(TtsSentence(words, self._session_id))

    def on_spoken(self) -> None:
        """The reply has been played to its end."""
        self._end_sentence()
        self._on_played()

    def _end_sentence(self) -> None:
        if self._sentence:
            self._link.send(TtsSentence(self._sentence, self._session_id, "sentence_end"))
            self._sentence = ""


def _nobody() -> None:
    """Nobody wants to know."""
