"""A recording on its way up."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mynah.sim.pull4g.recording import Recording

pieces = st.lists(st.binary(min_size=1, max_size=20), max_size=12)


@given(pieces, st.lists(st.integers(0, 250), max_size=6))
def test_wherever_it_goes_on_nothing_is_missing(said: list[bytes], offsets: list[int]) -> None:
    one = Recording(whole_packets=False)
    whole = b"".join(said)
    sent = b""
    for piece in said:
        one.add(piece)
        sent += b"".join(one.take())
    assert sent == whole
    assert (one.size, one.at, one.take()) == (len(whole), len(whole), [])
    for offset in offsets:
        one.rewind(offset)
        assert b"".join(one.take()) == whole[offset:]


@given(pieces, st.data())
def test_packets_are_sent_whole(said: list[bytes], data: st.DataObject) -> None:
    one = Recording(whole_packets=True)
    for piece in said:
        one.add(piece)
    number = data.draw(st.integers(0, len(said)))
    one.rewind(sum(map(len, said[:number])))
    assert one.take() == said[number:]
