"""Echo cancelling at the server, for devices that leave it to us: they play and record at the same time.

The session tells `EchoControl.sent` of every packet of a reply, on the event loop. The ingest worker gives it each
frame of the microphone with its stamp and gets back the frame without the echo. `docs/echo.md` has figures.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Literal, Protocol

import numpy as np
from loguru import logger

from mynah.audio.echo_gate import BLOCK, EchoGate
from mynah.audio.echo_references import SAMPLE_RATE, References, Samples
from mynah.errors import ConfigError

Setting = Literal["auto", "webrtc", "gate", "off"]


class EchoCanceller(Protocol):
    """Takes the echo out of one device's audio. All calls come from the ingest worker thread."""

    def process(self, near: Samples, far: Samples) -> Samples:
        """Return ``near`` without the echo of ``far``: mono at 16 kHz, both n × 10 ms long.

        An echo may follow its sound by 0 to 400 ms.
        """

    def restart(self) -> None:
        """From here on the echo may follow its sound by another time than before."""

    def release(self) -> None:
        """The microphone is closed: give back memory. `process` may be called again."""


class WebrtcCanceller:
    """WebRTC's third echo canceller, from the package of the extra ``aec``. Releases the GIL while it works."""

    def __init__(self) -> None:
        self._native: Any = None  # 420 KB, made in 0.4 ms, so that a closed microphone has none

    def process(self, near: Samples, far: Samples) -> Samples:
        """See `EchoCanceller.process`."""
        if self._native is None:
            self._native = _webrtc().EchoCanceller(SAMPLE_RATE, 1)
        cleaned: Samples = self._native.process(near, far)
        return cleaned

    def restart(self) -> None:
        """Begin anew: it learns a room within the first syllables, but takes seconds to notice that one has changed."""
        if self._native is not None:
            self._native.reset()

    def release(self) -> None:
        """Drop the canceller."""
        self._native = None


def choose(setting: Setting) -> Callable[[], EchoCanceller] | None:
    """Return what makes a canceller for each device that wants one; None for ``off``.

    Raises ConfigError for ``webrtc`` without its package; ``auto`` then takes the gate.
    """
    if setting == "off":
        return None
    if setting == "gate":
        return EchoGate
    try:
        _webrtc()
    except ImportError as error:
        if setting == "auto":
            return EchoGate
        raise ConfigError(
            f"conversation.echo_cancellation: webrtc needs the extra: pip install 'mynah-server[aec]' ({error})"
        ) from error
    return WebrtcCanceller


def _webrtc() -> Any:
    import pywebrtc_audio

    return pywebrtc_audio


_FOREIGN: Final = (ArithmeticError, LookupError, OSError, RuntimeError, TypeError, ValueError)
"""What the package behind a canceller may raise."""

log = logger.bind(tag="echo")


class EchoControl:
    """Echo cancelling for one device, from its hello to its end: streams come and go, what was sent stays.

    Made by the session. `sent` is for the event loop, everything else for the ingest worker.
    """

    def __init__(self, canceller: EchoCanceller) -> None:
        self._canceller = canceller
        self._references = References()
        self._user: object = None  # the stream that the worker had last
        self._rest = b""  # less than a block, waiting for the next frame
        self._broken = False  # the canceller has failed

    def sent(self, stamp: int, packet: bytes) -> None:
        """Note a packet that the device was sent, with its stamp. Stamps are not 0 and grow."""
        self._references.sent(stamp, packet)

    def process(self, user: object, pcm: bytes, stamp: int) -> bytes:
        """Return a frame of the microphone (s16le, 16 kHz, any length) without echo; ``stamp`` 0 when it has none.

        ``user`` is the stream it comes from. What is not a multiple of 10 ms waits for the next frame.
        """
        if user is not self._user:
            self._user = user
            self._references.catch_up()
            self._rest = b""
        data = self._rest + pcm if self._rest else pcm
        end = len(data) - len(data) % (2 * BLOCK)
        self._rest = data[end:]
        far = self._references.far(end // 2, stamp)
        if not end or self._broken:
            return data[:end]
        try:
            if self._references.shifted():
                self._canceller.restart()
            return self._canceller.process(np.frombuffer(data[:end], np.int16), far).tobytes()
        except _FOREIGN as error:
            # The worker serves all devices: one must not end it for the others.
            self._broken = True
            log.warning("echo is not cancelled any more for one device: {}: {}", type(error).__name__, error)
            return data[:end]

    def leave(self, user: object) -> None:
        """The stream is over. Nothing happens when another one has begun already."""
        if user is self._user:
            self._user = None
            self._references.forget()
            self._canceller.release()
