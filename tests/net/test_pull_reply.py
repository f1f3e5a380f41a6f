"""What is kept of a reply until it has arrived."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mynah.audio.adpcm import AdpcmDecoder, AdpcmEncoder
from mynah.net import pull_reply
from mynah.net.pull_reply import PullReply, ReplyStore
from mynah.wire.pull4g import Codec


def filled(frames: list[bytes], codec: Codec = Codec.PCM, store: ReplyStore | None = None) -> PullReply:
    reply = PullReply(codec, store or ReplyStore(), 5.0)
    for frame in frames:
        reply.add(frame)
    return reply


FRAMES = st.lists(st.binary(min_size=1, max_size=8), max_size=12)


@given(FRAMES, st.integers(0, 100))
def test_from_any_byte_on_it_goes_on_with_the_next_byte(frames: list[bytes], offset: int) -> None:
    whole = b"".join(frames)
    reply = filled(frames)
    pieces = list(reply.since(offset))
    assert b"".join(piece for _, piece in pieces) == whole[offset:]
    assert all(whole[:end].endswith(piece) for end, piece in pieces)
    assert reply.end == len(whole)
    assert reply.begun_at == 5.0


@given(FRAMES, st.integers(0, 100))
def test_packets_come_whole(frames: list[bytes], offset: int) -> None:
    sent = [piece for _, piece in filled(frames, Codec.OPUS).since(offset)]
    assert sent == frames[len(frames) - len(sent) :]
    assert len(b"".join(sent)) >= len(b"".join(frames)) - offset
    assert len(b"".join(sent[1:])) < max(len(b"".join(frames)) - offset, 1)


@given(FRAMES, st.lists(st.integers(0, 120), max_size=6), st.integers(0, 100))
def test_what_is_acknowledged_is_dropped_and_nothing_else(
    frames: list[bytes], counts: list[int], offset: int
) -> None:
    store = ReplyStore()
    whole = b"".join(frames)
    reply = filled(frames, store=store)
    for count in counts:
        reply.acknowledge(count)
    known = max((count for count in counts if count <= len(whole)), default=0)
    assert reply.arrived == known, "more than there is was not received by anybody"
    rest = b"".join(piece for _, piece in reply.since(max(offset, known)))
    assert rest == whole[max(offset, known) :]
    assert store.used == reply.end - reply.first
    reply.close()
    assert store.used == 0


def test_the_device_is_believed_more_than_the_kernel() -> None:
    """A proxy had acknowledged it all; the device says how far it got, and acknowledges as it gets the rest."""
    frames = [bytes([number]) * 10 for number in range(10)]
    reply = filled(frames)
    reply.note_arrived(90)
    reply.go_on(20)
    assert reply.arrived == 20
    reply.acknowledge(30)
    assert b"".join(piece for _, piece in reply.since(30)) == b"".join(frames)[30:]
    reply.go_on(500)
    assert reply.arrived == 30, "of another reply"
    reply.go_on(5)
    assert reply.arrived == 30, "that is not kept any more"


@given(FRAMES, st.integers(0, 100))
def test_how_many_frames_have_not_arrived_whole(frames: list[bytes], offset: int) -> None:
    count = filled(frames).chunks_since(offset)
    ends = [len(b"".join(frames[: number + 1])) for number in range(len(frames))]
    assert count == sum(end > offset for end in ends)


@given(st.lists(st.binary(min_size=8, max_size=40).map(lambda data: data[: len(data) // 4 * 4]), max_size=8))
def test_adpcm_is_one_stream(frames: list[bytes]) -> None:
    reply = filled(frames, Codec.ADPCM)
    sent = b"".join(piece for _, piece in reply.since(0))
    assert sent == AdpcmEncoder().encode(b"".join(frames))
    assert len(AdpcmDecoder().decode(sent)) == len(b"".join(frames))


def test_no_more_is_kept_of_one_reply_than_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pull_reply, "MAX_REPLY_BYTES", 100)
    store = ReplyStore()
    reply = filled([bytes(30)] * 10, store=store)
    assert store.used == 90
    assert reply.first == 210
    assert [end for end, _ in reply.since(0)] == [240, 270, 300], "the newest is what may not have arrived"


def test_when_much_is_kept_what_has_arrived_goes_first() -> None:
    store = ReplyStore(limit=1000)
    old, new = filled([bytes(10)] * 60, store=store), filled([bytes(10)] * 30, store=store)
    old.note_arrived(400)
    assert not store.full
    for _ in range(30):
        new.add(bytes(10))
    assert old.first == 400, "what the device has is not needed to go on"
    assert new.first == 0
    assert not store.full
    for _ in range(60):
        new.add(bytes(10))
    assert store.full, "whoever fills it gets no more for a while"
    assert (old.first, new.first) == (400, 0), "what has not arrived is kept"
    old.close()
    new.close()
    assert store.used == 0
    assert not store.replies
