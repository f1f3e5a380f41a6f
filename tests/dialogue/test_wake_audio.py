from __future__ import annotations

from mynah.dialogue.wake_audio import MAX_AGE_S, MAX_PACKETS, WakeAudio
from tests.conformance.device import silence


def test_its_length_is_that_of_the_packets_of_the_last_seconds() -> None:
    wake = WakeAudio()
    packet = silence(1)[0]
    wake.push(packet, 0.0)
    for _ in range(10):
        wake.push(packet, 10.0)
    assert wake.duration_ms(10.5) == 600
    assert wake.duration_ms(10.0 + MAX_AGE_S + 0.1) == 0


def test_it_is_bounded_and_survives_what_is_no_audio() -> None:
    wake = WakeAudio()
    for _ in range(3 * MAX_PACKETS):
        wake.push(silence(1)[0], 1.0)
    assert wake.duration_ms(1.0) == MAX_PACKETS * 60
    for _ in range(MAX_PACKETS):
        wake.push(b"\xff\xff", 1.0)
    assert wake.duration_ms(1.0) == 0
