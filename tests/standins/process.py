"""Runs a stand-in as what it stands for: a server in a process of its own."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

_ROOT = Path(__file__).parents[2]


@contextlib.contextmanager
def stand_in(module: str) -> Iterator[int]:
    """Start ``tests.standins.<module>`` on a free port, give the port, and end the process afterwards."""
    command = [sys.executable, "-m", f"tests.standins.{module}", "--port", "0"]
    with subprocess.Popen(command, cwd=_ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.strip().isdigit(), f"{module} did not start: {line!r}"
            yield int(line)
        finally:
            process.terminate()
            process.wait(timeout=10)
