"""What this process may use of the machine: cores, memory, open files. In a container or service less than is there.

Control groups are read in version 1 and 2. Where a system has none, or does not tell, there is no limit.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

import msgspec

_HUGE: Final = 1 << 60
"""Version 1 writes a number beyond this when there is no limit."""
_MANY_FILES: Final = 1 << 20
"""What is asked for where the system names no limit of open files: it is what Linux gives at most by default."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of this process's control groups; None: there is none, or this system has no control groups."""

    cores: float | None = None
    """CPU time per time."""
    memory: int | None = None
    """Bytes."""
    cpu_folder: str = ""
    """Of the group that limits ``cores``."""
    memory_folder: str = ""
    """Of the group that limits ``memory``."""


def limits(root: Path = Path("/")) -> Limits:
    """Return the tightest limits of this process's groups, from its own up to the topmost that can be seen.

    ``root`` is where ``/proc`` and ``/sys`` are looked for.
    """
    cores, cpu_folder, memory, memory_folder = None, "", None, ""
    for folder in _folders(root, ("cpu", "cpu,cpuacct")):
        quota = _quota(folder)
        if quota is not None and (cores is None or quota < cores):
            cores, cpu_folder = quota, str(folder)
    for folder in _folders(root, ("memory",)):
        limit = _number(folder / "memory.max", folder / "memory.limit_in_bytes")
        if limit is not None and limit < _HUGE and (memory is None or limit < memory):
            memory, memory_folder = limit, str(folder)
    return Limits(cores=cores, memory=memory, cpu_folder=cpu_folder, memory_folder=memory_folder)


def usable_cores(found: Limits | None = None) -> float:
    """Return how many cores' time this process may use: of those it is bound to, what the quota of its groups allows.

    May be a fraction, also below 1. ``found`` None: `limits` is asked.
    """
    found = limits() if found is None else found
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return float(bound) if found.cores is None else min(float(bound), found.cores)


def whole_cores(found: Limits | None = None) -> int:
    """Return `usable_cores` as what so many threads or processes can be kept busy on: rounded down, at least 1."""
    return max(1, int(usable_cores(found)))


def memory_limit(found: Limits | None = None) -> int:
    """Return how many bytes this process may use: the least of its groups' limits and what the machine has.

    0 when nobody knows. ``found`` None: `limits` is asked.
    """
    found = limits() if found is None else found
    return min((size for size in (found.memory or 0, machine_memory()) if size > 0), default=0)


def machine_memory(root: Path = Path("/")) -> int:
    """Return how many bytes of memory the machine has; 0 when the system does not tell.

    ``root`` is where ``/proc`` is looked for: in some containers it is the only place that tells of their share.
    """
    for line in _text(root / "proc/meminfo").splitlines():
        words = line.split()
        if words[:1] == ["MemTotal:"] and words[1:2] and words[1].isdecimal():
            return int(words[1]) * 1024
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return 0


def memory_left(found: Limits) -> int | None:
    """Return how many bytes the group may still take; None without a limit.

    What it holds of files could be dropped, so it counts as free.
    """
    if found.memory is None:
        return None
    folder = Path(found.memory_folder)
    used = _number(folder / "memory.current", folder / "memory.usage_in_bytes")
    if used is None:
        return None
    statistics = _table(folder / "memory.stat")
    files = statistics.get("total_inactive_file", statistics.get("inactive_file", 0))
    return max(0, found.memory - max(0, used - files))


def cpu_used_s(found: Limits) -> float | None:
    """Return the CPU time in s that the group with the limit has used since it was made; None without a limit."""
    folder = Path(found.cpu_folder)
    if not found.cpu_folder:
        return None
    used_us = _table(folder / "cpu.stat").get("usage_usec")
    if used_us is not None:
        return used_us / 1e6
    used_ns = _number(folder / "cpuacct.usage")
    return None if used_ns is None else used_ns / 1e9


def raise_descriptor_limit() -> int:
    """Raise this process's limit of open files as far as it may; return it. Processes that it starts inherit it.

    What a process is given at first is often 1024, and each connection is an open file.
    """
    if sys.platform == "win32":
        return _MANY_FILES  # sockets are not files there
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = hard
    if hard == resource.RLIM_INFINITY:
        wanted = _MANY_FILES
        if sys.platform == "darwin":
            wanted = os.sysconf("SC_OPEN_MAX") if soft == resource.RLIM_INFINITY else max(soft, 10_240)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError):
            return soft  # macOS has a limit of its own below the one it tells
    return wanted


def _folders(root: Path, controllers: tuple[str, ...]) -> list[Path]:
    """Return the folders of this process's group and of those above it, for one controller.

    Inside a container the group's path may be that of the host, where only the topmost folder is to be seen.
    """
    base = root / "sys/fs/cgroup"
    found: list[Path] = []
    for line in _text(root / "proc/self/cgroup").splitlines():
        number, names, group = (*line.split(":", 2), "", "")[:3]
        if number == "0" and not names:
            mounts = [base, base / "unified"]
        elif set(controllers) & {names, *names.split(",")}:
            mounts = [base / controllers[0], base / names]
        else:
            continue
        inner = Path(group.lstrip("/"))
        found += [mount / part for mount in mounts for part in (inner, *inner.parents)]
    return [folder for folder in dict.fromkeys(found) if folder.is_dir()]


def _quota(folder: Path) -> float | None:
    words = _text(folder / "cpu.max").split()
    if not words:
        words = [_text(folder / f"cpu.cfs_{part}_us").strip() for part in ("quota", "period")]
    try:
        quota, period = (int(word) for word in words)
    except ValueError:
        return None  # "max": no limit
    return quota / period if quota > 0 and period > 0 else None


def _number(*files: Path) -> int | None:
    """Return what the first of the files that has a number holds."""
    for file in files:
        text = _text(file).strip()
        if text.isdecimal():
            return int(text)
    return None


def _table(file: Path) -> dict[str, int]:
    rows = (line.split() for line in _text(file).splitlines())
    return {row[0]: int(row[1]) for row in rows if len(row) == 2 and row[1].isdecimal()}


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except (OSError, UnicodeError):
        return ""
