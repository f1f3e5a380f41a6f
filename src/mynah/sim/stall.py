"""Notices when this process itself was held up, so that its own delays are not blamed on a server."""

from __future__ import annotations

import asyncio
import time

BEAT_S = 0.02
"""How often to look: fifty short callbacks a second."""

STALL_S = 0.01
"""A beat that comes later than this was held up: by other work on the loop, or by the machine."""


class StallDetector:
    """Watches one event loop while it is started."""

    def __init__(self) -> None:
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._stalled_at = float("-inf")

    def start(self) -> None:
        """Begin to watch; does nothing when it does already."""
        if self._timer is None:
            self._arm()

    def stop(self) -> None:
        """Watch no longer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def stalled(self, now: float) -> bool:
        """Say whether what is read from a socket at ``now`` may have lain there for a while."""
        if self._timer is None:
            return False
        return now - self._stalled_at < BEAT_S or now - self._due > STALL_S

    def _arm(self) -> None:
        self._due = time.monotonic() + BEAT_S
        self._timer = asyncio.get_running_loop().call_later(BEAT_S, self._beat)

    def _beat(self) -> None:
        now = time.monotonic()
        if now - self._due > STALL_S:
            self._stalled_at = now
        self._arm()
