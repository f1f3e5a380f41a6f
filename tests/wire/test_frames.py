import pytest
from hypothesis import given
from hypothesis import strategies as st

from mynah.errors import WireError
from mynah.wire.frames import MAX_PACKET_BYTES, AudioFrame, decode_audio, encode_audio

packets = st.binary(min_size=1, max_size=2000)


@given(version=st.sampled_from([1, 2, 3]), packet=packets, timestamp=st.integers(0, 2**32 - 1))
def test_round_trip(version: int, packet: bytes, timestamp: int) -> None:
    frame = encode_audio(version, packet, timestamp)
    expected = AudioFrame(packet, timestamp if version == 2 else 0)
    assert decode_audio(version, frame) == expected
    assert decode_audio(version, memoryview(frame)) == expected


def test_layouts() -> None:
    assert encode_audio(1, b"abc", 7) == b"abc"
    assert (
        encode_audio(2, b"abc", 0x01020304) == bytes.fromhex("0002 0000 00000000 01020304 00000003") + b"abc"
    )
    assert encode_audio(3, b"abc") == bytes.fromhex("00 00 0003") + b"abc"


def test_timestamp_wraps_at_32_bits() -> None:
    assert decode_audio(2, encode_audio(2, b"x", 2**32 + 5)).timestamp == 5


def test_the_packet_is_a_copy() -> None:
    buffer = bytearray(encode_audio(3, b"abc"))
    frame = decode_audio(3, memoryview(buffer))
    buffer[4:] = b"xyz"
    assert frame.packet == b"abc"


def test_dtx_packets_are_packets() -> None:
    for packet in (b"\x58", b"\x58\x00", b"\x58\x00\x00"):
        assert decode_audio(1, packet).packet == packet


@pytest.mark.parametrize(
    ("version", "frame", "reason"),
    [
        (1, b"", "1 to"),
        (2, b"", "truncated"),
        (3, b"", "truncated"),
        (2, bytes(15), "truncated"),
        (3, b"\x00\x00\x00", "truncated"),
        (2, encode_audio(2, b"abc")[:-1], "claims 3 bytes of audio and carries 2"),
        (3, encode_audio(3, b"abc")[:-1], "claims 3 bytes of audio and carries 2"),
        (2, encode_audio(2, b"abc") + b"d", "claims 3 bytes of audio and carries 4"),
        (3, encode_audio(3, b"abc") + b"d", "claims 3 bytes of audio and carries 4"),
        (2, encode_audio(3, bytes(40)), "version 0 on a version 2"),
        (2, bytes.fromhex("0002 0001 00000000 00000000 00000001") + b"x", "type 1 is not audio"),
        (3, bytes.fromhex("01 00 0001") + b"x", "type 1 is not audio"),
        (2, bytes.fromhex("0002 0000 00000000 00000000 00000000"), "1 to"),
        (3, bytes(4), "1 to"),
        (1, bytes(MAX_PACKET_BYTES + 1), "1 to"),
        (3, b"\x00\x00\x20\x01" + bytes(MAX_PACKET_BYTES + 1), "1 to"),
        (4, b"abc", "version 4"),
    ],
)
def test_bad_frames(version: int, frame: bytes, reason: str) -> None:
    with pytest.raises(WireError, match=reason):
        decode_audio(version, frame)


@pytest.mark.parametrize(
    ("version", "packet"), [(0, b"x"), (4, b"x"), (1, b""), (3, bytes(MAX_PACKET_BYTES + 1))]
)
def test_what_cannot_be_framed(version: int, packet: bytes) -> None:
    with pytest.raises(WireError):
        encode_audio(version, packet)


@given(version=st.integers(0, 4), frame=st.binary(max_size=64))
def test_any_frame_is_audio_or_a_wire_error(version: int, frame: bytes) -> None:
    try:
        decoded = decode_audio(version, frame)
    except WireError:
        return
    assert decoded.packet
    assert frame.endswith(decoded.packet)
