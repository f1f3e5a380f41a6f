"""The server's side of the 4G pull protocol: commands, markers, frames, and what is no command."""

from __future__ import annotations

import sys

import pytest

from mynah.errors import WireError
from mynah.wire import pull4g
from mynah.wire.frames import MAX_PACKET_BYTES
from mynah.wire.pull4g import (
    Acknowledge,
    Audio,
    ClientEvent,
    Codec,
    ErrorCode,
    Interrupt,
    KeepAlive,
    Malformed,
    Options,
    RecordingComplete,
    Request,
    ServerStream,
    Start,
)
from mynah.wire.pull4g_words import HEADER, MAX_LINE_BYTES, audio
from tests.wire.pull4g_pieces import joined

ID = "aa:bb:cc:dd:ee:ff"
OTHER = "11:22:33:44:55:66"
PLAIN = Options()
FRAMED = Options(framed=True)
START = b"SESSION_START:AABBCCDDEEFF\n"


def told(*pieces: bytes) -> list[ClientEvent]:
    """What the pieces say, with neighbouring audio put together."""
    stream = ServerStream()
    return joined([event for piece in pieces for event in stream.feed(piece)])


def framed(*frames: bytes, start: bytes = b"SESSION_START:aabbccddeeff;frame=1\n") -> list[ClientEvent]:
    """What frames say behind a beginning in framed mode."""
    return told(start + b"".join(frames))[1:]


def frame(kind: int, content: bytes) -> bytes:
    return HEADER.pack(kind, 0, len(content)) + content


def only_malformed(events: list[ClientEvent]) -> str:
    (event,) = events
    assert isinstance(event, Malformed)
    assert not event.fatal
    return event.text


# ---------------------------------------------------------------- commands


@pytest.mark.parametrize(
    "written",
    [b"AABBCCDDEEFF", b"aabbccddeeff", b" aAbBcCdDeEfF ", b"\taa:bb:cc:dd:ee:ff", b"AA-BB-CC-DD-EE-FF",
     b"aabb:cc-ddeeff"],
)  # fmt: skip
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b" \r\n"])
def test_ids_are_read_in_every_form(written: bytes, end: bytes) -> None:
    assert told(b"REQUEST_AUDIO:" + written + end) == [Request(ID, PLAIN)]
    assert told(b"INTERRUPT:" + written + end) == [Interrupt(ID, PLAIN)]
    assert told(b"SESSION_START:" + written + end + b"\x01\x02") == [Start(ID, PLAIN), Audio(b"\x01\x02")]


def test_options_are_read() -> None:
    line = b"SESSION_START:AABBCCDDEEFF ; token = a.b-c=d ;codec=ADPCM;rate=8000; frame=0;TEXT=1;from=77;new=1;;x\n"
    assert told(line) == [Start(ID, Options("a.b-c=d", Codec.ADPCM, 8000, False, True, 77))]
    line = b"REQUEST_AUDIO:AABBCCDDEEFF;from=0;codec=opus;rate=24000;frame=1\r\n"
    assert told(line) == [Request(ID, Options(None, Codec.OPUS, 24000, True, False, 0))]
    assert told(b"INTERRUPT:AABBCCDDEEFF;token=t;rate=1;frame=1\n\n") == [
        Interrupt(ID, Options("t")),
        KeepAlive(),
    ]


@pytest.mark.parametrize(
    ("option", "allowed"),
    [
        (b"codec=flac", "pcm, adpcm or opus"),
        (b"codec=opus", "frame=1"),
        (b"codec=opus;frame=1;rate=44100", "8000, 12000, 16000, 24000 or 48000"),
        (b"rate=7999", "8000 to 48000"),
        (b"rate=48001", "8000 to 48000"),
        (b"rate=fast", "8000 to 48000"),
        (b"rate=", "8000 to 48000"),
        (b"frame=yes", "0 or 1"),
        (b"text=2", "0 or 1"),
        (b"from=-1", "0 to 4294967295"),
        (b"from=4294967296", "0 to 4294967295"),
        (b"from=99999999999999999999", "0 to 4294967295"),
    ],
)
def test_bad_options_are_refused_with_what_is_allowed(option: bytes, allowed: str) -> None:
    text = only_malformed(told(b"REQUEST_AUDIO:AABBCCDDEEFF;" + option + b"\n"))
    assert allowed in text
    assert len(pull4g.error(ErrorCode.BAD_COMMAND, text, framed=False)) <= MAX_LINE_BYTES + 1


