"""Damaged input made from sound input: what a broken, foreign or hostile peer might send.

All randomness comes from the generator that is passed in, so the same seed gives the same input.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from random import Random
from typing import NamedTuple

LONG_BYTES = 65_536
"""Over-long input is at most this long, unless a target's own limit is lower: firmware's largest message."""

DEEP = (20, 200, 900, 1100, 5000)
"""Depths of nesting: around Python's recursion limit and far beyond it."""


class Shape(enum.Enum):
    """What kind of input a target reads, which decides how it is damaged."""

    BINARY = "binary"
    JSON = "json"
    TEXT = "text"


class Span(NamedTuple):
    """Where a value, or a member with its key, stands in a JSON text."""

    start: int
    end: int
    value: int
    """Where the value begins: ``start``, or behind the key of a member."""


class Sample(NamedTuple):
    """One valid input, with the places where its structure can be damaged."""

    data: bytes
    spans: tuple[Span, ...] = ()


def json_sample(data: bytes) -> Sample:
    """Find the values and members of a JSON text. Raises ValueError or IndexError for what is none."""
    spans: list[Span] = []
    end = _walk(data, 0, spans)
    if data[end:].strip():
        raise ValueError("more than one JSON text")
    return Sample(data, tuple(spans))


def _walk(data: bytes, at: int, spans: list[Span]) -> int:
    """Note the spans of the value at ``at`` and return where it ends."""
    at = _blanks(data, at)
    begin, first = at, data[at : at + 1]
    if first == b'"':
        at = _string(data, at)
    elif first in (b"{", b"["):
        at = _blanks(data, at + 1)
        while data[at : at + 1] not in (b"}", b"]"):
            member = at
            if first == b"{":
                at = _blanks(data, _string(data, at)) + 1
            value = _blanks(data, at)
            at = _walk(data, value, spans)
            if first == b"{":
                spans.append(Span(member, at, value))
            at = _blanks(data, at)
            if data[at] == ord(","):
                at = _blanks(data, at + 1)
        at += 1
    else:
        while at < len(data) and data[at] not in b",]} \r\n\t":
            at += 1
    spans.append(Span(begin, at, begin))
    return at


def _blanks(data: bytes, at: int) -> int:
    while at < len(data) and data[at] in b" \r\n\t":
        at += 1
    return at


def _string(data: bytes, at: int) -> int:
    at += 1
    while data[at] != ord('"'):
        at += 2 if data[at] == ord("\\") else 1
    return at + 1


# ---------------------------------------------------------------- odd pieces

ODD_VALUES: tuple[bytes, ...] = (
    b"null", b"true", b"false", b"0", b"-0", b"-1", b"1", b"2", b"3", b"60", b"2147483647", b"2147483648",
    b"-2147483649", b"4294967296", b"9223372036854775807", b"9223372036854775808", b"18446744073709551616",
    b"-9223372036854775809", b"9" * 400, b"9" * 5000, b"1.0", b"0.1", b"-0.0", b"1e308", b"1e309", b"-1e999",
    b"5e-324", b"1e-400", b"1E5", b"30.0", b"NaN", b"Infinity", b"-Infinity", b"0x10", b"01", b"1.", b"+1",
    b'""', b'" "', b'"1"', b'"30"', b'"true"', b'"null"', b'"object"', b'"\\u0000"', b'"\\ud800"', b'"\\udc00x"',
    b'"\\ud83d\\ude00"', b'"\\x"', b'"\\"', b'"\xff\xfe"', b'"\xed\xa0\x80"', b'"\xc0\x80"', b'"\xf4\x90\x80\x80"',
    '"你好"'.encode(), '"٣"'.encode(), b'"\\u202e\\u2066"', b'"' + b"a" * 129 + b'"', b'"' + b"x" * 5000 + b'"',
    b"[]", b"{}", b"[[]]", b"[null]", b"[1]", b'["a"]', b"[{}]", b'{"":0}', b'{"a":{"a":{}}}', b'{"type":"object"}',
    b'{"type":"object","properties":[1],"required":5}', b'{"type":["integer",null,{}],"enum":{},"minimum":"x"}',
    b'{"content":[{"type":"text","text":"\\"x\\""}]}', b"", b"//", b"'a'", b"undefined", b"\x00", b"\xef\xbb\xbf1",
)  # fmt: skip
"""JSON values of every type, at the edges of every number, and things that only look like values."""

