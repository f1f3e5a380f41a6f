"""What all conversations share: providers, audio, memory. Built from the settings, started, and taken down again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, cast

from loguru import logger

from mynah.audio.codec_pool import CodecThreads
from mynah.audio.echo import choose
from mynah.audio.encode import EncoderPool, Form, PcmCoders, SpeechEncoder
from mynah.audio.ingest_remote import ScalingIngest
from mynah.audio.pacer import Pacer, PacerStats
from mynah.config import Settings
from mynah.dialogue.admission import Admission, Bounds, Level, Thresholds
from mynah.dialogue.allowance import DailyAllowance
from mynah.dialogue.completeness import judge
from mynah.dialogue.continuity import Conversations
from mynah.dialogue.delays import Delays
from mynah.dialogue.patience import Profiles
from mynah.dialogue.prompt import Prompt, read_template
from mynah.dialogue.record import SessionObserver
from mynah.dialogue.services import DialogueSettings, Services
from mynah.dialogue.speak import Voice
from mynah.dialogue.speculation import Speculation
from mynah.dialogue.tally import TurnTally
from mynah.dialogue.turn import TurnPolicy
from mynah.dialogue.turned_away import BUSY
from mynah.dialogue.wording import Replacements, spoken
from mynah.errors import MynahError
from mynah.providers import registry
from mynah.providers.base import (
    AsrProvider,
    IntentProvider,
    Kind,
    LlmProvider,
    MemoryProvider,
    Provider,
    TtsProvider,
    TurnDetectorProvider,
    VadProvider,
    VllmProvider,
)
from mynah.providers.turn.guard import GuardedTurnDetector
from mynah.providers.vad_guard import GuardedVadEngine
from mynah.providers.wrap import GuardedAsr, GuardedLlm, GuardedTts, GuardedVllm
from mynah.resources import whole_cores
from mynah.texts import variants
from mynah.tools.base import Reminders
from mynah.tools.loader import load_plugins
from mynah.tools.toolbox import Toolbox

CODEC_THREADS = min(max(whole_cores() // 2, 1), 2)
"""One encodes for 800 devices that speak at the same moment, more than the event loop can serve. On two cores a second
one only gets in the loop's way: with 400 of them, first audio took twice as long, and three times as many frames were
late."""
LOCAL_ASR_TIMEOUT_S = 10.0
"""A recogniser on this machine is not unreachable, only busy: its text is worth waiting for longer."""
MAX_NO_VOICE_S = 100.0
"""Firmware takes a connection without data for dead after 120 s; we close before 110, and look every 5 s."""
READY_PHRASES = (BUSY, "greeting", "filler", "farewell", "nothing_heard", "error_provider", "error_timeout")
"""Texts that are synthesised at the start: greetings and fillers must come at once, apologies when a voice is down."""

log = logger.bind(tag="app")


class Engine:
    """The machinery behind all sessions."""

    def __init__(
        self, settings: Settings, observer: SessionObserver, reminders: Callable[[str], Reminders]
    ) -> None:
        """``reminders`` returns those of a device."""
        self.settings = settings
        self._observer = observer
        self._reminders = reminders
        self._providers: list[Provider[Any]] = []
        self._codec = CodecThreads(CODEC_THREADS)
        self._pacer: Pacer | None = None
        self.ingest: ScalingIngest | None = None
        self.vllm: GuardedVllm | None = None
        self.tally: TurnTally | None = None
        self.admission = _admission(settings)
        """How much there is to do, and who may begin a conversation."""
        self._speculation = Speculation(settings.conversation.speculation)
        self._calm = asyncio.Event()
        self._calm.set()

    @property
    def pacing(self) -> PacerStats:
        """How punctually audio has left so far."""
        return self._pacer.stats if self._pacer is not None else PacerStats()

    async def start(self) -> Services:
        """Start everything. Raises ConfigError and ProviderError; call `stop` also then."""
        settings = self.settings
        vad, intent = self._create(Kind.VAD), self._create(Kind.INTENT)
        memory = self._create(Kind.MEMORY)
        assert isinstance(vad, VadProvider)
        assert isinstance(intent, IntentProvider)
        assert isinstance(memory, MemoryProvider)
        asr = _guarded_asr(cast(AsrProvider[Any], self._create(Kind.ASR)), settings.timeouts.asr_s)
        llm = GuardedLlm(
            cast(LlmProvider[Any], self._create(Kind.LLM)), first_timeout_s=settings.timeouts.llm_s
        )
        tts = GuardedTts(
            cast(TtsProvider[Any], self._create(Kind.TTS)), first_timeout_s=settings.timeouts.tts_s
        )
        self._providers = [vad, asr, llm, tts, intent, memory]
        detector = self._turn_detector()
        if settings.selected_module.VLLM:
            self.vllm = GuardedVllm(
                cast(VllmProvider[Any], self._create(Kind.VLLM)), timeout_s=settings.timeouts.vllm_s
            )
            self._providers.append(self.vllm)
        await self._start_providers()
        engine = GuardedVadEngine(
            vad.engine(), vad.name, lambda error: log.warning("voice detection {}: {}", vad.name, error)
        )
        beside = settings.server.audio_process == "auto" and whole_cores() > 1
        self.ingest = ScalingIngest(engine, vad.source() if beside else None)
        self.ingest.start()
        self._codec.start()
        self._pacer = Pacer()
        return self._services(vad, asr, llm, tts, intent, memory, detector)

    def _services(
        self,
        vad: VadProvider[Any],
        asr: AsrProvider[Any],
        llm: LlmProvider[Any],
        tts: GuardedTts,
        intent: IntentProvider[Any],
        memory: MemoryProvider[Any],
        detector: GuardedTurnDetector | None,
    ) -> Services:
        settings, conversation = self.settings, self.settings.conversation
        assert self.ingest is not None
        assert self._pacer is not None
        audio = settings.xiaozhi.audio_params
        rate = (
            audio.sample_rate if audio.sample_rate != "auto" else _downlink_rate(tts.capabilities.sample_rate)
        )
        for words in ("a", "好"):
            judge(words)  # reads its word lists: not in the middle of a conversation
        language = _language(settings)
        prompt = _prompt(settings)

        def now() -> datetime:
            return datetime.now(settings.zone())

        self.tally = TurnTally(self._observer, self._speculation)
        return Services(
            settings=_dialogue_settings(settings, rate),
            ingest=self.ingest,
            asr=asr,
            vad=vad.capabilities,
            llm=llm,
            voice=self._voice(tts, self._pacer, rate),
            toolbox=_toolbox(settings, intent.functions),
            intent=intent,
            observer=self.tally,
            now=now,
            prompt=prompt,
            memory=memory,
            conversations=Conversations(
                conversation.history_tokens, language, conversation.resume_s, time.monotonic
            ),
            allowance=DailyAllowance(settings.device_max_output_size, lambda: now().date()),
            profiles=Profiles(),
            speculation=self._speculation,
            delays=Delays(),
            reminders=self._reminders,
            turn_detector=detector,
            echo=choose(conversation.echo_cancellation),
            admission=self.admission,
        )

    def _voice(self, tts: GuardedTts, pacer: Pacer, rate: int) -> Voice:
        """``rate`` in Hz of what is pushed to devices."""
        replacements = Replacements(self.settings.conversation.replacements)
        opus, pcm = EncoderPool(), PcmCoders()

        def encoder(form: Form) -> SpeechEncoder:
            coders = opus if form.opus else pcm
            return SpeechEncoder(self._codec, tts.capabilities.sample_rate, form.rate, encoders=coders)

        def reword(text: str) -> str:
            return replacements.apply(spoken(text))

        return Voice(tts, pacer, encoder, reword=reword, form=Form(rate))

    async def stop(self) -> None:
        """Take everything down. Safe after a failed `start`."""
        if self._pacer is not None:
            self._pacer.close()
        if self.ingest is not None:
            self.ingest.stop()
        ended = await asyncio.gather(
            *(provider.stop() for provider in self._providers), return_exceptions=True
        )
        for error in ended:
            if isinstance(error, BaseException):
                log.warning("a provider did not stop cleanly: {}", error)
        self._codec.stop()

    async def warm(self, services: Services) -> None:
        """Have the phrases ready that people should hear at once: greetings, fillers, apologies."""
        phrases = [phrase for key in READY_PHRASES for phrase in self._phrases(key)]
        failures = 0
        for phrase in phrases:
            await self._calm.wait()  # those who talk now go first
            failures += await services.voice.warm([phrase])
        # Whoever fetches PCM, as the simplest devices do, shall hear as well that there is no room.
        fetched = services.voice.through(services.voice.player, Form(16000, opus=False))
        for phrase in self._phrases(BUSY):
            failures += await fetched.warm([phrase])
        if failures:
            log.warning(
                "{} of {} phrases could not be prepared: the voice {} does not answer",
                failures,
                len(phrases),
                services.voice.tts.name,
            )

    @property
    def encoding(self) -> CodecThreads:
        """What encodes; `mynah.watch` looks at how long audio waits for it."""
        return self._codec

    def adjust(self, level: Level) -> None:
        """Do more or less, as fits the level."""
        self._speculation.paused = level is not Level.NORMAL
        if level is Level.NORMAL:
            self._calm.set()
        else:
            self._calm.clear()

    def keep_ready(self, services: Services) -> None:
        """Call now and then: what is said to whom there is no room for must not be the least recently used phrase."""
        for phrase, language in self._phrases(BUSY):
            services.voice.knows(phrase, language)

    def _phrases(self, key: str) -> list[tuple[str, str]]:
        """Return the sentences of a text in all languages that are spoken, with the language of each."""
        languages = ("en", "zh") if self.settings.language == "auto" else (_language(self.settings),)
        return [(phrase, language) for language in languages for phrase in variants(key, language)]

    def _turn_detector(self) -> GuardedTurnDetector | None:
        if not self.settings.selected_module.TurnDetector:
            return None
        detector = GuardedTurnDetector(
            cast(TurnDetectorProvider[Any], self._create(Kind.TURN_DETECTOR)),
            lambda error: log.warning("turn detector: {}", error),
        )
        self._providers.append(detector)
        return detector

    def _create(self, kind: Kind) -> Provider[Any]:
        name, entry = self.settings.entry(kind)
        return registry.create(kind, name, entry)

    async def _start_providers(self) -> None:
        """Start all side by side. When one cannot, the others are given the time to finish before it is told."""
        started = await asyncio.gather(
            *(provider.start() for provider in self._providers), return_exceptions=True
        )
        for provider, outcome in zip(self._providers, started, strict=True):
            if isinstance(outcome, MynahError):
                outcome.args = (f"{provider.name}: {outcome}",)
            if isinstance(outcome, BaseException):
                raise outcome


def _downlink_rate(tts_rate: int) -> int:
    """Return the Opus rate that keeps what the voice has: more would only cost bandwidth."""
    return 16000 if tts_rate <= 16000 else 24000


def check(settings: Settings) -> None:
    """Look at what can be wrong with a conversation's settings, without starting anything. Raises ConfigError."""
    _prompt(settings)
    choose(settings.conversation.echo_cancellation)