@pytest.mark.parametrize("rate", [b"8000", b"11025", b"22050", b"44100", b"48000"])
def test_rates_between_the_limits_are_taken(rate: bytes) -> None:
    assert told(b"SESSION_START:AABBCCDDEEFF;rate=" + rate + b"\n") == [Start(ID, Options(rate=int(rate)))]


def test_a_refused_recording_is_skipped_to_its_end() -> None:
    line = b"SESSION_START:AABBCCDDEEFF;codec=flac\n"
    behind = b"REQUEST_AUDIO:AABBCCDDEEFF\n"
    assert told(line + b"\x00\n\x01" * 500 + b"RECORDING_COMPLETE\n" + behind)[1:] == [Request(ID, PLAIN)]
    assert told(line + b"\x00\n\x01" * 500 + behind)[1:] == [Request(ID, PLAIN)]
    again = told(line + b"\x00\n\x01" * 500 + START + b"ab")
    assert again[1:] == [Start(ID, PLAIN), Audio(b"ab")]
    # The device sends frames, whatever was wrong with its other options.
    line = b"SESSION_START:AABBCCDDEEFF;codec=flac;frame=1\n"
    assert told(line + audio(b"abc", True) + frame(1, b"")) == [
        Malformed("codec is pcm, adpcm or opus"),
        KeepAlive(),
    ]


@pytest.mark.parametrize(
    "line",
    [b"HELLO", b"GET / HTTP/1.1", b"session_start:AABBCCDDEEFF", b"REQUEST_AUDIO", b"REQUEST_AUDIO:AABB",
     b"INTERRUPT:AABBCCDDEEFG", b"REQUEST_AUDIO:AABBCCDDEEFF ;x=1 y".replace(b";", b"?"), "你好".encode()],
)  # fmt: skip
def test_unknown_lines_are_refused_and_the_next_one_is_read(line: bytes) -> None:
    only_malformed(told(line + b"\n"))
    assert told(line + b"\r\n" + START)[1] == Start(ID, PLAIN)


def test_an_id_that_is_none_is_named() -> None:
    assert "12 hex digits" in only_malformed(told(b"SESSION_START:me\n"))


def test_blank_lines_keep_alive() -> None:
    assert told(b"\n\r\n \t\n") == [KeepAlive()] * 3


@pytest.mark.parametrize(
    "piece", [b"x" * 257, b"SESSION_START:AABBCCDDEEFF;token=" + b"x" * 300, b"x" * 257 + b"\n"]
)
def test_a_line_without_end_is_fatal(piece: bytes) -> None:
    stream = ServerStream()
    (event,) = stream.feed(piece)
    assert isinstance(event, Malformed)
    assert event.fatal
    assert stream.feed(b"\n" + START) == []
    assert stream.settle() == []


def test_the_longest_line_is_read() -> None:
    token = "t" * (MAX_LINE_BYTES - len("REQUEST_AUDIO:AABBCCDDEEFF;token="))
    for end in ("\n", "\r\n"):
        line = f"REQUEST_AUDIO:AABBCCDDEEFF;token={token}{end}".encode()
        assert told(line) == told(*(bytes([byte]) for byte in line)) == [Request(ID, Options(token))]


@pytest.mark.parametrize("noise", [b"\x16\x03\x01\x00\xa5\x01\x00\n", b"abc\x00\n", b"\x7f\n"])
def test_audio_where_a_line_should_be_is_fatal(noise: bytes) -> None:
    assert [event.fatal for event in told(noise + noise) if isinstance(event, Malformed)] == [True]


# ---------------------------------------------------------------- commands without an end


def test_a_command_without_end_is_complete_with_what_follows() -> None:
    glued = b"RECORDING_COMPLETEREQUEST_AUDIO:AABBCCDDEEFFINTERRUPT:AABBCCDDEEFF\n"
    assert told(b"SESSION_START:AABBCCDDEEFF\x00\x01" + glued) == [
        Start(ID, PLAIN), Audio(b"\x00\x01"), RecordingComplete(), Request(ID, PLAIN), Interrupt(ID, PLAIN),
    ]  # fmt: skip


@pytest.mark.parametrize("sound", [b"; \x80\x00", b" \x00", b";a\xff\n", b"\r\x00"])
def test_audio_that_begins_like_options_is_audio(sound: bytes) -> None:
    assert told(b"SESSION_START:AABBCCDDEEFF" + sound + b"\x00") == [Start(ID, PLAIN), Audio(sound + b"\x00")]


