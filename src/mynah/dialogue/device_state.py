"""What is known of devices and must survive a restart of the server, as one file.

Ten thousand devices make megabytes of it. So it is gathered and encoded piece by piece, and between two pieces the
event loop does its other work. A thread would not help: encoding holds the interpreter.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

import msgspec
from loguru import logger

from mynah.dialogue.allowance import DailyAllowance, Spent
from mynah.dialogue.patience import PauseProfile, Profiles
from mynah.dialogue.reminders import Agenda, KeptReminder
from mynah.security.files import LatestFile

SAVE_DELAY_S = 2.0
"""Changes within this time are written together: a file of many devices may have megabytes."""
SAVE_EVERY_S = 300.0
"""What nobody announces, habits and allowances, is written this often; more than that of it a crash does not cost."""

_PIECE: Final = 100
"""Entries that are encoded at a time, 0.1 ms."""

log = logger.bind(tag="devices")


class KeptState(msgspec.Struct):
    """Content of the file."""

    reminders: tuple[KeptReminder, ...] = ()
    pauses: dict[str, PauseProfile] = {}
    """How long each device's user pauses."""
    spent: Spent | None = None
    """What devices were told today."""
    version: int = 1


class DeviceState:
    """Reads the file at the start, and writes it when something has changed, now and then, and at the end."""

    def __init__(self, path: Path, agenda: Agenda, profiles: Profiles, allowance: DailyAllowance) -> None:
        self._file = LatestFile(path, "reminders and what was learnt are lost at the next restart")
        self._agenda = agenda
        self._profiles = profiles
        self._allowance = allowance
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._saving: asyncio.Task[None] | None = None
        self._written = b""
        self._unreadable = False

    def start(self) -> None:
        """Take up what was kept; call before devices connect. A damaged file is put aside."""
        kept = self._read()
        self._agenda.restore(kept.reminders)
        self._profiles.restore(kept.pauses)
        if kept.spent is not None:
            self._allowance.restore(kept.spent)
        self._agenda.changed = self._changed
        self._plan(SAVE_EVERY_S)

    def stop(self) -> None:
        """Write a last time, and no more by itself."""
        self._agenda.changed = lambda: None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._saving is not None:
            self._saving.cancel()
            self._saving = None
        if not self._unreadable:
            state = KeptState(self._agenda.snapshot(), self._profiles.snapshot(), self._allowance.snapshot())
            self._write(encoded(state))

    def close(self) -> None:
        """Wait until all is written: blocks for as long as the disk needs. After `stop`."""
        self._file.close()

    def _read(self) -> KeptState:
        path = self._file.path
        try:
            return msgspec.json.decode(path.read_bytes(), type=KeptState)
        except FileNotFoundError:
            return KeptState()
        except OSError as error:
            # Nothing is written either: what is there may be readable another time.
            self._unreadable = True
            log.warning(
                "{} cannot be read ({}): reminders are not known, and none are kept", path, error.strerror
            )
        except (msgspec.DecodeError, UnicodeError):
            aside = path.with_suffix(".damaged")
            log.warning(
                "{} is damaged, it is put aside as {}: reminders made before are lost", path, aside.name
            )
            path.replace(aside)
        return KeptState()

    def _changed(self) -> None:
        self._plan(SAVE_DELAY_S)

    def _plan(self, delay_s: float) -> None:
        loop = asyncio.get_running_loop()
        at = loop.time() + delay_s
        if self._timer is not None:
            if self._timer_at <= at:
                return
            self._timer.cancel()
        self._timer_at = at
        self._timer = loop.call_at(at, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        if self._saving is not None:  # the loop had no time for it: two at once would not be faster
            self._plan(SAVE_DELAY_S)
            return
        if not self._unreadable:
            self._saving = asyncio.get_running_loop().create_task(self._save())
        self._plan(SAVE_EVERY_S)

    async def _save(self) -> None:
        """Write what is known now, in pieces. What changes meanwhile plans the next time itself."""
        try:
            # Each part is whole by itself, and none refers to another.
            reminders = self._agenda.snapshot()
            await asyncio.sleep(0)
            pauses = self._profiles.snapshot()
            await asyncio.sleep(0)
            state = KeptState(reminders, pauses, self._allowance.snapshot())
            pieces = []
            for piece in encoded(state):
                pieces.append(piece)
                await asyncio.sleep(0)
            self._write(pieces)
        finally:
            self._saving = None

    def _write(self, pieces: Iterable[bytes]) -> None:
        content = b"".join(pieces)
        if content != self._written:  # most of the time nothing has happened
            self._written = content
            self._file.save(content)


def encoded(state: KeptState) -> Iterator[bytes]:
    """Yield the file of a state in pieces that take little time each: JSON with a line break behind it."""
    yield b'{"reminders":['
    reminders = iter(state.reminders)
    pieces = iter(lambda: tuple(itertools.islice(reminders, _PIECE)), ())
    yield from _separated(msgspec.json.encode(piece)[1:-1] for piece in pieces)
    yield b'],"pauses":{'
    yield from _members(state.pauses)
    yield b'},"spent":'
    if state.spent is None:
        yield b"null"
    else:
        yield b'{"day":' + msgspec.json.encode(state.spent.day) + b',"chars":{'
        yield from _members(state.spent.chars)
        yield b"}}"
    yield b',"version":' + msgspec.json.encode(state.version) + b"}\n"


def _members(mapping: Mapping[str, object]) -> Iterator[bytes]:
    entries = iter(mapping.items())
    pieces = iter(lambda: dict(itertools.islice(entries, _PIECE)), {})
    yield from _separated(msgspec.json.encode(piece)[1:-1] for piece in pieces)


def _separated(pieces: Iterable[bytes]) -> Iterator[bytes]:
    for number, piece in enumerate(pieces):
        yield b"," + piece if number else piece
