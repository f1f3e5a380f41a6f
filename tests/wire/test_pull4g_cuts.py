"""The 4G pull protocol in any pieces: both directions, sound and damaged, however TCP cuts them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from mynah.wire import pull4g
from mynah.wire.frames import MAX_PACKET_BYTES
from mynah.wire.pull4g import (
    Acknowledge,
    Audio,
    AudioEnd,
    AudioStart,
    ClientEvent,
    Codec,
    DeviceStream,
    ErrorCode,
    Failed,
    Heard,
    Interrupt,
    KeepAlive,
    Malformed,
    Options,
    Ready,
    Received,
    RecordingComplete,
    Request,
    Said,
    ServerEvent,
    ServerStream,
    Start,
)
from mynah.wire.pull4g_words import HEADER
from tests.wire.pull4g_pieces import joined, pieces

ID = "aa:bb:cc:dd:ee:ff"
OWN = re.compile(rb"RECORDING_COMPLETE|(?:INTERRUPT|REQUEST_AUDIO|SESSION_START):\s*" + b"[:-]?".join(
    b"(?i:%s)" % pair for pair in (b"aa", b"bb", b"cc", b"dd", b"ee", b"ff")))  # fmt: skip
CUTS = st.lists(st.integers(0, 100_000), max_size=12)
PIECES = [
    b"RECORDING_COMPLETE", b"RECORDING_", b"RECORD", b"R", b"S", b"INTERRUPT:", b"REQUEST_AUDIO:", b"SESSION_START:",
    b"AABBCCDDEEFF", b"aa:bb:cc-dd:ee:ff", b"AABBCCDD", b"112233445566", b"a", b"\n", b"\r\n", b"\r", b" ", b";",
    b";frame=1\n", b";codec=opus", b";codec=adpcm\n", b";from=3\n", b"x" * 90, b" " * 120, b"\x00\x01", b"\xff",
    b"AUDIO_", b"AUDIO_START\n", b"AUDIO_END\n", b"SESSION_READY:x\n", b"STT:a\n", b"ERROR:busy:", b"\x01\x00\x00",
    b"\x01\x00\x00\x12",
    b"\x02\x00\x00\x04", b"\x02\x00\x40\x00", b"\x03\x00\x00\x04", b"\x07\x00\x00\x02", b"\x01\x00\x00\x00",
    b"\x01\x00\x01\x40",
]  # fmt: skip
SOUP = st.lists(st.one_of(st.sampled_from(PIECES), st.binary(max_size=6)), max_size=40).map(b"".join)


def upward(whole: bytes, cuts: Sequence[int]) -> list[ClientEvent]:
    """What the server makes of it; what it keeps is bounded, and nothing follows the end of understanding."""
    stream = ServerStream()
    found: list[ClientEvent] = []
    for piece in pieces(whole, cuts):
        found += stream.feed(piece)
        assert len(stream._rest) <= (MAX_PACKET_BYTES + HEADER.size if stream.framed else 260)
    assert not [event for event in found[:-1] if isinstance(event, Malformed) and event.fatal]
    return joined(found)


def downward(whole: bytes, cuts: Sequence[int], framed: bool = False) -> list[ServerEvent]:
    """What the device makes of it; what it keeps is bounded."""
    stream = DeviceStream()
    stream.framed = framed
    found: list[ServerEvent] = []
    for piece in pieces(whole, cuts):
        found += stream.feed(piece)
        assert len(stream._rest) <= (65_535 + HEADER.size if stream.framed else 257)
    return joined(found)


# ---------------------------------------------------------------- anything


@settings(max_examples=400)
@given(SOUP, CUTS)
@example(b"INTERRUPT:" + b" " * 245 + b"AABBCCDDEEFF\n", [250, 257])
@example(b"SESSION_START:AABBCCDDEEFF\nINTERRUPT:" + b" " * 245 + b"AABBCCDDEEFF\n\n", [280, 283, 284])
@example(b" " * 256 + b"INTERRUPT:AABBCCDDEEFF\n", [256, 260])
@example(b"INTERRUPT:" + b" " * 235 + b"AABBCCDDEEFFREQUEST_AUDIO:AABBCCDDEEFF\n", [257])
@example(b"SESSION_START:AABBCCDDEEFF\nab\nINTERRUPT:AABBCCDDEEFF\n", [35])
def test_any_cut_of_anything_says_the_same_to_the_server(whole: bytes, cuts: list[int]) -> None:
    assert upward(whole, cuts) == upward(whole, []) == upward(whole, range(len(whole)))


@settings(max_examples=200)
@given(SOUP, CUTS, st.booleans())
def test_any_cut_of_anything_says_the_same_to_the_device(whole: bytes, cuts: list[int], framed: bool) -> None:
    one = downward(whole, [], framed)
    assert downward(whole, cuts, framed) == one == downward(whole, range(len(whole)), framed)


@given(st.lists(st.tuples(SOUP, st.booleans()), max_size=8))
def test_silence_at_any_moment_harms_nothing(parts: list[tuple[bytes, bool]]) -> None:
    stream = ServerStream()
    for part, silence in parts:
        stream.feed(part)
        if silence:
            waiting = stream.settling
            assert bool(stream.settle()) == waiting
            assert not stream.settling
        assert len(stream._rest) <= MAX_PACKET_BYTES + HEADER.size


# ---------------------------------------------------------------- there and back

TOKENS = st.none() | st.text(
    st.characters(min_codepoint=33, max_codepoint=126, exclude_characters=";"), max_size=60
)
PLAIN_OPTIONS = st.builds(
    Options, TOKENS, st.sampled_from([Codec.PCM, Codec.ADPCM]), st.integers(8000, 48000), st.just(False),
    st.booleans(), st.none() | st.integers(0, 2**31 - 1).map(lambda offset: offset * 2),
)  # fmt: skip
FRAMED_OPTIONS = st.builds(
    Options, TOKENS, st.sampled_from(Codec), st.sampled_from([8000, 12000, 16000, 24000, 48000]), st.just(True),
    st.booleans(), st.none() | st.integers(0, 2**32 - 1),
)  # fmt: skip
SOUND = (
    st.lists(st.one_of(st.sampled_from(PIECES), st.binary(max_size=20)), max_size=10)
    .map(b"".join)
    .map(lambda sound: sound[: len(sound) // 2 * 2])
    .filter(lambda sound: not OWN.search(sound))
)
"""Whole samples with all that looks like a marker and is none."""
CHUNKS = st.lists(st.binary(min_size=1, max_size=3000), max_size=4)
ENDS = st.sampled_from(["complete", "interrupt", "request", "start"])


@settings(max_examples=200)
@given(st.lists(st.tuples(PLAIN_OPTIONS, SOUND, ENDS), max_size=5), CUTS)
def test_plain_recordings_arrive_as_they_were_sent(
    recordings: list[tuple[Options, bytes, str]], cuts: list[int]
) -> None:
    whole = b""
    expected: list[ClientEvent] = []
    end = ""
    for options, sound, end in recordings:
        assume(not OWN.search(sound + b"RECORDING_COMPLET"))
        whole += pull4g.device_start(ID, options, False) + pull4g.device_audio(sound, False)
        expected += [Start(ID, options), *([Audio(sound)] if sound else [])]
        if end == "complete":
            whole += pull4g.device_complete(False) + pull4g.device_keep_alive(False)
            expected += [RecordingComplete(), KeepAlive()]
        elif end == "interrupt":
            whole += pull4g.device_interrupt(ID, False, options.token)
            expected.append(Interrupt(ID, Options(options.token)))
        elif end == "request":
            whole += pull4g.device_request(ID, options, False)
            expected += [RecordingComplete(), Request(ID, options)]
        # "start": the next one begins in the middle of it.
    if recordings and end == "start":
        whole += pull4g.device_complete(False)
        expected.append(RecordingComplete())
    assert upward(whole, cuts) == expected


@settings(max_examples=200)
@given(
    st.lists(
        st.tuples(FRAMED_OPTIONS, st.lists(st.binary(min_size=1, max_size=3000), max_size=4), ENDS),
        max_size=4,
    ),
    CUTS,
)
def test_framed_recordings_arrive_as_they_were_sent(
    recordings: list[tuple[Options, list[bytes], str]], cuts: list[int]
) -> None:
    whole = b""
    expected: list[ClientEvent] = []
    for number, (options, chunks, end) in enumerate(recordings):
        whole += pull4g.device_start(ID, options, framed=number > 0)
        whole += b"".join(pull4g.device_audio(chunk, True) for chunk in chunks)
        expected += [Start(ID, options), *([Audio(b"".join(chunks))] if chunks else [])]
        if end == "complete":
            whole += pull4g.device_complete(True) + pull4g.device_keep_alive(True)
            expected += [RecordingComplete(), KeepAlive()]
        elif end == "interrupt":
            whole += pull4g.device_interrupt(ID, True, options.token)
            expected.append(Interrupt(ID, Options(options.token, framed=True)))
        elif end == "request":
            whole += pull4g.device_request(ID, options, True) + pull4g.device_acknowledge(number)
            expected += [Request(ID, options), Acknowledge(number)]
    assert upward(whole, cuts) == expected


@given(st.lists(st.binary(min_size=1, max_size=500), min_size=1, max_size=10), CUTS)
def test_packets_arrive_one_by_one(packets: list[bytes], cuts: list[int]) -> None:
    options = Options(codec=Codec.OPUS, framed=True)
    whole = pull4g.device_start(ID, options, False) + b"".join(pull4g.device_audio(p, True) for p in packets)
    stream = ServerStream()
    events = [event for piece in pieces(whole, cuts) for event in stream.feed(piece)]
    assert events == [Start(ID, options), *map(Audio, packets)]
    device = DeviceStream()
    whole = pull4g.ready("s", False) + b"".join(pull4g.audio(p, True) for p in packets)
    answers = [event for piece in pieces(whole, cuts) for event in device.feed(piece)]
    assert answers == [Ready("s"), *map(Audio, packets)]


WORDS = st.text(st.characters(codec="utf-8"), max_size=300)


@settings(max_examples=200)
@given(
    st.booleans(),
    SOUND.filter(lambda sound: b"AUDIO_END" not in sound),
    WORDS,
    st.sampled_from(ErrorCode),
    CUTS,
)
def test_replies_arrive_as_they_were_sent(
    framed: bool, sound: bytes, said: str, code: ErrorCode, cuts: list[int]
) -> None:
    whole = pull4g.ready("s-1", False) if framed else b""
    whole += pull4g.stt(said, framed) + pull4g.sentence(said, framed) + pull4g.error(code, said, framed)
    whole += pull4g.audio_start(framed) + pull4g.audio(sound, framed) + pull4g.audio_end(framed, final=True)
    whole += pull4g.audio_start(framed) + pull4g.audio_end(framed)
    if framed:
        whole += pull4g.received(len(sound)) + pull4g.ready("s-2", True)
    events = downward(whole, cuts)
    if framed:
        assert events.pop(0) == Ready("s-1")
        assert events.pop() == Ready("s-2")
        assert events.pop() == Received(len(sound))
    heard = [event.text for event in events if isinstance(event, Heard)]
    spoken = [event.text for event in events if isinstance(event, Said)]
    clean = "".join(" " if c < " " or c in "\x7f\x85\u2028\u2029" else c for c in said).strip()
    assert "".join(heard) == "".join(spoken) == clean
    behind = events[len(heard) + len(spoken) :]
    assert isinstance(behind[0], Failed)
    assert behind[0].code is code
    assert clean.startswith(behind[0].text)
    assert behind[1:] == [
        AudioStart(), *([Audio(sound)] if sound else []), AudioEnd(final=framed), AudioStart(), AudioEnd(final=False),
    ]  # fmt: skip


@given(WORDS)
def test_lines_for_people_are_short_and_whole_characters(said: str) -> None:
    for write in (pull4g.stt, pull4g.sentence):
        for line in write(said, framed=False).split(b"\n"):
            assert len(line) <= 250
            line.decode()