@pytest.mark.parametrize("blank", [b"", b" ", b"\r", b" \r"])
@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
def test_silence_completes_a_command(blank: bytes, end: bytes) -> None:
    for word, event in ((b"SESSION_START:", Start), (b"REQUEST_AUDIO:", Request), (b"INTERRUPT:", Interrupt)):
        stream = ServerStream()
        assert stream.feed(word + b"AABBCCDDEEFF" + blank) == []
        assert stream.settling
        assert stream.settle() == [event(ID, PLAIN)]
        assert not stream.settling
        # The end of the line may come later, even in two pieces.
        assert [event for byte in end for event in stream.feed(bytes([byte]))] == []
        if event is Start:
            assert stream.feed(b"ab") == [Audio(b"ab")]
        elif end:
            assert stream.feed(b"\n") == [KeepAlive()]


@pytest.mark.parametrize(
    "begun",
    [
        b"",
        b"SESSION_START:",
        b"SESSION_START:AABBCCDDEEF",
        b"REQUEST_AUDIO:AABBCCDDEEFF;from=1",
        b"HELLO",
        START,
    ],
)
def test_silence_completes_nothing_else(begun: bytes) -> None:
    stream = ServerStream()
    stream.feed(begun)
    assert not stream.settling
    assert stream.settle() == []


def test_silence_completes_a_command_in_audio() -> None:
    stream = ServerStream()
    stream.feed(START)
    assert stream.feed(b"ab\nINTERRUPT:11:22:33:44:55:66") == [Audio(b"ab\nINTERRUPT:11:22:33:44:55:66")]
    assert not stream.settling
    assert stream.feed(b"INTERRUPT:AA:BB:CC:DD:EE:FF") == []
    assert stream.settling
    assert stream.settle() == [Interrupt(ID, PLAIN)]
    assert stream.feed(b"\r\n\n") == [KeepAlive()]


# ---------------------------------------------------------------- markers


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
def test_the_end_of_a_recording_is_found_behind_any_audio(end: bytes) -> None:
    sound = b"RECORDING_COMPLET\xffRECORDINGRECORDING_\x00INTERRUPT:\nSESSION_START:112233445566\n"
    whole = START + sound + b"RECORDING_COMPLETE" + end + b"REQUEST_AUDIO:AABBCCDDEEFF\n"
    expected = [Start(ID, PLAIN), Audio(sound), RecordingComplete(), Request(ID, PLAIN)]
    for cut in range(len(whole) + 1):
        assert told(whole[:cut], whole[cut:]) == expected
    assert told(*(bytes([byte]) for byte in whole)) == expected


@pytest.mark.parametrize(
    ("sent", "heard"),
    [
        (b"ab\n", b"ab"),  # half a sample too much: on its own line
        (b"a\n", b"a\n"),  # may be a sample
        (b"ab\r\n", b"ab\r\n"),
        (b"abc", b"abc"),
        (b"\n", b""),
        (b"", b""),
    ],
)
def test_the_line_end_in_front_of_the_marker_is_no_audio_where_it_cannot_be(
    sent: bytes, heard: bytes
) -> None:
    sound = [Audio(heard)] if heard else []
    for pieces in ([sent], [bytes([byte]) for byte in sent]):
        events = told(START, *pieces, b"RECORDING_COMPLETE")
        assert events == [Start(ID, PLAIN), *sound, RecordingComplete()]
        events = told(START, *pieces, b"INTERRUPT:AABBCCDDEEFF\n")
        assert events == [Start(ID, PLAIN), *sound, Interrupt(ID, PLAIN)]


def test_a_recording_that_goes_on_counts_from_its_offset() -> None:
    line = b"SESSION_START:AABBCCDDEEFF;from=3\n"
    assert told(line + b"b\nRECORDING_COMPLETE")[1:] == [Audio(b"b"), RecordingComplete()]
    assert told(line + b"bc\nRECORDING_COMPLETE")[1:] == [Audio(b"bc\n"), RecordingComplete()]


def test_bytes_of_adpcm_are_never_taken_for_a_line_end() -> None:
    line = b"SESSION_START:AABBCCDDEEFF;codec=adpcm\n"
    assert told(line + b"ab\nRECORDING_COMPLETE")[1:] == [Audio(b"ab\n"), RecordingComplete()]


