"""The wall around turn detectors: whatever one does, a turn goes on in time, and ends by silence as without it."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from typing import Any, Final

from mynah.errors import MynahError, ProviderError, ProviderProtocolError, ProviderTimeoutError
from mynah.providers.base import Provider, ProviderOptions, TurnDetectorProvider
from mynah.providers.wrap import provider_errors

TIMEOUT_S: Final = 0.15
"""An answer later than this comes when the pause is nearly long enough by itself."""
REPORT_PAUSE_S: Final = 60.0
"""A detector is asked at every pause of every user; one that fails is reported once a minute."""


class GuardedTurnDetector(Provider[ProviderOptions]):
    """A turn detector that answers within ``timeout_s`` or not at all."""

    def __init__(
        self,
        inner: TurnDetectorProvider[Any],
        report: Callable[[MynahError], None],
        *,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        """``report`` gets what went wrong, at most every `REPORT_PAUSE_S`. It is called on the event loop."""
        super().__init__(inner.name, inner.options)
        self._inner, self._report = inner, report
        self.timeout_s = timeout_s
        self._reported_at = float("-inf")

    @property
    def threshold(self) -> float:
        """Probability at or above which the speaker has finished."""
        return self._inner.threshold

    async def start(self) -> None:
        """Start the detector inside. Raises ProviderError only."""
        with provider_errors(self.name):
            await self._inner.start()

    async def stop(self) -> None:
        """Stop the detector inside. Raises ProviderError only."""
        with provider_errors(self.name):
            await self._inner.stop()

    async def judge(self, pcm: bytes) -> float | None:
        """Return how likely (0…1) it is that the speaker has finished; None when there is no answer in time.

        ``pcm`` is the utterance so far, s16le mono at 16 kHz. Raises nothing but the cancellation of its caller.
        """
        try:
            return await self._asked(pcm)
        except MynahError as error:  # a plug-in may raise any of ours
            now = time.monotonic()
            if now - self._reported_at >= REPORT_PAUSE_S:
                self._reported_at = now
                self._report(error)
            return None

    async def _asked(self, pcm: bytes) -> float:
        with provider_errors(self.name):
            try:
                async with asyncio.timeout(self.timeout_s):
                    result = float(await self._inner.probability(pcm))
            except TimeoutError as error:
                message = f"no answer within {self.timeout_s * 1000:.0f} ms"
                raise ProviderTimeoutError(message, provider=self.name) from error
            except asyncio.CancelledError as error:
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise
                # The detector cancelled something of its own; the turn was not told to end.
                raise ProviderError("gave up its own work", provider=self.name) from error
            if not (math.isfinite(result) and 0.0 <= result <= 1.0):
                raise ProviderProtocolError(f"answered {result}, which is no probability", provider=self.name)
            return result