TOKENS: tuple[bytes, ...] = (
    b"\r\n", b"\n", b"\r", b"\t", b" ", b",", b";", b":", b"::1", b".", b"..", b"/", b"//", b"?", b"&", b"=", b"%",
    b"%00", b"%0d%0a", b"%ed%a0%80", b"[", b"]", b"[::]", b"(", b")", b'"', b"'", b"\\", b"<", b">", b"{", b"}", b"#",
    b"@", b"-", b"_", b"*", b"**", b"`", b"0", b"9", b"65536", b"99999999999", b"\x00", b"\x1b[31m", b"\x7f", b"\xff",
    b"\xc3\x28", b"\xed\xa0\x80", b"\xf0\x9f\x98\x80", "²".encode(), "١".encode(), "１".encode(), "İ".encode(),
    "ß".encode(), "\u202e".encode(), "\u2028".encode(), "\ufeff".encode(), "。".encode(), "，".encode(), "”".encode(),
    "“".encode(), "…".encode(), b"https", b"http://", b"Host: ", b"Forwarded: for=1;host=", b"proto=", b"Bearer ",
    b"data: ", b"[DONE]", b"e.g.", b"Mr.", b"A.", b"...", b"1,000", b"sqrt", b"^", b"of", "√".encode(), "%的".encode(),
)  # fmt: skip
"""Pieces that mean something to one decoder or another."""


# ---------------------------------------------------------------- damage


def mutate(random: Random, samples: Sequence[Sample], shape: Shape, limit: int) -> bytes:
    """Return one input of at most ``limit`` bytes: mostly a damaged sample, now and then a sound or a random one."""
    kind = random.random()
    if kind < 0.04:
        data = random.choice(samples).data
    elif kind < 0.10:
        data = random.randbytes(int(2 ** (random.random() * 10)))
    elif kind < 0.105:
        data = _overlong(random, random.choice(samples).data, min(limit, LONG_BYTES))
    elif shape is Shape.JSON and kind < 0.65:
        data = _restructure(random, samples)
    else:
        data = random.choice(samples).data
        for _ in range(random.choice((1, 1, 1, 2, 3, 5))):
            data = random.choice(_BINARY if shape is Shape.BINARY else _WRITTEN)(random, data, samples)
    return data[:limit]


def _restructure(random: Random, samples: Sequence[Sample]) -> bytes:
    """Damage the structure of a JSON text in one to three places."""
    sample = random.choice(samples)
    data = sample.data
    if not sample.spans:
        return data
    # From the back, so that the earlier places stay where they are; nested ones would not, so one is skipped then.
    wanted = sorted(random.choices(sample.spans, k=random.choice((1, 1, 2, 3))), reverse=True)
    untouched = len(data)
    for span in wanted:
        if span.end <= untouched:
            piece = _odd_piece(random, data, span, samples)
            data = data[: span.start] + piece + data[span.end :]
            untouched = span.start
    return data


