"""Delays and faults for the providers of type ``fake``, which benchmarks, demos and tests use.

They only ever wait with ``asyncio.sleep``, so they also work on a loop whose time is virtual.
"""

from __future__ import annotations

import asyncio
import random

from pydantic import Field

from mynah.errors import ProviderUnavailableError
from mynah.providers.base import ProviderOptions

_HANG_S = 86400.0  # a day: longer than any time-out


class FaultOptions(ProviderOptions):
    """What every fake can be told to do wrong."""

    delay_ms: float = Field(default=50.0, ge=0, description="time to the first result, in milliseconds")
    error_rate: float = Field(default=0.0, ge=0, le=1, description="share of requests that fail, 0 to 1")
    hang: bool = Field(default=False, description="never answer, to try time-outs")
    seed: int | None = Field(default=None, description="makes the failures reproducible; left out: random")


class Faults:
    """Carries out the faults of one fake provider."""

    def __init__(self, name: str, options: FaultOptions) -> None:
        self._name = name
        self._options = options
        self._random = random.Random(options.seed)

    async def first_result(self, started: float) -> None:
        """Return when the first result is due, or fail, or hang.

        It is due ``delay_ms`` after ``started`` (loop time, seconds).
        Raises ProviderUnavailableError for the share of calls that ``error_rate`` asks for.
        """
        if self._options.hang:
            await asyncio.sleep(_HANG_S)
            raise ProviderUnavailableError("the fake was told to hang (hang)", provider=self._name)
        await sleep_until(started + self._options.delay_ms / 1000)
        if self._random.random() < self._options.error_rate:
            raise ProviderUnavailableError("the fake was told to fail (error_rate)", provider=self._name)


async def sleep_until(due: float) -> None:
    """Sleep until the loop's clock shows ``due`` (seconds); steps in a row do not add up their lateness."""
    now = asyncio.get_running_loop().time()
    if due > now:
        await asyncio.sleep(due - now)
