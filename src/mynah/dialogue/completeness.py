"""Whether words sound finished, by rules: "turn on the" does not, "what time is it" does.

The rules are data, ``data/completeness.<language>.yaml``. They look at the end of a sentence, so they know little; what
they do know tells a pause for thought from the end of a turn without a model. Pure: text in, verdict out.
"""

from __future__ import annotations

import enum
import re
import unicodedata
from functools import lru_cache
from importlib import resources
from typing import Any, Final

import msgspec
import yaml

from mynah.errors import ConfigError

Words = tuple[str, ...]

MAX_CHARACTERS: Final = 1000
"""Only the end of a longer text is looked at: a minute of speech has fewer, and nothing further back matters."""

_TOKEN = re.compile("[a-z0-9]+(?:'[a-z]+)*|[\u3007\u3400-\u4dbf\u4e00-\u9fff]")
_HAN = re.compile("[\u3007\u3400-\u4dbf\u4e00-\u9fff]")
_LATIN = re.compile("[a-z]")
_UNFINISHED_MARKS = (",", "、", ";", ":", "...", "…", "-", "–", "—")
_FINISHED_MARKS = (".", "!", "?", "。")
_CLOSING: Final = "\"'”’）)」』 \t\n"
"""May follow a mark."""
_LOADER: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
"""In C where PyYAML has it: 4 ms a file instead of 20."""
_SPELLED_WORD: Final = 3
"""Letters in a row that nobody says in an ordinary sentence."""
_DICTATED_NUMBER: Final = 3
"""Digits in a row that nobody says in an ordinary sentence."""