def _odd_piece(random: Random, data: bytes, span: Span, samples: Sequence[Sample]) -> bytes:
    key, value = data[span.start : span.value], data[span.value : span.end]
    kind = random.random()
    if kind < 0.55:
        return key + random.choice(ODD_VALUES)
    if kind < 0.65 and key:  # the key twice, with another value
        again = key + random.choice(ODD_VALUES)
        return random.choice((key + value + b"," + again, again + b"," + key + value))
    if kind < 0.72 and key:  # another key
        return random.choice(ODD_VALUES) + b":" + value
    if kind < 0.86:  # a value from elsewhere
        other = random.choice(samples)
        if other.spans:
            taken = random.choice(other.spans)
            return key + other.data[taken.value : taken.end]
        return key + other.data
    if kind < 0.93:
        deep = random.choice(DEEP)
        opening, closing = random.choice(((b"[", b"]"), (b'{"a":', b"}")))
        return key + opening * deep + value + closing * random.choice((deep, deep, deep - 1))
    return b"" if kind < 0.97 else key + value + value


def _overlong(random: Random, data: bytes, limit: int) -> bytes:
    """Repeat a stretch of the sample, where it stands, up to the limit."""
    if not data:
        return bytes(limit)
    start = random.randrange(len(data))
    end = min(len(data), start + random.choice((1, 1, 2, 5, 20, 200)))
    room = max(0, limit - len(data))
    stretch = data[start:end] if random.random() < 0.7 else random.choice(TOKENS)
    times = int(room * random.choice((0.05, 0.3, 1.0))) // len(stretch)
    return data[:start] + stretch * times + data[end:]


def _place(random: Random, data: bytes) -> int:
    return random.randrange(len(data) + 1)


def _flip_bit(random: Random, data: bytes, _samples: Sequence[Sample]) -> bytes:
    if not data:
        return b"\x00"
    at = random.randrange(len(data))
    return data[:at] + bytes((data[at] ^ 1 << random.randrange(8),)) + data[at + 1 :]


def _set_byte(random: Random, data: bytes, _samples: Sequence[Sample]) -> bytes:
    if not data:
        return b"\xff"
    at = random.randrange(len(data))
    return (
        data[:at]
        + bytes((random.choice((0, 1, 3, 0x7F, 0x80, 0xFF, random.randrange(256))),))
        + data[at + 1 :]
    )


def _truncate(random: Random, data: bytes, _samples: Sequence[Sample]) -> bytes:
    return data[: _place(random, data)]


def _behead(random: Random, data: bytes, _samples: Sequence[Sample]) -> bytes:
    return data[_place(random, data) :]


def _cut_out(random: Random, data: bytes, _samples: Sequence[Sample]) -> bytes:
    start = _place(random, data)
    return data[:start] + data[start + random.choice((1, 2, 4, 16)) :]


def _insert_random(random: Random, data: bytes, _samples: Sequence[Sample]) -> bytes:
    at = _place(random, data)
    return data[:at] + random.randbytes(random.choice((1, 1, 2, 4, 32))) + data[at:]


def _insert_token(random: Random, data: bytes, _samples: Sequence[Sample]) -> bytes:
    at = _place(random, data)
    return data[:at] + random.choice(TOKENS) * random.choice((1, 1, 1, 2, 10)) + data[at:]


def _replace_by_token(random: Random, data: bytes, _samples: Sequence[Sample]) -> bytes:
    start = _place(random, data)
    return data[:start] + random.choice(TOKENS) + data[start + random.choice((1, 2, 5)) :]


def _repeat(random: Random, data: bytes, _samples: Sequence[Sample]) -> bytes:
    start = _place(random, data)
    end = start + random.choice((1, 4, 16, 64))
    return data[:end] + data[start:end] * random.choice((1, 2, 30)) + data[end:]


def _splice(random: Random, data: bytes, samples: Sequence[Sample]) -> bytes:
    other = random.choice(samples).data
    return data[: _place(random, data)] + other[_place(random, other) :]


_Damage = Callable[[Random, bytes, Sequence[Sample]], bytes]
_BINARY: tuple[_Damage, ...] = (
    _flip_bit, _flip_bit, _set_byte, _set_byte, _truncate, _behead, _cut_out, _insert_random, _repeat, _splice,
)  # fmt: skip
_WRITTEN: tuple[_Damage, ...] = (*_BINARY, _insert_token, _insert_token, _replace_by_token, _replace_by_token)
