"""Whom a session talks to."""

from __future__ import annotations

import msgspec

from mynah.audio.echo import EchoControl
from mynah.dialogue.continuity import Kept
from mynah.tools.base import Reminders


class Talker(msgspec.Struct):
    """Whom a session talks to; a device may tell its name only after it has connected."""

    device_id: str
    session_id: str
    kept: Kept
    """The conversation, which outlives the connection."""
    reminders: Reminders
    echo: EchoControl | None = None
    """Takes the echo of what it is sent out of what it hears; None when the device does that itself, or nobody."""
