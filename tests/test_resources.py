from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mynah import resources
from mynah.resources import (
    Limits,
    cpu_used_s,
    limits,
    machine_memory,
    memory_left,
    memory_limit,
    raise_descriptor_limit,
    usable_cores,
    whole_cores,
)

GIB = 1 << 30
GROUP = "sys/fs/cgroup"


def lay(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


# ---------------------------------------------------------------- control groups


def test_a_machine_without_control_groups_has_no_limits(tmp_path: Path) -> None:
    found = limits(tmp_path)
    assert found == Limits()
    assert memory_left(found) is None
    assert cpu_used_s(found) is None


def test_version_2_takes_the_tightest_limit_on_the_way_up(tmp_path: Path) -> None:
    root = lay(tmp_path, {
        "proc/self/cgroup": "0::/app/worker\n",
        f"{GROUP}/app/worker/cpu.max": "max 100000\n",
        f"{GROUP}/app/worker/memory.max": "max\n",
        f"{GROUP}/app/cpu.max": "150000 100000\n",
        f"{GROUP}/app/cpu.stat": "usage_usec 2500000\nuser_usec 1\n",
        f"{GROUP}/app/memory.max": "1000000\n",
        f"{GROUP}/app/memory.current": "700000\n",
        f"{GROUP}/app/memory.stat": "anon 1\ninactive_file 200000\n",
        f"{GROUP}/cpu.max": "400000 100000\n",
        f"{GROUP}/memory.max": "9000000\n",
    })  # fmt: skip
    found = limits(root)
    assert (found.cores, found.memory) == (1.5, 1_000_000)
    assert memory_left(found) == 500_000, "what is held of files could be dropped"
    assert cpu_used_s(found) == pytest.approx(2.5)


def test_the_limit_of_the_own_group_counts_when_it_is_less(tmp_path: Path) -> None:
    root = lay(tmp_path, {
        "proc/self/cgroup": "0::/system/mynah.service\n",
        f"{GROUP}/system/mynah.service/memory.max": f"{GIB // 4}\n",
        f"{GROUP}/system/memory.max": f"{GIB}\n",
    })  # fmt: skip
    assert limits(root).memory == GIB // 4


def test_in_a_container_only_the_topmost_group_is_seen(tmp_path: Path) -> None:
    files = {"proc/self/cgroup": "0::/docker/0123456789abcdef\n", f"{GROUP}/memory.max": f"{GIB // 2}\n"}
    assert limits(lay(tmp_path, files)).memory == GIB // 2


def test_version_1_and_a_group_that_is_named_as_on_the_host(tmp_path: Path) -> None:
    """In a container the group's path is often that of the host, and what is mounted is the group itself."""
    root = lay(tmp_path, {
        "proc/self/cgroup": "5:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n1:name=systemd:/\n",
        f"{GROUP}/cpu/cpu.cfs_quota_us": "200000\n",
        f"{GROUP}/cpu/cpu.cfs_period_us": "100000\n",
        f"{GROUP}/cpu/cpuacct.usage": "3500000000\n",
        f"{GROUP}/memory/memory.limit_in_bytes": "2000000\n",
        f"{GROUP}/memory/memory.usage_in_bytes": "900000\n",
        f"{GROUP}/memory/memory.stat": "inactive_file 1\ntotal_inactive_file 100000\n",
    })  # fmt: skip
    found = limits(root)
    assert (found.cores, found.memory) == (2.0, 2_000_000)
    assert memory_left(found) == 1_200_000
    assert cpu_used_s(found) == pytest.approx(3.5)


def test_no_limit_is_written_in_two_ways(tmp_path: Path) -> None:
    root = lay(tmp_path, {
        "proc/self/cgroup": "5:memory:/\n3:cpu:/\nnonsense\n",
        f"{GROUP}/cpu/cpu.cfs_quota_us": "-1\n",
        f"{GROUP}/cpu/cpu.cfs_period_us": "100000\n",
        f"{GROUP}/memory/memory.limit_in_bytes": "9223372036854771712\n",
    })  # fmt: skip
    assert limits(root) == Limits()


# ---------------------------------------------------------------- cores


@pytest.fixture
def eight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)


@pytest.mark.usefixtures("eight")
def test_a_quota_counts_with_its_fraction_or_as_whole_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (usable_cores(Limits()), whole_cores(Limits())) == (8.0, 8)
    assert (usable_cores(Limits(cores=1.9)), whole_cores(Limits(cores=1.9))) == (1.9, 1)
    assert (usable_cores(Limits(cores=0.5)), whole_cores(Limits(cores=0.5))) == (0.5, 1)
    assert (usable_cores(Limits(cores=1000.0)), whole_cores(Limits(cores=1000.0))) == (8.0, 8)
    monkeypatch.setattr(resources, "limits", lambda: Limits(cores=2.5))
    assert (usable_cores(), whole_cores()) == (2.5, 2), "who gives no limits gets those of the process"


