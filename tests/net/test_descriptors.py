"""The limit of open files."""

from __future__ import annotations

import resource
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loguru import logger

from mynah.net import descriptors as module
from mynah.net.descriptors import OTHER_FILES, fitting, raise_limit, room


@pytest.fixture
def told() -> Iterator[list[str]]:
    lines: list[str] = []
    number = logger.add(lambda message: lines.append(str(message)), format="{level} {message}", level="DEBUG")
    yield lines
    logger.remove(number)


def limit(monkeypatch: pytest.MonkeyPatch, soft: int, hard: int | None = None) -> list[tuple[int, int]]:
    made: list[tuple[int, int]] = []
    monkeypatch.setattr(module.resource, "getrlimit", lambda _: (soft, soft if hard is None else hard))
    monkeypatch.setattr(module.resource, "setrlimit", lambda _, both: made.append(both))
    return made


def test_the_limit_is_raised_as_far_as_it_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert limit(monkeypatch, 1024, 524288) == []
    made = limit(monkeypatch, 1024, 524288)
    raise_limit()
    assert made == [(524288, 524288)]
    made = limit(monkeypatch, 4096, 4096)
    raise_limit()
    assert made == []


def test_a_limit_that_cannot_be_raised_stays(monkeypatch: pytest.MonkeyPatch, told: list[str]) -> None:
    limit(monkeypatch, 256, resource.RLIM_INFINITY)

    def refuse(_: int, both: tuple[int, int]) -> None:
        raise ValueError("not allowed to raise maximum limit")

    monkeypatch.setattr(module.resource, "setrlimit", refuse)
    raise_limit()
    assert "stays at 256" in "".join(told)


def test_where_all_fit_nothing_is_said(monkeypatch: pytest.MonkeyPatch, told: list[str]) -> None:
    limit(monkeypatch, 20_000)
    assert fitting(10_000) == 10_000
    limit(monkeypatch, resource.RLIM_INFINITY)
    assert fitting(1_000_000) == 1_000_000
    assert told == []


def test_where_fewer_fit_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch, told: list[str]) -> None:
    limit(monkeypatch, 1024)
    assert fitting(10_000) == 768
    (line,) = told
    assert line.startswith("WARNING server.limits.max_connections is 10000, but only 768 devices fit")
    assert "ulimit -n 11000" in line
    assert "LimitNOFILE=11000" in line


@given(st.integers(1, 10_000_000))
def test_something_is_left_for_everything_else(files: int) -> None:
    connections = room(files)
    assert 0 < connections <= files
    assert files - connections <= OTHER_FILES
    if files >= 4:
        assert connections < files
