"""For tests of the 4G pull protocol: bytes in pieces, and audio that comes in pieces."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import TypeVar

from mynah.wire.pull4g import Audio

Event = TypeVar("Event")


def pieces(whole: bytes, cuts: Sequence[int]) -> list[bytes]:
    marks = [0, *sorted(cut % (len(whole) + 1) for cut in cuts), len(whole)]
    return [whole[start:end] for start, end in itertools.pairwise(marks)]


def joined(events: Iterable[Event]) -> list[Event | Audio]:
    """Put neighbouring audio together."""
    found: list[Event | Audio] = []
    for event in events:
        last = found[-1] if found else None
        if isinstance(event, Audio) and isinstance(last, Audio):
            assert event.data
            found[-1] = Audio(last.data + event.data)
        else:
            found.append(event)
    return found
