"""Tells who looks on what happens, in the words of the xiaozhi protocol: so that all transports look alike."""

from __future__ import annotations

from collections.abc import Callable

from mynah.sim.pull4g.codec import Decoder, Form
from mynah.sim.state import Direction, Observer
from mynah.wire.messages import Abort, Listen, ListenMode, Stt, Tts


class Witness:
    """Speaks to an `Observer`; without one nothing is decoded and nothing happens."""

    def __init__(self, observer: Observer | None, form: Form, clock: Callable[[], float]) -> None:
        self._observer, self._form, self._clock = observer, form, clock
        self._decoder: Decoder | None = None
        self._replying = False

    @property
    def looks_on(self) -> bool:
        """Whether there is anybody."""
        return self._observer is not None

    def pressed(self) -> None:
        """The button was pressed."""
        self._see(Direction.UP, Listen("start", mode=ListenMode.MANUAL))

    def released(self) -> None:
        """The button was released."""
        self._see(Direction.UP, Listen("stop"))

    def interrupted(self) -> None:
        """The answer is not wanted any more."""
        self._see(Direction.UP, Abort())

    def recorded(self, pcm: bytes) -> None:
        """60 ms were recorded: 16 kHz s16le mono."""
        if self._observer is not None:
            self._observer.on_audio(Direction.UP, pcm, self._clock())

    def heard(self, text: str) -> None:
        """The server has told what it understood."""
        self._see(Direction.DOWN, Stt(text, ""))

    def said(self, text: str) -> None:
        """The server has told what it says."""
        self._begin()
        self._see(Direction.DOWN, Tts("sentence_start", text))

    def played(self, data: bytes) -> None:
        """Audio of the reply has come; the observer gets it as s16le mono at the form's rate."""
        if self._observer is not None:
            self._begin()
            if self._decoder is None:
                self._decoder = Decoder(self._form)
            self._observer.on_audio(Direction.DOWN, self._decoder.decode(data), self._clock())

    def over(self) -> None:
        """The reply has come to its end."""
        self._see(Direction.DOWN, Tts("stop"))

    def forget(self) -> None:
        """What comes next belongs to another reply."""
        self._replying, self._decoder = False, None

    def _begin(self) -> None:
        if not self._replying:
            self._replying = True
            self._see(Direction.DOWN, Tts("start"))

    def _see(self, direction: Direction, message: Listen | Abort | Stt | Tts) -> None:
        if self._observer is not None:
            self._observer.on_message(direction, message, self._clock())
