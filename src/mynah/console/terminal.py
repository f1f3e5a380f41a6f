"""A console on standard input for whoever started the server in a terminal: `help` lists what it knows."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Callable
from typing import TextIO

from mynah.net.devices import Devices

HELP = """\
status                 how many devices are connected and what they are doing
devices                every connected device
say DEVICE_ID TEXT     make a device speak
quit                   finish running replies and stop the server
help                   this list"""

MAX_LISTED = 50
"""Devices printed at most; a terminal shows no more at once."""


def _in_background(source: TextIO) -> bool:
    """Say whether reading would stop the whole process: a job in the background must not read its terminal."""
    try:
        return source.isatty() and os.tcgetpgrp(source.fileno()) != os.getpgrp()
    except (OSError, ValueError):
        return False


class Terminal:
    """Reads lines on a daemon thread, so that a closed or silent standard input holds nothing up."""

    def __init__(self, devices: Devices, stop: Callable[[], None], out: TextIO | None = None) -> None:
        self._devices = devices
        self._stop = stop
        self._out = out or sys.stdout

    def start(self, lines: TextIO | None = None) -> None:
        """Begin to read ``lines`` (standard input)."""
        source = lines or sys.stdin
        if source is None or _in_background(source):
            return
        loop = asyncio.get_running_loop()
        threading.Thread(target=self._read, args=(source, loop), name="terminal", daemon=True).start()

    def _read(self, source: TextIO, loop: asyncio.AbstractEventLoop) -> None:
        try:
            for line in source:
                loop.call_soon_threadsafe(self._answer, line)
        except (ValueError, OSError, RuntimeError):
            return  # standard input or the loop was closed under us: the server is going down

    def _answer(self, line: str) -> None:
        if line.strip():
            print(self.run(line), file=self._out, flush=True)

    def run(self, line: str) -> str:
        """Carry out one line and return the answer."""
        command, _, rest = line.strip().partition(" ")
        match command.lower():
            case "help" | "?":
                return HELP
            case "status":
                return self._status()
            case "devices":
                return self._list()
            case "say":
                return self._say(rest)
            case "quit" | "exit" | "stop":
                self._stop()
                return "stopping"
            case _:
                return f"unknown command {command!r}; type help"

    def _status(self) -> str:
        phases: dict[str, int] = {}
        for session in self._devices:
            phases[session.phase.value] = phases.get(session.phase.value, 0) + 1
        detail = ", ".join(f"{count} {phase}" for phase, count in sorted(phases.items()))
        count = len(self._devices)
        return f"{count} device{'' if count == 1 else 's'} connected" + (f": {detail}" if detail else "")

    def _list(self) -> str:
        rows = [f"{session.device_id:<20} {session.phase.value}" for session in self._devices]
        if not rows:
            return "no device is connected"
        more = len(rows) - MAX_LISTED
        return "\n".join(rows[:MAX_LISTED] + ([f"… and {more} more"] if more > 0 else []))

    def _say(self, rest: str) -> str:
        device_id, _, words = rest.strip().partition(" ")
        if not words.strip():
            return "usage: say DEVICE_ID TEXT"
        if not self._devices.say(device_id.lower(), words.strip()):
            return f"{device_id} is not connected; `devices` lists who is"
        return "ok"
