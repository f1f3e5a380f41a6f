"""Log lines: format, levels, redaction, standard logging, turns."""

from __future__ import annotations

import asyncio
import io
import logging
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loguru import logger

from mynah import config, observe
from mynah.config import Settings
from mynah.dialogue.record import TurnRecord
from mynah.errors import ConfigError


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    logger.remove()
    logger.configure(patcher=lambda record: None)
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    root.setLevel(level)


def settings(*overrides: str) -> Settings:
    return config.defaults("log.log_file=", *overrides)


def lines(*overrides: str) -> io.StringIO:
    stream = io.StringIO()
    observe.configure(settings(*overrides), stream)
    return stream


def test_the_documented_format() -> None:
    stream = lines()
    logger.bind(tag="websocket").info("{} connected", "aa:bb")
    assert re.fullmatch(
        r"\d{6} \d\d:\d\d:\d\d\[\d+\.\d+\.\d+_SiPoBuEsnofu\]\[websocket\]-INFO-aa:bb connected\n",
        stream.getvalue(),
    )


def test_a_line_without_tag_names_its_module() -> None:
    stream = lines("log.log_format={extra[tag]}|{message}")
    logger.info("{not a field}")
    assert stream.getvalue() == "tests.observe.test_logs|{not a field}\n"


def test_a_terminal_gets_colours_and_a_pipe_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.delenv("NO_COLOR", raising=False)
    terminal = Terminal()
    observe.configure(settings(), terminal)
    logger.info("x")
    assert "\x1b[32m" in terminal.getvalue()
    monkeypatch.setenv("NO_COLOR", "1")
    plain = Terminal()
    observe.configure(settings(), plain)
    logger.info("x")
    assert "\x1b" not in plain.getvalue()


def test_levels_of_single_modules() -> None:
    stream = lines(
        "log.log_format={message}", "log.log_level=WARNING", "log.levels={mylib: DEBUG, tests.other: ERROR}"
    )
    logger.info("hidden")
    logger.warning("shown")
    logging.getLogger("mylib.part").debug("library detail")
    logging.getLogger("yourlib").info("library chatter")
    logging.getLogger("yourlib").warning("library trouble")
    assert stream.getvalue().splitlines() == ["shown", "library detail", "library trouble"]


def test_standard_logging_keeps_name_and_traceback() -> None:
    stream = lines("log.log_format={name}|{extra[tag]}|{level}|{message}")
    try:
        raise ValueError("token=abcdef")
    except ValueError:
        logging.getLogger("lib").exception("it broke: %s", "badly")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old thing", DeprecationWarning, stacklevel=1)
    text = stream.getvalue()
    assert text.startswith("lib|lib|ERROR|it broke: badly\nTraceback")
    assert "ValueError: token=***" in text
    assert "old thing" in text


def test_tracebacks_do_not_show_values() -> None:
    stream = lines("log.log_format={message}")
    password = "what people said"
    try:
        raise RuntimeError("Authorization: Bearer abc.def")
    except RuntimeError:
        logger.exception("broken")
    text = stream.getvalue()
    assert "RuntimeError" in text
    assert password not in text.replace('password = "what people said"', "")
    assert "abc.def" not in text


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Bearer SECRET",
        "{'Authorization': 'Bearer SECRET', 'x': 1}",
        "authorization=SECRET",
        "bearer SECRET",
        "ws://h/xiaozhi/v1/?token=SECRET&device-id=x",
        '{"websocket":{"token":"SECRET","version":1}}',
        '{"hmac": "SECRET"}',
        '{"application":{"elf_sha256":"SECRET"}}',
        "api_key='SECRET'",
        "access_token: SECRET",
        "POST https://x/?api-key=SECRET",
        "secret_key=SECRET, password=SECRET",
        "the key sk-SECRETSECRET99 is wrong",
        "configured-SECRET-value",
    ],
)
def test_secrets_are_blotted_out(text: str) -> None:
    stream = lines("log.log_format={message}", "LLM.ChatGLMLLM.api_key=configured-SECRET-value")
    logger.info(text)
    logger.info("{}", text)
    logging.getLogger("lib").warning(text)
    assert "SECRET" not in stream.getvalue()
    assert stream.getvalue().count("***") >= 3


@pytest.mark.parametrize(
    "text", ["Bearer token missing", "max_tokens=500", "the token of the kitchen", "keyboard: x"]
)
def test_ordinary_words_stay(text: str) -> None:
    assert observe.redactor(())(text) == text


