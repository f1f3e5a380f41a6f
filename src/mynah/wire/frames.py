"""Binary framing of audio: one Opus packet per frame, in the layout the device asked for.

The layout comes from the ``Protocol-Version`` header and holds for both directions; integers are big-endian.

======= ==================================================================================================
version layout
======= ==================================================================================================
1       the packet alone
2       u16 version = 2, u16 type = 0, u32 reserved, u32 timestamp, u32 length of the packet, packet
3       u8 type = 0, u8 reserved, u16 length of the packet, packet
======= ==================================================================================================
"""

from __future__ import annotations

import struct

import msgspec

from mynah.errors import WireError

MAX_PACKET_BYTES = 8192
"""The longest packet taken: 120 ms as six Opus frames of at most 1275 bytes is 7.7 kB (RFC 6716 §3.4)."""

_V2 = struct.Struct(">HHIII")
_V3 = struct.Struct(">BBH")
_TYPE_OPUS = 0
_U32_MASK = 0xFFFF_FFFF


class AudioFrame(msgspec.Struct, frozen=True, gc=False):
    """One Opus packet. ``timestamp`` is the device's opaque u32 tag, 0 when the layout carries none."""

    packet: bytes
    timestamp: int = 0


def encode_audio(version: int, packet: bytes, timestamp: int = 0) -> bytes:
    """Frame one Opus packet. ``timestamp`` is cut to 32 bits; only version 2 carries it.

    Raises WireError when the packet is empty or too long, or the version is not 1, 2 or 3.
    """
    size = len(packet)
    if not 0 < size <= MAX_PACKET_BYTES:
        raise WireError(f"an Opus packet has 1 to {MAX_PACKET_BYTES} bytes, not {size}")
    if version == 1:
        return packet
    if version == 3:
        return _V3.pack(_TYPE_OPUS, 0, size) + packet
    if version == 2:
        return _V2.pack(2, _TYPE_OPUS, 0, timestamp & _U32_MASK, size) + packet
    raise WireError(f"no audio framing has version {version}")


def decode_audio(version: int, frame: bytes | memoryview) -> AudioFrame:
    """Take the Opus packet out of one binary frame; the packet is copied, so ``frame`` may be reused.

    Raises WireError when the frame is truncated, too long, carries another length than it claims or no audio.
    """
    total = len(frame)
    timestamp = 0
    if version == 1:
        header = 0
    elif version == 3:
        header = _V3.size
        if total < header:
            raise WireError(f"truncated frame: {total} bytes are less than a version 3 header")
        kind, _, size = _V3.unpack_from(frame)
        _check(kind, size, total - header)
    elif version == 2:
        header = _V2.size
        if total < header:
            raise WireError(f"truncated frame: {total} bytes are less than a version 2 header")
        claimed, kind, _, timestamp, size = _V2.unpack_from(frame)
        if claimed != 2:
            raise WireError(f"frame of version {claimed} on a version 2 connection")
        _check(kind, size, total - header)
    else:
        raise WireError(f"no audio framing has version {version}")
    if not 0 < total - header <= MAX_PACKET_BYTES:
        raise WireError(f"an Opus packet has 1 to {MAX_PACKET_BYTES} bytes, not {total - header}")
    return AudioFrame(bytes(frame[header:]), timestamp)


def _check(kind: int, claimed: int, actual: int) -> None:
    if kind != _TYPE_OPUS:
        raise WireError(f"frame of type {kind} is not audio")
    if claimed != actual:
        raise WireError(f"frame claims {claimed} bytes of audio and carries {actual}")
