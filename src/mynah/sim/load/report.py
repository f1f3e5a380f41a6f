"""Load test reports on disk: ``report.json``, which programs read, and ``report.html``, which people do."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import msgspec

from mynah.errors import ConfigError
from mynah.sim.load.markup import encoded, replace_file
from mynah.sim.load.page import render
from mynah.sim.load.record import FORMAT, LoadReport

JSON: Final = "report.json"
HTML: Final = "report.html"

MAX_BYTES: Final = 256 * 1024 * 1024
"""Of a report that is read: a week of samples. Larger files are refused, as they are something else."""


class _Head(msgspec.Struct):
    """What makes JSON a load test report."""

    format: int
    target: str
    steps: list[Any]


def write(report: LoadReport, folder: Path) -> Path:
    """Write both files of a report and return the path of the page.

    The folder is made where there is none; reports in it are replaced, each file as a whole, the data first.
    Raises ConfigError when the folder cannot be written.
    """
    replace_file(folder / JSON, encoded(report) + b"\n")
    page = folder / HTML
    replace_file(page, render(report).encode("utf-8"))
    return page


def read(path: Path) -> LoadReport:
    """Read a report from its JSON file, or from the folder that holds it.

    Raises ConfigError when it cannot be read, is no report, or was written by a newer Mynah.
    """
    file = path / JSON if path.is_dir() else path
    try:
        size = file.stat().st_size
        if size > MAX_BYTES:
            raise ConfigError(
                f"{file} is {size / 1e6:.0f} MB, too large for a load test report. Give a {JSON}"
            )
        content = file.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"cannot read the load test report {file}: {error.strerror or error}. "
            f"Give the {JSON} that `mynah loadtest` wrote, or its folder"
        ) from error
    try:
        head = msgspec.json.decode(content, type=_Head)
    except msgspec.DecodeError as error:
        raise ConfigError(
            f"{file} is not a load test report ({error}). Give the {JSON} that `mynah loadtest` wrote"
        ) from error
    if head.format > FORMAT:
        raise ConfigError(
            f"{file} has format {head.format}, and this Mynah reads formats up to {FORMAT}. "
            "Use the version of Mynah that wrote it, or a newer one"
        )
    try:
        return msgspec.json.decode(content, type=LoadReport)
    except msgspec.ValidationError as error:
        raise ConfigError(
            f"{file} is a damaged load test report: {error}. Run the load test again"
        ) from error
