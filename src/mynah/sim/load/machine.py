"""Is this machine up to the load test? What it has, what the test will want, and the command where it is short.

`look` reads the facts, `examine` judges them. Linux is looked at closely; elsewhere the checks are left out whose facts
the system does not give.
"""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path
from typing import Final

import msgspec
import psutil

from mynah import resources
from mynah.errors import ConfigError
from mynah.sim.load import processes, sources
from mynah.sim.load.record import Check, Machine

DESCRIPTOR_RESERVE: Final = 200
"""Files and sockets of a generator process that are no device: libraries, pipes, requests to the OTA address."""

SERVER_RESERVE: Final = 1000
"""The same of a large server: AI services, HTTP. A small one gets along with a third of its devices."""

DEVICE_BYTES: Final = 20_000
"""Per device, on the generator's side: itself and its socket in the kernel."""

SERVED_BYTES: Final = 60_000
"""Per device, on the server's side, when that is on the same machine. Servers differ: this is for a thrifty one."""

PROCESS_BYTES: Final = 80_000_000
"""A generator process without devices."""

SERVER_STALL_S: Final = 0.5
"""A server that is busy for so long takes no connection; meanwhile the kernel has to keep those that arrive."""

BUSY_SHARE: Final = 0.15
"""Of the cores: what others may use before the test without spoiling it."""

SWAP_SHARE: Final = 0.05
"""Of the swap: in use before the test. Some systems move a little there for good reason."""

