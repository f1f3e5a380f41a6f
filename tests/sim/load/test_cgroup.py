from __future__ import annotations

from pathlib import Path

import pytest

from mynah.sim.load.cgroup import Limits, cpu_used_s, limits, memory_left


def lay(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


def test_a_machine_without_control_groups_has_no_limits(tmp_path: Path) -> None:
    found = limits(tmp_path)
    assert found == Limits()
    assert memory_left(found) is None
    assert cpu_used_s(found) is None


def test_version_2_takes_the_tightest_limit_on_the_way_up(tmp_path: Path) -> None:
    group = "sys/fs/cgroup"
    root = lay(tmp_path, {
        "proc/self/cgroup": "0::/app/worker\n",
        f"{group}/app/worker/cpu.max": "max 100000\n",
        f"{group}/app/worker/memory.max": "max\n",
        f"{group}/app/cpu.max": "150000 100000\n",
        f"{group}/app/cpu.stat": "usage_usec 2500000\nuser_usec 1\n",
        f"{group}/app/memory.max": "1000000\n",
        f"{group}/app/memory.current": "700000\n",
        f"{group}/app/memory.stat": "anon 1\ninactive_file 200000\n",
        f"{group}/cpu.max": "400000 100000\n",
        f"{group}/memory.max": "9000000\n",
    })  # fmt: skip
    found = limits(root)
    assert (found.cores, found.memory) == (1.5, 1_000_000)
    assert memory_left(found) == 500_000, "what is held of files could be dropped"
    assert cpu_used_s(found) == pytest.approx(2.5)


def test_version_1_and_a_group_that_is_named_as_on_the_host(tmp_path: Path) -> None:
    """In a container the group's path is often that of the host, and what is mounted is the group itself."""
    group = "sys/fs/cgroup"
    root = lay(tmp_path, {
        "proc/self/cgroup": "5:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n1:name=systemd:/\n",
        f"{group}/cpu/cpu.cfs_quota_us": "200000\n",
        f"{group}/cpu/cpu.cfs_period_us": "100000\n",
        f"{group}/cpu/cpuacct.usage": "3500000000\n",
        f"{group}/memory/memory.limit_in_bytes": "2000000\n",
        f"{group}/memory/memory.usage_in_bytes": "900000\n",
        f"{group}/memory/memory.stat": "inactive_file 1\ntotal_inactive_file 100000\n",
    })  # fmt: skip
    found = limits(root)
    assert (found.cores, found.memory) == (2.0, 2_000_000)
    assert memory_left(found) == 1_200_000
    assert cpu_used_s(found) == pytest.approx(3.5)


def test_no_limit_is_written_in_two_ways(tmp_path: Path) -> None:
    root = lay(tmp_path, {
        "proc/self/cgroup": "5:memory:/\n3:cpu:/\nnonsense\n",
        "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
        "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
    })  # fmt: skip
    assert limits(root) == Limits()
