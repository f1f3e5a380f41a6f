"""The recording of a wake word, which firmware sends in a burst before it says that it has heard one."""

from __future__ import annotations

from collections import deque

from mynah.audio.opus import packet_duration_ms
from mynah.errors import AudioError

MAX_PACKETS = 40
"""Firmware sends at most two seconds, 33 packets. Overflow policy: the oldest is dropped."""
MAX_AGE_S = 5.0
"""The burst and the word that follows come in the same second; what is older is left over from something else."""


class WakeAudio:
    """Packets that came while nobody listened. Exists only where there are some."""

    __slots__ = ("_packets",)

    def __init__(self) -> None:
        self._packets: deque[tuple[float, bytes]] = deque(maxlen=MAX_PACKETS)

    def push(self, packet: bytes, now: float) -> None:
        """Keep one Opus packet. ``now`` in seconds, on the same clock as for `duration_ms`."""
        self._packets.append((now, packet))

    def duration_ms(self, now: float) -> int:
        """Return how much of it belongs to a wake word that is told now, in ms."""
        total = 0.0
        for at, packet in self._packets:
            if now - at <= MAX_AGE_S:
                try:
                    total += packet_duration_ms(packet)
                except AudioError:
                    continue  # no audio, so it has no length
        return round(total)
