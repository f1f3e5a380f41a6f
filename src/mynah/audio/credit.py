"""How much audio a stream may bring: what a piece of audio costs, and how fast the means come back.

The account is a virtual clock (a leaky bucket): each piece moves the time at which the credit is whole again on by
the time in which its own share comes back, and what would move it further than `MAX_DEBT_S` from now is refused.
So an account is one number, and nothing has to run for it to fill.
"""

from __future__ import annotations

from typing import Final

from mynah.audio.opus import MAX_PACKET_MS, packet_duration_ms

BURST_S: Final = 6.0
"""Audio in seconds that a stream may bring at once. A wake word comes with the 2 s before it, and a mobile link that
stood still delivers 2.4 s from the device's queue besides what TCP held back."""

FILL_RATE: Final = 2.0
"""Seconds of credit that a stream gets per second. Nobody speaks faster than real time; twice that lets one who fell
behind catch up, and makes differences between clocks unimportant."""

PCM_PART: Final = 0.5
"""What PCM costs of the same time as Opus: it needs no decoder. So 12 s may come at once, and four times real time
after that; a device that records first and sends then has its command through without waiting."""

MAX_DEBT_S: Final = BURST_S / FILL_RATE
"""Time in which the whole credit comes back."""


def _first_byte_s(toc: int) -> float:
    """Cost by the first byte of a packet; of code 3 packets, which have any number of frames: for one frame."""
    return packet_duration_ms(bytes((toc, 1))) / 1000 / FILL_RATE


_COST_S: Final = tuple(_first_byte_s(toc) for toc in range(256))
_LEAST_S: Final = min(_COST_S)
"""Also the least audio is work."""
_MOST_S: Final = MAX_PACKET_MS / 1000 / FILL_RATE


def opus_cost_s(packet: bytes) -> float:
    """Return the seconds in which the credit for a packet comes back. What is not Opus costs something as well."""
    toc = packet[0] if packet else 0
    cost = _COST_S[toc]
    if toc & 3 == 3 and len(packet) > 1:
        return min(max(packet[1] & 0x3F, 1) * cost, _MOST_S)
    return cost


def pcm_cost_s(size: int, sample_rate: int) -> float:
    """Return the seconds in which the credit for ``size`` bytes of 16-bit mono PCM at ``sample_rate`` Hz comes back."""
    return max(size / (2 * sample_rate * FILL_RATE) * PCM_PART, _LEAST_S)
