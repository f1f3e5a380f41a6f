"""A console on standard input for whoever started the server in a terminal: `help` lists what it knows."""

from __future__ import annotations

import asyncio
import io
import os
import sys
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import TextIO

from mynah.dialogue.outbox import MAX_WAIT_S, MAX_WORDS_CHARS, Delivery
from mynah.net.devices import Devices
from mynah.security.binding import BindingError, Bindings
from mynah.security.tokens import normal_device_id

HELP = """\
status                 what the devices are doing, and how the conversations went
devices                every connected device, and every one that is bound
bind CODE [NAME]       let in the device that shows this code
unbind DEVICE_ID       let a device in no more until it is bound again
say DEVICE_ID TEXT     make a device speak; with --wait SECONDS in front of the text also when it connects later
outbox                 messages that wait for devices
reminders [DEVICE_ID]  timers and reminders that are running, or that wait for their device
alert DEVICE_ID TEXT   show a message on a device, with a vibration
reboot DEVICE_ID       have a device start anew
disconnect DEVICE_ID   end a conversation; the device may come back
quit                   finish running replies and stop the server
help                   this list"""

NOT_NEEDED = "every device may connect, there is nothing to bind (server.binding is open)"
NO_TEXT = "that line is not text in the encoding of this terminal, and was not carried out"
MAX_LISTED = 50
"""Lines of a list printed at most; a terminal shows no more at once."""
MAX_SHOWN_CHARS = 60
"""Of a message in a list, so that it stays on one line."""
SAY_USAGE = f"usage: say DEVICE_ID [--wait SECONDS] TEXT, with up to {MAX_WAIT_S:.0f} s to wait"


def _in_background(source: TextIO) -> bool:
    """Say whether reading would stop the whole process: a job in the background must not read its terminal."""
    try:
        return source.isatty() and os.tcgetpgrp(source.fileno()) != os.getpgrp()
    except (OSError, ValueError):
        return False


