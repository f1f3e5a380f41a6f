"""Phrase templates: one text that is at once a matcher for tokens and a rule of a speech grammar.

Syntax: words stand for themselves, ``(a|b)`` is a choice, ``[a|b]`` an optional part, ``<type>`` or
``<type:name>`` a slot or a macro. White space separates words in English and means nothing in
Chinese. Slots read a value out of the tokens (a number, a unit); macros are named pieces of template.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

import msgspec

from mynah.errors import ConfigError

Value = int | float | str
Tokens = Sequence[str]
Captures = Mapping[str, Value]

NO_CAPTURES: Captures = {}

_TOKEN = re.compile(
    r"\d+(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?"  # 12 · 3.5 · 1,000
    r"|[^\W\d_\u3400-\u9fff]+(?:'[^\W\d_\u3400-\u9fff]+)*"  # words, with inner apostrophes
    r"|[\u3400-\u9fff]"  # one token for each Chinese character
    r"|[-+*/×÷^%=]"
)
_INNER_HYPHEN = re.compile(r"(?<=[^\W\d_])-(?=[^\W\d_])")


def tokenize(text: str) -> list[str]:
    """Split text into lower-case tokens: words, numbers, arithmetic signs, single Chinese characters.

    Punctuation disappears, full-width forms become ASCII, ``twenty-one`` becomes two tokens and ``12km`` too.
    """
    folded = unicodedata.normalize("NFKC", text).lower().replace("’", "'").replace("−", "-")
    folded = _INNER_HYPHEN.sub(" ", folded)
    return [token.replace(",", "") if token[0].isdigit() else token for token in _TOKEN.findall(folded)]


class Slot(Protocol):
    """A part of a template that reads a value."""

    def read(self, tokens: Tokens, start: int) -> Iterator[tuple[int, Value]]:
        """Yield (end, value) for every way to read a value that begins at ``start``, the likeliest first."""

    def rule(self) -> str | None:
        """Name of the slot's rule in the speech grammar; None when the slot cannot be spoken."""


class Node(Protocol):
    """A piece of a compiled template."""

    def match(self, tokens: Tokens, start: int) -> Iterator[tuple[int, Captures]]:
        """Yield (end, captured values) for every way to match from ``start``."""

    def jsgf(self) -> str | None:
        """Return the expansion in JSGF; None when it holds a slot that cannot be spoken."""


class Word(msgspec.Struct, frozen=True):
    """A literal. ``tokens`` is what it looks like after normalisation (``what's`` → what is)."""

    surface: str
    tokens: tuple[str, ...]

    def match(self, tokens: Tokens, start: int) -> Iterator[tuple[int, Captures]]:
        """See `Node.match`."""
        end = start + len(self.tokens)
        if tuple(tokens[start:end]) == self.tokens:
            yield end, NO_CAPTURES

    def jsgf(self) -> str | None:
        """See `Node.jsgf`."""
        return self.surface


class Sequential(msgspec.Struct, frozen=True):
    """Parts that follow one another."""

    parts: tuple[Node, ...]

    def match(self, tokens: Tokens, start: int) -> Iterator[tuple[int, Captures]]:
        """See `Node.match`."""
        return self._match_from(0, tokens, start)

    def _match_from(self, index: int, tokens: Tokens, start: int) -> Iterator[tuple[int, Captures]]:
        if index == len(self.parts):
            yield start, NO_CAPTURES
            return
        for middle, first in self.parts[index].match(tokens, start):
            for end, rest in self._match_from(index + 1, tokens, middle):
                yield end, {**first, **rest} if first else rest

    def jsgf(self) -> str | None:
        """See `Node.jsgf`."""
        expansions = [part.jsgf() for part in self.parts]
        spoken = [expansion for expansion in expansions if expansion is not None]
        return " ".join(spoken) if len(spoken) == len(expansions) else None


