"""What observers are told about sessions. The engine calls one observer; metrics and logs hang behind it."""

from __future__ import annotations

from typing import Protocol

import msgspec


class TurnRecord(msgspec.Struct):
    """One turn as it went. Times are seconds of the event loop's clock, 0 when the stage was not reached."""

    device_id: str
    mode: str = ""
    """``auto``, ``manual``, ``realtime``, ``text``, or empty when the server spoke unprompted."""
    text: str = ""
    answer: str = ""
    """What was played of the reply."""
    interrupted: bool = False
    error: str = ""
    """Code of the error that ended the turn."""
    tts_failures: int = 0
    parts: int = 1
    """Parts of the utterance: more than one when the user went on after it seemed to be over."""
    guess: str = ""
    """``hit`` when the answer had been prepared at a pause, ``miss`` when another one had; else empty."""
    cut_in: bool = False
    """The user stopped the reply so soon that he was probably not done with what it answers."""
    false_alarms: int = 0
    """How often the reply was held for a voice that was nothing."""
    silent: bool = False
    """The turn ended without a sound or a word: a bug, or a model that says nothing."""
    wake_ms: int = 0
    """Audio of the wake word that the device sent along, in ms."""
    speech_start: float = 0.0
    """When the user began to speak, in manual mode pressed the button; of several parts the last. 0 for text."""
    speech_end: float = 0.0
    transcript: float = 0.0
    tts_start: float = 0.0
    first_sentence: float = 0.0
    first_frame: float = 0.0

    def stages_ms(self) -> dict[str, float]:
        """Return milliseconds from the end of speech to each stage that was reached; 0 for what was ready before."""
        names = ("transcript", "tts_start", "first_sentence", "first_frame")
        if not self.speech_end:
            return {}
        return {name: max(0.0, at - self.speech_end) * 1000 for name in names if (at := getattr(self, name))}


class SessionObserver(Protocol):
    """Called on the event loop; must return at once."""

    def on_session_opened(self, device_id: str, session_id: str) -> None:
        """A conversation begins."""

    def on_turn(self, record: TurnRecord) -> None:
        """A reply has ended, played or interrupted."""

    def on_session_closed(self, device_id: str, session_id: str) -> None:
        """The conversation is over."""
