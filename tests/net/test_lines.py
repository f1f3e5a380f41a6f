"""Lines about strangers: one each, or one for thousands."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from loguru import logger

from mynah.net.lines import LINES_AT_ONCE, LINES_PER_S, SUMMARY_S, Lines
from tests.virtual_time import virtual

WHY = "the server is full"


@pytest.fixture
def written() -> Iterator[list[str]]:
    lines: list[str] = []
    sink = logger.add(
        lambda line: lines.append(line.strip()), format="{level} {extra[tag]} {function} {message}"
    )
    yield lines
    logger.remove(sink)


def at(level: str, written: list[str]) -> list[str]:
    return [line.removeprefix(f"{level} test ") for line in written if line.startswith(level)]


@virtual
async def test_few_are_told_one_by_one(written: list[str]) -> None:
    lines = Lines(logger.bind(tag="test"))
    lines.refused("full", "02:00:00:00:00:01", "192.0.2.1", WHY)
    lines.refused("full", "", "192.0.2.1", WHY)
    lines.replaced("02:00:00:00:00:01")
    await asyncio.sleep(2 * SUMMARY_S)
    here = "test_few_are_told_one_by_one"
    assert at("INFO", written) == [
        f"{here} refused 02:00:00:00:00:01 (192.0.2.1): {WHY}",
        f"{here} refused a device without id (192.0.2.1): {WHY}",
        f"{here} 02:00:00:00:00:01 connected again, the older connection is closed",
    ]


@virtual
async def test_of_a_storm_there_is_a_line_in_some_seconds(written: list[str]) -> None:
    lines = Lines(logger.bind(tag="test"))
    for _ in range(1000):
        lines.refused("full", "02:00:00:00:00:01", "192.0.2.1", WHY)
        lines.refused("no_token", "02:00:00:00:00:02", "192.0.2.1", "no token")
        lines.replaced("02:00:00:00:00:03")
    assert len(at("INFO", written)) == LINES_AT_ONCE
    assert len(written) == 3000, "at DEBUG there is a line for each"
    await asyncio.sleep(SUMMARY_S + 0.1)
    assert at("INFO", written)[LINES_AT_ONCE:] == [
        "_sum_up 994 more connected again, 993 more refused (full), 993 more refused (no_token); each one is logged at "
        "DEBUG"
    ]


@virtual
async def test_every_one_is_counted_however_long_it_lasts(written: list[str]) -> None:
    lines = Lines(logger.bind(tag="test"))
    for _ in range(600):  # 60 s
        lines.replaced("02:00:00:00:00:03")
        await asyncio.sleep(0.1)
    await asyncio.sleep(SUMMARY_S)
    told = at("INFO", written)
    summaries = [line for line in told if "more" in line]
    counted = sum(int(line.split()[1]) for line in summaries)
    assert counted + len(told) - len(summaries) == 600
    assert len(summaries) <= 60 / SUMMARY_S
    assert len(told) - len(summaries) <= LINES_AT_ONCE + 60 * LINES_PER_S + 1


@virtual
async def test_braces_in_what_a_device_tells_are_no_format(written: list[str]) -> None:
    Lines(logger.bind(tag="test")).refused("full", "{0} {nobody}", "192.0.2.1", "{}")
    assert at("INFO", written)[0].endswith("refused {0} {nobody} (192.0.2.1): {}")
