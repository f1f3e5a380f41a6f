from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mynah.audio.echo_references import ADVANCE_MS, MAX_REFERENCES, References
from mynah.audio.opus import OpusDecoder, OpusEncoder
from mynah.bench.echo_device import DeviceTiming, Sent, converse, reply
from mynah.bench.echo_room import RATE, Floats, Room, at_level, floats
from tests.audio.uplink import speech

FRAME = 960  # 60 ms
ADVANCE = ADVANCE_MS * RATE // 1000


def hiss(seconds: float, seed: int = 0) -> Floats:
    """Noise that comes and goes like syllables do."""
    rng = np.random.default_rng(seed)
    sound = rng.standard_normal(round(seconds * RATE)).astype(np.float32)
    syllables = np.repeat(rng.uniform(0.05, 1, len(sound) // 2400 + 1), 2400)[: len(sound)]
    return at_level((sound * syllables).astype(np.float32), -20)


def packets(count: int, start: int = 0) -> list[tuple[int, bytes]]:
    """Stamps 60, 120 … and loud packets of 60 ms."""
    return [(start + 60 * (n + 1), packet) for n, packet in enumerate(speech(count, seed=start))]


def decoded(sent: Sequence[tuple[int, bytes]]) -> np.ndarray:
    decoder = OpusDecoder(RATE)
    return np.concatenate([np.frombuffer(decoder.decode(packet), np.int16) for _, packet in sent])


def test_without_packets_the_reference_is_silence() -> None:
    references = References()
    for stamp in (0, 5, 0):
        assert not references.far(FRAME, stamp).any()
    assert not references.shifted()


def test_the_cursor_follows_the_stamps() -> None:
    references, sent = References(), packets(10)
    whole = decoded(sent)
    for stamp, packet in sent:
        references.sent(stamp, packet)
    references.far(FRAME, 0)
    for number in range(1, 8):
        stamp = sent[number][0]
        far = references.far(FRAME, stamp)
        end = (number + 1) * FRAME + ADVANCE
        expected = np.zeros(FRAME, np.int16)
        part = whole[end - FRAME : end]
        expected[: len(part)] = part
        if number > 1:  # by then it has found its place, give or take the bias of a start
            lags = [
                np.array_equal(far, np.pad(whole, (0, 9999))[end - FRAME - bias :][:FRAME])
                for bias in (0, 960)
            ]
            assert any(lags)


def test_a_skipped_stamp_means_that_frames_were_lost_and_takes_the_reference_along() -> None:
    references, sent = References(), packets(30)
    whole = decoded(sent)
    for stamp, packet in sent:
        references.sent(stamp, packet)
    for number in range(5):
        references.far(FRAME, sent[number][0])
    references.shifted()
    before = references.far(FRAME, sent[5][0])
    after = references.far(FRAME, sent[9][0])  # three frames are missing
    offset = find(whole, before)
    assert find(whole, after) == offset + 4 * FRAME
    assert not references.shifted(), "the echo follows its sound by the same time as before"


def find(whole: np.ndarray, part: np.ndarray) -> int:
    return next(at for at in range(len(whole)) if np.array_equal(whole[at : at + len(part)], part))


def test_a_device_that_stood_still_shifts_the_echo() -> None:
    references, sent = References(), packets(40)
    for stamp, packet in sent:
        references.sent(stamp, packet)
    for number in range(6):
        references.far(FRAME, sent[number][0])
    references.shifted()
    expected = references._at
    for _ in range(5):
        references.far(FRAME, 0)
    references.far(FRAME, sent[6][0])
    assert references._at == expected + FRAME
    assert references.shifted()
    assert not references.shifted()


@pytest.mark.parametrize("stamp", [0, 7, 60, 180])  # none, unknown, an older one, the same again
def test_stamps_that_say_nothing_leave_the_cursor_alone(stamp: int) -> None:
    references, sent = References(), packets(20)
    for pair in sent:
        references.sent(*pair)
    for number in range(3):
        references.far(FRAME, sent[number][0])
    at = references._at
    assert references.far(FRAME, stamp).any()
    assert references._at == at + FRAME


def test_a_bad_packet_is_skipped() -> None:
    references = References()
    references.sent(60, b"\xff")
    assert not references.far(FRAME, 60).any()
    for stamp, packet in packets(2, start=60):
        references.sent(stamp, packet)
    assert references.far(FRAME, 0).any()


def test_the_oldest_packets_are_dropped() -> None:
    references = References()
    for stamp, packet in packets(3) * 200:
        references.sent(stamp, packet)
    assert len(references._sent) == MAX_REFERENCES
    references.far(FRAME, 0)
    for stamp, packet in packets(3) * 200:
        references.sent(stamp, packet)
    references.far(FRAME, 0)
    assert len(references._pieces) == MAX_REFERENCES
    assert len(references._ends) <= MAX_REFERENCES


def test_three_seconds_are_kept() -> None:
    references, sent = References(), packets(60)
    for pair in sent:
        references.sent(*pair)
    for _ in range(60):
        references.far(FRAME, 0)
    references.far(FRAME, sent[8][0])  # 3.1 s behind
    assert references._at == 9 * FRAME + ADVANCE


def test_what_was_played_while_nobody_listened_is_skipped() -> None:
    references = References()
    for pair in packets(50):
        references.sent(*pair)
    references.catch_up()
    heard = sum(references.far(FRAME, 0).any() for _ in range(50))
    assert heard == 3  # the lead: it may be playing still
    references.forget()
    assert len(references._pieces) <= 4
    assert references._decoder is None


def test_without_stamps_a_cursor_that_fell_behind_catches_up() -> None:
    references = References()
    for pair in packets(70):  # 4.2 s at once
        references.sent(*pair)
    assert references.far(FRAME, 0).any()
    assert references._end - references._at == 180 * 16 - FRAME
    assert references.shifted()


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([320, 640, 960]), st.integers(0, 30), st.integers(0, 4)), max_size=60)
)
def test_whatever_the_stamps_say_the_reference_has_the_right_length_and_the_cursor_stays_in_bounds(
    frames: list[tuple[int, int, int]],
) -> None:
    references, supply = References(), iter(packets(30) * 10)
    for samples, stamp, count in frames:
        for _ in range(count):
            references.sent(*next(supply))
        assert len(references.far(samples, stamp * 60)) == samples
        assert 0 <= references._at <= references._end
        assert 0 <= references._hold <= RATE


