"""A turn detector that is always equally sure. For benchmarks and tests."""

from __future__ import annotations

import asyncio

from pydantic import Field

from mynah.providers.base import TurnDetectorOptions, TurnDetectorProvider
from mynah.providers.faults import FaultOptions, Faults


class FakeTurnDetectorOptions(TurnDetectorOptions, FaultOptions):
    """Options of the fake turn detector."""

    probability: float = Field(default=0.9, ge=0, le=1, description="its answer to everything")


class FakeTurnDetector(TurnDetectorProvider[FakeTurnDetectorOptions]):
    """Test double; never a default."""

    Options = FakeTurnDetectorOptions
    summary = "test double: gives a set probability after a set delay"

    def __init__(self, name: str, options: FakeTurnDetectorOptions) -> None:
        super().__init__(name, options)
        self._faults = Faults(name, options)

    async def probability(self, pcm: bytes) -> float:  # noqa: ARG002 - every sound is the same to it
        """Answer ``delay_ms`` after the question. Raises ProviderError when it was told to."""
        await self._faults.first_result(asyncio.get_running_loop().time())
        return self.options.probability
