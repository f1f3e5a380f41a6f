"""One recording of one device: audio in, "speech started", "speech ended" and a transcript out.

An ear exists while the device listens and holds everything that listening costs: a decoder and VAD slot in the ingest,
a recogniser stream, half a second of audio. An idle device has none.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, Protocol

from mynah.audio.ingest import Decision, Ingest, IngestStream
from mynah.dialogue.endpointing import Edge, Endpointer
from mynah.providers.base import AsrProvider, AsrRequest, AsrStream, Transcript, VadCapabilities

SAMPLE_BYTES_PER_MS = 32
"""16 kHz, 16 bit, mono."""
PREROLL_BYTES = 500 * SAMPLE_BYTES_PER_MS
"""Audio kept from before the detector was sure: the first consonant is quiet and would be lost."""
MAX_UTTERANCE_BYTES = 60_000 * SAMPLE_BYTES_PER_MS
"""A minute: nobody gives a longer command, and recognisers buffer all of it. Overflow policy: the rest is ignored and,
where we decide about the end, the utterance ends."""
MIN_MANUAL_BYTES = 200 * SAMPLE_BYTES_PER_MS
"""A button press shorter than this is a slip."""
BARGE_IN_SPEECH_MS = 320.0
"""Speech it takes to interrupt a reply: longer than a cough, shorter than "no, stop"."""
QUIET_SPEECH = 0.2
"""A recording whose VAD probability never reached this holds no voice; recognisers invent words for such audio."""


class EarListener(Protocol):
    """Who wants to know about the edges of speech; called on the event loop."""

    def on_speech_started(self) -> None:
        """Voice activity began."""

    def on_speech_ended(self) -> None:
        """The utterance is over (auto and realtime mode only)."""


class Ear:
    """The open microphone of one device. Implements `mynah.audio.ingest.IngestSink`."""

    __slots__ = (
        "_asr",
        "_asr_stream",
        "_bytes",
        "_capabilities",
        "_ended",
        "_endpointer",
        "_finishing",
        "_flushed",
        "_listener",
        "_manual",
        "_preroll",
        "_preroll_bytes",
        "_request",
        "_stream",
    )

    def __init__(
        self,
        ingest: Ingest,
        asr: AsrProvider[Any],
        capabilities: VadCapabilities,
        request: AsrRequest,
        listener: EarListener,
        *,
        manual: bool,
        interrupting: bool = False,
    ) -> None:
        self._asr = asr
        self._request = request
        self._listener = listener
        self._manual = manual
        self._capabilities = capabilities
        self._endpointer = Endpointer(
            capabilities, min_speech_ms=BARGE_IN_SPEECH_MS if interrupting else None
        )
        self._asr_stream: AsrStream | None = None
        self._preroll: deque[bytes] = deque()
        self._preroll_bytes = 0
        self._bytes = 0
        self._flushed: asyncio.Future[None] | None = None
        self._ended = False
        self._finishing = False
        self._stream: IngestStream | None = ingest.open(self)

    @property
    def hearing(self) -> bool:
        """Whether an utterance is in progress."""
        return self._endpointer.speaking

    def relax(self) -> None:
        """The reply is over: ordinary speech is enough to start an utterance again."""
        self._endpointer.require_speech(self._capabilities.min_speech_ms)

    def push(self, packet: bytes) -> None:
        """Take one Opus packet; O(1), decoding happens elsewhere."""
        if self._stream is not None:
            self._stream.push(packet)

    def push_pcm(self, pcm: bytes, sample_rate: int) -> None:
        """Take s16le mono PCM of 8000 to 48000 Hz, cut anywhere. Raises AudioError for another rate."""
        if self._stream is not None:
            self._stream.push_pcm(pcm, sample_rate)

    async def finish(self) -> tuple[Transcript, bool]:
        """End the recording and return its text, and whether there was a voice at all. Raises ProviderError."""
        self._finishing = True
        if self._stream is not None and not self._ended:
            # The device ended the recording: the packets that came just before that are still in the ring.
            self._flushed = asyncio.get_running_loop().create_future()
            self._stream.flush(self._flushed)
            await self._flushed
        self._close_stream()
        voiced = self._endpointer.peak >= QUIET_SPEECH
        stream, self._asr_stream = self._asr_stream, None
        if stream is None:
            return Transcript(""), voiced
        if not voiced or self._bytes < MIN_MANUAL_BYTES:
            stream.cancel()
            return Transcript(""), voiced
        try:
            return await stream.finish(), voiced
        except BaseException:
            stream.cancel()
            raise

    def close(self) -> None:
        """Give everything back; safe to call twice."""
        self._close_stream()
        if self._asr_stream is not None:
            self._asr_stream.cancel()
            self._asr_stream = None
        if self._flushed is not None and not self._flushed.done():
            self._flushed.cancel()

    def _close_stream(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None
        self._preroll.clear()
        self._preroll_bytes = 0

    # -- IngestSink

    def on_pcm(self, pcm: bytes, decisions: tuple[Decision, ...]) -> None:
        """Decoded audio and the VAD decisions that completed in it."""
        if self._manual or self._asr_stream is not None:
            self._feed(pcm)
        else:
            self._remember(pcm)
        for decision in decisions:
            edge = self._endpointer.push(decision.probability)
            if edge is Edge.STARTED:
                self._ended = False
                self._start_utterance()
                if not self._finishing:
                    self._listener.on_speech_started()
            elif edge is Edge.ENDED and not self._manual:
                self._end()
                return

    def on_flushed(self, token: Any) -> None:
        """All audio that was pushed before the flush has arrived."""
        if isinstance(token, asyncio.Future) and not token.done():
            token.set_result(None)

    # -- pieces

    def _start_utterance(self) -> None:
        if self._asr_stream is not None:
            return
        preroll = b"".join(self._preroll)
        self._preroll.clear()
        self._preroll_bytes = 0
        self._feed(preroll)

    def _feed(self, pcm: bytes) -> None:
        if self._asr_stream is None:
            self._asr_stream = self._asr.open_stream(self._request)
        room = MAX_UTTERANCE_BYTES - self._bytes
        if room <= 0:
            return
        self._asr_stream.feed(pcm if len(pcm) <= room else pcm[:room])
        self._bytes += len(pcm)
        if len(pcm) >= room and not self._manual:
            self._end()

    def _end(self) -> None:
        self._ended = True
        if not self._finishing:
            self._listener.on_speech_ended()

    def _remember(self, pcm: bytes) -> None:
        self._preroll.append(pcm)
        self._preroll_bytes += len(pcm)
        while self._preroll_bytes > PREROLL_BYTES and len(self._preroll) > 1:
            self._preroll_bytes -= len(self._preroll.popleft())
