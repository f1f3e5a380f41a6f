"""Frames between the server and its ingest process."""

from __future__ import annotations

import struct

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mynah.audio.ingest_stream import Decision
from mynah.audio.ingest_wire import (
    CLOSE,
    FLUSH,
    MAX_FRAME_BYTES,
    OPUS,
    Answer,
    Batch,
    EngineSource,
    Frames,
    Heard,
    Piece,
    frame,
)
from mynah.errors import AudioError

numbers = st.integers(0, 2**62)
levels = st.floats(allow_nan=False)
pieces = st.builds(
    Piece, numbers, st.sampled_from([OPUS, FLUSH, CLOSE, 8000, 16000, 44100, 48000]), st.binary(max_size=300)
)
decisions = st.lists(st.builds(Decision, levels, levels), max_size=4).map(tuple)
heard = st.builds(Heard, numbers, st.binary(max_size=300), decisions, st.booleans())
answers = st.builds(Answer, st.lists(heard, max_size=6), numbers, numbers, numbers, levels)
batches = st.builds(Batch, st.lists(pieces, max_size=6))


@given(st.lists(st.one_of(answers, batches), max_size=5), st.data())
def test_messages_survive_however_the_bytes_are_cut(
    messages: list[Answer | Batch], data: st.DataObject
) -> None:
    stream = b"".join(map(frame, messages))
    frames, bodies, at = Frames(), list[bytes](), 0
    while at < len(stream):
        step = data.draw(st.integers(1, len(stream) - at))
        bodies += frames.feed(stream[at : at + step])
        at += step
    decoded = [
        msgspec.msgpack.decode(body, type=type(message))
        for body, message in zip(bodies, messages, strict=True)
    ]
    assert decoded == messages
    for message in decoded:
        if isinstance(message, Answer):
            assert all(isinstance(one, Decision) for part in message.heard for one in part.decisions)


def test_a_source_survives() -> None:
    source = EngineSource("module:function", "10.5")
    (body,) = Frames().feed(frame(source))
    assert msgspec.msgpack.decode(body, type=EngineSource) == source


def test_an_impossible_length_is_told_at_once() -> None:
    frames = Frames()
    assert not list(frames.feed(struct.pack("<I", MAX_FRAME_BYTES)))
    with pytest.raises(AudioError, match=str(MAX_FRAME_BYTES + 1)):
        list(Frames().feed(struct.pack("<I", MAX_FRAME_BYTES + 1)))