@given(st.text(min_size=4), st.text(), st.text())
def test_known_secrets_never_pass(secret: str, before: str, after: str) -> None:
    if "*" not in secret:
        assert secret not in observe.redactor([secret])(f"{before} {secret} {after}")


def test_the_log_file(tmp_path: Path) -> None:
    stream = io.StringIO()
    made = config.defaults(
        f"log.log_dir={tmp_path}/logs", "log.log_file=s.log", "server.auth_key=very-secret-key"
    )
    observe.configure(made, stream)
    logger.bind(tag="t").info("key very-secret-key 你好")
    logger.remove()
    text = (tmp_path / "logs/s.log").read_text("utf-8")
    assert re.search(
        r"^\d{4}-\d\d-\d\d .* - \d\S+_SiPoBuEsnofu - tests\.observe\.test_logs - INFO - t - key \*\*\* 你好$",
        text,
        re.MULTILINE,
    )


def test_an_unwritable_log_file_is_said_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    stream = io.StringIO()
    observe.configure(config.defaults(f"log.log_dir={tmp_path}/file"), stream)
    logger.info("goes on")
    assert stream.getvalue().count("no log file") == 1
    assert "goes on" in stream.getvalue()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("log.log_format={nothing}", r"log\.log_format: there is no \{nothing\}"),
        ("log.log_format=<red>{message}", r"log\.log_format"),
        ("log.log_format={message", r"log\.log_format"),
    ],
)
def test_an_unusable_format_is_named(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        observe.configure(settings(override), io.StringIO())


def test_one_line_per_turn() -> None:
    stream = lines("log.log_format={level}|{message}")
    turns = observe.TurnLog()
    turns.on_session_opened("aa:bb", "s-1")
    turns.on_turn(
        TurnRecord(
            "aa:bb",
            mode="auto",
            text="what time is it",
            answer="Noon.",
            speech_end=10.0,
            transcript=10.2,
            first_frame=10.5,
        )
    )
    turns.on_turn(TurnRecord("aa:bb", interrupted=True))
    turns.on_turn(TurnRecord("aa:bb", mode="manual", error="provider_timeout", tts_failures=2))
    turns.on_session_closed("aa:bb", "s-1")
    assert stream.getvalue().splitlines() == [
        "INFO|aa:bb connected, session s-1",
        "INFO|aa:bb turn (auto) done: 15 characters in, 5 out, transcript 200 ms, first frame 500 ms",
        "INFO|aa:bb turn (unprompted) interrupted: 0 characters in, 0 out",
        "WARNING|aa:bb turn (manual) failed: provider_timeout: 0 characters in, 0 out, 2 sentences without voice",
        "INFO|aa:bb disconnected, session s-1",
    ]


def test_words_are_logged_at_debug_only() -> None:
    record = TurnRecord("aa:bb", text="my secret wish", answer="I see")
    quiet, loud = lines(), io.StringIO()
    observe.TurnLog().on_turn(record)
    observe.configure(settings("log.log_level=DEBUG"), loud)
    observe.TurnLog().on_turn(record)
    assert "wish" not in quiet.getvalue()
    assert "my secret wish" in loud.getvalue()


async def test_many_connections_at_once_are_told_together() -> None:
    stream = lines("log.log_format={level}|{message}")
    turns = observe.TurnLog()
    for number in range(600):
        turns.on_session_opened(f"d{number}", "s")
    for number in range(50):
        turns.on_session_closed(f"d{number}", "s")
    one_by_one = stream.getvalue().splitlines()
    assert 100 <= len(one_by_one) < 400  # a slow machine earns some more meanwhile
    assert one_by_one[99] == "INFO|d99 connected, session s"
    async with asyncio.timeout(10):
        while "more connected" not in stream.getvalue():
            await asyncio.sleep(0.05)
    summary = stream.getvalue().splitlines()[-1]
    found = re.fullmatch(
        r"INFO\|(\d+) more connected(?:, (\d+) more disconnected)?; each one .*DEBUG", summary
    )
    assert found is not None, summary
    assert len(one_by_one) + int(found[1]) + int(found[2] or 0) == 650


async def test_at_debug_every_connection_is_told() -> None:
    stream = lines("log.log_format={message}", "log.levels={mynah.observe: DEBUG}")
    turns = observe.TurnLog()
    for number in range(600):
        turns.on_session_opened(f"d{number}", "s")
    assert stream.getvalue().count("connected, session s") == 600
