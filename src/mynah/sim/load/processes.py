"""Processes of this machine: which one serves an address, who belongs to it, and what it uses.

Linux is read directly: psutil takes ten times as long for the same. Other systems are asked through psutil.
"""

from __future__ import annotations

import ipaddress
import os
import sys
from pathlib import Path
from typing import Final

import msgspec
import psutil

from mynah.sim.load.sources import addresses, host_and_port, is_on_this_machine

RELAYS: Final = frozenset({
    "docker-proxy", "rootlessport", "slirp4netns", "pasta", "conmon", "containerd-shim",
    "nginx", "haproxy", "caddy", "traefik", "envoy", "apache2", "httpd", "sshd", "ssh",
})  # fmt: skip
"""Programs that only pass connections on: what they use says nothing about the server behind them."""

_LINUX: Final = sys.platform == "linux"
_PAGE: Final = os.sysconf("SC_PAGE_SIZE") if _LINUX else 4096
_ANY: Final = "0.0.0.0"  # noqa: S104 - to compare with, not to bind to
_TICKS: Final = os.sysconf("SC_CLK_TCK") if _LINUX else 100
_GONE: Final = (psutil.NoSuchProcess, psutil.AccessDenied)


class Counters(msgspec.Struct, frozen=True):
    """A process at a moment."""

    started: float
    """Tells it from a later process with the same number; its unit depends on the system."""
    cpu_s: float
    """CPU time of all its threads, since it began."""
    main_s: float
    """The same of its main thread, where the event loop of a Python server runs. Elsewhere than on Linux 0."""
    resident: int
    """Bytes. Recent kernels count roughly here, to some hundred kB per core."""
    threads: int


def read(pid: int) -> Counters | None:
    """Return what a process has used; None when it is gone or may not be looked at."""
    if not _LINUX:
        return _read_elsewhere(pid)
    try:
        fields = _stat(f"/proc/{pid}/stat")
        main = _stat(f"/proc/{pid}/task/{pid}/stat")
    except (OSError, IndexError):
        return None
    if fields[0] in {b"Z", b"X"}:
        return None  # it has ended and its parent has not asked how
    return Counters(
        started=float(fields[19]),
        cpu_s=(int(fields[11]) + int(fields[12])) / _TICKS,
        main_s=(int(main[11]) + int(main[12])) / _TICKS,
        resident=int(fields[21]) * _PAGE,
        threads=int(fields[17]),
    )


def _stat(path: str) -> list[bytes]:
    """Return the fields behind the name, which may itself hold spaces and parentheses."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.read(descriptor, 4096).rpartition(b")")[2].split()
    finally:
        os.close(descriptor)


def _read_elsewhere(pid: int) -> Counters | None:
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            if process.status() == psutil.STATUS_ZOMBIE:
                return None
            times = process.cpu_times()
            return Counters(
                started=process.create_time(),
                cpu_s=times.user + times.system,
                main_s=0.0,
                resident=process.memory_info().rss,
                threads=process.num_threads(),
            )
    except _GONE:
        return None


def descriptors(pid: int) -> int | None:
    """Return how many files and sockets a process has open; None when that may not be seen.

    Linux 6.2 and later answer in µs. Older ones have to list them, which takes some 10 ms for 20 000.
    """
    try:
        if not _LINUX:
            process = psutil.Process(pid)
            return int(process.num_handles() if sys.platform == "win32" else process.num_fds())
        folder = Path(f"/proc/{pid}/fd")
        return folder.stat().st_size or sum(1 for _ in folder.iterdir())
    except (OSError, *_GONE):
        return None


def descriptor_limit(pid: int) -> int | None:
    """Return how many files and sockets a process may have open (its soft limit); None: no limit, or not known."""
    try:
        lines = Path(f"/proc/{pid}/limits").read_text().splitlines()
    except OSError:
        return None
    line = next((line for line in lines if line.startswith("Max open files")), "")
    soft = (*line.removeprefix("Max open files").split(), "")[0]
    return int(soft) if soft.isdecimal() else None


def children(pid: int) -> list[int]:
    """Return the processes that a process has started, and those which they have. Takes some ms."""
    try:
        return [child.pid for child in psutil.Process(pid).children(recursive=True)]
    except _GONE:
        return []


def find_server(target: str) -> int | None:
    """Return the process on this machine that listens at an address.

    None when the address belongs to another machine, when the process may not be seen (it belongs to another user, or
    runs in a container), and when what listens there only passes connections on, such as nginx or Docker's proxy.
    Of several processes that share the socket it is the one that began first. Takes some 10 to 100 ms.
    """
    if not is_on_this_machine(target):
        return None
    host, port = host_and_port(target)
    wanted = set(addresses(host))
    listening = _listening(port) if _LINUX else _listening_elsewhere(port)
    exact = {pid for address, pid in listening if address in wanted}
    # A socket for all addresses of IPv6 takes those of IPv4 as well, unless it says otherwise.
    anywhere = {
        pid for address, pid in listening if address == "::" or (address == _ANY and _some_v4(wanted))
    }
    return _oldest(exact or anywhere)


def _some_v4(wanted: set[str]) -> bool:
    return any("." in address for address in wanted)


def _listening(port: int) -> list[tuple[str, int]]:
    """Return address and process of all that listen at a port, as far as they may be seen.

    psutil names one process only where several share the socket, and takes s where there are many connections.
    """
    sockets: dict[str, str] = {}
    for file in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        try:
            lines = file.read_bytes().splitlines()
        except OSError:
            continue
        for line in lines:
            if b" 0A " in line and int((fields := line.decode().split())[1].rpartition(":")[2], 16) == port:
                sockets[f"socket:[{fields[9]}]"] = _address(fields[1].partition(":")[0])
    if not sockets:
        return []
    return [(sockets[link], pid) for pid in psutil.pids() for link in sockets.keys() & _links(pid)]


def _address(text: str) -> str:
    """Return an address of the kernel's table, which has words in the machine's own order of bytes."""
    words = [int(text[at : at + 8], 16) for at in range(0, len(text), 8)]
    found = ipaddress.ip_address(b"".join(word.to_bytes(4, sys.byteorder) for word in words))
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return str(mapped or found)


def _links(pid: int) -> set[str]:
    """Return what a process has open; empty when it is gone or belongs to somebody else."""
    found: set[str] = set()
    try:
        with os.scandir(f"/proc/{pid}/fd") as entries:
            for entry in entries:
                try:
                    found.add(os.readlink(entry.path))  # noqa: PTH115 - 20 000 of them
                except OSError:
                    pass  # closed meanwhile
    except OSError:
        pass
    return found


def _listening_elsewhere(port: int) -> list[tuple[str, int]]:
    try:
        found = psutil.net_connections(kind="tcp")
    except psutil.AccessDenied:
        return []  # macOS tells only root
    return [
        (entry.laddr.ip.partition("%")[0], entry.pid)
        for entry in found
        if entry.status == psutil.CONN_LISTEN and entry.pid and entry.laddr.port == port
    ]


def _oldest(pids: set[int]) -> int | None:
    candidates: list[tuple[float, int]] = []
    for pid in pids:
        try:
            process = psutil.Process(pid)
            if process.name() in RELAYS:
                return None
            candidates.append((process.create_time(), pid))
        except _GONE:
            continue
    return min(candidates)[1] if candidates else None