class Completeness(enum.Enum):
    """What the words say about whether more will follow."""

    COMPLETE = "complete"
    UNSURE = "unsure"
    INCOMPLETE = "incomplete"


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file of rules as it is written; the comments in the files explain the fields."""

    lead_ins: Words
    fillers: Words
    open: tuple[Words, ...]
    question_words: Words
    stranded: Words
    closed: tuple[Words, ...]
    unsure: tuple[Words, ...]
    open_whole: Words
    closed_whole: Words
    digits: Words
    dictation: Words
    digits_unsure: int
    digits_complete: int
    spelling: Words


class _Rules:
    """The rules of a language, made for looking up."""

    def __init__(self, file: _File) -> None:
        self._leads = _phrases(file.lead_ins + file.fillers)
        self._open_whole, self._closed_whole = _phrases(file.open_whole), _phrases(file.closed_whole)
        self._endings: dict[Words, Completeness] = dict.fromkeys(
            _phrases(file.fillers), Completeness.INCOMPLETE
        )
        for groups, verdict in (
            (file.open, Completeness.INCOMPLETE),
            (file.closed, Completeness.COMPLETE),
            (file.unsure, Completeness.UNSURE),
        ):
            for group in groups:
                self._endings.update(dict.fromkeys(_phrases(group), verdict))
        self._questions, self._stranded = _phrases(file.question_words), _phrases(file.stranded)
        self._digits = frozenset(file.digits)
        self._dictation, self._spelling = _phrases(file.dictation), _phrases(file.spelling)
        self._digits_unsure, self._digits_complete = file.digits_unsure, file.digits_complete
        self._longest = max(map(len, self._endings.keys() | self._leads | self._stranded))

    def judge(self, words: Words) -> Completeness:
        """Judge one or more words without punctuation."""
        if words in self._closed_whole:
            return Completeness.COMPLETE
        rest = self._without_leads(words)
        if not rest or rest in self._open_whole:
            return Completeness.INCOMPLETE
        if rest in self._closed_whole:
            return Completeness.COMPLETE
        found = self._by_ending(words)
        if found is None or found is Completeness.UNSURE:
            found = self._by_digits(words) or self._by_letters(words) or found
        return found or Completeness.UNSURE

    def _without_leads(self, words: Words) -> Words:
        at = 0
        while at < len(words):
            step = next((n for n in self._lengths(words, at) if words[at : at + n] in self._leads), 0)
            if not step:
                break
            at += step
        return words[at:]

    def _by_ending(self, words: Words) -> Completeness | None:
        question: bool | None = None
        for n in self._lengths(words, 0):
            ending = words[-n:]
            if ending in self._stranded:
                if question is None:
                    question = _occurs(self._questions, words[:-n])
                if question:
                    return Completeness.UNSURE
            if ending in self._endings:
                return self._endings[ending]
        return None

    def _lengths(self, words: Words, at: int) -> range:
        """Return the numbers of words to try, longest first."""
        return range(min(self._longest, len(words) - at), 0, -1)

    def _by_digits(self, words: Words) -> Completeness | None:
        """Judge a number that is being dictated, digit by digit."""
        count = tokens = 0
        for word in reversed(words):
            if word not in self._digits and not word.isdecimal():
                break
            count += len(word) if word.isdecimal() else 1
            tokens += 1
        dictated = count > 1 and _occurs(self._dictation, words)
        if not dictated and tokens < _DICTATED_NUMBER:
            return None
        if count >= self._digits_complete:
            return Completeness.COMPLETE
        return Completeness.UNSURE if count >= self._digits_unsure else Completeness.INCOMPLETE

    def _by_letters(self, words: Words) -> Completeness | None:
        """Judge a word that is being spelled."""
        count = next(
            (n for n, word in enumerate(reversed(words)) if len(word) > 1 or not _LATIN.match(word)),
            len(words),
        )
        if count >= _SPELLED_WORD or (count == _SPELLED_WORD - 1 and _occurs(self._spelling, words)):
            return Completeness.INCOMPLETE
        return None


def judge(text: str, language: str = "en") -> Completeness:
    """Return whether ``text``, what a recogniser understood so far, sounds like a whole sentence or turn.

    The script decides about Chinese; ``language`` (``en``, ``zh-CN`` …) names the rules for Latin letters. Without
    rules for it, and without words, the punctuation alone is left. Recognisers that end every text with a full stop do
    no harm: no mark makes a sentence complete that ends in a word like "the".
    """
    folded = unicodedata.normalize("NFKC", text[-MAX_CHARACTERS:]).lower().replace("’", "'").rstrip(_CLOSING)
    if folded.endswith(_UNFINISHED_MARKS) or text.rstrip(_CLOSING).endswith("…"):
        return Completeness.INCOMPLETE
    words = tuple(_TOKEN.findall(folded))
    rules = _rules(_rules_language(folded, language))
    verdict = rules.judge(words) if words and rules is not None else Completeness.UNSURE
    if verdict is Completeness.UNSURE and words and folded.endswith(_FINISHED_MARKS):
        return Completeness.COMPLETE
    return verdict


def _rules_language(text: str, language: str) -> str:
    if _HAN.search(text):
        return "zh"
    primary = language.replace("_", "-").split("-", 1)[0].lower()
    return "en" if primary == "zh" and _LATIN.search(text) else primary


@lru_cache(maxsize=16)  # a handful of languages; which ones are asked for is not ours to say
def _rules(language: str) -> _Rules | None:
    file = resources.files("mynah.dialogue") / "data" / f"completeness.{language}.yaml"
    if not language.isalpha() or not file.is_file():
        return None
    return _parse(file.read_text(encoding="utf-8"))


def _parse(source: str) -> _Rules:
    """Read a file of rules. Raises ConfigError."""
    try:
        # Everything is text: "yes", "no", "on" and "off" are words here.
        data = yaml.load(source, _LOADER)  # noqa: S506 - makes nothing but text, lists and mappings
        return _Rules(msgspec.convert(data, _File, strict=False))
    except (msgspec.ValidationError, yaml.YAMLError) as error:
        raise ConfigError(f"completeness rules: {error}") from error


def _phrases(texts: Words) -> frozenset[Words]:
    return frozenset(tuple(_TOKEN.findall(text)) for text in texts)


def _occurs(phrases: frozenset[Words], words: Words) -> bool:
    """Whether one of the phrases is somewhere in ``words``."""
    lengths = {len(phrase) for phrase in phrases}
    return any(words[at : at + n] in phrases for n in lengths for at in range(len(words) - n + 1))
