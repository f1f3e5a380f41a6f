"""The 4G pull transport: TCP connections of devices behind a modem, which can only call out and therefore poll.

A connection that is kept open ahead of time costs its socket and a `PullConnection`; a conversation is made with the
first command (`mynah.net.pull_device`) and belongs to the device, whichever connection it comes over.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from functools import partial
from typing import Final, cast

import msgspec
from loguru import logger

from mynah.net.address import BACKLOG, listening_socket
from mynah.net.gate import Cause, Gate, Refusal
from mynah.net.lines import Lines
from mynah.net.peer import Peer, read_peer, told_peer
from mynah.net.pull_device import PullDevice
from mynah.net.pull_line import PullLine
from mynah.net.pull_reply import ReplyStore
from mynah.net.pull_upload import UploadStore
from mynah.wire import pull4g
from mynah.wire.pull4g import ErrorCode, Options, ServerStream

IDLE_S: Final = 90.0
"""A connection without a word for so long is closed. The device opens a new one when it is needed, or sends an empty
line now and then to keep it."""
SETTLE_S: Final = 0.2
"""Silence after which a command without a line end counts as complete: the simplest devices send none."""
CLOSE_GRACE_S: Final = 10.0
"""How much later it is cut: what was written may leave, but not wait for ever for a peer that reads nothing."""
HANDSHAKE_S: Final = 10.0
"""Time for the TLS handshake."""
SWEEP_S: Final = 1.0
SWEEP_SLICES: Final = 10
"""Parts of a sweep, so that ten thousand devices are not looked at in one go."""
NOT_SENT: Final = 16 * 1024
"""What the kernel takes beyond what is on its way."""
FLOOD_UNITS: Final = 400
FLOOD_WINDOW_S: Final = 10.0
"""A command counts one unit, one that begins or ends a turn twenty; a device polls twice a second. So many in less time
are a flood. Overflow policy: disconnect."""
TURN_UNITS: Final = 20
LEAST_NAMELESS: Final = 64
"""Connections that need not have said whose they are, however few there may be in all."""
FLOOD_FRAMES: Final = 5000
"""The same for frames of audio and acknowledgements, in the same time: a minute of the shortest packets in use may come
at once after a link stood still. Overflow policy: disconnect."""
SLICE: Final = 4096
"""Bytes that are read in one go: between two slices it is looked whether that is enough from this client."""
log = logger.bind(tag="pull4g")


class PullConnection(asyncio.Protocol):
    """One TCP connection: reads commands and hands them to the device that they come from."""

    # fmt: off
    __slots__ = (
        "_device", "_frames", "_ids", "_line", "_load", "_load_since", "_server", "_settling", "_stream", "seen_at",
    )
    # fmt: on

    def __init__(self, server: Pull4gServer) -> None:
        self._server = server
        self._stream = ServerStream()
        self._line: PullLine | None = None
        self._device: PullDevice | None = None
        self._ids: tuple[str, Peer] | None = None  # who it is, once it was let in
        self._settling: asyncio.TimerHandle | None = None
        self._load, self._frames, self._load_since = 0, 0, 0.0
        self.seen_at = 0.0
        """When it last brought something, on the loop's clock."""

    # -- asyncio's callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A device has connected."""
        self._line = PullLine(cast(asyncio.Transport, transport), self._free)
        self.seen_at = self._load_since = asyncio.get_running_loop().time()
        self._server.begin(self)

    def data_received(self, data: bytes) -> None:
        """Some bytes have arrived."""
        loop = asyncio.get_running_loop()
        self.seen_at = loop.time()
        if self._settling is not None:
            self._settling.cancel()
            self._settling = None
        for at in range(0, len(data), SLICE):
            self._take(self._stream.feed(data[at : at + SLICE]))
            if self._line is None or self._line.transport.is_closing():
                return
            if self._stream.frames - self._frames > FLOOD_FRAMES:
                self._look_for_flood()
        if self._stream.settling and self._line is not None:
            self._settling = loop.call_later(SETTLE_S, self._settle)

    def eof_received(self) -> bool:
        """The device says no more: then it is gone."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """The connection is gone, in whatever way. Its conversation waits for the device to come back."""
        if self._settling is not None:
            self._settling.cancel()
            self._settling = None
        if self._device is not None and self._line is not None:
            self._device.download.detach(self._line)
        self._device = self._line = None
        self._server.done(self)

    def pause_writing(self) -> None:
        """Too much is unsent."""
        if self._line is not None:
            self._line.full = True

    def resume_writing(self) -> None:
        """What was unsent has left."""
        if self._line is not None:
            self._line.full = False
        if self._device is not None:
            self._device.download.on_room()

    @property
    def named(self) -> bool:
        """Whether it is known whose it is."""
        return self._ids is not None

    @property
    def name(self) -> str:
        """Return whose it is, for the log."""
        if self._ids is not None:
            return self._ids[0]
        return _address(self._line.transport, "peername") if self._line is not None else "a device"

    @property
    def busy(self) -> bool:
        """Whether it carries a conversation."""
        return self._device is not None

    def check(self, now: float) -> None:
        """Look whether it has been silent for too long; called every second or so."""
        silent = now - self.seen_at
        if silent > IDLE_S + CLOSE_GRACE_S:
            self.abort()
        elif silent > IDLE_S:
            self.close()

    def close(self) -> None:
        """End it once what was written has left."""
        if self._line is not None:
            self._line.close()

    def abort(self) -> None:
        """Cut it."""
        if self._line is not None:
            self._line.transport.abort()

    def _free(self) -> None:
        """The conversation is over; the connection stays for the next one."""
        self._device = None

    # -- what the device says

    def _settle(self) -> None:
        self._settling = None
        self._take(self._stream.settle())

    def _take(self, events: list[pull4g.ClientEvent]) -> None:
        for event in events:
            if self._line is None or self._line.transport.is_closing():
                return
            self._on_event(event)

    def _on_event(self, event: pull4g.ClientEvent) -> None:
        match event:
            case pull4g.Audio(data):
                if self._device is not None:
                    self._device.on_audio(data)
                return
            case pull4g.Acknowledge(count):
                if self._device is not None:
                    self._device.download.acknowledge(count)
                return
            case pull4g.Start() | pull4g.Request() | pull4g.Interrupt():
                self._on_command(event)
            case pull4g.RecordingComplete():
                if self._device is None or not self._device.on_complete():
                    self._refuse(ErrorCode.NO_SESSION, "no recording has begun: send SESSION_START first")
            case pull4g.Malformed(text, fatal):
                self._refuse(ErrorCode.BAD_COMMAND, text, close=fatal)
            case pull4g.KeepAlive():
                pass
        self._count()

    def _on_command(self, command: pull4g.Start | pull4g.Request | pull4g.Interrupt) -> None:
        match command:
            case pull4g.Start(device_id, options):
                self._load += TURN_UNITS
                if (device := self._find(device_id, options, begins=True)) is not None:
                    self._announce(device, always=True)
                    device.on_start(options)
            case pull4g.Request(device_id, options):
                if (device := self._find(device_id, options)) is not None:
                    self._announce(device)
                    device.on_request(options)
            case pull4g.Interrupt(device_id, options):
                self._load += TURN_UNITS
                # Who has no conversation has nothing to interrupt.
                if self._server.has(device_id) and (device := self._find(device_id, options)) is not None:
                    device.on_interrupt()

    def _find(self, device_id: str, options: Options, *, begins: bool = False) -> PullDevice | None:
        """Return the device that speaks, on this connection from now on; None when it may not."""
        if self._ids is not None and self._ids[0] != device_id:
            self._refuse(ErrorCode.BAD_COMMAND, f"this connection is that of {self._ids[0]}", close=True)
            return None
        line = self._line
        assert line is not None
        peer = self._ids[1] if self._ids is not None else _peer(line.transport, device_id, options)
        found = self._server.enter(line, peer, options, known=self._ids is not None, begins=begins)
        if isinstance(found, Refusal):
            unauthorized = found.cause in (Cause.NO_TOKEN, Cause.WRONG_TOKEN, Cause.NOT_BOUND)
            code = ErrorCode.UNAUTHORIZED if unauthorized else ErrorCode.BUSY
            self._refuse(code, found.reason, close=unauthorized)
            return None
        if self._ids is None:
            self._ids = (device_id, peer)
            self._server.named(self)
        self._device = found
        return found

    def _announce(self, device: PullDevice, always: bool = False) -> None:
        """Tell a device in framed mode that it was understood: the first time in a line, which frames follow."""
        line = self._line
        if line is not None and self._stream.framed and (always or not line.framed):
            if not line.framed:
                device.download.end_poll()  # it was begun without frames
            line.write(pull4g.ready(device.session_id, line.framed))
            line.framed = True

    def _refuse(self, code: ErrorCode, text: str, *, close: bool = False) -> None:
        line, device = self._line, self._device
        if line is not None:
            if device is not None and not line.framed:
                device.download.end_poll()  # in the middle of audio it would be taken for audio
            line.write(pull4g.error(code, text, line.framed))
            if close:
                line.close()

    def _count(self) -> None:
        self._load += 1
        if self._load >= FLOOD_UNITS:
            self._look_for_flood()

    def _look_for_flood(self) -> None:
        """Look whether what came in came too fast to be a device's, and if so hang up."""
        self._load, self._frames = 0, self._stream.frames
        now = asyncio.get_running_loop().time()
        since, self._load_since = self._load_since, now
        if now - since < FLOOD_WINDOW_S:
            log.warning("{} floods us with commands, closing its connection", self.name)
            self._refuse(ErrorCode.BUSY, "too many commands", close=True)


