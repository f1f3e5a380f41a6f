"""Texts that take several lines."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mynah.sim.pull4g.record import Reply, TextLines
from mynah.wire import pull4g
from mynah.wire.pull4g import DeviceStream, Said


@given(
    st.lists(
        st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=300),
        max_size=5,
    )
)
def test_texts_come_out_as_they_were_said(sentences: list[str]) -> None:
    lines = TextLines()
    stream = DeviceStream()
    found = []
    for sentence in sentences:
        pieces = [event for event in stream.feed(pull4g.sentence(sentence, False)) if isinstance(event, Said)]
        whole = [text for piece in pieces if (text := lines.add(piece.text, 250 - len(b"SENTENCE:")))]
        rest = lines.rest()  # one that fills its last line to the end
        found.append("".join(whole) + rest)
    assert found == sentences


def test_the_pieces_of_a_reply() -> None:
    assert Reply(0.0, data=bytearray(b"abcdef"), packets=[2, 3, 1]).pieces() == [b"ab", b"cde", b"f"]
    assert Reply(0.0, data=bytearray(b"abcdef")).pieces() == [b"abcdef"]
