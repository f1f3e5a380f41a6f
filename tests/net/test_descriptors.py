"""The limit of open files."""

from __future__ import annotations

import resource
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loguru import logger

from mynah.net import descriptors as module
from mynah.net.descriptors import OTHER_FILES, fitting, room


@pytest.fixture
def told() -> Iterator[list[str]]:
    lines: list[str] = []
    number = logger.add(lambda message: lines.append(str(message)), format="{level} {message}", level="DEBUG")
    yield lines
    logger.remove(number)


def limit(monkeypatch: pytest.MonkeyPatch, soft: int) -> None:
    monkeypatch.setattr(module.resource, "getrlimit", lambda _: (soft, soft))


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