class Pull4gServer:
    """Listens for devices on one port, and keeps those that have a conversation. Implements `pull_device.Home`."""

    def __init__(
        self,
        gate: Gate,
        *,
        max_connections: int,
        lead_ms: int,
        tls: ssl.SSLContext | None = None,
        on_refused: Callable[[str], None] | None = None,
    ) -> None:
        """``on_refused`` is told the `Cause` of each device that the gate does not let in."""
        self._gate, self._lead_ms, self._tls, self._on_refused = gate, lead_ms, tls, on_refused
        self._max_connections = max_connections
        self._lines = Lines(log)
        self._server: asyncio.Server | None = None
        self._devices: dict[str, PullDevice] = {}
        # Oldest first. Bound: `max_connections`. Overflow policy: the oldest that has not said whose it is makes room,
        # then the oldest without a conversation; where all have one, the newest is cut.
        self._connections: dict[PullConnection, None] = {}
        # Those that have not said whose they are. Bound: half of `max_connections`, so that strangers cannot take all
        # the files that the server may open. Overflow policy: the oldest is cut.
        self._nameless: dict[PullConnection, None] = {}
        self._replies, self._uploads = ReplyStore(), UploadStore()
        self._unswept: list[PullDevice | PullConnection] = []
        self.opened = 0
        """Conversations so far."""
        self._sweeper: asyncio.TimerHandle | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen; return the port. Raises ConfigError and PortInUseError."""
        listening = listening_socket(host, port, "server.pull4g_port")
        for option, value in (("TCP_NOTSENT_LOWAT", NOT_SENT), ("TCP_NODELAY", 1)):
            if hasattr(socket, option):
                listening.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
        bound: int = listening.getsockname()[1]
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            partial(PullConnection, self),
            sock=listening,
            backlog=BACKLOG,
            ssl=self._tls,
            ssl_handshake_timeout=HANDSHAKE_S if self._tls else None,
            ssl_shutdown_timeout=CLOSE_GRACE_S if self._tls else None,
        )
        self._sweeper = loop.call_later(SWEEP_S, self._sweep)
        return bound

    async def stop(self) -> None:
        """Accept no more connections and close those without a conversation. Conversations go on."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for connection in tuple(self._connections):
            if not connection.named:
                connection.close()

    def close(self) -> None:
        """End everything that is left."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for device in tuple(self._devices.values()):
            device.abort()
        for connection in tuple(self._connections):
            connection.abort()

    def __len__(self) -> int:
        """Connections, with conversations and without."""
        return len(self._connections)

    # -- for the connections

    def begin(self, connection: PullConnection) -> None:
        """A device has connected."""
        self._connections[connection] = self._nameless[connection] = None
        if len(self._nameless) > max(LEAST_NAMELESS, self._max_connections // 2):
            self._cut(next(iter(self._nameless)))
        elif len(self._connections) > self._max_connections:
            others = (known for known in (*self._nameless, *self._connections) if not known.busy)
            self._cut(next((known for known in others if known is not connection), connection))

    def done(self, connection: PullConnection) -> None:
        """A connection is gone."""
        self._connections.pop(connection, None)
        self._nameless.pop(connection, None)

    def named(self, connection: PullConnection) -> None:
        """A connection has said whose it is."""
        self._nameless.pop(connection, None)

    def _cut(self, connection: PullConnection) -> None:
        self.done(connection)  # now: others may come before it is gone
        connection.abort()

    def has(self, device_id: str) -> bool:
        """Return whether a device has a conversation."""
        return device_id in self._devices

    def enter(
        self, line: PullLine, peer: Peer, options: Options, *, known: bool, begins: bool
    ) -> PullDevice | Refusal:
        """Return the device that speaks over a connection, or why it may not.

        ``known``: it has been let in over this connection before. ``begins``: a recording begins with its options.
        """
        device = self._devices.get(peer.device_id)
        goes_on = device is not None and not self._is_other(device, peer, options if begins else None)
        if not known or not goes_on:
            refusal = self._gate.admit(peer)
            if refusal is not None:
                self._lines.refused(refusal.cause, peer.device_id, peer.ip, refusal.reason)
                if self._on_refused is not None:
                    self._on_refused(refusal.cause.value)
                return refusal
        if device is not None and not goes_on:
            older = device.line
            device.abort()
            if older is not None and older is not line:
                older.close()
            device = None
        if device is None:
            device = PullDevice(self._gate, self, peer, options, self._replies, self._lead_ms, self._uploads)
            self._devices[peer.device_id] = device
            self.opened += 1
        device.peer = peer
        device.download.attach(line)
        return device

    @staticmethod
    def _is_other(device: PullDevice, peer: Peer, begun: Options | None) -> bool:
        """Return whether a conversation cannot go on: it is over, not that of who speaks now (`mynah.net.owners`), or
        what is ``begun`` has another codec, and therefore another voice. What was said in it is remembered."""
        if device.ending or device.peer.client_id != peer.client_id:
            return True
        return begun is not None and not device.suits(begun)

    def departed(self, device: PullDevice) -> None:
        """A conversation is over."""
        if self._devices.get(device.peer.device_id) is device:
            del self._devices[device.peer.device_id]
        if device.line is not None:
            device.line.free()

    # -- now and then

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        # First of all, so that one bad device cannot end the sweeps for all.
        self._sweeper = loop.call_later(SWEEP_S / SWEEP_SLICES, self._sweep)
        now = loop.time()
        if not self._unswept:
            self._unswept = [*self._devices.values(), *self._connections]
        for _ in range(
            min(len(self._unswept), 1 + (len(self._devices) + len(self._connections)) // SWEEP_SLICES)
        ):
            self._unswept.pop().check(now)


def _peer(transport: asyncio.Transport, device_id: str, options: Options) -> Peer:
    secure = transport.get_extra_info("sslcontext") is not None
    peer = read_peer("", {}, _address(transport, "peername"), _address(transport, "sockname"), secure)
    token = options.token
    return told_peer(msgspec.structs.replace(peer, authorization=token), device_id, options.client_id)


def _address(transport: asyncio.BaseTransport, name: str) -> str:
    address = transport.get_extra_info(name)
    return address[0] if address else ""
