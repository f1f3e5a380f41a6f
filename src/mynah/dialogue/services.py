"""What a session is given: its link to the device, its settings, and everything that all sessions share."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, Protocol

import msgspec

from mynah.audio.echo import EchoCanceller
from mynah.audio.ingest import Ingest
from mynah.dialogue.admission import Admission
from mynah.dialogue.allowance import DailyAllowance
from mynah.dialogue.continuity import Conversations
from mynah.dialogue.delays import Delays
from mynah.dialogue.events import Fell
from mynah.dialogue.patience import Patience, Profiles
from mynah.dialogue.prompt import Prompt
from mynah.dialogue.record import SessionObserver
from mynah.dialogue.speak import Voice
from mynah.dialogue.speculation import Speculation
from mynah.dialogue.turn import TurnPolicy
from mynah.providers.base import AsrProvider, IntentProvider, LlmProvider, MemoryProvider, VadCapabilities
from mynah.providers.turn.guard import GuardedTurnDetector
from mynah.texts import text
from mynah.tools.base import Reminders
from mynah.tools.toolbox import Toolbox
from mynah.wire.messages import ServerMessage


class Link(Protocol):
    """One connection to a device, whatever the transport. All calls return at once and never raise."""

    def send(self, message: ServerMessage) -> None:
        """Send a JSON message."""

    def send_audio(self, packet: bytes, timestamp_ms: int) -> None:
        """Send one Opus packet."""

    def close(self, code: int = 1000, reason: str = "") -> None:
        """End the connection; `Session.on_closed` follows. ``code``: as in WebSocket close frames."""


class VisionAccess(msgspec.Struct, frozen=True):
    """Where a device sends its camera's pictures. Always both texts: some clients ignore MCP without them."""

    url: str
    token: str


class DialogueSettings(msgspec.Struct, frozen=True):
    """What a conversation needs to know of the configuration."""

    language: str
    """``en`` or ``zh``: used when the words themselves do not tell."""
    policy: TurnPolicy
    sample_rate: int = 24000
    """Of the down-link, Hz."""
    no_voice_s: float = 105.0
    """Silence after which the conversation is closed; firmware takes a link without data for dead after 120 s."""
    farewell: bool = True
    """Whether something is said before that."""
    farewell_prompt: str = ""
    """What the language model is asked for it; empty: a built-in phrase is said."""
    adaptive: bool = True
    """Whether the silence that ends an utterance is fitted to the user and to the words."""
    max_silence_ms: int = 1500
    fillers: bool = True

    def fell(self, language: str) -> Fell:
        """Return what happens when nobody has spoken for long to a device that listens."""
        if not self.farewell:
            return Fell("")
        if self.farewell_prompt:
            return Fell(self.farewell_prompt, asked=True)
        return Fell(text("farewell_idle", language))


class Services(msgspec.Struct, frozen=True):
    """Everything sessions share."""

    settings: DialogueSettings
    ingest: Ingest
    asr: AsrProvider[Any]
    vad: VadCapabilities
    llm: LlmProvider[Any]
    voice: Voice
    toolbox: Toolbox
    intent: IntentProvider[Any]
    observer: SessionObserver
    now: Callable[[], datetime]
    prompt: Prompt
    memory: MemoryProvider[Any]
    conversations: Conversations
    allowance: DailyAllowance
    profiles: Profiles
    speculation: Speculation
    delays: Delays
    reminders: Callable[[str], Reminders]
    """Returns the reminders of a device."""
    turn_detector: GuardedTurnDetector | None = None
    echo: Callable[[], EchoCanceller] | None = None
    """Makes what takes the echo out of a device's microphone, for those that leave it to the server."""
    admission: Admission = msgspec.field(default_factory=Admission)
    """Who may begin a conversation."""

    def patience(self, device_id: str) -> Patience:
        """Return how long to wait for the user of a device."""
        settings, detector = self.settings, self.turn_detector
        return Patience(
            self.profiles.of(device_id),
            self.vad.min_silence_ms,
            settings.max_silence_ms,
            adaptive=settings.adaptive,
            threshold=detector.threshold if detector is not None else 0.5,
        )
