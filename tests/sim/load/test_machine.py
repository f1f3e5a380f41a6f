from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mynah.errors import ConfigError
from mynah.sim.load import machine
from mynah.sim.load.machine import Facts, examine, look
from mynah.sim.load.record import Check

GIB = 2**30
GOOD = Facts(
    devices=20_000,
    connections=20_000,
    processes=2,
    connects_per_s=1000.0,
    server_here=True,
    server_pid=42,
    cores=2,
    descriptors=65_536,
    server_descriptors=65_536,
    ports=28_232,
    addresses=2,
    loopback_v4=True,
    memory_available=8 * GIB,
    listen_queue=4096,
    syn_queue=2048,
    swap_used=0,
    swap_total=GIB,
    busy=0.1,
    time_wait=100,
    conntrack_free=200_000,
    conntrack_max=262_144,
)
COMMAND = re.compile(r"sudo (prlimit|sysctl|swapoff)|ps -eo|--(devices|processes) \d|127\.0\.0\.1")


def test_a_machine_that_is_up_to_it_passes_every_check() -> None:
    checks = examine(GOOD)
    assert len(checks) == 10
    assert all(check.ok and not check.fatal and not check.remedy for check in checks)


@pytest.mark.parametrize(
    ("name", "changes", "fatal", "found", "wanted", "remedy"),
    [
        ("open files", {"descriptors": 4096}, True, "4096 per process", "10200",
         "sudo prlimit --pid $$ --nofile=16384:16384; or --processes 6"),
        ("open files of the server", {"server_descriptors": 1024}, False, "1024", "21000",
         "sudo prlimit --pid 42 --nofile=32768:32768"),
        ("local ports", {"addresses": 1, "loopback_v4": False, "ports": 14_000}, True, "14000", "20000",
         "address the server as 127.0.0.1"),
        ("local ports", {"addresses": 1, "loopback_v4": False, "server_here": False}, False, "28232", "44444",
         'sudo sysctl -w net.ipv4.ip_local_port_range="10000 65535"'),
        ("ports of ended connections", {"loopback_v4": False, "addresses": 1, "ports": 50_000, "time_wait": 40_000},
         False, "40000", "30000", "tcp_tw_reuse=1"),
        ("memory", {"memory_available": GIB}, False, "1024 MiB", "MiB", "--devices 11400"),
        ("swap", {"swap_used": GIB // 2}, False, "512 MiB in use", "at most 51 MiB", "swapoff"),
        ("load by others", {"busy": 1.2}, False, "1.20 of 2 cores", "at most 0.30", "ps -eo"),
        ("listen queue", {"listen_queue": 128}, False, "128", "500", "sysctl -w net.core.somaxconn=4096"),
        ("SYN queue", {"syn_queue": 128}, False, "128", "500", "net.ipv4.tcp_max_syn_backlog=4096"),
        ("connection tracking", {"conntrack_free": 10_000}, False, "10000 free", "24000",
         "net.netfilter.nf_conntrack_max=524288"),
    ],
)  # fmt: skip
def test_what_is_short_is_named_with_the_command_that_helps(
    name: str, changes: dict[str, object], fatal: bool, found: str, wanted: str, remedy: str
) -> None:
    failed = [check for check in examine(msgspec.structs.replace(GOOD, **changes)) if not check.ok]
    (check,) = failed
    assert (check.name, check.fatal) == (name, fatal)
    assert found in check.found
    assert wanted in check.wanted
    assert remedy in check.remedy
    assert COMMAND.search(check.remedy)


def test_what_the_system_does_not_tell_is_not_checked() -> None:
    assert examine(Facts(devices=10, connections=10)) == []


def test_a_server_elsewhere_has_its_own_kernel() -> None:
    names = {check.name for check in examine(msgspec.structs.replace(GOOD, server_here=False))}
    assert not {"listen queue", "SYN queue"} & names


def test_nobody_is_no_load_test() -> None:
    with pytest.raises(ConfigError, match="at least one device"):
        examine(Facts(devices=0, connections=0))


@settings(max_examples=60)
@given(
    st.builds(
        Facts,
        devices=st.integers(1, 10**6),
        connections=st.integers(1, 10**6),
        processes=st.none() | st.integers(1, 64),
        connects_per_s=st.floats(1, 1e5),
        server_here=st.booleans(),
        cores=st.floats(0.5, 128),
        descriptors=st.none() | st.integers(0, 10**7),
        server_descriptors=st.none() | st.integers(0, 10**7),
        ports=st.none() | st.integers(1, 65_535),
        addresses=st.integers(1, 200),
        loopback_v4=st.booleans(),
        memory_available=st.none() | st.integers(0, 2**40),
        listen_queue=st.none() | st.integers(0, 10**6),
        swap_used=st.none() | st.integers(0, 2**34),
        busy=st.none() | st.floats(0, 128),
        time_wait=st.none() | st.integers(0, 10**6),
        conntrack_free=st.none() | st.integers(0, 10**7),
    )
)
def test_every_fault_has_a_remedy_and_fewer_devices_are_never_harder(facts: Facts) -> None:
    checks = examine(facts)
    for check in checks:
        assert bool(check.remedy) != check.ok
        assert not (check.fatal and check.ok)
    fewer = msgspec.structs.replace(
        facts, devices=(facts.devices + 1) // 2, connections=(facts.connections + 1) // 2
    )
    by_name = {check.name: check.ok for check in examine(fewer)}
    assert all(by_name[check.name] for check in checks if check.ok)


def test_this_machine_is_looked_at() -> None:
    found = look("ws://127.0.0.1:9/xiaozhi/v1/", 100, watch_s=0.05)
    assert found.cores >= 1
    assert found.memory > 2**28
    assert found.cpu
    assert found.python.endswith(sys.version.split()[0])
    checks = {check.name: check for check in found.checks}
    assert {"open files", "local ports", "memory", "load by others"} <= checks.keys()
    assert checks["open files"].ok
    if sys.platform == "linux":
        assert "Linux" in found.system
        assert {"listen queue", "SYN queue", "ports of ended connections"} <= checks.keys()


def test_the_server_is_looked_at_too() -> None:
    found = look("ws://192.0.2.1:9/", 100, server_pid=os.getpid(), watch_s=0.0)
    names = [check.name for check in found.checks]
    assert "open files of the server" in names
    assert "load by others" not in names, "it was not watched"


def test_facts_of_linux_are_read_where_they_stand(tmp_path: Path) -> None:
    for name, text in {
        "proc/sys/net/core/somaxconn": "128\n",
        "proc/sys/net/ipv4/tcp_max_syn_backlog": "256\n",
        "proc/sys/net/netfilter/nf_conntrack_max": "1000\n",
        "proc/sys/net/netfilter/nf_conntrack_count": "400\n",
        "proc/net/sockstat": "sockets: used 9\nTCP: inuse 5 orphan 0 tw 77 alloc 5 mem 0\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    facts = machine.read_facts("ws://192.0.2.1:9/", 10, watch_s=0.0, root=tmp_path)
    assert (facts.listen_queue, facts.syn_queue) == (128, 256)
    assert (facts.conntrack_free, facts.conntrack_max) == (600, 1000)
    assert facts.time_wait == 77
    nothing = machine.read_facts("ws://192.0.2.1:9/", 10, watch_s=0.0, root=tmp_path / "none")
    assert (nothing.listen_queue, nothing.conntrack_free, nothing.time_wait) == (None, None, None)


def test_busy_time_grows_with_work() -> None:
    before = machine.busy_seconds()
    deadline = os.times().user + 0.15
    while os.times().user < deadline:
        pass
    assert machine.busy_seconds() - before > 0.05


def test_checks_can_be_written_down() -> None:
    assert msgspec.json.decode(msgspec.json.encode(examine(GOOD)), type=list[Check]) == examine(GOOD)
