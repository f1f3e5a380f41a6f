"""The JSON dialect, down to its bytes."""

from __future__ import annotations

import base64

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mynah.audio.opus import OpusDecoder, packet_duration_ms
from mynah.errors import WireError
from mynah.wire import messages
from mynah.wire.frames import MAX_PACKET_BYTES
from mynah.wire.json_dialect import MAX_PCM_BYTES, SILENCE, JsonDialect, decode_data
from mynah.wire.messages import (
    AudioData,
    AudioParams,
    DeviceInfo,
    Heartbeat,
    HeartbeatAck,
    ServerHello,
    SessionConfig,
    Stt,
    TtsAudio,
    TtsStop,
)

CONFIG = SessionConfig(vad_threshold=0.5, max_audio_length=60_000)


def test_the_documented_messages_are_read() -> None:
    info = messages.decode(
        b'{"type":"device_info","device_id":"AA:BB:CC:DD:EE:FF","client_id":"esp32_001","version":"1.6.1"}'
    )
    assert info == DeviceInfo("AA:BB:CC:DD:EE:FF", "esp32_001", "1.6.1")
    audio = messages.decode(b'{"type":"audio","format":"opus","sample_rate":16000,"data":"AQID"}')
    assert isinstance(audio, AudioData)
    assert decode_data(audio) == b"\x01\x02\x03"
    assert not audio.is_final


@pytest.mark.parametrize("stamp", [1640995200000, 1.5, "yesterday", None])
def test_a_heartbeat_is_echoed_whatever_its_clock(stamp: object) -> None:
    sent = msgspec.json.encode({"type": "heartbeat", "timestamp": stamp})
    beat = messages.decode(sent)
    assert isinstance(beat, Heartbeat)
    answer = msgspec.json.decode(messages.encode(HeartbeatAck(beat.timestamp)))
    assert answer == {"type": "heartbeat_ack", "timestamp": stamp}


def test_the_hello_becomes_session_ready() -> None:
    dialect = JsonDialect(CONFIG)
    (frame,) = dialect.encode(ServerHello("s1", AudioParams(sample_rate=16000)))
    assert msgspec.json.decode(frame) == {
        "type": "session_ready",
        "session_id": "s1",
        "config": {"vad_threshold": 0.5, "max_audio_length": 60000},
    }
    sound = msgspec.json.decode(dialect.encode_audio(b"\x01\x02"))
    assert sound == {
        "type": "tts_audio", "data": "AQI=", "format": "opus", "sample_rate": 16000, "is_final": False,
    }  # fmt: skip


def test_the_end_of_a_reply_carries_audio_that_any_decoder_takes() -> None:
    final, stop = JsonDialect(CONFIG).encode(TtsStop("s1"))
    message = messages.decode_server(final)
    assert isinstance(message, TtsAudio)
    assert message.is_final
    packet = base64.b64decode(message.data)
    assert packet == SILENCE
    assert packet_duration_ms(packet) == 20
    assert not any(OpusDecoder(24000).decode(packet))
    assert msgspec.json.decode(stop) == {"type": "tts", "session_id": "s1", "state": "stop"}


def test_everything_else_is_as_in_the_main_protocol() -> None:
    stt = Stt("hello", "s1")
    assert JsonDialect(CONFIG).encode(stt) == [messages.encode(stt)]


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (AudioData("?"), "base64"),
        (AudioData("AAA"), "base64"),
        (AudioData("ä" * 8), "base64"),
        (AudioData("A" * (MAX_PACKET_BYTES * 2)), "at most"),
        (AudioData(base64.b64encode(bytes(MAX_PACKET_BYTES + 1)).decode()), "at most"),
        (AudioData("A" * (MAX_PCM_BYTES * 2), "pcm"), "at most"),
        (AudioData("AAAA", "pcm"), "half a sample"),
        (AudioData("AAA=", "pcm", 11025), "sample rate"),
    ],
)
def test_what_is_no_audio_is_refused(message: AudioData, reason: str) -> None:
    with pytest.raises(WireError, match=reason):
        decode_data(message)


@given(st.binary(max_size=300), st.booleans())
def test_audio_survives_the_way_there_and_back(audio: bytes, pcm: bool) -> None:
    audio = audio[: len(audio) // 2 * 2]
    sent = AudioData(base64.b64encode(audio).decode(), "pcm" if pcm else "opus")
    received = messages.decode(messages.encode_device(sent))
    assert isinstance(received, AudioData)
    assert decode_data(received) == audio


@given(st.text(max_size=60), st.sampled_from(["opus", "pcm"]), st.integers())
def test_any_text_is_audio_or_refused(data: str, kind: str, rate: int) -> None:
    try:
        audio = decode_data(AudioData(data, kind, rate))  # type: ignore[arg-type]
    except WireError:
        return
    assert base64.b64encode(audio).decode().rstrip("=") == data.rstrip("=")
