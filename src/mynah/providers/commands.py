"""What the assistant can do without a language model: commands as data, one file per language.

A file ``data/commands.<language>.yaml`` serves two purposes: it is the grammar of the embedded recogniser
(`CommandSet.jsgf`) and it turns typed or recognised text into the name of a tool and its arguments
(`CommandSet.match`).

Layout of the file (see `_CommandFile`)::

    language: en
    contractions: {"what's": what is}      # word → what it is read as, in text and in templates
    fillers:
      anywhere: [um]                       # dropped wherever they stand
      leading: [please, can you]           # dropped at the start, repeatedly, until the text matches
      trailing: [please]                   # dropped at the end likewise
    speech: {before: [please], after: [please]}        # which of the fillers the speech grammar allows
    operators: {"*": [times, multiplied by]}           # for <expression>
    lists:                                 # each list is a slot type: value → phrases that mean it
      unit: {kilometre: [kilometer, kilometers, km]}
      day: {today: [today], tomorrow: [tomorrow]}
    typed_lists: {unit: {kilometre: [km]}} # further phrases that can be typed but not spoken
    macros: {what_is: (what is|what's|tell me)}        # named pieces of template, may use those above them
    intents:
      - intent: convert                    # name of what the user wants; may occur several times
        tool: convert_unit                 # empty or missing: the responder handles the intent itself
        arguments: {value: $value, from_unit: $from, to_unit: $to}   # constants and $captures
        phrases:                           # templates: (a|b) choice, [a] optional, <type:name> slot, <macro>
          - convert <quantity:value> <unit:from> to <unit:to>
        typed: []                          # templates for text only

Write phrases as a block list and quote those that begin with ``[``, which YAML would take for a list.
Slot types built in: ``number`` (int or float), ``quantity`` (also "a", "half a"), ``percent`` (int),
``duration`` (seconds, int), ``expression`` (text for `calculate`) and ``text`` (any words, typed only).
A slot's value is captured under the name after the colon, or under its type. Chinese templates may be written
with or without spaces. The first intent that matches the whole text wins; templates with ``text`` come last.
A choice is tried in the order written and an optional part is tried before it is left out: in Chinese write
``(<duration>|一个<duration>)`` rather than ``[一个]<duration>``, so that 一个半小时 is ninety minutes.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from importlib import resources

import msgspec
import yaml

from mynah.errors import ConfigError
from mynah.providers.commands_numbers import (
    chinese_duration,
    chinese_number,
    chinese_quantity,
    english_duration,
    english_number,
    english_quantity,
)
from mynah.providers.commands_slots import (
    ENGLISH_NUMBER_RULES,
    ExpressionSlot,
    ListSlot,
    NumericSlot,
    PercentSlot,
    TextSlot,
    substitute,
)
from mynah.providers.commands_template import Captures, Node, Slot, TemplateParser, Tokens, Value, tokenize

_Loader = getattr(
    yaml, "CSafeLoader", yaml.SafeLoader
)  # the C one reads a command file in a tenth of the time

MAX_TEXT_CHARS = 200
"""Longer texts are no commands; the bound keeps the backtracking matcher away from pasted documents."""

MAX_WORDINGS = 6
"""Ways to take fillers off one end of a text that are tried: people say two or three, an attacker hundreds."""

_JSGF_WORD = re.compile(r"(?<![<\w'])[a-z][a-z']*(?![\w'>])")


class CommandMatch(msgspec.Struct, frozen=True):
    """What a text asks for. ``tool`` is empty for intents that the responder handles itself."""

    intent: str
    tool: str
    arguments: dict[str, Value]


class _Fillers(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Words that carry no meaning for a command."""

    anywhere: list[str] = []
    leading: list[str] = []
    trailing: list[str] = []