class Terminal:
    """Reads lines on a daemon thread, so that a closed or silent standard input holds nothing up."""

    def __init__(
        self,
        devices: Devices,
        stop: Callable[[], None],
        out: TextIO | None = None,
        bindings: Bindings | None = None,
        report: Callable[[], str] = str,
    ) -> None:
        """``bindings`` None: devices need not be bound. ``report`` tells how the conversations went."""
        self._report = report
        self._devices = devices
        self._bindings = bindings
        self._stop = stop
        self._out = out or sys.stdout

    def start(self, lines: TextIO | None = None) -> None:
        """Begin to read ``lines`` (standard input)."""
        source = lines or sys.stdin
        if source is None or _in_background(source):
            return
        if isinstance(source, io.TextIOWrapper):
            source.reconfigure(errors="surrogateescape")  # one wrong byte must not end all reading
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
        if any("\ud800" <= char <= "\udfff" for char in line):
            return NO_TEXT
        command, _, rest = line.strip().partition(" ")
        commands: dict[str, Callable[[str], str]] = {
            "help": lambda _: HELP,
            "?": lambda _: HELP,
            "status": self._status,
            "devices": self._list,
            "bind": self._bind,
            "unbind": self._unbind,
            "say": self._say,
            "outbox": self._outbox,
            "reminders": self._reminders,
            "alert": lambda rest: self._tell("alert", self._devices.alert, rest),
            "reboot": lambda rest: self._order("reboot", self._devices.reboot, rest),
            "disconnect": lambda rest: self._order("disconnect", self._devices.disconnect, rest),
            "quit": self._quit,
            "exit": self._quit,
            "stop": self._quit,
        }
        carry_out = commands.get(command.lower())
        return carry_out(rest) if carry_out is not None else f"unknown command {command!r}; type help"

    def _quit(self, _rest: str) -> str:
        self._stop()
        return "stopping"

    def _status(self, _rest: str) -> str:
        phases: dict[str, int] = {}
        for session in self._devices:
            phases[session.phase.value] = phases.get(session.phase.value, 0) + 1
        detail = ", ".join(f"{count} {phase}" for phase, count in sorted(phases.items()))
        count = len(self._devices)
        text = f"{count} device{'' if count == 1 else 's'} connected" + (f": {detail}" if detail else "")
        return "\n".join(filter(None, (text, self._report())))

    def _list(self, _rest: str) -> str:
        names = {device.device_id: device.name for device in self._bindings or ()}
        connected = {session.device_id: session.phase.value for session in self._devices}
        rows = [f"{key:<20} {phase:<14} {names.get(key, '')}".rstrip() for key, phase in connected.items()]
        rows += [
            f"{key:<20} {'not connected':<14} {name}".rstrip()
            for key, name in names.items()
            if key not in connected
        ]
        shown = _listed(rows) or ["no device is connected"]
        waiting = self._bindings.pending if self._bindings is not None else 0
        if waiting:
            shown.append(f"waiting for `bind CODE`: {waiting}")
        return "\n".join(shown)

    def _bind(self, rest: str) -> str:
        code, _, name = rest.strip().partition(" ")
        if self._bindings is None:
            return NOT_NEEDED
        if not code:
            return "usage: bind CODE [NAME]"
        try:
            device = self._bindings.bind(code, name)
        except BindingError as error:
            return str(error)
        # Whoever is connected under this id is what it was before its flash was erased, or has only the same id.
        # What was kept for it belongs to whoever had it then.
        self._devices.forget(device.device_id)
        self._devices.disconnect(device.device_id)
        return (
            f"{device.device_id} is bound{f' as {device.name}' if device.name else ''} and comes in by itself"
        )

    def _unbind(self, rest: str) -> str:
        if self._bindings is None:
            return NOT_NEEDED
        if not rest.strip():
            return "usage: unbind DEVICE_ID"
        try:
            device = self._bindings.unbind(rest)
        except BindingError as error:
            return str(error)
        self._devices.forget(device.device_id)
        ended = ", its conversation ends" if self._devices.disconnect(device.device_id) else ""
        return f"{device.device_id} is no longer bound{ended}"

    def _say(self, rest: str) -> str:
        device_id, _, words = rest.strip().partition(" ")
        wait_s = 0.0
        if words.split(" ", 1)[0] == "--wait":
            _, _, words = words.partition(" ")
            wait, _, words = words.strip().partition(" ")
            if not (wait.isdecimal() and 0 < int(wait) <= MAX_WAIT_S):
                return SAY_USAGE
            wait_s = float(wait)
        words = words.strip()
        if not words:
            return SAY_USAGE
        if len(words) > MAX_WORDS_CHARS:
            return f"that is {len(words)} characters, and at most {MAX_WORDS_CHARS} are spoken"
        device_id = normal_device_id(device_id)
        match self._devices.announce(device_id, words, wait_s).state:
            case Delivery.SPOKEN | Delivery.QUEUED:
                return "ok"
            case Delivery.WAITING:
                return f"{device_id} is not connected; it is told if it connects within {wait_s:.0f} s"
            case Delivery.UNDELIVERED if wait_s or self._devices.find(device_id) is not None:
                return f"too much waits for {device_id} already, this was dropped"
            case _:
                return _absent(device_id)

    def _outbox(self, _rest: str) -> str:
        now = asyncio.get_running_loop().time()
        rows = [
            f"{message.device_id:<20} {_time_left(message.deadline - now)} left  {_one_line(message.words)}"
            for message in self._devices.outbox
        ]
        return "\n".join(_listed(rows) or ["no message waits"])

    def _reminders(self, rest: str) -> str:
        wanted = normal_device_id(rest)
        rows = [
            f"{device_id:<20} {_due(reminder.due_in_s)}  {_one_line(reminder.text)}"
            for device_id, reminder in self._devices.agenda
            if wanted in ("", device_id)
        ]
        return "\n".join(_listed(rows) or ["no timer or reminder is running"])

    @staticmethod
    def _tell(command: str, tell: Callable[[str, str], bool], rest: str) -> str:
        device_id, _, words = rest.strip().partition(" ")
        if not words.strip():
            return f"usage: {command} DEVICE_ID TEXT"
        return "ok" if tell(normal_device_id(device_id), words.strip()) else _absent(device_id)

    @staticmethod
    def _order(command: str, order: Callable[[str], bool], rest: str) -> str:
        device_id = rest.strip()
        if not device_id:
            return f"usage: {command} DEVICE_ID"
        return "ok" if order(normal_device_id(device_id)) else _absent(device_id)


def _absent(device_id: str) -> str:
    return f"{device_id} is not connected; `devices` lists who is"


def _listed(rows: list[str]) -> list[str]:
    more = len(rows) - MAX_LISTED
    return rows[:MAX_LISTED] + ([f"… and {more} more"] if more > 0 else [])


def _one_line(words: str) -> str:
    # What a model or a device wrote must not steer the terminal.
    shown = " ".join("".join(char if char.isprintable() else " " for char in words).split())
    return shown if len(shown) <= MAX_SHOWN_CHARS else shown[: MAX_SHOWN_CHARS - 1] + "…"


def _due(left_s: float) -> str:
    return f"in {_time_left(left_s)}" if left_s else "was due, not heard yet"


def _time_left(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
