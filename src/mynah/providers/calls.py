"""What is told about each request to an AI service, to whoever watches: which, how long it took, what went wrong."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Final

import msgspec

from mynah.errors import MynahError
from mynah.providers.base import Kind

CANCELLED: Final = "cancelled"
"""Stands for an error where nobody waited for the result any more: a turn was interrupted, a guess did not hold."""


class ProviderCall(msgspec.Struct, frozen=True, gc=False):
    """One request to a provider. A retry is a request of its own."""

    kind: Kind
    name: str
    """Of the configured entry."""
    seconds: float
    """Until the first result, or until it failed."""
    error: str = ""
    """Code of the error (`mynah.errors`) or `CANCELLED`; empty when all went well."""


CallWatch = Callable[[ProviderCall], None]
"""Told of each request when it is over; on the event loop, must return at once."""


@contextlib.contextmanager
def timed(watch: CallWatch | None, kind: Kind, name: str) -> Iterator[None]:
    """Tell ``watch`` of the request made inside, whose only result is its end. Nobody watches: costs nothing."""
    if watch is None:
        yield
        return
    began, error = time.monotonic(), CANCELLED
    try:
        yield
        error = ""
    except MynahError as problem:
        error = problem.code
        raise
    finally:
        watch(ProviderCall(kind, name, time.monotonic() - began, error))


class StreamTiming:
    """Follows a request whose result comes in pieces, and tells ``watch`` of it at its end."""

    __slots__ = ("_began", "_kind", "_name", "_seconds", "_watch", "error")

    def __init__(self, watch: CallWatch | None, kind: Kind, name: str) -> None:
        self._watch, self._kind, self._name = watch, kind, name
        self._began = time.monotonic() if watch is not None else 0.0
        self._seconds: float | None = None
        self.error = CANCELLED
        """To be set when it ends by itself: empty, or the code of the error."""

    def first(self) -> None:
        """The first piece is here. Who stops reading from here on has what he wanted: that is no cancelling."""
        if self._watch is not None:
            self._seconds = time.monotonic() - self._began
            self.error = ""

    def over(self) -> None:
        """Nothing more will come."""
        if self._watch is not None:
            seconds = time.monotonic() - self._began if self._seconds is None else self._seconds
            self._watch(ProviderCall(self._kind, self._name, seconds, self.error))
