"""Commands as data: matching, the speech grammar, and the agreement between the two."""

from __future__ import annotations

import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mynah.errors import ConfigError
from mynah.providers.commands import MAX_TEXT_CHARS, CommandSet, load_commands, parse_commands

ENGLISH = load_commands("en")

CHINESE = parse_commands(
    """
language: zh
fillers: {anywhere: [嗯], leading: [请, 请问, 帮我], trailing: [吧, 呢]}
operators: {"*": [乘以, 乘, "*", "×"], "+": [加上, 加], "-": [减]}
lists:
  unit: {kilometre: [公里], metre: [米]}
intents:
  - {intent: time, tool: get_time, phrases: ["[现在]几点[了|钟]"]}
  - intent: calculate
    tool: calculate
    arguments: {expression: $expression}
    phrases: ["<expression>[等于(多少|几)|是多少]"]
  - intent: timer
    tool: set_timer
    arguments: {seconds: $duration}
    phrases: ["(设置|定)(<duration>|一个<duration>)[的](闹钟|计时器)"]
  - intent: reminder
    tool: set_reminder
    arguments: {seconds: $duration, text: $text}
    phrases: ["<duration>(后|以后)提醒我<text>"]
  - intent: convert
    tool: convert_unit
    arguments: {value: $value, from_unit: $from, to_unit: $to}
    phrases: ["<quantity:value> <unit:from> (是|等于) 多少 <unit:to>"]
  - {intent: volume, tool: volume, arguments: {volume: $percent}, phrases: ["音量(调到|设为)<percent>"]}
"""
)


def call(commands: CommandSet, text: str):
    match = commands.match(text)
    return match and (match.tool or match.intent, match.arguments)


@pytest.mark.parametrize(
    ("text", "tool", "arguments"),
    [
        ("What time is it?", "get_time", {}),
        ("Hey Mynah, could you please tell me the time", "get_time", {}),
        ("um what uh time is it", "get_time", {}),
        ("12 times 7?", "calculate", {"expression": "12 * 7"}),
        ("what's twelve times seven", "calculate", {"expression": "12 * 7"}),
        ("calculate 3.5 + 2 * 4", "calculate", {"expression": "3.5 + 2 * 4"}),
        ("one hundred and five minus six", "calculate", {"expression": "105 - 6"}),
        ("what is 15% of 80", "calculate", {"expression": "15 / 100 * 80"}),
        ("subtract five from twenty", "calculate", {"expression": "20 - 5"}),
        ("ten minus minus three", "calculate", {"expression": "10 - (-3)"}),
        ("how many feet are in a mile", "convert_unit", {"value": 1, "from_unit": "mile", "to_unit": "foot"}),
        ("100°F in celsius", "convert_unit", {"value": 100, "from_unit": "fahrenheit", "to_unit": "celsius"}),
        (
            "convert 5.5 km to miles",
            "convert_unit",
            {"value": 5.5, "from_unit": "kilometre", "to_unit": "mile"},
        ),
        ("set a timer for half an hour", "set_timer", {"seconds": 1800}),
        ("Set a timer for an hour and a half, please.", "set_timer", {"seconds": 5400}),
        ("set a pasta timer for ten minutes", "set_timer", {"seconds": 600, "label": "pasta"}),
        ("set a timer for 5 minutes called sourdough", "set_timer", {"seconds": 300, "label": "sourdough"}),
        ("remind me to call John in twenty minutes", "set_reminder", {"seconds": 1200, "text": "call john"}),
        ("what day is the day after tomorrow", "get_date", {"day": "day_after_tomorrow"}),
        ("cancel the egg timer", "cancel_timer", {"label": "egg"}),
        ("roll a 20 sided die", "roll_dice", {"sides": 20}),
        ("pick a number between one and ten", "random_number", {"low": 1, "high": 10}),
        ("set the volume to 50%", "self_audio_speaker_set_volume", {"volume": 50}),
        ("turn it up", "volume_up", {"delta": 10}),
        ("hello", "small_talk", {"topic": "greeting"}),
        ("hello, what time is it?", "get_time", {}),
        ("stop", "goodbye", {}),
    ],
)
def test_english(text: str, tool: str, arguments: dict[str, object]) -> None:
    assert call(ENGLISH, text) == (tool, arguments)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        "?!",
        "the quick brown fox",
        "what is the capital of france",
        "please",
        "twelve",
        "timer for",
        "小时",
    ],
)
def test_what_is_no_english_command(text: str) -> None:
    assert ENGLISH.match(text) is None


