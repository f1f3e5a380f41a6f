"""A vision model that sees the same thing in every picture. For benchmarks and tests."""

from __future__ import annotations

import asyncio

from pydantic import Field

from mynah.providers.base import VisionRequest, VllmCapabilities, VllmProvider
from mynah.providers.faults import FaultOptions, Faults

_SEEN = {
    "en": "There is a red cup on a wooden table, and a window behind it.",
    "zh": "木桌上有一个红色的杯子，后面是一扇窗。",
}


class FakeVllmOptions(FaultOptions):
    """Options of the fake vision model."""

    text: str | None = Field(
        default=None, description="what it answers; left out: one sentence about a red cup"
    )


class FakeVllm(VllmProvider[FakeVllmOptions]):
    """Test double; never a default."""

    Options = FakeVllmOptions
    summary = "test double: sees the same thing in every picture"

    def __init__(self, name: str, options: FakeVllmOptions) -> None:
        super().__init__(name, options)
        self._faults = Faults(name, options)

    @property
    def capabilities(self) -> VllmCapabilities:
        """Every format: it looks at none."""
        return VllmCapabilities()

    async def describe(self, request: VisionRequest) -> str:
        """Answer ``delay_ms`` after the request."""
        await self._faults.first_result(asyncio.get_running_loop().time())
        return self.options.text or _SEEN.get(request.language, _SEEN["en"])
