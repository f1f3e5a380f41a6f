"""A whole turn of one talker through the real server over real sockets, with fakes whose delays are known.

What is left after their delays is the server's own share. `mynah bench --only latency` does the same with many talkers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from mynah.bench.latency import Cell, measure
from mynah.bench.report import Result, distribution
from mynah.bench.server import fakes_file, known_delays
from mynah.config import load
from mynah.wire.messages import ListenMode

TURNS = 30
"""Turns per mode: enough for a p95 that means something within a minute and a half."""


def turns() -> Iterator[Result]:
    """Manual mode: button released → first audio. Auto mode: end of speech → first audio."""
    delays = asyncio.run(known_delays(load(fakes_file(), environ={})))
    # One talker costs so little that the three do not disturb each other.
    plain, manual, auto = measure(
        [
            Cell(ListenMode.MANUAL, 1, False, TURNS),
            Cell(ListenMode.MANUAL, 1, True, TURNS),
            Cell(ListenMode.AUTO, 1, True, TURNS),
        ],
        side_by_side=True,
    )
    note = (
        f"turn, manual: the fakes' delays up to the first audio are {delays.first_audio:g} ms; speculation, which "
        "hides some of them before the button is released, is off except where it says so"
    )
    first = [times.first_audio for times in plain.turns]
    yield distribution("turn, manual", "listen stop → first audio", "ms", first, note)
    above = [value - delays.first_audio for value in first]
    yield distribution("turn, manual", "above the fakes' delays", "ms", above)
    first = [times.first_audio for times in manual.turns]
    yield distribution("turn, manual", "first audio with speculation", "ms", first)
    note = (
        f"turn, auto: from the last sound of the speech, with speculation; {delays.silence:g} ms of silence are "
        "configured, and waiting for whole packets (60 ms) and decisions (32 ms) comes on top"
    )
    samples = [times.stt for times in auto.turns]
    yield distribution("turn, auto", "end of speech → stt", "ms", samples, note)
    first = [times.first_audio for times in auto.turns]
    yield distribution("turn, auto", "end of speech → first audio", "ms", first)
    note = "interrupt: sent in the middle of a reply; a last frame of 0 ms means that none came any more"
    everything = [times for one in (plain, manual, auto) for times in one.turns]
    last = [times.last_frame for times in everything]
    yield distribution("interrupt", "abort → last frame of the old reply", "ms", last, note)
    yield distribution("interrupt", "abort → tts stop", "ms", [times.stop for times in everything])
