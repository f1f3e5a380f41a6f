"""A device that hears itself, as a calculation: what a server sends it, and what comes back with which stamps.

The loudspeaker's buffer and the stamps are those of the simulated device; time is counted in milliseconds and nothing
waits. A packet is stamped as played when it was written to the sound chip, which plays it `DeviceTiming.output_ms`
later; a frame of the microphone was recorded `input_ms` before it is stamped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import msgspec
import numpy as np

from mynah.audio.opus import OpusDecoder, OpusEncoder
from mynah.audio.pcm import resample
from mynah.bench.echo_room import RATE, Floats, Room, floats, pcm
from mynah.sim.echo_stamps import EchoStamps
from mynah.sim.speaker import Speaker

DOWN_RATE: Final = 24000
DOWN_MS: Final = 60
LEAD: Final = 3
"""Packets that the server sends ahead."""


class Sent(msgspec.Struct, frozen=True):
    """The server sends a packet of a reply."""

    at_ms: float
    stamp: int
    packet: bytes


class Heard(msgspec.Struct, frozen=True):
    """The server gets a frame of the microphone."""

    at_ms: float
    stamp: int
    packet: bytes


class DeviceTiming(msgspec.Struct, frozen=True):
    """What the network and the device's buffers do to time, in ms."""

    down_ms: Callable[[int], float] = lambda _: 15.0
    """Delay of the nth packet to the device; order is kept."""
    up_ms: Callable[[int], float] = lambda _: 15.0
    """Delay of the nth frame to the server; order is kept."""
    frame_ms: int = 60
    """Of the microphone's frames."""
    phase_ms: int = 0
    """When the first frame begins."""
    output_ms: int = 30
    input_ms: int = 20
    lost: frozenset[int] = frozenset()
    """Numbers of the microphone's frames that the device throws away, stamps and all."""
    silent_from_ms: float = float("inf")
    """From here on no frame carries a stamp."""


def reply(sound: Floats, at_ms: float = 0.0, first_stamp: int = 0) -> list[Sent]:
    """Return the packets of one reply and when a server that paces them sends them."""
    encoder = OpusEncoder(DOWN_RATE, DOWN_MS, complexity=5)
    data = resample(pcm(sound), RATE, DOWN_RATE)
    data += bytes(-len(data) % encoder.frame_bytes)
    frames = [data[at : at + encoder.frame_bytes] for at in range(0, len(data), encoder.frame_bytes)]
    return [
        Sent(at_ms + max(0, n - LEAD + 1) * DOWN_MS, first_stamp + (n + 1) * DOWN_MS, encoder.encode(frame))
        for n, frame in enumerate(frames)
    ]


def converse(
    replies: Sequence[Sequence[Sent]],
    room: Room,
    near: Floats,
    timing: DeviceTiming | None = None,
) -> list[Sent | Heard]:
    """Let the device play the replies while it records, for as long as ``near``; return what happens at the server."""
    timing = timing or DeviceTiming()
    total_ms = len(near) * 1000 // RATE
    played, stamps = _play(replies, timing, total_ms)
    sound = room.record(played, near)
    encoder = OpusEncoder(RATE, timing.frame_ms, complexity=0, dtx=True)
    heard: list[Sent | Heard] = []
    latest = 0.0
    samples = encoder.frame_samples
    for number, stamp in enumerate(stamps):
        begin = (timing.phase_ms + number * timing.frame_ms - timing.input_ms) * RATE // 1000
        frame = np.zeros(samples, np.float32)
        if begin >= 0:
            piece = sound[begin : begin + samples]
            frame[: len(piece)] = piece
        packet = encoder.encode(pcm(frame))
        done = timing.phase_ms + (number + 1) * timing.frame_ms
        if number in timing.lost:
            continue
        latest = max(latest, done + timing.up_ms(number))
        heard.append(Heard(latest, 0 if done >= timing.silent_from_ms else stamp, packet))
    sent: list[Sent | Heard] = [packet for one in replies for packet in one]
    return sorted(sent + heard, key=lambda event: event.at_ms)


def _play(replies: Sequence[Sequence[Sent]], timing: DeviceTiming, total_ms: int) -> tuple[Floats, list[int]]:
    """Return what the loudspeaker plays and the stamp of each frame of the microphone."""
    arrivals: list[tuple[float, bool, Sent]] = []
    latest, number = 0.0, 0
    for one in replies:
        for index, packet in enumerate(one):
            latest = max(latest, packet.at_ms + timing.down_ms(number))
            arrivals.append((latest, index == 0, packet))
            number += 1
    stamps = EchoStamps()
    speaker = Speaker(stamps=stamps)
    decoder = OpusDecoder(RATE)
    sound = np.zeros(total_ms * RATE // 1000 + RATE, np.float32)
    taken: list[int] = []
    frames = 0
    waiting = iter(arrivals)
    following = next(waiting, None)
    for now in range(total_ms):
        while following is not None and following[0] <= now:
            _, first, packet = following
            if first:
                speaker.begin(now / 1000)
            speaker.push(packet.packet, DOWN_MS / 1000, now / 1000, packet.stamp)
            following = next(waiting, None)
        speaker.advance(now / 1000)
        for played in speaker.played[frames:]:
            at = (now + timing.output_ms) * RATE // 1000
            piece = floats(decoder.decode(played))[: len(sound) - at]
            sound[at : at + len(piece)] += piece
            frames += 1
        if now >= timing.phase_ms + timing.frame_ms and (now - timing.phase_ms) % timing.frame_ms == 0:
            stamp = stamps.take()
            taken.append(stamp)
    return sound[: total_ms * RATE // 1000], taken
