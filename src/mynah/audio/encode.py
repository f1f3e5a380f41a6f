"""Speech to Opus frames, in worker threads: resampling and encoding of one reply on its way down.

Encoding is the largest cost of the down-link (0.06 to 0.2 ms per 60 ms frame), so it never runs on the event loop. It
goes in slices of some frames, one job of the pool each.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol

import msgspec

from mynah.audio.codec_pool import CodecPool
from mynah.audio.opus import LEGAL_RATES, SPEECH_BITRATE, Effort, OpusEncoder
from mynah.audio.pcm import StreamResampler
from mynah.errors import AudioError

_IDLE_PER_KIND: Final = 16
"""Encoders kept ready per setting, each 45 KB. Making a new one takes some 50 µs, so a small number
is enough to spare the allocator in steady traffic. Policy: a surplus encoder is dropped."""

_BREATH: Final = 4
"""In a hurry every fourth frame lets go of the GIL: 0.2 ms at most for which the event loop has to wait."""

OnFrames = Callable[[list[bytes], AudioError | None], None]
"""Takes the frames of one slice, or the reason why there are none."""


class FrameEncoder(Protocol):
    """Makes frames of PCM. One slice at a time: the next `encode` only after ``done`` of the one before was called."""

    @property
    def frame_in(self) -> int:
        """Bytes of PCM that make one frame."""

    def encode(self, pcm: bytes, done: OnFrames, *, last: bool, due: float, best: bool = False) -> None:
        """Begin to encode ``pcm``; ``done`` follows on the event loop, unless `close` comes first.

        ``last``: fill the last frame up with silence; what follows is a new stream. ``due`` is when the first frame
        is needed, in ``loop.time()`` seconds; ``best``: take the time for it that it needs, whatever the load.
        """

    def close(self) -> None:
        """Drop what is pending, that in progress included. Safe at any moment and more than once."""


class Form(msgspec.Struct, frozen=True):
    """What a device is sent."""

    rate: int
    """Samples per second."""
    opus: bool = True
    """Opus packets, or else PCM (s16le mono)."""


class Coder(Protocol):
    """Turns one frame of PCM after the other into what is sent."""

    def tune(self, effort: Effort) -> None:
        """Say how hard to try from the next frame on."""

    def encode(self, pcm: bytes, *, hold_gil: bool = False) -> bytes:
        """Return one frame. Raises AudioError."""


class Coders(Protocol):
    """Where a reply takes its coder from. Safe to use from several threads."""

    def check(self, rate: int) -> None:
        """Raise AudioError for a sample rate in Hz that these coders do not have."""

    def take(self, rate: int, frame_ms: int) -> Coder:
        """Return a coder in its initial state. Raises AudioError."""

    def give_back(self, coder: Any) -> None:
        """Take back a coder of this kind that is not used any more."""


class PcmCoders:
    """Coders for devices that want the samples as they are. Implements `Coders` and `Coder`."""

    def check(self, rate: int) -> None:
        """See `Coders`."""
        if not 8000 <= rate <= 48000:
            raise AudioError(f"PCM may have 8000 to 48000 Hz, not {rate}")

    def take(self, rate: int, frame_ms: int) -> Coder:  # noqa: ARG002
        """Return this one: it has no state."""
        return self

    def give_back(self, coder: Any) -> None:
        """Nothing is kept."""

    def tune(self, effort: Effort) -> None:
        """There is no effort in it."""

    def encode(self, pcm: bytes, *, hold_gil: bool = False) -> bytes:  # noqa: ARG002
        """Return the samples."""
        return pcm


class EncoderPool:
    """Encoders that nobody uses right now, by setting. Safe to use from several threads."""

    def __init__(self, idle_per_kind: int = _IDLE_PER_KIND) -> None:
        self._limit = idle_per_kind
        self._idle: dict[tuple[int, int], deque[OpusEncoder]] = {}

    def check(self, rate: int) -> None:
        """Raise AudioError for a sample rate that Opus does not have."""
        if rate not in LEGAL_RATES:
            raise AudioError(f"opus sample rates are {LEGAL_RATES} Hz, not {rate}")

    def take(self, rate: int, frame_ms: int) -> OpusEncoder:
        """Return an encoder in its initial state. Raises AudioError for settings Opus does not have."""
        try:
            return self._idle[rate, frame_ms].pop()  # pop and append of a deque are atomic
        except (KeyError, IndexError):
            return OpusEncoder(rate, frame_ms, Effort.FULL, SPEECH_BITRATE)

    def give_back(self, encoder: OpusEncoder) -> None:
        """Keep an encoder for the next taker; the giver must not use it any more."""
        idle = self._idle.setdefault((encoder.sample_rate, encoder.frame_ms), deque())
        if len(idle) < self._limit:
            encoder.reset()
            idle.append(encoder)

    @property
    def idle(self) -> int:
        """Encoders waiting in the pool."""
        return sum(len(kind) for kind in self._idle.values())


_shared_pool: Final = EncoderPool()


class SpeechEncoder:
    """One reply's audio on its way to Opus, or to whatever its coders make.

    Takes a coder from the pool with its first slice and gives it back with its last or when closed, so an idle one owns
    none. Implements `FrameEncoder` and `mynah.audio.codec_pool.CodecJob`.
    """

    __slots__ = (
        "_best", "_carry", "_closed", "_done", "_encoder", "_encoders", "_error", "_frame_bytes", "_frame_ms",
        "_frames", "_last", "_pcm", "_pool", "_rate_in", "_rate_out", "_resampler", "_working", "frame_in",
    )  # fmt: skip

    def __init__(
        self,
        pool: CodecPool,
        rate_in: int,
        rate_out: int,
        frame_ms: int = 60,
        *,
        encoders: Coders | None = None,
    ) -> None:
        """Rates in Hz: ``rate_in`` of the PCM, ``rate_out`` of what is sent. Raises AudioError."""
        if rate_in <= 0:
            raise AudioError(f"cannot encode audio at {rate_in} Hz")
        self._encoders: Coders = _shared_pool if encoders is None else encoders
        self._encoders.check(rate_out)
        self._pool = pool
        self._rate_in, self._rate_out = rate_in, rate_out
        self._frame_ms = frame_ms
        self._frame_bytes = rate_out * frame_ms // 1000 * 2
        self.frame_in = rate_in * frame_ms // 1000 * 2
        self._carry = b""  # at rate_out, less than a frame
        self._resampler: StreamResampler | None = None
        self._encoder: Coder | None = None
        self._working = self._closed = False
        self._pcm = b""
        self._last = self._best = False
        self._done: OnFrames | None = None
        self._frames: list[bytes] = []
        self._error: AudioError | None = None

    def encode(self, pcm: bytes, done: OnFrames, *, last: bool, due: float, best: bool = False) -> None:
        """See `FrameEncoder`. Raises RuntimeError when closed or when the slice before is not done."""
        if self._closed:
            raise RuntimeError("the encoder is closed")
        if self._done is not None:
            raise RuntimeError("the slice before is not done")
        self._pcm, self._last, self._best, self._done = pcm, last, best, done
        self._working = True
        self._pool.submit(self, due)

    def close(self) -> None:
        """See `FrameEncoder`."""
        self._closed = True
        if not self._working:  # otherwise a thread may be using the encoder: then it is not worth keeping
            self._release()

    # ------------------------------------------------------------ CodecJob

    def work(self) -> None:
        """In the worker thread. `_working` keeps the loop's side away from the codec's state meanwhile."""
        # Unless it is told otherwise below: a slice that is lost in whatever way must not be waited for.
        self._error = AudioError("the audio could not be encoded")
        try:
            if not self._closed:
                self._frames = self._encode_slice()
            self._error = None
        except AudioError as error:
            self._error = error
        finally:
            self._working = False

    def done(self) -> None:
        """Hand the frames over."""
        done, self._done = self._done, None
        frames, self._frames = self._frames, []
        error, self._error = self._error, None
        if done is not None and not self._closed:
            done(frames, error)

    def _encode_slice(self) -> list[bytes]:
        pcm, self._pcm = self._pcm, b""
        if self._resampler is None:
            self._resampler = StreamResampler(self._rate_in, self._rate_out)
        if self._encoder is None:
            self._encoder = self._encoders.take(self._rate_out, self._frame_ms)
        self._encoder.tune(Effort.FULL if self._best else self._pool.effort)
        data = self._carry + self._resampler.process(pcm, self._last)
        size, encode = self._frame_bytes, self._encoder.encode
        if self._last:
            data += bytes(-len(data) % size)
        cut = len(data) - len(data) % size
        hurried = self._pool.hurried
        frames = [
            encode(data[at : at + size], hold_gil=hurried and at // size % _BREATH > 0)
            for at in range(0, cut, size)
        ]
        self._carry = data[cut:]
        if self._last:
            self._release()
        return frames

    def _release(self) -> None:
        self._carry = self._pcm = b""
        self._resampler = None
        encoder, self._encoder = self._encoder, None
        if encoder is not None:
            self._encoders.give_back(encoder)
