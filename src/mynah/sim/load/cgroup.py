"""What a container or service is allowed to use: the limits of this process's control groups, version 1 and 2."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

_HUGE: Final = 1 << 60
"""Version 1 writes a number beyond this when there is no limit."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of this process; None: there is none, or this system has no control groups."""

    cores: float | None = None
    """CPU time per time."""
    memory: int | None = None
    """Bytes."""
    cpu_folder: str = ""
    """Of the group that limits ``cores``."""
    memory_folder: str = ""
    """Of the group that limits ``memory``."""


def limits(root: Path = Path("/")) -> Limits:
    """Return the tightest limits of this process's groups, from its own up to the topmost that can be seen."""
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


def memory_left(found: Limits) -> int | None:
    """Return how many bytes the group may still take. What it holds of files could be dropped, so it counts as free."""
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
    """Return the CPU time in s that the group with the limit has used since it was made."""
    folder = Path(found.cpu_folder)
    if not found.cpu_folder:
        return None
    used_us = _table(folder / "cpu.stat").get("usage_usec")
    if used_us is not None:
        return used_us / 1e6
    used_ns = _number(folder / "cpuacct.usage")
    return None if used_ns is None else used_ns / 1e9


def _folders(root: Path, controllers: tuple[str, ...]) -> list[Path]:
    """Return the folders of this process's group and of those above it, for one controller."""
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
