from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mynah.audio.opus import (
    LEGAL_FRAME_MS,
    MAX_PACKET_MS,
    SPEECH_BITRATE,
    Application,
    Effort,
    OpusDecoder,
    OpusEncoder,
    OpusLibrary,
    library_candidates,
    library_path,
    packet_duration_ms,
)
from mynah.errors import AudioError


def loadable() -> list[OpusLibrary]:
    found = []
    for path in library_candidates():
        try:
            found.append(OpusLibrary(path))
        except AudioError:
            continue
    return found


LIBRARIES = loadable()
both = pytest.mark.parametrize("library", LIBRARIES, ids=lambda library: library.version().decode())


def tone(rate: int, ms: int, hz: float = 440.0, level: float = 8000) -> bytes:
    t = np.arange(rate * ms // 1000) / rate
    return (level * np.sin(2 * np.pi * hz * t)).astype("<i2").tobytes()


def frames(pcm: bytes, size: int) -> list[bytes]:
    return [pcm[at : at + size] for at in range(0, len(pcm) - size + 1, size)]


def strongest_hz(pcm: bytes, rate: int) -> float:
    samples = np.frombuffer(pcm, "<i2").astype(float)
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(np.argmax(spectrum) * rate / len(samples))


def test_the_copy_in_the_pyav_wheel_is_found() -> None:
    assert any("av.libs" in library.path or ".dylibs" in library.path for library in LIBRARIES)
    assert library_path() in [library.path for library in LIBRARIES]


@both
@pytest.mark.parametrize("frame_ms", LEGAL_FRAME_MS)
@pytest.mark.parametrize("rate", [8000, 16000, 24000, 48000])
def test_a_tone_survives(library: OpusLibrary, rate: int, frame_ms: int) -> None:
    encoder = OpusEncoder(rate, frame_ms, library=library)
    decoder = OpusDecoder(16000, library=library)
    packets = [encoder.encode(frame) for frame in frames(tone(rate, 960), encoder.frame_bytes)]
    assert all(packet_duration_ms(packet) == frame_ms for packet in packets)
    pcm = b"".join(decoder.decode(packet) for packet in packets)
    assert len(pcm) == len(packets) * frame_ms * 32
    assert strongest_hz(pcm[8000:], 16000) == pytest.approx(440, abs=5)


@both
def test_dtx_packets_are_silence(library: OpusLibrary) -> None:
    encoder = OpusEncoder(16000, 60, 0, application=Application.VOIP, dtx=True, library=library)
    decoder = OpusDecoder(16000, library=library)
    packets = [encoder.encode(bytes(encoder.frame_bytes)) for _ in range(40)]
    short = [packet for packet in packets if len(packet) <= 3]
    assert short, "DTX did not engage"
    for packet in packets:
        assert packet_duration_ms(packet) == 60
        assert max(abs(np.frombuffer(decoder.decode(packet), "<i2"))) < 50


@both
def test_a_stereo_packet_comes_out_mono(library: OpusLibrary) -> None:
    # TOC 0x7C: hybrid, 20 ms, stereo bit set, one frame.
    pcm = OpusDecoder(16000, library=library).decode(bytes([0x7C]) + bytes(40))
    assert len(pcm) == 640


@both
def test_bad_packets_raise_and_the_decoder_goes_on(library: OpusLibrary) -> None:
    encoder, decoder = OpusEncoder(16000, library=library), OpusDecoder(library=library)
    good = encoder.encode(tone(16000, 60))
    for bad in (b"", b"\x0b", b"\x0b\x00", b"\x03\xff" + bytes(9), b"\x02\xff"):
        with pytest.raises(AudioError):
            decoder.decode(bad)
    assert len(decoder.decode(good)) == 1920


@both
def test_reset_makes_a_codec_like_new(library: OpusLibrary) -> None:
    encoder, decoder = OpusEncoder(16000, library=library), OpusDecoder(library=library)
    pcm = frames(tone(16000, 300), encoder.frame_bytes)
    first = [encoder.encode(frame) for frame in pcm]
    heard = [decoder.decode(packet) for packet in first]
    assert [encoder.encode(frame) for frame in pcm] != first
    encoder.reset()
    decoder.reset()
    assert [encoder.encode(frame) for frame in pcm] == first
    assert [decoder.decode(packet) for packet in first] == heard


@both
def test_a_higher_bitrate_gives_larger_packets(library: OpusLibrary) -> None:
    rng = np.random.default_rng(1)
    noise = (rng.standard_normal(16000 * 3) * 3000).astype("<i2").tobytes()
    sizes = []
    for bitrate in (12000, 32000):
        encoder = OpusEncoder(16000, bitrate=bitrate, library=library)
        sizes.append(sum(len(encoder.encode(frame)) for frame in frames(noise, encoder.frame_bytes)))
    assert 2 < sizes[1] / sizes[0] < 4  # variable bitrate: the setting is an average over speech, not noise


@pytest.mark.parametrize(
    "arguments",
    [(44100,), (16000, 30), (16000, 60, 11), (16000, 60, 5, 0), (16000, 60, -1)],
)
def test_settings_opus_does_not_have_are_named(arguments: tuple[int, ...]) -> None:
    with pytest.raises(AudioError, match="opus"):
        OpusEncoder(*arguments)


def test_decoder_rate_is_checked() -> None:
    with pytest.raises(AudioError, match="44100"):
        OpusDecoder(44100)


def test_encode_takes_exactly_one_frame() -> None:
    encoder = OpusEncoder(16000)
    for length in (0, encoder.frame_bytes - 2, encoder.frame_bytes + 2):
        with pytest.raises(AudioError):
            encoder.encode(bytes(length))


def test_a_file_that_is_not_libopus_is_refused() -> None:
    with pytest.raises(AudioError, match="cannot load"):
        OpusLibrary("/nowhere/libopus.so.0")
    with pytest.raises(AudioError, match="is not libopus"):
        OpusLibrary("libm.so.6")


@given(st.binary(max_size=300))
def test_any_bytes_decode_or_raise_and_agree_with_the_header(packet: bytes) -> None:
    decoder = OpusDecoder(16000)
    try:
        pcm = decoder.decode(packet)
    except AudioError:
        return
    assert len(pcm) == packet_duration_ms(packet) * 32
    assert len(pcm) <= MAX_PACKET_MS * 32


@given(st.binary(max_size=4))
def test_duration_of_any_bytes_is_legal_or_raises(packet: bytes) -> None:
    try:
        duration = packet_duration_ms(packet)
    except AudioError:
        return
    assert 2.5 <= duration <= MAX_PACKET_MS


def test_codecs_work_in_parallel_threads() -> None:
    packets = {}

    def work(index: int) -> None:
        encoder = OpusEncoder(16000)
        packets[index] = [encoder.encode(frame) for frame in frames(tone(16000, 600), encoder.frame_bytes)]

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert packets[0] == packets[1] == packets[2] == packets[3]


@both
def test_the_complexity_may_change_between_frames(library: OpusLibrary) -> None:
    """What was encoded with a change in its midst decodes without a click: about as well as what had none."""
    t = np.arange(24000) / 16000
    sound = 6000 * np.sin(2 * np.pi * 220 * t) + 3000 * np.sin(2 * np.pi * 690 * t)
    pieces = frames(sound.astype("<i2").tobytes(), 1920)

    def error(efforts: list[Effort]) -> float:
        encoder = OpusEncoder(16000, 60, efforts[0], SPEECH_BITRATE, library=library)
        decoder = OpusDecoder(16000, library=library)
        decoded = b""
        for piece, effort in zip(pieces, efforts, strict=True):
            encoder.tune(effort)
            assert encoder.complexity == effort
            decoded += decoder.decode(encoder.encode(piece))
        heard = np.frombuffer(decoded, "<i2").astype(float)
        late = max(range(50, 150), key=lambda k: float(sound[2000:20000] @ heard[2000 + k : 20000 + k]))
        return float(np.max(np.abs(sound[2000:20000] - heard[2000 + late : 20000 + late])))

    steady = max(error([Effort.LIGHT] * len(pieces)), error([Effort.FULL] * len(pieces)))
    turns = [Effort.LIGHT if number // 3 % 2 else Effort.FULL for number in range(len(pieces))]
    assert error(turns) < 1.5 * steady


@both
@pytest.mark.parametrize("rate", [16000, 24000])
@pytest.mark.parametrize("effort", list(Effort))
def test_at_the_bitrate_of_answers_the_transform_coder_is_used(
    library: OpusLibrary, rate: int, effort: Effort
) -> None:
    """The other one costs three to seven times as much."""
    encoder = OpusEncoder(rate, 60, effort, SPEECH_BITRATE, library=library)
    packets = [encoder.encode(piece) for piece in frames(tone(rate, 600), encoder.frame_bytes)]
    assert all(packet[0] >> 3 >= 16 for packet in packets)  # RFC 6716, table 2
    assert all(packet_duration_ms(packet) == 60 for packet in packets)


def test_an_impossible_complexity_is_refused() -> None:
    with pytest.raises(AudioError, match="complexity 11"):
        OpusEncoder(16000).tune(11)


@both
def test_holding_the_gil_makes_the_same_packets(library: OpusLibrary) -> None:
    one, other = (OpusEncoder(16000, 60, library=library) for _ in range(2))
    for piece in frames(tone(16000, 600), 1920):
        assert one.encode(piece, hold_gil=True) == other.encode(piece)