def _prompt(settings: Settings) -> Prompt:
    template = read_template(settings.prompt_template)
    return Prompt(_language(settings), settings.prompt, template, location=settings.location)


def _language(settings: Settings) -> str:
    return "en" if settings.language == "auto" else settings.language


def _dialogue_settings(settings: Settings, rate: int) -> DialogueSettings:
    conversation = settings.conversation
    return DialogueSettings(
        language=_language(settings),
        policy=TurnPolicy.from_phrases(
            settings.wakeup_words,
            settings.exit_commands,
            settings.enable_greeting,
            conversation.interruption.judge,
        ),
        sample_rate=rate,
        no_voice_s=min(settings.close_connection_no_voice_time, MAX_NO_VOICE_S),
        farewell=settings.end_prompt.enable,
        farewell_prompt=settings.end_prompt.prompt,
        adaptive=conversation.endpointing.adaptive,
        max_silence_ms=conversation.endpointing.max_silence_ms,
        fillers=conversation.fillers,
    )


def _admission(settings: Settings) -> Admission:
    overload = settings.server.overload
    thresholds = Thresholds(
        lag_s=Bounds(overload.tense_lag_ms / 1000, overload.full_lag_ms / 1000),
        queue_s=Bounds(overload.tense_queue_ms / 1000, overload.full_queue_ms / 1000),
        always=overload.always,
    )
    return Admission(thresholds, enabled=overload.enabled)


def _guarded_asr(asr: AsrProvider[Any], timeout_s: float) -> GuardedAsr:
    if asr.capabilities.local:
        return GuardedAsr(asr, first_timeout_s=max(timeout_s, LOCAL_ASR_TIMEOUT_S), tries=1)
    return GuardedAsr(asr, first_timeout_s=timeout_s)


def _toolbox(settings: Settings, allowed: frozenset[str] | None) -> Toolbox:
    folder = settings.plugins.get("plugins_dir")
    plugins = load_plugins(Path(folder) if folder else None)
    for fault in plugins.faults:
        log.warning("plugin {} is not used: {}", fault.file, fault.reason)
    own = [f.spec.name for f in plugins.functions if not f.module.startswith("mynah.")]
    if own:
        log.info("tools from {}: {}", folder, ", ".join(own))
    sections = {name: section for name, section in settings.plugins.items() if isinstance(section, dict)}
    functions = [f for f in plugins.functions if allowed is None or f.spec.name in allowed]
    for name in sorted((allowed or frozenset()) - {function.spec.name for function in functions}):
        log.warning("Intent functions: there is no tool {}", name)
    return Toolbox(functions, sections, settings.timeouts.tool_s)
