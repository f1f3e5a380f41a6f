"""The open microphone of one device: audio in, the edges of speech and transcripts out.

An ear exists while the device listens and holds everything that listening costs: a decoder and VAD slot in the ingest,
a recogniser stream, half a second of audio. An idle device has none. One recording may hold several utterances: a user
who goes on after we thought he was done, or interrupts a reply, is heard by the same ear.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, Protocol

from mynah.audio.echo import EchoControl
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
MIN_UTTERANCE_BYTES = 200 * SAMPLE_BYTES_PER_MS
"""A button press shorter than this is a slip."""
TAIL_BYTES = 8_000 * SAMPLE_BYTES_PER_MS
"""What models that judge by the sound look at."""
QUIET_SPEECH = 0.2
"""A recording whose VAD probability never reached this holds no voice; recognisers invent words for such audio."""


class EarListener(Protocol):
    """Who wants to know about the edges of speech; called on the event loop."""

    def on_speech_started(self) -> None:
        """Voice activity began."""

    def on_speech_paused(self) -> None:
        """A short silence: perhaps the utterance is over."""

    def on_speech_resumed(self) -> None:
        """It was not."""

    def on_speech_ended(self) -> None:
        """The utterance is over (auto and realtime mode only)."""


class Recording:
    """One utterance on its way through the recogniser."""

    __slots__ = ("_size", "_stream", "voiced")

    def __init__(self, stream: AsrStream | None, size: int, voiced: bool) -> None:
        self._stream = stream
        self._size = size
        self.voiced = voiced
        """Whether there was a voice at all."""

    async def finish(self) -> Transcript:
        """Return its text; call once. Raises ProviderError."""
        stream, self._stream = self._stream, None
        if stream is None:
            return Transcript("")
        if not self.voiced or self._size < MIN_UTTERANCE_BYTES:
            stream.cancel()
            return Transcript("")
        try:
            return await stream.finish()
        except BaseException:
            stream.cancel()
            raise

    def cancel(self) -> None:
        """Drop it; safe to call at any time."""
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.cancel()


class Ear:
    """The open microphone of one device. Implements `mynah.audio.ingest.IngestSink`."""

    # fmt: off
    __slots__ = (
        "_asr", "_asr_stream", "_bytes", "_ended", "_finishing", "_flushed",
        "_listener", "_manual", "_preroll", "_preroll_bytes", "_request", "_stream",
        "_tail", "_tail_bytes", "endpointer",
    )
    # fmt: on

    def __init__(
        self,
        ingest: Ingest,
        asr: AsrProvider[Any],
        capabilities: VadCapabilities,
        request: AsrRequest,
        listener: EarListener,
        *,
        manual: bool,
        echo: EchoControl | None = None,
        keep_tail: bool = False,
    ) -> None:
        """``echo`` takes the device's own voice out; ``keep_tail`` keeps the end of the utterance for `tail`."""
        self._asr = asr
        self._request = request
        self._listener = listener
        self._manual = manual
        # What judges by the sound needs some silence in it, and what it is sure of ends the utterance at once.
        self.endpointer = Endpointer(capabilities, early=not keep_tail)
        """Finds the edges; told from outside how much speech and silence they take."""
        self._asr_stream: AsrStream | None = None
        self._preroll: deque[bytes] = deque()
        self._preroll_bytes = 0
        self._tail: deque[bytes] | None = deque() if keep_tail else None
        self._tail_bytes = 0
        self._bytes = 0
        self._flushed: asyncio.Future[None] | None = None
        self._ended = False
        self._finishing = False
        self._stream: IngestStream | None = ingest.open(self, echo)

    @property
    def hearing(self) -> bool:
        """Whether an utterance is in progress."""
        return self.endpointer.speaking

    @property
    def voiced_ms(self) -> float:
        """Speech in the utterance so far, in ms."""
        return self.endpointer.voiced_ms

    @property
    def silence_ms(self) -> float:
        """Silence since the last sound of speech, in ms of audio."""
        return self.endpointer.silence_ms

    def push(self, packet: bytes, stamp: int = 0) -> None:
        """Take one Opus packet; O(1), decoding happens elsewhere. ``stamp``: see `Session.on_audio`."""
        if self._stream is not None:
            self._stream.push(packet, stamp)

    def push_pcm(self, pcm: bytes, sample_rate: int) -> None:
        """Take s16le mono PCM of 8000 to 48000 Hz, cut anywhere. Raises AudioError for another rate."""
        if self._stream is not None:
            self._stream.push_pcm(pcm, sample_rate)

    @property
    def utterance(self) -> AsrStream | None:
        """The recogniser's side of the utterance in progress."""
        return self._asr_stream

    async def interim(self) -> Transcript:
        """Return the text of the utterance so far, which goes on. Raises ProviderError."""
        stream = self._asr_stream
        return await stream.interim() if stream is not None else Transcript("")

    def take(self) -> Recording:
        """Hand over the utterance that has come to its end, and listen for the next one."""
        stream, self._asr_stream = self._asr_stream, None
        if self._tail is not None:
            self._tail.clear()
            self._tail_bytes = 0
        recording = Recording(stream, self._bytes, self.endpointer.peak >= QUIET_SPEECH)
        self._bytes = 0
        self._ended = False
        self.endpointer.peak = 0.0
        if self.endpointer.speaking:  # cut off in its midst
            self.endpointer.restart()
        return recording

    def forget(self) -> None:
        """Drop the utterance in progress: it was none. What comes next may be one."""
        self.take().cancel()

    def tail(self) -> bytes:
        """Return the last `TAIL_BYTES` of the utterance, s16le mono 16 kHz; empty without ``keep_tail``."""
        return b"".join(self._tail or ())[-TAIL_BYTES:]

    async def close_after_flush(self) -> Recording:
        """Wait for the audio that is still on its way, close, and hand over the utterance."""
        self._finishing = True
        if self._stream is not None and not self._ended:
            # The device ended the recording: the packets that came just before that are still in the ring.
            self._flushed = asyncio.get_running_loop().create_future()
            self._stream.flush(self._flushed)
            await self._flushed
        recording = self.take()
        self._close_stream()
        return recording

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
        begin = 0
        for number, decision in enumerate(decisions, 1):
            edge = self.endpointer.push(decision.probability, decision.level_db)
            if edge is not None:
                # What comes behind an edge belongs to what begins there.
                end = len(pcm) * number // len(decisions) & ~1
                self._take_in(pcm[begin:end])
                begin = end
                self._on_edge(edge)
        self._take_in(pcm[begin:] if begin else pcm)

    def _take_in(self, pcm: bytes) -> None:
        if self._stream is None or not pcm:
            return
        if self._manual or (self._asr_stream is not None and not self._ended):
            self._feed(pcm)
        else:
            self._remember(pcm)

    def on_flushed(self, token: Any) -> None:
        """All audio that was pushed before the flush has arrived."""
        if isinstance(token, asyncio.Future) and not token.done():
            token.set_result(None)

    # -- pieces

    def _on_edge(self, edge: Edge) -> None:
        match edge:
            case Edge.STARTED:
                self._ended = False
                self._start_utterance()
                if self._finishing:
                    self._listener.on_speech_resumed()  # after a long pause with the button held
                else:
                    self._listener.on_speech_started()
            case Edge.PAUSED if not self._finishing:
                self._listener.on_speech_paused()
            case Edge.RESUMED:  # also in the last packets of a recording: what was guessed from less is void
                self._listener.on_speech_resumed()
            case Edge.ENDED if not self._manual:
                self._end()
            case _:
                pass

    def _start_utterance(self) -> None:
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
        if self._tail is not None:
            self._keep(self._tail, pcm)
        if len(pcm) >= room and not self._manual:
            self._end()

    def _keep(self, tail: deque[bytes], pcm: bytes) -> None:
        tail.append(pcm)
        self._tail_bytes += len(pcm)
        while self._tail_bytes - len(tail[0]) >= TAIL_BYTES:
            self._tail_bytes -= len(tail.popleft())

    def _end(self) -> None:
        self._ended = True
        if not self._finishing:
            self._listener.on_speech_ended()

    def _remember(self, pcm: bytes) -> None:
        self._preroll.append(pcm)
        self._preroll_bytes += len(pcm)
        # Where more speech is required, as during a reply, all of it belongs to the utterance that then begins.
        longest = PREROLL_BYTES + self.endpointer.required_speech_ms * SAMPLE_BYTES_PER_MS
        while self._preroll_bytes > longest and len(self._preroll) > 1:
            self._preroll_bytes -= len(self._preroll.popleft())
