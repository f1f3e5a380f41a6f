"""The words of the load test's pages: data in ``words.yaml``, English and Chinese side by side."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import NamedTuple

import yaml


class Words(NamedTuple):
    """The same in both languages."""

    en: str
    zh: str


def same(text: str) -> Words:
    """Return what is written alike in all languages: numbers, names, what somebody else wrote."""
    return Words(text, text)


def words(key: str, **values: str | int | Words) -> Words:
    """Return the words under ``key``, with ``values`` filled in; braces inside a value mean nothing.

    Raises KeyError for an unknown key, or a placeholder without a value.
    """
    both = _catalogue()[key]
    english = {name: value.en if isinstance(value, Words) else value for name, value in values.items()}
    chinese = {name: value.zh if isinstance(value, Words) else value for name, value in values.items()}
    return Words(both.en.format(**english), both.zh.format(**chinese))


def counted(key: str, number: int) -> Words:
    """Return the words for so many of something: those under ``key_one`` for one, else those under ``key``."""
    return words(f"{key}_one" if number == 1 else key, n=f"{number:,}")


def keys() -> frozenset[str]:
    """Return the names of all words."""
    return frozenset(_catalogue())


@functools.cache
def _catalogue() -> dict[str, Words]:
    raw = yaml.safe_load(Path(__file__).with_name("words.yaml").read_text("utf-8"))
    return {key: Words(*pair) for key, pair in raw.items()}
