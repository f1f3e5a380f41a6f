"""A recogniser that hears the same sentence in everything, after a set delay. For benchmarks and tests."""

from __future__ import annotations

import asyncio

from pydantic import Field

from mynah.errors import ProviderError
from mynah.providers.base import AsrCapabilities, AsrProvider, AsrRequest, AsrStream, Transcript
from mynah.providers.faults import FaultOptions, Faults

_TEXTS = {"en": "What time is it?", "zh": "现在几点了？"}


class FakeAsrOptions(FaultOptions):
    """Options of the fake recogniser."""

    text: str | None = Field(
        default=None, description="what it hears; left out: a question in the device's language"
    )
    languages: tuple[str, ...] = Field(default=("en", "zh"), description="languages it claims to understand")


class FakeAsr(AsrProvider[FakeAsrOptions]):
    """Test double; never a default."""

    Options = FakeAsrOptions
    summary = "test double: hears a set text after a set delay"

    def __init__(self, name: str, options: FakeAsrOptions) -> None:
        super().__init__(name, options)
        self._faults = Faults(name, options)

    @property
    def capabilities(self) -> AsrCapabilities:
        """At 16 kHz; all its work comes at the end."""
        return AsrCapabilities(languages=self.options.languages)

    def open_stream(self, request: AsrRequest) -> AsrStream:
        """Begin an utterance."""
        text = self.options.text
        return _FakeStream(
            self.name, self._faults, request, text or _TEXTS.get(request.language, _TEXTS["en"])
        )


class _FakeStream:
    def __init__(self, name: str, faults: Faults, request: AsrRequest, text: str) -> None:
        self._name = name
        self._faults = faults
        self._request = request
        self._text = text
        self._heard = False
        self._cancelled = False

    def feed(self, pcm: bytes) -> None:
        """Note that there was audio."""
        self._heard = self._heard or bool(pcm)

    async def interim(self) -> Transcript:
        """Answer as `finish` does, without ending the utterance."""
        return await self.finish()

    async def finish(self) -> Transcript:
        """Answer ``delay_ms`` later; nothing when there was no audio."""
        if self._cancelled:
            raise ProviderError("this utterance was cancelled", provider=self._name)
        await self._faults.first_result(asyncio.get_running_loop().time())
        return Transcript(text=self._text if self._heard else "", language=self._request.language)

    def cancel(self) -> None:
        """Forget the utterance."""
        self._cancelled = True
