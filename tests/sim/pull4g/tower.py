"""A stand-in for a server of the pull protocol, without sockets: it answers as a test tells it to, on virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from mynah.sim.discovery import DeviceIdentity
from mynah.sim.link import ConnectError
from mynah.sim.pull4g.codec import Form, Words
from mynah.sim.pull4g.device import PullDevice
from mynah.sim.pull4g.line import LineListener
from mynah.wire import pull4g
from mynah.wire.pull4g import Codec, DeviceStream, ServerStream

PLAIN = Form(Codec.PCM, framed=False)
FRAMED = Form(Codec.PCM)
PIECES = tuple(bytes([number]) * 100 for number in range(1, 11))
WORDS = Words(PIECES, text="ten pieces")
"""0.6 s to say."""
SAID = b"".join(PIECES)


class FakeLine:
    """One connection. Implements `mynah.sim.pull4g.line.Line`."""

    def __init__(self, tower: Tower, listener: LineListener) -> None:
        self._tower, self._listener = tower, listener
        self._server, self._device = ServerStream(), DeviceStream()
        self.opened_at = asyncio.get_running_loop().time()
        self.events: list[tuple[float, pull4g.ClientEvent]] = []
        self.framed = False
        self.closed = False

    def write(self, data: bytes) -> None:
        now = asyncio.get_running_loop().time()
        for event in self._server.feed(data):
            self.events.append((now, event))
            if not self.closed and not self._tower.dead:
                asyncio.get_running_loop().call_soon(self._tower.on_event, self, event)

    def abort(self) -> None:
        self.closed = True

    def say(self, *pieces: bytes) -> None:
        """The server sends."""
        if not self.closed:
            self._listener.on_events(self._device.feed(b"".join(pieces)))

    def bracket(self, audio: bytes = b"", *, final: bool = False) -> None:
        """The server answers a poll."""
        start, end = pull4g.audio_start(self.framed), pull4g.audio_end(self.framed, final)
        self.say(start, pull4g.audio(audio, self.framed), end)

    def cut(self) -> None:
        """The connection is lost."""
        self.closed = True
        self._listener.on_lost("cut")

    def of(self, kind: type[Any]) -> list[Any]:
        """Return the events of one kind."""
        return [event for _, event in self.events if isinstance(event, kind)]

    def times(self, kind: type[Any]) -> list[float]:
        """Return when they were, in s since the connection was made."""
        return [round(at - self.opened_at, 3) for at, event in self.events if isinstance(event, kind)]

    @property
    def audio(self) -> bytes:
        return b"".join(event.data for event in self.of(pull4g.Audio))


class Tower:
    """The server. By default it answers each poll with nothing, and frames with what it has received."""

    def __init__(self) -> None:
        self.lines: list[FakeLine] = []
        self.tried: list[float] = []
        self.down = False
        """Nobody can connect."""
        self.dead = False
        """Connections stand, and nothing comes back."""
        self.received = 0
        """What the server has of the recording, which outlives connections."""
        self.on_poll: Callable[[FakeLine, pull4g.Request], None] = lambda line, _: line.bracket()

    async def open(self, listener: LineListener) -> FakeLine:
        """Be the device's `Opening`."""
        self.tried.append(asyncio.get_running_loop().time())
        await asyncio.sleep(0)
        if self.down:
            raise ConnectError("no cell in sight")
        self.lines.append(FakeLine(self, listener))
        return self.lines[-1]

    @property
    def line(self) -> FakeLine:
        return self.lines[-1]

    def on_event(self, line: FakeLine, event: pull4g.ClientEvent) -> None:
        if line.closed or self.dead:
            return
        match event:
            case pull4g.Start(_, options):
                if options.offset is None:
                    self.received = 0
                self._announce(line, options.framed)
                if line.framed:
                    line.say(pull4g.received(self.received))
            case pull4g.Audio(data):
                self.received += len(data)
            case pull4g.RecordingComplete():
                if line.framed:
                    line.say(pull4g.received(self.received))
            case pull4g.Request():
                self._announce(line, event.options.framed)
                self.on_poll(line, event)
            case _:
                pass

    def _announce(self, line: FakeLine, framed: bool) -> None:
        if framed and not line.framed:
            line.say(pull4g.ready("s1", line.framed))
            line.framed = True


def device(tower: Tower, form: Form = FRAMED, **options: Any) -> PullDevice:
    """A device on virtual time, connected as soon as the loop runs."""
    made = PullDevice(
        "tcp://tower", DeviceIdentity("02:00:00:00:00:07"), form=form, opening=tower.open,
        clock=asyncio.get_running_loop().time, **options,
    )  # fmt: skip
    made.start()
    return made
