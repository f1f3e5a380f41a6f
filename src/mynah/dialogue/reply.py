"""One reply as the device gets it: start, face, sentences and their audio. The stop is the session's to send."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from mynah.dialogue import emotion
from mynah.dialogue.services import Link
from mynah.dialogue.speak import Speech, Spoken, Voice
from mynah.dialogue.text import shown
from mynah.dialogue.think import Face
from mynah.wire.messages import Llm, TtsSentence, TtsStart


class Reply:
    """Exists from ``tts start`` until it is played or cut short. Implements `mynah.dialogue.speak.SpeechSink`."""

    __slots__ = (
        "_face_sent",
        "_first_stamp",
        "_link",
        "_on_played",
        "_sentence",
        "_session_id",
        "first_frame_at",
        "heard",
        "speech",
        "stamp",
    )

    def __init__(
        self, voice: Voice, link: Link, session_id: str, on_played: Callable[[], None], first_stamp: int
    ) -> None:
        """Tell the device that a reply begins. Time stamps of its frames come after ``first_stamp``."""
        self._link = link
        self._session_id = session_id
        self._on_played = on_played
        self._face_sent = False
        self._sentence = ""
        self._first_stamp = first_stamp
        self.stamp = first_stamp
        """That of the last frame sent: echo cancellation looks frames up by it, so none may occur twice."""
        self.first_frame_at = 0.0
        """When the first frame left, by the loop's clock; 0 before that."""
        self.heard: list[str] = []
        """Sentences to remember whose audio has begun."""
        link.send(TtsStart(session_id))
        self.speech: Speech = voice.open(self)

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
        self._link.send_audio(packet, self.stamp)

    def on_sentence(self, sentence: Spoken) -> None:
        """A sentence begins to play."""
        self.show_face(Face(emotion.DEFAULT_EMOJI, emotion.FACES[emotion.DEFAULT_EMOJI]))
        self._end_sentence()
        words = shown(sentence.text)
        if words:
            self._sentence = words
            self._link.send(TtsSentence(words, self._session_id))
        if sentence.remember:
            self.heard.append(sentence.text)

    def on_spoken(self) -> None:
        """The reply has been played to its end."""
        self._end_sentence()
        self._on_played()

    def _end_sentence(self) -> None:
        if self._sentence:
            self._link.send(TtsSentence(self._sentence, self._session_id, "sentence_end"))
            self._sentence = ""
