"""Targets that read sound, what people say, and what language models answer."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction

import msgspec

from mynah.audio.espeak import script_runs, speakable
from mynah.audio.opus import MAX_PACKET_MS, OpusDecoder, packet_duration_ms
from mynah.dialogue import emotion, text
from mynah.errors import AudioError, ProviderError, ToolError
from mynah.observe import redactor
from mynah.providers import chat_api
from mynah.providers.commands import load_commands
from mynah.providers.llm.openai_stream import ReplyDecoder, SseDecoder
from mynah.texts.spoken import number
from mynah.tools import arguments
from mynah.tools.arithmetic import ArithmeticFault, Parser
from mynah.tools.plugins.units import find_unit
from mynah.wire import frames
from tests.fuzz import samples
from tests.fuzz.mutations import Shape
from tests.fuzz.target import KILO, MEGA, loaded, pieces, target, written

# ---------------------------------------------------------------- audio

_decoders: dict[int, OpusDecoder] = {}


@target("opus.decode", samples.opus_samples, Shape.BINARY, frames.MAX_PACKET_BYTES)
def _opus(data: bytes) -> bool:
    rate = (8000, 16000, 24000, 48000)[len(data) % 4]
    decoder = _decoders.get(rate) or _decoders.setdefault(rate, OpusDecoder(rate))
    try:
        duration = packet_duration_ms(data)
    except AudioError:
        duration = 0.0
    try:
        pcm = decoder.decode(data)
    except AudioError:
        return False
    assert 2.5 <= duration <= MAX_PACKET_MS
    assert len(pcm) == round(duration * rate / 1000) * 2
    return True


# ---------------------------------------------------------------- language models


@target("arguments.parse and fit", samples.TOOL_CALLS, Shape.JSON, 64 * KILO)
def _arguments(data: bytes) -> bool:
    try:
        call = loaded(data)
    except ValueError:
        call = None
    said, schema = call if isinstance(call, list) and len(call) == 2 else (written(data), {"type": "object"})
    try:
        parsed = arguments.parse(said) if isinstance(said, str) else said if isinstance(said, dict) else {}
        if not isinstance(schema, dict):
            return False
        fitted = arguments.fit(parsed, schema)
    except ToolError as error:
        assert len(str(error)) < 2 * len(data) + 500
        str(error).encode()
        return False
    properties = schema.get("properties")
    assert set(fitted) <= set(properties if isinstance(properties, dict) else ())
    msgspec.json.encode(fitted)
    assert all(math.isfinite(value) for value in fitted.values() if isinstance(value, float))
    return bool(fitted)


@target("openai_stream (bytes)", samples.STREAMS, Shape.TEXT, MEGA)
def _stream(data: bytes) -> bool:
    def read(cut: Iterator[bytes]) -> list[str] | None:
        decoder = SseDecoder()
        try:
            return [event for piece in cut for event in decoder.feed(piece)] + decoder.finish()
        except ProviderError:
            return None

    events = read(iter([data]))
    assert len(data) > 20_000 or read(pieces(data, len(data))) == events, (
        "the events depend on how the bytes are cut"
    )
    return events is not None and _reply(events)


@target("openai_stream (events)", samples.EVENTS, Shape.JSON, MEGA)
def _events(data: bytes) -> bool:
    return _reply(
        [data.decode("utf-8", "replace"), '{"choices":[{"delta":{"content":"x"},"finish_reason":"stop"}]}']
    )


def _reply(events: list[str]) -> bool:
    reply = ReplyDecoder()
    try:
        chunks = [chunk for event in events for chunk in reply.feed(event)] + reply.finish()
    except ProviderError as error:
        assert len(str(error)) < 2000
        return False
    msgspec.json.encode(chunks)
    return True


@target("chat_api (refusals)", samples.REFUSALS, Shape.JSON, 64 * KILO)
def _refusal(data: bytes) -> bool:
    body = data.decode("utf-8", "replace")
    message, code = chat_api._error_of(body)
    assert len(message) <= 500 and isinstance(code, str)
    wait = chat_api._retry_after({"Retry-After": body})
    assert wait is None or (wait >= 0 and not math.isnan(wait))
    return wait is not None


@target("text.SentenceSplitter", samples.PROSE, Shape.TEXT, 16 * KILO)
def _sentences(data: bytes) -> bool:
    prose = written(data)
    spoken_letters = [char for char in prose if char.isalnum()]
    for cut in (pieces(prose, len(prose)), iter([prose])):
        splitter = text.SentenceSplitter()
        found = [sentence for piece in cut for sentence in splitter.feed(piece)] + splitter.flush()
        assert [char for sentence in found for char in sentence if char.isalnum()] == spoken_letters, (
            "text was lost"
        )
        assert all(text.is_speakable(sentence) for sentence in found)
        assert all(len(sentence) <= text.MAX_SENTENCE for sentence in found)
        assert splitter.flush() == []
    return len(found) > 1


@target("text.spoken and shown", samples.PROSE, Shape.TEXT, 16 * KILO)
def _voiced(data: bytes) -> bool:
    prose = written(data)
    said, seen = text.spoken(prose), text.shown(prose)
    assert len(said) <= 2 * len(prose)  # cells of a table get commas between them
    assert len(seen) <= len(prose)
    for shown in (said, seen):
        assert shown == shown.strip() and "\n" not in shown
    assert emotion.find(prose) is None or emotion.find(prose)[0] in prose  # type: ignore[index]
    return bool(said)


@target("espeak.script_runs", samples.PROSE, Shape.TEXT, 2 * KILO)
def _scripts(data: bytes) -> bool:
    words = speakable(written(data))
    for language in ("en", "zh"):
        runs = script_runs(words, language)
        assert "".join(run for _, run in runs) == words
    return bool(words)


@target("commands.match", samples.command_samples, Shape.TEXT, KILO)
def _command(data: bytes) -> bool:
    asked = written(data)
    found = [load_commands(language).match(asked) for language in ("en", "zh")]
    return any(match is not None for match in found)


@target("arithmetic.Parser", samples.SUMS, Shape.TEXT, 16 * KILO)
def _sum(data: bytes) -> bool:
    find_unit(written(data))

    def say(value: Fraction) -> str:
        return number(value, "en", decimals=6)[0]

    try:
        term = Parser(written(data), say, lambda kind, a, b: f"{a} {kind.value} {b}").parse()
    except ArithmeticFault:
        return False
    for language in ("en", "zh"):
        said, _ = number(term.value, language, decimals=6)
        assert 0 < len(said) < 200
    return True


@target("units.find_unit", samples.UNITS, Shape.TEXT, 16 * KILO)
def _unit(data: bytes) -> bool:
    return find_unit(written(data)) is not None


_redact = redactor({"named-token"})


@target("observe.redactor", samples.LOG_LINES, Shape.TEXT, 16 * KILO)
def _log_line(data: bytes) -> bool:
    line = written(data)
    kept = _redact(line)
    assert "named-token" not in kept
    return kept != line
