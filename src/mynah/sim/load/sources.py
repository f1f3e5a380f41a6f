"""From which local addresses the devices connect, and where their target is.

A connection is told apart from others by four numbers: two addresses and two ports. Towards one server three of them
are fixed, so one local address is good for as many connections as there are local ports, some 28 000. On loopback there
are sixteen million local addresses, and Linux lets anyone bind to them.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import sys
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import psutil

from mynah.errors import ConfigError
from mynah.sim.pull4g.line import DEFAULT_PORT

DEFAULT_PORTS: Final = (32_768, 60_999)
"""Range of local ports where the system does not say: that of Linux."""

FILL: Final = 0.45
"""Share of the local ports that is used of one address. Linux looks for a free port among those of one parity first;
when they are gone each connect searches all of them in vain before it tries the others: ms instead of µs."""

MAX_ADDRESSES: Final = 200
"""Bound of the list: 127.0.0.2 to 127.0.0.201, good for some 2.8 million devices. More than that go without."""

_PORTS_FILE: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
_RESERVED_FILE: Final = Path("/proc/sys/net/ipv4/ip_local_reserved_ports")
_DEFAULT_TARGET_PORTS: Final = {
    "ws": 80, "http": 80, "wss": 443, "https": 443, "tcp": DEFAULT_PORT, "tls": DEFAULT_PORT,
}  # fmt: skip


def host_and_port(target: str) -> tuple[str, int]:
    """Return where an address points, of a WebSocket, HTTP, ``tcp`` or ``tls``. Raises ConfigError when it is none."""
    parts = urlsplit(target)
    try:
        port = parts.port or _DEFAULT_TARGET_PORTS.get(parts.scheme, 0)
    except ValueError:
        port = 0
    if not parts.hostname or not port:
        raise ConfigError(f"{target}: not an address; write ws://host:port/path or http://host:port/path")
    return parts.hostname, port


def addresses(host: str) -> list[str]:
    """Return the addresses of ``host`` in the system's order, the first is the one to use; empty: no such name."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return list(dict.fromkeys(str(entry[4][0]).partition("%")[0] for entry in found))


def is_loopback(target: str) -> bool:
    """Tell whether ``target`` is reached without leaving this machine's loopback interface."""
    found = addresses(host_and_port(target)[0])
    return bool(found) and all(ipaddress.ip_address(address).is_loopback for address in found)


def is_on_this_machine(target: str) -> bool:
    """Tell whether ``target`` is one of this machine's own addresses, loopback or not."""
    own = {
        entry.address.partition("%")[0]
        for entries in psutil.net_if_addrs().values()
        for entry in entries
        if entry.family in {socket.AF_INET, socket.AF_INET6}
    }
    return any(
        address in own or ipaddress.ip_address(address).is_loopback
        for address in addresses(host_and_port(target)[0])
    )


def local_ports() -> int:
    """Return how many local ports the system gives to connections of one address."""
    first, last = DEFAULT_PORTS
    reserved = ""
    try:
        low, high = _PORTS_FILE.read_text().split()
        first, last = int(low), int(high)
        reserved = _RESERVED_FILE.read_text().strip()
    except (OSError, ValueError):
        pass  # not Linux, or a sandbox without these files
    return max(0, last - first + 1 - _reserved_within(reserved, first, last))


def _reserved_within(text: str, first: int, last: int) -> int:
    """Return how many ports of ``8080,40000-40010`` lie in a range."""
    taken = 0
    for part in text.split(","):
        low, _, high = part.partition("-")
        if low:
            taken += max(0, min(int(high or low), last) - max(int(low), first) + 1)
    return taken


def source_addresses(target: str, devices: int) -> list[str]:
    """Return the local addresses that ``devices`` connections to ``target`` should be spread over evenly.

    ``[""]`` means that the system shall choose: for every target but an IPv4 loopback address on Linux, and when one
    address is enough. Otherwise they are 127.0.0.2 and up; 127.0.0.1 is left to everybody else. With behaviour
    ``churn`` ``devices`` has to count the connections of the last minute as well, whose ports are still taken.
    """
    per_address = max(1, int(local_ports() * FILL))
    if devices <= per_address or sys.platform != "linux" or not is_loopback_v4(target):
        return [""]
    wanted = min(MAX_ADDRESSES, -(-devices // per_address))
    found = [address for address in (f"127.0.0.{2 + index}" for index in range(wanted)) if _may_bind(address)]
    return found or [""]


def is_loopback_v4(target: str) -> bool:
    """Tell whether the first address of ``target`` is one of 127.0.0.0/8."""
    return is_loopback(target) and "." in addresses(host_and_port(target)[0])[0]


def _may_bind(address: str) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError as error:
            # Sandboxes such as gVisor give loopback one address only.
            return error.errno == errno.EADDRINUSE
    return True