class Choice(msgspec.Struct, frozen=True):
    """One of several; when ``optional``, also nothing."""

    branches: tuple[Node, ...]
    optional: bool = False

    def match(self, tokens: Tokens, start: int) -> Iterator[tuple[int, Captures]]:
        """See `Node.match`."""
        for branch in self.branches:
            yield from branch.match(tokens, start)
        if self.optional:
            yield start, NO_CAPTURES

    def jsgf(self) -> str | None:
        """See `Node.jsgf`. Branches that cannot be spoken are left out."""
        spoken = [expansion for branch in self.branches if (expansion := branch.jsgf()) is not None]
        if not spoken:
            return "" if self.optional else None
        joined = " | ".join(spoken)
        return f"[ {joined} ]" if self.optional else f"( {joined} )"


class Capture(msgspec.Struct, frozen=True):
    """A slot together with the name its value is stored under."""

    slot: Slot
    name: str

    def match(self, tokens: Tokens, start: int) -> Iterator[tuple[int, Captures]]:
        """See `Node.match`."""
        for end, value in self.slot.read(tokens, start):
            yield end, {self.name: value}

    def jsgf(self) -> str | None:
        """See `Node.jsgf`."""
        rule = self.slot.rule()
        return None if rule is None else f"<{rule}>"


_PIECE = re.compile(r"\s*([()\[\]|]|<[^<>]*>|[^\s()\[\]|<>]+)")


class TemplateParser:
    """Compiles templates of one language.

    ``normalize`` turns a literal into tokens, ``slots`` maps types to slots, ``macros`` names to templates.
    """

    def __init__(
        self, normalize: Callable[[str], list[str]], slots: Mapping[str, Slot], macros: Mapping[str, str]
    ) -> None:
        self._normalize = normalize
        self._slots = slots
        self._macros = macros
        self._compiled: dict[str, Node] = {}

    def parse(self, template: str) -> Node:
        """Compile one template. Raises ConfigError that quotes it."""
        pieces = _PIECE.findall(template)
        node, position = self._choice(template, pieces, 0, optional=False)
        if position != len(pieces):
            raise ConfigError(f"command template {template!r}: unexpected {pieces[position]!r}")
        return node

    def _choice(self, template: str, pieces: list[str], position: int, *, optional: bool) -> tuple[Node, int]:
        branches: list[Node] = []
        while True:
            parts: list[Node] = []
            while position < len(pieces) and pieces[position] not in {"|", ")", "]"}:
                part, position = self._part(template, pieces, position)
                parts.append(part)
            if not parts:
                raise ConfigError(f"command template {template!r}: an empty branch")
            branches.append(parts[0] if len(parts) == 1 else Sequential(tuple(parts)))
            if position == len(pieces) or pieces[position] != "|":
                break
            position += 1
        if len(branches) == 1 and not optional:
            return branches[0], position
        return Choice(tuple(branches), optional=optional), position

    def _part(self, template: str, pieces: list[str], position: int) -> tuple[Node, int]:
        piece = pieces[position]
        if piece in {"(", "["}:
            closing = ")" if piece == "(" else "]"
            node, position = self._choice(template, pieces, position + 1, optional=piece == "[")
            if position == len(pieces) or pieces[position] != closing:
                raise ConfigError(f"command template {template!r}: missing {closing!r}")
            return node, position + 1
        if piece.startswith("<"):
            return self._reference(template, piece[1:-1]), position + 1
        tokens = self._normalize(piece)
        if not tokens:
            raise ConfigError(f"command template {template!r}: {piece!r} holds nothing that can be said")
        return Word(piece.lower(), tuple(tokens)), position + 1

    def _reference(self, template: str, reference: str) -> Node:
        kind, _, name = reference.partition(":")
        if kind in self._slots:
            return Capture(self._slots[kind], name or kind)
        if kind not in self._macros:
            raise ConfigError(f"command template {template!r}: no slot or macro is called {kind!r}")
        if kind not in self._compiled:
            # A macro may use those defined before it; refusing the others also rules out recursion.
            names = list(self._macros)
            earlier = {other: self._macros[other] for other in names[: names.index(kind)]}
            parser = TemplateParser(self._normalize, self._slots, earlier)
            self._compiled[kind] = parser.parse(self._macros[kind])
        return self._compiled[kind]
