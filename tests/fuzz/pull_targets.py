"""Targets that read what modem devices send and get over the 4G pull protocol."""

from __future__ import annotations

from collections.abc import Iterable

from mynah.audio.adpcm import AdpcmDecoder, AdpcmEncoder
from mynah.wire import pull4g
from mynah.wire.frames import MAX_PACKET_BYTES
from mynah.wire.pull4g import (
    Audio,
    ClientEvent,
    Codec,
    DeviceStream,
    ErrorCode,
    Options,
    ServerEvent,
    ServerStream,
)
from mynah.wire.pull4g_words import HEADER, MAX_FRAME_BYTES, MAX_LINE_BYTES
from tests.fuzz.mutations import Sample, Shape
from tests.fuzz.target import KILO, pieces, target
from tests.wire.pull4g_pieces import joined

_ID = "aabbccddeeff"
_SOUND = bytes(range(256)) + b"RECORDING_\nINTERRUPT:"


def _conversation(options: Options) -> Sample:
    framed = options.framed
    return Sample(
        pull4g.device_start(_ID, options, framed=False)
        + pull4g.device_audio(_SOUND, framed)
        + pull4g.device_complete(framed)
        + pull4g.device_keep_alive(framed)
        + pull4g.device_request(_ID, options, framed)
        + (pull4g.device_acknowledge(700) if framed else b"")
        + pull4g.device_start(_ID, options, framed)
        + pull4g.device_audio(_SOUND, framed)
        + pull4g.device_interrupt(_ID, framed, options.token)
    )


def _reply(framed: bool) -> Sample:
    return Sample(
        (pull4g.ready("s", framed=False) + pull4g.received(512) if framed else b"")
        + pull4g.stt("你好", framed)
        + pull4g.sentence("Hello.", framed)
        + pull4g.audio_start(framed)
        + pull4g.audio(_SOUND + b"AUDIO_EN", framed)
        + pull4g.audio_end(framed, final=True)
        + pull4g.error(ErrorCode.NO_SESSION, "nothing was recorded", framed)
    )


DEVICES = (
    _conversation(Options("token")),
    _conversation(Options(codec=Codec.ADPCM, rate=8000, text=True, offset=3)),
    _conversation(Options("token", framed=True)),
    _conversation(Options(None, Codec.OPUS, 24000, framed=True)),
    Sample(b"SESSION_START: AABBCCDDEEFF" + _SOUND + b"RECORDING_COMPLETE"),
    Sample(
        b"REQUEST_AUDIO: AA:BB:CC:DD:EE:FFREQUEST_AUDIO:AA-BB-CC-DD-EE-FF;from=7;frame=1\r\n\x03\0\0\4\0\0\0\7"
    ),
)


def _upward(cut: Iterable[bytes]) -> list[ClientEvent | Audio]:
    stream = ServerStream()
    found: list[ClientEvent] = []
    for piece in cut:
        found += stream.feed(piece)
        limit = MAX_PACKET_BYTES + HEADER.size if stream.framed else MAX_LINE_BYTES + 4
        assert len(stream._rest) <= limit, "more is kept than is needed"
    found += stream.settle()
    assert not stream.settling
    return joined(found)


@target("pull4g.ServerStream", DEVICES, Shape.BINARY, 16 * KILO)
def _server(data: bytes) -> bool:
    whole = _upward([data])
    assert whole == _upward(pieces(data, len(data))), "what is understood depends on how the bytes are cut"
    wrong = [event for event in whole if isinstance(event, pull4g.Malformed)]
    for event in wrong:
        line = pull4g.error(ErrorCode.BAD_COMMAND, event.text, framed=False)
        assert line.endswith(event.text.encode("ascii") + b"\n")
        assert not event.fatal or event is whole[-1]
    return bool(whole) and not wrong


def _downward(cut: Iterable[bytes]) -> list[ServerEvent | Audio]:
    stream = DeviceStream()
    found: list[ServerEvent] = []
    for piece in cut:
        found += stream.feed(piece)
        assert len(stream._rest) <= (MAX_FRAME_BYTES + HEADER.size if stream.framed else MAX_LINE_BYTES + 1)
    return joined(found)


@target("pull4g.DeviceStream", (_reply(framed=False), _reply(framed=True)), Shape.BINARY, 64 * KILO)
def _device(data: bytes) -> bool:
    whole = _downward([data])
    assert whole == _downward(pieces(data, len(data))), "what is understood depends on how the bytes are cut"
    return bool(whole) and not [event for event in whole if isinstance(event, pull4g.Unknown)]


@target("adpcm", (Sample(_SOUND), Sample(b"\x00\x80\xff\x7f" * 64)), Shape.BINARY, 16 * KILO)
def _adpcm(data: bytes) -> bool:
    encoder, decoder = AdpcmEncoder(), AdpcmDecoder()
    assert b"".join(map(encoder.encode, pieces(data, 1))) == AdpcmEncoder().encode(data)
    pcm = b"".join(map(decoder.decode, pieces(data, 2)))
    assert pcm == AdpcmDecoder().decode(data)
    assert len(pcm) == 4 * len(data)
    return bool(data)
