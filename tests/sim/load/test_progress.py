from __future__ import annotations

import io

from rich.console import Console

from mynah.sim.load import progress as module
from mynah.sim.load.director import Progress
from mynah.sim.load.progress import line, shown, steps_table, table, verdict_line
from mynah.sim.load.record import Distribution, Frames, Outcomes, Sample, Stage, Step, Usage
from mynah.sim.load.tally import Tally

STEP = Step(
    number=1,
    devices=100,
    talkers=10,
    connected=99,
    connections=Outcomes(attempted=100, succeeded=99),
    times={Stage.FIRST_AUDIO: Distribution(count=9, p50=231.4, p95=345.6)},
    frames=Frames(received=1000, late=1),
    errors={"no hello": 1},
    server=Usage(cpu=0.5),
    generator=Usage(cpu=0.25),
    passed=False,
    reasons=["connections: 99 % of 100 succeeded"],
)


def moment(phase: str = "hold", step: int = 2) -> Progress:
    tally = Tally(connected=200, talking=7, attempted=101, succeeded=100, received=10_000, late=3, busy=4)
    tally.time(Stage.FIRST_AUDIO, 250.0)
    tally.error("no hello")
    sample = Sample(at_s=3.0, server=None, generator=Usage(cpu=0.1))
    return Progress(
        phase=phase, step=step, steps=3, devices=200, talkers=20, tally=tally, sample=sample, finished=(STEP,)
    )


def printed(what: object, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(what)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_line_says_how_it_goes() -> None:
    assert line(moment()) == (
        "step 2 of 3, measuring: 200 of 200 connected, 7 of 20 in a turn, success 99.01%, first audio 249/249 ms, "
        "late 0.03%, CPU ? + 0.10 cores (server + generator), 4 told to come later, 1 errors"
    )
    assert line(moment("rest", 0)) == "looking at the server at rest"


def test_a_table_fits_on_a_terminal() -> None:
    text = printed(table(moment()))
    assert "step 2 of 3: measuring" in text
    finished, current = text.splitlines()[2:4]
    assert " ".join(finished.split()) == "1 99 of 100 10 99.00% 231/346 0.10% 0.50 + 0.25 1 FAILED"
    assert " ".join(current.split()) == "2 200 of 200 7 99.01% 249/249 0.03% ? + 0.10 1 …"


def test_what_is_not_all_does_not_look_like_it() -> None:
    assert [module._percent(share) for share in (0.0, 1e-7, 0.5, 0.999_999, 1.0)] == [
        "0%", "0.01%", "50.00%", "99.99%", "100%"
    ]  # fmt: skip


def test_verdicts() -> None:
    assert (
        verdict_line(STEP) == "step 1 (100 devices, 10 talking): FAILED: connections: 99 % of 100 succeeded"
    )
    assert verdict_line(Step(number=2, devices=5)) == "step 2 (5 devices): passed"
    assert "passed" in printed(steps_table((Step(number=2, devices=5),)))


def test_where_there_is_no_terminal_there_are_lines_now_and_then() -> None:
    console = Console(file=io.StringIO(), width=300)
    with shown(console) as on_progress:
        for _ in range(10):
            on_progress(moment())
        on_progress(moment("leave", 0))
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue().splitlines() == [
        verdict_line(STEP), line(moment()), line(moment("leave", 0))
    ]  # fmt: skip


def test_on_a_terminal_there_is_a_table() -> None:
    console = Console(file=io.StringIO(), width=100, force_terminal=True)
    with shown(console) as on_progress:
        on_progress(moment())
    assert isinstance(console.file, io.StringIO)
    assert "step 2 of 3: measuring" in console.file.getvalue()
