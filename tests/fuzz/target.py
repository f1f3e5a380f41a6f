"""What a target is: a decoder with valid input, the errors it may raise, and what must hold for what it accepts.

A target's ``feed`` returns True for accepted and False for refused input. Any other exception than the documented ones
is a finding, and so is an `AssertionError`: an invariant that does not hold.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

import msgspec

from tests.fuzz.mutations import Sample, Shape, mutate

KILO, MEGA = 1 << 10, 1 << 20


@dataclass(frozen=True)
class Target:
    """One decoder."""

    name: str
    feed: Callable[[bytes], bool]
    corpus: Callable[[], tuple[Sample, ...]]
    shape: Shape
    limit: int
    """Longest input in bytes that can reach the decoder."""
    slow_ms: float = 50.0
    """CPU time that no input may take: everything else on the event loop waits for it."""

    def input(self, seed: int, index: int) -> bytes:
        """Return the input with this number of the run with this seed."""
        random = Random((seed << 64) ^ (zlib.crc32(self.name.encode()) << 32) ^ index)
        return mutate(random, self.corpus(), self.shape, self.limit)


TARGETS: dict[str, Target] = {}


def target(
    name: str, corpus: Callable[[], tuple[Sample, ...]] | tuple[Sample, ...], shape: Shape, limit: int
) -> Callable[[Callable[[bytes], bool]], Callable[[bytes], bool]]:
    """Put a function into the table."""
    found = corpus if callable(corpus) else lambda: corpus

    def put(feed: Callable[[bytes], bool]) -> Callable[[bytes], bool]:
        assert name not in TARGETS
        TARGETS[name] = Target(name, feed, found, shape, limit)
        return feed

    return put


# ---------------------------------------------------------------- from bytes to what a decoder takes


def written(data: bytes) -> str:
    """Text as it may reach us: any character, half surrogate pairs included."""
    try:
        return data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def head_and_body(data: bytes) -> tuple[dict[str, str], bytes]:
    """Headers as an HTTP parser hands them over (bytes that are no UTF-8 become half surrogates), and the body."""
    head, _, body = data.partition(b"\r\n\r\n")
    headers: dict[str, str] = {}
    for line in head.decode("utf-8", "surrogateescape").split("\r\n"):
        name, _, value = line.partition(":")
        headers.setdefault(name.strip(), value.strip())
    return headers, body


def lowered(headers: Mapping[str, str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in headers.items():
        found.setdefault(name.lower(), value)
    return found


def pieces(whole: Any, salt: int) -> Iterator[Any]:
    """Cut a text or bytes into pieces, always the same ones for the same input."""
    random = Random(salt)
    at = 0
    while at < len(whole):
        size = random.choice((1, 1, 2, 3, 7, 50, 1000))
        yield whole[at : at + size]
        at += size


def loaded(data: bytes) -> Any:
    """Read JSON as the wire does. Raises ValueError."""
    try:
        return msgspec.json.decode(data)
    except RecursionError:
        raise ValueError("too deep") from None
