"""Alerts on their way to a device: shown in between replies, because one in the middle would make it stutter."""

from __future__ import annotations

from collections.abc import Callable

from mynah.wire.messages import Alert

MAX_ALERTS = 4
"""Alerts that wait for the end of a reply; a person reads no more at once. Overflow policy: the oldest is dropped."""


class Alerts:
    """The alerts that wait. Made for the first one."""

    __slots__ = ("_send", "_waiting")

    def __init__(self, send: Callable[[Alert], None]) -> None:
        self._send = send
        self._waiting: list[Alert] = []

    def add(self, alert: Alert) -> None:
        """Have it shown at the next `flush`."""
        self._waiting.append(alert)
        del self._waiting[:-MAX_ALERTS]

    def flush(self) -> None:
        """No reply is being spoken: show what waits."""
        waiting, self._waiting = self._waiting, []
        for alert in waiting:
            self._send(alert)