class _Speech(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Polite words that the speech grammar allows around a command."""

    before: list[str] = []
    after: list[str] = []


class _Intent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One entry of ``intents``."""

    intent: str
    tool: str = ""
    arguments: dict[str, Value] = {}
    phrases: list[str] = []
    typed: list[str] = []


class _CommandFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A command file as it is on disk."""

    language: str
    intents: list[_Intent]
    contractions: dict[str, str] = {}
    fillers: _Fillers = _Fillers()
    speech: _Speech = _Speech()
    operators: dict[str, list[str]] = {}
    lists: dict[str, dict[str, list[str]]] = {}
    typed_lists: dict[str, dict[str, list[str]]] = {}
    macros: dict[str, str] = {}


class _Pattern(msgspec.Struct, frozen=True):
    """One compiled template of an intent."""

    intent: _Intent
    node: Node
    free_text: bool


class CommandSet:
    """The commands of one language, compiled. Immutable and safe to share between threads."""

    def __init__(self, file: _CommandFile) -> None:
        self.language = file.language
        self._file = file
        self._contractions = {tuple(tokenize(key)): tokenize(text) for key, text in file.contractions.items()}
        self._anywhere = {word for filler in file.fillers.anywhere for word in tokenize(filler)}
        self._leading = self._phrases(file.fillers.leading)
        self._trailing = self._phrases(file.fillers.trailing)
        parser = TemplateParser(self._expand, self._slots(), file.macros)
        self._spoken: list[_Pattern] = []
        typed: list[_Pattern] = []
        for intent in file.intents:
            self._spoken += self._compile(parser, intent, intent.phrases)
            typed += self._compile(parser, intent, intent.typed)
        patterns = [*self._spoken, *typed]
        self._patterns = [pattern for pattern in patterns if not pattern.free_text]
        self._free_text = [pattern for pattern in patterns if pattern.free_text]

    def match(self, text: str) -> CommandMatch | None:
        """Return what a text asks for, or None when it is no command (or longer than MAX_TEXT_CHARS).

        Case, punctuation and fillers do not matter; numbers may be digits or words.
        """
        if len(text) > MAX_TEXT_CHARS:
            return None
        candidates = list(self._without_fillers(self._normalize(text)))
        # Free text would swallow fillers, so those templates see the barest wording first.
        searches = ((self._patterns, candidates), (self._free_text, candidates[::-1]))
        for patterns, wordings in searches:
            for wording, pattern in itertools.product(wordings, patterns):
                captures = _match_whole(pattern.node, wording)
                if captures is not None:
                    return _result(pattern.intent, captures)
        return None

    def jsgf(self) -> str:
        """Return the spoken commands as a JSGF grammar with the public rule ``<command>`` (English only)."""
        if self.language != "en":
            raise ConfigError(f"there is no speech grammar for the language {self.language!r}")
        alternatives = [
            expansion for pattern in self._spoken if (expansion := pattern.node.jsgf()) is not None
        ]
        lines = ["#JSGF V1.0;", "grammar commands;", ENGLISH_NUMBER_RULES]
        for name, values in self._file.lists.items():
            lines.append(
                f"<{name}> = {' | '.join(phrase for phrases in values.values() for phrase in phrases)} ;"
            )
        # Signs and the letter x are for typed text.
        operators = " | ".join(
            phrase for phrases in self._file.operators.values() for phrase in phrases if len(phrase) > 1
        )
        lines.append(f"<expression> = <number> ( {operators} ) <number> ;")
        lines += [f"<c{index}> = {alternative} ;" for index, alternative in enumerate(alternatives)]
        body = " | ".join(f"<c{index}>" for index in range(len(alternatives)))
        before = f"[ {' | '.join(self._file.speech.before)} ]" if self._file.speech.before else ""
        after = f"[ {' | '.join(self._file.speech.after)} ]" if self._file.speech.after else ""
        lines.append(f"public <command> = {before} ( {body} ) {after} ;")
        return "\n".join(lines) + "\n"

    def vocabulary(self) -> frozenset[str]:
        """Return every word of the speech grammar."""
        body = self.jsgf().split(";", 2)[2].replace("public", "")
        return frozenset(_JSGF_WORD.findall(body))

    def intents(self) -> tuple[str, ...]:
        """Return the names of all intents, in the order of the file."""
        return tuple(dict.fromkeys(intent.intent for intent in self._file.intents))

    def tools(self) -> frozenset[str]:
        """Return the names of all tools that a match may ask for."""
        return frozenset(intent.tool for intent in self._file.intents if intent.tool)

    # ------------------------------------------------------------ text → tokens

    def _normalize(self, text: str) -> list[str]:
        return [token for token in self._expand(text) if token not in self._anywhere]

    def _expand(self, text: str) -> list[str]:
        tokens: list[str] = []
        for token in tokenize(text):
            tokens += self._contractions.get((token,), [token])
        return tokens

    def _phrases(self, phrases: Iterable[str]) -> list[tuple[str, ...]]:
        return sorted((tuple(self._expand(phrase)) for phrase in phrases), key=len, reverse=True)

    def _without_fillers(self, tokens: list[str]) -> Iterator[Tokens]:
        """Yield the tokens as they are, then with ever more leading and trailing fillers taken away."""
        heads = [tuple(tokens)]
        for head in heads:  # grows while it is read
            if len(heads) < MAX_WORDINGS:
                heads += [rest for rest in _without_prefix(head, self._leading) if rest not in heads]
        for head in sorted(heads, key=len, reverse=True):
            tails = [head]
            for tail in tails:
                if len(tails) < MAX_WORDINGS:
                    tails += [rest for rest in _without_suffix(tail, self._trailing) if rest not in tails]
            yield from tails

    # ------------------------------------------------------------ compilation

    def _compile(self, parser: TemplateParser, intent: _Intent, templates: list[str]) -> Iterator[_Pattern]:
        for template in templates:
            node = parser.parse(template)
            yield _Pattern(intent, node, free_text="<text" in template)

    def _slots(self) -> dict[str, Slot]:
        chinese = self.language.startswith("zh")
        number = chinese_number if chinese else english_number
        slots: dict[str, Slot] = {
            "number": NumericSlot("number", number),
            "quantity": NumericSlot("quantity", chinese_quantity if chinese else english_quantity),
            "duration": NumericSlot("duration", chinese_duration if chinese else english_duration),
            "percent": PercentSlot(
                number,
                before=tuple("百分之") if chinese else (),
                after=("%",) if chinese else ("%", "percent"),
            ),
            "expression": ExpressionSlot(number, self._phrase_table(self._file.operators)),
            "text": TextSlot(),
        }
        for name, values in self._file.lists.items():
            typed = self._file.typed_lists.get(name, {})
            slots[name] = ListSlot(name, {**self._phrase_table(typed), **self._phrase_table(values)})
        return slots

    def _phrase_table(self, values: Mapping[str, list[str]]) -> dict[tuple[str, ...], str]:
        return {tuple(self._expand(phrase)): value for value, phrases in values.items() for phrase in phrases}


def _match_whole(node: Node, tokens: Tokens) -> Captures | None:
    """Return the captures of the first way in which a node covers all tokens."""
    for end, captures in node.match(tokens, 0):
        if end == len(tokens):
            return captures
    return None


def _result(intent: _Intent, captures: Captures) -> CommandMatch:
    arguments = {name: substitute(value, captures) for name, value in intent.arguments.items()}
    return CommandMatch(intent.intent, intent.tool, arguments)


def _without_prefix(tokens: tuple[str, ...], phrases: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Return what is left of the tokens after each of the phrases that they begin with."""
    return [tokens[len(one) :] for one in phrases if len(tokens) > len(one) and tokens[: len(one)] == one]


def _without_suffix(tokens: tuple[str, ...], phrases: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Return what is left of the tokens before each of the phrases that they end with."""
    return [tokens[: -len(one)] for one in phrases if len(tokens) > len(one) and tokens[-len(one) :] == one]


def parse_commands(text: str) -> CommandSet:
    """Compile the text of a command file. Raises ConfigError that says what is wrong with it."""
    try:
        return CommandSet(
            msgspec.convert(
                yaml.load(text, _Loader),  # noqa: S506 - both are safe loaders
                _CommandFile,
            )
        )
    except (msgspec.ValidationError, yaml.YAMLError) as error:
        raise ConfigError(f"command file: {error}") from error


@lru_cache(maxsize=8)  # a handful of languages, compiled once each
def load_commands(language: str) -> CommandSet:
    """Return the commands of a language (``en`` or ``zh``). Raises ConfigError when it has no file."""
    file = resources.files("mynah.providers") / "data" / f"commands.{language}.yaml"
    if not language.isalpha() or not file.is_file():
        raise ConfigError(f"there are no built-in commands for the language {language!r}")
    return parse_commands(file.read_text(encoding="utf-8"))
