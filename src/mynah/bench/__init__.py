"""`mynah bench`: what the parts and a whole turn cost on this machine.

Figures are recorded with the command, the machine and the date, so that they can be compared and repeated.
Nothing here is needed to serve; the measurements import the parts they measure when they run.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from mynah.bench import audio, connections, echo, endpointing, latency, opus, pacing, sockets, turn
from mynah.bench.report import Recording, Result, as_json, machine, now, print_table
from mynah.errors import ConfigError, MynahError

BENCHES: Final[dict[str, Callable[[], Iterator[Result]]]] = {
    "opus": opus.opus,
    "vad": audio.vad,
    "ingest": audio.ingest,
    "websocket": sockets.websocket,
    "connections": connections.connections,
    "pacer": pacing.pacer,
    "turn": turn.turns,
    "latency": latency.latency,
    "endpointing": endpointing.endpointing,
    "echo": echo.echo,
}
"""Every measurement by the name `--only` takes, in the order they run."""


def run(json_output: bool, only: list[str] | None = None, output: Path | None = None) -> int:
    """Measure and report: a table, or JSON on standard output; progress goes to standard error.

    ``only`` names the measurements (all by default), ``output`` a file the JSON is written to as well.
    Returns the exit code: 0, or 1 when a measurement could not be made. Raises ConfigError for a name that
    does not exist and a file that cannot be written.
    """
    names = only or list(BENCHES)
    unknown = [name for name in names if name not in BENCHES]
    if unknown:
        raise ConfigError(f"no measurement is called {', '.join(unknown)}; there are {', '.join(BENCHES)}")
    results: list[Result] = []
    failed: dict[str, str] = {}
    for name in names:
        print(f"measuring {name} …", file=sys.stderr, flush=True)  # noqa: T201 - this is a command
        try:
            for result in BENCHES[name]():
                print(f"  {result.line()}", file=sys.stderr, flush=True)  # noqa: T201
                results.append(result)
        except MynahError as error:
            failed[name] = str(error)
            print(f"  not measured: {error}", file=sys.stderr, flush=True)  # noqa: T201
    recording = Recording(
        command=shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        date=now(),
        machine=machine(),
        results=results,
        failed=failed,
    )
    if output is not None:
        try:
            output.parent.mkdir(parents=True, exist_ok=True)
            output.write_text(as_json(recording) + "\n", encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"cannot write {output}: {error}") from error
    if json_output:
        print(as_json(recording))  # noqa: T201
    else:
        print_table(recording)
    return 1 if failed else 0
