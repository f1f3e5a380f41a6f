"""What a session is given: its link to the device, its settings, and everything that all sessions share."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, Protocol

import msgspec

from mynah.audio.ingest import Ingest
from mynah.dialogue.record import SessionObserver
from mynah.dialogue.speak import Voice
from mynah.dialogue.turn import TurnPolicy
from mynah.providers.base import AsrProvider, LlmProvider, VadCapabilities
from mynah.tools.toolbox import Toolbox
from mynah.wire.messages import ServerMessage


class Link(Protocol):
    """One connection to a device, whatever the transport. All calls return at once and never raise."""

    def send(self, message: ServerMessage) -> None:
        """Send a JSON message."""

    def send_audio(self, packet: bytes, timestamp_ms: int) -> None:
        """Send one Opus packet."""

    def close(self) -> None:
        """End the connection; `Session.on_closed` follows."""


class VisionAccess(msgspec.Struct, frozen=True):
    """Where a device sends its camera's pictures. Always both texts: some clients ignore MCP without them."""

    url: str
    token: str


class DialogueSettings(msgspec.Struct, frozen=True):
    """What a conversation needs to know of the configuration."""

    prompt: str
    language: str
    """``en`` or ``zh``: used when the words themselves do not tell."""
    policy: TurnPolicy
    sample_rate: int = 24000
    """Of the down-link, Hz."""
    history_tokens: int = 4000
    no_voice_s: float = 105.0
    """Silence after which the conversation is closed; firmware takes a link without data for dead after 120 s."""


class Services(msgspec.Struct, frozen=True):
    """Everything sessions share."""

    settings: DialogueSettings
    ingest: Ingest
    asr: AsrProvider[Any]
    vad: VadCapabilities
    llm: LlmProvider[Any]
    voice: Voice
    toolbox: Toolbox
    offers_tools: bool
    observer: SessionObserver
    now: Callable[[], datetime]
