"""Devices that connect, say hello and then wait: thousands in one process, for what connections cost the server.

Bare sockets and one epoll, no event loop and no WebSocket library: the client must not be what limits the rate. It is
told what to do in lines of JSON on standard input and answers each with one on standard output, see `Order`.
"""

from __future__ import annotations

import contextlib
import re
import select
import socket
import struct
import subprocess
import sys
import time
from collections import deque
from typing import Final, Self
from urllib.parse import urlsplit

import msgspec

from mynah.errors import MynahError

HELLO: Final = (
    b'{"type":"hello","version":1,"features":{"mcp":%s},"transport":"websocket",'
    b'"audio_params":{"format":"opus","sample_rate":16000,"channels":1,"frame_duration":60}}'
)
"""What firmware says; ``mcp`` is ``true`` there."""
TOOLS: Final = tuple(
    (name, f"{words} Use it when the user asks for that.", arguments)
    for name, words, arguments in (
        ("self.get_device_status", "Returns volume, screen, battery and network of the device.", ""),
        ("self.audio_speaker.set_volume", "Sets the volume of the speaker.", '"volume":{"type":"integer"}'),
        ("self.screen.set_brightness", "Sets the brightness.", '"brightness":{"type":"integer"}'),
        ("self.screen.set_theme", "Sets the theme, light or dark.", '"theme":{"type":"string"}'),
    )
)
"""The tools of an ordinary board."""
ASK: Final = b'{"type":"listen","state":"detect","text":"tell me something"}'
SOURCES: Final = 4
"""Addresses 127.0.0.2 … the devices come from, one after another: each has some 28 000 ports of its own."""
WINDOW: Final = 64
"""Devices that are connecting at once where no rate is asked for."""

_TEXT, _PING, _PONG = 1, 9, 10
_READ_BYTES = 65536
_TIMEOUT_S = 30.0
_CALL = re.compile(rb'"id"\s*:\s*(\d+)')
_PROGRAM = "import sys; from mynah.bench import idlers; idlers.main(*sys.argv[1:])"