def lags_ms(room: Room, timing: DeviceTiming, replies: int = 3) -> list[float]:
    """Hold a conversation and return, per 0.5 s of every reply, by how much the echo follows the reference."""
    sent: list[list[Sent]] = []
    at_ms, stamp = 500.0, 0
    for number in range(replies):
        sent.append(reply(hiss(3, number), at_ms, stamp))
        stamp, at_ms = sent[-1][-1].stamp, sent[-1][-1].at_ms + 1100 + 23 * number
    references, decoder = References(), OpusDecoder(RATE)
    near, far = [], []
    for event in converse(sent, room, np.zeros(round(at_ms * 16), np.float32), timing):
        if isinstance(event, Sent):
            references.sent(event.stamp, event.packet)
        else:
            near.append(decoder.decode(event.packet))
            far.append(references.far(len(near[-1]) // 2, event.stamp).tobytes())
    mic, reference = floats(b"".join(near)), floats(b"".join(far))
    found = []
    for begin in range(0, len(mic) - 8000, 8000):
        piece = mic[begin : begin + 8000]
        if np.mean(np.abs(piece[:2000])) > 0.003 and np.mean(np.abs(piece[-2000:])) > 0.003:
            found.append(lag(piece, reference[max(0, begin - 8000) : begin + 12000], min(begin, 8000)))
    assert len(found) >= 4 * replies
    return found


def lag(piece: Floats, reference: Floats, offset: int) -> float:
    size = 1 << 16
    spectrum = np.fft.rfft(piece, size) * np.conj(np.fft.rfft(reference, size))
    correlation = np.fft.irfft(spectrum / (np.abs(spectrum) + 1e-9))
    best = int(np.argmax(correlation))
    return ((best if best < size // 2 else best - size) + offset) / 16


NEAR = Room(delay_ms=10, decay_ms=60, drive=0)


@pytest.mark.parametrize("frame_ms", [20, 40, 60])
@pytest.mark.parametrize("phase_ms", [0, 31])
def test_the_echo_follows_its_reference_within_reach(frame_ms: int, phase_ms: int) -> None:
    found = lags_ms(NEAR, DeviceTiming(frame_ms=frame_ms, phase_ms=phase_ms))
    assert min(found) > 0
    assert max(found) < 300


@pytest.mark.parametrize(
    "timing",
    [
        DeviceTiming(output_ms=0, input_ms=0),
        DeviceTiming(output_ms=80, input_ms=60),
        DeviceTiming(down_ms=lambda n: 15 + n * 37 % 90, up_ms=lambda n: 15 + n * 53 % 120),
        DeviceTiming(lost=frozenset(range(20, 200, 17))),
        DeviceTiming(silent_from_ms=0),
        DeviceTiming(silent_from_ms=6000),
    ],
    ids=[
        "no buffers",
        "long buffers",
        "uneven network",
        "lost frames",
        "never a stamp",
        "no stamps any more",
    ],
)
def test_delays_and_losses_do_not_lose_the_place(timing: DeviceTiming) -> None:
    found = np.array(lags_ms(NEAR, timing))
    assert np.mean((found > 0) & (found < 400)) >= 0.9, found


def test_a_stall_is_made_up_for() -> None:
    found = np.array(lags_ms(NEAR, DeviceTiming(down_ms=lambda n: 15 + 500 * (n % 50 == 20))))
    assert np.mean((found > 0) & (found < 400)) >= 0.75, found


def test_references_are_decoded_in_the_worker_only() -> None:
    references = References()
    encoder = OpusEncoder(24000, 60)
    references.sent(60, encoder.encode(bytes(encoder.frame_bytes)))
    assert references._decoder is None
