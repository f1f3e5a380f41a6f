"""Speech to Opus frames, in worker threads: resampling and encoding of one answer on its way down.

Encoding is the largest cost of the down-link (0.1 to 0.5 ms per 60 ms frame), so it never runs on the event
loop; and a thread hop costs as much as a third of a frame, so it is one per piece of audio, not one per
frame.
"""

from __future__ import annotations

import asyncio
from collections import deque
from concurrent.futures import Executor
from typing import Final

from mynah.audio.opus import OpusEncoder
from mynah.audio.pcm import StreamResampler
from mynah.errors import AudioError

_IDLE_PER_KIND: Final = 16
"""Encoders kept ready per setting, each 45 KB. Making a new one takes some 50 µs, so a small number
is enough to spare the allocator in steady traffic. Policy: a surplus encoder is dropped."""


class EncoderPool:
    """Encoders that nobody uses right now, by setting. Safe to use from several threads."""

    def __init__(self, idle_per_kind: int = _IDLE_PER_KIND) -> None:
        self._limit = idle_per_kind
        self._idle: dict[tuple[int, int, int], deque[OpusEncoder]] = {}

    def take(self, rate: int, frame_ms: int, complexity: int) -> OpusEncoder:
        """Return an encoder in its initial state. Raises AudioError for settings Opus does not have."""
        kind = (rate, frame_ms, complexity)
        try:
            return self._idle[kind].pop()  # pop and append of a deque are atomic
        except (KeyError, IndexError):
            return OpusEncoder(rate, frame_ms, complexity)

    def give_back(self, encoder: OpusEncoder) -> None:
        """Keep an encoder for the next taker; the giver must not use it any more."""
        idle = self._idle.setdefault((encoder.sample_rate, encoder.frame_ms, encoder.complexity), deque())
        if len(idle) < self._limit:
            encoder.reset()
            idle.append(encoder)

    @property
    def idle(self) -> int:
        """Encoders waiting in the pool."""
        return sum(len(kind) for kind in self._idle.values())


_shared_pool: Final = EncoderPool()


class SpeechEncoder:
    """One answer's audio on its way to Opus. Takes an encoder from the pool with its first frame and gives it
    back when flushed or closed, so an idle one owns none.

    One call at a time: the next `push` or `flush` only after the one before has returned.
    """

    def __init__(
        self,
        executor: Executor,
        rate_in: int,
        rate_out: int,
        frame_ms: int = 60,
        complexity: int = 5,
        *,
        pool: EncoderPool | None = None,
    ) -> None:
        """Rates in Hz: ``rate_in`` of the PCM pushed, ``rate_out`` of the Opus stream. Raises AudioError."""
        if rate_in <= 0:
            raise AudioError(f"cannot encode audio at {rate_in} Hz")
        self._executor = executor
        self._rate_in, self._rate_out = rate_in, rate_out
        self._frame_ms, self._complexity = frame_ms, complexity
        self._frame_bytes = rate_out * frame_ms // 1000 * 2
        self._pool = pool or _shared_pool
        self._pending = bytearray()  # at rate_in
        self._carry = b""  # at rate_out, less than a frame
        self._resampler: StreamResampler | None = None
        self._encoder: OpusEncoder | None = None
        self._working = self._closed = False

    async def push(self, pcm: bytes) -> list[bytes]:
        """Take s16le mono at ``rate_in``, of any length, and return the frames that are complete.

        One hop to a worker thread whatever the length, none while less than a frame is pending. All frames
        of a long piece come together: for the first sound of an answer push its first 200 ms alone. Raises
        AudioError; RuntimeError when closed or when a call is still running.
        """
        self._check()
        self._pending += pcm
        if self._pending_ms < self._frame_ms:
            return []
        return await self._hop(last=False)

    async def flush(self) -> list[bytes]:
        """Return what is left, the last frame filled up with silence; a new answer may then follow."""
        self._check()
        if not self._pending and not self._carry and self._resampler is None:
            return []
        return await self._hop(last=True)

    def close(self) -> None:
        """Drop what is pending. Safe at any moment, more than once, and while a call is running."""
        self._closed = True
        self._pending.clear()
        if not self._working:  # otherwise a thread still uses the encoder: then it is not worth keeping
            self._release()

    @property
    def _pending_ms(self) -> float:
        return (len(self._pending) / self._rate_in + len(self._carry) / self._rate_out) * 500

    def _check(self) -> None:
        if self._closed:
            raise RuntimeError("the encoder is closed")
        if self._working:
            raise RuntimeError("the call before has not returned")

    async def _hop(self, last: bool) -> list[bytes]:
        pcm = bytes(self._pending)
        self._pending.clear()
        self._working = True  # cleared by the worker itself: a cancelled caller does not stop a thread
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._encode, pcm, last)

    def _encode(self, pcm: bytes, last: bool) -> list[bytes]:
        """In the worker thread. `_working` keeps the loop's side away from the codec's state meanwhile."""
        try:
            if self._closed:
                return []
            if self._resampler is None:
                self._resampler = StreamResampler(self._rate_in, self._rate_out)
            if self._encoder is None:
                self._encoder = self._pool.take(self._rate_out, self._frame_ms, self._complexity)
            data = self._carry + self._resampler.process(pcm, last)
            size, encode = self._frame_bytes, self._encoder.encode
            if last:
                data += bytes(-len(data) % size)
            cut = len(data) - len(data) % size
            frames = [encode(data[at : at + size]) for at in range(0, cut, size)]
            self._carry = data[cut:]
            if last:
                self._release()
            return frames
        finally:
            self._working = False

    def _release(self) -> None:
        self._carry = b""
        self._resampler = None
        encoder, self._encoder = self._encoder, None
        if encoder is not None:
            self._pool.give_back(encoder)
