"""What a device suffers in silence, counted."""

from __future__ import annotations

import msgspec


class Counters(msgspec.Struct):
    """What went wrong, as a device would feel it. All zero with a sound server."""

    overflow: int = 0
    """Packets dropped because more than 40 were waiting: the server does not pace."""
    lost_before_speaking: int = 0
    """Packets that came so soon after ``tts start`` that the device was not speaking yet."""
    stray_audio: int = 0
    """Packets outside ``tts start`` … ``stop``."""
    bad_payload: int = 0
    """Audio that makes firmware read out of bounds, or that it cannot decode."""
    bad_stamps: int = 0
    """Packets for echo cancelling whose stamp is zero or does not grow."""
    hello_without_transport: int = 0
    """A hello that makes firmware crash."""
    cut_off: int = 0
    """Packets of a finished reply that the next reply's flush threw away before they were heard."""
    stuck_speaking: int = 0
    """Times the device was left speaking without ``tts stop``."""
    second_hello: int = 0
    """More than one hello on a connection spoils the next one."""
    second_start: int = 0
    """``tts start`` inside a reply: one of the two replies has no end."""
    refused_start: int = 0
    """``tts start`` while the device was still connecting: it refuses to speak, and the reply is lost."""
    stop_without_start: int = 0
    """``tts stop`` outside a reply that answers no abort and no wake word: it may cut the next reply."""
    alert_during_tts: int = 0
    """Alerts inside a reply: they make it stutter."""
    unreadable_messages: int = 0
    """Text frames that are no message, or of a type this device does not know."""
    long_silence: int = 0
    """Times the open connection brought nothing for more than 110 s: close to being taken for dead."""
    dead_channel: int = 0
    """Times it brought nothing for more than 120 s when it was needed: taken for dead, and what comes then is lost."""
    nvs_overflow: int = 0
    """Settings that do not fit into flash: firmware aborts at every boot."""
    bad_version: int = 0
    """Firmware versions that ``std::stoi`` cannot read: firmware aborts at every boot."""
    failed_upgrade: int = 0
    """Firmware that was offered and could not be fetched: seconds of alarm at every boot."""
    upgrade_loop: int = 0
    """Firmware offered again right after it was installed: the device would do nothing else any more."""
    missing_final: int = 0
    """Replies of the JSON dialect without a last audio message."""
    missed_heartbeats: int = 0
    """Heartbeats of the JSON dialect that were not acknowledged before the next was due."""