WATCH_S: Final = 0.4
"""How long `look` watches what the machine does."""


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What the checks need to know. None: not known on this system, so there is no check."""

    devices: int
    connections: int
    """Local ports that are taken at once; more than devices when they come and go."""
    processes: int | None = None
    """Of the generator; None: as many as the descriptors need."""
    connects_per_s: float = 200.0
    server_here: bool = False
    server_pid: int | None = None
    cores: float = 1.0
    descriptors: int | None = None
    """That a generator process may have, after raising."""
    server_descriptors: int | None = None
    ports: int | None = None
    """Of one local address."""
    addresses: int = 1
    """Local addresses that the devices are spread over."""
    loopback_v4: bool = False
    memory_available: int | None = None
    listen_queue: int | None = None
    syn_queue: int | None = None
    swap_used: int | None = None
    swap_total: int = 0
    busy: float | None = None
    """Cores in use by others."""
    time_wait: int | None = None
    conntrack_free: int | None = None
    conntrack_max: int = 0


def look(
    target: str,
    devices: int,
    *,
    processes_wanted: int | None = None,
    connections: int | None = None,
    connects_per_s: float = 200.0,
    server_pid: int | None = None,
    watch_s: float = WATCH_S,
) -> Machine:
    """Return what this machine is and whether so many devices can be simulated here against ``target``.

    Raises the limit of open files first. Blocks for ``watch_s``, to see how busy others keep the machine.
    ``connections`` is how many local ports are taken at once, with those of connections that ended within the last
    minute; None: one per device. ``server_pid`` None: it is looked for. Raises ConfigError when ``target`` is no
    address.
    """
    resources.raise_descriptor_limit()
    facts = read_facts(
        target,
        devices,
        processes_wanted=processes_wanted,
        connections=connections,
        connects_per_s=connects_per_s,
        server_pid=server_pid,
        watch_s=watch_s,
    )
    limits = resources.limits()
    return Machine(
        cpu=_cpu_name(),
        cores=resources.whole_cores(limits),
        memory=resources.memory_limit(limits),
        system=_system(),
        python=f"{platform.python_implementation()} {platform.python_version()}",
        checks=examine(facts),
    )


# ---------------------------------------------------------------- facts


def read_facts(
    target: str,
    devices: int,
    *,
    processes_wanted: int | None = None,
    connections: int | None = None,
    connects_per_s: float = 200.0,
    server_pid: int | None = None,
    watch_s: float = WATCH_S,
    root: Path = Path("/"),
) -> Facts:
    """Read what `examine` judges. ``root`` is where ``/proc`` and ``/sys`` are looked for."""
    pid = server_pid if server_pid is not None else processes.find_server(target)
    taken = connections if connections is not None else devices
    limits = resources.limits(root)
    left, available = resources.memory_left(limits), int(psutil.virtual_memory().available)
    swap = psutil.swap_memory()
    kernel, filter_ = root / "proc/sys/net", root / "proc/sys/net/netfilter"
    conntrack_max = _number(filter_ / "nf_conntrack_max")
    conntrack_count = _number(filter_ / "nf_conntrack_count")
    return Facts(
        devices=devices,
        connections=taken,
        processes=processes_wanted,
        connects_per_s=connects_per_s,
        server_here=pid is not None or sources.is_on_this_machine(target),
        server_pid=pid,
        cores=resources.whole_cores(limits),
        descriptors=resources.raise_descriptor_limit(),
        server_descriptors=processes.descriptor_limit(pid) if pid is not None else None,
        ports=sources.local_ports(),
        addresses=len(sources.source_addresses(target, taken)),
        loopback_v4=sources.is_loopback_v4(target),
        memory_available=available if left is None else min(left, available),
        listen_queue=_number(kernel / "core/somaxconn"),
        syn_queue=_number(kernel / "ipv4/tcp_max_syn_backlog"),
        swap_used=int(swap.used),
        swap_total=int(swap.total),
        busy=_busy_cores(watch_s),
        time_wait=_time_wait(root / "proc/net/sockstat"),
        conntrack_free=(
            None if conntrack_max is None or conntrack_count is None else conntrack_max - conntrack_count
        ),
        conntrack_max=conntrack_max or 0,
    )


def busy_seconds() -> float:
    """Return the CPU time in s that everybody has used on the cores this process may use, since the machine started."""
    cores = psutil.cpu_times(percpu=True)
    if hasattr(os, "sched_getaffinity"):
        cores = [cores[core] for core in os.sched_getaffinity(0) if core < len(cores)] or cores
    # The time of guests is part of `user` already. Stolen time counts: it is not there for anybody here.
    idle = ("idle", "iowait", "guest", "guest_nice")
    return float(
        sum(sum(value for name, value in core._asdict().items() if name not in idle) for core in cores)
    )


def _busy_cores(watch_s: float) -> float | None:
    if watch_s <= 0:
        return None
    before, own_before, began = busy_seconds(), time.process_time(), time.perf_counter()
    time.sleep(watch_s)
    passed_s = time.perf_counter() - began
    return max(0.0, (busy_seconds() - before - (time.process_time() - own_before)) / passed_s)


def _time_wait(file: Path) -> int | None:
    try:
        words = file.read_text().split()
        return int(words[words.index("tw") + 1])
    except (OSError, ValueError, IndexError):
        return None


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    name = next(
        (line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Model"))), ""
    )
    return name or platform.processor() or platform.machine()


def _system() -> str:
    try:
        distribution = platform.freedesktop_os_release().get("PRETTY_NAME", "")
    except OSError:
        distribution = platform.mac_ver()[0]
    return ", ".join(part for part in (f"{platform.system()} {platform.release()}", distribution) if part)


# ---------------------------------------------------------------- judging


def examine(facts: Facts) -> list[Check]:
    """Return all checks that the facts allow, those that went wrong with a remedy."""
    if facts.devices < 1:
        raise ConfigError("a load test needs at least one device")
    found = [
        _files(facts),
        _server_files(facts),
        _ports(facts),
        _time_waits(facts),
        _memory(facts),
        _swap(facts),
        _busy(facts),
        _queue(facts, "listen queue", facts.listen_queue, "net.core.somaxconn"),
        _queue(facts, "SYN queue", facts.syn_queue, "net.ipv4.tcp_max_syn_backlog"),
        _conntrack(facts),
    ]
    return [check for check in found if check is not None]


def _check(name: str, ok: bool, found: str, wanted: str, remedy: str, fatal: bool = False) -> Check:
    return Check(
        name=name, ok=ok, found=found, wanted=wanted, remedy="" if ok else remedy, fatal=fatal and not ok
    )


def _files(facts: Facts) -> Check | None:
    limit = facts.descriptors
    if limit is None:
        return None
    usable = max(0, limit - DESCRIPTOR_RESERVE)
    # Without a number of processes there will be as many as it takes, but a hundred small ones are a test of their own.
    most = facts.processes or max(4, 2 * int(facts.cores))
    wanted = -(-facts.devices // most) + DESCRIPTOR_RESERVE
    more = -(-facts.devices // usable) if usable else 0
    remedy = f"in this shell: sudo prlimit --pid $$ --nofile={_round_up(wanted)}:{_round_up(wanted)}"
    if facts.processes and more:
        remedy += f"; or --processes {more}"
    return _check("open files", limit >= wanted, f"{limit} per process", f"{wanted}", remedy, fatal=True)


def _server_files(facts: Facts) -> Check | None:
    limit = facts.server_descriptors
    if limit is None:
        return None
    wanted = facts.devices + min(SERVER_RESERVE, facts.devices // 3 + 50)
    number = _round_up(wanted)
    remedy = (
        f"sudo prlimit --pid {facts.server_pid} --nofile={number}:{number}; "
        f"for good: LimitNOFILE={number} in its systemd unit, --ulimit nofile={number} for Docker"
    )
    return _check("open files of the server", limit >= wanted, f"{limit}", f"{wanted}", remedy)


def _ports(facts: Facts) -> Check | None:
    if facts.ports is None:
        return None
    total = facts.ports * facts.addresses
    enough = total >= facts.connections
    quick = total * sources.FILL >= facts.connections
    remedy = 'sudo sysctl -w net.ipv4.ip_local_port_range="10000 65535"'
    if facts.server_here and not facts.loopback_v4:
        remedy = (
            f"address the server as 127.0.0.1, which has as many local addresses as it takes; or {remedy}"
        )
    elif facts.connections > 55_000:
        remedy = f"{remedy}, and run the test from several machines at once"
    wanted = (
        f"{facts.connections}"
        if not enough
        else f"{round(facts.connections / sources.FILL)}, to find one fast"
    )
    found = f"{total}" + (f" on {facts.addresses} addresses" if facts.addresses > 1 else "")
    return _check(
        "local ports",
        enough and quick,
        found,
        f"{facts.connections}" if quick else wanted,
        remedy,
        not enough,
    )


def _time_waits(facts: Facts) -> Check | None:
    limit = (facts.ports or 0) * facts.addresses - facts.connections
    if facts.time_wait is None or facts.ports is None or limit < 0:
        return None  # with too few ports it does not matter how many of them are taken
    # On loopback such a port is used again after a second, and the addresses of the test are its own.
    ok = facts.loopback_v4 or facts.time_wait <= limit
    remedy = "wait a minute; or sudo sysctl -w net.ipv4.tcp_tw_reuse=1"
    return _check("ports of ended connections", ok, f"{facts.time_wait}", f"at most {limit}", remedy)


def _memory(facts: Facts) -> Check | None:
    if facts.memory_available is None:
        return None
    each = DEVICE_BYTES + (SERVED_BYTES if facts.server_here else 0)
    wanted = facts.devices * each + (facts.processes or max(1, int(facts.cores) - 1)) * PROCESS_BYTES
    room = max(0, facts.memory_available - (wanted - facts.devices * each)) // each
    remedy = f"close other programs, or --devices {max(1, room // 100 * 100)}"
    return _check(
        "memory", facts.memory_available >= wanted,
        f"{facts.memory_available / 2**20:.0f} MiB available", f"about {wanted / 2**20:.0f} MiB", remedy,
    )  # fmt: skip


def _swap(facts: Facts) -> Check | None:
    if facts.swap_used is None:
        return None
    most = int(facts.swap_total * SWAP_SHARE)
    remedy = "close what fills the memory, then sudo swapoff -a && sudo swapon -a"
    return _check(
        "swap", facts.swap_used <= most,
        f"{facts.swap_used / 2**20:.0f} MiB in use", f"at most {most / 2**20:.0f} MiB", remedy,
    )  # fmt: skip


def _busy(facts: Facts) -> Check | None:
    if facts.busy is None:
        return None
    most = facts.cores * BUSY_SHARE
    remedy = "stop other programs: ps -eo pid,pcpu,comm --sort=-pcpu | head"
    return _check(
        "load by others", facts.busy <= most,
        f"{facts.busy:.2f} of {facts.cores:g} cores", f"at most {most:.2f}", remedy,
    )  # fmt: skip


def _queue(facts: Facts, name: str, found: int | None, key: str) -> Check | None:
    if found is None or not facts.server_here:
        return None
    wanted = min(round(facts.connects_per_s * SERVER_STALL_S), facts.devices)
    remedy = f"sudo sysctl -w {key}={_round_up(wanted)}; then start the server again"
    return _check(name, found >= wanted, f"{found}", f"{wanted}", remedy)


def _conntrack(facts: Facts) -> Check | None:
    if facts.conntrack_free is None:
        return None
    wanted = facts.connections + facts.connections // 5
    remedy = f"sudo sysctl -w net.netfilter.nf_conntrack_max={_round_up(facts.conntrack_max + wanted)}"
    found = f"{facts.conntrack_free} free"
    return _check("connection tracking", facts.conntrack_free >= wanted, found, f"{wanted}", remedy)


def _round_up(number: int) -> int:
    """Return a power of two that is large enough, and at least 4096: a round figure for a command."""
    return max(4096, 1 << (number - 1).bit_length())
