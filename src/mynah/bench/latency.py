"""How long people wait, and how soon the assistant is silent, with 1, 10 and 50 of them talking at once.

Each cell of the table has a server process of its own and a process with all its talkers; both share the machine's
cores. Recogniser, model and voice are fakes of 50 ms each.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Final

import msgspec

from mynah.bench.report import Result, distribution
from mynah.bench.server import FakeDelays, ServerReport, ServerUnderTest, fakes_file, known_delays
from mynah.bench.talker import Talk, Talkers, TurnTimes
from mynah.config import load
from mynah.wire.messages import ListenMode

TURNS: Final = {1: 100, 10: 10, 50: 4}
"""Turns of each talker, by how many there are: at least 100 in each cell, and six minutes for the whole table."""
AUTO_NOTE: Final = "auto: from the last sound of the speech, wherever in a packet of 60 ms it is"
MANUAL_NOTE: Final = "manual: from `listen stop`, which comes some 200 ms after the last sound"
INTERRUPT_NOTE: Final = (
    "interrupt: from an abort in the midst of a reply, both modes; last frame 0: none came any more"
)
SHARED_NOTE: Final = (
    "server and talkers are processes of their own, on the same cores; everybody asks every two seconds"
)


class Cell(msgspec.Struct, frozen=True):
    """One situation."""

    mode: ListenMode
    talkers: int
    speculation: bool
    turns: int
    """Of each talker."""

    @property
    def name(self) -> str:
        """How the table calls it."""
        people = "1 talker" if self.talkers == 1 else f"{self.talkers} talkers"
        return f"{people}, speculation {'on' if self.speculation else 'off'}"


class Measured(msgspec.Struct, frozen=True):
    """What a cell brought."""

    cell: Cell
    talk: Talk
    report: ServerReport

    @property
    def turns(self) -> list[TurnTimes]:
        """Every turn that counts."""
        return self.talk.turns


def measure(cells: Sequence[Cell], *, side_by_side: bool) -> list[Measured]:
    """Measure cells at once or one after the other, each with a server of its own. Raises MynahError."""
    with ExitStack() as stack:
        servers = [
            stack.enter_context(ServerUnderTest(f"conversation.speculation={str(cell.speculation).lower()}"))
            for cell in cells
        ]
        urls = [server.url() for server in servers]
        waiting: list[Talkers] = []
        talks: list[Talk] = []
        for url, cell in zip(urls, cells, strict=True):
            waiting.append(stack.enter_context(Talkers(url, cell.mode, cell.talkers, cell.turns)))
            if not side_by_side:
                talks.append(waiting.pop().wait())
        talks += [one.wait() for one in waiting]
        reports = [server.stop() for server in servers]
    return [Measured(*all_of_it) for all_of_it in zip(cells, talks, reports, strict=True)]


def latency() -> Iterator[Result]:
    """Auto and manual mode, with and without speculation, and interruptions."""
    delays = asyncio.run(known_delays(load(fakes_file(), environ={})))
    measured: list[Measured] = []
    for talkers, turns in TURNS.items():
        cells = [
            Cell(mode, talkers, speculation, turns)
            for mode in (ListenMode.AUTO, ListenMode.MANUAL)
            for speculation in (False, True)
        ]
        # Single talkers cost so little that the cells do not disturb each other; and they take longest.
        measured += measure(cells, side_by_side=talkers == 1)
    yield from table(measured, delays)


def table(measured: Sequence[Measured], delays: FakeDelays) -> Iterator[Result]:
    """Return the rows, by quantity."""
    auto = [one for one in measured if one.cell.mode is ListenMode.AUTO]
    manual = [one for one in measured if one.cell.mode is ListenMode.MANUAL]
    for one in auto:
        samples = [times.first_audio for times in one.turns]
        yield distribution("auto: first audio", one.cell.name, "ms", samples, AUTO_NOTE)
    for one in auto:
        asr = 0.0 if one.cell.speculation else delays.asr
        samples = [times.stt - asr - delays.silence for times in one.turns]
        note = (
            f"end noticed: when `stt` came, above the {delays.silence:g} ms of silence configured; without speculation "
            f"the recogniser's {delays.asr:g} ms are taken off"
        )
        yield distribution("auto: end noticed", one.cell.name, "ms", samples, note)
    for one in manual:
        samples = [times.first_audio for times in one.turns]
        yield distribution("manual: first audio", one.cell.name, "ms", samples, MANUAL_NOTE)
    for one in manual:
        if not one.cell.speculation:
            samples = [times.first_audio - delays.first_audio for times in one.turns]
            note = f"above the fakes: their delays up to the first sound are {delays.first_audio:g} ms"
            yield distribution("manual: above the fakes", one.cell.name, "ms", samples, note)
    yield from _interruptions(measured)
    yield from _costs(measured)


def _interruptions(measured: Sequence[Measured]) -> Iterator[Result]:
    for name, field in (("interrupt: last frame", "last_frame"), ("interrupt: tts stop", "stop")):
        for talkers in dict.fromkeys(one.cell.talkers for one in measured):
            cells = [one for one in measured if one.cell.talkers == talkers]
            samples = [getattr(times, field) for one in cells for times in one.turns]
            case = cells[0].cell.name.partition(",")[0]
            yield distribution(name, case, "ms", samples, INTERRUPT_NOTE)


def _costs(measured: Sequence[Measured]) -> Iterator[Result]:
    for one in measured:
        case = f"{one.cell.mode}, {one.cell.name}"
        note = f"server's CPU, of one core; {case}: {one.report.summary}"
        if one.talk.faults:
            note += f"; the devices counted {one.talk.faults}"
        share = 100 * one.report.cpu_s / one.talk.seconds
        yield distribution("server's CPU", case, "%", [share], note)
    for one in measured:
        yield distribution(
            "talkers' clock late", f"{one.cell.mode}, {one.cell.name}", "ms", one.talk.lag_ms, SHARED_NOTE
        )
