import pytest

from mynah.sim.handshake import lacks_transport


@pytest.mark.parametrize(
    ("frame", "crashes"),
    [
        (b'{"type":"hello"}', True),
        (b'{"type":"hello","transport":null}', True),
        (b'{"type":"hello","transport":"websocket"}', False),
        (b'{"type":"tts"}', False),
        (b"[]", False),
        (b"{", False),
        (b"\xff", False),
        (b"[" * 100_000, False),
    ],
)
def test_only_a_hello_without_transport_crashes(frame: bytes, crashes: bool) -> None:
    assert lacks_transport(frame) is crashes
