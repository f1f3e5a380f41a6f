"""The processes with the devices, as the director sees them."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Final, Self

import msgspec

from mynah.errors import MynahError
from mynah.sim.load.dial import Plan
from mynah.sim.load.stock import Recording
from mynah.sim.load.tally import Tally, merged
from mynah.sim.load.worker import (
    PROGRAM,
    Begin,
    Hold,
    Leave,
    Order,
    Ramp,
    Report,
    Settle,
    encode,
    read_message,
)

START_TIMEOUT_S: Final = 30.0
SETTLE_TIMEOUT_S: Final = 5.0
"""A process that does not answer within this counts with what it said last, at most half a second before."""
LEAVE_TIMEOUT_S: Final = 15.0
"""For hanging up everywhere; then it is killed."""

MAX_COMPLAINT_BYTES: Final = 4096
"""Of what a process writes to its standard error. Overflow policy: the end is kept."""


class Generator:
    """One process."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        reports: asyncio.StreamReader,
        pipe: asyncio.ReadTransport,
    ) -> None:
        self._process = process
        self._reports = reports
        self._pipe = pipe
        self._complaints = b""
        self.tally: Tally | None = None
        """What it said last; None until it is ready."""
        self.leaving = False
        """It was told to end."""
        self.settled = asyncio.Event()
        self.changed = asyncio.Event()
        self._tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._read_complaints())]

    @classmethod
    async def start(cls, begin: Begin) -> Self:
        """Start the process and give it its first order."""
        read_end, write_end = os.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", PROGRAM, str(write_end), pass_fds=(write_end,),
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
                start_new_session=True,  # Ctrl-C on the terminal is for us
            )  # fmt: skip
        except OSError as error:
            os.close(read_end)
            raise MynahError(f"cannot start a process for devices: {error}") from error
        finally:
            os.close(write_end)
        stream = asyncio.StreamReader()
        pipe, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(stream), os.fdopen(read_end, "rb", buffering=0)
        )
        generator = cls(process, stream, pipe)
        generator.order(begin)
        return generator

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it is still there."""
        return not self._tasks[0].done()

    @property
    def complaint(self) -> str:
        """Why it has ended, as far as it said; in a line."""
        code = self._process.returncode
        ended = f"killed by signal {-code}" if code is not None and code < 0 else f"exit code {code}"
        lines = self._complaints.decode(errors="replace").strip().splitlines()
        return f"{lines[-1]} ({ended})" if lines else ended

    def order(self, order: Order) -> None:
        """Give an order, unless it has ended."""
        if self.alive and self._process.stdin is not None and not self._process.stdin.is_closing():
            self.settled.clear()
            self._process.stdin.write(encode(order))

    async def end(self) -> None:
        """Let it hang up and end, or kill it."""
        self.order(Leave())
        self.leaving = True
        try:
            async with asyncio.timeout(LEAVE_TIMEOUT_S):
                await self._process.wait()
        except (TimeoutError, asyncio.CancelledError):
            self.kill()
            await self._process.wait()
        await asyncio.gather(*self._tasks)
        self._pipe.close()
        if self._process.stdin is not None:
            self._process.stdin.close()
        await asyncio.sleep(0)  # the event loop closes the pipes itself

    def kill(self) -> None:
        """End it at once."""
        if self._process.returncode is None:
            self._process.kill()

    async def _read(self) -> None:
        decoder = msgspec.msgpack.Decoder(Report)
        while (body := await read_message(self._reports)) is not None:
            report = decoder.decode(body)
            self.tally = report.tally
            self.changed.set()
            if report.settled:
                self.settled.set()
        await self._process.wait()
        self.changed.set()
        self.settled.set()

    async def _read_complaints(self) -> None:
        assert self._process.stderr is not None
        while text := await self._process.stderr.read(MAX_COMPLAINT_BYTES):
            self._complaints = (self._complaints + text)[-MAX_COMPLAINT_BYTES:]


class Generators:
    """All of them. Use as a context: nothing is left behind."""

    def __init__(self) -> None:
        self._all: list[Generator] = []
        self._mourned: set[int] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.end()

    async def start(self, plans: list[Plan], stock: list[Recording]) -> None:
        """Start one process for each plan and wait until they are ready. Raises MynahError."""
        for plan in plans:
            self._all.append(await Generator.start(Begin(plan, stock)))
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                for generator in self._all:
                    while generator.tally is None and generator.alive:
                        await generator.changed.wait()
                        generator.changed.clear()
        except TimeoutError:
            raise MynahError(f"a process for devices was not ready within {START_TIMEOUT_S:g} s") from None
        for generator in self._all:
            if not generator.alive:
                raise MynahError(f"a process for devices did not start: {generator.complaint}")

    @property
    def alive(self) -> bool:
        """Whether any of them is still there."""
        return any(generator.alive for generator in self._all)

    def pids(self) -> list[int]:
        """Return the numbers of those that are there."""
        return [generator.pid for generator in self._all if generator.alive]

    def bereaved(self) -> list[str]:
        """Return why processes have ended, untold to, since the last call; each in a line."""
        gone = [one for one in self._all if not (one.alive or one.leaving or one.pid in self._mourned)]
        self._mourned |= {one.pid for one in gone}
        return [f"process {one.pid} with devices has ended: {one.complaint}" for one in gone]

    def ramp(self, step: int, devices: int, talkers: int) -> None:
        """Begin a step on all of them."""
        for number, generator in enumerate(self._all):
            generator.order(
                Ramp(step, _part(devices, number, len(self._all)), _part(talkers, number, len(self._all)))
            )

    def hold(self) -> None:
        """Begin the measurement proper."""
        for generator in self._all:
            generator.order(Hold())

    def tally(self, step: int) -> Tally | None:
        """Return what all have seen in this step; None while one that is there has not said anything of it.

        Devices of a process that has ended are not connected any more.
        """
        told: list[Tally] = []
        for generator in self._all:
            known = generator.tally
            current = known is not None and known.step == step
            if generator.alive:
                if known is None or not current:
                    return None
                told.append(known)
            elif known is not None and current:
                told.append(msgspec.structs.replace(known, connected=0, talking=0, untried=0))
        return merged(told)

    async def settle(self, step: int) -> Tally:
        """Return what all have seen in this step until now."""
        for generator in self._all:
            generator.order(Settle())
        try:
            async with asyncio.timeout(SETTLE_TIMEOUT_S):
                for generator in self._all:
                    if generator.alive:
                        await generator.settled.wait()
        except TimeoutError:
            pass  # it counts with what it said last
        return self.tally(step) or Tally(step=step)

    async def end(self) -> None:
        """Let them all hang up and end."""
        await asyncio.gather(*(generator.end() for generator in self._all))

    def kill(self) -> None:
        """End them all at once."""
        for generator in self._all:
            generator.kill()


def _part(whole: int, number: int, parts: int) -> int:
    """Return the share of one of several that get as equal ones as there are."""
    return whole // parts + (number < whole % parts)
