"""The catalogue of sentences: one YAML file per language, the same keys in each.

A value is one sentence or a list of them; of a list, `text` takes each in turn, in an order that is shuffled
once per process, so that nothing is repeated before everything has been said. `text` fills in ``{name}``.
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Iterator
from functools import cache
from importlib import resources

import yaml

from mynah.errors import ConfigError

FALLBACK = "en"
"""The language used for any that has no file."""

_CJK = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f]")
_LATIN = re.compile("[A-Za-z]")


def languages() -> tuple[str, ...]:
    """Return the codes of all languages that have a file, sorted: ``('en', 'zh')``."""
    return tuple(sorted(_catalogue()))


def keys(language: str) -> frozenset[str]:
    """Return the names of all texts of a language."""
    return frozenset(_sentences(language))


def variants(key: str, language: str) -> tuple[str, ...]:
    """Return every sentence under ``key``, unfilled. Raises KeyError for an unknown key."""
    return _sentences(language)[key]


def text(key: str, language: str, **values: object) -> str:
    """Return the sentence for ``key``, the next one where there are several, with ``values`` filled in.

    Args:
        key: name of the text, the same in every language
        language: ``en``, ``zh`` or a longer tag (``zh-CN``); any other language gets English
        values: what the sentence's placeholders stand for; braces inside a value mean nothing

    Raises:
        KeyError: no such text, or a placeholder without a value
    """
    return next(_rotation(key, _file_of(language))).format(**values)


def detect_language(s: str, default: str = "en") -> str:
    """Return ``zh`` when ``s`` holds a Chinese character, else ``en`` for Latin letters, else ``default``."""
    if _CJK.search(s):
        return "zh"
    return "en" if _LATIN.search(s) else default


def _file_of(language: str) -> str:
    primary = language.replace("_", "-").split("-", 1)[0].lower()
    return primary if primary in _catalogue() else FALLBACK


def _sentences(language: str) -> dict[str, tuple[str, ...]]:
    return _catalogue()[_file_of(language)]


@cache
def _rotation(key: str, language: str) -> Iterator[str]:
    # next() on a C iterator is one step under the interpreter lock, so threads may share it.
    sentences = list(_catalogue()[language][key])
    random.shuffle(sentences)
    return itertools.cycle(sentences)


@cache
def _catalogue() -> dict[str, dict[str, tuple[str, ...]]]:
    return {
        file.name.removesuffix(".yaml"): _read(file.name, file.read_text(encoding="utf-8"))
        for file in resources.files("mynah.texts").iterdir()
        if file.name.endswith(".yaml")
    }


def _read(name: str, source: str) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for key, value in yaml.safe_load(source).items():
        sentences = (value,) if isinstance(value, str) else tuple(value)
        if not sentences or not all(isinstance(sentence, str) for sentence in sentences):
            raise ConfigError(f"texts/{name}: {key} must be a sentence or a list of sentences")
        found[key] = sentences
    return found