class Order(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the devices shall do."""

    do: str
    """``connect`` devices ``first`` … ``first + count - 1`` (those that are connected come again), ``rate`` a second
    (0: as fast as they are served); ``ask``: they ask a question, one after the other within ``seconds``; ``rest`` for
    ``seconds`` and ping ``rate`` times a second; ``drop`` ``count`` devices at once; ``send`` a message of ``size``
    bytes from ``count`` devices."""
    first: int = 0
    count: int = 0
    rate: float = 0.0
    seconds: float = 0.0
    size: int = 0


class Outcome(msgspec.Struct):
    """What came of an order."""

    ms: list[float] = []
    """``connect``: from the moment a device was due to the answer to its hello. ``rest``: round trips of pings."""
    seconds: float = 0.0
    failed: int = 0
    """Devices that were refused, cut off or not answered."""


class Idlers:
    """The processes of the devices, seen from the benchmark. Use as a context."""

    def __init__(self, url: str, *, tools: bool = False) -> None:
        """``url``: of the server under test. ``tools``: the devices offer those of an ordinary board, as MCP."""
        command = [sys.executable, "-c", _PROGRAM, url, str(int(tools))]
        self._process = subprocess.Popen(  # noqa: S603 - ourselves
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._process:
            self._process.kill()

    def tell(self, order: Order) -> Outcome:
        """Give an order and wait for what comes of it. Raises MynahError."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(msgspec.json.encode(order).decode() + "\n")
            self._process.stdin.flush()
            return msgspec.json.decode(self._process.stdout.readline(), type=Outcome)
        except (OSError, msgspec.DecodeError) as error:
            raise MynahError("the devices of the benchmark have failed") from error


class _Device:
    """One connection."""

    __slots__ = ("due", "number", "pending", "socket", "state")

    def __init__(self, number: int, connection: socket.socket, due: float) -> None:
        self.number = number
        self.socket = connection
        self.due = due
        self.state = "connecting"
        self.pending = b""


class Crowd:
    """All devices of this process."""

    def __init__(self, url: str, *, tools: bool = False) -> None:
        address = urlsplit(url)
        self._server = (address.hostname or "127.0.0.1", address.port or 80)
        self._path = address.path
        self._hello = masked(_TEXT, HELLO % (b"true" if tools else b"false"))
        self._epoll = select.epoll()
        self._devices: dict[int, _Device] = {}
        self._by_fd: dict[int, _Device] = {}
        self._connecting = 0
        self._outcome = Outcome()
        self._pinged = 0.0

    def obey(self, order: Order) -> Outcome:
        """Do what is ordered; return what came of it."""
        outcome = self._outcome = Outcome(ms=[])
        begun = time.perf_counter()
        match order.do:
            case "connect":
                self._connect(range(order.first, order.first + order.count), order.rate)
            case "ask":
                for number in range(order.first, order.first + order.count):
                    self._devices[number].socket.send(masked(_TEXT, ASK))
                    self._rest(order.seconds / order.count)
            case "rest":
                self._rest(order.seconds, order.rate)
            case "drop":
                for number in tuple(self._devices)[: order.count]:
                    self._forget(self._devices[number])
            case "send":
                message = masked(_TEXT, b'{"type":"ping","pad":"' + b" " * (order.size - 24) + b'"}')
                for number in tuple(self._devices)[: order.count]:
                    self._devices[number].socket.send(message)
                    self._read(0.0)
        outcome.seconds = time.perf_counter() - begun
        return outcome

    # -- connecting

    def _connect(self, numbers: range, rate: float) -> None:
        waiting = deque(numbers)
        begun = time.perf_counter()
        started = 0
        last = begun
        while waiting or self._connecting:
            now = time.perf_counter()
            room = WINDOW - self._connecting if not rate else int((now - begun) * rate) + 1 - started
            for _ in range(min(room, len(waiting))):
                self._start(waiting.popleft(), begun + started / rate if rate else now)
                started += 1
                last = now
            if now - last > _TIMEOUT_S:
                self._outcome.failed += self._connecting
                self._connecting = 0
                return
            self._read(0.001 if rate and waiting else 0.01)

    def _start(self, number: int, due: float) -> None:
        older = self._devices.get(number)
        if older is not None:
            self._forget(older)
        connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Cut, not closed: no port is kept waiting for a minute.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.bind((f"127.0.0.{2 + number % SOURCES}", 0))
        with contextlib.suppress(BlockingIOError):
            connection.connect(self._server)
        device = _Device(number, connection, due)
        self._devices[number] = self._by_fd[connection.fileno()] = device
        self._epoll.register(connection.fileno(), select.EPOLLOUT)
        self._connecting += 1

    def _upgrade(self, device: _Device) -> None:
        device.state = "upgrading"
        number = device.number
        mac = ":".join(f"{byte:02x}" for byte in (2, 0, *number.to_bytes(4, "big")))
        device.socket.send(
            (
                f"GET {self._path} HTTP/1.1\r\nHost: {self._server[0]}:{self._server[1]}\r\n"
                "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
                f"Authorization: Bearer test-token\r\nProtocol-Version: 1\r\nDevice-Id: {mac}\r\n"
                f"Client-Id: {number:08x}-7d1e-4a3c-9b2f-0123456789ab\r\n\r\n"
            ).encode()
        )
        self._epoll.modify(device.socket.fileno(), select.EPOLLIN)

    def _forget(self, device: _Device) -> None:
        del self._devices[device.number]
        del self._by_fd[device.socket.fileno()]
        device.socket.close()
        if device.state in ("connecting", "upgrading", "greeting"):
            self._connecting -= 1

    # -- reading

    def _read(self, wait_s: float) -> None:
        for descriptor, event in self._epoll.poll(wait_s):
            device = self._by_fd.get(descriptor)
            if device is None:
                continue
            if event & select.EPOLLOUT and not event & (select.EPOLLERR | select.EPOLLHUP):
                self._upgrade(device)
                continue
            try:
                data = device.socket.recv(_READ_BYTES)
            except BlockingIOError:
                continue
            except OSError:
                data = b""
            if not data:
                self._outcome.failed += 1
                self._forget(device)
                continue
            self._take(device, data)

    def _take(self, device: _Device, data: bytes) -> None:
        data = device.pending + data
        if device.state == "upgrading":
            head, end, data = data.partition(b"\r\n\r\n")
            if not end:
                data = head
            elif not head.startswith(b"HTTP/1.1 101"):
                self._outcome.failed += 1
                self._forget(device)
                return
            else:
                device.state = "greeting"
                device.socket.send(self._hello)
        device.pending = data
        if device.state == "upgrading":
            return
        for kind, payload in self._frames(device):
            if kind == _PONG:
                self._outcome.ms.append((time.perf_counter() - self._pinged) * 1000)
                self._pinged = 0.0
            elif kind == _TEXT:
                self._on_text(device, payload)

    def _frames(self, device: _Device) -> list[tuple[int, bytes]]:
        frames, device.pending = split_frames(device.pending)
        return frames

    def _on_text(self, device: _Device, payload: bytes) -> None:
        if device.state == "greeting" and b'"hello"' in payload:
            device.state = "open"
            self._connecting -= 1
            self._outcome.ms.append((time.perf_counter() - device.due) * 1000)
        elif b'"mcp"' in payload and (call := _CALL.search(payload)) is not None:
            if b'"tools/list"' in payload:
                result = b'{"tools":[%s]}' % b",".join(_tool(*tool) for tool in TOOLS)
            else:
                result = (
                    b'{"protocolVersion":"2024-11-05","capabilities":{"tools":{}},'
                    b'"serverInfo":{"name":"b","version":"1"}}'
                )
            answer = b'{"type":"mcp","payload":{"jsonrpc":"2.0","id":%s,"result":%s}}' % (call[1], result)
            device.socket.send(masked(_TEXT, answer))

    # -- the rest

    def _rest(self, seconds: float, rate: float = 0.0) -> None:
        """Wait, and ping over one connection all the while: its round trips show when the server was busy."""
        end = time.perf_counter() + seconds
        device = next(iter(self._devices.values()), None) if rate else None
        due = time.perf_counter()
        while (now := time.perf_counter()) < end:
            if device is not None and not self._pinged and now >= due:
                self._pinged, due = now, now + 1 / rate
                device.socket.send(masked(_PING, b""))
            soon = due - now if device is not None and not self._pinged else end - now
            self._read(max(0.0, min(soon, 0.01)))


def _tool(name: str, words: str, arguments: str) -> bytes:
    return (
        f'{{"name":"{name}","description":"{words}",'
        f'"inputSchema":{{"type":"object","properties":{{{arguments}}}}}}}'
    ).encode()


def masked(opcode: int, payload: bytes) -> bytes:
    """Return a frame as clients send it; the mask is zeros, so that nothing has to be computed."""
    size = len(payload)
    head = (
        bytes((0x80 | opcode, 0x80 | size)) if size < 126 else struct.pack("!BBH", 0x80 | opcode, 0xFE, size)
    )
    return head + bytes(4) + payload


def split_frames(data: bytes) -> tuple[list[tuple[int, bytes]], bytes]:
    """Return the server's frames (opcode and payload) in these bytes, and what is left of an unfinished one."""
    frames: list[tuple[int, bytes]] = []
    at = 0
    while len(data) - at >= 2:
        size, begin = data[at + 1] & 0x7F, at + 2
        if size == 126:
            if len(data) < begin + 2:
                break
            size, begin = int.from_bytes(data[begin : begin + 2], "big"), begin + 2
        elif size == 127:
            if len(data) < begin + 8:
                break
            size, begin = int.from_bytes(data[begin : begin + 8], "big"), begin + 8
        if len(data) < begin + size:
            break
        frames.append((data[at] & 0x0F, data[begin : begin + size]))
        at = begin + size
    return frames, data[at:]


def main(url: str, tools: str) -> None:
    """Be the process of the devices."""
    crowd = Crowd(url, tools=tools == "1")
    for line in sys.stdin:
        outcome = crowd.obey(msgspec.json.decode(line, type=Order))
        sys.stdout.write(msgspec.json.encode(outcome).decode() + "\n")
        sys.stdout.flush()