@pytest.mark.parametrize(
    ("text", "tool", "arguments"),
    [
        ("现在几点了？", "get_time", {}),
        ("请问几点呢", "get_time", {}),
        ("十二乘以七等于多少", "calculate", {"expression": "12 * 7"}),
        ("三点五加一百零五", "calculate", {"expression": "3.5 + 105"}),
        ("１２×７是多少", "calculate", {"expression": "12 * 7"}),
        ("定一个半小时的闹钟", "set_timer", {"seconds": 5400}),
        ("定一个五分钟的闹钟", "set_timer", {"seconds": 300}),
        ("半小时后提醒我喝水吧", "set_reminder", {"seconds": 1800, "text": "喝水"}),
        ("半公里等于多少米", "convert_unit", {"value": 0.5, "from_unit": "kilometre", "to_unit": "metre"}),
        ("音量调到百分之五十", "volume", {"volume": 50}),
        ("音量设为30%", "volume", {"volume": 30}),
    ],
)
def test_chinese(text: str, tool: str, arguments: dict[str, object]) -> None:
    assert call(CHINESE, text) == (tool, arguments)


@given(st.text(max_size=80))
def test_any_text_is_matched_or_not(text: str) -> None:
    for commands in (ENGLISH, CHINESE):
        match = commands.match(text)
        assert match is None or match.intent in commands.intents()


def test_long_text_is_not_searched() -> None:
    assert ENGLISH.match("please " * MAX_TEXT_CHARS + "what time is it") is None


# ---------------------------------------------------------------- the grammar


class Sampler:
    """Says random sentences of a JSGF grammar."""

    def __init__(self, jsgf: str, seed: int) -> None:
        self.random = random.Random(seed)
        bodies = re.findall(r"<(\w+)> = (.*?) ;", jsgf, re.DOTALL)
        self.rules = {
            name: self.parse(re.findall(r"[()\[\]|]|<\w+>|[^\s()\[\]|<>]+", body)) for name, body in bodies
        }

    def parse(self, pieces: list[str]) -> list[list[object]]:
        """Return branches of words, ``<rules>`` and (optional?, branches) groups; eats ``pieces``."""
        branches: list[list[object]] = [[]]
        while pieces and (piece := pieces.pop(0)) not in {")", "]"}:
            if piece == "|":
                branches.append([])
            else:
                branches[-1].append((piece == "[", self.parse(pieces)) if piece in {"(", "["} else piece)
        return branches

    def say(self, branches: list[list[object]]) -> str:
        words: list[str] = []
        for item in self.random.choice(branches):
            if isinstance(item, tuple):
                optional, inner = item
                words += [] if optional and self.random.random() < 0.5 else [self.say(inner)]
            else:
                assert isinstance(item, str)
                words.append(self.say(self.rules[item[1:-1]]) if item.startswith("<") else item)
        return " ".join(filter(None, words))

    def sentences(self, count: int) -> list[str]:
        return [self.say(self.rules["command"]) for _ in range(count)]


def test_every_sentence_of_the_grammar_is_understood() -> None:
    for sentence in Sampler(ENGLISH.jsgf(), seed=7).sentences(3000):
        assert ENGLISH.match(sentence) is not None, sentence


def test_the_grammar_speaks_of_every_intent() -> None:
    sentences = Sampler(ENGLISH.jsgf(), seed=3).sentences(3000)
    heard = {match.intent for sentence in sentences if (match := ENGLISH.match(sentence))}
    assert heard == set(ENGLISH.intents())


def test_vocabulary_is_what_the_grammar_says() -> None:
    words = ENGLISH.vocabulary()
    assert {"what", "what's", "timer", "seven", "kilometers", "please"} <= words
    assert not words & {"km", "public", "command", "grammar", "jsgf"}


def test_free_text_stays_out_of_the_grammar() -> None:
    assert "<text" not in ENGLISH.jsgf()


def test_chinese_has_no_speech_grammar() -> None:
    with pytest.raises(ConfigError, match="zh"):
        CHINESE.jsgf()


# ---------------------------------------------------------------- bad files


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ("language: en\nintents: [{intent: x, phrases: ['(a|b']}]", "missing"),
        ("language: en\nintents: [{intent: x, phrases: ['a|']}]", "empty branch"),
        ("language: en\nintents: [{intent: x, phrases: ['a)']}]", "unexpected"),
        ("language: en\nintents: [{intent: x, phrases: ['set <nothing>']}]", "nothing"),
        ("language: en\nintents: [{intent: x, phrases: ['?']}]", "can be said"),
        ("language: en\nmacros: {a: <b>, b: word}\nintents: []", ""),
        ("language: en\nintents: [{intent: x, phrase: [a]}]", "phrase"),
        ("language: [", "command file"),
    ],
)
def test_bad_files_are_refused_with_a_reason(body: str, complaint: str) -> None:
    if not complaint:
        parse_commands(body)  # an unused macro is not compiled
        return
    with pytest.raises(ConfigError, match=complaint):
        parse_commands(body)


def test_unknown_languages_are_refused() -> None:
    for language in ("xx", "../en", ""):
        with pytest.raises(ConfigError):
            load_commands(language)


def test_a_number_with_and_in_it_is_two_where_two_are_needed() -> None:
    match = ENGLISH.match("add a hundred and twelve point five")
    assert match is not None
    assert match.arguments == {"expression": "100 + 12.5"}
    match = ENGLISH.match("add a hundred and twelve and three")
    assert match is not None
    assert match.arguments == {"expression": "112 + 3"}
