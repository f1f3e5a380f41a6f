"""A server, its witnesses, and the bookkeeping around one abuse after the other."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import psutil

from tests.chaos.abuses import ABUSES, Attacker
from tests.chaos.witnesses import Seen, Witnesses
from tests.servers import FAKES, Process, serve

OVERRIDES = ("TTS.FakeTTS.seconds=0.4", "log.log_level=INFO")
"""Replies of 1.2 s: many turns in little time."""

SETTLE_S = 14.0
"""A connection in its handshake is cut after ten seconds, a closed one after one more."""


DESCRIPTORS = 6
"""Open files that may differ between two looks: each good device has its connection or is just making the next."""


class Load(msgspec.Struct, frozen=True):
    """What the server's process holds."""

    memory_mb: float
    descriptors: int
    log_lines: int


class Outcome(msgspec.Struct, frozen=True):
    """What one abuse did."""

    name: str
    turns: list[Seen]
    before: Load
    after: Load
    notes: list[str]
    trouble: list[str]
    """Log lines that speak of an exception."""
    seconds: float
    peak_mb: float


class Arena:
    """One server with three good devices."""

    def __init__(self, process: Process, witnesses: Witnesses) -> None:
        self.witnesses = witnesses
        self._process = process
        self._server = psutil.Process(process.popen.pid)
        self._log: list[str] = []
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        """Read the log: a pipe that is not read would hold the server up."""
        assert self._process.popen.stderr is not None
        self._log.extend(self._process.popen.stderr)

    def load(self) -> Load:
        return Load(self._server.memory_info().rss / 2**20, self._server.num_fds(), len(self._log))

    async def quiet(self, each: int) -> list[Seen]:
        """Let every device take some turns without any abuse."""
        return await self.witnesses.turns(time.monotonic(), each=each)

    async def suffer(self, name: str, scale: float, seed: int, seconds: float = 0.0) -> Outcome:
        """Carry out one abuse beside the conversations, and wait until everything is as before, or `SETTLE_S`.

        It is repeated for ``seconds``.
        """
        before = self.load()
        attacker = Attacker(self._process.ready["ws"], self._process.ready["ota"], scale, seed)
        peak = asyncio.create_task(self._peak())
        began = time.monotonic()
        await ABUSES[name](attacker)
        while time.monotonic() - began < seconds:
            await ABUSES[name](attacker)
        ended = time.monotonic()
        peak.cancel()
        # Those under way when it began suffered from it as well; those that began after it did not.
        turns = await self.witnesses.turns(began - 1.0, max(ended, began + 0.5), each=1)
        until = time.monotonic() + SETTLE_S
        after = self.load()
        while time.monotonic() < until and after.descriptors > before.descriptors + DESCRIPTORS:
            await asyncio.sleep(0.1)
            after = self.load()
        trouble = [
            line.strip()
            for line in self._log[before.log_lines :]
            if any(
                word in line
                for word in ("Traceback", "Exception", "Error:", "Fatal", "CRITICAL", "never retrieved")
            )
        ]
        with contextlib.suppress(asyncio.CancelledError):
            await peak
        return Outcome(
            name,
            turns,
            before,
            after,
            attacker.notes,
            trouble,
            ended - began,
            max(self._highest, after.memory_mb),
        )

    async def _peak(self) -> None:
        self._highest = 0.0
        while True:
            self._highest = max(self._highest, self._server.memory_info().rss / 2**20)
            await asyncio.sleep(0.1)

    @property
    def alive(self) -> bool:
        return self._process.popen.poll() is None

    def end(self) -> tuple[int, list[str]]:
        """End the server; return its exit code and whole log."""
        self._process.popen.terminate()
        code = self._process.popen.wait(20)
        self._listener.join(5)
        return code, self._log


@contextlib.asynccontextmanager
async def arena(folder: Path) -> AsyncIterator[Arena]:
    """Start everything, and let the devices take one turn."""
    with serve(folder, *OVERRIDES, f"log.data_dir={folder}", config=FAKES) as process:
        witnesses = await Witnesses.start(process.ready["ws"])
        stage = Arena(process, witnesses)
        try:
            await stage.quiet(each=1)
            yield stage
        finally:
            await witnesses.stop()
            if stage.alive:
                stage.end()
