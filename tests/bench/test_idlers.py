"""The devices of the benchmark of connections, without a server."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mynah.bench.idlers import Outcome, masked, split_frames


def served(opcode: int, payload: bytes) -> bytes:
    """Return a frame as servers send it."""
    size = len(payload)
    if size < 126:
        return bytes((0x80 | opcode, size)) + payload
    if size < 65536:
        return bytes((0x80 | opcode, 126)) + size.to_bytes(2, "big") + payload
    return bytes((0x80 | opcode, 127)) + size.to_bytes(8, "big") + payload


FRAMES = st.lists(
    st.tuples(
        st.sampled_from((1, 2, 10)), st.integers(0, 300).flatmap(lambda n: st.binary(min_size=n, max_size=n))
    )
)


@given(FRAMES, st.data())
def test_frames_come_out_as_they_went_in(frames: list[tuple[int, bytes]], data: st.DataObject) -> None:
    stream = b"".join(served(opcode, payload) for opcode, payload in frames)
    cut = data.draw(st.integers(0, len(stream)))
    first, rest = split_frames(stream[:cut])
    second, left = split_frames(rest + stream[cut:])
    assert first + second == frames
    assert left == b""


def test_a_large_frame_comes_out() -> None:
    payload = bytes(70_000)
    assert split_frames(served(2, payload)) == ([(2, payload)], b"")


@pytest.mark.parametrize("size", [0, 125, 126, 8000])
def test_what_is_sent_is_masked_and_of_the_right_length(size: int) -> None:
    frame = masked(1, b"x" * size)
    head = 6 if size < 126 else 8
    assert frame[0] == 0x81
    assert frame[1] & 0x80
    assert frame[head:] == b"x" * size


def test_an_outcome_shares_nothing_with_the_next() -> None:
    Outcome().ms.append(1.0)
    assert Outcome().ms == []
