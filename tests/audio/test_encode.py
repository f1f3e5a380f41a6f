"""Speech to frames, slice by slice."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mynah.audio.encode import EncoderPool, PcmCoders, SpeechEncoder
from mynah.audio.opus import SPEECH_BITRATE, Effort, OpusDecoder, OpusEncoder, packet_duration_ms
from mynah.errors import AudioError
from tests.audio.inline_codec import InlineCodec
from tests.virtual_time import run, virtual


def tone(rate: int, seconds: float, hz: float = 440.0) -> bytes:
    t = np.arange(int(rate * seconds)) / rate
    return (9000 * np.sin(2 * np.pi * hz * t)).astype("<i2").tobytes()


def heard(frames: list[bytes]) -> np.ndarray:
    decoder = OpusDecoder(16000)
    return np.frombuffer(b"".join(decoder.decode(frame) for frame in frames), "<i2").astype(float)


async def encode(
    encoder: SpeechEncoder, pcm: bytes, *, last: bool = False, best: bool = False
) -> list[bytes]:
    result: asyncio.Future[list[bytes]] = asyncio.get_running_loop().create_future()

    def done(frames: list[bytes], error: AudioError | None) -> None:
        if error is not None:
            result.set_exception(error)
        else:
            result.set_result(frames)

    encoder.encode(pcm, done, last=last, due=0.0, best=best)
    return await result


@virtual
async def test_speech_comes_out_in_frames_with_one_job_per_slice() -> None:
    codec = InlineCodec()
    encoder = SpeechEncoder(codec, 22050, 24000, encoders=EncoderPool())
    frames = await encode(encoder, tone(22050, 2.0))
    frames += await encode(encoder, b"", last=True)
    assert len(codec.submitted) == 2
    assert len(frames) == 34  # 2 s are 33⅓ frames
    assert {packet_duration_ms(frame) for frame in frames} == {60.0}
    samples = heard(frames)
    spectrum = np.abs(np.fft.rfft(samples[:30000]))
    assert np.argmax(spectrum) * 16000 / 30000 == pytest.approx(440, abs=2)
    assert np.max(np.abs(samples[-250:])) < 300, "filled up with silence"


@virtual
async def test_a_slice_that_is_lost_by_a_bug_is_an_error_and_not_silence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(_: SpeechEncoder) -> list[bytes]:
        raise RuntimeError("a bug in a library")

    monkeypatch.setattr(SpeechEncoder, "_encode_slice", broken)
    codec = InlineCodec()
    codec.hold()
    encoder = SpeechEncoder(codec, 16000, 16000, encoders=EncoderPool())
    told: list[tuple[list[bytes], AudioError | None]] = []
    encoder.encode(tone(16000, 0.5), lambda frames, error: told.append((frames, error)), last=False, due=0.0)
    with pytest.raises(RuntimeError, match="a bug"):
        encoder.work()
    encoder.done()
    ((frames, error),) = told
    assert frames == []
    assert isinstance(error, AudioError)


@virtual
async def test_less_than_a_frame_is_kept_for_the_next_slice() -> None:
    encoder = SpeechEncoder(InlineCodec(), 16000, 16000)
    assert encoder.frame_in == 1920
    piece = tone(16000, 0.02)
    assert [len(await encode(encoder, piece)) for _ in range(4)] == [0, 0, 1, 0]
    assert len(await encode(encoder, b"", last=True)) == 1


@virtual
async def test_an_idle_encoder_owns_no_codec() -> None:
    pool, codec = EncoderPool(), InlineCodec()
    first = SpeechEncoder(codec, 16000, 16000, encoders=pool)
    one = await encode(first, tone(16000, 0.3), last=True)
    assert pool.idle == 1
    second = SpeechEncoder(codec, 16000, 16000, encoders=pool)
    two = await encode(second, tone(16000, 0.25))
    assert pool.idle == 0, "taken from the pool"
    two += await encode(second, tone(16000, 0.3)[8000:], last=True)
    assert one == two, "a used encoder starts like a new one"
    assert await encode(first, tone(16000, 0.3), last=True) == one, "and so does a new answer"


@virtual
async def test_close_gives_the_codec_back() -> None:
    pool = EncoderPool()
    encoder = SpeechEncoder(InlineCodec(), 16000, 16000, encoders=pool)
    await encode(encoder, tone(16000, 0.3))
    encoder.close()
    encoder.close()
    assert pool.idle == 1
    with pytest.raises(RuntimeError, match="closed"):
        await encode(encoder, b"")


def test_the_pool_is_bounded() -> None:
    pool = EncoderPool(idle_per_kind=2)
    for encoder in [pool.take(16000, 60) for _ in range(5)]:
        pool.give_back(encoder)
    assert pool.idle == 2
    assert pool.take(24000, 60).sample_rate == 24000


def test_bad_settings_are_named() -> None:
    with pytest.raises(AudioError, match="0 Hz"):
        SpeechEncoder(InlineCodec(), 0, 16000)
    with pytest.raises(AudioError, match="44100"):
        SpeechEncoder(InlineCodec(), 16000, 44100)


@virtual
async def test_an_error_comes_with_the_result() -> None:
    with pytest.raises(AudioError, match="70"):
        await encode(SpeechEncoder(InlineCodec(), 16000, 16000, frame_ms=70), bytes(4480))


@virtual
async def test_interrupted_while_a_thread_encodes() -> None:
    pool, codec = EncoderPool(), InlineCodec()
    encoder = SpeechEncoder(codec, 16000, 16000, encoders=pool)
    codec.hold()
    encoding = asyncio.ensure_future(encode(encoder, tone(16000, 1)))
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="not done"):
        await encode(encoder, b"")
    encoder.close()
    codec.go_on()
    await asyncio.sleep(1)
    assert not encoding.done(), "nobody is told"
    assert pool.idle == 0
    encoding.cancel()


@virtual
async def test_the_effort_is_that_of_the_pool_unless_it_must_be_the_best() -> None:
    async def size(effort: Effort, best: bool) -> list[bytes]:
        encoder = SpeechEncoder(InlineCodec(effort), 16000, 16000, encoders=EncoderPool())
        return await encode(encoder, tone(16000, 1), last=True, best=best)

    light, full = await size(Effort.LIGHT, False), await size(Effort.FULL, False)
    assert light != full
    assert await size(Effort.LIGHT, True) == full
    plain = OpusEncoder(16000, 60, Effort.FULL, SPEECH_BITRATE)
    pcm = tone(16000, 1) + bytes(640)
    assert full == [plain.encode(pcm[at : at + 1920]) for at in range(0, len(pcm), 1920)]


@virtual
async def test_a_hurry_changes_nothing_in_the_result() -> None:
    codec, pcm = InlineCodec(), tone(16000, 1.2)
    calm = await encode(SpeechEncoder(codec, 16000, 16000), pcm)
    codec.hurried = True
    assert await encode(SpeechEncoder(codec, 16000, 16000), pcm) == calm


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 6000), max_size=12), st.sampled_from([8000, 16000, 22050]))
def test_pieces_of_any_length_make_the_same_number_of_frames(sizes: list[int], rate: int) -> None:
    async def main() -> int:
        encoder = SpeechEncoder(InlineCodec(), rate, 16000)
        count = 0
        for size in sizes:
            count += len(await encode(encoder, bytes(size)))
        return count + len(await encode(encoder, b"", last=True))

    samples = sum(sizes) // 2 * 16000 / rate
    assert abs(run(main()) - samples / 960) < 1 + 2 / 960


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.integers(0, 6000).map(lambda count: count * 2), max_size=12),
    st.sampled_from([8000, 11025, 16000, 24000, 44100, 48000]),
)
def test_pcm_is_framed_and_nothing_else(sizes: list[int], rate: int) -> None:
    """At its own rate it is what came, byte by byte, filled up with silence to whole frames."""
    pcm = tone(rate, sum(sizes) / 2 / rate)
    pieces, at = [], 0
    for size in sizes:
        pieces.append(pcm[at : at + size])
        at += size

    async def main() -> list[bytes]:
        encoder = SpeechEncoder(InlineCodec(), rate, rate, encoders=PcmCoders())
        frames: list[bytes] = []
        for piece in pieces:
            frames += await encode(encoder, piece)
        return frames + await encode(encoder, b"", last=True)

    frames, whole = run(main()), b"".join(pieces)
    size = rate * 60 // 1000 * 2
    assert {len(frame) for frame in frames} <= {size}
    assert b"".join(frames) == whole + bytes(-len(whole) % size)


@virtual
async def test_pcm_is_resampled_to_what_the_device_wants() -> None:
    frames = await encode(
        SpeechEncoder(InlineCodec(), 16000, 8000, encoders=PcmCoders()), tone(16000, 1.2), last=True
    )
    samples = np.frombuffer(b"".join(frames), "<i2").astype(float)
    assert len(samples) == pytest.approx(9600, abs=480)
    spectrum = np.abs(np.fft.rfft(samples[:8000]))
    assert np.argmax(spectrum) == pytest.approx(440, abs=2)


@pytest.mark.parametrize(("rate", "opus", "pcm"), [(16000, True, True), (11025, False, True), (7999, False, False),
                                                   (48000, True, True), (48001, False, False)])  # fmt: skip
def test_which_rates_there_are(rate: int, opus: bool, pcm: bool) -> None:
    for coders, has in ((EncoderPool(), opus), (PcmCoders(), pcm)):
        if has:
            SpeechEncoder(InlineCodec(), 16000, rate, encoders=coders)
        else:
            with pytest.raises(AudioError):
                SpeechEncoder(InlineCodec(), 16000, rate, encoders=coders)


def test_coders_of_pcm_have_no_state_to_share() -> None:
    coders = PcmCoders()
    one = coders.take(16000, 60)
    one.tune(Effort.LIGHT)
    coders.give_back(one)
    coders.give_back(one)
    assert one.encode(b"\x01\x02") == b"\x01\x02"
    assert one.encode(b"\x01\x02", hold_gil=True) == b"\x01\x02"