def test_without_binding_all_cores_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)  # macOS
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert whole_cores(Limits()) == 3
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert whole_cores(Limits()) == 1


@given(st.none() | st.floats(0.001, 1e6))
def test_whole_cores_are_the_usable_ones_rounded_down_but_never_none(quota: float | None) -> None:
    usable, whole = usable_cores(Limits(cores=quota)), whole_cores(Limits(cores=quota))
    assert whole >= 1
    assert whole == 1 or whole <= usable < whole + 1


# ---------------------------------------------------------------- memory


def test_the_least_of_groups_and_machine_is_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "machine_memory", lambda: 8 * GIB)
    assert memory_limit(Limits()) == 8 * GIB
    assert memory_limit(Limits(memory=GIB)) == GIB
    assert memory_limit(Limits(memory=9 * GIB)) == 8 * GIB
    monkeypatch.setattr(resources, "limits", lambda: Limits(memory=GIB // 2))
    assert memory_limit() == GIB // 2


def test_where_nobody_knows_the_limit_it_is_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "machine_memory", lambda: 0)
    assert memory_limit(Limits()) == 0
    assert memory_limit(Limits(memory=GIB)) == GIB


def test_the_memory_of_the_machine_is_what_proc_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = lay(tmp_path, {"proc/meminfo": "MemFree: 1 kB\nMemTotal:       16384 kB\n"})
    assert machine_memory(root) == 16 << 20
    asked = {"SC_PHYS_PAGES": 1000, "SC_PAGE_SIZE": 4096}
    monkeypatch.setattr(os, "sysconf", asked.__getitem__)
    assert machine_memory(tmp_path / "none") == 4_096_000
    lay(tmp_path, {"proc/meminfo": "MemTotal:\n"})
    assert machine_memory(root) == 4_096_000

    def refuse(_: str) -> int:
        raise ValueError("unrecognized configuration name")

    monkeypatch.setattr(os, "sysconf", refuse)
    assert machine_memory(tmp_path / "none") == 0


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_proc_and_the_system_call_agree_about_the_machine(tmp_path: Path) -> None:
    """Where they do not, a container shows its own share in ``/proc``, which is less."""
    assert 0 < machine_memory() <= machine_memory(tmp_path) + 4096


# ---------------------------------------------------------------- open files


@pytest.mark.skipif(sys.platform == "win32", reason="no such limits")
def test_the_limit_of_open_files_is_raised() -> None:
    """In a process of its own: a limit that was raised stays so for all tests to come."""
    code = (
        "import resource; from mynah.resources import raise_descriptor_limit as up;"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 512));"
        "print(up(), *resource.getrlimit(resource.RLIMIT_NOFILE))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["512", "512", "512"]


def files(monkeypatch: pytest.MonkeyPatch, soft: int, hard: int) -> list[tuple[int, int]]:
    """Let the process have these limits; return the list of those that it asks for."""
    made: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda _, both: made.append(both))
    return made


def test_the_limit_is_raised_as_far_as_it_goes_and_then_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    made = files(monkeypatch, 1024, 524_288)
    assert raise_descriptor_limit() == 524_288
    assert made == [(524_288, 524_288)]
    made = files(monkeypatch, 4096, 4096)
    assert raise_descriptor_limit() == 4096
    assert made == []


def test_no_limit_of_open_files_is_told_as_a_large_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    made = files(monkeypatch, resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    assert raise_descriptor_limit() == 1 << 20
    assert made == []
    made = files(monkeypatch, 1024, resource.RLIM_INFINITY)
    assert raise_descriptor_limit() == 1 << 20
    assert made == [(1 << 20, resource.RLIM_INFINITY)]


def test_macos_gives_no_more_than_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    made = files(monkeypatch, 256, resource.RLIM_INFINITY)
    assert raise_descriptor_limit() == 10_240
    assert made == [(10_240, resource.RLIM_INFINITY)]


def test_a_limit_that_cannot_be_raised_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: int, both: tuple[int, int]) -> None:
        raise ValueError("not allowed to raise maximum limit")

    files(monkeypatch, 256, 4096)
    monkeypatch.setattr(resource, "setrlimit", refuse)
    assert raise_descriptor_limit() == 256


def test_without_limits_of_files_there_is_nothing_to_raise(monkeypatch: pytest.MonkeyPatch) -> None:
    made = files(monkeypatch, 64, 512)
    monkeypatch.setattr(sys, "platform", "win32")
    assert raise_descriptor_limit() == 1 << 20
    assert made == []