def test_commands_end_a_recording() -> None:
    assert told(START + b"abINTERRUPT:aa-bb-cc-dd-ee-ff;token=t\r\nREQUEST_AUDIO:112233445566\n") == [
        Start(ID, PLAIN), Audio(b"ab"), Interrupt(ID, Options("t")), Request(OTHER, PLAIN),
    ]  # fmt: skip
    assert told(START + b"abREQUEST_AUDIO:aabbccddeeff;from=5\n\n") == [
        Start(ID, PLAIN), Audio(b"ab"), RecordingComplete(), Request(ID, Options(offset=5)), KeepAlive(),
    ]  # fmt: skip
    assert told(START + b"ab" + START + b"cd") == [
        Start(ID, PLAIN), Audio(b"ab"), Start(ID, PLAIN), Audio(b"cd"),
    ]  # fmt: skip
    assert told(START + b"abREQUEST_AUDIO:aabbccddeeff;from=x\n\n")[2:] == [
        RecordingComplete(), Malformed("from is a count of bytes, 0 to 4294967295"), KeepAlive(),
    ]  # fmt: skip


def test_commands_of_others_and_commands_too_long_are_audio() -> None:
    sound = b"INTERRUPT:112233445566\nINTERRUPT:AABBCCDDEEFF;" + b"x" * 300 + b"\n"
    assert told(START + sound + b"\x00\x00") == [Start(ID, PLAIN), Audio(sound + b"\x00\x00")]


def test_audio_is_passed_on_at_once() -> None:
    stream = ServerStream()
    stream.feed(START)
    sound = bytes(range(100, 200))
    (event,) = stream.feed(sound)
    assert event == Audio(sound)
    assert event.data is sound, "copied without need"
    assert stream.feed(b"ab RECORDING") == [Audio(b"ab ")]
    assert stream.feed(b"_") == []
    assert stream.feed(b"x") == [Audio(b"RECORDING_x")]


def test_a_stray_end_of_a_recording_is_told() -> None:
    assert told(b"RECORDING_COMPLETE\r\nRECORDING_COMPLETE") == [RecordingComplete()] * 2


# ---------------------------------------------------------------- framed mode


def test_frames_are_read() -> None:
    stream = ServerStream()
    assert not stream.framed
    assert stream.feed(b"SESSION_START:aabbccddeeff;frame=1;codec=opus\n") == [
        Start(ID, Options(codec=Codec.OPUS, framed=True))
    ]
    assert stream.framed
    assert stream.feed(
        audio(b"one", True) + audio(b"RECORDING_COMPLETE", True) + frame(2, b"") + frame(1, b"RECORDING_COMPLETE")
        + frame(1, b"REQUEST_AUDIO:AA:BB:CC:DD:EE:FF;from=9") + frame(3, b"\x00\x01\x00\x00") + frame(1, b"\r\n")
        + frame(1, b"INTERRUPT: AABBCCDDEEFF\n") + frame(1, b"SESSION_START:AABBCCDDEEFF;codec=opus;rate=48000")
        + audio(b"two", True)
    ) == [
        Audio(b"one"), Audio(b"RECORDING_COMPLETE"), RecordingComplete(), Request(ID, Options(framed=True, offset=9)),
        Acknowledge(65536), KeepAlive(), Interrupt(ID, FRAMED), Start(ID, Options(None, Codec.OPUS, 48000, True)),
        Audio(b"two"),
    ]  # fmt: skip
    assert not stream.settling


def test_a_poll_begins_framed_mode_too() -> None:
    events = told(b"REQUEST_AUDIO:AABBCCDDEEFF;frame=1;from=7\n" + frame(3, b"\x00\x00\x00\x07"))
    assert events == [Request(ID, Options(framed=True, offset=7)), Acknowledge(7)]
    events = told(START + b"abREQUEST_AUDIO:AABBCCDDEEFF;frame=1\n" + frame(1, b""))
    assert events[2:] == [RecordingComplete(), Request(ID, FRAMED), KeepAlive()]


def test_a_poll_in_framed_mode_does_not_end_the_recording() -> None:
    events = framed(audio(b"a", True), frame(1, b"REQUEST_AUDIO:AABBCCDDEEFF"), audio(b"b", True))
    assert events == [Audio(b"a"), Request(ID, FRAMED), Audio(b"b")]


def test_audio_frames_outside_a_recording_are_dropped() -> None:
    assert framed(frame(1, b"INTERRUPT:AABBCCDDEEFF"), audio(b"late", True)) == [Interrupt(ID, FRAMED)]
    assert framed(frame(1, b"RECORDING_COMPLETE"), audio(b"late", True)) == [RecordingComplete()]


