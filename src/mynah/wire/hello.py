"""The handshake: which framing a connection uses, and the server's answer to a device's hello."""

from __future__ import annotations

from mynah.wire.messages import AudioParams, Hello, ServerHello

SAMPLE_RATES = (8000, 12000, 16000, 24000, 48000)
"""Rates in Hz that an Opus decoder can be opened with."""

FRAME_DURATIONS = (5, 10, 20, 40, 60, 80, 100, 120)
"""Frame lengths in ms that firmware accepts; with any other it cannot open its decoder and stays silent."""

DEFAULT_FRAME_DURATION = 60

VERSIONS = (1, 2, 3)
"""Framing versions in use."""


def protocol_version(header: str | None) -> int:
    """Read the ``Protocol-Version`` request header; 1 when it is missing or not one of `VERSIONS`."""
    text = (header or "").strip()
    return int(text) if text in {"1", "2", "3"} else 1


def answer(
    hello: Hello, session_id: str, sample_rate: int, frame_duration: int = DEFAULT_FRAME_DURATION
) -> ServerHello:
    """Make the one hello that a server sends.

    ``sample_rate`` (Hz) and ``frame_duration`` (ms) describe the audio that will be *sent*: they are the
    server's own and never an echo of the device's. Raises ValueError for a value no device can play, or an
    empty id.
    """
    if sample_rate not in SAMPLE_RATES:
        raise ValueError(f"sample rate {sample_rate} Hz is not one of {SAMPLE_RATES}")
    if frame_duration not in FRAME_DURATIONS:
        raise ValueError(f"frame duration {frame_duration} ms is not one of {FRAME_DURATIONS}")
    if not session_id:
        raise ValueError("a session needs an id")
    return ServerHello(
        session_id=session_id,
        audio_params=AudioParams(sample_rate=sample_rate, frame_duration=frame_duration),
        version=hello.version if hello.version in VERSIONS else 1,
    )
