from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from mynah.sim.load import processes


def test_this_process_is_seen_as_psutil_sees_it() -> None:
    found = processes.read(os.getpid())
    assert found is not None
    times = psutil.Process().cpu_times()
    assert found.cpu_s == pytest.approx(times.user + times.system, abs=0.5)
    assert 0 < found.main_s <= found.cpu_s + 0.05
    assert found.resident == pytest.approx(psutil.Process().memory_info().rss, rel=0.1)
    assert found.threads == psutil.Process().num_threads()


def test_what_is_gone_is_none() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        deadline = time.monotonic() + 20
        # It has ended, and nobody has asked it how: a zombie uses nothing.
        while processes.read(process.pid) is not None and time.monotonic() < deadline:
            time.sleep(0.02)
        assert processes.read(process.pid) is None
    assert processes.read(process.pid) is None
    assert processes.descriptors(process.pid) is None
    assert processes.descriptor_limit(process.pid) is None
    assert processes.children(process.pid) == []


def test_descriptors_are_counted(tmp_path: Path) -> None:
    before = processes.descriptors(os.getpid())
    assert before is not None
    files = [(tmp_path / f"{number}").open("w") for number in range(50)]
    assert processes.descriptors(os.getpid()) == before + 50
    for file in files:
        file.close()
    assert processes.descriptors(os.getpid()) == before


@pytest.mark.skipif(sys.platform == "win32", reason="no such limits")
def test_the_limit_of_descriptors_is_that_of_the_process() -> None:
    import resource

    assert processes.descriptor_limit(os.getpid()) == resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def test_children_are_found() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        assert process.pid in processes.children(os.getpid())
        process.communicate(b"\n")


def test_the_server_is_the_process_that_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert processes.find_server(f"ws://127.0.0.1:{port}/xiaozhi/v1/") == os.getpid()
        assert processes.find_server(f"http://localhost:{port}/xiaozhi/ota/") == os.getpid()
        assert processes.find_server(f"ws://192.0.2.1:{port}/") is None, "another machine's"
    assert processes.find_server(f"ws://127.0.0.1:{port}/") is None, "nobody listens any more"


def test_who_listens_everywhere_is_found_by_any_address() -> None:
    with socket.create_server(("", 0)) as server:
        port = server.getsockname()[1]
        assert processes.find_server(f"ws://127.0.0.1:{port}/") == os.getpid()
        assert processes.find_server(f"ws://127.0.0.7:{port}/") == os.getpid()


def test_a_socket_for_both_kinds_of_addresses_is_found_by_either() -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 here")
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as server:
        port = server.getsockname()[1]
        assert processes.find_server(f"ws://127.0.0.1:{port}/") == os.getpid()
        assert processes.find_server(f"ws://[::1]:{port}/") == os.getpid()
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as server:
        port = server.getsockname()[1]
        assert processes.find_server(f"ws://[::1]:{port}/") == os.getpid()
        assert processes.find_server(f"ws://127.0.0.1:{port}/") is None


def test_what_psutil_tells_is_the_same() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert processes._listening_elsewhere(port) == [("127.0.0.1", os.getpid())]
        found = processes._read_elsewhere(os.getpid())
    direct = processes.read(os.getpid())
    assert found is not None
    assert direct is not None
    assert found.cpu_s == pytest.approx(direct.cpu_s, abs=0.5)
    assert found.threads == direct.threads


@pytest.mark.skipif(sys.platform == "win32", reason="sockets are not inherited like this")
def test_of_several_that_share_a_socket_the_first_is_found() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        subprocess.Popen(
            [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[server.fileno()]
        ) as worker,
    ):
        try:
            assert processes.find_server(f"ws://127.0.0.1:{server.getsockname()[1]}/") == os.getpid()
        finally:
            worker.communicate(b"\n")


def test_what_only_passes_connections_on_is_no_server(tmp_path: Path) -> None:
    relay = tmp_path / "docker-proxy"
    relay.symlink_to(sys.executable)
    code = "import socket; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True); input()"
    environ = {**os.environ, "PYTHONPATH": ""}
    with subprocess.Popen(
        [str(relay), "-S", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ
    ) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        assert psutil.Process(process.pid).name() == "docker-proxy"
        assert processes.find_server(f"ws://127.0.0.1:{port}/") is None
        process.communicate(b"\n")
