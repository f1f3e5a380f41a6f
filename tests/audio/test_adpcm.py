"""IMA ADPCM against the algorithm as the IMA wrote it down, in any pieces."""

from __future__ import annotations

import itertools
import math
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mynah.audio.adpcm import AdpcmDecoder, AdpcmEncoder

STEPS = [
    7, 8, 9, 10, 11, 12, 13, 14, 16, 17, 19, 21, 23, 25, 28, 31, 34, 37, 41, 45, 50, 55, 60, 66, 73, 80, 88, 97, 107,
    118, 130, 143, 157, 173, 190, 209, 230, 253, 279, 307, 337, 371, 408, 449, 494, 544, 598, 658, 724, 796, 876, 963,
    1060, 1166, 1282, 1411, 1552, 1707, 1878, 2066, 2272, 2499, 2749, 3024, 3327, 3660, 4026, 4428, 4871, 5358, 5894,
    6484, 7132, 7845, 8630, 9493, 10442, 11487, 12635, 13899, 15289, 16818, 18500, 20350, 22385, 24623, 27086, 29794,
    32767,
]  # fmt: skip
MOVES = [-1, -1, -1, -1, 2, 4, 6, 8]


class Reference:
    """One stream, one sample after the other."""

    def __init__(self) -> None:
        self.predicted = self.index = 0

    def decode(self, code: int) -> int:
        step = STEPS[self.index]
        change = step >> 3
        for bit, part in ((4, step), (2, step >> 1), (1, step >> 2)):
            change += part if code & bit else 0
        self.predicted += -change if code & 8 else change
        self.predicted = max(-32768, min(32767, self.predicted))
        self.index = max(0, min(88, self.index + MOVES[code & 7]))
        return self.predicted

    def encode(self, sample: int) -> int:
        step = STEPS[self.index]
        difference = sample - self.predicted
        code = 8 if difference < 0 else 0
        difference = abs(difference)
        for bit in (4, 2, 1):
            if difference >= step:
                code |= bit
                difference -= step
            step >>= 1
        self.decode(code)
        return code


def unpacked(data: bytes) -> Iterator[int]:
    """The codes of each byte, the first in its high half."""
    for byte in data:
        yield byte >> 4
        yield byte & 15


def samples(pcm: bytes) -> list[int]:
    return [sample for (sample,) in struct.iter_unpack("<h", pcm)]


def pcm_of(values: list[int]) -> bytes:
    return struct.pack(f"<{len(values)}h", *values)


@given(st.binary(max_size=600))
def test_decoding_is_that_of_the_reference(data: bytes) -> None:
    reference = Reference()
    assert samples(AdpcmDecoder().decode(data)) == [reference.decode(code) for code in unpacked(data)]


@given(st.lists(st.tuples(st.integers(-32768, 32767), st.integers(-32768, 32767)), max_size=300))
def test_encoding_is_that_of_the_reference(pairs: list[tuple[int, int]]) -> None:
    values = [value for pair in pairs for value in pair]
    reference = Reference()
    assert list(unpacked(AdpcmEncoder().encode(pcm_of(values)))) == [
        reference.encode(value) for value in values
    ]


@given(st.binary(max_size=400), st.lists(st.integers(0, 400), max_size=20))
def test_any_cut_gives_the_same_stream(data: bytes, cuts: list[int]) -> None:
    encoder, decoder = AdpcmEncoder(), AdpcmDecoder()
    marks = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    pieces = [data[start:end] for start, end in itertools.pairwise(marks)]
    encoded = [encoder.encode(piece) for piece in pieces]
    assert b"".join(encoded) == AdpcmEncoder().encode(data)
    assert b"".join(decoder.decode(piece) for piece in pieces) == AdpcmDecoder().decode(data)


def test_speech_survives() -> None:
    wave = [round(9000 * math.sin(i / 9) * math.sin(i / 700)) for i in range(16000)]
    data = AdpcmEncoder().encode(pcm_of(wave))
    assert len(data) == 8000
    heard = samples(AdpcmDecoder().decode(data))
    noise = sum((a - b) ** 2 for a, b in zip(wave, heard, strict=True))
    assert 10 * math.log10(sum(a * a for a in wave) / noise) > 25


@pytest.mark.parametrize(("left", "more"), [(b"", 0), (b"\x01", 0), (b"\x01\x02", 1), (b"\x01\x02\x03", 1)])
def test_the_sample_that_waits_comes_out_at_the_end(left: bytes, more: int) -> None:
    encoder = AdpcmEncoder()
    assert len(encoder.encode(b"\x00\x10" * 4 + left)) == 2
    last = encoder.flush()
    assert len(last) == more
    assert encoder.flush() == b""
    if more:
        reference = AdpcmEncoder()
        reference.encode(b"\x00\x10" * 4)
        assert last == reference.encode(b"\x01\x02" * 2)
