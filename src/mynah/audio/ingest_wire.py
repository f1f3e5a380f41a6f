"""What the server and its ingest process say to each other: frames of MessagePack, each with its length in front.

The server begins with an `EngineSource` and goes on with one `Batch` after the other; the process answers each of them
with an `Answer`, in order. Both ends come from the same installation, so there are no versions.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

import msgspec

from mynah.audio.ingest_stream import Decision
from mynah.errors import AudioError

MAX_FRAME_BYTES: Final = 64_000_000
"""Of one frame. The audio of a full batch is a fifth of that; only a broken length is longer. Policy: the other end is
given up, there is no way to find the next frame."""

_LENGTH: Final = struct.Struct("<I")

OPUS: Final = 0
"""`Piece.kind` of an Opus packet. That of PCM is its rate in Hz."""
FLUSH: Final = -1
"""`Piece.kind`: tell when everything before has been heard."""
CLOSE: Final = -2
"""`Piece.kind`: the stream has ended, forget it."""


class EngineSource(msgspec.Struct, frozen=True, array_like=True):
    """How to make a voice detector in another process."""

    factory: str
    """``module:function``; called with ``argument``, it returns a `mynah.audio.ingest.VadEngine`."""
    argument: str = ""


class Piece(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Something new in a stream. A stream begins with its first piece."""

    stream: int
    """Its number, which is used once."""
    kind: int
    data: bytes = b""


class Batch(msgspec.Struct, frozen=True, array_like=True):
    """What is new, in order per stream."""

    pieces: list[Piece]


class Heard(msgspec.Struct, frozen=True, array_like=True):
    """A stretch of a stream's audio."""

    stream: int
    pcm: bytes
    """16 kHz s16le."""
    decisions: tuple[Decision, ...] = ()
    """About the chunks that completed in it, in order."""
    flushed: bool = False
    """Whether a flush stood behind it."""


class Answer(msgspec.Struct, frozen=True, array_like=True):
    """What became of a batch; the empty one says that the detector is ready."""

    heard: list[Heard] = []
    """In order per stream."""
    packets: int = 0
    bad_packets: int = 0
    vad_errors: int = 0
    process_s: float = 0.0
    """Since the answer before, as in `mynah.audio.ingest_stream.IngestStats`."""


_encoder: Final = msgspec.msgpack.Encoder()


def frame(message: EngineSource | Batch | Answer) -> bytes:
    """Return the message as a frame."""
    body = _encoder.encode(message)
    return _LENGTH.pack(len(body)) + body


class Frames:
    """Finds the frames in what arrives, however it is cut."""

    def __init__(self) -> None:
        # Bound: MAX_FRAME_BYTES and what one read brings; see there for the policy.
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the bodies of the frames that are complete now. Raises AudioError for an impossible length."""
        self._buffer += data
        while len(self._buffer) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer)
            if length > MAX_FRAME_BYTES:
                raise AudioError(
                    f"ingest process: a frame of {length} bytes, {MAX_FRAME_BYTES} is the longest"
                )
            end = _LENGTH.size + length
            if len(self._buffer) < end:
                return
            body = bytes(self._buffer[_LENGTH.size : end])
            del self._buffer[:end]
            yield body
