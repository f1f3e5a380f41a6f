"""The embedded voice: eSpeak NG in-process, English, Mandarin and a hundred more; no key, no download."""

from __future__ import annotations

import asyncio
import enum
from collections.abc import AsyncGenerator
from concurrent.futures import Future

from pydantic import Field

from mynah.audio.espeak import SAMPLE_RATE, Delivery, EspeakSynthesizer, Span, script_runs, speakable
from mynah.errors import AudioError, ProviderError, ProviderRejectedError
from mynah.providers.base import ProviderOptions, TtsCapabilities, TtsProvider, TtsRequest

# Words per minute at speed 1. Mandarin is slow at English rates: 155 gives three characters a second, people talk
# at four to five.
_RATE_EN = 155
_RATE_ZH = 225
_SLOWEST, _FASTEST = 80, 450  # the library's range


class Gender(enum.StrEnum):
    """Which kind of voice reads, unless a variant is named."""

    FEMALE = "female"
    MALE = "male"


# Of each gender the variant whose English a speech recogniser understood best, and that does not clip at full volume.
_VARIANTS = {Gender.FEMALE: "f5", Gender.MALE: "adam"}


class EspeakOptions(ProviderOptions):
    """Options of eSpeak NG."""

    voice_en: str = Field(default="en-us", description="English voice: en-us, en-gb, en-gb-scotland …")
    voice_zh: str = Field(
        default="cmn", description="Chinese voice: cmn (Mandarin), yue (Cantonese), hak (Hakka)"
    )
    gender: Gender = Field(default=Gender.FEMALE, description="female or male")
    variant: str | None = Field(
        default=None,
        description="a particular variant of eSpeak NG (f1…f5, m1…m8, Annie …); wins over gender",
    )
    speed: float = Field(default=1.0, ge=0.5, le=2.5, description="1 is brisk but relaxed")
    pitch: int = Field(default=50, ge=0, le=99, description="0 (deep) to 99 (high)")
    pitch_range: int = Field(default=50, ge=0, le=99, description="0 (a monotone) to 99 (lively)")
    volume: int = Field(default=100, ge=0, le=150, description="100 is full; above, loud vowels clip")
    gap_ms: int = Field(
        default=120, ge=0, le=1000, description="silence after every sentence, in milliseconds"
    )


class EspeakTts(TtsProvider[EspeakOptions]):
    """eSpeak NG."""

    Options = EspeakOptions
    summary = "eSpeak NG in-process: English, Mandarin and a hundred more; no key, no download"

    def __init__(self, name: str, options: EspeakOptions) -> None:
        super().__init__(name, options)
        self._synthesizer: EspeakSynthesizer | None = None
        self._variant = options.variant or _VARIANTS[options.gender]

    @property
    def capabilities(self) -> TtsCapabilities:
        """22.05 kHz; any other eSpeak NG language works too when the request names it."""
        return TtsCapabilities(sample_rate=SAMPLE_RATE, languages=("en", "zh"))

    async def start(self) -> None:
        """Load the library and check the configured voices. Raises ProviderError."""
        synthesizer = self._synthesizer = self._synthesizer or EspeakSynthesizer()
        known = await asyncio.to_thread(self._check, synthesizer)
        for key, voice in (("voice_en", self.options.voice_en), ("voice_zh", self.options.voice_zh)):
            if voice.partition("+")[0] not in known:
                near = sorted(name for name in known if name[:1] == voice[:1].lower()) or sorted(known)
                message = f"{key}: eSpeak NG has no {voice!r}; it has {', '.join(near)}"
                raise ProviderRejectedError(message, provider=self.name)

    def _check(self, synthesizer: EspeakSynthesizer) -> set[str]:
        try:
            variants = synthesizer.variants()
            known = {voice.name for voice in synthesizer.voices()}
        except AudioError as error:
            raise ProviderError(str(error), provider=self.name) from error
        if self._variant not in variants:
            message = f"variant: eSpeak NG has no {self._variant!r}; it has {', '.join(variants)}"
            raise ProviderRejectedError(message, provider=self.name)
        return known

    async def stop(self) -> None:
        """Let the thread go."""
        synthesizer, self._synthesizer = self._synthesizer, None
        if synthesizer is not None:
            await asyncio.to_thread(synthesizer.close)

    async def synthesize(self, request: TtsRequest) -> AsyncGenerator[bytes, None]:
        """Speak one sentence; English words within Chinese get the English voice, and the reverse."""
        spans = self._spans(request)
        if not spans:
            return
        if self._synthesizer is None:
            raise ProviderError("not started", provider=self.name)
        loop = asyncio.get_running_loop()
        # Bounded by the text (at most MAX_TEXT characters): a full queue would block the worker of all sessions.
        pieces: asyncio.Queue[bytes | None] = asyncio.Queue()
        wanted = True

        def take(pcm: bytes) -> bool:
            if wanted:
                _post(loop, pieces, pcm)
            return wanted

        def done(_future: Future[None]) -> None:
            _post(loop, pieces, None)

        job = self._synthesizer.submit(spans, take, gap_s=self.options.gap_ms / 1000)
        job.add_done_callback(done)
        try:
            while (piece := await pieces.get()) is not None:
                yield piece
            job.result()
        except AudioError as error:
            raise ProviderRejectedError(str(error), provider=self.name) from error
        finally:
            wanted = False
            job.cancel()

    def _spans(self, request: TtsRequest) -> list[Span]:
        text = speakable(request.text)
        if not any(char.isalnum() for char in text):
            return []
        if request.voice:
            return [self._span(text, request.language, request.voice)]
        voices = {"en": self.options.voice_en, "zh": self.options.voice_zh}
        return [
            self._span(run, language, voices.get(language, language))
            for language, run in script_runs(text, request.language)
        ]

    def _span(self, text: str, language: str, voice: str) -> Span:
        options = self.options
        rate = round((_RATE_ZH if language == "zh" else _RATE_EN) * options.speed)
        return Span(
            text=text,
            voice=voice if "+" in voice else f"{voice}+{self._variant}",
            delivery=Delivery(
                rate_wpm=min(max(rate, _SLOWEST), _FASTEST),
                pitch=options.pitch,
                pitch_range=options.pitch_range,
                volume=options.volume,
            ),
        )


def _post(loop: asyncio.AbstractEventLoop, pieces: asyncio.Queue[bytes | None], piece: bytes | None) -> None:
    """Hand a piece to the event loop; nobody is listening any more when it is closed."""
    try:
        loop.call_soon_threadsafe(pieces.put_nowait, piece)
    except RuntimeError:
        if not loop.is_closed():
            raise