def test_samples_of_a_frame_are_passed_on_before_it_is_whole() -> None:
    stream = ServerStream()
    stream.feed(b"SESSION_START:aabbccddeeff;frame=1\n")
    assert stream.feed(frame(2, b"x" * 60000)[:1004]) == [Audio(b"x" * 1000)]
    assert stream.feed(b"x") == [Audio(b"x")]


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (frame(0, b"x"), "type 1"),
        (frame(4, b"x" * 3000), "type 1"),
        (frame(255, b""), "type 1"),
        (frame(3, b"123"), "4 bytes"),
        (frame(1, b"x" * 300), "256 bytes"),
        (frame(1, b"x" * 200), "commands are"),
        (frame(1, b"\xff\x00"), "commands are"),
        (frame(1, b"SESSION_START:x"), "12 hex digits"),
        (frame(1, b"REQUEST_AUDIO:AABBCCDDEEFF00"), ";key=value"),
        (frame(1, b"REQUEST_AUDIO:AABBCCDDEEFF;from=\xff"), "count of bytes"),
        (frame(1, b"REQUEST_AUDIO:AABBCCDDEEFF;frame=0"), "frame=0"),
    ],
)
def test_wrong_frames_are_refused_and_skipped(wrong: bytes, named: str) -> None:
    for pieces in ([wrong], [bytes([byte]) for byte in wrong]):
        events = told(b"SESSION_START:aabbccddeeff;frame=1\n", *pieces, audio(b"ab", True))
        assert named in only_malformed(events[1:2])
        assert events[2:] == [Audio(b"ab")]


def test_a_packet_that_is_none_is_skipped() -> None:
    start = b"SESSION_START:aabbccddeeff;frame=1;codec=opus\n"
    events = framed(frame(2, b"x" * (MAX_PACKET_BYTES + 1)), frame(2, b"y" * MAX_PACKET_BYTES), start=start)
    assert "8192" in only_malformed(events[:1])
    assert events[1:] == [Audio(b"y" * MAX_PACKET_BYTES)]


# ---------------------------------------------------------------- what the server sends


def test_lines_are_written() -> None:
    assert pull4g.ready("s1", framed=False) == b"SESSION_READY:s1\n"
    assert pull4g.ready("s1", framed=True) == b"\x01\x00\x00\x10SESSION_READY:s1"
    assert (
        pull4g.audio_start(framed=False) + pull4g.audio_end(framed=False, final=True)
        == b"AUDIO_START\nAUDIO_END\n"
    )
    assert pull4g.audio_end(framed=True, final=True) == b"\x01\x01\x00\x09AUDIO_END"
    assert pull4g.audio_end(framed=True) == b"\x01\x00\x00\x09AUDIO_END"
    assert pull4g.error(ErrorCode.BUSY, "try\r\nagain", framed=False) == b"ERROR:busy:try  again\n"
    assert pull4g.received(258) == b"\x03\x00\x00\x04\x00\x00\x01\x02"
    assert pull4g.stt(" one\ntwo ", framed=False) == b"STT:one two\n"
    assert pull4g.sentence("你好", framed=True) == b"\x01\x00\x00\x0fSENTENCE:" + "你好".encode()
    assert pull4g.stt(" \n", framed=False) == b""
    assert len(pull4g.error(ErrorCode.TOO_LARGE, "语" * 500, framed=False)) <= MAX_LINE_BYTES + 1


def test_audio_is_written() -> None:
    assert pull4g.audio(b"abc", framed=False) == b"abc"
    assert pull4g.audio(b"abc", framed=True) == b"\x02\x00\x00\x03abc"
    assert pull4g.audio(b"", framed=True) == b""
    long = pull4g.audio(b"x" * 70000, framed=True)
    assert long == frame(2, b"x" * 65535) + frame(2, b"x" * 4465)


@pytest.mark.parametrize("number", [-1, 2**32])
def test_counts_that_are_no_u32_are_refused(number: int) -> None:
    with pytest.raises(WireError, match="no count"):
        pull4g.received(number)


def test_an_idle_stream_is_small() -> None:
    stream = ServerStream()
    stream.feed(START + b"x" * 5000 + b"RECORDING_COMPLETE\nREQUEST_AUDIO:aabbccddeeff\n\n")
    assert not stream._rest
    assert sys.getsizeof(stream) < 200
