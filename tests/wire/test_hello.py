import pytest
from hypothesis import given
from hypothesis import strategies as st

from mynah.wire.hello import FRAME_DURATIONS, SAMPLE_RATES, answer, protocol_version
from mynah.wire.messages import AudioParams, Hello, ServerHello


@pytest.mark.parametrize(
    ("header", "version"),
    [
        ("1", 1),
        ("2", 2),
        ("3", 3),
        (" 3 ", 3),
        (None, 1),
        ("", 1),
        ("0", 1),
        ("4", 1),
        ("2.0", 1),
        ("²", 1),
        ("x", 1),
    ],
)
def test_protocol_version(header: str | None, version: int) -> None:
    assert protocol_version(header) == version


@given(st.none() | st.text())
def test_any_header_gives_a_version(header: str | None) -> None:
    assert protocol_version(header) in {1, 2, 3}


def test_answer_announces_our_own_audio_not_the_devices() -> None:
    hello = Hello(version=3, audio_params=AudioParams(sample_rate=16000, frame_duration=20))
    assert answer(hello, "s", 24000) == ServerHello(
        session_id="s",
        audio_params=AudioParams("opus", 24000, 1, 60),
        transport="websocket",
        version=3,
    )


def test_a_hello_of_an_unknown_version_is_answered_as_version_1() -> None:
    assert answer(Hello(version=99), "s", 16000).version == 1


@given(rate=st.integers(0, 50000) | st.sampled_from(SAMPLE_RATES), duration=st.integers(0, 130))
def test_only_values_that_a_device_can_play(rate: int, duration: int) -> None:
    if rate in SAMPLE_RATES and duration in FRAME_DURATIONS:
        assert answer(Hello(), "s", rate, duration).audio_params == AudioParams("opus", rate, 1, duration)
    else:
        with pytest.raises(ValueError, match="is not one of"):
            answer(Hello(), "s", rate, duration)


def test_a_session_needs_an_id() -> None:
    with pytest.raises(ValueError, match="id"):
        answer(Hello(), "", 16000)
