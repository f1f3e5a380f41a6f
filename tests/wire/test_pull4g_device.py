"""The device's side of the 4G pull protocol: what it writes, and what it makes of what it reads."""

from __future__ import annotations

import pytest

from mynah.errors import WireError
from mynah.wire import pull4g
from mynah.wire.pull4g import (
    Audio,
    AudioEnd,
    AudioStart,
    Codec,
    DeviceStream,
    ErrorCode,
    Failed,
    Heard,
    Options,
    Ready,
    Received,
    Said,
    Unknown,
)


def test_commands_are_written() -> None:
    everything = Options("t", Codec.OPUS, 24000, framed=True, text=True, offset=0)
    told = b"SESSION_START:aabbccddeeff;token=t;codec=opus;rate=24000;frame=1;text=1;from=0"
    assert pull4g.device_start("AA:bb-CCddEEff", everything, framed=False) == told + b"\n"
    assert pull4g.device_start("AABBCCDDEEFF", everything, framed=True) == bytes([1, 0, 0, len(told)]) + told
    assert pull4g.device_start("AABBCCDDEEFF", Options(), framed=False) == b"SESSION_START:aabbccddeeff\n"
    assert (
        pull4g.device_request("aabbccddeeff", Options(offset=5), framed=False)
        == b"REQUEST_AUDIO:aabbccddeeff;from=5\n"
    )
    assert (
        pull4g.device_interrupt("aabbccddeeff", framed=False, token="t")
        == b"INTERRUPT:aabbccddeeff;token=t\n"
    )
    assert pull4g.device_complete(framed=False) == b"RECORDING_COMPLETE\n"
    assert pull4g.device_keep_alive(framed=False) == b"\n"
    assert pull4g.device_keep_alive(framed=True) == b"\x01\x00\x00\x00"
    assert pull4g.device_acknowledge(7) == b"\x03\x00\x00\x04\x00\x00\x00\x07"
    assert pull4g.device_audio(b"ab", framed=True) == b"\x02\x00\x00\x02ab"


@pytest.mark.parametrize(
    "device_id", ["", "aabbccddeef", "aabbccddeeff0", "aabbccddeefg", "aa::bbccddeeff", "aabbccddeeff\n"]
)
def test_ids_that_are_none_are_not_sent(device_id: str) -> None:
    with pytest.raises(WireError, match="12 hex digits"):
        pull4g.device_interrupt(device_id, framed=False)


@pytest.mark.parametrize("token", ["a;b", "a b", "a\n", "ä", "t" * 230])
def test_tokens_that_fit_in_no_line_are_not_sent(token: str) -> None:
    with pytest.raises(WireError, match="token"):
        pull4g.device_request("aabbccddeeff", Options(token), framed=False)


def test_a_reply_in_plain_mode() -> None:
    whole = (
        b"STT:hello\r\nSENTENCE:\xe4\xbd\xa0\nAUDIO_START\nAUDIO_ENAUDIO_\nAUDIO_END\n"
        b"AUDIO_START\nAUDIO_END\r\nERROR:no_session:none\n\nSURPRISE\nERROR:new:x\n"
    )
    expected = [
        Heard("hello"), Said("你"), AudioStart(), Audio(b"AUDIO_ENAUDIO_\n"), AudioEnd(False), AudioStart(),
        AudioEnd(False), Failed(ErrorCode.NO_SESSION, "none"), Unknown("SURPRISE"), Unknown("ERROR:new:x"),
    ]  # fmt: skip
    assert DeviceStream().feed(whole) == expected


def test_audio_is_passed_on_but_for_what_may_be_its_end() -> None:
    stream = DeviceStream()
    assert stream.feed(b"AUDIO_START\nabcAUDIO") == [AudioStart(), Audio(b"abc")]
    assert stream.feed(b"_EN") == []
    assert stream.feed(b"x") == [Audio(b"AUDIO_ENx")]
    assert stream.feed(b"AUDIO_END") == [AudioEnd(False)]


def test_frames_behind_the_line_that_announces_them() -> None:
    stream = DeviceStream()
    assert stream.feed(b"ERROR:busy:later\nSESSION_READY:s1\n\x03\x00\x00\x04\x00\x00\x00\x09") == [
        Failed(ErrorCode.BUSY, "later"), Ready("s1"), Received(9),
    ]  # fmt: skip
    assert stream.framed
    assert stream.feed(b"\x01\x01\x00\x09AUDIO_END\x01\x00\x00\x0bAUDIO_START\x02\x00\x00\x00\x09\x00\x00\x01x") == [
        AudioEnd(True), AudioStart(), Unknown("a frame of type 9 with 1 bytes"),
    ]  # fmt: skip


def test_frames_without_an_announcement() -> None:
    """A server may answer the poll of a device that came back in frames at once."""
    stream = DeviceStream()
    assert stream.feed(b"\x01\x00\x00\x0bAUDIO_START\x02\x00\x00\x02ab") == [AudioStart(), Audio(b"ab")]
    assert stream.framed


def test_what_is_kept_of_a_line_without_end_is_bounded() -> None:
    stream = DeviceStream()
    events = [event for _ in range(100) for event in stream.feed(b"x" * 99)]
    assert len(stream._rest) <= 257
    assert all(isinstance(event, Unknown) and len(event.line) == 256 for event in events)
    assert len(events) == 38
