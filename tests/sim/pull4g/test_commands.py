"""What a device says, read by the server's own reader."""

from __future__ import annotations

import pytest

from mynah.errors import WireError
from mynah.sim.pull4g.codec import Form
from mynah.sim.pull4g.commands import Commands, Speaker
from mynah.wire import pull4g
from mynah.wire.pull4g import Codec, Options, ServerStream

ID = "02:00:00:00:00:07"


class Wire:
    """The server's end."""

    def __init__(self) -> None:
        self.stream = ServerStream()
        self.events: list[pull4g.ClientEvent] = []

    def write(self, data: bytes) -> None:
        self.events += self.stream.feed(data)


def test_each_connection_begins_with_who_it_is() -> None:
    one = Commands(Speaker(ID, Form(Codec.ADPCM, 8000), "t0", "c0"))
    whole = Options("t0", Codec.ADPCM, 8000, framed=True, text=True, client_id="c0")
    for _ in range(2):
        wire = Wire()
        one.attach(wire)
        assert not one.framed
        one.request()
        assert one.framed
        one.request(7)
        one.start()
        one.audio(b"abc")
        one.complete()
        one.acknowledge(5)
        one.keep_alive()
        assert one.interrupt()
        known = Options(framed=True)
        assert wire.events == [
            pull4g.Request(ID, whole),
            pull4g.Request(ID, Options(framed=True, offset=7)),
            pull4g.Start(ID, Options(None, Codec.ADPCM, 8000, framed=True, text=True)),
            pull4g.Audio(b"abc"),
            pull4g.RecordingComplete(),
            pull4g.Acknowledge(5),
            pull4g.KeepAlive(),
            pull4g.Interrupt(ID, known),
        ]
    one.attach(None)
    assert not one.interrupt()


def test_who_knows_no_options_tells_none() -> None:
    one = Commands(Speaker(ID, Form(Codec.PCM, framed=False), "t0", "c0", bare=True))
    wire = Wire()
    one.attach(wire)
    one.start()
    one.interrupt()
    assert wire.events == [pull4g.Start(ID, Options()), pull4g.Interrupt(ID, Options())]


def test_a_token_that_fits_in_no_command_is_refused_at_once() -> None:
    with pytest.raises(WireError, match="too long"):
        Commands(Speaker(ID, Form(), "t" * 240))
    with pytest.raises(WireError, match="12 hex digits"):
        Commands(Speaker("somebody", Form()))
