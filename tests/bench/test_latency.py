"""The table of latencies: which cells there are, and that each figure stands where it belongs."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from mynah.bench import latency
from mynah.bench.latency import Cell, Measured, table
from mynah.bench.server import FakeDelays, ServerReport
from mynah.bench.talker import Talk, TurnTimes
from mynah.wire.messages import ListenMode

DELAYS = FakeDelays(asr=50, first_audio=150, silence=200)


def measured(mode: ListenMode, talkers: int, speculation: bool, first_audio: float) -> Measured:
    times = [TurnTimes(stt=280, first_audio=first_audio, last_frame=talkers, stop=2.0 * talkers)] * talkers
    talk = Talk(times, lag_ms=[1.0, 2.0], seconds=10, faults={"overflow": 3} if talkers == 50 else {})
    return Measured(Cell(mode, talkers, speculation, 1), talk, ServerReport(2.0, "4 turns"))


def test_every_figure_stands_where_it_belongs() -> None:
    cells = [
        measured(ListenMode.AUTO, 1, False, 400),
        measured(ListenMode.AUTO, 1, True, 300),
        measured(ListenMode.MANUAL, 1, False, 155),
        measured(ListenMode.MANUAL, 1, True, 100),
        measured(ListenMode.MANUAL, 50, False, 160),
    ]
    rows = {(row.bench, row.case): row for row in table(cells, DELAYS)}
    assert rows["auto: first audio", "1 talker, speculation off"].p50 == 400
    assert rows["auto: first audio", "1 talker, speculation on"].p50 == 300
    assert rows["auto: end noticed", "1 talker, speculation off"].p50 == 280 - 50 - 200
    assert rows["auto: end noticed", "1 talker, speculation on"].p50 == 280 - 200
    assert rows["manual: first audio", "50 talkers, speculation off"].p50 == 160
    assert rows["manual: above the fakes", "1 talker, speculation off"].p50 == 5
    assert ("manual: above the fakes", "1 talker, speculation on") not in rows, "there it hides the fakes"
    assert rows["interrupt: last frame", "1 talker"].count == 4
    assert rows["interrupt: last frame", "50 talkers"].p50 == 50
    assert rows["interrupt: tts stop", "50 talkers"].p50 == 100
    cost = rows["server's CPU", "manual, 50 talkers, speculation off"]
    assert cost.p50 == 20
    assert "4 turns" in cost.note
    assert "overflow" in cost.note
    assert rows["talkers' clock late", "auto, 1 talker, speculation on"].worst == 2


def test_every_cell_is_measured_and_only_single_talkers_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    together: list[Cell] = []
    alone: list[Cell] = []

    def measure(cells: Sequence[Cell], *, side_by_side: bool) -> list[Measured]:
        (together if side_by_side else alone).extend(cells)
        return [measured(cell.mode, cell.talkers, cell.speculation, 300) for cell in cells]

    monkeypatch.setattr(latency, "measure", measure)
    rows = list(latency.latency())
    assert [cell.talkers for cell in together] == [1] * 4
    assert [cell.talkers for cell in alone] == [10] * 4 + [50] * 4
    cells = together + alone
    assert len({(cell.mode, cell.talkers, cell.speculation) for cell in cells}) == 12
    assert all(cell.talkers * cell.turns >= 100 for cell in cells)
    assert len({(row.bench, row.case) for row in rows}) == len(rows)
